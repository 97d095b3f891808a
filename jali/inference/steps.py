"""What both time loops share: which sequences are active, where their rows lie, and how gate sums start.

``layer`` and ``work`` are addresses of the tables of :mod:`jali.inference.fields`. Sequences are counted from the first at work.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from jali.inference.fields import (
    BIAS,
    COPIED,
    COPIES,
    COUNT,
    FIRST,
    FROM_ZERO,
    GATES,
    HIDDEN,
    IN_ORDER,
    INPUT_PRODUCT,
    INPUTS,
    LENGTHS,
    MATRIX,
    MATRIX_PLACES,
    OFFSETS,
    OUT,
    OUT_ROW,
    OUT_TIME,
    PACKED_SUMS,
    PADDED,
    PADDED_INPUTS,
    RECURRENT,
    RECURRENT_BACK,
    REVERSE,
    SOURCES,
    TIME,
    X_ROW,
    X_TIME,
    X,
)
from jali.inference.vector import call_kernel, copy_bytes, load_int, splat, store, store_int, width_of


@njit(nogil=True)
def begin_call(
    work: int, x: int, x_time: int, x_row: int, out: int, out_time: int, out_row: int, h: int, c: int, time: int, offsets: int,
    way: int,
) -> None:  # fmt: skip
    """Writes the arguments of a run to the table."""
    call = (x, x_time, x_row, out, out_time, out_row, h, c, time, offsets, way & 1, way >> 1)
    for k in range(len(call)):
        store_int(work + X + 8 * k, call[k])


@njit(nogil=True)
def active(work: int, step: int) -> int:
    """Number of sequences at work that are longer than ``step``; they come first."""
    offsets, count = load_int(work + OFFSETS), load_int(work + COUNT)
    if offsets == 0:
        return count
    left = load_int(offsets + 8 * step + 8) - load_int(offsets + 8 * step) - load_int(work + FIRST)
    return min(max(left, 0), count)


@njit(nogil=True)
def begin_state(width: Any, layer: int, work: int, ours: int, outside: int, b: int) -> None:
    """The initial state of sequence b to a padded row at ``ours``: the caller's, or zeros."""
    if load_int(work + FROM_ZERO) != 0:
        zero = splat(width, np.float32(0))
        for k in range(0, 4 * load_int(layer + PADDED), 4 * width_of(width)):
            store(ours + k, zero)
    else:
        row = 4 * load_int(layer + HIDDEN)
        copy_bytes(ours, load_int(work + outside) + (load_int(work + FIRST) + b) * row, row)


@njit(nogil=True)
def find_lengths(work: int) -> None:
    """Length of every sequence at work."""
    for b in range(load_int(work + COUNT)):
        length = load_int(work + TIME)
        while length > 0 and active(work, length - 1) <= b:
            length -= 1
        store_int(load_int(work + LENGTHS) + 8 * b, length)


@njit(nogil=True)
def length_of(work: int, b: int) -> int:
    """Length of sequence b."""
    return load_int(load_int(work + LENGTHS) + 8 * b)


@njit(nogil=True)
def _row(work: int, base: int, time_bytes: int, row_bytes: int, step: int, b: int) -> int:
    t = length_of(work, b) - 1 - step if load_int(work + REVERSE) != 0 else step
    offsets, number = load_int(work + OFFSETS), load_int(work + FIRST) + b
    if offsets != 0:
        return base + (load_int(offsets + 8 * t) + number) * row_bytes
    return base + t * time_bytes + number * row_bytes


@njit(nogil=True)
def input_row(work: int, step: int, b: int) -> int:
    """Address of the input of sequence b at its ``step``-th step; a reverse direction starts at the sequence's own end."""
    return _row(work, load_int(work + X), load_int(work + X_TIME), load_int(work + X_ROW), step, b)


@njit(nogil=True)
def output_row(work: int, step: int, b: int) -> int:
    """Address of the output of sequence b at its ``step``-th step."""
    return _row(work, load_int(work + OUT), load_int(work + OUT_TIME), load_int(work + OUT_ROW), step, b)


@njit(nogil=True)
def row_bytes(layer: int) -> int:
    """Bytes of one row of gate sums."""
    return 4 * load_int(layer + GATES) * load_int(layer + PADDED)


@njit(nogil=True)
def copy_input(layer: int, work: int, row: int, source: int) -> int:
    """Copies one input to a row of the workspace, which is aligned and padded to whole vectors; returns its address."""
    target = load_int(work + COPIES) + 4 * row * load_int(layer + PADDED_INPUTS)
    copy_bytes(target, source, 4 * load_int(layer + INPUTS))
    return target


@njit(nogil=True)
def recurrent_matrix(layer: int, step: int) -> int:
    """The table of the recurrent weights; of many, at every other step that with the groups in reverse order.

    What was read last is in the cache still. Read in the same order at every step, weights that do not fit there would push out
    each other, and none would be found.
    """
    return load_int(layer + (RECURRENT if step & 1 == 0 else RECURRENT_BACK))


@njit(nogil=True)
def add_product(layer: int, work: int, kernel: int, matrix: int, rows: int, sources: int, z: int) -> None:
    """Adds the product of a matrix with each of the ``rows`` listed at ``sources`` to its row of gate sums at z."""
    size, sums = row_bytes(layer), load_int(work + PACKED_SUMS)
    if load_int(matrix + MATRIX_PLACES) == 0:
        call_kernel(kernel, matrix, rows, sources, z, size)
    else:
        call_kernel(kernel, matrix, rows, sources, sums, size)
        call_kernel(load_int(layer + IN_ORDER), matrix, rows, sums, z, size)


@njit(nogil=True)
def input_sums(layer: int, work: int, z: int, begin: int, end: int) -> None:
    """Bias and input part of the gate sums of steps begin … end - 1: rows of active sequences, step after step, at z."""
    sources, size, kernel = load_int(work + SOURCES), row_bytes(layer), load_int(layer + INPUT_PRODUCT)
    rows = 0
    for step in range(begin, end):
        for b in range(active(work, step)):
            source = input_row(work, step, b)
            copy_bytes(z + rows * size, load_int(layer + BIAS), size)
            if load_int(layer + COPIED) != 0:
                source = copy_input(layer, work, rows, source)
            store_int(sources + 8 * rows, source)
            rows += 1
    add_product(layer, work, kernel, load_int(layer + MATRIX), rows, sources, z)
