from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jali.errors import BudgetError, ContextError
from jali.maths.context import irreducible_columns, irreducible_rows
from jali.maths.persistence import filtration, logit_grid, strongest
from tests.strategies_context import incidences, irreducible_by_sets, seeds, weights


@given(weights())
@settings(max_examples=15)
def test_levels_are_the_binary_test_at_each_density(matrix):
    result = filtration(matrix)
    for level in range(0, len(result.densities), 5):
        incidence = strongest(matrix, result.densities[level])
        assert incidence.sum() == result.kept[level]
        assert (incidence == (matrix >= result.thresholds[level])).all()
        assert (result.columns[level] == irreducible_columns(incidence)).all()
        assert (result.rows[level] == irreducible_rows(incidence)).all()
    assert (result.column_counts == result.columns.sum(1)).all()
    assert (result.row_counts == result.rows.sum(1)).all()


@given(weights(), st.floats(0.01, 0.99))
def test_the_strongest_entries_are_kept_with_their_ties_and_without_zeros(matrix, density):
    kept = strongest(matrix, density)
    asked = max(1, round(density * matrix.size))
    assert kept.any()
    assert not kept[matrix == 0].any()
    assert matrix[kept].min() > matrix[~kept].max(initial=-1)  # ties are on one side
    assert kept.sum() >= min(asked, np.count_nonzero(matrix))
    assert (matrix > matrix[kept].min()).sum() < asked  # nothing beyond the ties


@given(seeds(), st.integers(2, 6), st.integers(2, 6))
@settings(max_examples=40)
def test_every_level_is_the_exact_persistence(rng, m, n):
    matrix = rng.random((m, n))
    size = m * n
    exact = np.zeros(n)
    place = [math.log(k / (size - k)) for k in range(1, size)]
    for k in range(1, size):  # k entries kept, over its cell of the logit scale
        left = place[max(k - 2, 0)] + place[k - 1]
        right = place[k - 1] + place[min(k, size - 2)]
        incidence = matrix >= np.sort(matrix.ravel())[-k]
        exact += (right - left) / 2 * np.array(irreducible_by_sets(incidence))
    every = filtration(matrix, np.arange(1, size) / size)
    assert every.kept.tolist() == list(range(1, size))
    np.testing.assert_allclose(every.persistence(), exact / (place[-1] - place[0]), atol=1e-12)


@given(weights())
def test_scores_are_measures(matrix):
    result = filtration(matrix)
    assert result.measure.sum() == pytest.approx(1)
    assert (result.measure > 0).all()
    for side in ("columns", "rows"):
        score = result.persistence(side)
        assert ((score >= 0) & (score <= 1 + 1e-12)).all()


@given(weights())
def test_levels_are_nested(matrix):
    result = filtration(matrix)
    assert (np.diff(result.kept) >= 0).all()
    assert (np.diff(result.thresholds) <= 0).all()
    assert (result.thresholds > 0).all()


@given(incidences())
def test_a_zero_one_matrix_has_one_level_the_binary_test(relation):
    assume(relation.any())
    result = filtration(relation)
    np.testing.assert_allclose(result.persistence(), irreducible_columns(relation), atol=1e-12)
    np.testing.assert_allclose(result.persistence("rows"), irreducible_rows(relation), atol=1e-12)


@given(weights(), seeds())
def test_relabelling_units_relabels_the_scores(matrix, rng):
    rows, columns = rng.permutation(matrix.shape[0]), rng.permutation(matrix.shape[1])
    before, after = filtration(matrix), filtration(matrix[np.ix_(rows, columns)])
    assert (after.columns == before.columns[:, columns]).all()
    assert (after.rows == before.rows[:, rows]).all()


@given(weights(), seeds())
def test_only_the_order_of_the_positive_weights_counts(matrix, rng):
    values, place = np.unique(np.append(0.0, matrix), return_inverse=True)
    table = np.concatenate(([0.0], np.cumsum(rng.random(len(values) - 1) + 0.01)))
    rescaled = table[place[1:]].reshape(matrix.shape)
    assert (filtration(rescaled).persistence() == filtration(matrix).persistence()).all()


@given(weights())
def test_transposing_swaps_the_sides(matrix):
    straight, turned = filtration(matrix), filtration(matrix.T)
    assert (straight.persistence("rows") == turned.persistence("columns")).all()


def test_both_is_the_mean():
    result = filtration(np.random.default_rng(0).random((9, 9)))
    mean = (result.persistence("rows") + result.persistence("columns")) / 2
    assert (result.persistence("both") == mean).all()


def test_equal_weights_have_no_structure():
    result = filtration(np.full((4, 3), 0.7))
    assert not result.columns.any()
    assert result.kept.tolist() == [12] * len(result.kept)


def test_by_hand():
    # strongest first: column 0 gets rows 0 and 1, then column 1 gets row 1, then row 0
    result = filtration([[4.0, 1.0], [3.0, 2.0]], [0.25, 0.5, 0.75])
    assert result.kept.tolist() == [1, 2, 3]
    assert result.thresholds.tolist() == [4.0, 3.0, 2.0]
    # {0}, {}: nothing above {0}, {0} above {} | {0,1}, {}: the first is full | {0,1}, {1}: the same
    assert result.columns.tolist() == [[True, True], [False, True], [False, True]]
    # {0}, {} | {0}, {0}: equal, nothing above | {0}, {0,1}: row 1 is full
    assert result.rows.tolist() == [[True, True], [True, True], [True, False]]
    assert result.measure.tolist() == pytest.approx([0.25, 0.5, 0.25])
    assert result.persistence().tolist() == pytest.approx([0.25, 1.0])


@given(st.integers(1, 40), st.integers(1, 40))
def test_the_default_grid_is_symmetric_and_spans_all_but_one_entry(m, n):
    grid = logit_grid(m, n)
    assert (np.diff(grid) > 0).all()
    np.testing.assert_allclose(grid + grid[::-1], 1)
    assert grid[0] == pytest.approx(1 / max(m * n, 2))


def test_few_units_tie():
    rng = np.random.default_rng(0)
    matrix = np.exp(0.5 * rng.normal(size=(128, 128)) + 0.3 * rng.normal(size=128) + 0.3 * rng.normal(size=(128, 1)))
    result = filtration(matrix)
    for side in ("columns", "rows", "both"):
        assert len(np.unique(result.persistence(side))) > 64


@pytest.mark.parametrize("matrix", [np.zeros((2, 0)), np.ones(3), [[np.nan]], [[np.inf]], [[-1.0]], [[0.0, 0.0]]])
def test_bad_weights(matrix):
    with pytest.raises(ContextError, match="weight"):
        filtration(matrix)


@pytest.mark.parametrize("densities", [[], [0.0, 0.5], [0.5, 1.0], [0.5, 0.5], [0.6, 0.5], [np.nan]])
def test_bad_densities(densities):
    with pytest.raises(BudgetError, match="densities"):
        filtration([[1.0]], densities)


def test_bad_side():
    result = filtration(np.ones((2, 3)))
    with pytest.raises(ContextError, match='"columns", "rows" or "both"'):
        result.persistence("up")
    with pytest.raises(ContextError, match="2 rows and 3 columns"):
        result.persistence("both")
