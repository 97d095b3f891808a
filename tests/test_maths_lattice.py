"""Lattices and their laws: definitions on random lattices, lattices whose invariants are known, by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jali.errors import ContextError, LimitError
from jali.maths.chains import height
from jali.maths.lattice import Lattice
from jali.maths.lattice_laws import is_diamond, is_distributive, is_modular, is_pentagon
from jali.maths.moebius import moebius
from jali.maths.named_lattices import boolean, chain, divisor, m3, n5, partition
from jali.maths.order import BoolArray
from tests.strategies_order import isomorphic, lattices, modular_lattices, posets, subspaces


def modular_by_definition(lattice: Lattice) -> bool:
    j, m, n = lattice.join, lattice.meet, range(len(lattice))
    return all(j[a, m[b, c]] == m[j[a, b], c] for a, b, c in itertools.product(n, n, n) if lattice.leq[a, c])


def distributive_by_definition(lattice: Lattice) -> bool:
    j, m, n = lattice.join, lattice.meet, range(len(lattice))
    return all(m[a, j[b, c]] == j[m[a, b], m[a, c]] for a, b, c in itertools.product(n, n, n))


# Lattices -------------------------------------------------------------------------------------------------------------
@given(lattices())
def test_tables_are_least_upper_and_greatest_lower_bounds(lattice: Lattice) -> None:
    leq = lattice.leq
    for a, b in itertools.product(range(len(lattice)), repeat=2):
        j, m = lattice.join[a, b], lattice.meet[a, b]
        assert np.array_equal(leq[j], leq[a] & leq[b])
        assert np.array_equal(leq[:, m], leq[:, a] & leq[:, b])
    assert leq[lattice.bottom].all()
    assert leq[:, lattice.top].all()


@given(lattices())
def test_irreducibles_by_definition(lattice: Lattice) -> None:
    k = range(len(lattice))
    joins = {int(lattice.join[a, b]) for a in k for b in k if lattice.join[a, b] not in (a, b)}
    meets = {int(lattice.meet[a, b]) for a in k for b in k if lattice.meet[a, b] not in (a, b)}
    assert lattice.join_irreducibles().tolist() == sorted(set(k) - joins - {lattice.bottom})
    assert lattice.meet_irreducibles().tolist() == sorted(set(k) - meets - {lattice.top})
    assert set(lattice.atoms()) <= set(lattice.join_irreducibles())
    assert np.array_equal(lattice.dual().join_irreducibles(), lattice.meet_irreducibles())
    assert np.array_equal(lattice.dual().atoms(), lattice.coatoms())
    for x in k:
        for y in lattice.complements(x):
            assert {int(lattice.join[x, y]), int(lattice.meet[x, y])} == {lattice.top, lattice.bottom}


@given(lattices(), st.data())
def test_generated_is_the_least_sublattice(lattice: Lattice, data: st.DataObject) -> None:
    s = data.draw(st.sets(st.integers(0, len(lattice) - 1), min_size=1, max_size=4))
    closed = lattice.generated(s)
    expected, before = set(s), set()
    while expected != before:
        before = set(expected)
        expected |= {int(table[a, b]) for table in (lattice.join, lattice.meet) for a in before for b in before}
    assert set(closed.tolist()) == expected
    assert lattice.is_sublattice(closed)
    inner = lattice.sublattice(closed)
    assert np.array_equal(closed[inner.join], lattice.join[np.ix_(closed, closed)])
    assert np.array_equal(closed[inner.meet], lattice.meet[np.ix_(closed, closed)])
    verdict = lattice.is_sublattice(s)
    assert bool(verdict) == (s == set(closed.tolist()))
    if not verdict:
        a, b, c = verdict.witness
        assert {a, b} <= s
        assert c in (lattice.join[a, b], lattice.meet[a, b])
        assert c not in s


@given(posets(max_size=6), st.booleans())
@example(np.eye(4, dtype=bool) | np.kron([[False, True], [False, False]], np.ones((2, 2), dtype=bool)), True)
def test_an_order_is_refused_exactly_where_it_is_no_lattice(leq: BoolArray, bounded: bool) -> None:
    if bounded:  # without a bottom or a top, that is all that is ever missing
        leq = np.pad(leq, 1)
        leq[0] = leq[:, -1] = True
    n = range(len(leq))

    def has(up: BoolArray, a: int, b: int) -> bool:
        return any(up[a, x] and up[b, x] and not (up[a] & up[b] & ~up[x]).any() for x in n)

    if all(has(up, a, b) for up in (leq, leq.T) for a in n for b in n):
        assert len(Lattice.from_leq(leq)) == len(leq)
    else:
        with pytest.raises(ContextError, match="not a lattice") as caught:
            Lattice.from_leq(leq)
        a, b = (int(word) for word in str(caught.value).split() if word.isdigit())
        assert not has(leq if "no join" in str(caught.value) else leq.T, a, b)


# Laws -----------------------------------------------------------------------------------------------------------------
@given(st.one_of(lattices(), modular_lattices()))
def test_laws_agree_with_their_definitions(lattice: Lattice) -> None:
    modular, distributive = is_modular(lattice), is_distributive(lattice)
    assert bool(modular) == modular_by_definition(lattice)
    assert bool(distributive) == distributive_by_definition(lattice)
    check = {"N5": is_pentagon, "M3": is_diamond}
    for verdict in (modular, distributive):
        assert bool(verdict) == (verdict.shape == "") == (verdict.witness == ())
        if not verdict:
            assert check[verdict.shape](lattice, verdict.witness)
            assert lattice.is_sublattice(verdict.witness)


@given(st.one_of(lattices(), modular_lattices()))
def test_laws_are_self_dual_and_pass_to_products(lattice: Lattice) -> None:
    for law in (is_modular, is_distributive):
        assert bool(law(lattice.dual())) == bool(law(lattice))
        assert bool(law(lattice.product(chain(2)))) == bool(law(lattice))


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5, 7])
def test_boolean_lattices(n: int) -> None:
    b = boolean(n)
    assert len(b) == 2**n
    assert len(b.meet_irreducibles()) == len(b.join_irreducibles()) == n
    assert moebius(b.leq)[b.bottom, b.top] == (-1) ** n
    assert is_distributive(b)
    assert height(b.leq).height == n + 1
    assert all(len(b.complements(x)) == 1 for x in range(2**n))


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_chains(n: int) -> None:
    c = chain(n)
    assert is_distributive(c)
    assert len(c.meet_irreducibles()) == len(c.join_irreducibles()) == n - 1
    assert moebius(c.leq)[0, n - 1] == {1: 1, 2: -1}.get(n, 0)


def test_diamond_and_pentagon() -> None:
    assert is_modular(m3())
    assert is_distributive(m3()).shape == "M3"
    assert is_modular(n5()).shape == is_distributive(n5()).shape == "N5"
    assert is_pentagon(n5(), range(5))
    assert is_diamond(m3(), range(5))
    assert not is_pentagon(m3(), range(5))
    assert not is_diamond(n5(), range(5))
    assert not is_pentagon(n5(), [0, 1, 1, 3, 4])
    assert not is_diamond(m3(), [0, 1, 1, 2, 4])
    assert m3().complements(1).tolist() == [2, 3]


def moebius_of_number(n: int) -> int:
    primes = [p for p in range(2, n + 1) if n % p == 0 and all(p % q for q in range(2, p))]
    return 0 if any(n % (p * p) == 0 for p in primes) else (-1) ** len(primes)


@pytest.mark.parametrize("n", [1, 2, 4, 12, 30, 49, 60, 97, 210])
def test_divisor_lattices(n: int) -> None:
    d = divisor(n)
    divisors = [int(x) for x in d.labels or ()]
    assert divisors == [x for x in range(1, n + 1) if n % x == 0]
    assert moebius(d.leq)[0].tolist() == [moebius_of_number(x) for x in divisors]
    assert is_distributive(d)
    for (i, a), (j, b) in itertools.product(enumerate(divisors), repeat=2):
        assert divisors[d.meet[i, j]] == math.gcd(a, b)
        assert divisors[d.join[i, j]] == math.lcm(a, b)


@pytest.mark.parametrize(("n", "bell"), [(1, 1), (2, 2), (3, 5), (4, 15), (5, 52)])
def test_partition_lattices(n: int, bell: int) -> None:
    p = partition(n)
    assert len(p) == bell
    assert moebius(p.leq)[p.bottom, p.top] == (-1) ** (n - 1) * math.factorial(n - 1)
    assert len(p.atoms()) == math.comb(n, 2) == len(p.join_irreducibles())
    assert bool(is_modular(p)) == (n <= 3)
    assert (p.labels or ())[p.top] == "".join(str(i) for i in range(n))


def test_subspaces_of_a_plane_are_a_diamond() -> None:
    assert isomorphic(subspaces(2).leq, m3().leq)


def test_product_of_chains_is_a_divisor_lattice() -> None:
    product = chain(3).product(chain(2))
    assert isomorphic(product.leq, divisor(12).leq)
    assert (product.labels or ())[3] == "(1, 1)"


# Bad input ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Lattice.from_leq(np.eye(2, dtype=bool)), r"elements 0 and 1 have no join \(0 common upper bounds"),
        (lambda: Lattice.from_leq(np.ones((2, 2), dtype=bool)), r"antisymmetry fails"),
        (lambda: Lattice.from_leq(np.ones((1, 1), dtype=bool), ["a", "b"]), r"1 elements needs as many labels; got 2"),
        (lambda: m3().sublattice([1, 2]), r"1 and 2 are in it"),
        (lambda: m3().complements(5), r"\[0, 5\)"),
        (lambda: is_pentagon(m3(), [0, 1]), r"5 elements; got 2"),
        (lambda: boolean(-1), r"at least 0; got -1"),
        (lambda: chain(0), r"at least 1; got 0"),
        (lambda: divisor(0), r"at least 1; got 0"),
        (lambda: partition(0), r"at least 1; got 0"),
    ],
)
def test_bad_input(call, message: str) -> None:
    with pytest.raises(ContextError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: boolean(13), r"8192 elements, above the limit of 4096"),
        (lambda: chain(5000), r"5000 elements"),
        (lambda: partition(30), r"elements, above the limit of 4096"),
        (lambda: Lattice.from_leq(chain(4).leq, limit=3), r"4 elements, above the limit of 3"),
        (lambda: boolean(4).product(boolean(4), limit=100), r"256 elements, above the limit of 100"),
    ],
)
def test_limits_name_size_and_limit(call, message: str) -> None:
    with pytest.raises(LimitError, match=message):
        call()


def test_tables_are_read_only() -> None:
    for table in (m3().leq, m3().join, m3().meet):
        with pytest.raises(ValueError, match="read-only"):
            table[0, 0] = 1
