"""Lyapunov exponents: how fast neighbouring trajectories part, by QR of the Jacobian products.

The product of Jacobians along a trajectory is never formed. An orthonormal frame is carried along, ``J_t Q_{t-1} = Q_t R_t``,
and exponent i is the mean of ``log |R_t[i, i]|``: nats per step for a map, nats per unit of time for a flow.

Source: G. Benettin, L. Galgani, A. Giorgilli, J.-M. Strelcyn, "Lyapunov characteristic exponents for smooth dynamical
systems", Meccanica 15 (1980) 9-30; I. Shimada, T. Nagashima, Prog. Theor. Phys. 61 (1979) 1605-1616; the QR form is that
of J.-P. Eckmann, D. Ruelle, Rev. Mod. Phys. 57 (1985) 617-656, sec. V.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jali.errors import DynamicsError

Floats = NDArray[np.float64]
VectorField = Callable[[Floats], Floats]
_BLOCK = 64  # LAPACK's workspace per column: its largest block size
_SMALL = 32  # below, one call of numpy for the whole batch beats one call of LAPACK per trajectory


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Lyapunov exponents in descending order, ``(k,)``, or ``(B, k)`` for a batch of B trajectories.

    ``steps``: how many steps were averaged. ``notes`` say in words what a reader must know. An exponent is −inf where a
    Jacobian is singular to working precision: the direction is lost in a single step.
    """

    exponents: Floats
    steps: int
    notes: tuple[str, ...] = ()

    @property
    def mean(self) -> Floats:
        """Exponents averaged over the trajectories of a batch, ``(k,)``."""
        return self.exponents if self.exponents.ndim == 1 else self.exponents.mean(axis=0)

    @property
    def largest(self) -> float:
        """The maximal exponent (of :attr:`mean`)."""
        return float(self.mean[0])

    @property
    def singular(self) -> bool:
        """Whether some exponent is −inf."""
        return bool(np.isneginf(self.exponents).any())


def lyapunov_spectrum(
    jacobians: Iterable[ArrayLike],
    *,
    count: int | None = None,
    transient: int = 0,
    start: ArrayLike | None = None,
) -> Spectrum:
    """The spectrum of the map whose Jacobians along a trajectory are ``jacobians``, in the order of time.

    Args:
        jacobians: an array ``(T, n, n)`` or ``(T, B, n, n)``, or an iterable of ``(n, n)`` or ``(B, n, n)``,
            ``J[to, from]``; read once, one step at a time. Large ones are fastest in Fortran order.
        count: only the ``count`` largest exponents, 1 ≤ count ≤ n; by default all n.
        transient: steps at the beginning that turn the frame towards the exponents' directions and are not averaged.
        start: first frame ``(n, count)``, with orthonormal columns; by default the unit vectors for all n exponents, and
            fixed random directions for fewer: the unit vectors of some units may never turn to where the growth is, as those
            of a unit that nothing reads, or of one block of several.

    The sum of all n exponents is the mean of log |det J|, to rounding. A diagonal entry of R below the rounding error of
    its column is a zero: the exponent is −inf, and a note says so.

    Raises:
        DynamicsError: no step after the transient, Jacobians that are not square, change their shape or are not finite, or
            an argument out of its range.
    """
    logs = _Logs(count, transient, start)
    for step, jacobian in enumerate(jacobians):
        logs.add(step, np.asarray(jacobian, dtype=np.float64))
    return logs.spectrum()


def flow_spectrum(
    field: VectorField,
    jacobian: VectorField,
    start: ArrayLike,
    *,
    step: float,
    steps: int,
    transient: int = 0,
    count: int | None = None,
) -> Spectrum:
    """The spectrum of the flow ẋ = field(x), in nats per unit of time, over ``steps`` steps after ``transient`` ones.

    The arguments of the integration are those of :func:`propagators`.
    """
    maps = propagators(field, jacobian, start, step=step, steps=transient + steps)
    found = lyapunov_spectrum(maps, count=count, transient=transient)
    return dataclasses.replace(found, exponents=found.exponents / step)


