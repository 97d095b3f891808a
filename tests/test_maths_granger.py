"""Granger tests and unit roots: equal to statsmodels, laws of a test, and what makes a series untestable."""

from __future__ import annotations

import warnings

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.tsa.adfvalues import mackinnonp
from statsmodels.tsa.stattools import adfuller, grangercausalitytests
from statsmodels.tsa.vector_ar.var_model import VAR

from jali.errors import DataError
from jali.maths.granger import corrected, granger
from jali.maths.series import PROBLEMS
from jali.maths.stationarity import _mackinnon, adf, differencing

NEAR = 1e-8  # what is asked of p-values
seeds = st.integers(0, 2**32 - 1)


def pairs(seed, count, length):
    """Causes and effects of every kind: noise, autoregressions, random walks; coupled or not, at any place and scale."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, count, length))
    memory, coupling = rng.choice([0, 0.6, 1], size=(2, count)), rng.choice([0, 0.3, 2], size=count)
    for t in range(1, length):
        x[:, t] += memory[0] * x[:, t - 1]
        y[:, t] += memory[1] * y[:, t - 1] + coupling * x[:, t - 1]
    place, scale = rng.normal(size=(2, count, 1)), 10.0 ** rng.integers(-3, 4, size=(2, count, 1))
    return scale[0] * (x + place[0]), scale[1] * (y + place[1])


def oracle(x, y, lag):
    f, p, _, _ = grangercausalitytests(np.column_stack((y, x)), [lag])[lag][0]["ssr_ftest"]
    return p, f


def oracle_order(x, y, most, criterion):
    model = VAR(np.column_stack((y, x)))
    found = [getattr(model._estimate_var(p, offset=most - p), criterion) for p in range(1, most + 1)]
    return 1 + int(np.argmin(found))


def oracle_adf(x):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # about the type of the result
        return adfuller(x)


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(8, 90), st.integers(1, 5))
def test_p_values_are_those_of_statsmodels(seed, length, lag):
    lag = min(lag, (length - 2) // 3)
    x, y = pairs(seed, 4, length)
    found = granger(x, y, max_lag=lag, select=None, difference=0)
    assert not found.problem.any()
    for s in range(4):
        p, f = oracle(x[s], y[s], lag)
        assert found.p[s] == pytest.approx(p, abs=NEAR)
        assert found.f[s] == pytest.approx(f, rel=1e-6, abs=1e-9)
    assert (found.lag == lag).all()
    assert not found.order_of_differencing.any()


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(12, 90), st.integers(1, 5), st.sampled_from(["aic", "bic"]), st.integers(0, 2))
def test_the_lag_is_the_order_that_statsmodels_gives_the_vector_autoregression(seed, length, most, criterion, times):
    x, y = pairs(seed, 3, length)
    found = granger(x, y, max_lag=most, select=criterion, difference=times)
    most = min(most, (length - times - 2) // 3)
    for s in range(3):
        dx, dy = np.diff(x[s], times), np.diff(y[s], times)
        assert found.lag[s] == oracle_order(dx, dy, most, criterion)
        assert found.p[s] == pytest.approx(oracle(dx, dy, found.lag[s])[0], abs=NEAR)


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(4, 120))
def test_unit_roots_are_those_of_statsmodels(seed, length):
    x, _ = pairs(seed, 4, length)
    found = adf(x)
    for s in range(4):
        statistic, p, lag = oracle_adf(x[s])[:3]
        if found.problem[s]:  # of few values, the regression may pass through all of them but for rounding
            assert found.words[s] == "perfect fit"
            assert length < 12
            continue
        assert found.lag[s] == lag
        assert found.p[s] == pytest.approx(p, abs=NEAR)
        assert found.statistic[s] == pytest.approx(statistic, rel=1e-6)


@settings(max_examples=15, deadline=None)
@given(seeds, st.integers(20, 90))
def test_both_are_differenced_as_often_as_the_one_that_needs_more(seed, length):
    x, y = pairs(seed, 4, length)
    found = granger(x, y)
    for s in range(4):
        orders = [next((d for d in range(3) if oracle_adf(np.diff(z, d))[1] < 0.05), None) for z in (x[s], y[s])]
        if None in orders:
            assert found.words[s] == "nonstationary"
            assert np.isnan(found.p[s])
            continue
        assert found.order_of_differencing[s] == max(orders)
        dx, dy = np.diff(x[s], max(orders)), np.diff(y[s], max(orders))
        assert found.p[s] == pytest.approx(oracle(dx, dy, found.lag[s])[0], abs=NEAR)


def test_the_surface_of_p_values_has_its_ends_and_its_knot():
    at = np.array([-30, -18.84, -18.82, -5, -2.86, -1.62, -1.61, -1.6, 0, 2.73, 2.75, 9])
    np.testing.assert_allclose(_mackinnon(at), [mackinnonp(each) for each in at], atol=1e-12)
    assert np.isnan(_mackinnon(np.array([np.nan])))


@settings(max_examples=25, deadline=None)
@given(seeds, st.floats(-1e3, 1e3), st.floats(1e-3, 1e3), st.sampled_from([-1, 1]))
def test_place_and_scale_change_nothing(seed, place, scale, sign):
    x, y = pairs(seed, 8, 40)
    found, moved = granger(x, y), granger(place + sign * scale * x, scale * y - place)
    np.testing.assert_array_equal(found.problem, moved.problem)
    np.testing.assert_array_equal(found.lag, moved.lag)
    np.testing.assert_allclose(found.p, moved.p, atol=NEAR)


@settings(max_examples=25, deadline=None)
@given(seeds, st.permutations(range(8)))
def test_a_batch_is_its_series_in_any_order(seed, order):
    x, y = pairs(seed, 8, 30)
    x[0], y[1] = 1.0, np.nan
    together, moved = granger(x, y), granger(x[order], y[order])
    for name in ("p", "f", "lag", "order_of_differencing", "problem"):
        np.testing.assert_array_equal(getattr(together, name)[order], getattr(moved, name))
        alone = [getattr(granger(x[s : s + 1], y[s : s + 1]), name)[0] for s in range(8)]
        np.testing.assert_array_equal(getattr(together, name), alone)


@given(seeds)
@settings(max_examples=15, deadline=None)
def test_one_effect_of_all_is_that_effect_for_each(seed):
    x, y = pairs(seed, 5, 40)
    for options in ({}, {"select": "bic", "difference": 1}, {"select": None, "max_lag": 2, "difference": 0}):
        one, each = granger(x, y[0], **options), granger(x, np.tile(y[0], (5, 1)), **options)
        for name in ("p", "f", "lag", "order_of_differencing", "problem"):
            np.testing.assert_array_equal(getattr(one, name), getattr(each, name))


def test_without_causality_p_values_are_uniform():
    x, y = np.random.default_rng(1).normal(size=(2, 5000, 300))
    p = granger(x, y, max_lag=2, select=None, difference=0).p
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_a_random_walk_is_told_from_noise_at_the_level_of_the_test():
    rng = np.random.default_rng(2)
    walks, noise = rng.normal(size=(1000, 200)).cumsum(axis=1), rng.normal(size=(1000, 200))
    assert stats.binomtest(int((adf(walks).p < 0.05).sum()), 1000, 0.05).pvalue > 1e-4
    assert (adf(noise).p < 0.05).mean() > 0.95
    order, problem = differencing(walks.cumsum(axis=1))
    assert not problem.any()
    assert (order == 2).mean() > 0.8  # less the level of the test twice, and what AIC costs


def test_a_cause_is_found_and_an_effect_is_no_cause():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, 500, 100))
    for t in range(2, 100):
        x[:, t] += 0.5 * x[:, t - 1]
        y[:, t] += 0.4 * y[:, t - 1] + 0.8 * x[:, t - 2]  # at the second lag alone
    assert (corrected(granger(x, y).p) < 0.05).mean() > 0.99
    back = granger(y, x, max_lag=2, select=None, difference=0).p < 0.05
    assert stats.binomtest(int(back.sum()), 500, 0.05).pvalue > 1e-4


def exact(x, y, lag):
    """F by normal equations in 60 digits."""
    with mpmath.workdps(60):
        rows = range(lag, len(y))
        own = [[1, *(y[t - i] for i in range(1, lag + 1))] for t in rows]
        both = [[*row, *(x[t - i] for i in range(1, lag + 1))] for row, t in zip(own, rows, strict=True)]
        target = mpmath.matrix([y[t] for t in rows])
        left = []
        for regressors in (mpmath.matrix(own), mpmath.matrix(both)):
            solution = mpmath.lu_solve(regressors.T * regressors, regressors.T * target)
            left.append(mpmath.norm(target - regressors * solution) ** 2)
        freedom = len(y) - 3 * lag - 1
        return float((left[0] - left[1]) / lag / (left[1] / freedom)), freedom


@pytest.mark.parametrize("digits", range(1, 8))
def test_regressors_that_nearly_depend_on_each_other_cost_no_more_than_the_tolerance_or_are_reported(digits):
    """The cause is the effect, but for a small share."""
    rng = np.random.default_rng(digits)
    y = rng.normal(size=(10, 40))
    x = y + 10.0**-digits * rng.normal(size=y.shape)
    found = granger(x, y, max_lag=2, select=None, difference=0)
    assert not found.problem.any()
    for s in range(10):
        f, freedom = exact(x[s], y[s], 2)
        assert found.p[s] == pytest.approx(stats.f.sf(f, 2, freedom), abs=NEAR)


def words(x, y, **options):
    found = granger(np.atleast_2d(x), np.atleast_2d(y), **options)
    assert np.isnan(found.p).all() == np.isnan(found.f).all() == (found.problem != 0).all()
    return found.words[0]


def test_every_problem_is_told_and_leaves_the_neighbours_alone():
    x, y = np.random.default_rng(4).normal(size=(2, 1, 40))
    plain = {"max_lag": 2, "select": None, "difference": 0}
    broken = {}
    for bad in (np.nan, np.inf):
        wrong = x.copy()
        wrong[0, 3] = bad
        broken[bad] = wrong
        for options in (plain, {}):
            assert words(wrong, y, **options) == words(x, wrong, **options) == "not finite"
    for constant in (np.full_like(x, 0.1), np.zeros_like(x), 1e9 + 1e-8 * x):
        for options in (plain, {}):
            assert words(constant, y, **options) == words(x, constant, **options) == "constant"
    trend = 0.1 * np.arange(40.0)[None]
    assert words(trend, y, **(plain | {"difference": 1})) == "constant"
    assert words(y, y, **plain) == words(3 * y + 1, y, **plain) == "singular"
    for place in (0, 1e9):  # rounding is no residual
        assert words(x, place + np.sin(np.arange(40.0)), **plain) == "perfect fit"
    assert words(np.sin(np.arange(40.0)), y, **(plain | {"max_lag": 3})) == "singular"
    assert words(x, np.exp(0.5 * np.arange(40.0)) + y) == "nonstationary"
    assert set(PROBLEMS) == {"", "not finite", "constant", "too short", "singular", "perfect fit", "nonstationary"}

    together = granger(np.concatenate((x, broken[np.nan], x)), np.concatenate((y, y, y)), **plain)
    assert together.words == ["", "not finite", ""]
    assert together.p[0] == together.p[2] == granger(x, y, **plain).p[0]


@pytest.mark.parametrize("lag", [1, 2, 3])
def test_too_short_is_where_statsmodels_refuses(lag):
    for length in range(1, 3 * lag + 5):
        x, y = np.random.default_rng(length).normal(size=(2, length))
        word = words(x, y, max_lag=lag, select=None, difference=0)
        if length <= 3 * lag + 1:
            assert word == ("constant" if length == 1 else "too short")
            if length > 1:
                with pytest.raises(ValueError, match="Insufficient"):
                    oracle(x, y, lag)
        else:
            assert word == ""
    assert words(*np.random.default_rng(0).normal(size=(2, 6)), difference=7) == "too short"


def test_lags_that_do_not_fit_are_not_tried():
    x, y = np.random.default_rng(5).normal(size=(2, 50, 9))
    found = granger(x, y, max_lag=10, difference=0)
    assert set(found.lag) <= {1, 2}
    np.testing.assert_array_equal(found.p, granger(x, y, max_lag=2, difference=0).p)
    assert granger(x[:, :4], y[:, :4], difference=0).words == ["too short"] * 50


def test_a_trend_has_no_unit_root_test_but_a_word():
    trend = np.arange(30.0)
    assert adf(trend).words == ["perfect fit"]
    assert adf([[1, 2, 1]]).words == ["too short"]
    assert adf([[1, 1, 1, 1, 1], [1, np.nan, 1, 2, 3]]).words == ["constant", "not finite"]
    order, problem = differencing(np.stack((trend, np.ones(30))))
    assert [PROBLEMS[each] for each in problem] == ["perfect fit", "constant"]
    assert (order == 2).all()

    wave = np.sin(0.1 * np.arange(60)) + 1e-9 * np.random.default_rng(0).normal(size=60)
    assert adf(wave).words == ["singular"]  # the noise is too small beside the wave; beside its differences it is not
    assert adf(np.diff(wave)).words == [""]
    assert [each.tolist() for each in differencing(wave)] == [[1], [0]]


@settings(max_examples=8, deadline=None)  # the oracle collects garbage at every call
@given(st.lists(st.floats(0, 1) | st.just(float("nan")), max_size=20), st.sampled_from(["holm", "fdr_bh"]))
def test_corrections_are_those_of_statsmodels(p, method):
    p = np.array(p)
    found = corrected(p, method)
    tested = ~np.isnan(p)
    np.testing.assert_array_equal(np.isnan(found), ~tested)
    if tested.any():
        np.testing.assert_allclose(found[tested], multipletests(p[tested], method=method)[1], atol=1e-12)
    assert (found[tested] >= p[tested]).all()


def test_a_correction_keeps_the_shape():
    p = np.random.default_rng(6).random((3, 4))
    for method in ("holm", "fdr_bh"):
        np.testing.assert_array_equal(corrected(p, method).ravel(), corrected(p.ravel(), method))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"effects": np.ones((2, 9))}, r"causes have shape \(3, 9\) and effects \(2, 9\)"),
        ({"effects": np.ones(8)}, r"causes have shape \(3, 9\) and effects \(8,\)"),
        ({"causes": np.ones((3, 9, 1))}, r"causes has shape \(3, 9, 1\)"),
        ({"causes": [["a", "b"]]}, "causes is no array of real numbers"),
        ({"causes": np.ones((3, 0))}, r"causes has shape \(3, 0\)"),
        ({"max_lag": 0}, "max_lag 0 is no whole number from 1"),
        ({"max_lag": 1.5}, "max_lag 1.5"),
        ({"select": "hqic"}, "select 'hqic' is unknown"),
        ({"difference": -1}, 'difference -1 is neither "adf"'),
        ({"difference": "kpss"}, "difference 'kpss'"),
        ({"alpha": 0}, r"alpha 0 is outside \(0, 1\)"),
    ],
)
def test_wrong_arguments_are_refused(change, words):
    with pytest.raises(DataError, match=words):
        granger(**({"causes": np.ones((3, 9)), "effects": np.ones((3, 9))} | change))


def test_wrong_p_values_and_orders_are_refused():
    with pytest.raises(DataError, match=r"from 0.1 to 1.5; they lie in \[0, 1\]"):
        corrected([0.1, 1.5])
    with pytest.raises(DataError, match="method 'bonferroni' is unknown"):
        corrected([0.1], "bonferroni")
    with pytest.raises(DataError, match="most -1 is below 0"):
        differencing(np.ones((1, 9)), most=-1)
