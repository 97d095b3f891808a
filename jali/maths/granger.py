"""Granger causality: does the past of one series predict another beyond that one's own past? Many pairs at once.

Unrestricted: y_t = c + Σ_{i ≤ L} a_i y_{t−i} + Σ_{i ≤ L} b_i x_{t−i} + ε_t; restricted: b = 0. With residual sums of squares
R_u and R_r on n observations, F = ((R_r − R_u) / L) / (R_u / (n − 2L − 1)) is F(L, n − 2L − 1) if x does not cause y. By the
theorem of Frisch, Waugh and Lovell R_r − R_u is what the lags of x explain once all else is projected out: a sum of squares of
one QR, and no difference of large numbers.

Source: C. W. J. Granger, "Investigating causal relations by econometric models and cross-spectral methods", Econometrica 37
(1969) 424-438; the lag as in H. Lütkepohl, New Introduction to Multiple Time Series Analysis (2005), sec. 4.3. Equal to
``statsmodels.tsa.stattools.grangercausalitytests`` ("ssr_ftest") and, for the lag, ``VAR.select_order``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jali.errors import DataError
from jali.jit import njit
from jali.maths.least_squares import dot, noise, reflect
from jali.maths.series import FINE, PERFECT_FIT, SINGULAR, TOO_SHORT, Codes, Floats, as_series, standardized, words
from jali.maths.stationarity import differencing
from jali.plain import is_whole

Select = Literal["aic", "bic"]
Correction = Literal["holm", "fdr_bh"]


@dataclass(frozen=True, eq=False)
class GrangerTests:
    """F tests of "cause does not Granger-cause effect" for S pairs; each array is ``(S,)``.

    ``p`` and ``f``: the p-value and the statistic, NaN where there is a problem. ``lag``: L, 0 where no regression was made.
    ``order_of_differencing``: how often both series were differenced. ``problem``: codes of
    :data:`jali.maths.series.PROBLEMS`, see :attr:`words`.
    """

    p: Floats
    f: Floats
    lag: NDArray[np.int64]
    order_of_differencing: NDArray[np.int64]
    problem: Codes

    @property
    def words(self) -> list[str]:
        """The problem of every pair in words, "" for none."""
        return words(self.problem)


def granger(
    causes: ArrayLike,
    effects: ArrayLike,
    *,
    max_lag: int = 4,
    select: Select | None = "aic",
    difference: Literal["adf"] | int = "adf",
    alpha: float = 0.05,
) -> GrangerTests:
    """Test whether each series of ``causes`` Granger-causes its effect.

    Args:
        causes: ``(S, T)``; ``effects``: ``(S, T)``, or ``(T,)``, one effect of all.
        max_lag: the longest lag, ≥ 1; the lag itself where ``select`` is None.
        select: "aic" or "bic": of the lags up to ``max_lag`` that which has the least criterion as the order of a vector
            autoregression of both series, on the sample that all orders share. Lags that T is too short for are not tried.
        difference: how often both series are differenced; "adf" for as often as the one of them needs that needs more, at
            most twice, by augmented Dickey–Fuller tests at level ``alpha``.

    Problems, each of which makes p NaN: a value of the pair is not finite; a series is constant; T less the differences
    is no more than 3 L + 1 ("too short", as statsmodels has it); regressors depend on each other ("singular"); a perfect fit;
    "nonstationary" after two differences.

    Raises:
        DataError: arrays of other shapes, or an argument out of its range.
    """
    x, y = as_series("causes", causes), as_series("effects", effects)
    shared = np.ndim(effects) == 1
    _check(x, y, shared, max_lag, select, difference)
    order, problem = _orders(x, y, difference, alpha)
    nothing = np.full(len(x), np.nan)
    tests = GrangerTests(nothing, nothing.copy(), np.zeros(len(x), dtype=np.int64), order, problem)
    for times in np.unique(order[problem == FINE]):
        rows = np.flatnonzero((order == times) & (problem == FINE))
        x_values, x_problem, _ = standardized(x[rows], int(times))
        y_values, y_problem, rounding = standardized(y if shared else y[rows], int(times))
        found = np.where(x_problem == FINE, y_problem, x_problem)
        freedom, f, lag = np.zeros(len(rows)), np.full(len(rows), np.nan), np.zeros(len(rows), dtype=np.int64)
        _tests(x_values, y_values, rounding, max_lag, _CRITERIA[select], f, freedom, lag, found)
        tests.f[rows], tests.lag[rows], tests.problem[rows] = f, lag, found
        tests.p[rows] = _p_values(f, lag, freedom)
    return tests


_CRITERIA = {None: 0, "aic": 1, "bic": 2}


def corrected(p: ArrayLike, method: Correction = "holm") -> Floats:
    """p-values corrected for multiple testing, of any shape; NaN stays NaN and counts as no test.

    "holm" bounds the probability of any false discovery (S. Holm, Scand. J. Stat. 6 (1979) 65-70), "fdr_bh" the expected
    share of false ones, for independent tests (Y. Benjamini, Y. Hochberg, J. R. Stat. Soc. B 57 (1995) 289-300).

    Raises:
        DataError: an unknown method, or a p-value outside [0, 1].
    """
    from scipy.stats import false_discovery_control

    values = np.array(p, dtype=np.float64)
    tested = ~np.isnan(values)
    some = values[tested]
    if not ((some >= 0) & (some <= 1)).all():
        raise DataError(f"p-values reach from {some.min()} to {some.max()}; they lie in [0, 1]")
    if method == "fdr_bh":
        values[tested] = false_discovery_control(some)
    elif method == "holm":
        order = np.argsort(some)
        stepped = np.maximum.accumulate(some[order] * np.arange(len(some), 0, -1))
        some[order] = np.minimum(stepped, 1)
        values[tested] = some
    else:
        raise DataError(f'method {method!r} is unknown; give "holm" or "fdr_bh"')
    return values


def check_max_lag(max_lag: int) -> None:
    """:class:`DataError` for a longest lag that is no whole number from 1."""
    if not (is_whole(max_lag) and max_lag >= 1):
        raise DataError(f"max_lag {max_lag!r} is no whole number from 1")


def _check(x: Floats, y: Floats, shared: bool, max_lag: int, select: Any, difference: Any) -> None:
    if y.shape[1] != x.shape[1] or not (shared or len(y) == len(x)):
        raise DataError(
            f"causes have shape {x.shape} and effects {y.shape[1:] if shared else y.shape}; "
            "give as many effects of the same length, or one effect (T,)"
        )
    check_max_lag(max_lag)
    if select not in _CRITERIA:
        raise DataError(f'select {select!r} is unknown; give "aic", "bic", or None for the lag max_lag')
    if difference != "adf" and not (is_whole(difference) and difference >= 0):
        raise DataError(f'difference {difference!r} is neither "adf" nor a whole number from 0')


def _orders(x: Floats, y: Floats, difference: Any, alpha: float) -> tuple[NDArray[np.int64], Codes]:
    """How often each pair is differenced, and why it cannot be tested."""
    if difference != "adf":
        return np.full(len(x), int(difference), dtype=np.int64), np.full(len(x), FINE, dtype=np.int8)
    (x_order, x_problem), (y_order, y_problem) = differencing(x, alpha), differencing(y, alpha)
    return np.maximum(x_order, y_order), np.where(x_problem == FINE, y_problem, x_problem)


def _p_values(f: Floats, lag: NDArray[np.int64], freedom: Floats) -> Floats:
    from scipy.special import fdtrc

    p = np.full(len(f), np.nan)
    some = ~np.isnan(f)
    p[some] = fdtrc(lag[some], freedom[some], f[some])
    return p


@njit(cache=True, nogil=True, error_model="numpy")
def _regressors(x: Any, y: Any, lag: int, paired: bool, a: Any) -> None:
    """Fill ``a``: a constant, the lags of y, those of x, and the present y last; ``paired``: both lags in turn, y and x last."""
    rows = a.shape[1]
    first = len(y) - rows
    for t in range(rows):
        now = first + t
        a[0, t] = 1.0
        for back in range(1, lag + 1):
            own, other = (2 * back - 1, 2 * back) if paired else (back, lag + back)
            a[own, t] = y[now - back]
            a[other, t] = x[now - back]
        a[2 * lag + 1, t] = y[now]
        if paired:
            a[2 * lag + 2, t] = x[now]


@njit(cache=True, nogil=True, error_model="numpy")
def _order(x: Any, y: Any, most: int, criterion: int, a: Any, filled: Any) -> int:
    """The order 1 … most of the vector autoregression of both series with the least AIC (1) or BIC (2)."""
    _regressors(x, y, most, True, a)
    reflect(a, 2 * most + 1, filled)
    first, second, rows = a[2 * most + 1], a[2 * most + 2], a.shape[1]
    price = 2.0 if criterion == 1 else np.log(float(rows))
    best, chosen = np.inf, 1
    for lag in range(1, most + 1):
        at = filled[2 * lag + 1]
        determinant = dot(first, first, at) * dot(second, second, at) - dot(first, second, at) ** 2
        value = np.log(max(determinant, 0.0) / rows**2) + price / rows * (4 * lag + 2)
        if value < best:
            best, chosen = value, lag
    return chosen


@njit(cache=True, nogil=True, error_model="numpy")
def _tests(
    causes: Any,
    effects: Any,
    rounding: Any,
    max_lag: int,
    criterion: int,
    f: Any,
    freedom: Any,
    lags: Any,
    problem: Any,
) -> None:
    """F, its second degrees of freedom, the lag and the problem of every pair."""
    length = causes.shape[1]
    most = max_lag if criterion == 0 else min(max_lag, (length - 2) // 3)
    enough = most >= 1 and length > 3 * most + 1
    size = most if enough else 1
    both, filled = np.empty((2 * size + 3, max(length - size, 1))), np.empty(2 * size + 2, dtype=np.int64)
    for s in range(len(causes)):
        if problem[s] != FINE:
            continue
        if not enough:
            problem[s] = TOO_SHORT
            continue
        x, y = causes[s], effects[s % len(effects)]
        lag = most if criterion == 0 else _order(x, y, most, criterion, both, filled)
        a = np.empty((2 * lag + 2, length - lag))
        _regressors(x, y, lag, False, a)
        least = noise(a[-1], rounding[s % len(effects)])
        lags[s] = lag
        independent = reflect(a, 2 * lag + 1, filled)
        target = a[-1]
        left = dot(target, target, 2 * lag + 1)
        if not independent:
            problem[s] = SINGULAR
        elif not left > least:
            problem[s] = PERFECT_FIT
        else:
            freedom[s] = a.shape[1] - 2 * lag - 1
            explained = dot(target[: 2 * lag + 1], target[: 2 * lag + 1], lag + 1)
            f[s] = explained / lag / (left / freedom[s])
