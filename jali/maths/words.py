"""Sets as rows of 64-bit words.

Row ``r`` of a boolean matrix ``(n, size)`` becomes ``W = ceil(size / 64)`` words; element ``j`` is bit ``j % 64`` of
word ``j // 64``. Bits beyond ``size`` are always zero, so that counts, equality and subset tests need no mask.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WORD_BITS = 64
Words = NDArray[np.uint64]
Bools = NDArray[np.bool_]


def word_count(size: int) -> int:
    """Words that hold a set over ``size`` elements."""
    return -(-size // WORD_BITS)


def pack(matrix: Bools) -> Words:
    """Rows of a boolean matrix ``(n, size)`` as words ``(n, ceil(size / 64))``."""
    n, size = matrix.shape
    octets = np.packbits(matrix, axis=1, bitorder="little")
    if size % WORD_BITS:
        padded = np.zeros((n, word_count(size) * 8), dtype=np.uint8)
        padded[:, : octets.shape[1]] = octets
        octets = padded
    return np.ascontiguousarray(octets).view("<u8").astype(np.uint64, copy=False)


def unpack(words: Words, size: int) -> Bools:
    """The inverse of :func:`pack`: words ``(n, W)`` as a boolean matrix ``(n, size)``."""
    octets = np.ascontiguousarray(words).astype("<u8", copy=False).view(np.uint8)
    return np.unpackbits(octets, axis=1, count=size, bitorder="little").view(np.bool_)
