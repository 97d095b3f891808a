"""Exponents of series: equal to nolds, laws, maps and a flow whose exponents are known, and what cannot be measured."""

from __future__ import annotations

import nolds
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.systems import KNOWN, henon, logistic, lorenz
from jali.errors import DataError, DynamicsError
from jali.maths.series_exponents import direct, rosenstein

seeds = st.integers(0, 2**32 - 1)


def windows(seed, count, length):
    """Chaos, noise and random walks."""
    rng = np.random.default_rng(seed)
    kinds = (
        logistic(rng.uniform(0.1, 0.9, count), length, 3.9),
        henon(*rng.uniform(-0.1, 0.1, (2, count)), length),
        rng.normal(size=(count, length)),
        rng.normal(size=(count, length)).cumsum(axis=1),
    )
    return kinds[seed % len(kinds)]


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(1, 6), st.integers(1, 3), st.integers(0, 6), st.integers(1, 20), st.integers(0, 3))
def test_rosenstein_is_that_of_nolds(seed, dimension, delay, theiler, steps, skip):
    skip = min(skip, steps - 1)
    series = windows(seed, 3, 90)
    found = rosenstein(series, dimension, delay, theiler, steps, skip=skip)
    for window, exponent in zip(series, found, strict=True):
        want = nolds.lyap_r(
            window,
            emb_dim=dimension,
            lag=delay,
            min_tsep=theiler,
            trajectory_len=steps + 1,
            fit="poly",
            fit_offset=skip,
        )
        assert exponent == pytest.approx(want, rel=1e-6, abs=1e-9)


def by_definition(x, dimension, delay, theiler, steps):
    """Rosenstein's method with TISEAN's neighbours: never one that coincides; of equal ones the nearer in time, the later."""
    points = len(x) - (dimension - 1) * delay
    embedded = np.stack([x[t : t + (dimension - 1) * delay + 1 : delay] for t in range(points)])
    apart = ((embedded[:, None] - embedded) ** 2).sum(axis=2)
    logs = [[] for _ in range(steps + 1)]
    for t in range(points - steps):
        others = [u for u in range(points - steps) if abs(t - u) > theiler and apart[t, u] > 0]
        if others:
            nearest = min(others, key=lambda u: (apart[t, u], abs(t - u), -u))
            for k in range(steps + 1):
                if apart[t + k, nearest + k] > 0:
                    logs[k].append(np.log(apart[t + k, nearest + k]) / 2)
    at = [k for k in range(steps + 1) if logs[k]]
    return np.polyfit(at, [np.mean(logs[k]) for k in at], 1)[0] if len(at) > 1 else -np.inf


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(1, 3), st.integers(1, 2), st.integers(0, 3), st.integers(1, 6))
def test_points_that_coincide_are_no_neighbours(seed, dimension, delay, theiler, steps):
    """Half of the values occur many times."""
    rng = np.random.default_rng(seed)
    x = np.where(rng.random(60) < 0.5, rng.normal(size=60), rng.integers(0, 2, size=60))
    found = rosenstein(x, dimension, delay, theiler, steps)[0]
    assert found == pytest.approx(by_definition(x, dimension, delay, theiler, steps), rel=1e-9, abs=1e-9)


@given(seeds, st.integers(-900, 900))
@settings(max_examples=30, deadline=None)
def test_a_power_of_two_changes_no_digit(seed, power):
    series = np.clip(windows(seed, 2, 60), -50, 50)
    np.testing.assert_array_equal(rosenstein(np.ldexp(series, power)), rosenstein(series))


@given(seeds, st.floats(-100, 100), st.floats(1e-3, 1e3), st.sampled_from([-1, 1]))
@settings(max_examples=30, deadline=None)
def test_place_and_scale_change_nothing(seed, place, scale, sign):
    series = windows(seed, 2, 60)
    np.testing.assert_allclose(rosenstein(place + sign * scale * series), rosenstein(series), rtol=1e-6, atol=1e-9)


@given(seeds, st.permutations(range(4)))
@settings(max_examples=20, deadline=None)
def test_a_batch_is_its_windows_in_any_order(seed, order):
    series = windows(seed, 4, 60)
    series[1, 5], series[2] = np.nan, 3.0
    found = rosenstein(series)
    np.testing.assert_array_equal(rosenstein(series[order]), found[order])
    np.testing.assert_array_equal(np.concatenate([rosenstein(each) for each in series]), found)
    start = np.array([1.0, -2, 0.5, 1e-9])
    by_window = [direct(each, delta)[0] for each, delta in zip(series, start, strict=True)]
    np.testing.assert_array_equal(direct(series, start), by_window)


@given(st.floats(-2, 2), st.floats(1e-12, 1), st.integers(1, 100), st.sampled_from([-1, 1]))
def test_direct_finds_the_rate_of_an_exponential(rate, delta0, length, sign):
    differences = delta0 * np.exp(rate * np.arange(1, length + 1))
    assert direct(differences, sign * delta0)[0] == pytest.approx(rate, abs=1e-9)
    before = 7  # iterates since the start of the training
    assert direct(differences, delta0 * np.exp(-rate * before), steps=length + before)[0] == pytest.approx(
        rate, abs=1e-9
    )


def test_the_exponent_of_the_logistic_map_is_ln_2():
    start = np.random.default_rng(0).beta(0.5, 0.5, 20_000)  # the invariant density
    twins = logistic(start + 1e-10, 15) - logistic(start, 15)
    assert direct(twins, 1e-10).mean() == pytest.approx(KNOWN["logistic map"], rel=0.02)
    assert rosenstein(logistic(np.array([0.3]), 3000), 2, steps=6)[0] == pytest.approx(KNOWN["logistic map"], rel=0.05)


