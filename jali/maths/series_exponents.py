"""Lyapunov exponents from observed series alone, many windows at once; no equations and no Jacobians are known.

These say how fast a *recorded* series parts from a twin, or from its own earlier visits. The exponents of a network as a
dynamical system are another thing: :mod:`jali.maths.lyapunov`.

Source: eq. 5 of R. Sahu, S. Chadha, A. Mathur, N. Nagaraj, S. Saha, "A chaos-causality approach to principled pruning of dense
neural networks" (2025); M. T. Rosenstein, J. J. Collins, C. J. De Luca, "A practical method for calculating largest Lyapunov
exponents from small data sets", Physica D 65 (1993) 117-134, with the neighbours of TISEAN's ``lyap_r`` (R. Hegger, H. Kantz,
T. Schreiber, Chaos 9 (1999) 413-435).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jali.errors import DynamicsError
from jali.jit import njit
from jali.maths.series import Floats, as_series
from jali.plain import is_whole

_LANES = 4  # series whose distances are one vector: loops are long enough, and all they touch stays in the first cache


def direct(differences: ArrayLike, delta0: ArrayLike, *, steps: int | None = None) -> Floats:
    """Eq. 5, λ = (1/n) ln(|δ_n| / |δ_0|), of each window of a difference of twin trajectories, in nats per iterate.

    Args:
        differences: ``(S, W)``, δ along each window; δ_n is its last column.
        delta0: the difference that has grown into it, one number or ``(S,)``: the last of the window before, or what one twin
            was moved by at the start. Its sign does not matter.
        steps: n, the iterates from δ_0 to the last column; by default W, for a δ_0 just before the window.

    Returns ``(S,)``: −inf where the twins coincide at the end, +inf where they did at the start only, NaN where a value of the
    window or δ_0 is not finite, and where the twins coincide at both ends.

    Raises:
        DynamicsError: ``delta0`` of another shape, ``steps`` below 1.
        DataError: no array ``(S, W)`` of numbers.
    """
    windows = as_series("differences", differences)
    start = np.asarray(delta0, dtype=np.float64)
    if start.shape not in ((), (len(windows),)):
        raise DynamicsError(
            f"delta0 has shape {start.shape}; give one number, or one for each of {len(windows)} windows"
        )
    steps = windows.shape[1] if steps is None else steps
    if not (is_whole(steps) and steps >= 1):
        raise DynamicsError(f"steps {steps!r} is no whole number from 1")
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (np.log(np.abs(windows[:, -1])) - np.log(np.abs(start))) / steps
    return np.where(np.isfinite(windows).all(axis=1) & np.isfinite(start), found, np.nan)


def rosenstein(
    windows: ArrayLike, dimension: int = 3, delay: int = 1, theiler: int = 1, steps: int = 10, *, skip: int = 0
) -> Floats:
    """The largest Lyapunov exponent of each window by Rosenstein's method, in nats per iterate.

    Every point of the delay embedding (x_t, x_{t+delay}, …) is followed beside its nearest neighbour; the exponent is the
    slope of the least-squares line through the mean logarithm of their distance at step k, k = skip … steps.

    Args:
        windows: ``(S, W)``, one series per row.
        dimension: of the embedding, ≥ 1; ``delay``: iterates between its coordinates, ≥ 1.
        theiler: neighbours are more than this many iterates apart in time, ≥ 0; a series that changes slowly needs more.
        steps: how many iterates a pair is followed, ≥ 1. The line must end before distances reach the size of the attractor.
        skip: first k of the line; the first steps only turn the distance into the direction that grows, 0 ≤ skip < steps.

    Returns ``(S,)``: NaN where a window has a value that is not finite; −inf where the distances are zero from all but one k on,
    or no two points differ: nothing parts. The scale of a window changes nothing.

    Pairs that coincide in all coordinates are no neighbours, as in TISEAN; of equally near ones the nearest in time is taken,
    and the later of two. A distance of zero on the way is left out; zero is what is below 1e-162 of the span of
    the window.

    Raises:
        DynamicsError: W too short for a neighbour of every point, or an argument out of its range.
        DataError: no array ``(S, W)`` of numbers.
    """
    series = as_series("windows", windows)
    for name, value, least in (
        ("dimension", dimension, 1), ("delay", delay, 1), ("theiler", theiler, 0), ("steps", steps, 1), ("skip", skip, 0)
    ):  # fmt: skip
        if not (is_whole(value) and value >= least):
            raise DynamicsError(f"{name} {value!r} is no whole number from {least}")
    if skip >= steps:
        raise DynamicsError(f"skip {skip} leaves no two points of a line that ends at step {steps}; make steps larger")
    needed = (dimension - 1) * delay + steps + 2 * theiler + 2
    if series.shape[1] < needed:
        raise DynamicsError(
            f"windows of {series.shape[1]} values are too short: dimension {dimension}, delay {delay}, theiler {theiler} and "
            f"{steps} steps need {needed}; take longer windows, or fewer steps"
        )
    finite = np.isfinite(series).all(axis=1)
    moves = finite & (series != series[:, :1]).any(axis=1)
    found = np.where(finite, -np.inf, np.nan)  # what a constant has, too
    some = np.flatnonzero(moves)
    if len(some):
        _rosenstein(np.ascontiguousarray(_scaled(series[some])), dimension, delay, theiler, steps, skip, some, found)
    return found


def _scaled(series: Floats) -> Floats:
    """Every series times a power of two that takes its span to about 1: no digit changes, and no square underflows."""
    span = np.ptp(series / 2, axis=1, keepdims=True)  # the half cannot overflow
    exponent = np.frexp(span)[1]
    return np.ldexp(series, -exponent)


@njit(cache=True, nogil=True, error_model="numpy")
def _squares(a: Any, b: Any, count: int, dimension: int, delay: int, squares: Any, found: Any) -> None:
    """Squared distances of the first ``count`` embedded points of two series: ``found``; ``squares`` is space for a window."""
    for t in range(count + (dimension - 1) * delay):
        squares[t] = (a[t] - b[t]) * (a[t] - b[t])
    for t in range(count):
        found[t] = squares[t]
    for coordinate in range(1, dimension - 1, 2):  # two at a time: half the loads and stores
        along, beside = squares[coordinate * delay :], squares[(coordinate + 1) * delay :]
        for t in range(count):
            found[t] = found[t] + along[t] + beside[t]
    if dimension % 2 == 0:
        along = squares[(dimension - 1) * delay :]
        for t in range(count):
            found[t] += along[t]


@njit(cache=True, nogil=True, error_model="numpy")
def _neighbours(
    x: Any, points: int, dimension: int, delay: int, theiler: int, squares: Any, work: Any, least: Any, gaps: Any
) -> None:
    """The nearest neighbour t + gaps[t] of every point t at a positive distance; 0 if there is none.

    ``x`` has _LANES series side by side, as have the results: entry ``t * _LANES + lane``. One time gap after the other: all
    distances of a gap are one vector.
    """
    least[:] = np.inf
    gaps[:] = 0
    for gap in range(theiler + 1, points):
        pairs, shift = (points - gap) * _LANES, gap * _LANES
        distance = work[:pairs]
        _squares(x, x[shift:], pairs, dimension, delay * _LANES, squares, distance)
        for t in range(pairs):
            distance[t] = distance[t] if distance[t] > 0 else np.inf
            nearer = distance[t] < least[t]
            least[t] = distance[t] if nearer else least[t]
            gaps[t] = gap if nearer else gaps[t]
        later, later_gaps = least[shift:], gaps[shift:]
        for t in range(pairs):
            nearer = distance[t] < later[t]
            later[t] = distance[t] if nearer else later[t]
            later_gaps[t] = -gap if nearer else later_gaps[t]


@njit(cache=True, nogil=True, error_model="numpy")
def _divergence(
    x: Any,
    points: int,
    dimension: int,
    delay: int,
    gaps: Any,
    squares: Any,
    work: Any,
    products: Any,
    sums: Any,
    counts: Any,
) -> None:
    """Sums over all pairs of the logarithm of their squared distance after k steps, and of how many it is positive.

    Factors are multiplied before a logarithm is taken, as long as the product stays far from under- and overflow.
    """
    number, whole = len(sums), 0  # whole: pairs that are apart after every k
    sums[:], counts[:], products[:] = 0.0, 0, 1.0
    for t in range(points):
        if gaps[t] == 0:
            continue
        other, least = t + gaps[t], np.inf
        for k in range(number + (dimension - 1) * delay):
            squares[k] = (x[t + k] - x[other + k]) * (x[t + k] - x[other + k])
        for k in range(number):
            work[k] = squares[k]
            for coordinate in range(1, dimension):
                work[k] += squares[k + coordinate * delay]
            least = min(least, work[k])
        if least < 1e-100:
            for k in range(number):
                if work[k] > 0:
                    counts[k] += 1
                    sums[k] += np.log(work[k])
            continue
        whole += 1
        low, high = np.inf, 0.0
        for k in range(number):
            products[k] *= work[k]
            low, high = min(low, products[k]), max(high, products[k])
        if low < 1e-200 or high > 1e200:
            for k in range(number):
                sums[k] += np.log(products[k])
                products[k] = 1.0
    for k in range(number):
        sums[k] += np.log(products[k])
        counts[k] += whole


@njit(cache=True, nogil=True, error_model="numpy")
def _slope(sums: Any, counts: Any, skip: int) -> float:
    """Slope of the line through half the means, over the k from ``skip`` that have a mean."""
    number, centre, level = 0, 0.0, 0.0
    for k in range(skip, len(sums)):
        if counts[k]:
            number += 1
            centre += k
            level += sums[k] / counts[k]
    if number < 2:
        return -np.inf
    centre /= number
    level /= number
    above, below = 0.0, 0.0
    for k in range(skip, len(sums)):
        if counts[k]:
            above += (k - centre) * (sums[k] / counts[k] - level)
            below += (k - centre) ** 2
    return 0.5 * above / below


@njit(cache=True, nogil=True, error_model="numpy")
def _rosenstein(
    windows: Any, dimension: int, delay: int, theiler: int, steps: int, skip: int, rows: Any, found: Any
) -> None:
    count, length = windows.shape
    points = length - (dimension - 1) * delay - steps
    x, squares, work = np.empty(length * _LANES), np.empty(length * _LANES), np.empty(max(points * _LANES, steps + 1))
    least, gaps = np.empty(points * _LANES), np.empty(points * _LANES, dtype=np.int64)
    own = np.empty(points, dtype=np.int64)
    sums, products, counts = np.empty(steps + 1), np.empty(steps + 1), np.empty(steps + 1, dtype=np.int64)
    for first in range(0, count, _LANES):
        for lane in range(_LANES):
            series = windows[min(first + lane, count - 1)]
            for t in range(length):
                x[t * _LANES + lane] = series[t]
        _neighbours(x, points, dimension, delay, theiler, squares, work, least, gaps)
        for lane in range(min(_LANES, count - first)):
            s = first + lane
            for t in range(points):
                own[t] = gaps[t * _LANES + lane]
            _divergence(windows[s], points, dimension, delay, own, squares, work, products, sums, counts)
            found[rows[s]] = _slope(sums, counts, skip)
