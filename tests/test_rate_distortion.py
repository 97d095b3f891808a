"""Rate–distortion: closed forms, convexity, the certificate against random channels, reverse water-filling."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jali.errors import DataError, LimitError
from jali.maths.rate_distortion import blahut_arimoto, gaussian_rate, rate_distortion

seeds = st.integers(0, 10**6)


def entropy(p):
    p = np.asarray(p)[np.asarray(p) > 0]
    return float(-(p * np.log(p)).sum())


@pytest.mark.parametrize("at", [0.0, 1e-4, 0.05, 0.11, 0.25, 0.4, 0.499, 0.5, 0.7])
def test_bernoulli_one_half_under_hamming(at):
    """R(D) = 1 − H(D) bits; Cover & Thomas, theorem 10.3.1."""
    found = rate_distortion([0.5, 0.5], 1 - np.eye(2), at)
    want = 1 - entropy([at, 1 - at]) / np.log(2) if at < 0.5 else 0.0
    assert found.rate / np.log(2) == pytest.approx(want, abs=1e-5)
    assert 0 <= found.gap <= 1e-6


@pytest.mark.parametrize("p", [0.1, 0.3])
def test_bernoulli_p(p):
    for at in np.linspace(0, p, 5)[:-1]:
        found = rate_distortion([p, 1 - p], 1 - np.eye(2), at).rate
        assert found == pytest.approx(entropy([p, 1 - p]) - entropy([at, 1 - at]), abs=2e-6)


@pytest.mark.parametrize("size", [3, 5])
def test_a_uniform_source_under_hamming(size):
    at = 0.3
    found = rate_distortion(np.full(size, 1 / size), 1 - np.eye(size), at)
    assert found.rate == pytest.approx(np.log(size) - entropy([at, 1 - at]) - at * np.log(size - 1), abs=2e-6)


def test_an_erasure_makes_the_curve_a_line():
    """With an "I do not know" at cost 1 and infinite cost of an error, R(D) = (1 − D) log 2."""
    distortion = np.array([[0, 1, 1e4], [1e4, 1, 0]])
    for at in (0.0, 0.25, 0.9):
        assert rate_distortion([0.5, 0.5], distortion, at).rate == pytest.approx((1 - at) * np.log(2), abs=2e-6)


@st.composite
def sources(draw):
    rng = np.random.default_rng(draw(seeds))
    n, m = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    return rng.dirichlet(np.ones(n)), rng.exponential(size=(n, m)), rng


@given(sources())
@settings(max_examples=25)
def test_no_channel_beats_the_certificate_and_the_curve_is_convex(source):
    p, d, rng = source
    least, most = float(p @ d.min(axis=1)), float((p @ d).min())
    ats = np.linspace(least, most, 6)
    found = [rate_distortion(p, d, at, tolerance=1e-5) for at in ats]
    rates = np.array([point.rate for point in found])
    assert (np.diff(rates) <= 1e-5).all()
    assert (np.diff(rates, 2) >= -4e-5).all()
    assert rates[-1] == pytest.approx(0, abs=1e-5)
    assert all(0 <= point.gap <= 1.1e-5 for point in found)
    for concentration in (0.1, 1.0):
        for _ in range(5):
            channel = rng.dirichlet(np.full(d.shape[1], concentration), size=len(p))
            needed = rate_distortion(p, d, float(p @ (channel * d).sum(1)), tolerance=1e-5)
            joint, out = p[:, None] * channel, p @ channel
            information = entropy(out) + entropy(p) - entropy(joint.ravel())
            assert information >= needed.rate - needed.gap - 1e-9


@given(sources(), st.floats(0.1, 30))
@settings(max_examples=25)
def test_a_point_of_given_slope_is_on_the_curve(source, slope):
    p, d, _ = source
    rough = blahut_arimoto(p, d, slope, tolerance=0.1)
    exact = rate_distortion(p, d, rough.distortion, tolerance=1e-5)
    assert rough.rate - rough.gap - 1e-9 <= exact.rate <= rough.rate + 1e-5
    found = blahut_arimoto(p, d, slope, tolerance=1e-5)
    assert 0 <= found.gap <= 1.1e-5
    there = rate_distortion(p, d, found.distortion, tolerance=1e-5)
    assert there.rate == pytest.approx(found.rate, abs=3e-5)


def test_the_slope_is_that_of_the_closed_form():
    """−dR/dD = log((1 − D) / D) for Bernoulli(1/2), so slope log 9 is at D = 0.1."""
    assert blahut_arimoto([0.5, 0.5], 1 - np.eye(2), np.log(9)).distortion == pytest.approx(0.1, abs=1e-6)


def test_a_symbol_that_never_comes_changes_nothing():
    d = np.array([[0, 1.0], [1, 0], [0.2, 0.1]])
    assert rate_distortion([0.4, 0.6, 0.0], d, 0.1) == rate_distortion([0.4, 0.6], d[:2], 0.1)


@given(seeds, st.integers(1, 6), st.floats(0.001, 0.999))
def test_water_filling(seed, n, share):
    sigma = np.random.default_rng(seed).exponential(size=n)
    at = share * sigma.sum()
    found = gaussian_rate(sigma, at)
    assert found.distortions.sum() == pytest.approx(at)
    np.testing.assert_allclose(found.distortions, np.minimum(found.level, sigma))
    assert found.rate == pytest.approx(0.5 * np.log(sigma / found.distortions).sum(), abs=1e-9)
    rng = np.random.default_rng(seed + 1)
    for _ in range(10):  # no other allocation of the distortion needs less
        other = np.minimum(rng.dirichlet(np.ones(n)) * at, sigma)
        assert 0.5 * np.log(sigma / other).sum() >= found.rate - 1e-9
    slope = 1e-6 * at
    assert gaussian_rate(sigma, at + slope).rate <= found.rate
    # dR/dD = −1 / 2θ
    assert (gaussian_rate(sigma, at - slope).rate - found.rate) / slope == pytest.approx(0.5 / found.level, rel=1e-3)


def test_one_gaussian():
    assert gaussian_rate([4.0], 1.0).rate == pytest.approx(0.5 * np.log(4))
    assert gaussian_rate([4.0], 4.0).rate == 0.0
    assert gaussian_rate([4.0, 0.0], 1.0).rate == pytest.approx(0.5 * np.log(4))  # a constant costs nothing
    assert gaussian_rate([0.0, 0.0], 0.0).rate == 0.0
    assert gaussian_rate([1.0, 2.0], 0.0).rate == float("inf")


def test_a_fine_grid_of_a_gaussian_approaches_its_closed_form():
    y = np.linspace(-4, 4, 41)
    p = np.exp(-(y**2) / 2)
    p /= p.sum()
    found = rate_distortion(p, (y[:, None] - y) ** 2, 0.3, tolerance=1e-3)
    assert found.rate == pytest.approx(gaussian_rate([1.0], 0.3).rate, abs=5e-3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rate_distortion([0.5, 0.6], np.eye(2), 0.1), "sum 1"),
        (lambda: rate_distortion([0.5, 0.5], np.eye(3), 0.1), r"shape \(3, 3\)"),
        (lambda: rate_distortion([0.5, 0.5], -np.eye(2), 0.1), "at least 0"),
        (lambda: rate_distortion([0.5, 0.5], 1 + np.eye(2), 0.9), r"0\.9 is below 1,"),
        (lambda: rate_distortion([0.5, 0.5], np.eye(2), np.nan), "nan is below"),
        (lambda: rate_distortion([0.5, 0.5], np.eye(2), 0.1, tolerance=0), "tolerance 0"),
        (lambda: blahut_arimoto([0.5, 0.5], np.eye(2), 0.0), "slope 0"),
        (lambda: gaussian_rate([1.0, -1.0], 1), "variances"),
        (lambda: gaussian_rate([1.0], -0.1), "distortion -0.1"),
    ],
)
def test_what_is_no_source_is_one_clear_error(call, message):
    with pytest.raises(DataError, match=message):
        call()


def test_a_tolerance_out_of_reach_is_named():
    with pytest.raises(LimitError, match="raise the tolerance"):
        rate_distortion([0.3, 0.7], np.array([[0, 1.0, 0.4], [1, 0, 0.4]]), 0.2, tolerance=1e-18)
