"""Information estimators: laws, closed forms, their bias on Gaussians, and answers for what carries no information."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jali.errors import DataError
from jali.maths.information import binned, discrete, gaussian, gaussian_bias, ksg, whiten

seeds = st.integers(0, 10**6)
ESTIMATORS = [gaussian, ksg, binned]
every_estimator = pytest.mark.parametrize("estimate", ESTIMATORS, ids=lambda f: f.__name__)


def correlated(rho, samples, seed):
    """Two samples whose correlation is rho exactly: the sampling error of the correlation is no part of the estimator."""
    x, noise = np.random.default_rng(seed).normal(size=(2, samples))
    x, noise = x - x.mean(), noise - noise.mean()
    noise -= x * (x @ noise) / (x @ x)
    return x / x.std(), rho * x / x.std() + np.sqrt(1 - rho**2) * noise / noise.std()


@pytest.mark.parametrize("rho", [0.3, -0.6, 0.8, 0.9])
def test_bivariate_gaussians_within_five_percent_at_5000(rho):
    true = -0.5 * np.log(1 - rho**2)
    pairs = [correlated(rho, 5000, seed) for seed in range(8)]
    assert gaussian(*pairs[0]).nats == pytest.approx(true, rel=1e-9)
    assert np.mean([ksg(*pair).nats for pair in pairs]) == pytest.approx(true, rel=0.05)
    coarse = np.mean([binned(*pair).nats for pair in pairs])
    assert coarse == pytest.approx(true, rel=0.1)  # bins blur


def test_bins_approach_the_truth_from_below_as_they_grow():
    x, y = correlated(0.9, 100_000, 0)
    found = [binned(x, y, bins).nats for bins in (2, 4, 8, 16, 32)]
    assert found == sorted(found)
    assert found[0] == pytest.approx(np.log(2) * (1 - _h(0.5 + np.arcsin(0.9) / np.pi)), abs=0.01)  # the sign alone
    assert found[-1] == pytest.approx(0.8304, rel=0.05)


def _h(p):
    return -(p * np.log2(p) + (1 - p) * np.log2(1 - p))


def test_the_table_of_biases():
    table = gaussian_bias((0.6, 0.9), samples=1000, repeats=20)
    assert [(line.rho, line.estimator) for line in table] == [
        (rho, name) for rho in (0.6, 0.9) for name in ("gaussian", "ksg", "binned")
    ]
    for line in table:
        assert line.true == pytest.approx(-0.5 * np.log(1 - line.rho**2))
        assert line.relative == pytest.approx(line.mean / line.true - 1)
        if line.estimator != "binned":
            assert abs(line.mean - line.true) < 0.05 * line.true + 3 * line.deviation / np.sqrt(20)
    assert table[5].relative < -0.05  # bins lose what lies within them
    assert gaussian_bias((0.5,), 50, 2, seed=3) == gaussian_bias((0.5,), 50, 2, seed=3)


@every_estimator
@given(seeds, st.floats(0.1, 10))
@settings(max_examples=10)
def test_symmetry_and_invariance(estimate, seed, scale):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(200, 2))
    y = x @ rng.normal(size=(2, 2)) + rng.normal(size=(200, 2))
    value = estimate(x, y).nats
    assert estimate(y, x).nats == pytest.approx(value, abs=1e-9)
    assert estimate(scale * x - 3, y[:, ::-1]).nats == pytest.approx(value, abs=1e-9)
    order = rng.permutation(200)
    assert estimate(x[order], y[order]).nats == pytest.approx(value, abs=1e-9)


@given(seeds)
@settings(max_examples=20)
def test_the_gaussian_form_is_the_determinants_and_any_linear_change_keeps_it(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(300, 3))
    y = x[:, :2] @ rng.normal(size=(2, 2)) + rng.normal(size=(300, 2))
    c = np.cov(np.hstack((x, y)).T)
    want = 0.5 * (np.linalg.slogdet(c[:3, :3])[1] + np.linalg.slogdet(c[3:, 3:])[1] - np.linalg.slogdet(c)[1])
    found = gaussian(x, y)
    assert found.nats == pytest.approx(want, abs=1e-9)
    assert gaussian(x @ rng.normal(size=(3, 3)), y).nats == pytest.approx(want, abs=1e-6)
    assert gaussian(np.hstack((x, x[:, :1] - x[:, 1:2])), y).nats == pytest.approx(want, abs=1e-9)  # a feature twice
    assert gaussian(x[:, :1], y).nats <= want + 1e-12  # data processing
    assert found.bits == pytest.approx(found.nats / np.log(2))
    assert found.samples == 300


def test_a_linear_function_has_infinite_information():
    x = np.random.default_rng(0).normal(size=(50, 2))
    found = gaussian(x, x[:, :1] * 3 + 1)
    assert found.nats == float("inf")
    assert "linear function" in found.notes[0]


def test_ksg_sees_what_covariance_does_not():
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, 3000)
    x, y = np.cos(angle) + 0.05 * rng.normal(size=3000), np.sin(angle) + 0.05 * rng.normal(size=3000)
    assert gaussian(x, y).nats < 0.01
    assert ksg(x, y).nats > 0.5
    assert binned(x, y).nats > 0.5


def test_ksg_is_its_formula():
    from scipy.special import digamma

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 2)), rng.normal(size=(40, 1))
    a, b = ((part - part.mean(0)) / part.std(0) for part in (x, y))
    total = 0.0
    for i in range(40):
        dx, dy = np.abs(a - a[i]).max(1), np.abs(b - b[i]).max(1)
        reach = np.sort(np.maximum(dx, dy))[3]  # the third neighbour; the sample itself comes first
        total += digamma((dx < reach).sum()) + digamma((dy < reach).sum())  # with itself: n + 1
    assert ksg(x, y, 3).nats == pytest.approx(digamma(3) + digamma(40) - total / 40)


def test_discrete_labels():
    x = np.repeat([0, 1, 2, 3], 250)
    assert discrete(x, x, correct=False).nats == pytest.approx(np.log(4))
    assert discrete(x, x % 2, correct=False).nats == pytest.approx(np.log(2))
    assert discrete(np.array(list("ab") * 500), x, correct=False).nats == pytest.approx(0, abs=1e-12)
    rng = np.random.default_rng(0)
    independent = [rng.integers(0, 8, size=(2, 300)) for _ in range(50)]
    assert np.mean([discrete(*pair, correct=False).nats for pair in independent]) > 0.05  # 49 / 600 = 0.08
    assert np.mean([discrete(*pair).nats for pair in independent]) == pytest.approx(0, abs=0.01)


@every_estimator
def test_constants_carry_nothing_and_say_so(estimate):
    x = np.random.default_rng(0).normal(size=(60, 2))
    for pair, name in (((x, np.ones((60, 3))), "y"), ((np.zeros(60), x), "x")):
        found = estimate(*pair)
        assert found.nats == 0.0
        assert found.notes == (f"{name} is constant: it carries no information",)
    padded = estimate(np.hstack((x, np.ones((60, 1)))), x[:, :1] ** 2)
    assert padded.nats == pytest.approx(estimate(x, x[:, :1] ** 2).nats, abs=1e-9)
    assert padded.notes == ("1 of 3 features of x are constant and were left out",)


def test_constant_labels():
    assert discrete([1, 1, 1], [0, 1, 2]).nats == 0.0
    assert "x is constant" in discrete([1, 1, 1], [0, 1, 2]).notes[0]


def test_samples_that_coincide_are_named_and_reproducible():
    x = np.repeat([0.0, 1.0, 2.0], 50)
    found = ksg(x, x)
    assert found.notes == ("some samples coincide: noise of 1e-10 standard deviations was added",)
    assert np.isfinite(found.nats)
    assert found == ksg(x, x)


@given(seeds, st.integers(1, 6))
@settings(max_examples=20)
def test_whitening(seed, components):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(100, 3)) @ rng.normal(size=(3, 6)) + 5  # rank 3
    found = whiten(x, components)
    kept = min(components, 3)
    np.testing.assert_allclose(found.scores.T @ found.scores / 100, np.eye(kept), atol=1e-9)
    np.testing.assert_allclose(found.scores.mean(0), 0, atol=1e-9)
    variances = np.sort(np.linalg.eigvalsh(np.cov(x.T)))[::-1]
    assert found.explained == pytest.approx(variances[:kept].sum() / variances.sum())
    assert found.note.startswith(f"{kept} principal components of 6 features, ")


def test_whitening_a_constant_leaves_nothing():
    found = whiten(np.ones((5, 3)), 2)
    assert not found.scores.any()
    assert ksg(found.scores, np.arange(5.0), 2).nats == 0.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gaussian(np.ones(3), np.ones(4)), "3 samples and y 4"),
        (lambda: ksg([np.nan, 1], [0, 1]), "NaN"),
        (lambda: gaussian(np.eye(4), np.eye(4)), "4 samples of 4 . 4 features"),
        (lambda: ksg([0.0, 1, 2], [0.0, 1, 2], 3), r"neighbours 3 is outside 1 \.\. 2"),
        (lambda: binned([0.0, 1, 2], [0.0, 1, 2], 1), "bins 1"),
        (lambda: binned([], []), r"shape \(0, 1\)"),
        (lambda: discrete([1, 2], [1, 2, 3]), "do not pair"),
        (lambda: whiten(np.eye(3), 0), "components 0"),
    ],
)
def test_what_cannot_be_estimated_is_one_clear_error(call, message):
    with pytest.raises(DataError, match=message):
        call()
