"""All formal concepts of a context, and the concept lattice's order.

A concept is a pair (extent, intent) of a set of rows and a set of columns, each the derivation of the other; ordered by
inclusion of extents they form the complete lattice of the context (Ganter & Wille 1999, theorem 3).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jali.errors import ContextError, LimitError
from jali.jit import njit
from jali.maths.bitset import cardinalities, full_set, lowest_bit, subset_matrix, transpose
from jali.maths.context import as_incidence
from jali.maths.words import Bools, Words, pack, unpack


@dataclass(frozen=True, eq=False)
class ConceptLattice:
    """All concepts of a context, sorted from the top (all rows) to the bottom: by size of extent, then by its bits.

    ``extent_words (N, ⌈rows/64⌉)`` and ``intent_words (N, ⌈columns/64⌉)`` are packed as in :mod:`jali.maths.bitset`.
    Concept 0 is the top and concept N - 1 the bottom.
    """

    extent_words: Words
    intent_words: Words
    n_rows: int
    n_columns: int

    def __len__(self) -> int:
        return self.extent_words.shape[0]

    @property
    def extents(self) -> Bools:
        """Extents as a mask ``(N, rows)``."""
        return unpack(self.extent_words, self.n_rows)

    @property
    def intents(self) -> Bools:
        """Intents as a mask ``(N, columns)``."""
        return unpack(self.intent_words, self.n_columns)

    def order(self, limit: int = 10_000) -> Bools:
        """The order as a matrix ``(N, N)``: ``[a, b]`` is True iff concept a ≤ concept b (extent a ⊆ extent b).

        Raises:
            LimitError: more than ``limit`` concepts; the matrix has N² entries.
        """
        if len(self) > limit:
            raise LimitError(
                f"the order matrix of {len(self)} concepts has {len(self) ** 2} entries, the limit is {limit} concepts;"
                " raise limit, or use covers(), which is sparse"
            )
        return subset_matrix(self.extent_words, self.extent_words)

    def covers(self) -> NDArray[np.int64]:
        """The edges of the Hasse diagram ``(E, 2)``: rows ``(lower, upper)``, sorted.

        The extent ∩ column for each column outside the intent is the extent of a smaller concept; that one is a lower
        neighbour iff as many columns lead to it as its intent gains (L. Nourine, O. Raynaud, *A fast algorithm for
        building lattices*, Information Processing Letters 71, 1999). Extents are found again by hash.
        """
        if self.n_columns <= self.n_rows:
            edges = _covers(_incidence_columns(self), self.extent_words, self.intent_words)
        else:
            edges = _covers(_incidence_columns(_dual(self)), self.intent_words, self.extent_words)[:, ::-1]
        return edges[np.argsort(edges @ (len(self), 1))]

    def meet_irreducible(self) -> Bools:
        """Concepts with exactly one upper cover, a mask ``(N,)``: those of the irreducible columns."""
        return np.bincount(self.covers()[:, 0], minlength=len(self)) == 1

    def join_irreducible(self) -> Bools:
        """Concepts with exactly one lower cover, a mask ``(N,)``: those of the irreducible rows."""
        return np.bincount(self.covers()[:, 1], minlength=len(self)) == 1


def enumerate_concepts(incidence: ArrayLike, limit: int = 1_000_000) -> ConceptLattice:
    """All concepts of a context ``(rows, columns)``.

    In-Close (S. Andrews, *In-Close2, a high performance formal concept miner*, ICCS 2011), breadth first so that the
    output is its own queue, over the shorter side of the context. The canonicity test intersects the rows of the new
    extent, 64 columns at a time, and stops once no smaller column is left.

    Raises:
        ContextError: the relation is empty or not binary, or ``limit`` < 1.
        LimitError: there are more than ``limit`` concepts.
    """
    relation = as_incidence(incidence)
    if limit < 1:
        raise ContextError(f"limit is {limit}; allow at least one concept")
    n_rows, n_columns = relation.shape
    rows = pack(relation)
    columns = transpose(rows, n_columns)
    if n_columns <= n_rows:
        complete, extents, intents = _in_close(rows, columns, limit)
    else:
        complete, intents, extents = _in_close(columns, rows, limit)
    if not complete:
        raise LimitError(
            f"stopped at {len(extents)} concepts of a {n_rows} x {n_columns} context, the limit is {limit};"
            " raise limit, or reduce or thin out the context"
        )
    by = (*extents.T, -cardinalities(extents))
    rank = np.lexsort(by)
    return ConceptLattice(extents[rank], intents[rank], n_rows, n_columns)


@njit(cache=True, nogil=True)
def _in_close(rows, columns, limit):  # type: ignore[no-untyped-def]
    """Extents and intents in order of discovery, and whether they are all."""
    n_columns = columns.shape[0]
    capacity = min(limit, 4096)
    extents = np.empty((capacity, columns.shape[1]), np.uint64)
    intents = np.zeros((capacity, rows.shape[1]), np.uint64)
    start = np.zeros(capacity, np.int64)  # the first column that the concept may still be extended by
    extents[0] = full_set(rows.shape[0])
    child = np.empty(columns.shape[1], np.uint64)
    count, q = 1, 0
    while q < count:
        first_child = count
        for j in range(start[q], n_columns):
            bit = np.uint64(1) << np.uint64(j & 63)
            if intents[q, j >> 6] & bit:
                continue
            lost = np.uint64(0)
            for w in range(child.size):
                child[w] = extents[q, w] & columns[j, w]
                lost |= child[w] ^ extents[q, w]
            if not lost:
                intents[q, j >> 6] |= bit
            elif _canonical(rows, child, intents[q], j):
                if count == limit:
                    return False, extents[:count], intents[:count]
                if count == capacity:
                    capacity = min(limit, 2 * capacity)
                    extents, intents = _grown(extents, capacity), _grown(intents, capacity)
                    start = np.concatenate((start, np.zeros(capacity - count, np.int64)))
                extents[count] = child
                start[count] = j + 1
                count += 1
        for c in range(first_child, count):  # only now is the intent of q complete
            j = start[c] - 1
            intents[c] = intents[q]
            intents[c, j >> 6] |= np.uint64(1) << np.uint64(j & 63)
        q += 1
    return True, extents[:count], intents[:count]


@njit(cache=True, nogil=True)
def _canonical(rows: Words, extent: Words, intent: Words, j: int) -> bool:
    """Whether no column before j, outside the intent, contains the extent; else the concept is found elsewhere."""
    last = j >> 6
    for v in range(last + 1):
        extra = ~intent[v]
        if v == last:
            extra &= (np.uint64(1) << np.uint64(j & 63)) - np.uint64(1)
        for w in range(extent.size):
            word = extent[w]
            first = np.uint64(w << 6)
            while word and extra:
                extra &= rows[first + lowest_bit(word), v]
                word &= word - np.uint64(1)
        if extra:
            return False
    return True


@njit(cache=True, nogil=True)
def _grown(words: Words, capacity: int) -> Words:
    out = np.zeros((capacity, words.shape[1]), np.uint64)
    out[: words.shape[0]] = words
    return out


def _dual(lattice: ConceptLattice) -> ConceptLattice:
    return ConceptLattice(lattice.intent_words, lattice.extent_words, lattice.n_columns, lattice.n_rows)


def _incidence_columns(lattice: ConceptLattice) -> Words:
    """The context's columns, read back from its concepts: column m is the largest extent whose intent has m."""
    has = lattice.intents  # (N, C)
    sizes = cardinalities(lattice.extent_words)
    return lattice.extent_words[np.where(has, sizes[:, None], -1).argmax(axis=0)]


