"""Preorders and finite posets: closure, condensation, unfolding, covers, lower and upper sets.

Relations are boolean arrays (n, n), ``leq[a, b]`` iff a ≤ b; see :mod:`jali.maths.relation`, whose names are here too.

Sources: B. A. Davey, H. A. Priestley, *Introduction to Lattices and Order*, 2nd ed., Cambridge 2002, ch. 1;
P. Purdom, "A transitive closure algorithm", BIT 10 (1970) 76-94 (strong components first, then one pass over the
acyclic quotient); A. V. Aho, M. R. Garey, J. D. Ullman, "The transitive reduction of a directed graph",
SIAM J. Comput. 1 (1972) 131-137.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from jali.errors import ContextError
from jali.maths.relation import (
    BoolArray,
    IntArray,
    Verdict,
    as_elements,
    as_poset,
    as_relation,
    is_antisymmetric,
    is_partial_order,
    is_preorder,
    is_reflexive,
    is_transitive,
    strict_part,
)
from jali.maths.words import pack, unpack

__all__ = [
    "BoolArray",
    "Condensation",
    "IntArray",
    "Verdict",
    "as_elements",
    "as_poset",
    "as_relation",
    "condensation",
    "covers",
    "covers_of",
    "dual",
    "is_antisymmetric",
    "is_partial_order",
    "is_preorder",
    "is_reflexive",
    "is_transitive",
    "linear_extension",
    "lower_set",
    "maximal_elements",
    "minimal_elements",
    "number_components",
    "reflexive_transitive_closure",
    "strong_components",
    "topological_order",
    "transitive_reduction",
    "unfolding",
    "upper_set",
]


@dataclass(frozen=True, eq=False)
class Condensation:
    """The poset of the strongly connected components of a relation.

    ``leq`` (k, k) is the order of the components, numbered by their smallest element; ``membership`` (n,) gives the
    component of each element of the original relation.
    """

    leq: BoolArray
    membership: IntArray

    def members(self, component: int) -> IntArray:
        """The original elements of one component, ascending."""
        return np.flatnonzero(self.membership == component)


def strong_components(relation: npt.ArrayLike) -> IntArray:
    """(n,) number of the strongly connected component of each element; components are numbered by smallest element."""
    return number_components(relation, "strong")


def number_components(relation: npt.ArrayLike, connection: Literal["strong", "weak"]) -> IntArray:
    """:func:`strong_components`, or the components when directions are ignored."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    graph = csr_array(as_relation(relation).astype(np.int8))
    _, labels = connected_components(graph, directed=True, connection=connection)
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.intp)


def topological_order(relation: npt.ArrayLike) -> IntArray:
    """(n,) the elements so that a comes before b wherever ``relation[a, b]``, a ≠ b; the smallest ready index first.

    A. B. Kahn, Commun. ACM 5 (1962) 558-562. Raises ContextError, naming two elements of a cycle, if there is one.
    """
    array = strict_part(as_relation(relation))
    waiting = array.sum(axis=0)
    ready = [int(a) for a in np.flatnonzero(waiting == 0)]
    order: list[int] = []
    while ready:
        a = heapq.heappop(ready)
        order.append(a)
        after = np.flatnonzero(array[a])
        waiting[after] -= 1
        for b in after[waiting[after] == 0]:
            heapq.heappush(ready, int(b))
    if len(order) < len(array):
        labels = strong_components(array)
        largest = int(np.bincount(labels).argmax())
        cycle = np.flatnonzero(labels == largest)
        raise ContextError(
            f"the relation has cycles ({len(cycle)} elements influence each other, among them {cycle[:2].tolist()}); "
            "merge them with condensation() or unroll them with unfolding()."
        )
    return np.array(order, dtype=np.intp)


def _quotient(array: BoolArray, labels: IntArray) -> BoolArray:
    """The acyclic relation between strongly connected components, closed: (k, k)."""
    k = int(labels.max()) + 1
    quotient = np.zeros((k, k), dtype=np.bool_)
    tails, heads = np.nonzero(array)
    quotient[labels[tails], labels[heads]] = True
    np.fill_diagonal(quotient, True)
    rows = pack(quotient)
    for a in topological_order(quotient)[::-1]:  # successors are complete before their predecessors
        rows[a] = np.bitwise_or.reduce(rows[np.flatnonzero(quotient[a])], axis=0)
    return unpack(rows, k)


