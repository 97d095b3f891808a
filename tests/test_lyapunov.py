"""Lyapunov spectra: laws of the QR method on random matrices, then systems whose exponents are known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jali.errors import DynamicsError
from jali.maths.lyapunov import flow_spectrum, lyapunov_spectrum, propagators

seeds = st.integers(0, 10**6)
sizes = st.sampled_from([1, 2, 3, 7, 40])  # both ways of keeping the frames


def random_steps(seed, n, steps=6, batch=()):
    return np.random.default_rng(seed).normal(size=(steps, *batch, n, n))


def orthogonal(seed, n):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))[0]


@given(seeds, sizes)
def test_the_sum_is_the_mean_logarithm_of_the_determinants(seed, n):
    jacobians = random_steps(seed, n)
    want = np.linalg.slogdet(jacobians)[1].mean()
    assert lyapunov_spectrum(jacobians).exponents.sum() == pytest.approx(want, abs=1e-9 * n)


@given(seeds, sizes)
def test_an_orthogonal_change_of_basis_changes_nothing(seed, n):
    jacobians, turn = random_steps(seed, n), orthogonal(seed + 1, n)
    turned = lyapunov_spectrum(turn @ jacobians @ turn.T, start=turn)
    np.testing.assert_allclose(turned.exponents, lyapunov_spectrum(jacobians).exponents, atol=1e-9 * n)


@given(seeds, sizes, st.floats(1e-6, 1e6))
def test_a_scale_adds_its_logarithm(seed, n, scale):
    jacobians = random_steps(seed, n)
    scaled = lyapunov_spectrum(scale * jacobians).exponents
    np.testing.assert_allclose(scaled, lyapunov_spectrum(jacobians).exponents + np.log(scale), atol=1e-9 * n)


@given(seeds, sizes, st.integers(1, 4))
def test_a_batch_is_its_trajectories(seed, n, batch):
    jacobians = random_steps(seed, n, batch=(batch,))
    together = lyapunov_spectrum(iter(jacobians))
    assert together.exponents.shape == (batch, n)
    for index in range(batch):
        np.testing.assert_allclose(
            together.exponents[index], lyapunov_spectrum(jacobians[:, index]).exponents, atol=1e-9
        )
    np.testing.assert_allclose(together.mean, together.exponents.mean(0))
    assert together.largest == together.mean[0]


@given(seeds, st.sampled_from([2, 3, 7, 40]))
def test_a_few_exponents_are_those_of_the_first_columns(seed, n):
    """Column i of R depends on the first i columns alone."""
    jacobians = random_steps(seed, n)
    products = np.linalg.multi_dot(jacobians[::-1])[:, :2]
    volume = np.linalg.slogdet(np.linalg.qr(products)[1])[1] / len(jacobians)
    found = lyapunov_spectrum(jacobians, count=2, start=np.eye(n, 2))
    assert found.exponents.shape == (2,)
    assert found.exponents.sum() == pytest.approx(volume, abs=1e-8)


@given(seeds, st.sampled_from([3, 7, 40]), st.integers(1, 2))
def test_the_largest_exponents_are_found_in_the_last_block_and_beside_a_lost_direction(seed, n, count):
    """Unit vectors of the first units would stay in their own block for good, or vanish in the first step."""
    values = np.concatenate(([0.0], np.full(n - 3, 0.1), [0.5, 0.9]))
    found = lyapunov_spectrum(np.broadcast_to(np.diag(values), (400, n, n)), count=count)
    np.testing.assert_allclose(found.exponents, np.log([0.9, 0.5])[:count], atol=0.03)
    assert not found.notes


@given(seeds, sizes)
def test_one_step_of_one_direction_is_its_stretching(seed, n):
    jacobian, direction = random_steps(seed, n, 1), orthogonal(seed, n)[:, :1]
    found = lyapunov_spectrum(jacobian, count=1, start=direction).largest
    assert found == pytest.approx(np.log(np.linalg.norm(jacobian[0] @ direction)))
    assert found <= np.log(np.linalg.norm(jacobian[0], 2)) + 1e-12


@given(seeds, st.sampled_from([2, 3, 7, 40]))
def test_a_linear_map_has_the_logarithms_of_its_eigenvalues(seed, n):
    values = 1.5 ** -np.arange(n)
    basis = orthogonal(seed, n)
    normal = basis @ np.diag(values) @ basis.T  # singular values and moduli of eigenvalues are the same
    found = lyapunov_spectrum([normal] * 120, transient=100)
    np.testing.assert_allclose(found.exponents, np.log(values), atol=1e-6)
    shear = np.eye(n) + 0.1 * np.triu(np.random.default_rng(seed).normal(size=(n, n)), 1) / n
    found = lyapunov_spectrum([shear @ np.diag(values)] * 120, transient=100)
    np.testing.assert_allclose(found.exponents, np.log(values), atol=1e-6)


def test_a_rotation_has_no_exponents():
    rotation = np.array([[0.6, -0.8], [0.8, 0.6]])
    np.testing.assert_allclose(lyapunov_spectrum([rotation] * 50).exponents, [0, 0], atol=1e-15)


def henon(steps):
    x, y = 0.1, 0.1
    for _ in range(steps):
        x, y = 1 - 1.4 * x * x + y, 0.3 * x
        yield [[-2.8 * x, 1.0], [0.3, 0.0]]


def test_the_henon_map():
    """Wolf et al., Physica D 16 (1985) 285; the sum is log 0.3 exactly."""
    found = lyapunov_spectrum(henon(10_000), transient=100)
    np.testing.assert_allclose(found.exponents, [0.419, -1.623], rtol=0.01)
    assert found.exponents.sum() == pytest.approx(np.log(0.3))
    assert found.steps == 9_900


def lorenz(x):
    a, b, c = np.moveaxis(x, -1, 0)
    return np.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c], axis=-1)


def lorenz_jacobian(x):
    a, b, c = np.moveaxis(x, -1, 0)
    zero = np.zeros_like(a)
    rows = [[zero - 10, zero + 10, zero], [28 - c, zero - 1, -a], [b, a, zero - 8 / 3]]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def test_the_lorenz_system():
    """Sprott, *Chaos and Time-Series Analysis*, 2003: 0.9056, 0, -14.5723; the sum is -41/3 exactly."""
    start = np.random.default_rng(0).normal((0, 0, 25), 5, size=(300, 3))
    found = flow_spectrum(lorenz, lorenz_jacobian, start, step=0.02, steps=2_000, transient=1_000)
    assert found.mean[0] == pytest.approx(0.9056, rel=0.01)
    assert found.mean[1] == pytest.approx(0, abs=0.01)
    assert found.mean[2] == pytest.approx(-14.5723, rel=0.01)
    assert found.mean.sum() == pytest.approx(-41 / 3, rel=1e-3)  # that of the steps, not of the flow


def test_a_linear_flow_has_the_real_parts_of_its_eigenvalues():
    matrix = np.array([[-0.5, 2.0, 0.0], [-2.0, -0.5, 0.0], [0.0, 0.0, 0.25]])
    found = flow_spectrum(
        lambda x: x @ matrix.T, lambda x: matrix, np.ones(3), step=np.pi / 64, steps=64, transient=640
    )
    np.testing.assert_allclose(found.exponents, [0.25, -0.5, -0.5], atol=1e-4)


def test_the_propagator_is_the_derivative_of_the_step():
    def end(x):
        h, k = 0.05, []
        for part in (0, 0.5, 0.5, 1):
            k.append(lorenz(x + part * h * (k[-1] if k else 0)))
        return x + h / 6 * (k[0] + 2 * k[1] + 2 * k[2] + k[3])

    x, tiny = np.array([1.0, 2.0, 20.0]), 1e-6
    difference = [(end(x + tiny * e) - end(x - tiny * e)) / (2 * tiny) for e in np.eye(3)]
    found = next(propagators(lorenz, lorenz_jacobian, x, step=0.05, steps=1))
    np.testing.assert_allclose(found, np.transpose(difference), atol=1e-7)


@given(seeds, sizes, st.integers(1, 3))
@settings(max_examples=40)
def test_a_singular_jacobian_is_minus_infinity_with_a_word(seed, n, missing):
    rank = max(n - missing, 0)
    rng = np.random.default_rng(seed)
    jacobians = rng.normal(size=(4, n, rank)) @ rng.normal(size=(4, rank, n))
    found = lyapunov_spectrum(jacobians)
    assert found.singular
    assert np.isneginf(found.exponents).sum() == n - rank
    assert np.isfinite(found.exponents[:rank]).all()
    (note,) = found.notes
    assert f"{n - rank} of {n} exponents are -inf" in note
    assert "first at step 0" in note


def test_what_is_not_resolved_is_not_reported():
    """A turned diag(1, 1e-20) is singular to working precision; in its own axes it is not."""
    turn = orthogonal(0, 2)
    found = lyapunov_spectrum([turn @ np.diag([1, 1e-20]) @ turn.T] * 5, transient=1)
    np.testing.assert_allclose(found.exponents, [0, -np.inf], atol=1e-12)
    assert lyapunov_spectrum([np.diag([1, 1e-20])] * 5).exponents[1] == pytest.approx(np.log(1e-20))


@pytest.mark.parametrize("n", [3, 40])
def test_very_different_sizes_are_not_singular(n):
    values = np.logspace(0, -200, n)
    found = lyapunov_spectrum([np.diag(values)] * 3)
    np.testing.assert_allclose(found.exponents, np.log(values))
    assert not found.singular
    assert found.notes == ()


def test_only_the_trajectory_that_is_singular_is_marked():
    jacobians = np.stack([np.diag([2.0, 1.0]), np.diag([2.0, 0.0])])
    found = lyapunov_spectrum([np.eye(2)[None].repeat(2, 0), jacobians])
    np.testing.assert_array_equal(found.exponents, [[np.log(2) / 2, 0], [np.log(2) / 2, -np.inf]])
    assert found.notes == (
        "1 of 2 exponents are -inf in 1 of 2 trajectories: a Jacobian is singular to working precision, first at step 1",
    )


def test_a_diverging_integration_is_an_error_that_names_the_step():
    with pytest.raises(DynamicsError, match=r"left the finite numbers at step \d+ .*make the step smaller than 1"):
        flow_spectrum(lorenz, lorenz_jacobian, [1.0, 2.0, 3.0], step=1.0, steps=50)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ([np.full((2, 2), np.nan)], {}, "step 0 has NaN"),
        ([np.eye(2), np.eye(3)], {}, r"step 1 has shape \(3, 3\)"),
        ([np.ones((2, 3))], {}, r"shape \(2, 3\)"),
        ([], {}, "no step after the transient of 0"),
        ([np.eye(2)] * 3, {"transient": 3}, "no step after the transient of 3"),
        ([np.eye(2)], {"transient": -1}, "transient -1"),
        ([np.eye(2)], {"count": 3}, r"count 3 is outside 1 \.\. 2"),
        ([np.eye(2)], {"count": 0}, "count 0"),
        ([np.eye(2)], {"start": np.ones((2, 2))}, "orthonormal"),
    ],
)
def test_what_cannot_be_averaged_is_one_clear_error(arguments, options, message):
    with pytest.raises(DynamicsError, match=message):
        lyapunov_spectrum(arguments, **options)


@pytest.mark.parametrize("step", [0.0, -1.0, np.nan, np.inf])
def test_a_step_is_a_positive_time(step):
    with pytest.raises(DynamicsError, match="not a positive length"):
        next(propagators(lorenz, lorenz_jacobian, np.ones(3), step=step, steps=1))
