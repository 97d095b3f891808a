"""Completions, decompositions and drawings of posets and lattices: laws on random ones, brute force, by hand."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jali.errors import ContextError, LimitError
from jali.maths.completion import context_order, dedekind_macneille
from jali.maths.decomposition import direct_factors, weak_components
from jali.maths.hasse import hasse_layout
from jali.maths.lattice import Lattice
from jali.maths.named_lattices import boolean, chain, divisor, m3, n5
from jali.maths.order import BoolArray, condensation, covers, reflexive_transitive_closure, unfolding
from tests.strategies_order import isomorphic, lattices, posets, relations


# Completion -----------------------------------------------------------------------------------------------------------
@given(posets())
def test_completion_contains_the_poset_densely(leq: BoolArray) -> None:
    completion = dedekind_macneille(leq)
    lattice, place = completion.lattice, completion.embedding
    assert np.array_equal(lattice.leq[np.ix_(place, place)], leq)
    for x in range(len(lattice)):
        below, above = place[lattice.leq[place, x]], place[lattice.leq[x, place]]
        assert functional(lattice.join, below, lattice.bottom) == x
        assert functional(lattice.meet, above, lattice.top) == x
    irreducibles = {*lattice.join_irreducibles().tolist(), *lattice.meet_irreducibles().tolist()}
    assert irreducibles <= set(place.tolist())
    assert set(completion.added()) == set(range(len(lattice))) - set(place.tolist())


def functional(table: np.ndarray, elements: np.ndarray, start: int) -> int:
    for x in elements:
        start = int(table[start, x])
    return start


@given(posets(max_size=7))
def test_cuts_are_the_sets_closed_under_upper_then_lower_bounds(leq: BoolArray) -> None:
    n = len(leq)
    expected = set()
    for mask in itertools.product([False, True], repeat=n):
        upper = leq[np.array(mask)].all(axis=0)
        lower = leq[:, upper].all(axis=1)
        expected.add(tuple(lower.tolist()))
    cuts = dedekind_macneille(leq).cuts
    assert {tuple(c) for c in cuts.tolist()} == expected
    assert len(cuts) == len(expected)


@given(posets(max_size=7))
def test_completion_keeps_the_joins_and_meets_that_exist(leq: BoolArray) -> None:
    completion = dedekind_macneille(leq)
    for a, b, x in itertools.product(range(len(leq)), repeat=3):
        at = completion.embedding[[a, b]]
        if np.array_equal(leq[x], leq[a] & leq[b]):
            assert completion.lattice.join[at[0], at[1]] == completion.embedding[x]
        if np.array_equal(leq[:, x], leq[:, a] & leq[:, b]):
            assert completion.lattice.meet[at[0], at[1]] == completion.embedding[x]


@given(lattices())
def test_a_lattice_is_its_own_completion(lattice: Lattice) -> None:
    completion = dedekind_macneille(lattice.leq)
    assert len(completion.lattice) == len(lattice)
    assert sorted(completion.embedding) == list(range(len(lattice)))


def extents(incidence: BoolArray) -> set[tuple[bool, ...]]:
    columns = range(incidence.shape[1])
    subsets = itertools.chain.from_iterable(itertools.combinations(columns, r) for r in range(len(columns) + 1))
    return {tuple(incidence[:, list(s)].all(axis=1).tolist()) for s in subsets}


@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=5)))
def test_concept_lattice_is_the_completion_of_the_order_of_the_context(incidence: BoolArray) -> None:
    preorder = context_order(incidence)
    assert np.array_equal(preorder, reflexive_transitive_closure(preorder))
    poset = condensation(preorder)
    completion = dedekind_macneille(poset.leq)
    rows = poset.membership[: len(incidence)]
    concepts = extents(incidence)
    assert {tuple(c) for c in completion.cuts[:, rows].tolist()} == concepts
    assert len(completion.lattice) == len(concepts)


@given(relations(max_size=5))
def test_completion_of_the_unfolding_contains_the_concept_lattice(r: BoolArray) -> None:
    completion = dedekind_macneille(unfolding(r, 1))
    assert {tuple(c) for c in completion.cuts[:, : len(r)].tolist()} >= extents(r)


def test_units_with_the_same_targets_are_two_in_the_unfolding_and_one_in_the_concept_lattice() -> None:
    r = np.zeros((3, 3), dtype=bool)
    r[0, 2] = r[1, 2] = True
    assert len(extents(r)) == 3
    assert len(dedekind_macneille(condensation(context_order(r)).leq).lattice) == 3
    assert len(dedekind_macneille(unfolding(r, 1)).lattice) == 8  # six elements, a bottom and a top


def test_toy_network_of_three_units() -> None:
    # Two units drive a third (Sengupta, Fig. 1): the completion adds the bottom, c is the join of a and b.
    relation = np.zeros((3, 3), dtype=bool)
    relation[0, 2] = relation[1, 2] = True
    completion = dedekind_macneille(reflexive_transitive_closure(relation), ["a", "b", "c"])
    lattice, (a, b, c) = completion.lattice, completion.embedding
    assert lattice.labels == ("{}", "a", "b", "c")
    assert completion.added().tolist() == [lattice.bottom]
    assert lattice.join[a, b] == c == lattice.top
    assert lattice.meet_irreducibles().tolist() == [a, b]
    assert isomorphic(lattice.leq, boolean(2).leq)


def test_completion_of_an_antichain_adds_both_ends() -> None:
    assert isomorphic(dedekind_macneille(np.eye(3, dtype=bool)).lattice.leq, m3().leq)


def contranominal_poset(n: int) -> BoolArray:
    """aᵢ ≤ bⱼ iff i ≠ j: its completion is the Boolean lattice of n atoms."""
    return unfolding(~np.eye(n, dtype=bool), 1)


def test_completion_of_a_contranominal_scale_is_boolean_and_obeys_the_limit() -> None:
    assert isomorphic(dedekind_macneille(contranominal_poset(5)).lattice.leq, boolean(5).leq)
    assert len(dedekind_macneille(contranominal_poset(8), limit=256).lattice) == 256
    with pytest.raises(LimitError, match=r"more than 255 elements \(\d+ found after \d+ of 16"):
        dedekind_macneille(contranominal_poset(8), limit=255)


# Decomposition --------------------------------------------------------------------------------------------------------
@given(lattices(max_poset=4), st.sampled_from([chain(1), chain(2), n5()]))
def test_direct_factors_recover_the_lattice(first: Lattice, second: Lattice) -> None:
    lattice = first.product(second)
    factors = direct_factors(lattice)
    parts = lattice.meet[:, list(factors)]  # (k, m)
    assert math.prod(int(lattice.leq[:, z].sum()) for z in factors) == len(lattice)
    assert len({tuple(p) for p in parts.tolist()}) == len(lattice)
    by_factor = lattice.leq[parts[:, None, :], parts[None, :, :]].all(axis=-1)
    assert np.array_equal(by_factor, lattice.leq)
    assert len(factors) == len(direct_factors(first)) + len(direct_factors(second))


@pytest.mark.parametrize(
    ("lattice", "count"),
    [(chain(1), 0), (chain(4), 1), (m3(), 1), (n5(), 1), (boolean(5), 5), (divisor(60), 3), (m3().product(n5()), 2)],
)
def test_number_of_direct_factors(lattice: Lattice, count: int) -> None:
    assert len(direct_factors(lattice)) == count


@given(relations())
def test_weak_components_are_those_of_the_undirected_graph(r: BoolArray) -> None:
    found = weak_components(r)
    connected = reflexive_transitive_closure(r | r.T)
    assert np.array_equal(found[:, None] == found, connected)
    assert [int(x) for x in dict.fromkeys(found.tolist())] == list(range(found.max() + 1))


# Drawing --------------------------------------------------------------------------------------------------------------
@given(posets())
def test_layout_draws_every_cover_upwards_without_overlap(leq: BoolArray) -> None:
    layout = hasse_layout(leq)
    assert {tuple(e) for e in layout.edges.tolist()} == {tuple(e) for e in np.argwhere(covers(leq)).tolist()}
    assert all(layout.rank[a] < layout.rank[b] for a, b in layout.edges)
    assert len(set(zip(layout.x.tolist(), layout.rank.tolist(), strict=True))) == len(leq)
    # The covers say as much as the order, and the result is data.
    assert json.loads(json.dumps(hasse_layout(covers(leq)).to_dict())) == layout.to_dict()


@given(relations(max_size=7))
def test_crossings_are_counted_as_drawn(r: BoolArray) -> None:
    layout = hasse_layout(unfolding(r, 1))  # two layers, so no edge bends
    crossing = [
        (layout.x[a] - layout.x[c]) * (layout.x[b] - layout.x[d]) < 0
        for (a, b), (c, d) in itertools.combinations(layout.edges.tolist(), 2)
    ]
    assert layout.crossings == sum(crossing)


@pytest.mark.parametrize("lattice", [n5(), m3(), chain(4), boolean(2), divisor(36), boolean(1).product(chain(4))])
def test_planar_lattices_are_drawn_without_crossings(lattice: Lattice) -> None:
    assert hasse_layout(lattice.leq).crossings == 0


def test_sweeps_untangle_a_shuffled_ladder() -> None:
    n = 12
    relation = np.zeros((2 * n, 2 * n), dtype=bool)
    relation[np.arange(n), n + np.random.default_rng(0).permutation(n)] = True
    layout = hasse_layout(relation)
    assert layout.crossings == 0
    assert all(layout.x[a] == layout.x[b] for a, b in layout.edges)


def test_layout_of_the_boolean_cube_by_hand() -> None:
    layout = hasse_layout(boolean(3).leq)
    assert layout.rank.tolist() == [0, 1, 1, 2, 1, 2, 2, 3]
    assert sorted(layout.x.tolist()) == [-1, -1, 0, 0, 0, 0, 1, 1]
    assert layout.crossings == 2  # the least possible between the middle layers, a cycle of six edges


# Bad input ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dedekind_macneille(np.ones((2, 2), dtype=bool)), r"antisymmetry fails.*condensation"),
        (lambda: dedekind_macneille(np.eye(2, dtype=bool), ["a"]), r"as many labels; got 1"),
        (lambda: context_order(np.zeros((0, 3), dtype=bool)), r"at least one row"),
        (lambda: context_order(np.ones((2, 3))), r"boolean array"),
        (lambda: hasse_layout(np.ones((2, 2), dtype=bool)), r"cycles"),
        (lambda: weak_components(np.ones((2, 3), dtype=bool)), r"shape \(n, n\)"),
    ],
)
def test_bad_input(call, message: str) -> None:
    with pytest.raises(ContextError, match=message):
        call()
