"""Lattices of multilayer networks and operators between them: laws on random ones, known homomorphisms, by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jali.errors import ContextError, LimitError
from jali.maths.feedback import (
    feedback_operator,
    global_lattice,
    is_homomorphism,
    layer_lattice,
    multilayer_relation,
    operator_preserves,
    preserves_joins,
    preserves_meets,
)
from jali.maths.lattice import Lattice
from jali.maths.lattice_laws import is_distributive
from jali.maths.named_lattices import boolean, divisor, m3, n5
from jali.maths.order import reflexive_transitive_closure
from tests.strategies_order import lattices


def broken_pairs(lattice: Lattice, image, operation: str) -> set[tuple[int, int]]:
    table, k = getattr(lattice, operation), range(len(lattice))
    return {(a, b) for a, b in itertools.product(k, k) if image[table[a, b]] != table[image[a], image[b]]}


@given(st.data(), lattices())
def test_a_verdict_is_the_definition_and_a_witness_breaks_it(data, lattice):
    elements = st.integers(0, len(lattice) - 1)
    image = np.array(data.draw(st.lists(elements, min_size=len(lattice), max_size=len(lattice))))
    for operation, check in (("meet", preserves_meets), ("join", preserves_joins)):
        verdict, broken = check(lattice, lattice, image), broken_pairs(lattice, image, operation)
        assert verdict.holds == (not broken)
        assert verdict.holds or verdict.witness in broken
    both = preserves_meets(lattice, lattice, image).holds and preserves_joins(lattice, lattice, image).holds
    assert is_homomorphism(lattice, lattice, image).holds == both


@given(lattices())
def test_joining_with_an_element_preserves_joins_and_all_meets_iff_distributive(lattice):
    for c in range(len(lattice)):
        assert preserves_joins(lattice, lattice, lattice.join[c])
        assert preserves_meets(lattice, lattice, lattice.meet[c])
    holds = is_distributive(lattice).holds
    for table in (lattice.join, lattice.meet):
        verdict = operator_preserves(lattice, table)
        assert verdict.holds == holds
        if not verdict:
            x, a, b = verdict.witness
            operation = lattice.meet if "∧" in verdict.law else lattice.join
            assert table[x, operation[a, b]] != operation[table[x, a], table[x, b]]


@given(st.integers(0, 5), st.integers(0, 31))
def test_intersecting_with_a_set_is_a_homomorphism_of_a_boolean_lattice_and_the_complement_is_none(n, mask):
    lattice, sets = boolean(n), np.arange(2**n)
    assert is_homomorphism(lattice, lattice, sets & mask)
    complement = is_homomorphism(lattice, lattice, 2**n - 1 - sets)
    assert complement.holds == (n == 0)
    if n:
        a, b = complement.witness
        assert (a & b) ^ (2**n - 1) != (a ^ (2**n - 1)) & (b ^ (2**n - 1))


@pytest.mark.parametrize("n", [1, 12, 36, 60, 97])
def test_gcd_with_a_number_is_a_homomorphism_of_divisors_and_counting_prime_factors_is_none(n):
    lattice = divisor(n)
    divisors = [int(label) for label in lattice.labels]
    for m in divisors:
        assert is_homomorphism(lattice, lattice, np.array([divisors.index(math.gcd(d, m)) for d in divisors]))
    top = np.array([len(divisors) - 1 if d > 1 else 0 for d in divisors])  # is it more than 1?
    verdict = is_homomorphism(lattice, lattice, top)
    primes = sum(1 for d in divisors if d > 1 and all(d % k for k in range(2, d)))
    assert verdict.holds == (primes < 2)
    if not verdict:
        a, b = (divisors[x] for x in verdict.witness)
        assert math.gcd(a, b) == 1
        assert min(a, b) > 1


def test_a_map_between_different_lattices():
    small, large = boolean(2), boolean(3)
    assert is_homomorphism(small, large, np.arange(4))  # {0, 1} inside {0, 1, 2}
    assert preserves_joins(large, small, np.array([0, 3, 3, 3, 3, 3, 3, 3]))
    assert not preserves_meets(large, small, np.array([0, 3, 3, 3, 3, 3, 3, 3]))


sizes = st.lists(st.integers(1, 4), min_size=1, max_size=3)


@st.composite
def networks(draw):
    n = draw(sizes)
    block = lambda rows, columns: draw(hnp.arrays(np.bool_, (rows, columns)))  # noqa: E731
    within = [block(k, k) for k in n]
    up = [block(a, b) for a, b in itertools.pairwise(n)]
    down = [block(b, a) for a, b in itertools.pairwise(n)]
    return within, up, down


@given(networks())
@settings(max_examples=60)
def test_the_global_lattice_holds_the_order_of_all_units(network):
    relation = multilayer_relation(*network)
    found = global_lattice(*network)
    leq = reflexive_transitive_closure(relation)
    assert np.array_equal(found.lattice.leq[np.ix_(found.element, found.element)], leq)
    assert found.layer.tolist() == [k for k, block in enumerate(network[0]) for _ in block]
    first = np.concatenate(([0], np.cumsum([len(block) for block in network[0]])))
    for layer in range(len(network[1])):
        low, high = slice(*first[layer : layer + 2]), slice(*first[layer + 1 : layer + 3])
        assert np.array_equal(relation[low, high], network[1][layer])
        assert np.array_equal(relation[high, low], network[2][layer])
    stepped = global_lattice(*network, poset="unfolding", limit=2**14)
    later = stepped.completion.embedding[len(relation) :]
    assert np.array_equal(stepped.lattice.leq[np.ix_(stepped.element, later)], relation)
    assert len(set(stepped.element.tolist())) == len(relation)  # (unit, 0) are an antichain, whatever the cycles


@given(networks())
@settings(max_examples=60)
def test_without_connections_between_them_the_layers_lattices_are_inside_the_global_one(network):
    within, up, down = network
    found = global_lattice(within, [u & False for u in up], [d & False for d in down])
    for layer, block in enumerate(within):
        own, inside = layer_lattice(block), found.element[found.layer == layer]
        order = own.lattice.leq[np.ix_(own.element, own.element)]
        assert np.array_equal(found.lattice.leq[np.ix_(inside, inside)], order)


@given(networks())
@settings(max_examples=60)
def test_the_operator_is_monotone_in_both_and_what_a_unit_feeds_back_to_is_below(network):
    within, _, down = network
    for layer in range(len(within) - 1):
        lower, upper = layer_lattice(within[layer]), layer_lattice(within[layer + 1])
        table = feedback_operator(upper, lower, down[layer])
        leq = lower.lattice.leq
        for x, y in np.argwhere(upper.lattice.leq):
            assert leq[table[x], table[y]].all()
        for a, b in np.argwhere(leq):
            assert leq[table[:, a], table[:, b]].all()
        for unit, reached in np.argwhere(down[layer]):
            assert leq[lower.element[reached], table[upper.element[unit]]].all()
        assert operator_preserves(lower.lattice, table).holds or not is_distributive(lower.lattice)
        lowered = feedback_operator(upper, lower, down[layer], by="meet")
        assert all(preserves_meets(lower.lattice, lower.lattice, row) for row in lowered)


def test_by_hand_feedback_to_one_unit_of_a_pentagon_breaks_the_meets():
    """A layer whose units are in the order of N5, and one unit above it."""
    lattice = n5()
    lower = layer_lattice(lattice.leq)
    upper = layer_lattice(np.eye(1, dtype=bool))
    broken = []
    for unit in range(5):
        down = np.zeros((1, 5), dtype=bool)
        down[0, unit] = True
        broken.append(not operator_preserves(lower.lattice, feedback_operator(upper, lower, down)))
    assert sum(broken) == 1  # only a: a ∨ (b ∧ c) = a, but (a ∨ b) ∧ (a ∨ c) = c
    a = broken.index(True)
    assert lattice.leq[a].sum() == 3
    assert lattice.leq[:, a].sum() == 2
    assert not operator_preserves(m3(), m3().join)
    assert operator_preserves(boolean(3), boolean(3).join)


def test_bad_input_is_named():
    one, none = np.ones((1, 1), dtype=bool), []
    with pytest.raises(ContextError, match="2 layers need 1 relations up and as many down; got 0 and 0"):
        multilayer_relation([one, one], none, none)
    with pytest.raises(ContextError, match="0 layers"):
        multilayer_relation(none, none, none)
    with pytest.raises(ContextError, match=r"up\[0\] must be boolean \(1, 1\); got float64"):
        multilayer_relation([one, one], [np.ones((1, 1))], [one])
    with pytest.raises(ContextError, match=r"down must be boolean \(1, 1\)"):
        feedback_operator(layer_lattice(one), layer_lattice(one), np.ones((2, 1), dtype=bool))
    with pytest.raises(ContextError, match="'sum' is unknown"):
        feedback_operator(layer_lattice(one), layer_lattice(one), one, by="sum")
    with pytest.raises(ContextError, match="'time' is unknown"):
        global_lattice([one], none, none, poset="time")
    with pytest.raises(ContextError, match="images must lie in"):
        is_homomorphism(m3(), m3(), np.full(5, 5))
    with pytest.raises(ContextError, match="a map of 5 elements"):
        is_homomorphism(m3(), m3(), np.zeros(4, dtype=int))
    with pytest.raises(ContextError, match="T is a table"):
        operator_preserves(m3(), np.zeros(5, dtype=int))
    with pytest.raises(LimitError, match="more than 3"):
        global_lattice([~np.eye(4, dtype=bool)], none, none, poset="unfolding", limit=3)