def propagators(
    field: VectorField, jacobian: VectorField, start: ArrayLike, *, step: float, steps: int
) -> Iterator[Floats]:
    """The Jacobian of each step of a fixed-step RK4 integration of ẋ = field(x), by its variational equation V̇ = Df(x) V.

    Args:
        field: maps ``(..., n)`` to ``(..., n)``; ``jacobian``: maps ``(..., n)`` to ``(..., n, n)``, ``[to, from]``.
        start: ``(n,)``, or ``(B, n)`` for B trajectories.
        step: length of a step, > 0; ``steps``: how many.

    Raises:
        DynamicsError: the integration leaves the finite numbers, or a step that is not positive and finite.
    """
    if not (np.isfinite(step) and step > 0):
        raise DynamicsError(f"step {step} is not a positive length of time")
    x = np.asarray(start, dtype=np.float64)
    identity = np.broadcast_to(np.eye(x.shape[-1]), (*x.shape, x.shape[-1]))
    for index in range(steps):
        with np.errstate(over="ignore", invalid="ignore"):  # reported below
            x, moved = _rk4(field, jacobian, x, identity, step)
        if not (np.isfinite(x).all() and np.isfinite(moved).all()):
            raise DynamicsError(
                f"the integration left the finite numbers at step {index} (time {(index + 1) * step:.6g}); "
                f"make the step smaller than {step:.6g}, or start where the flow is bounded"
            )
        yield moved


def _rk4(field: VectorField, jacobian: VectorField, x: Floats, identity: Floats, step: float) -> tuple[Floats, Floats]:
    """One step of the classical Runge–Kutta method for the state and, along it, for the variational equation."""
    at, moved, slopes, tangents = x, identity, [], []
    for part in (0.5, 0.5, 1.0, 0.0):
        slopes.append(field(at))
        tangents.append(jacobian(at) @ moved)
        at, moved = x + part * step * slopes[-1], identity + part * step * tangents[-1]
    weights = (1, 2, 2, 1)
    return (
        x + step / 6 * sum(w * s for w, s in zip(weights, slopes, strict=True)),
        identity + step / 6 * sum(w * t for w, t in zip(weights, tangents, strict=True)),
    )


class _Logs:
    """The frames of a batch of trajectories and the sums of log |R[i, i]|."""

    def __init__(self, count: int | None, transient: int, start: ArrayLike | None) -> None:
        if transient < 0:
            raise DynamicsError(f"transient {transient} is negative; it is a number of steps")
        self.count, self.transient, self.start = count, transient, start
        self.shape: tuple[int, ...] = ()
        self.steps, self.first_zero = 0, -1

    def add(self, step: int, jacobian: Floats) -> None:
        if not self.shape:
            self._open(jacobian)
        if jacobian.shape != self.shape:
            raise DynamicsError(f"the Jacobian of step {step} has shape {jacobian.shape}, the first had {self.shape}")
        if not np.isfinite(jacobian).all():
            raise DynamicsError(
                f"the Jacobian of step {step} has NaN or infinite entries: the trajectory has diverged; check the "
                "weights, the input and, for a flow, the step"
            )
        found = self.frames.advance(jacobian.reshape(-1, *self.shape[-2:]))
        if step >= self.transient:
            self.steps += 1
            with np.errstate(divide="ignore"):
                self.sums += np.log(found)
            if self.first_zero < 0 and not found.all():
                self.first_zero = step

    def _open(self, jacobian: Floats) -> None:
        self.shape = jacobian.shape
        if len(self.shape) not in (2, 3) or self.shape[-1] != self.shape[-2] or not jacobian.size:
            raise DynamicsError(f"a Jacobian is (n, n) or a batch (B, n, n), this has shape {self.shape}")
        n, size = self.shape[-1], self.shape[0] if len(self.shape) == 3 else 1
        width = n if self.count is None else self.count
        if not 1 <= width <= n:
            raise DynamicsError(f"count {width} is outside 1 .. {n}, the number of exponents")
        start = _frame(n, width) if self.start is None else np.asarray(self.start, dtype=np.float64)
        if start.shape != (n, width) or not np.allclose(start.T @ start, np.eye(width), atol=1e-8):
            raise DynamicsError(f"start has shape {start.shape}; it must be ({n}, {width}) with orthonormal columns")
        self.frames = _Reflectors(start, size) if width == n > _SMALL else _Columns(start, size)
        self.sums = np.zeros((size, width))

    def spectrum(self) -> Spectrum:
        if not self.steps:
            raise DynamicsError(
                f"there is no step after the transient of {self.transient}; give a longer trajectory or a shorter transient"
            )
        exponents = -np.sort(-self.sums / self.steps, axis=1)
        lost = np.isneginf(exponents)
        notes: tuple[str, ...] = ()
        if lost.any():
            where = "" if len(lost) == 1 else f" in {lost.any(axis=1).sum()} of {len(lost)} trajectories"
            notes = (
                f"{lost.sum(axis=1).max()} of {lost.shape[1]} exponents are -inf{where}: a Jacobian is singular to working "
                f"precision, first at step {self.first_zero}",
            )
        return Spectrum(exponents[0] if len(self.shape) == 2 else exponents, self.steps, notes)


