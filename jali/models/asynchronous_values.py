"""What an asynchronous network is told, and what it leaves: rules, channels, events, trainings. Frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from jali.errors import ModelError
from jali.plain import is_finite, is_whole

if TYPE_CHECKING:
    from jali.maths.local_laplacian import Degree, NodeOf

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SpectralRule:
    """How a node decides which input to prune; see :mod:`jali.maths.local_laplacian`.

    ``degree``: "directed" (D) or "weighted" (D_W). ``node_of``: "eigenvector" or "lapack-order", the published code's.
    ``every``: nodes decide at each such update. ``tolerance``: imaginary parts up to this share of the Laplacian count as zero
    in the rule "eigenvector".
    """

    degree: Degree = "weighted"
    node_of: NodeOf = "eigenvector"
    every: int = 1
    tolerance: float = 1e-7

    def __post_init__(self) -> None:
        for name, known in (("degree", ("directed", "weighted")), ("node_of", ("eigenvector", "lapack-order"))):
            if getattr(self, name) not in known:
                raise ModelError(f"{name} is {getattr(self, name)!r}; give one of {', '.join(map(repr, known))}")
        if not is_whole(self.every) or self.every < 1:
            raise ModelError(f"every is {self.every!r}; give a whole number of updates, at least 1")
        if not is_finite(self.tolerance) or not 0 <= self.tolerance < 1:
            raise ModelError(f"tolerance is {self.tolerance!r}; give a number in [0, 1)")


@dataclass(frozen=True)
class Channel:
    """How messages between nodes travel. ``delay``: each takes 0 to this many updates, at random. ``loss``: the probability
    that it never comes. ``reordered``: an older message that comes later replaces a newer one; else it is dropped."""

    delay: int = 0
    loss: float = 0.0
    reordered: bool = False

    def __post_init__(self) -> None:
        if not is_whole(self.delay) or not 0 <= self.delay <= 1000:
            raise ModelError(f"delay is {self.delay!r}; give a whole number of updates, 0 to 1000")
        if not is_finite(self.loss) or not 0 <= self.loss <= 1:
            raise ModelError(f"loss is {self.loss!r}; give a probability in [0, 1]")
        if self.reordered and not self.delay:
            raise ModelError("reordered messages without a delay: none overtakes another one; give delay=1 or more")

    @property
    def perfect(self) -> bool:
        """Whether every node knows at any time what the others have at that time."""
        return self.delay == 0 and self.loss == 0


@dataclass(frozen=True)
class Event:
    """``node`` removed the edge ``source`` → ``target`` in update ``update``, as its Laplacian had an eigenvalue of imaginary
    part ``imaginary``. Updates count from 0 over all that the network was trained on."""

    update: int
    node: int
    source: int
    target: int
    imaginary: float


@dataclass(frozen=True, eq=False, repr=False)
class Training:
    """What R runs over T inputs left. ``errors`` ``(R, T)``: mean |output − target| after the updates of each input; ``edges``
    ``(R, T)``: how many there were; ``events``: per run, every edge that went; ``eigenvalues`` ``(R, T · updates, n, n)``: if
    traced, those at each node in LAPACK's order, NaN for inputs."""

    errors: Floats
    edges: NDArray[np.int64]
    events: tuple[tuple[Event, ...], ...]
    eigenvalues: NDArray[np.complex128] | None = None

    def __repr__(self) -> str:
        runs, inputs = self.errors.shape
        gone, error = sum(map(len, self.events)), self.errors[:, -1].mean()
        return f"Training of {runs} runs over {inputs} inputs: error at the last {error:.3g}, {gone} edges removed"
