"""Kernels on sets packed into 64-bit words, and irreducibility on relations that are packed so.

The layout is that of :mod:`jali.maths.words`. The kernels take one set as a word vector ``(W,)`` and are meant to be
called from other numba code.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from jali.jit import njit
from jali.maths.words import Bools, Words


def _popcount(typingctx, word):  # type: ignore[no-untyped-def]
    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.ctpop(args[0])

    return types.uint64(types.uint64), codegen


def _lowest_bit(typingctx, word):  # type: ignore[no-untyped-def]
    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), codegen


# Both are one machine instruction on a 64-bit word: the number of ones; the position of the lowest one (word != 0).
popcount: Any = intrinsic(_popcount)
lowest_bit: Any = intrinsic(_lowest_bit)


@njit(cache=True, nogil=True)
def cardinality(a: Words) -> np.int64:
    """Number of elements of one set ``(W,)``."""
    total = np.int64(0)
    for w in range(a.size):
        total += np.int64(popcount(a[w]))
    return total


@njit(cache=True, nogil=True)
def cardinalities(sets: Words) -> NDArray[np.int64]:
    """Number of elements of each set: words ``(n, W)`` to counts ``(n,)``."""
    out = np.empty(sets.shape[0], np.int64)
    for i in range(sets.shape[0]):
        out[i] = cardinality(sets[i])
    return out


@njit(cache=True, nogil=True)
def is_subset(a: Words, b: Words) -> bool:
    """Whether ``a ⊆ b``; leaves at the first word that says no."""
    for w in range(a.size):  # noqa: SIM110  (numba has no generator expressions)
        if a[w] & ~b[w]:
            return False
    return True


@njit(cache=True, nogil=True)
def subset_matrix(a: Words, b: Words) -> Bools:
    """All subset tests at once: ``out[i, j] = a[i] ⊆ b[j]``, from words ``(n, W)`` and ``(k, W)`` to ``(n, k)``."""
    out = np.empty((a.shape[0], b.shape[0]), np.bool_)
    for i in range(a.shape[0]):
        for j in range(b.shape[0]):
            out[i, j] = is_subset(a[i], b[j])
    return out


@njit(cache=True, nogil=True)
def full_set(size: int) -> Words:
    """The set of all ``size`` elements."""
    words = (size + 63) // 64
    out = np.full(words, ~np.uint64(0))
    if size % 64:
        out[words - 1] = (np.uint64(1) << np.uint64(size % 64)) - np.uint64(1)
    return out


@njit(cache=True, nogil=True)
def transpose(words: Words, size: int) -> Words:
    """Transpose of a packed bit matrix: ``(n, ceil(size / 64))`` words to ``(size, ceil(n / 64))``.

    Blocks of 64 x 64 bits by the swaps of halves of Warren, *Hacker's Delight*, section 7-3; the blocks of one band of
    64 rows go together, so that the swaps run in vector registers.
    """
    n, width = words.shape
    out = np.empty((size, (n + 63) // 64), np.uint64)
    band = np.empty((64, width), np.uint64)
    for b in range(out.shape[1]):
        rows = min(64, n - b * 64)
        band[:rows] = words[b * 64 : b * 64 + rows]
        band[rows:] = np.uint64(0)
        _transpose_band(band)
        for w in range(width):
            for c in range(min(64, size - w * 64)):
                out[w * 64 + c, b] = band[c, w]
    return out


@njit(cache=True, nogil=True)
def _transpose_band(band: Words) -> None:
    mask = np.uint64(0x00000000FFFFFFFF)
    step = 32
    while step:
        shift = np.uint64(step)
        for base in range(0, 64, 2 * step):
            for k in range(base, base + step):
                for w in range(band.shape[1]):
                    swap = ((band[k, w] >> shift) ^ band[k + step, w]) & mask
                    band[k, w] ^= swap << shift
                    band[k + step, w] ^= swap
        step >>= 1
        mask ^= mask << np.uint64(step)


@njit(cache=True, nogil=True)
def irreducible_words(rows: Words, columns: Words) -> Bools:
    """Irreducible columns ``(C,)`` of a relation packed both ways: ``rows (R, ⌈C/64⌉)``, ``columns (C, ⌈R/64⌉)``.

    See :func:`jali.maths.context.irreducible_columns`.
    """
    counts = cardinalities(columns)
    all_rows, all_columns = full_set(rows.shape[0]), full_set(columns.shape[0])
    above = np.empty_like(all_columns)
    meet = np.empty_like(all_rows)
    out = np.empty(columns.shape[0], np.bool_)
    for j in range(columns.shape[0]):
        if _columns_above(rows, columns, j, all_columns, above):
            out[j] = _strict_meet(columns, counts, j, above, all_rows, meet, True)
        else:
            out[j] = counts[j] < rows.shape[0]
    return out


@njit(cache=True, nogil=True)
def strict_meets(rows: Words, columns: Words) -> Words:
    """For each column the intersection of the columns that strictly contain it, as words ``(C, ⌈R/64⌉)``."""
    counts = cardinalities(columns)
    all_rows, all_columns = full_set(rows.shape[0]), full_set(columns.shape[0])
    above = np.empty_like(all_columns)
    out = np.empty_like(columns)
    for j in range(columns.shape[0]):
        _columns_above(rows, columns, j, all_columns, above)
        _strict_meet(columns, counts, j, above, all_rows, out[j], False)
    return out


@njit(cache=True, nogil=True)
def _columns_above(rows: Words, columns: Words, j: int, all_columns: Words, above: Words) -> bool:
    """Other columns that contain column j, the intersection of the rows of j; whether any. Stops once there is none."""
    for v in range(above.size):
        above[v] = all_columns[v]
    above[j >> 6] &= ~(np.uint64(1) << np.uint64(j & 63))
    for w in range(columns.shape[1]):
        word = columns[j, w]
        first = np.uint64(w << 6)  # unsigned indices spare numba's test for negative ones
        while word:
            i = first + lowest_bit(word)
            word &= word - np.uint64(1)
            left = np.uint64(0)
            for v in range(above.size):
                above[v] &= rows[i, v]
                left |= above[v]
            if not left:
                return False
    return True


@njit(cache=True, nogil=True)
def _strict_meet(columns, counts, j, above, all_rows, meet, early):  # type: ignore[no-untyped-def]
    """Intersect the strict supersets of j into ``meet``; whether it is larger than j. ``early``: stop if not."""
    excess = np.uint64(0)
    for v in range(meet.size):
        meet[v] = all_rows[v]
        excess |= meet[v] ^ columns[j, v]
    for w in range(above.size):
        word = above[w]
        first = np.uint64(w << 6)
        while word:
            k = first + lowest_bit(word)
            word &= word - np.uint64(1)
            if counts[k] == counts[j]:  # a superset of the same size is an equal column
                continue
            excess = np.uint64(0)
            for v in range(meet.size):
                meet[v] &= columns[k, v]
                excess |= meet[v] ^ columns[j, v]
            if early and not excess:
                return False
    return excess != np.uint64(0)
