"""Transposition of whole buffers, W rows at a time; compiled by :mod:`jali.inference.compiled`."""

from __future__ import annotations

from typing import Any

from jali.inference.vector import transpose_block, width_of


def to_columns(width: Any, rows: int, size: int, columns: int, _: int, __: int) -> None:
    """(W, size) floats at ``rows`` to (size, W) at ``columns``; size is a multiple of W."""
    vector = 4 * width_of(width)
    for k in range(0, 4 * size, vector):
        transpose_block(width, rows + k, 4 * size, columns + k * width_of(width), vector)


def to_rows(width: Any, columns: int, size: int, rows: int, _: int, __: int) -> None:
    """(size, W) floats at ``columns`` to (W, size) at ``rows``; size is a multiple of W."""
    vector = 4 * width_of(width)
    for k in range(0, 4 * size, vector):
        transpose_block(width, columns + k * width_of(width), vector, rows + k, 4 * size)
