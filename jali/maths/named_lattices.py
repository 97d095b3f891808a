"""Lattices with a name: examples whose invariants are known, and building blocks.

Source: R. P. Stanley, *Enumerative Combinatorics* 1, 2nd ed., Cambridge 2012, sec. 3.1 and 3.8 to 3.10.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from jali.errors import ContextError
from jali.maths.lattice import MAX_ELEMENTS, Lattice, check_size
from jali.maths.order import reflexive_transitive_closure


def _at_least(n: int, least: int, what: str) -> None:
    if n < least:
        raise ContextError(f"{what} must be at least {least}; got {n}.")


def boolean(n: int) -> Lattice:
    """Bₙ, the subsets of n things by inclusion: 2ⁿ elements, element x is the subset of its bits; μ(0, 1) = (−1)ⁿ."""
    _at_least(n, 0, "the number of atoms")
    check_size(2**n, MAX_ELEMENTS)
    sets = np.arange(2**n)
    labels = ["{" + ", ".join(str(i) for i in range(n) if x >> i & 1) + "}" for x in range(2**n)]
    return Lattice.from_leq((sets[:, None] & ~sets) == 0, labels)


def chain(n: int) -> Lattice:
    """The n-element chain 0 < 1 < … < n−1."""
    _at_least(n, 1, "the number of elements")
    check_size(n, MAX_ELEMENTS)
    return Lattice.from_leq(np.triu(np.ones((n, n), dtype=np.bool_)), [str(x) for x in range(n)])


def divisor(n: int) -> Lattice:
    """The divisors of n ≥ 1, ascending, by divisibility. Distributive; μ(1, n) is the Möbius function of n."""
    _at_least(n, 1, "the number to divide")
    small = [d for d in range(1, int(n**0.5) + 2) if d * d <= n and n % d == 0]
    divisors = sorted({*small, *(n // d for d in small)})
    check_size(len(divisors), MAX_ELEMENTS)
    leq = np.array([[b % a == 0 for b in divisors] for a in divisors], dtype=np.bool_)
    return Lattice.from_leq(leq, [str(d) for d in divisors])


def partition(n: int) -> Lattice:
    """Πₙ, the partitions of n ≥ 1 things by refinement, finest at the bottom; μ(0, 1) = (−1)ⁿ⁻¹ (n−1)!."""
    _at_least(n, 1, "the number of things")
    bell = [1]
    for _ in range(n - 1):  # Aitken's triangle: the last entry of row n is the n-th Bell number
        bell = [bell[-1], *bell]
        for i in range(1, len(bell)):
            bell[i] += bell[i - 1]
        check_size(bell[-1], MAX_ELEMENTS)
    blocks = np.array(list(_growth_strings(n)))  # (k, n)
    together = (blocks[:, :, None] == blocks[:, None, :]).reshape(len(blocks), n * n).astype(np.float32)
    leq = together @ (1 - together).T == 0  # finer: what is together stays together
    labels = ["|".join("".join(str(i) for i in range(n) if row[i] == b) for b in range(max(row) + 1)) for row in blocks]
    return Lattice.from_leq(leq, labels)


def _growth_strings(n: int) -> Iterator[tuple[int, ...]]:
    """Restricted growth strings: the block of each thing, blocks numbered by first appearance."""
    if n == 1:
        yield (0,)
        return
    for head in _growth_strings(n - 1):
        for block in range(max(head) + 2):
            yield (*head, block)


def m3() -> Lattice:
    """The diamond: o, three atoms a, b, c, and i. Modular, not distributive."""
    return _from_edges("oabci", ["oa", "ob", "oc", "ai", "bi", "ci"])


def n5() -> Lattice:
    """The pentagon: o < a < c < i and o < b < i. Not modular."""
    return _from_edges("oacbi", ["oa", "ac", "ci", "ob", "bi"])


def _from_edges(names: str, edges: list[str]) -> Lattice:
    relation = np.zeros((len(names), len(names)), dtype=np.bool_)
    for edge in edges:
        relation[names.index(edge[0]), names.index(edge[1])] = True
    return Lattice.from_leq(reflexive_transitive_closure(relation), list(names))