def reflexive_transitive_closure(relation: npt.ArrayLike) -> BoolArray:
    """The least preorder (n, n) that contains ``relation``: a ≤ b iff a = b or a path leads from a to b. O(n³/64)."""
    array = as_relation(relation)
    labels = strong_components(array)
    return _quotient(array, labels)[np.ix_(labels, labels)]


def condensation(relation: npt.ArrayLike) -> Condensation:
    """Close the relation and merge what influences each other: the poset of its strongly connected components."""
    array = as_relation(relation)
    labels = strong_components(array)
    return Condensation(_quotient(array, labels), labels)


def unfolding(relation: npt.ArrayLike, steps: int) -> BoolArray:
    """The poset of (unit, time) pairs over ``steps`` ≥ 1 steps: (a, t) ≤ (b, t+1) iff ``relation[a, b]``, then closed.

    Element ``t * n + a`` is (a, t), t = 0 … steps; shape ((steps+1)·n, (steps+1)·n). Antisymmetric by construction,
    whatever the cycles of ``relation``. (a, t) ≤ (a, t+1) only where ``relation[a, a]``.
    (a, s) ≤ (b, t) iff a walk of length t − s leads from a to b, so the blocks are the boolean powers of ``relation``.
    """
    array = as_relation(relation)
    if steps < 1:
        raise ContextError(f"an unfolding needs at least 1 step; got {steps}.")
    n = len(array)
    blocks = np.zeros((steps + 1, n, steps + 1, n), dtype=np.bool_)
    power = np.eye(n, dtype=np.bool_)
    for span in range(steps + 1):
        for t in range(steps + 1 - span):
            blocks[t, :, t + span, :] = power
        power = (power.astype(np.float32) @ array.astype(np.float32)) > 0
    return blocks.reshape((steps + 1) * n, (steps + 1) * n)


def covers(leq: npt.ArrayLike) -> BoolArray:
    """Covering relation a ≺ b (n, n): a < b with nothing strictly between; its transitive reduction. O(n³/64).

    Raises ContextError if ``leq`` is not a partial order.
    """
    return covers_of(as_poset(leq))


def covers_of(leq: BoolArray) -> BoolArray:
    """:func:`covers` for an order that is known to be one; a caller that is not sure uses :func:`covers`."""
    strict = strict_part(leq)
    rows = pack(strict)
    reduced = rows.copy()
    for a in range(len(strict)):
        reduced[a] &= ~np.bitwise_or.reduce(rows[np.flatnonzero(strict[a])], axis=0)
    return unpack(reduced, len(strict))


def transitive_reduction(relation: npt.ArrayLike) -> BoolArray:
    """The least relation with the same closure as an acyclic ``relation`` (self-loops do not count), (n, n).

    Raises ContextError if the relation has a cycle: its reduction would not be unique.
    """
    topological_order(relation)
    return covers_of(reflexive_transitive_closure(relation))


def dual(leq: npt.ArrayLike) -> BoolArray:
    """The order turned upside down: a ≤ b in the dual iff b ≤ a."""
    return np.ascontiguousarray(as_relation(leq).T)


def linear_extension(leq: npt.ArrayLike) -> IntArray:
    """(n,) the elements of a poset so that a < b implies a comes first: by size of the lower set, then by index."""
    return np.argsort(as_poset(leq).sum(axis=0), kind="stable").astype(np.intp)


def lower_set(leq: npt.ArrayLike, elements: Iterable[int]) -> BoolArray:
    """↓S = {x : x ≤ s for some s in S}, as a mask (n,)."""
    array = as_poset(leq)
    return np.logical_or.reduce(array[:, as_elements(elements, len(array))], axis=1)


def upper_set(leq: npt.ArrayLike, elements: Iterable[int]) -> BoolArray:
    """↑S = {x : s ≤ x for some s in S}, as a mask (n,)."""
    array = as_poset(leq)
    return np.logical_or.reduce(array[as_elements(elements, len(array))], axis=0)


def minimal_elements(leq: npt.ArrayLike) -> IntArray:
    """Elements with nothing strictly below them, ascending."""
    return np.flatnonzero(~strict_part(as_poset(leq)).any(axis=0))


def maximal_elements(leq: npt.ArrayLike) -> IntArray:
    """Elements with nothing strictly above them, ascending."""
    return np.flatnonzero(~strict_part(as_poset(leq)).any(axis=1))
