"""Unit roots: the augmented Dickey–Fuller test of many series at once, and how often each must be differenced.

The regression is Δx_t = c + γ x_{t−1} + Σ_{i ≤ lag} β_i Δx_{t−i} + ε_t. The null hypothesis is γ = 0, a unit root; a small
p-value speaks for a stationary series. The lag has the least AIC on the sample that all lags share.

Source: S. E. Said, D. A. Dickey, "Testing for unit roots in autoregressive-moving average models of unknown order",
Biometrika 71 (1984) 599-607; the largest lag is that of G. W. Schwert, J. Bus. Econ. Stat. 7 (1989) 147-159; p-values are the
response surface of J. G. MacKinnon, "Approximate asymptotic distribution functions for unit-root and cointegration
tests", J. Bus. Econ. Stat. 12 (1994) 167-176. Equal to ``statsmodels.tsa.stattools.adfuller`` with its defaults.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jali.errors import DataError
from jali.jit import njit
from jali.maths.least_squares import dot, noise, reflect
from jali.maths.series import (
    FINE,
    NONSTATIONARY,
    PERFECT_FIT,
    SINGULAR,
    TOO_SHORT,
    Codes,
    Floats,
    as_series,
    standardized,
    words,
)

# MacKinnon (1994), one series with a constant: beyond these ends p is 0 or 1; polynomials in τ of the normal quantile of p,
# the first up to the knot.
_ENDS, _KNOT = (-18.83, 2.74), -1.61
_LOW, _HIGH = (2.1659, 1.4412, 0.038269), (1.7339, 0.93202, -0.12745, -0.010368)


@dataclass(frozen=True, eq=False)
class UnitRootTests:
    """Augmented Dickey–Fuller tests of S series.

    ``p``: ``(S,)``, NaN where there is a problem. ``statistic``: the t ratio of γ. ``lag``: differences that the regression
    takes in, chosen by AIC. ``problem``: codes of :data:`jali.maths.series.PROBLEMS`.
    """

    p: Floats
    statistic: Floats
    lag: NDArray[np.int64]
    problem: Codes

    @property
    def words(self) -> list[str]:
        """The problem of every series in words, "" for none."""
        return words(self.problem)


def adf(series: ArrayLike) -> UnitRootTests:
    """The augmented Dickey–Fuller test of every series ``(S, T)``, with a constant and a lag chosen by AIC.

    Problems: not finite, constant, too short (T < 4), singular (regressors that depend on each other), perfect fit.

    Raises:
        DataError: no array ``(S, T)`` of numbers.
    """
    return _tests(as_series("series", series), 0)


def differencing(series: ArrayLike, alpha: float = 0.05, most: int = 2) -> tuple[NDArray[np.int64], Codes]:
    """How often each series ``(S, T)`` must be differenced until :func:`adf` rejects a unit root at level ``alpha``.

    Returns orders ``(S,)``, 0 … ``most``, and problems: of a series that never passes it is the problem of the first test that
    could not be made, else "nonstationary"; its order is ``most``.

    Raises:
        DataError: no array ``(S, T)`` of numbers, ``alpha`` outside (0, 1), ``most`` below 0.
    """
    values = as_series("series", series)
    if not 0 < alpha < 1:
        raise DataError(f"alpha {alpha} is outside (0, 1); it is the level of a test, such as 0.05")
    if most < 0:
        raise DataError(f"most {most} is below 0; it is how often a series may be differenced")
    order = np.full(len(values), most, dtype=np.int64)
    problem = np.full(len(values), FINE, dtype=np.int8)
    left = np.arange(len(values))
    for times in range(most + 1):
        tests = _tests(values[left], times)
        passed = tests.p < alpha
        order[left[passed]] = times
        failed = left[~passed]
        problem[failed] = np.where(problem[failed] == FINE, tests.problem[~passed], problem[failed])
        problem[left[passed]] = FINE
        left = failed
    problem[left[problem[left] == FINE]] = NONSTATIONARY
    return order, problem


def _tests(series: Floats, order: int) -> UnitRootTests:
    """:func:`adf` of every series after ``order`` differences."""
    values, problem, rounding = standardized(series, order)
    count, length = values.shape
    statistic, lag = np.full(count, np.nan), np.zeros(count, dtype=np.int64)
    largest = min(length // 2 - 2, math.ceil(12 * (length / 100) ** 0.25))
    if largest < 0:
        problem[problem == FINE] = TOO_SHORT
    else:
        _adf(values, rounding, largest, statistic, lag, problem)
    return UnitRootTests(_mackinnon(statistic), statistic, lag, problem)


def _mackinnon(statistic: Floats) -> Floats:
    """The p-value of a t ratio of γ, by MacKinnon's response surface; NaN of NaN."""
    from numpy.polynomial.polynomial import polyval
    from scipy.special import ndtr

    p = ndtr(np.where(statistic <= _KNOT, polyval(statistic, _LOW), polyval(statistic, _HIGH)))
    return np.where(statistic > _ENDS[1], 1.0, np.where(statistic < _ENDS[0], 0.0, p))


@njit(cache=True, nogil=True, error_model="numpy")
def _regressors(x: Any, lag: int, level: int, a: Any) -> None:
    """Fill ``a``: a constant, the level x_{t−1} in column ``level``, the differences of lags 1 …, and Δx_t last."""
    rows = a.shape[1]
    first = len(x) - rows  # x[first + t] is the present value of row t
    for t in range(rows):
        now = first + t
        a[0, t] = 1.0
        a[level, t] = x[now - 1]
        a[-1, t] = x[now] - x[now - 1]
        column = 1
        for back in range(1, lag + 1):
            if column == level:
                column += 1
            a[column, t] = x[now - back] - x[now - back - 1]
            column += 1


@njit(cache=True, nogil=True, error_model="numpy")
def _adf(series: Any, rounding: Any, largest: int, statistic: Any, lags: Any, problem: Any) -> None:
    length = series.shape[1]
    shared = length - 1 - largest
    every, filled = np.empty((largest + 3, shared)), np.empty(largest + 3, dtype=np.int64)
    for s in range(len(series)):
        if problem[s] != FINE:
            continue
        x = series[s]
        _regressors(x, largest, 1, every)
        reflect(every, largest + 2, filled)
        target, best, lag = every[-1], np.inf, 0
        for each in range(largest + 1):
            residual = dot(target, target, filled[each + 2])
            criterion = shared * np.log(residual / shared) + 2.0 * filled[each + 2]
            if criterion < best:
                best, lag = criterion, each
        lags[s] = lag
        a = np.empty((lag + 3, length - 1 - lag))
        _regressors(x, lag, lag + 1, a)  # the level last: its coordinate alone is what γ explains
        least = noise(a[-1], rounding[s])
        independent = reflect(a, lag + 2, filled)
        target = a[-1]
        residual = dot(target, target, lag + 2)
        if not independent:
            problem[s] = SINGULAR
        elif not residual > least:
            problem[s] = PERFECT_FIT
        else:
            freedom = a.shape[1] - lag - 2
            ratio = target[lag + 1] / np.sqrt(residual / freedom)
            statistic[s] = ratio if a[lag + 1, lag + 1] > 0 else -ratio