def _frame(n: int, width: int) -> Floats:
    """The first frame ``(n, width)``: a part of a basis must be in no special position to find the largest exponents."""
    return np.eye(n) if width == n else np.linalg.qr(np.random.default_rng(0).normal(size=(n, width)))[0]


class _Columns:
    """Orthonormal frames ``(B, n, k)`` as they are."""

    def __init__(self, start: Floats, size: int) -> None:
        self.frames = np.broadcast_to(start, (size, *start.shape))

    def advance(self, jacobians: Floats) -> Floats:
        """Move the frames by one Jacobian each, ``(B, n, n)``, and return |R[i, i]|, ``(B, k)``."""
        before = self.frames
        self.frames, r = np.linalg.qr(jacobians @ before)
        found = np.abs(np.diagonal(r, axis1=1, axis2=2))
        if (found <= _rounding(jacobians)[:, None]).any():
            found = np.where(_lost(found, jacobians, before), 0.0, found)
        return found


class _Reflectors:
    """Square frames as LAPACK's Householder reflectors: J Q costs 2 n³ (ormqr), its factors 4/3 n³ (geqrf).

    The frame itself, another 4/3 n³, is hardly ever formed.
    """

    def __init__(self, start: Floats, size: int) -> None:
        from scipy.linalg import lapack

        self.lapack, self.work = lapack, len(start) * _BLOCK
        self.packed = [self._factors(np.array(start, order="F")) for _ in range(size)]

    def advance(self, jacobians: Floats) -> Floats:
        """As :meth:`_Columns.advance`."""
        return np.array([self._advance(index, jacobian) for index, jacobian in enumerate(jacobians)])

    def _advance(self, index: int, jacobian: Floats) -> Floats:
        before = self.packed[index]
        moved = self.lapack.dormqr("R", "N", *before, jacobian, self.work)[0]
        self.packed[index] = self._factors(moved)
        found = np.abs(np.diagonal(self.packed[index][0]))
        if (found <= _rounding(jacobian)).any():
            columns = self.lapack.dorgqr(*before, lwork=self.work)[0]
            found = np.where(_lost(found, jacobian, columns), 0.0, found)
        return found

    def _factors(self, matrix: Floats) -> tuple[Floats, Floats]:
        return self.lapack.dgeqrf(matrix, lwork=self.work, overwrite_a=1)[:2]


def _rounding(jacobian: Floats) -> Floats:
    """A cheap bound of the rounding errors of :func:`_lost`, ``(...)`` of ``(..., n, n)``."""
    return jacobian.shape[-1] * np.finfo(float).eps * np.abs(jacobian).sum(axis=(-2, -1))


def _lost(found: Floats, jacobian: Floats, frame: Floats) -> NDArray[np.bool_]:
    """Which |R[i, i]| are no larger than the rounding error of their column of J Q.

    It is relative to the entries that meet in that column: a diagonal J may have entries of very different sizes.
    """
    met = (np.abs(jacobian) @ np.abs(frame)).sum(axis=-2)  # at least the norm of the column itself
    return found <= jacobian.shape[-1] * np.finfo(float).eps * met
