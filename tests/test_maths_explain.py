"""Shapley values by their axioms, power laws by what they were drawn from."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jali.errors import DataError, LimitError
from jali.maths.power_law import eigenvalues, power_law, weighted_alpha
from jali.maths.shapley import shapley

sizes = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 4), st.integers(0, 10**6))


@settings(max_examples=25, deadline=None)
@given(sizes)
def test_a_linear_function_has_its_closed_form(size):
    examples, n, rows, seed = size
    rng = np.random.default_rng(seed)
    w, x, base = rng.normal(size=(n, 2)), rng.normal(size=(examples, n)), rng.normal(size=(rows, n))
    np.testing.assert_allclose(shapley(lambda r: r @ w, x, base), (x - base.mean(0))[:, :, None] * w, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(sizes)
def test_values_sum_to_the_prediction_and_follow_their_features(size):
    examples, n, rows, seed = size
    rng = np.random.default_rng(seed)
    w, x, base = rng.normal(size=(n, 3)), rng.normal(size=(examples, n)), rng.normal(size=(rows, n))

    def f(r):
        return np.tanh(r @ w).prod(axis=1, keepdims=True) + r[:, :1] ** 2

    found = shapley(f, x, base)
    np.testing.assert_allclose(found.sum(axis=1), f(x) - f(base).mean(axis=0), atol=1e-10)
    order = rng.permutation(n)
    turned = shapley(lambda r: f(r[:, np.argsort(order)]), x[:, order], base[:, order])
    np.testing.assert_allclose(turned, found[:, order], atol=1e-10)


def test_a_feature_that_changes_nothing_is_worth_nothing_and_equal_ones_are_worth_the_same():
    x, base = np.array([[1.0, 1.0, 5.0]]), np.zeros((1, 3))
    found = shapley(lambda r: r[:, :1] * r[:, 1:2], x, base)[0, :, 0]
    np.testing.assert_allclose(found, [0.5, 0.5, 0.0])


def test_shapley_says_what_it_cannot_do():
    with pytest.raises(LimitError, match="15 features have"):
        shapley(lambda r: r, np.zeros((1, 15)), np.zeros((1, 15)))
    for shapes in (((2, 3), (2, 4)), ((3,), (2, 3)), ((2, 3), (0, 3))):
        with pytest.raises(DataError, match="are not"):
            shapley(lambda r: r, np.zeros(shapes[0]), np.zeros(shapes[1]))


@settings(max_examples=10, deadline=None)
@given(st.floats(1.8, 4.0), st.floats(0.1, 100.0), st.integers(0, 10**6))
def test_the_exponent_that_data_were_drawn_from_is_found(alpha, xmin, seed):
    rng = np.random.default_rng(seed)
    tail = xmin * rng.random(3000) ** (-1 / (alpha - 1))
    found = power_law(tail)
    assert abs(found.alpha - alpha) < 5 * found.sigma
    scaled = power_law(7 * tail)
    assert scaled.alpha == pytest.approx(found.alpha, rel=1e-9)
    assert scaled.xmin == pytest.approx(7 * found.xmin, rel=1e-9)


def test_a_tail_above_something_else_is_cut_where_it_begins():
    rng = np.random.default_rng(0)
    found = power_law(np.concatenate([rng.uniform(0, 2, 4000), 2 * rng.random(4000) ** (-1 / 1.5)]))
    assert 1.6 < found.xmin < 2.6
    assert abs(found.alpha - 2.5) < 0.15


def test_by_hand():
    found = power_law([1.0, np.e, np.e**2])
    assert found.alpha == pytest.approx(2.0)
    assert (found.xmin, found.tail) == (1.0, 3)
    assert found.distance == pytest.approx(1 - 1 / np.e - 1 / 3)  # at e: of the fit, and of the values below it
    assert power_law([1.0, 1.0, 2.0, 4.0, 0.0]).tail <= 4


def test_the_weighted_exponent_is_that_of_the_squared_singular_values():
    rng = np.random.default_rng(1)
    weight = rng.normal(size=(30, 50))
    values = np.linalg.eigvalsh(weight @ weight.T)[::-1]
    np.testing.assert_allclose(eigenvalues(weight), values, rtol=1e-9)
    alpha, weighted = weighted_alpha(weight)
    assert alpha == pytest.approx(power_law(values).alpha)
    assert weighted == pytest.approx(alpha * np.log10(values.max()))


@pytest.mark.parametrize("values", [[1.0, 2.0], [1.0, 1.0, 1.0], [], [-1.0, 2.0, 3.0], [1.0, 2.0, np.nan]])
def test_a_power_law_says_what_it_cannot_do(values):
    with pytest.raises(DataError, match=r"too few|finite"):
        power_law(values)


def test_the_exponent_is_that_of_the_powerlaw_library():
    library = pytest.importorskip("powerlaw", reason="an oracle of extra explain")
    rng = np.random.default_rng(3)
    for size in (10, 50, 300):
        values = rng.pareto(1.5, size) + 0.1
        fit, found = library.Fit(values, verbose=False), power_law(values)
        np.testing.assert_allclose((found.alpha, found.xmin, found.distance), (fit.alpha, fit.xmin, fit.D), rtol=1e-9)


def test_values_are_those_of_the_shap_library():
    library = pytest.importorskip("shap", reason="an oracle of extra explain")
    rng = np.random.default_rng(4)
    w, x, base = rng.normal(size=(4, 1)), rng.normal(size=(3, 4)), rng.normal(size=(6, 4))

    def f(r):
        return np.tanh(r @ w) + r[:, :1] * r[:, 1:2]

    masker = library.maskers.Independent(base, max_samples=len(base))
    explained = library.explainers.Exact(lambda r: f(r)[:, 0], masker)(x, silent=True)
    np.testing.assert_allclose(shapley(f, x, base)[:, :, 0], explained.values, atol=1e-10)
