from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jali.errors import ContextError
from jali.maths import bitset
from jali.maths import words as words_of
from jali.maths.concepts import enumerate_concepts
from jali.maths.context import Context, irreducible_columns, irreducible_rows, reducing_columns
from tests.strategies_context import contranominal, incidences, irreducible_by_sets, seeds

relations = incidences()


def subsets(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Two masks, the first contained in the second."""
    larger = rng.random(size) < 0.6
    return larger & (rng.random(size) < 0.6), larger


class TestBitset:
    @given(seeds(), st.integers(1, 150), st.integers(1, 150))
    @settings(max_examples=40)
    def test_packing_transposing_and_counting_agree_with_numpy(self, rng, n, size):
        matrix = rng.random((n, size)) < rng.random()
        words = words_of.pack(matrix)
        assert words.shape == (n, words_of.word_count(size))
        assert (words_of.unpack(words, size) == matrix).all()
        assert (bitset.transpose(words, size) == words_of.pack(matrix.T)).all()
        assert (bitset.cardinalities(words) == matrix.sum(axis=1)).all()
        assert (words_of.unpack(bitset.full_set(size)[None], size)).all()
        assert bitset.cardinality(bitset.full_set(size)) == size

    @given(seeds(), st.integers(1, 130))
    @settings(max_examples=40)
    def test_subsets_are_those_of_python_sets(self, rng, size):
        matrix = rng.random((6, size)) < rng.choice([0.02, 0.5, 0.98])
        matrix[1] |= matrix[0]
        words = words_of.pack(matrix)
        sets = [set(np.flatnonzero(row)) for row in matrix]
        assert bitset.subset_matrix(words, words).tolist() == [[a <= b for b in sets] for a in sets]


class TestGaloisConnection:
    @given(relations, seeds())
    def test_laws(self, relation, rng):
        context = Context(relation)
        small, large = subsets(rng, context.n_rows)
        columns = rng.random(context.n_columns) < 0.5
        assert (context.intent(large) <= context.intent(small)).all()  # antitone
        closed = context.close_rows(small)
        assert (small <= closed).all()  # extensive
        assert (context.close_rows(closed) == closed).all()  # idempotent
        assert (closed <= context.close_rows(large)).all()  # monotone
        assert (context.intent(closed) == context.intent(small)).all()  # ''' = '
        assert (small <= context.extent(columns)).all() == (columns <= context.intent(small)).all()  # A ⊆ B' iff B ⊆ A'

    @given(relations, seeds())
    def test_the_dual_context_swaps_the_derivations(self, relation, rng):
        context = Context(relation)
        columns = rng.random(context.n_columns) < 0.5
        assert (context.extent(columns) == context.T.intent(columns)).all()
        assert (context.close_columns(columns) == context.T.close_rows(columns)).all()

    def test_no_rows_have_every_column_in_common(self):
        context = Context([[1, 0, 0], [0, 1, 0]])
        assert context.intent([]).all()
        assert context.extent([]).all()
        assert context.close_rows([0]).tolist() == [True, False]
        assert context.intent([0, 1]).tolist() == [False, False, False]


class TestIrreducible:
    @given(relations)
    @settings(max_examples=300)
    def test_agrees_with_the_definition_on_python_sets(self, relation):
        assert irreducible_columns(relation).tolist() == irreducible_by_sets(relation)
        assert irreducible_rows(relation).tolist() == irreducible_by_sets(relation.T)

    @pytest.mark.parametrize("shape", [(63, 64), (64, 63), (65, 130), (130, 65), (128, 128), (200, 40)])
    @pytest.mark.parametrize("density", [0.02, 0.3, 0.9, 0.985])
    def test_agrees_with_the_definition_across_words(self, shape, density):
        rng = np.random.default_rng(shape[0])
        relation = rng.random(shape) < density
        relation[:, -1] = relation[:, 0] & relation[:, 1]  # one column that is reducible, unless it equals a part
        assert irreducible_columns(relation).tolist() == irreducible_by_sets(relation)
        assert irreducible_rows(relation).tolist() == irreducible_by_sets(relation.T)

    @given(relations)
    def test_arrows_agree(self, relation):
        arrows = Context(relation).arrows()
        assert not (arrows.up & relation).any()
        assert not (arrows.down & relation).any()
        for arrow in (arrows.up, arrows.double):
            assert (arrow.any(axis=0) == irreducible_columns(relation)).all()
        for arrow in (arrows.down, arrows.double):
            assert (arrow.any(axis=1) == irreducible_rows(relation)).all()

    @given(relations)
    def test_arrows_by_their_definition(self, relation):
        arrows = Context(relation).arrows()
        columns = [set(np.flatnonzero(c)) for c in relation.T]
        rows = [set(np.flatnonzero(r)) for r in relation]
        for g, m in np.argwhere(~relation):
            assert arrows.up[g, m] == all(g in n for n in columns if columns[m] < n)
            assert arrows.down[g, m] == all(m in h for h in rows if rows[g] < h)

    @given(relations)
    def test_a_witness_is_made_of_strict_supersets_and_meets_in_the_column(self, relation):
        for j, irreducible in enumerate(irreducible_columns(relation)):
            witness = reducing_columns(relation, j)
            assert (witness is None) == irreducible
            if witness is not None:
                assert (relation[:, witness].all(axis=1) == relation[:, j]).all()
                assert (relation[:, witness].sum(axis=0) > relation[:, j].sum()).all()

    @given(relations, seeds())
    def test_relabelling_units_relabels_the_verdict(self, relation, rng):
        rows, columns = rng.permutation(relation.shape[0]), rng.permutation(relation.shape[1])
        moved = relation[np.ix_(rows, columns)]
        assert (irreducible_columns(moved) == irreducible_columns(relation)[columns]).all()
        assert (irreducible_rows(moved) == irreducible_rows(relation)[rows]).all()

    @pytest.mark.parametrize("n", [1, 2, 5, 64, 65])
    def test_contranominal_scale_is_irreducible(self, n):
        assert irreducible_columns(contranominal(n)).all()
        assert irreducible_rows(contranominal(n)).all()

    def test_chain_is_irreducible_up_to_its_full_column(self):
        assert irreducible_columns(np.triu(np.ones((5, 5), bool))).tolist() == [True, True, True, True, False]

    def test_by_hand(self):
        #   a  b  a∩b  full  copy of a
        relation = [[1, 0, 0, 1, 1], [1, 1, 1, 1, 1], [0, 1, 0, 1, 0]]
        assert irreducible_columns(relation).tolist() == [True, True, False, False, True]
        assert sorted(reducing_columns(relation, 2).tolist()) in ([0, 1], [1, 4])
        assert reducing_columns(relation, 3).tolist() == []
        assert reducing_columns(relation, 0) is None

    def test_empty_columns_depend_on_what_the_others_share(self):
        assert irreducible_columns([[0, 1, 1], [0, 1, 0], [0, 0, 1]]).tolist() == [True, True, True]
        assert irreducible_columns([[0, 1, 0], [0, 0, 1]]).tolist() == [False, True, True]


class TestClarifyAndReduce:
    @given(relations)
    def test_clarify_merges_equals_and_only_equals(self, relation):
        clear = Context(relation).clarify()
        assert sorted(i for c in clear.row_classes for i in c) == list(range(relation.shape[0]))
        assert sorted(j for c in clear.column_classes for j in c) == list(range(relation.shape[1]))
        assert len(np.unique(clear.context.incidence, axis=0)) == clear.context.n_rows
        for merged in clear.row_classes:
            assert (relation[list(merged)] == relation[merged[0]]).all()
        for merged in clear.column_classes:
            assert (relation[:, list(merged)] == relation[:, merged[:1]]).all()
        assert (clear.context.incidence == relation[np.ix_(clear.rows, clear.columns)]).all()

    @given(relations)
    @settings(max_examples=60)
    def test_reduction_keeps_the_lattice_up_to_isomorphism(self, relation):
        assume(not relation.all())
        reduced = Context(relation).reduce()
        before, after = enumerate_concepts(relation), enumerate_concepts(reduced.context.incidence)
        place = {extent.tobytes(): k for k, extent in enumerate(after.extents)}
        match = [place[extent.tobytes()] for extent in before.extents[:, list(reduced.rows)]]
        assert sorted(match) == list(range(len(before)))
        assert (before.order() == after.order()[np.ix_(match, match)]).all()

    @given(relations)
    @settings(max_examples=60)
    def test_reduction_is_the_smallest(self, relation):
        assume(not relation.all())
        context = Context(relation).reduce().context
        assert irreducible_columns(context.incidence).all()
        assert irreducible_rows(context.incidence).all()
        assert context.reduce().context.incidence.shape == context.incidence.shape

    def test_labels_follow(self):
        context = Context([[1, 1, 0], [1, 1, 0], [0, 0, 1]], ("x", "y", "z"), ("a", "b", "c"))
        clear = context.clarify()
        assert clear.context.row_labels == ("x", "z")
        assert clear.context.column_labels == ("a", "c")
        assert clear.column_classes == ((0, 1), (2,))
        assert context.T.row_labels == ("a", "b", "c")


class TestBadInput:
    @pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
    def test_empty(self, shape):
        for call in (Context, irreducible_columns, irreducible_rows, enumerate_concepts):
            with pytest.raises(ContextError, match="at least one row and one column"):
                call(np.zeros(shape, bool))

    @pytest.mark.parametrize("relation", [[1, 0], [[[1]]], 1])
    def test_not_a_matrix(self, relation):
        with pytest.raises(ContextError, match="2 dimensions"):
            irreducible_columns(relation)

    @pytest.mark.parametrize("value", [0.5, 2, np.nan, -1, "1"])
    def test_not_binary(self, value):
        with pytest.raises(ContextError, match="threshold"):
            Context([[1, value]])

    def test_complete_relation_has_no_reduced_context(self):
        with pytest.raises(ContextError, match="one element"):
            Context(np.ones((2, 3))).reduce()

    def test_labels_masks_and_indices_must_fit(self):
        context = Context([[1, 0]])
        with pytest.raises(ContextError, match="row_labels has 2 entries for 1"):
            Context([[1, 0]], row_labels=("a", "b"))
        with pytest.raises(ContextError, match="mask"):
            context.intent(np.array([True, False]))
        with pytest.raises(ContextError, match="indices"):
            context.extent([2])
        with pytest.raises(ContextError, match="column 2"):
            reducing_columns([[1, 0]], 2)

    def test_a_context_is_a_read_only_copy(self):
        source = np.eye(2, dtype=bool)
        context = Context(source)
        source[0, 0] = False
        assert context.incidence[0, 0]
        with pytest.raises(ValueError, match="read-only"):
            context.incidence[0, 0] = False
