"""Relations and posets: laws on random relations, networkx as the oracle, examples by hand."""

from __future__ import annotations

import itertools

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jali.errors import ContextError
from jali.maths import order
from jali.maths.chains import height, is_antichain, is_chain, ranks, width
from jali.maths.moebius import moebius, moebius_from, moebius_interval, zeta
from jali.maths.order import BoolArray
from jali.maths.words import pack, unpack
from tests.strategies_order import acyclic_relations, posets, relations


def graph_of(relation: BoolArray) -> nx.DiGraph:
    return nx.from_numpy_array(relation.astype(int), create_using=nx.DiGraph)


def matrix_of(graph: nx.DiGraph, n: int) -> BoolArray:
    return nx.to_numpy_array(graph, nodelist=range(n), weight=None) > 0


# Laws -----------------------------------------------------------------------------------------------------------------
@given(relations())
def test_predicates_agree_with_their_definitions(r: BoolArray) -> None:
    n = range(len(r))
    assert bool(order.is_reflexive(r)) == all(r[a, a] for a in n)
    assert bool(order.is_antisymmetric(r)) == all(a == b or not (r[a, b] and r[b, a]) for a in n for b in n)
    assert bool(order.is_transitive(r)) == all(
        r[a, c] or not (r[a, b] and r[b, c]) for a, b, c in itertools.product(n, n, n)
    )
    assert bool(order.is_preorder(r)) == bool(order.is_reflexive(r) and order.is_transitive(r))
    assert bool(order.is_partial_order(r)) == bool(order.is_preorder(r) and order.is_antisymmetric(r))


@given(relations())
def test_witnesses_break_the_law_they_refute(r: BoolArray) -> None:
    reflexive, antisymmetric, transitive = order.is_reflexive(r), order.is_antisymmetric(r), order.is_transitive(r)
    if not reflexive:
        (a,) = reflexive.witness
        assert not r[a, a]
    if not antisymmetric:
        a, b = antisymmetric.witness
        assert a != b
        assert r[a, b]
        assert r[b, a]
    if not transitive:
        a, b, c = transitive.witness
        assert r[a, b]
        assert r[b, c]
        assert not r[a, c]
    failing = [v.law for v in (reflexive, antisymmetric, transitive) if not v]
    assert order.is_partial_order(r).law == (failing[0] if failing else "partial order")


