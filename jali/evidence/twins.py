"""Trajectory evidence: a training beside its twin that starts δ₀ away in one weight, reduced window by window.

R. Sahu, S. Chadha, A. Mathur, N. Nagaraj, S. Saha, "A chaos-causality approach to principled pruning of dense neural
networks", Chaos Theory and Applications 7 (2025) 154-165. The difference of each weight between the two trainings is a series;
a window of it becomes one exponent as soon as it is full, so that no more than one window is ever held.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from jali.errors import DataError, ModelError
from jali.evidence.windows import Floats, Method, Windows
from jali.maths.granger import GrangerTests, Select, granger
from jali.modes import evaluation_mode
from jali.plain import an, is_finite, is_whole

Training = Callable[[nn.Module], Iterable[object]]  # trains its argument in place and yields after every iteration
Watch = Callable[[nn.Module], ArrayLike]


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
        if not isinstance(self.indices, tuple) or not self.indices:
            raise DataError(f"indices {self.indices!r} name no weight; give a tuple of entries, as ((0, 0),)")
        for index in self.indices:
            if not _is_entry(index, weight.shape):
                raise ModelError(
                    f"parameter {self.parameter!r} of shape {tuple(weight.shape)} has no entry {index!r}; indices are a tuple of "
                    "entries, as ((0, 0),)"
                )
            before = weight[index].clone()
            weight[index] += self.delta
            if torch.equal(before, weight[index]):
                raise DataError(
                    f"delta {self.delta:g} is lost in the rounding of {weight.dtype} at {self.parameter}{list(index)} = "
                    f"{float(before):g}; give a larger one, or a float64 model"
                )


def _is_entry(index: object, shape: Sequence[int]) -> bool:
    """Only a tuple of whole numbers is one: a list would index rows."""
    if not isinstance(index, tuple) or len(index) != len(shape):
        return False
    return all(is_whole(i) and 0 <= i < n for i, n in zip(index, shape, strict=True))


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

    def __str__(self) -> str:
        count = sum(values[0].size for values in self.exponents.values())
        lost = sum(int((~np.isfinite(values)).any(axis=0).sum()) for values in self.exponents.values())
        lines = [
            f"Trajectory of {len(self)} windows of {self.window} over {self.iterations} iterations, by {self.method!r}",
            f"  weights and biases       {count:,}, {lost:,} of them without a finite exponent in some window",
            f"  distance of the twins    {self.distance[-1] / abs(self.perturbation.delta):.4g} δ₀ at the end",
        ]
        if self.performance.ndim == 1:
            lines.append(f"  watched                  {self.performance[0]:.4g} -> {self.performance[-1]:.4g}")
        return "\n".join(lines)

    __repr__ = __str__

    def until(self, iterations: int) -> Trajectory:
        """What a training that stopped after ``iterations`` would have left: the windows that had closed by then.

        Raises :class:`DataError` where none had.
        """
        count = int((self.ends <= iterations).sum())
        if not count:
            raise DataError(
                f"no window had closed after {iterations} iterations; the first one does after {self.ends[0]}"
            )
        exponents = {name: values[:count] for name, values in self.exponents.items()}
        parts = {name: getattr(self, name)[:count] for name in ("performance", "distance", "ends")}
        return replace(self, exponents=exponents, iterations=min(iterations, self.iterations), **parts)

    def tests(self, *, max_lag: int = 2, select: Select | None = "aic") -> dict[str, GrangerTests]:
        """Parameter → the test of every of its weights, in the order of its entries: p-values, lags, problems in words.

        They are those of criterion ``causal`` (:func:`jali.maths.granger.granger`). Raises :class:`DataError` for a trajectory of
        a bank of networks.
        """
        if self.performance.ndim != 1:
            raise DataError(
                f"the trajectory watched {self.performance.shape[1:]} numbers per window; watch one, of one network"
            )
        return {
            name: granger(values.reshape(len(self), -1).T, self.performance, max_lag=max_lag, select=select)
            for name, values in self.exponents.items()
        }


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
    the twins, or that is not deterministic (its first iterations are run twice), for a perturbation without any effect, for
    windows out of range, and for a ``train`` that is no generator or a ``watch`` that returns no numbers.
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
        windows = Windows(one.model, other.model, window, stride, method, moved.delta, len(moved.indices))
        done = 0
        while (most is None or done < most) and _together(one, other):
            done += 1
            if windows.add(done):
                windows.watched.append(_watched(one.model, watch, windows.watched[:1]))
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
    seen = Trajectory(
        windows.all_exponents(), np.stack(windows.watched), np.array(windows.distance), np.array(windows.ends), done, window,
        stride, method, moved,
    )  # fmt: skip
    return seen, one.model


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
        steps = train(model)
        if not isinstance(steps, Iterable):
            raise DataError(
                f"train(network) returned {an(type(steps).__name__)}; it must be a generator that yields after every iteration"
            )
        self.steps = iter(steps)

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
def _watched(model: nn.Module, watch: Watch, before: Sequence[Floats]) -> Floats:
    with evaluation_mode(model):
        given = watch(model)
    try:
        found = np.asarray([] if given is None else given, dtype=np.float64)
    except (TypeError, ValueError):
        found = np.empty(0)
    if not found.size or any(found.shape != each.shape for each in before):
        raise DataError(f"watch(network) returned {given!r:.80}; return a number, or the same count of them every time")
    return found
