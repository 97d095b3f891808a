"""The time loop whose vectors go over units: up to :data:`CHUNK` sequences at a time, each in rows of its own."""

from __future__ import annotations

from typing import Any

from numba import njit

from jali.inference.fields import (
    CELL,
    CHUNK,
    COUNT,
    FIRST,
    HIDDEN,
    PADDED,
    RECURRENCE_APART,
    RECURRENT_BIAS,
    RECURRENT_PRODUCT,
    STATE_C,
    STATE_H,
    STATES,
    TIME,
    TOGETHER,
    C,
    H,
    U,
    Z,
)
from jali.inference.steps import (
    active,
    add_product,
    begin_call,
    begin_state,
    find_lengths,
    input_sums,
    output_row,
    recurrent_matrix,
    row_bytes,
)
from jali.inference.vector import call_kernel, copy_bytes, load_int, store_int


@njit(nogil=True)
def _exchange_states(width: Any, layer: int, work: int, inward: bool) -> None:
    """Copies states between the caller's rows of H and the workspace's padded rows."""
    row, padded, first = 4 * load_int(layer + HIDDEN), 4 * load_int(layer + PADDED), load_int(work + FIRST)
    for b in range(load_int(work + COUNT)):
        for inside, outside in ((STATE_H, H), (STATE_C, C)):
            base = load_int(work + outside)
            if base != 0:
                ours = load_int(work + inside) + b * padded
                if inward:
                    begin_state(width, layer, work, ours, outside, b)
                else:
                    copy_bytes(base + (first + b) * row, ours, row)


@njit(nogil=True)
def _recurrence(layer: int, work: int, step: int, z: int, rows: int) -> None:
    """One step: adds the recurrent product to the gate sums at z, then updates the states."""
    padded, size = load_int(layer + PADDED), row_bytes(layer)
    h, c, u, sums = load_int(work + STATE_H), load_int(work + STATE_C), load_int(work + U), z
    if load_int(layer + RECURRENCE_APART) != 0:
        sums = u
        for b in range(rows):
            copy_bytes(u + b * size, load_int(layer + RECURRENT_BIAS), size)
    kernel, matrix = load_int(layer + RECURRENT_PRODUCT), recurrent_matrix(layer, step)
    add_product(layer, work, kernel, matrix, rows, load_int(work + STATES), sums)
    for b in range(rows):
        state = 4 * b * padded
        call_kernel(load_int(layer + CELL), z + b * size, u + b * size, h + state, c + state, padded)


@njit(nogil=True)
def _run_chunk(width: Any, layer: int, work: int) -> None:
    """Runs the sequences at work over all their steps."""
    hidden, padded = 4 * load_int(layer + HIDDEN), 4 * load_int(layer + PADDED)
    time, block = load_int(work + TIME), TOGETHER // load_int(work + COUNT)
    _exchange_states(width, layer, work, True)
    find_lengths(work)
    for begin in range(0, time, block):
        end = min(begin + block, time)
        z = load_int(work + Z)
        input_sums(layer, work, z, begin, end)
        for step in range(begin, end):
            rows = active(work, step)
            _recurrence(layer, work, step, z, rows)
            z += rows * row_bytes(layer)
            for b in range(rows):
                copy_bytes(output_row(work, step, b), load_int(work + STATE_H) + b * padded, hidden)
    _exchange_states(width, layer, work, False)


def run_by_unit(
    width: Any, layer: int, work: int, x: int, x_time: int, x_row: int, out: int, out_time: int, out_row: int,
    h: int, c: int, time: int, batch: int, offsets: int, way: int,
) -> None:  # fmt: skip
    """Runs all sequences; compiled by :func:`jali.inference.kernels.entry`, which says what the arguments are."""
    begin_call(work, x, x_time, x_row, out, out_time, out_row, h, c, time, offsets, way)
    for first in range(0, batch, CHUNK):
        store_int(work + FIRST, first)
        store_int(work + COUNT, min(CHUNK, batch - first))
        _run_chunk(width, layer, work)