@given(st.integers(1, 130), st.integers(1, 4), st.randoms(use_true_random=False))
def test_packed_rows_come_back(columns: int, rows: int, random) -> None:
    bits = np.array([[random.random() < 0.5 for _ in range(columns)] for _ in range(rows)])
    words = pack(bits)
    assert words.shape == (rows, -(-columns // 64))
    assert np.array_equal(unpack(words, columns), bits)
    assert all(bool(words[0, j // 64] >> np.uint64(j % 64) & np.uint64(1)) == bits[0, j] for j in range(columns))


# Closure, reduction, condensation, unfolding --------------------------------------------------------------------------
@given(relations())
def test_closure_is_a_closure_operator(r: BoolArray) -> None:
    closed = order.reflexive_transitive_closure(r)
    assert not (r & ~closed).any()
    assert np.array_equal(order.reflexive_transitive_closure(closed), closed)
    assert order.is_preorder(closed)
    assert np.array_equal(closed, matrix_of(nx.transitive_closure(graph_of(r), reflexive=True), len(r)))


@given(relations(), st.randoms(use_true_random=False))
def test_closure_is_monotone(r: BoolArray, random) -> None:
    smaller = r & np.array([[random.random() < 0.7 for _ in row] for row in r])
    missing = order.reflexive_transitive_closure(smaller) & ~order.reflexive_transitive_closure(r)
    assert not missing.any()


@pytest.mark.parametrize("density", [0.0, 0.005, 0.02, 0.5])
def test_closure_of_more_than_one_word(density: float) -> None:
    r = np.random.default_rng(7).random((150, 150)) < density
    expected = r | np.eye(150, dtype=bool)
    for _ in range(8):  # paths of up to 2^8 steps
        expected = expected @ expected
    assert np.array_equal(order.reflexive_transitive_closure(r), expected)


@given(acyclic_relations())
def test_reduction_is_the_least_relation_with_that_closure(r: BoolArray) -> None:
    reduced = order.transitive_reduction(r)
    loopless = r & ~np.eye(len(r), dtype=bool)
    assert np.array_equal(reduced, matrix_of(nx.transitive_reduction(graph_of(loopless)), len(r)))
    closed = order.reflexive_transitive_closure(r)
    assert np.array_equal(order.covers(closed), reduced)
    assert np.array_equal(order.reflexive_transitive_closure(reduced), closed)


@given(relations())
def test_condensation_is_a_poset_of_the_strong_components(r: BoolArray) -> None:
    quotient = order.condensation(r)
    assert order.is_partial_order(quotient.leq)
    found = {frozenset(quotient.members(k).tolist()) for k in range(len(quotient.leq))}
    assert found == {frozenset(c) for c in nx.strongly_connected_components(graph_of(r))}
    closed = order.reflexive_transitive_closure(r)
    assert np.array_equal(quotient.leq[np.ix_(quotient.membership, quotient.membership)], closed)
    smallest = [int(quotient.members(k)[0]) for k in range(len(quotient.leq))]
    assert smallest == sorted(smallest)


@given(relations(max_size=5), st.integers(1, 4))
def test_unfolding_is_the_closure_of_its_steps(r: BoolArray, steps: int) -> None:
    n = len(r)
    one_step = np.kron(np.eye(steps + 1, k=1, dtype=bool), r)
    unfolded = order.unfolding(r, steps)
    assert unfolded.shape == ((steps + 1) * n,) * 2
    assert np.array_equal(unfolded, order.reflexive_transitive_closure(one_step))
    assert order.is_partial_order(unfolded)


@given(acyclic_relations())
def test_topological_order_respects_every_edge(r: BoolArray) -> None:
    position = np.argsort(order.topological_order(r))
    assert all(position[a] < position[b] for a, b in np.argwhere(r) if a != b)
    expected = nx.lexicographical_topological_sort(graph_of(r & ~np.eye(len(r), dtype=bool)))
    assert order.topological_order(r).tolist() == list(expected)


# Posets ---------------------------------------------------------------------------------------------------------------
@given(posets(), st.data())
def test_lower_and_upper_sets(leq: BoolArray, data: st.DataObject) -> None:
    n = len(leq)
    s = data.draw(st.sets(st.integers(0, n - 1)))
    assert set(np.flatnonzero(order.lower_set(leq, s))) == {x for x in range(n) if any(leq[x, y] for y in s)}
    assert np.array_equal(order.upper_set(leq, s), order.lower_set(order.dual(leq), s))
    assert order.upper_set(leq, order.minimal_elements(leq)).all()
    assert order.is_partial_order(order.dual(leq))
    assert is_antichain(leq, order.minimal_elements(leq))
    assert np.array_equal(order.maximal_elements(leq), order.minimal_elements(order.dual(leq)))
    extension = np.argsort(order.linear_extension(leq))
    assert all(extension[a] < extension[b] for a, b in np.argwhere(leq) if a != b)


@given(posets(max_size=7))
def test_width_is_the_largest_antichain_and_the_smallest_chain_cover(leq: BoolArray) -> None:
    result = width(leq)
    strict = leq & ~np.eye(len(leq), dtype=bool)
    assert result.width == max(len(a) for a in nx.antichains(graph_of(strict)))
    assert len(result.antichain) == len(result.chains) == result.width
    assert is_antichain(leq, result.antichain)
    assert sorted(x for c in result.chains for x in c) == list(range(len(leq)))
    assert all(leq[a, b] for c in result.chains for a, b in itertools.pairwise(c))


@given(posets())
def test_height_is_the_longest_chain(leq: BoolArray) -> None:
    result = height(leq)
    graph = graph_of(leq & ~np.eye(len(leq), dtype=bool))
    assert result.height == nx.dag_longest_path_length(graph, weight=None, default_weight=1) + 1
    assert len(result.chain) == result.height
    assert all(a != b and leq[a, b] for a, b in itertools.pairwise(result.chain))
    rank = ranks(leq)
    assert rank.max() + 1 == result.height
    assert all(rank[a] < rank[b] for a, b in graph.edges)
    # Mirsky: the ranks are a partition into as many antichains.
    assert all(is_antichain(leq, np.flatnonzero(rank == r)) for r in range(result.height))


@given(posets(), st.data())
def test_chain_predicates_and_their_witnesses(leq: BoolArray, data: st.DataObject) -> None:
    s = sorted(data.draw(st.sets(st.integers(0, len(leq) - 1))))
    pairs = list(itertools.combinations(s, 2))
    comparable = [bool(leq[a, b] or leq[b, a]) for a, b in pairs]
    chain, antichain = is_chain(leq, s), is_antichain(leq, s)
    assert bool(chain) == all(comparable)
    assert bool(antichain) == (not any(comparable))
    assert bool(chain) or not comparable[pairs.index(tuple(sorted(chain.witness)))]
    assert bool(antichain) or comparable[pairs.index(tuple(sorted(antichain.witness)))]


@given(posets())
def test_moebius_inverts_zeta(leq: BoolArray) -> None:
    mu, z = moebius(leq), zeta(leq)
    identity = np.eye(len(leq), dtype=np.int64)
    assert np.array_equal(mu @ z, identity)
    assert np.array_equal(z @ mu, identity)
    assert all(moebius_interval(leq, x, y) == mu[x, y] for x in range(len(leq)) for y in range(len(leq)))
    assert np.array_equal(moebius(order.dual(leq)), mu.T)


@given(posets())
def test_moebius_from_an_adjoined_bottom(leq: BoolArray) -> None:
    bounded = np.pad(leq, ((1, 0), (1, 0)))
    bounded[0] = True
    assert moebius_from(leq).tolist() == moebius(bounded)[0, 1:].tolist()


@pytest.mark.parametrize("layers", [0, 1, 5, 39, 60])
def test_moebius_stays_exact_beyond_64_bits(layers: int) -> None:
    # 0, then `layers` antichains of four, then 1, each wholly below the next: |μ(0, 1)| = 3^layers.
    level = np.concatenate([[0], np.repeat(np.arange(1, layers + 1), 4), [layers + 1]])
    leq = (level[:, None] < level) | np.eye(len(level), dtype=bool)
    expected = (-1) ** (layers + 1) * 3**layers
    mu = moebius(leq)
    assert int(mu[0, -1]) == expected
    assert moebius_interval(leq, 0, len(leq) - 1) == expected
    assert moebius_from(leq[1:, 1:])[-1] == expected
    assert mu.dtype == (np.int64 if layers < 39 else object)


# By hand --------------------------------------------------------------------------------------------------------------
def test_two_units_that_drive_each_other_are_one_module() -> None:
    r = np.zeros((4, 4), dtype=bool)
    r[0, 1] = r[1, 0] = r[1, 2] = r[2, 3] = True
    quotient = order.condensation(r)
    assert quotient.membership.tolist() == [0, 0, 1, 2]
    assert quotient.leq.tolist() == [[True, True, True], [False, True, True], [False, False, True]]
    assert height(quotient.leq).chain == (0, 1, 2)


def test_an_acyclic_relation_of_one_element() -> None:
    one = np.zeros((1, 1), dtype=bool)
    assert order.reflexive_transitive_closure(one).tolist() == [[True]]
    assert width(np.ones((1, 1), dtype=bool)).chains == ((0,),)


CYCLE = np.roll(np.eye(3, dtype=bool), 1, axis=1)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((2, 3), dtype=bool), r"shape \(n, n\); got \(2, 3\)"),
        (np.zeros(4, dtype=bool), r"got \(4,\)"),
        (np.zeros((0, 0), dtype=bool), "empty"),
        (np.eye(3), "float64.*Threshold"),
    ],
)
@pytest.mark.parametrize(
    "function",
    [
        order.reflexive_transitive_closure, order.condensation, order.covers, order.is_transitive, order.dual,
        order.topological_order, order.linear_extension, order.minimal_elements, width, height, moebius,
        lambda r: order.unfolding(r, 1), lambda r: order.upper_set(r, [0]),
    ],
)  # fmt: skip
def test_what_is_no_relation_is_refused(function, bad, message: str) -> None:
    with pytest.raises(ContextError, match=message):
        function(bad)


@pytest.mark.parametrize("function", [order.covers, order.linear_extension, width, height, moebius, zeta, ranks])
@pytest.mark.parametrize("law", ["reflexivity", "antisymmetry", "transitivity"])
def test_what_is_no_order_is_refused_by_law(function, law: str) -> None:
    bad = {
        "reflexivity": np.zeros((3, 3), dtype=bool),
        "antisymmetry": np.ones((3, 3), dtype=bool),
        "transitivity": np.eye(3, dtype=bool) | np.eye(3, k=1, dtype=bool),
    }[law]
    with pytest.raises(ContextError, match=f"{law} fails at elements"):
        function(bad)


def test_other_bad_input() -> None:
    with pytest.raises(ContextError, match=r"cycles.*condensation"):
        order.topological_order(CYCLE)
    with pytest.raises(ContextError, match="cycles"):
        order.transitive_reduction(CYCLE)
    with pytest.raises(ContextError, match="at least 1 step; got 0"):
        order.unfolding(CYCLE, 0)
    with pytest.raises(ContextError, match=r"\[0, 3\)"):
        order.lower_set(np.eye(3, dtype=bool), [3])
    with pytest.raises(ContextError, match="integer"):
        is_chain(np.eye(3, dtype=bool), [0.5])
    with pytest.raises(ContextError, match=r"\[0, 3\)"):
        moebius_interval(np.eye(3, dtype=bool), -1, 0)
