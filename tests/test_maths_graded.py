from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jali.errors import ContextError
from jali.maths.context import irreducible_columns
from jali.maths.graded import ALGEBRAS, conjunction, graded_irreducibility, residuum
from tests.strategies_context import incidences, seeds, weights

every_algebra = pytest.mark.parametrize("algebra", ALGEBRAS)
degrees = st.sampled_from([0.0, 0.125, 0.25, 0.5, 0.75, 0.875, 1.0])  # exact in binary, as are their products


@every_algebra
@given(x=degrees, y=degrees, z=degrees)
def test_residuation(algebra, x, y, z):
    assert (conjunction(x, y, algebra) <= z) == (y <= residuum(x, z, algebra))
    assert conjunction(x, 1.0, algebra) == x
    assert conjunction(x, y, algebra) == conjunction(y, x, algebra)
    assert (residuum(x, y, algebra) == 1) == (x <= y)


@every_algebra
@given(relation=incidences())
@settings(max_examples=150)
def test_equals_the_binary_test_on_zero_one_matrices(algebra, relation):
    expected = irreducible_columns(relation).astype(float).tolist()
    assert graded_irreducibility(relation, algebra).degree.tolist() == expected
    assert graded_irreducibility(0.3 * relation, algebra).degree.tolist() == expected  # normalised by the maximum


@every_algebra
def test_equals_the_binary_test_on_a_larger_matrix(algebra):
    rng = np.random.default_rng(0)
    relation = rng.random((70, 70)) < 0.05
    relation[:, 5] = relation[:, 6] & relation[:, 7]
    relation[:, 8] = relation[:, 9]
    relation[:, 10] = True
    result = graded_irreducibility(relation, algebra)
    assert result.degree.tolist() == irreducible_columns(relation).astype(float).tolist()


@every_algebra
@given(matrix=weights(positive=False))
def test_is_the_formula(algebra, matrix):
    result = graded_irreducibility(matrix, algebra)
    b = result.scaled
    for j in range(b.shape[1]):
        meet = np.ones(b.shape[0])
        for k in range(b.shape[1]):
            if not np.array_equal(b[:, k], b[:, j]):
                contains = residuum(b[:, j], b[:, k], algebra).min()
                meet = np.minimum(meet, residuum(contains, b[:, k], algebra))
        np.testing.assert_allclose(result.meet[:, j], meet, atol=1e-15)
        np.testing.assert_allclose(
            result.gap[:, j], 1 - residuum(np.maximum(meet, b[:, j]), b[:, j], algebra), atol=1e-15
        )


@every_algebra
@given(matrix=weights(positive=False))
def test_bounds(algebra, matrix):
    result = graded_irreducibility(matrix, algebra)
    assert (result.meet >= result.scaled).all()
    assert ((result.gap >= 0) & (result.gap <= 1)).all()
    assert (result.meet > result.scaled)[result.gap > 0].all()
    assert (result.gap > 0)[result.meet > result.scaled + 1e-12].all()
    assert (result.mean_gap <= result.degree + 1e-15).all()  # a mean of equal numbers may round up


@every_algebra
@given(rng=seeds())
def test_a_column_made_of_the_others_by_shifts_and_meets_is_reducible(algebra, rng):
    others = rng.integers(1, 65, (6, 4)) / 64
    others[0] = 1.0  # fixes the scale, also that of each column
    shifts = rng.integers(1, 65, 4) / 64
    made = residuum(shifts, others, algebra).min(axis=1)
    degree = graded_irreducibility(np.column_stack((others, made)), algebra).degree[-1]
    if any(np.array_equal(made, other) for other in others.T):
        return  # equal columns are left out: there may be nothing else to make it of
    assert degree <= 1e-14


@every_algebra
@given(matrix=weights(positive=False), rng=seeds())
def test_relabelling_units_relabels_the_degrees(algebra, matrix, rng):
    rows, columns = rng.permutation(matrix.shape[0]), rng.permutation(matrix.shape[1])
    moved = graded_irreducibility(matrix[np.ix_(rows, columns)], algebra)
    assert (moved.degree == graded_irreducibility(matrix, algebra).degree[columns]).all()


@every_algebra
@given(matrix=weights(positive=False))
def test_duplicates_share_the_verdict_and_change_no_other(algebra, matrix):
    degree = graded_irreducibility(matrix, algebra).degree
    doubled = graded_irreducibility(np.hstack((matrix, matrix[:, :1])), algebra).degree
    assert (doubled[:-1] == degree).all()
    assert doubled[-1] == degree[0]


@every_algebra
@given(matrix=weights(), power=st.integers(-5, 5))
def test_units_of_measurement_do_not_matter(algebra, matrix, power):
    scaled = graded_irreducibility(matrix * 2.0**power, algebra)
    assert (scaled.degree == graded_irreducibility(matrix, algebra).degree).all()


@given(matrix=weights(), rng=seeds())
def test_min_plus_sees_the_shape_of_a_column_not_its_strength(matrix, rng):
    factors = 2.0 ** rng.integers(-4, 5, matrix.shape[1])
    expected = graded_irreducibility(matrix, "min-plus").degree
    assert (graded_irreducibility(matrix * factors, "min-plus").degree == expected).all()


@given(matrix=weights())
def test_min_plus_meets_are_the_principal_solution_in_costs(matrix):
    result = graded_irreducibility(matrix, "min-plus")
    with np.errstate(divide="ignore"):
        cost = -np.log(result.scaled)
    for j in range(matrix.shape[1]):
        if not matrix[:, j].any():
            continue
        best = np.zeros(matrix.shape[0])
        for k in range(matrix.shape[1]):
            finite = np.isfinite(cost[:, j])
            if np.array_equal(cost[:, k], cost[:, j]) or np.isinf(cost[finite, k]).any():
                continue
            shift = (cost[finite, j] - cost[finite, k]).min()
            best = np.maximum(best, shift + cost[:, k])
        np.testing.assert_allclose(result.meet[:, j], np.exp(-best), rtol=1e-12)


@pytest.mark.parametrize(
    ("algebra", "degree"), [("godel", 0.5), ("lukasiewicz", 0.25), ("goguen", 1 / 3), ("min-plus", 1 / 3)]
)
def test_by_hand(algebra, degree):
    # the first column is the intersection of the other two but for its last row: 0.5 where they both have 0.75
    matrix = [[1.0, 1.0, 1.0], [0.25, 0.25, 1.0], [0.25, 1.0, 0.25], [0.5, 0.75, 0.75]]
    result = graded_irreducibility(matrix, algebra)
    assert result.meet[:, 0].tolist() == [1.0, 0.25, 0.25, 0.75]
    assert result.degree[0] == pytest.approx(degree)


def test_negative_zero_is_zero():
    matrix = np.array([[0.0, -0.0], [1.0, 1.0]])
    assert graded_irreducibility(matrix).degree.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("matrix", [np.zeros((0, 2)), np.zeros(3), [[np.nan]], [[np.inf]], [[-1.0]]])
def test_bad_weights(matrix):
    with pytest.raises(ContextError, match="weights"):
        graded_irreducibility(matrix)


def test_unknown_algebra():
    with pytest.raises(ContextError, match="godel, lukasiewicz, goguen, min-plus"):
        graded_irreducibility([[1.0]], "boolean")
