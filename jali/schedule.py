"""Schedules: when how much goes. Frozen values and arithmetic: no model, no torch.

A schedule counts the moments of its ``clock``: optimizer steps or epochs, 0 before the first one. At the moments that are
``due`` something changes; ``sparsity(time, final)`` is the fraction removed from then on, on the way to the budget's
``final``; ``regrow(time)`` is the fraction of the survivors that change places with what had gone.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar, Literal

from jali.errors import ScheduleError

Clock = Literal["step", "epoch"]


class Schedule:
    """What all schedules answer. A subclass is a frozen dataclass with a ``clock``, and the moments of its changes."""

    clock: Clock
    gradual: ClassVar[bool] = True
    """Whether it passes through smaller sparsities than the budget's; only a schedule that need not fits a threshold."""
    growth: ClassVar[Literal["random", "gradient"] | None] = None
    """What decides who grows again, if anything does."""
    rewind_to: int | None = None
    """The moment whose weights come back after every cut, if any."""

    @property
    def begin(self) -> int:
        """The first moment at which something may change."""
        raise NotImplementedError

    @property
    def period(self) -> int:
        """Moments from one change to the next."""
        raise NotImplementedError

    @property
    def last(self) -> int:
        """The last moment at which something changes; from then on everything stays."""
        raise NotImplementedError

    def sparsity(self, time: int, final: float) -> float:
        """Fraction removed in force from ``time`` until the next change; ``final`` is the budget's, in (0, 1)."""
        raise NotImplementedError

    def regrow(self, time: int) -> float:
        """Fraction of the survivors that are dropped at ``time``, as many growing instead, in [0, 1)."""
        return 0.0

    def due(self, time: int) -> bool:
        """Whether something changes at ``time``. Raises :class:`ScheduleError` for a time that is none."""
        _whole(self, "time", time, 0)
        return self.begin <= time <= self.last and ((time - self.begin) % self.period == 0 or time == self.last)

    def next(self, time: int) -> int | None:
        """The first moment after ``time`` that is due, or None when the schedule is finished."""
        _whole(self, "time", time, 0)
        if time < self.begin:
            return self.begin
        if time >= self.last:
            return None
        return min(time + self.period - (time - self.begin) % self.period, self.last)

    def to_dict(self) -> dict[str, Any]:
        """Name and fields, as JSON can hold them."""
        return {"name": type(self).__name__, **dataclasses.asdict(self)}  # type: ignore[call-overload]


@dataclass(frozen=True)
class OneShot(Schedule):
    """Everything at once, at moment ``at``: 0, the default, is before training, and at once for a trained model."""

    at: int = 0
    clock: Clock = "epoch"
    gradual: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check(self, at=0)

    @property
    def begin(self) -> int:
        return self.at

    @property
    def period(self) -> int:
        return 1

    @property
    def last(self) -> int:
        return self.at

    def sparsity(self, time: int, final: float) -> float:
        return final if time >= self.at else 0.0


