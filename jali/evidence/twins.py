"""Trajectory evidence: a training beside its twin that starts δ₀ away in one weight, reduced window by window.

R. Sahu, S. Chadha, A. Mathur, N. Nagaraj, S. Saha, "A chaos-causality approach to principled pruning of dense neural
networks", Chaos Theory and Applications 7 (2025) 154-165. The difference of each weight between the two trainings is a series;
a window of it becomes one exponent as soon as it is full, so that no more than one window is ever held.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from jali.errors import DataError, ModelError
from jali.maths.series_exponents import direct, rosenstein
from jali.modes import evaluation_mode
from jali.plain import is_finite, is_whole

Floats = NDArray[np.float64]
Training = Callable[[nn.Module], Iterable[object]]  # trains its argument in place and yields after every iteration
Watch = Callable[[nn.Module], ArrayLike]
Method = Literal["direct", "rosenstein"]
_CHUNK = 4096  # series that are reduced at a time


@dataclass(frozen=True)
class Perturbation:
    """Which weights of the twin start elsewhere: entries ``indices`` of ``parameter``, each by ``delta`` (δ₀)."""

    parameter: str
    indices: tuple[tuple[int, ...], ...]
    delta: float = 1e-4

    @staticmethod
    def first(model: nn.Module, delta: float = 1e-4) -> Perturbation:
        """The paper's w₁₁: the first entry of the first parameter."""
        for name, parameter in model.named_parameters():
            return Perturbation(name, ((0,) * parameter.dim(),), delta)
        raise ModelError(f"{type(model).__name__} has no parameter; there is nothing to train")

    def apply(self, model: nn.Module) -> None:
        """Move the weights of ``model``. Raises :class:`ModelError` for entries that it lacks, :class:`DataError` for δ₀."""
        parameters = dict(model.named_parameters())
        if self.parameter not in parameters:
            raise ModelError(f"the model has no parameter {self.parameter!r}; it has {', '.join(parameters)}")
        weight = parameters[self.parameter].detach()
        if not is_finite(self.delta) or self.delta == 0:
            raise DataError(f"delta {self.delta!r} is not a finite number other than 0; the paper takes 1e-4")
        for index in self.indices:
            if len(index) != weight.dim() or not all(0 <= i < n for i, n in zip(index, weight.shape, strict=True)):
                raise ModelError(f"parameter {self.parameter!r} of shape {tuple(weight.shape)} has no entry {index}")
            before = weight[index].clone()
            weight[index] += self.delta
            if torch.equal(before, weight[index]):
                raise DataError(
                    f"delta {self.delta:g} is lost in the rounding of {weight.dtype} at {self.parameter}{list(index)} = "
                    f"{float(before):g}; give a larger one, or a float64 model"
                )


@dataclass(frozen=True, eq=False)
class Trajectory:
    """What a training and its twin did, D windows long.

    ``exponents``: parameter → (D, *shape), per iteration, NaN or −inf where a window has none; ``performance`` (D, ...): what
    was watched of the unperturbed network at the end of each window; ``distance`` (D,): ‖Δw‖₂ over all parameters there;
    ``ends`` (D,): iterations done by then; ``iterations``: of the whole training.
    """

    exponents: Mapping[str, Floats]
    performance: Floats
    distance: Floats
    ends: NDArray[np.int64]
    iterations: int
    window: int
    stride: int
    method: Method
    perturbation: Perturbation

    def __len__(self) -> int:
        return len(self.ends)

    def until(self, iterations: int) -> Trajectory:
        """What a training that stopped after ``iterations`` would have left: the windows that had closed by then."""
        count = int((self.ends <= iterations).sum())
        exponents = {name: values[:count] for name, values in self.exponents.items()}
        parts = {name: getattr(self, name)[:count] for name in ("performance", "distance", "ends")}
        return replace(self, exponents=exponents, iterations=min(iterations, self.iterations), **parts)


def trajectory(
    model: nn.Module,
    train: Training,
    watch: Watch,
    *,
    perturbation: Perturbation | None = None,
    window: int = 200,
    stride: int | None = None,
    method: Method = "direct",
    most: int | None = None,
) -> tuple[Trajectory, nn.Module]:
    """Train a copy of ``model`` and a perturbed one in lockstep; the trajectory, and the unperturbed network as trained.

    ``train(network)`` is a generator that trains its argument in place and yields after every iteration; it must depend on
    nothing but the network and PyTorch's CPU random numbers, of which both get the same. ``watch(network)`` is what the
    exponents are held against, as the training accuracy: a number, or one per network of a bank; it runs in evaluation mode
    without gradients. ``perturbation``: w₁₁ by 1e-4 unless given. A window of ``window`` iterates closes every ``stride``
    iterations (``window`` unless given, so that windows do not overlap; less for sliding ones). ``most``: stop after so many
    iterations. ``model`` is not changed.

    ``method``: "direct", equation 5 of the paper on each window: how much the difference has grown since just before it (δ₀
    before the first iteration, in all weights), or "rosenstein", the slope of the mean log divergence within the series.

    Raises :class:`DataError` for a training that ends before the first window closes, that lasts longer for one of
    the twins, or that is not deterministic (its first iterations are run twice), for a perturbation without any effect, and
    for windows out of range.
    """
    stride = window if stride is None else stride
    _check_windows(window, stride, most)
    if method not in ("direct", "rosenstein"):
        raise DataError(f"method {method!r} is unknown; it is 'direct' or 'rosenstein'")
    moved = Perturbation.first(model) if perturbation is None else perturbation
    _refuse_chance(model, train)
    with torch.random.fork_rng(devices=[]):
        state = torch.get_rng_state()
        twin = copy.deepcopy(model)
        moved.apply(twin)
        one, other = _Run(copy.deepcopy(model), train, state), _Run(twin, train, state)
        windows = _Windows(one.model, other.model, window, stride, method, moved.delta, len(moved.indices))
        done = 0
        while (most is None or done < most) and _together(one, other):
            done += 1
            if windows.add(done):
                windows.watched.append(_watched(one.model, watch))
    if not windows.ends:
        raise DataError(
            f"the training ended after {done} iterations, before a window of {window} was full; train longer, or give a "
            "smaller window"
        )
    if not windows.parted:
        raise DataError(
            f"the twins never parted: {moved.parameter}{list(moved.indices[0])} has no effect on the training, as the weight of "
            "an input that is always 0; perturb another one"
        )
    return windows.result(done, stride, moved), one.model


