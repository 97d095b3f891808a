"""Finite lattices as tables: joins, meets, irreducibles, sublattices, complements.

Elements are the integers 0 … k−1; ``leq[a, b]`` is True iff a ≤ b. In the dependency lattice of a recurrent network
a ≤ b means that a influences b. The laws (modular, distributive) are in :mod:`jali.maths.lattice_laws`, lattices with a
name in :mod:`jali.maths.named_lattices`, the smallest lattice that contains a poset in :mod:`jali.maths.completion`.

Source: B. A. Davey, H. A. Priestley, *Introduction to Lattices and Order*, 2nd ed., Cambridge 2002, ch. 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jali.errors import ContextError, LimitError
from jali.maths.order import covers_of
from jali.maths.relation import BoolArray, IntArray, Verdict, as_elements, as_poset, as_relation
from jali.maths.words import pack

TableArray = npt.NDArray[np.int32]

MAX_ELEMENTS = 4096
"""Default limit on the size of a lattice: its tables take 9 bytes per pair of elements, 150 MB here."""


@dataclass(frozen=True, eq=False)
class Lattice:
    """A finite lattice of k elements; build it with :meth:`from_leq`, which checks that it is one.

    ``leq`` (k, k) bool; ``join`` and ``meet`` (k, k) int32 tables of elements; ``bottom`` and ``top`` elements;
    ``labels`` k strings or None. The arrays are read-only.
    """

    leq: BoolArray
    join: TableArray
    meet: TableArray
    bottom: int
    top: int
    labels: tuple[str, ...] | None = None

    @classmethod
    def from_leq(cls, leq: npt.ArrayLike, labels: Sequence[str] | None = None, *, limit: int = MAX_ELEMENTS) -> Lattice:
        """The lattice of an order (k, k). O(k³) in time, 9 k² bytes.

        Raises ContextError if ``leq`` is not a partial order, or with a witness pair that has no join or no meet;
        LimitError above ``limit`` elements.
        """
        array = as_relation(leq)
        check_size(len(array), limit)
        array = as_poset(array).copy()
        if labels is not None and len(labels) != len(array):
            raise ContextError(f"a lattice of {len(array)} elements needs as many labels; got {len(labels)}.")
        join = _least_upper_bounds(array, "join")
        meet = _least_upper_bounds(np.ascontiguousarray(array.T), "meet")
        for table in (array, join, meet):
            table.setflags(write=False)
        bottom, top = int(array.all(axis=1).argmax()), int(array.all(axis=0).argmax())
        return cls(array, join, meet, bottom, top, None if labels is None else tuple(labels))

    def __len__(self) -> int:
        return len(self.leq)

    def covers(self) -> BoolArray:
        """Covering relation (k, k): a ≺ b iff a < b with nothing strictly between. The edges of the Hasse diagram."""
        return covers_of(self.leq)

    def join_irreducibles(self) -> IntArray:
        """Elements with exactly one lower cover, ascending: not the bottom, and no join of two others."""
        return np.flatnonzero(self.covers().sum(axis=0) == 1)

    def meet_irreducibles(self) -> IntArray:
        """Elements with exactly one upper cover, ascending: not the top, and no meet of two others."""
        return np.flatnonzero(self.covers().sum(axis=1) == 1)

    def atoms(self) -> IntArray:
        """Elements that cover the bottom, ascending."""
        return np.flatnonzero(self.covers()[self.bottom])

    def coatoms(self) -> IntArray:
        """Elements that the top covers, ascending."""
        return np.flatnonzero(self.covers()[:, self.top])

    def complements(self, x: int) -> IntArray:
        """All y with x ∧ y = bottom and x ∨ y = top, ascending."""
        as_elements((x,), len(self))
        return np.flatnonzero((self.meet[x] == self.bottom) & (self.join[x] == self.top))

    def is_sublattice(self, elements: Iterable[int]) -> Verdict:
        """Whether the elements are closed under join and meet; witness (a, b, c): c = a ∨ b or a ∧ b is missing."""
        chosen = as_elements(elements, len(self))
        inside = np.zeros(len(self), dtype=np.bool_)
        inside[chosen] = True
        for table in (self.join, self.meet):
            results = table[np.ix_(chosen, chosen)]
            missing = np.argwhere(~inside[results])
            if missing.size:
                i, j = missing[0]
                return Verdict(False, "sublattice", (int(chosen[i]), int(chosen[j]), int(results[i, j])))
        return Verdict(True, "sublattice")

    def generated(self, generators: Iterable[int]) -> IntArray:
        """The elements of the least sublattice that contains ``generators``, ascending."""
        elements = as_elements(generators, len(self))
        while True:
            pairs = np.ix_(elements, elements)
            larger = np.union1d(self.join[pairs], self.meet[pairs]).astype(np.intp)
            if larger.size == elements.size:
                return elements
            elements = larger

    def sublattice(self, elements: Iterable[int]) -> Lattice:
        """The sublattice on ``elements``, renumbered; ContextError with a witness if they are not closed."""
        chosen = as_elements(elements, len(self))
        verdict = self.is_sublattice(chosen)
        if not verdict:
            a, b, c = verdict.witness
            raise ContextError(
                f"not a sublattice: {a} and {b} are in it, their join or meet {c} is not. See generated()."
            )
        labels = None if self.labels is None else [self.labels[x] for x in chosen]
        return Lattice.from_leq(self.leq[np.ix_(chosen, chosen)], labels, limit=len(self))

    def dual(self) -> Lattice:
        """The lattice upside down: joins and meets change places."""
        return Lattice(self.leq.T, self.meet, self.join, self.top, self.bottom, self.labels)

    def product(self, other: Lattice, *, limit: int = MAX_ELEMENTS) -> Lattice:
        """The direct product, ordered by components; element ``a * len(other) + b`` is (a, b)."""
        check_size(len(self) * len(other), limit)
        labels = None
        if self.labels is not None and other.labels is not None:
            labels = [f"({a}, {b})" for a in self.labels for b in other.labels]
        return Lattice.from_leq(np.kron(self.leq, other.leq), labels, limit=limit)


def check_size(size: int, limit: int) -> None:
    """Raises LimitError if a lattice of ``size`` elements exceeds ``limit``."""
    if size > limit:
        raise LimitError(
            f"the lattice has {size} elements, above the limit of {limit}. Raise `limit` if memory allows."
        )


def _least_upper_bounds(leq: BoolArray, name: str) -> TableArray:
    """Table (k, k) of joins. Raises ContextError with a witness pair that has none."""
    k = len(leq)
    order = np.argsort(leq.sum(axis=0), kind="stable")
    above = leq[np.ix_(order, order)]  # in a linear extension the join is the first common upper bound
    first = np.zeros((k, k), dtype=np.int32)
    rows = pack(above)
    for a in range(k):
        bounds = rows[a, a // 64 :] & rows[a:, a // 64 :]  # (k - a, words): ↑a ∩ ↑b, all at or after a
        word = (bounds != 0).argmax(axis=1)
        bits = bounds[np.arange(k - a), word]
        lowest = np.frexp((bits & (~bits + np.uint64(1))).astype(np.float64))[1] - 1  # powers of two are exact
        first[a, a:] = first[a:, a] = np.maximum(64 * (a // 64 + word) + lowest, 0)  # -1 where there is none
    weights = above.astype(np.float32)  # counts below 2^24 are exact
    common = weights @ weights.T
    # The first common upper bound j is the least one iff all lie above it: |↑a ∩ ↑b| = |↑j|; ↑j is never empty.
    broken = np.argwhere(common != common.diagonal()[first])
    if broken.size:
        a, b = sorted(int(order[x]) for x in broken[0])
        count = int(common[broken[0][0], broken[0][1]])
        side = "upper" if name == "join" else "lower"
        raise ContextError(
            f"not a lattice: elements {a} and {b} have no {name} ({count} common {side} bounds, no extreme one). "
            "dedekind_macneille() completes a poset to a lattice."
        )
    table = np.empty((k, k), dtype=np.int32)
    table[np.ix_(order, order)] = order.astype(np.int32)[first]
    return table
