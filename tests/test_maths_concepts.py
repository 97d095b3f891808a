from __future__ import annotations

import itertools

import concepts as library
import numpy as np
import pytest
from hypothesis import given, settings

from jali.errors import ContextError, LimitError
from jali.maths.concepts import enumerate_concepts
from jali.maths.context import Context, irreducible_columns, irreducible_rows
from tests.strategies_context import concepts_by_intersection, contranominal, incidences


def as_sets(lattice):
    pairs = zip(lattice.extents, lattice.intents, strict=True)
    return [(frozenset(np.flatnonzero(e).tolist()), frozenset(np.flatnonzero(i).tolist())) for e, i in pairs]


def from_library(relation):
    """Concepts and Hasse edges of the ``concepts`` library, as index sets."""
    objects, properties = ([f"{kind}{i}" for i in range(n)] for kind, n in zip("op", relation.shape, strict=True))
    lattice = library.Context(objects, properties, [tuple(row) for row in relation.tolist()]).lattice

    def key(concept):
        return frozenset(int(o[1:]) for o in concept.extent), frozenset(int(p[1:]) for p in concept.intent)

    return [key(c) for c in lattice], {(key(c), key(upper)) for c in lattice for upper in c.upper_neighbors}


@given(incidences())
@settings(max_examples=60)
def test_concepts_and_covers_are_those_of_the_concepts_library(relation):
    lattice = enumerate_concepts(relation)
    mine = as_sets(lattice)
    theirs, edges = from_library(relation)
    assert len(mine) == len(theirs)
    assert set(mine) == set(theirs)
    assert {(mine[a], mine[b]) for a, b in lattice.covers()} == edges


@pytest.mark.parametrize(("shape", "density"), [((5, 150), 0.5), ((150, 5), 0.5), ((75, 70), 0.06), ((70, 75), 0.06)])
def test_concepts_across_words(shape, density):
    relation = np.random.default_rng(1).random(shape) < density
    lattice = enumerate_concepts(relation)
    expected = concepts_by_intersection(relation)
    assert len(lattice) == len(expected)
    assert set(as_sets(lattice)) == expected
    strict = lattice.order() & ~np.eye(len(lattice), dtype=bool)
    between = strict.astype(np.float32) @ strict.astype(np.float32) > 0
    assert np.array_equal(lattice.covers(), np.argwhere(strict & ~between))


@given(incidences())
def test_extents_and_intents_derive_each_other(relation):
    context, lattice = Context(relation), enumerate_concepts(relation)
    for extent, intent in zip(lattice.extents, lattice.intents, strict=True):
        assert (context.intent(extent) == intent).all()
        assert (context.extent(intent) == extent).all()


@given(incidences(6))
def test_covers_are_the_transitive_reduction_of_the_order(relation):
    lattice = enumerate_concepts(relation)
    order = lattice.order()
    strict = order & ~np.eye(len(lattice), dtype=bool)
    assert not (strict & strict.T).any()
    assert order[:, 0].all()  # the top
    assert order[-1].all()  # the bottom
    between = strict.astype(int) @ strict.astype(int) > 0
    assert np.array_equal(lattice.covers(), np.argwhere(strict & ~between))


@given(incidences())
def test_irreducible_concepts_are_those_of_irreducible_columns_and_rows(relation):
    lattice, context = enumerate_concepts(relation), Context(relation)
    by_columns = {context.extent([j]).tobytes() for j in np.flatnonzero(irreducible_columns(relation))}
    assert {e.tobytes() for e in lattice.extents[lattice.meet_irreducible()]} == by_columns
    by_rows = {context.intent([i]).tobytes() for i in np.flatnonzero(irreducible_rows(relation))}
    assert {i.tobytes() for i in lattice.intents[lattice.join_irreducible()]} == by_rows


@given(incidences())
def test_the_dual_context_has_the_dual_lattice(relation):
    lattice, dual = enumerate_concepts(relation), enumerate_concepts(relation.T)
    assert {(i, e) for e, i in as_sets(lattice)} == set(as_sets(dual))
    assert len(lattice.covers()) == len(dual.covers())


@given(incidences(5))
def test_same_input_same_order_of_concepts(relation):
    first, second = enumerate_concepts(relation), enumerate_concepts(relation.copy())
    assert (first.extent_words == second.extent_words).all()
    sizes = first.extents.sum(axis=1)
    assert (np.diff(sizes) <= 0).all()


@pytest.mark.parametrize("n", range(1, 11))
def test_contranominal_scale_has_a_boolean_lattice(n):
    lattice = enumerate_concepts(contranominal(n))
    assert len(lattice) == 2**n
    assert len(lattice.covers()) == n * 2 ** (n - 1)
    assert lattice.meet_irreducible().sum() == lattice.join_irreducible().sum() == n
    subsets = itertools.chain.from_iterable(itertools.combinations(range(n), k) for k in range(n + 1))
    assert {extent for extent, _ in as_sets(lattice)} == {frozenset(s) for s in subsets}


@pytest.mark.parametrize("n", [1, 4, 64, 65])
def test_nested_columns_make_a_chain(n):
    lattice = enumerate_concepts(np.tril(np.ones((n, n), bool)))
    assert len(lattice) == n
    assert lattice.covers().tolist() == [[i + 1, i] for i in range(n - 1)]
    assert lattice.order().sum() == n * (n + 1) // 2


@pytest.mark.parametrize(("value", "count"), [(1, 1), (0, 2)])
def test_constant_relations(value, count):
    lattice = enumerate_concepts(np.full((3, 2), value))
    assert len(lattice) == count
    assert len(lattice.covers()) == count - 1


def test_limits_say_how_far_they_got():
    relation = contranominal(6)
    assert len(enumerate_concepts(relation, limit=64)) == 64
    with pytest.raises(LimitError, match="stopped at 63 concepts of a 6 x 6 context"):
        enumerate_concepts(relation, limit=63)
    with pytest.raises(LimitError, match="order matrix of 64 concepts"):
        enumerate_concepts(relation).order(limit=63)
    with pytest.raises(ContextError, match="limit is 0"):
        enumerate_concepts(relation, limit=0)


def test_the_store_grows_past_its_first_block():
    assert len(enumerate_concepts(contranominal(14))) == 2**14
