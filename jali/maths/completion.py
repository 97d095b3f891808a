"""The Dedekind-MacNeille completion: the smallest lattice that contains a poset.

A cut is a set A of elements with A = A^ul, the lower bounds of its upper bounds. Ordered by inclusion the cuts are a
lattice that contains the poset through x ↦ ↓x and keeps every join and meet that exists in it; no smaller lattice does.
The cuts are exactly the intersections of principal lower sets ↓x, the whole poset being the empty intersection; they
are enumerated as such.

The concept lattice of a context (G, M, I) is the completion of G ⊔ M under the order that the context induces
(:func:`context_order`), where rows compare with rows and columns with columns. The one-step unfolding keeps only the
part g ≤ m iff g I m of that order, in which no two rows and no two columns compare: its completion contains the concept
lattice, and beside it the single elements that the context would merge or put above one another.

Source: H. M. MacNeille, "Partially ordered sets", Trans. AMS 42 (1937) 416-460; B. A. Davey, H. A. Priestley,
*Introduction to Lattices and Order*, 2nd ed., Cambridge 2002, sec. 7.36 to 7.44; B. Ganter, R. Wille, *Formal Concept
Analysis*, Springer 1999, thm. 3 and 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jali.errors import ContextError, LimitError
from jali.maths.lattice import MAX_ELEMENTS, Lattice
from jali.maths.relation import BoolArray, IntArray, as_poset


@dataclass(frozen=True, eq=False)
class Completion:
    """The completion of a poset of n elements.

    ``lattice`` has k elements, by ascending size of their cuts; ``embedding`` (n,) is the lattice element of each
    element of the poset; ``cuts`` (k, n) the members of each cut.
    """

    lattice: Lattice
    embedding: IntArray
    cuts: BoolArray

    def added(self) -> IntArray:
        """Lattice elements that are not in the poset, ascending."""
        return np.setdiff1d(np.arange(len(self.lattice)), self.embedding)


def dedekind_macneille(
    leq: npt.ArrayLike, labels: Sequence[str] | None = None, *, limit: int = MAX_ELEMENTS
) -> Completion:
    """The smallest lattice that contains the poset ``leq`` (n, n), and where each element lies in it.

    ``labels`` name the n elements; added ones are named by their cut. The lattice can have 2ⁿ elements. Raises
    LimitError as soon as more than ``limit`` are found, ContextError if ``leq`` is not a partial order.
    """
    array = as_poset(leq)
    if labels is not None and len(labels) != len(array):
        raise ContextError(f"a poset of {len(array)} elements needs as many labels; got {len(labels)}.")
    cuts = _intersections(np.ascontiguousarray(array.T), limit)
    weights = cuts.astype(np.float32)
    inside = weights @ weights.T == weights.sum(axis=1)[:, None]  # |A ∩ B| = |A|
    # ↓x is the smallest cut with x in it, and cuts ascend by size.
    embedding = cuts.argmax(axis=0).astype(np.intp)
    names = None if labels is None else _names(cuts, embedding, labels)
    return Completion(Lattice.from_leq(inside, names, limit=limit), embedding, cuts)


def _intersections(rows: BoolArray, limit: int) -> BoolArray:
    """All intersections of the rows (m, n), the full set among them, by size, then colexicographically: (k, n)."""
    m, n = rows.shape
    closed = {(1 << n) - 1}
    for done, row in enumerate(rows, start=1):
        bits = int.from_bytes(np.packbits(row, bitorder="little").tobytes(), "little")
        closed |= {bits & other for other in closed}
        if len(closed) > limit:
            raise LimitError(
                f"the completion has more than {limit} elements ({len(closed)} found after {done} of {m} lower sets). "
                "Raise `limit`, or complete a smaller or sparser poset."
            )
    ordered = sorted(closed, key=lambda bits: (bits.bit_count(), bits))
    width = -(-n // 8)
    octets = np.frombuffer(b"".join(bits.to_bytes(width, "little") for bits in ordered), dtype=np.uint8)
    return np.unpackbits(octets.reshape(-1, width), axis=1, count=n, bitorder="little").astype(np.bool_)


def _names(cuts: BoolArray, embedding: IntArray, labels: Sequence[str]) -> list[str]:
    names = ["{" + ", ".join(labels[int(x)] for x in np.flatnonzero(cut)) + "}" for cut in cuts]
    for x, element in enumerate(embedding):
        names[int(element)] = labels[x]
    return names


def context_order(incidence: npt.ArrayLike) -> BoolArray:
    """The preorder (g+m, g+m) that a context (g, m) induces on its rows, then its columns; row ≤ column iff incident.

    With ' the derivation of Galois, for rows a, b and columns x, y: a ≤ b iff b' ⊆ a'; x ≤ y iff x' ⊆ y'; a ≤ x iff
    x ∈ a'; x ≤ a iff x' ⊆ a''. Rows or columns that coincide lie in each other's component: apply condensation(); the
    completion of that poset is the concept lattice. Raises ContextError if ``incidence`` is not a non-empty boolean
    array of two dimensions.
    """
    array = np.asarray(incidence)
    if array.ndim != 2 or array.size == 0 or array.dtype != np.bool_:
        raise ContextError(
            f"a context is a boolean array of at least one row and one column; got {array.dtype} {array.shape}."
        )
    present, absent = array.astype(np.float32), (~array).astype(np.float32)
    rows = absent @ present.T == 0  # [a, b]: nothing of b' is missing in a'
    columns = present.T @ absent == 0
    down = present.T @ (~rows).astype(np.float32) == 0  # [x, a]: all of x' lies below a
    return np.block([[rows, array], [down, columns]])
