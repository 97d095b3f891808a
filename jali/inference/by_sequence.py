"""The time loop whose vectors go over sequences: W at a time, every buffer transposed, for a recurrent matrix packed as ``rows``."""

from __future__ import annotations

from typing import Any

from numba import njit

from jali.inference.cells import gru_cell, lstm_cell, relu_cell, tanh_cell
from jali.inference.fields import (
    BIAS,
    CELL,
    COPIES,
    COUNT,
    FIRST,
    GATES,
    GRU,
    HIDDEN,
    LSTM,
    MATRIX,
    MATRIX_ROWS,
    PADDED,
    PADDED_INPUTS,
    RECURRENT,
    RECURRENT_BIAS,
    ROWS,
    STATE_C,
    STATE_H,
    SUMS,
    TANH,
    TIME,
    TRANSPOSED,
    C,
    H,
    U,
    Z,
)
from jali.inference.products import product_rows
from jali.inference.steps import (
    active,
    copy_input,
    find_lengths,
    input_row,
    input_sums,
    length_of,
    output_row,
    row_bytes,
)
from jali.inference.vector import copy_bytes, load_int, load_splat, store, transpose_block, width_of


@njit(nogil=True)
def _to_columns(width: Any, rows: int, size: int, columns: int) -> None:
    """(W, size) floats at ``rows`` to (size, W) at ``columns``; size is a multiple of W."""
    vector = 4 * width_of(width)
    for k in range(0, 4 * size, vector):
        transpose_block(width, rows + k, 4 * size, columns + k * width_of(width), vector)


@njit(nogil=True)
def _to_rows(width: Any, columns: int, size: int, rows: int) -> None:
    """(size, W) floats at ``columns`` to (W, size) at ``rows``; size is a multiple of W."""
    vector = 4 * width_of(width)
    for k in range(0, 4 * size, vector):
        transpose_block(width, columns + k * width_of(width), vector, rows + k, 4 * size)


@njit(nogil=True)
def _load_state(width: Any, layer: int, work: int, outside: int, inside: int) -> None:
    row, padded, rows = 4 * load_int(layer + HIDDEN), load_int(layer + PADDED), load_int(work + ROWS)
    for b in range(load_int(work + COUNT)):
        copy_bytes(rows + 4 * b * padded, load_int(work + outside) + (load_int(work + FIRST) + b) * row, row)
    _to_columns(width, rows, padded, load_int(work + inside))


@njit(nogil=True)
def _save_ended(width: Any, layer: int, work: int, step: int, inside: int, outside: int) -> None:
    """Gives the caller the states of the sequences whose last step this was."""
    row, padded, rows = 4 * load_int(layer + HIDDEN), load_int(layer + PADDED), load_int(work + ROWS)
    _to_rows(width, load_int(work + inside), padded, rows)
    for b in range(load_int(work + COUNT)):
        if length_of(work, b) == step + 1:
            copy_bytes(load_int(work + outside) + (load_int(work + FIRST) + b) * row, rows + 4 * b * padded, row)


@njit(nogil=True)
def _start_columns(width: Any, layer: int, bias: int, sums: int) -> None:
    for r in range(load_int(layer + GATES) * load_int(layer + PADDED)):
        store(sums + 4 * r * width_of(width), load_splat(width, bias + 4 * r))


@njit(nogil=True)
def _input_columns(width: Any, layer: int, work: int, step: int) -> None:
    """Bias and input part of the gate sums (G · padded, W) of one step."""
    z = load_int(work + Z)
    if load_int(layer + MATRIX_ROWS) == 0:
        input_sums(width, layer, work, load_int(work + SUMS), step, step + 1)
        _to_columns(width, load_int(work + SUMS), row_bytes(layer) // 4, z)
        return
    _start_columns(width, layer, load_int(layer + BIAS), z)
    for b in range(active(work, step)):
        copy_input(layer, work, b, input_row(work, step, b))
    _to_columns(width, load_int(work + COPIES), load_int(layer + PADDED_INPUTS), load_int(work + TRANSPOSED))
    product_rows(width, load_int(layer + MATRIX), load_int(work + TRANSPOSED), z)


@njit(nogil=True)
def _recurrence(width: Any, layer: int, work: int) -> None:
    cell, size = load_int(layer + CELL), load_int(layer + PADDED) * width_of(width)
    h, c = load_int(work + STATE_H), load_int(work + STATE_C)
    z, u = load_int(work + Z), load_int(work + U)
    if cell == GRU:
        _start_columns(width, layer, load_int(layer + RECURRENT_BIAS), u)
    product_rows(width, load_int(layer + RECURRENT), h, u if cell == GRU else z)
    if cell == LSTM:
        lstm_cell(width, z, h, c, size)
    elif cell == GRU:
        gru_cell(width, z, u, h, size)
    elif cell == TANH:
        tanh_cell(width, z, h, size)
    else:
        relu_cell(width, z, h, size)


@njit(nogil=True)
def run_by_sequence(width: Any, layer: int, work: int) -> None:
    """Runs the sequences at work, at most W, over all their steps; lanes without an active sequence compute unread numbers."""
    row, padded, rows = 4 * load_int(layer + HIDDEN), load_int(layer + PADDED), load_int(work + ROWS)
    has_c = load_int(work + C) != 0
    _load_state(width, layer, work, H, STATE_H)
    if has_c:
        _load_state(width, layer, work, C, STATE_C)
    find_lengths(work)
    for step in range(load_int(work + TIME)):
        count = active(work, step)
        if count == 0:
            return
        _input_columns(width, layer, work, step)
        _recurrence(width, layer, work)
        _to_rows(width, load_int(work + STATE_H), padded, rows)
        for b in range(count):
            copy_bytes(output_row(work, step, b), rows + 4 * b * padded, row)
        if length_of(work, count - 1) == step + 1:
            _save_ended(width, layer, work, step, STATE_H, H)
            if has_c:
                _save_ended(width, layer, work, step, STATE_C, C)