@dataclass(frozen=True)
class Periodic(Schedule):
    """Every ``every`` epochs, ``rounds`` times: each round removes the same fraction of what is left.

    ``s_k = 1 − (1 − final)^(k/rounds)`` after round k, reached exactly in the last (Han et al., "Learning both weights and
    connections for efficient neural networks", NIPS 2015). A budget that is a threshold is applied anew in every round.
    """

    every: int
    rounds: int
    clock: Clock = "epoch"
    gradual: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check(self, every=1, rounds=1)

    @property
    def begin(self) -> int:
        return self.every

    @property
    def period(self) -> int:
        return self.every

    @property
    def last(self) -> int:
        return self.every * self.rounds

    def sparsity(self, time: int, final: float) -> float:
        return _geometric(time // self.every, self.rounds, final)


@dataclass(frozen=True)
class Cubic(Schedule):
    """Fast at first, slow at the end: ``s_t = final + (initial − final)·(1 − (t − start)/(end − start))³``.

    At ``start``, every ``every`` moments from there, and at ``end``. M. Zhu, S. Gupta, "To prune, or not to prune", 2017,
    equation 1. ``initial`` is the sparsity at ``start``.
    """

    end: int
    start: int = 0
    every: int = 1
    initial: float = 0.0
    clock: Clock = "step"

    def __post_init__(self) -> None:
        _check(self, start=0, every=1, end=1)
        _fraction(self, "initial", zero=True)
        if self.end <= self.start:
            raise ScheduleError(f"Cubic: end={self.end} is not after start={self.start}; give a later end")
        _fits(self, self.end - self.start, f"the {self.end - self.start} from start={self.start} to end={self.end}")

    @property
    def begin(self) -> int:
        return self.start

    @property
    def period(self) -> int:
        return self.every

    @property
    def last(self) -> int:
        return self.end

    def sparsity(self, time: int, final: float) -> float:
        if time < self.start:
            return 0.0
        if time >= self.end:
            return final
        if self.initial > final:
            raise ScheduleError(
                f"Cubic: initial={self.initial} is above the budget's sparsity {final}; start with less than it ends with"
            )
        moment = time - (time - self.start) % self.every
        return final + (self.initial - final) * (1 - (moment - self.start) / (self.end - self.start)) ** 3


@dataclass(frozen=True)
class Rewind(Schedule):
    """Iterative magnitude pruning with weight rewinding: train, cut, put the weights back as they were, train again.

    Each of the ``rounds`` trains until epoch ``epochs``, cuts the same fraction of what is left, and rewinds every parameter
    to its value after epoch ``to``. Rounds after the first are thus ``epochs − to`` long, and so should be the training
    after the last. J. Frankle, G. Dziugaite, D. Roy, M. Carbin, "Linear mode connectivity and the lottery ticket
    hypothesis", ICML 2020, algorithm 1; ``to=0`` is the lottery ticket itself.
    """

    epochs: int
    rounds: int
    to: int = 0
    clock: Clock = "epoch"

    def __post_init__(self) -> None:
        _check(self, epochs=1, rounds=1, to=0)
        if self.to >= self.epochs:
            raise ScheduleError(f"Rewind: to={self.to} is not before epochs={self.epochs}; rewind to an earlier moment")

    @property
    def rewind_to(self) -> int:  # type: ignore[override]
        return self.to

    @property
    def begin(self) -> int:
        return self.epochs

    @property
    def period(self) -> int:
        return self.epochs - self.to

    @property
    def last(self) -> int:
        return self.begin + (self.rounds - 1) * self.period

    def sparsity(self, time: int, final: float) -> float:
        return _geometric(max(0, (time - self.to) // self.period), self.rounds, final)


@dataclass(frozen=True)
class SET(Schedule):
    """Sparse evolutionary training: sparse from the first step; ``fraction`` of the weights move every ``every`` moments.

    The worst by the criterion go, as many grow at random places. D. Mocanu et al., "Scalable training of artificial neural
    networks with adaptive sparse connectivity inspired by network science", Nature Communications 2018, algorithm 1, where
    an epoch passes between changes, the smallest weights go, and ``fraction`` is 0.3. ``start``: the first mask is
    "random", as there, or by the "criterion".
    """

    every: int
    end: int
    fraction: float = 0.3
    start: Literal["random", "criterion"] = "random"
    clock: Clock = "epoch"
    growth: ClassVar[Literal["random", "gradient"] | None] = "random"

    def __post_init__(self) -> None:
        _check(self, every=1, end=1)
        _fraction(self, "fraction")
        if self.start not in ("random", "criterion"):
            raise ScheduleError(f"{type(self).__name__}: start={self.start!r} is neither 'random' nor 'criterion'")
        _fits(self, self.end, f"end={self.end}")

    @property
    def begin(self) -> int:
        return 0

    @property
    def period(self) -> int:
        return self.every

    @property
    def last(self) -> int:
        return self.end

    def sparsity(self, time: int, final: float) -> float:
        return final

    def regrow(self, time: int) -> float:
        return self.fraction if time and self.due(time) else 0.0


@dataclass(frozen=True)
class RigL(SET):
    """Rigged lottery: like :class:`SET`, but those grow whose loss gradient is largest, on the batch of the change.

    The fraction decays as ``f(t) = fraction/2 · (1 + cos(π t/end))``. U. Evci et al., "Rigging the lottery: making all tickets
    winners", ICML 2020, section 3; there ``every`` is 100 steps and ``end`` three quarters of the training.
    """

    clock: Clock = "step"
    growth: ClassVar[Literal["random", "gradient"] | None] = "gradient"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clock != "step":
            raise ScheduleError(
                "RigL grows by the gradient of one batch, so its clock is 'step'; for a change per epoch, set every= to "
                "the number of batches of an epoch"
            )
        if self.every == self.end:
            raise ScheduleError(f"RigL: nothing moves at end={self.end}, where its fraction is 0; give a smaller every")

    def regrow(self, time: int) -> float:
        return self.fraction / 2 * (1 + math.cos(math.pi * time / self.end)) if time and self.due(time) else 0.0


def _geometric(done: int, rounds: int, final: float) -> float:
    return final if done >= rounds else 1 - (1 - final) ** (done / rounds)


def _check(schedule: Any, **least: int) -> None:
    for name, smallest in least.items():
        _whole(schedule, name, getattr(schedule, name), smallest)
    if schedule.clock not in ("step", "epoch"):
        raise ScheduleError(f"{type(schedule).__name__}: clock {schedule.clock!r} is unknown; it is 'step' or 'epoch'")


def _whole(schedule: Any, name: str, value: Any, smallest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < smallest:
        raise ScheduleError(f"{type(schedule).__name__}: {name}={value!r} is not a whole number, at least {smallest}")


def _fits(schedule: Any, span: int, named: str) -> None:
    """There must be room for one change on the way, or ``every`` says nothing."""
    if schedule.every > span:
        raise ScheduleError(
            f"{type(schedule).__name__}: every={schedule.every} is more than {named}; give a smaller every or a later end"
        )


def _fraction(schedule: Any, name: str, *, zero: bool = False) -> None:
    value: Any = getattr(schedule, name)
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not (0.0 < value < 1.0 or (zero and value == 0)):
        limit = "[0, 1)" if zero else "(0, 1)"
        raise ScheduleError(f"{type(schedule).__name__}: {name}={value!r} is not a fraction in {limit}")