def test_the_exponent_of_the_henon_map():
    start = np.random.default_rng(0).uniform(-0.1, 0.1, (2, 20_000))
    twins = henon(start[0] + 1e-12, start[1], 40) - henon(*start, 40)
    ahead = twins[:, 10:]  # the first steps turn the difference into the direction that grows
    assert direct(ahead, twins[:, 9]).mean() == pytest.approx(KNOWN["Hénon map"], rel=0.05)
    assert rosenstein(henon(*np.full((2, 1), 0.1), 5000)[:, 100:], 2, steps=8)[0] == pytest.approx(
        KNOWN["Hénon map"], rel=0.05
    )


def test_the_exponent_of_the_lorenz_flow():
    step, start = 0.01, np.random.default_rng(0).normal((0, 0, 25), 1, size=(1000, 3)).T
    moved = start.copy()
    moved[0] += 1e-9
    twins = lorenz(moved, 1500, step) - lorenz(start, 1500, step)
    assert direct(twins[:, 300:], twins[:, 299]).mean() / step == pytest.approx(KNOWN["Lorenz flow"], rel=0.05)

    # Neighbours are an orbit apart, the line goes from 0.5 to 2.5. Pairs that part fast stop growing first, so the line
    # is somewhat flat.
    step = 0.025
    series = lorenz(np.array([[1.0], [1], [20]]), 20_400, step)[:, 400::2]
    found = rosenstein(series, 3, delay=2, theiler=20, steps=50, skip=10)[0] / (2 * step)
    assert found == pytest.approx(KNOWN["Lorenz flow"], rel=0.1)


def test_twins_that_coincide_have_no_number_but_an_infinite_exponent():
    found = direct([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0]], [1.0, 0.0, 0.0, 1.0, 1.0])
    np.testing.assert_array_equal(found, [-np.inf, np.inf, np.nan, np.nan, np.nan])
    assert np.isnan(direct([1.0, 2.0], np.nan)[0])
    assert direct([1e-320, 1e-310], 1e308)[0] == pytest.approx((np.log(1e-310) - np.log(1e308)) / 2)


def test_where_nothing_parts_the_exponent_is_minus_infinity_and_where_a_value_is_missing_nan():
    series = np.stack((np.full(30, 0.1), np.tile([0.0, 1.0], 15), np.arange(30.0), np.arange(30.0)))
    series[3, 4] = np.nan
    found = rosenstein(series)
    assert np.isneginf(found[0])
    assert found[1] == pytest.approx(0, abs=1e-12)  # in a period, all distances stay
    assert found[2] == pytest.approx(0, abs=1e-12)  # on a straight line, too
    assert np.isnan(found[3])
    for base in (2.0, 1e10):  # products of such squares would underflow
        assert rosenstein(base ** -np.arange(15.0), 1, theiler=0, steps=3)[0] == pytest.approx(-np.log(base))
    assert np.isneginf(rosenstein(np.eye(1, 30), 1)[0])  # all distances are zero after one step
    assert np.isnan(rosenstein(np.full((2, 30), np.inf))).all()


def test_no_window_is_no_exponent():
    assert rosenstein(np.ones((0, 30))).shape == direct(np.ones((0, 30)), 1e-4).shape == (0,)


def test_too_short_is_where_nolds_refuses():
    for dimension, delay, theiler, steps in ((1, 1, 0, 1), (3, 1, 1, 10), (2, 3, 4, 5)):
        enough = (dimension - 1) * delay + steps + 2 * theiler + 2
        x = np.random.default_rng(0).normal(size=enough)
        assert np.isfinite(rosenstein(x, dimension, delay, theiler, steps)).all()
        with pytest.raises(DynamicsError, match=f"windows of {enough - 1} values are too short.* need {enough}"):
            rosenstein(x[1:], dimension, delay, theiler, steps)
        with pytest.raises((ValueError, AssertionError)), pytest.warns(RuntimeWarning, match="you need at least"):
            nolds.lyap_r(x[1:], emb_dim=dimension, lag=delay, min_tsep=theiler, trajectory_len=steps + 1, fit="poly")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dimension": 0}, "dimension 0 is no whole number from 1"),
        ({"delay": 1.5}, "delay 1.5 is no whole number from 1"),
        ({"theiler": -1}, "theiler -1 is no whole number from 0"),
        ({"steps": 0}, "steps 0 is no whole number from 1"),
        ({"skip": -1}, "skip -1 is no whole number from 0"),
        ({"steps": 4, "skip": 4}, "skip 4 leaves no two points of a line that ends at step 4"),
    ],
)
def test_wrong_parameters_are_refused(change, words):
    with pytest.raises(DynamicsError, match=words):
        rosenstein(np.ones((2, 50)), **change)


def test_wrong_differences_are_refused():
    with pytest.raises(DynamicsError, match=r"delta0 has shape \(3,\); give one number, or one for each of 2 windows"):
        direct(np.ones((2, 5)), np.ones(3))
    with pytest.raises(DynamicsError, match="steps 0 is no whole number from 1"):
        direct(np.ones((2, 5)), 1.0, steps=0)
    for call in (lambda x: direct(x, 1.0), rosenstein):
        with pytest.raises(DataError, match=r"shape \(2, 5, 1\)"):
            call(np.ones((2, 5, 1)))
