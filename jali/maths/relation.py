"""Relations on a finite set: validation, bit rows, and the laws of orders, each answered with a witness.

A relation on n elements is a boolean array of shape (n, n); in an order ``leq[a, b]`` is True iff a ≤ b. The order of a
recurrent network is a ≤ b iff a influences b. The influence graph is stored as ``A[to, from]``, so its relation is
``(A > 0).T``.

Source: B. A. Davey, H. A. Priestley, *Introduction to Lattices and Order*, 2nd ed., Cambridge 2002, sec. 1.2.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jali.errors import ContextError
from jali.maths.words import pack, unpack

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Verdict:
    """Whether a law holds; where it fails, ``witness`` are the elements that break it. True in a boolean context."""

    holds: bool
    law: str
    witness: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return self.holds


def as_relation(relation: npt.ArrayLike) -> BoolArray:
    """Check that ``relation`` is a non-empty square boolean array (n, n) and return it.

    Raises ContextError otherwise. Numbers are refused: the weight from which units are related is the caller's choice.
    """
    array = np.asarray(relation)
    if array.ndim != 2 or array.shape[0] != array.shape[1]:
        raise ContextError(f"a relation has shape (n, n); got {array.shape}. Pass one row and one column per element.")
    if array.shape[0] == 0:
        raise ContextError("the relation is empty (0 elements); at least 1 element is needed.")
    if array.dtype != np.bool_:
        raise ContextError(
            f"a relation is a boolean array; got dtype {array.dtype}. Threshold it first, as in `A > tau`."
        )
    return array


def as_poset(leq: npt.ArrayLike) -> BoolArray:
    """Check that ``leq`` (n, n) is a partial order and return it; raises ContextError with a witness otherwise."""
    array = as_relation(leq)
    verdict = is_partial_order(array)
    if not verdict:
        raise ContextError(
            f"not a partial order: {verdict.law} fails at elements {verdict.witness}. Close a relation with "
            "reflexive_transitive_closure(), merge its cycles with condensation()."
        )
    return array


def as_elements(elements: Iterable[int], n: int) -> IntArray:
    """Check that ``elements`` are integers in [0, n) and return them as an ascending array without repetition."""
    given = np.asarray(list(elements))
    if given.size == 0:
        return np.zeros(0, dtype=np.intp)
    if not np.issubdtype(given.dtype, np.integer) or given.ndim != 1:
        raise ContextError(f"elements are given by integer indices; got dtype {given.dtype}, shape {given.shape}.")
    if given.min() < 0 or given.max() >= n:
        raise ContextError(f"elements must lie in [0, {n}); got {given.min()} to {given.max()}.")
    return np.unique(given).astype(np.intp)


def strict_part(relation: BoolArray) -> BoolArray:
    strict = relation.copy()
    np.fill_diagonal(strict, False)
    return strict


def is_reflexive(relation: npt.ArrayLike) -> Verdict:
    """a ≤ a for all a; witness (a,)."""
    missing = np.flatnonzero(~np.diagonal(as_relation(relation)))
    return Verdict(missing.size == 0, "reflexivity", tuple(int(a) for a in missing[:1]))


def is_antisymmetric(relation: npt.ArrayLike) -> Verdict:
    """a ≤ b and b ≤ a imply a = b; witness (a, b)."""
    array = as_relation(relation)
    pairs = np.argwhere(strict_part(array & array.T))
    return Verdict(pairs.size == 0, "antisymmetry", tuple(int(a) for a in pairs[:1].ravel()))


def is_transitive(relation: npt.ArrayLike) -> Verdict:
    """a ≤ b and b ≤ c imply a ≤ c; witness (a, b, c). O(n³/64)."""
    array = as_relation(relation)
    rows = pack(array)
    for a in range(len(array)):
        after = np.flatnonzero(array[a])
        missing = np.bitwise_or.reduce(rows[after], axis=0) & ~rows[a]
        if missing.any():
            c = int(np.flatnonzero(unpack(missing[None], len(array))[0])[0])
            b = int(after[array[after, c]][0])
            return Verdict(False, "transitivity", (a, b, c))
    return Verdict(True, "transitivity")


def is_preorder(relation: npt.ArrayLike) -> Verdict:
    """Reflexive and transitive; where it fails, ``law`` names the first of the two that does."""
    reflexive = is_reflexive(relation)
    if not reflexive:
        return reflexive
    transitive = is_transitive(relation)
    return transitive if not transitive else Verdict(True, "preorder")


def is_partial_order(relation: npt.ArrayLike) -> Verdict:
    """Reflexive, antisymmetric and transitive; where it fails, ``law`` names the first of the three that does."""
    for law in (is_reflexive, is_antisymmetric, is_transitive):
        verdict = law(relation)
        if not verdict:
            return verdict
    return Verdict(True, "partial order")
