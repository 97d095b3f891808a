"""Chains and antichains of a finite poset: width with its proof, height, ranks.

Sources: R. P. Dilworth, "A decomposition theorem for partially ordered sets", Ann. of Math. 51 (1950) 161-166;
D. R. Fulkerson, Proc. AMS 7 (1956) 701-702 (as a bipartite matching); D. König (1931) (the antichain).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jali.maths.relation import BoolArray, IntArray, Verdict, as_elements, as_poset


@dataclass(frozen=True)
class Width:
    """The largest antichain and, as the proof that none is larger, as many chains that cover the poset."""

    width: int
    antichain: tuple[int, ...]
    chains: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Height:
    """A longest chain, ascending. ``height`` counts its elements (its length, in Birkhoff's sense, is one less)."""

    height: int
    chain: tuple[int, ...]


def is_chain(leq: npt.ArrayLike, elements: Iterable[int]) -> Verdict:
    """Whether the elements are pairwise comparable; witness: two that are not."""
    array = as_poset(leq)
    chosen = as_elements(elements, len(array))
    return _first_pair(~(array | array.T), chosen, "chain")


def is_antichain(leq: npt.ArrayLike, elements: Iterable[int]) -> Verdict:
    """Whether the elements are pairwise incomparable; witness (a, b): two that are comparable."""
    array = as_poset(leq)
    chosen = as_elements(elements, len(array))
    return _first_pair((array | array.T) & ~np.eye(len(array), dtype=np.bool_), chosen, "antichain")


def _first_pair(broken: BoolArray, chosen: IntArray, law: str) -> Verdict:
    pairs = np.argwhere(broken[np.ix_(chosen, chosen)])
    return Verdict(pairs.size == 0, law, tuple(int(a) for a in chosen[pairs[:1].ravel()]))


def ranks(leq: npt.ArrayLike) -> IntArray:
    """(n,) the length of the longest chain that ends in each element; minimal elements have rank 0."""
    array = as_poset(leq)
    rank = np.zeros(len(array), dtype=np.intp)
    for b in np.argsort(array.sum(axis=0), kind="stable"):
        below = array[:, b].copy()
        below[b] = False
        rank[b] = rank[below].max(initial=-1) + 1
    return rank


def height(leq: npt.ArrayLike) -> Height:
    """A longest chain of a poset. O(n²). Raises ContextError if ``leq`` is not a partial order."""
    rank = ranks(leq)
    array = np.asarray(leq)
    chain = [int(rank.argmax())]
    while rank[chain[-1]] > 0:
        below = np.flatnonzero(array[:, chain[-1]] & (rank == rank[chain[-1]] - 1))
        chain.append(int(below[0]))
    return Height(len(chain), tuple(reversed(chain)))


def width(leq: npt.ArrayLike) -> Width:
    """A largest antichain and a smallest chain cover of a poset, of the same size (Dilworth's theorem).

    A maximum matching of the comparability graph split into lower and upper copies joins the elements to n − |matching|
    chains; the elements that no minimum vertex cover (König) touches form the antichain. O(n^2.5) by Hopcroft and Karp.
    Raises ContextError if ``leq`` is not a partial order.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    array = as_poset(leq) & ~np.eye(len(np.asarray(leq)), dtype=np.bool_)
    after = np.asarray(
        maximum_bipartite_matching(csr_array(array), perm_type="column")
    )  # (n,) next in the chain, or -1
    lower, upper = _reached(array, after)
    antichain = np.flatnonzero(
        lower & ~upper
    )  # in neither side of the vertex cover (¬lower on the left, upper on the right)
    chains = _follow(after)
    return Width(len(chains), tuple(int(a) for a in antichain), chains)


def _reached(strict: BoolArray, after: npt.NDArray[np.integer]) -> tuple[BoolArray, BoolArray]:
    """Left and right vertices on alternating paths from the unmatched left vertices."""
    before = np.full(len(strict), -1, dtype=np.intp)
    before[after[after >= 0]] = np.flatnonzero(after >= 0)
    lower = after < 0
    upper = np.zeros(len(strict), dtype=np.bool_)
    frontier = np.flatnonzero(lower)
    while frontier.size:
        fresh = strict[frontier].any(axis=0) & ~upper
        upper |= fresh
        frontier = before[
            np.flatnonzero(fresh)
        ]  # a maximum matching leaves no augmenting path: all of these are matched
        lower[frontier] = True
    return lower, upper


def _follow(after: npt.NDArray[np.integer]) -> tuple[tuple[int, ...], ...]:
    chains: list[tuple[int, ...]] = []
    for start in np.setdiff1d(np.arange(len(after)), after):
        chain = [int(start)]
        while after[chain[-1]] >= 0:
            chain.append(int(after[chain[-1]]))
        chains.append(tuple(chain))
    return tuple(chains)