@njit(cache=True, nogil=True)
def _covers(columns, extents, intents):  # type: ignore[no-untyped-def]
    n = extents.shape[0]
    table = _hash_table(extents)
    sizes = cardinalities(intents)
    hits = np.zeros(n, np.int64)
    touched = np.empty(columns.shape[0], np.int64)
    child = np.empty(extents.shape[1], np.uint64)
    edges = np.empty((4 * n, 2), np.int64)
    count = 0
    for q in range(n):
        found = 0
        for j in range(columns.shape[0]):
            if (intents[q, j >> 6] >> np.uint64(j & 63)) & np.uint64(1):
                continue
            for w in range(child.size):
                child[w] = extents[q, w] & columns[j, w]
            lower = _lookup(table, extents, child)
            if not hits[lower]:
                touched[found] = lower
                found += 1
            hits[lower] += 1
        for t in range(found):
            lower = touched[t]
            if hits[lower] == sizes[lower] - sizes[q]:
                if count == edges.shape[0]:
                    edges = np.concatenate((edges, np.empty_like(edges)))
                edges[count, 0], edges[count, 1] = lower, q
                count += 1
            hits[lower] = 0
    return edges[:count]


@njit(cache=True, nogil=True)
def _slot(key: Words) -> np.uint64:
    """Hash of a set: each word is mixed in by the finaliser of MurmurHash3, so that all bits reach the low ones."""
    h = np.uint64(0)
    for w in range(key.size):
        h ^= key[w]
        h = (h ^ (h >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
        h = (h ^ (h >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
        h ^= h >> np.uint64(33)
    return h


@njit(cache=True, nogil=True)
def _hash_table(sets):  # type: ignore[no-untyped-def]
    """Open addressing with linear probing, at most half full; -1 is an empty slot."""
    size = 16
    while size < 2 * sets.shape[0]:
        size *= 2
    table = np.full(size, -1, np.int64)
    for i in range(sets.shape[0]):
        slot = _slot(sets[i]) & np.uint64(size - 1)
        while table[slot] >= 0:
            slot = (slot + np.uint64(1)) & np.uint64(size - 1)
        table[slot] = i
    return table


@njit(cache=True, nogil=True)
def _lookup(table, sets, key):  # type: ignore[no-untyped-def]
    """Index of a set that is known to be in the table."""
    slot = _slot(key) & np.uint64(table.size - 1)
    while True:
        i = table[slot]
        same = True
        for w in range(key.size):
            same &= sets[i, w] == key[w]
        if same:
            return i
        slot = (slot + np.uint64(1)) & np.uint64(table.size - 1)