def _check_windows(window: int, stride: int, most: int | None) -> None:
    if not is_whole(window) or window < 2:
        raise DataError(f"window {window!r} is not a whole number of iterates, at least 2; the paper takes 200")
    if not is_whole(stride) or not 1 <= stride <= window:
        raise DataError(f"stride {stride!r} is not a whole number from 1 to the window of {window}")
    if most is not None and (not is_whole(most) or most < window):
        raise DataError(f"most={most!r} is no whole number of iterations, at least the window of {window}")


class _Run:
    """One of the twins: its network, its training, and its own stream of random numbers."""

    def __init__(self, model: nn.Module, train: Training, state: Tensor) -> None:
        self.model, self.state = model, state
        self.steps = iter(train(model))

    def advance(self) -> bool:
        """One more iteration; False when the training has ended."""
        torch.set_rng_state(self.state)
        try:
            next(self.steps)
        except StopIteration:
            return False
        self.state = torch.get_rng_state()
        return True


def _together(one: _Run, other: _Run) -> bool:
    going = one.advance()
    if other.advance() != going:
        raise DataError(
            "one of the twins stopped before the other: the length of the training depends on the weights; train for a "
            "fixed number of iterations, and cut the trajectory with until()"
        )
    return going


def _refuse_chance(model: nn.Module, train: Training, iterations: int = 3) -> None:
    """:class:`DataError` if two runs from the same weights and random numbers part."""
    with torch.random.fork_rng(devices=[]):
        state = torch.get_rng_state()
        one, other = (_Run(copy.deepcopy(model), train, state) for _ in range(2))
        for done in range(1, iterations + 1):
            if not _together(one, other):
                return
            for (name, p), q in zip(one.model.named_parameters(), other.model.parameters(), strict=True):
                if not torch.equal(p, q) and not (p.isnan() & q.isnan()).any():
                    raise DataError(
                        f"the training is not deterministic: after {done} iterations two runs from the same weights differ in "
                        f"{name!r}; make the generators of the random numbers inside train()"
                    )


@torch.no_grad()
def _watched(model: nn.Module, watch: Watch) -> Floats:
    with evaluation_mode(model):
        return np.asarray(watch(model), dtype=np.float64)


class _Windows:
    """One window of the differences of all weights, and what became of those that were full."""

    def __init__(
        self, model: nn.Module, twin: nn.Module, window: int, stride: int, method: Method, delta: float, moved: int
    ) -> None:
        own = list(model.named_parameters())
        self.names = {name: tuple(parameter.shape) for name, parameter in own}
        self.pairs = list(zip((p.detach() for _, p in own), (q.detach() for q in twin.parameters()), strict=True))
        count = sum(p.numel() for p, _ in self.pairs)
        self.held = np.empty((window, count))  # one iterate per row
        self.full, self.stride, self.method = 0, stride, method
        self.parted, self.moved = False, moved  # whether more weights ever differed than were moved
        self.before = np.full(
            count, abs(delta)
        )  # the differences just before the window: δ₀ before the first iteration
        self.exponents: list[Floats] = []
        self.watched: list[Floats] = []
        self.distance: list[float] = []
        self.ends: list[int] = []

    def add(self, done: int) -> bool:
        """Take the iterate ``done``; whether that closed a window."""
        row, start = torch.from_numpy(self.held[self.full]), 0
        for p, q in self.pairs:
            row[start : start + p.numel()] = (q - p).reshape(-1)
            start += p.numel()
        self.full += 1
        if self.full < len(self.held):
            return False
        self.parted |= bool(np.count_nonzero(self.held[-1]) > self.moved)
        self.exponents.append(self._reduced())
        self.distance.append(float(np.linalg.norm(self.held[-1])))
        self.ends.append(done)
        self.before = self.held[self.stride - 1].copy()
        for first in range(0, len(self.held) - self.stride, self.stride):  # in pieces: copies that do not overlap
            piece = self.held[first + self.stride : first + 2 * self.stride]
            self.held[first : first + len(piece)] = piece
        self.full = len(self.held) - self.stride
        return True

    def _reduced(self) -> Floats:
        out = np.empty(self.held.shape[1])
        for start in range(0, len(out), _CHUNK):
            series = np.ascontiguousarray(self.held[:, start : start + _CHUNK].T)  # (S, W)
            before = self.before[start : start + _CHUNK]
            out[start : start + _CHUNK] = direct(series, before) if self.method == "direct" else rosenstein(series)
        return out

    def result(self, done: int, stride: int, moved: Perturbation) -> Trajectory:
        flat, start, exponents = np.stack(self.exponents), 0, {}
        for name, shape in self.names.items():
            size = int(np.prod(shape))
            exponents[name] = flat[:, start : start + size].reshape(len(flat), *shape)
            start += size
        return Trajectory(
            exponents, np.stack(self.watched), np.array(self.distance), np.array(self.ends), done, len(self.held), stride,
            self.method, moved,
        )  # fmt: skip
