"""The time loop whose vectors go over units: up to :data:`CHUNK` sequences at a time, each in rows of its own."""

from __future__ import annotations

from typing import Any

from numba import njit

from jali.inference.cells import gru_cell, lstm_cell, relu_cell, tanh_cell
from jali.inference.fields import (
    CELL,
    COUNT,
    FIRST,
    GRU,
    HIDDEN,
    LSTM,
    PADDED,
    RECURRENT,
    RECURRENT_BIAS,
    STATE_C,
    STATE_H,
    STATES,
    TANH,
    TIME,
    C,
    H,
    U,
    Z,
)
from jali.inference.products import product
from jali.inference.steps import active, find_lengths, input_sums, output_row, row_bytes
from jali.inference.vector import copy_bytes, load_int


@njit(nogil=True)
def _exchange_states(layer: int, work: int, inward: bool) -> None:
    """Copies states between the caller's rows of H and the workspace's padded rows."""
    row, padded, first = 4 * load_int(layer + HIDDEN), 4 * load_int(layer + PADDED), load_int(work + FIRST)
    for b in range(load_int(work + COUNT)):
        for inside, outside in ((STATE_H, H), (STATE_C, C)):
            base = load_int(work + outside)
            if base != 0:
                ours, theirs = load_int(work + inside) + b * padded, base + (first + b) * row
                if inward:
                    copy_bytes(ours, theirs, row)
                else:
                    copy_bytes(theirs, ours, row)


@njit(nogil=True)
def _recurrence(width: Any, layer: int, work: int, z: int, rows: int) -> None:
    """One step: adds the recurrent product to the gate sums at z, then updates the states."""
    cell, padded, size = load_int(layer + CELL), load_int(layer + PADDED), row_bytes(layer)
    h, c, u = load_int(work + STATE_H), load_int(work + STATE_C), load_int(work + U)
    if cell == GRU:
        for b in range(rows):
            copy_bytes(u + b * size, load_int(layer + RECURRENT_BIAS), size)
    product(width, load_int(layer + RECURRENT), rows, load_int(work + STATES), u if cell == GRU else z, size)
    for b in range(rows):
        state = 4 * b * padded
        if cell == LSTM:
            lstm_cell(width, z + b * size, h + state, c + state, padded)
        elif cell == GRU:
            gru_cell(width, z + b * size, u + b * size, h + state, padded)
        elif cell == TANH:
            tanh_cell(width, z + b * size, h + state, padded)
        else:
            relu_cell(width, z + b * size, h + state, padded)


@njit(nogil=True)
def steps_together(count: int) -> int:
    """Time steps whose input products are done at once, so that their weights are read once for about 8 rows."""
    if count == 1:
        return 8
    return 4 if count == 2 or count % 2 == 1 else 2


@njit(nogil=True)
def run_by_unit(width: Any, layer: int, work: int) -> None:
    """Runs the sequences at work over all their steps."""
    hidden, padded = 4 * load_int(layer + HIDDEN), 4 * load_int(layer + PADDED)
    time, block = load_int(work + TIME), steps_together(load_int(work + COUNT))
    _exchange_states(layer, work, True)
    find_lengths(work)
    for begin in range(0, time, block):
        end = min(begin + block, time)
        z = load_int(work + Z)
        input_sums(width, layer, work, z, begin, end)
        for step in range(begin, end):
            rows = active(work, step)
            _recurrence(width, layer, work, z, rows)
            z += rows * row_bytes(layer)
            for b in range(rows):
                copy_bytes(output_row(work, step, b), load_int(work + STATE_H) + b * padded, hidden)
    _exchange_states(layer, work, False)
