"""The time loop whose vectors go over sequences, W at a time: buffers are transposed, recurrent weights packed as ``rows``."""

from __future__ import annotations

from typing import Any

from numba import njit

from jali.inference.fields import (
    BIAS,
    CELL,
    COPIES,
    COUNT,
    FIRST,
    GATES,
    HIDDEN,
    INPUT_PRODUCT,
    INPUTS_BY_SEQUENCE,
    MATRIX,
    PADDED,
    PADDED_INPUTS,
    RECURRENCE_APART,
    RECURRENT_BIAS,
    RECURRENT_PRODUCT,
    ROWS,
    STATE_C,
    STATE_H,
    SUMS,
    TIME,
    TO_COLUMNS,
    TO_ROWS,
    TRANSPOSED,
    C,
    H,
    U,
    Z,
)
from jali.inference.steps import (
    active,
    begin_call,
    begin_state,
    copy_input,
    find_lengths,
    input_row,
    input_sums,
    length_of,
    output_row,
    recurrent_matrix,
    row_bytes,
)
from jali.inference.vector import call_kernel, copy_bytes, load_int, load_splat, store, store_int, width_of


@njit(nogil=True)
def _load_state(width: Any, layer: int, work: int, outside: int, inside: int) -> None:
    padded, rows = load_int(layer + PADDED), load_int(work + ROWS)
    for b in range(load_int(work + COUNT)):
        begin_state(width, layer, work, rows + 4 * b * padded, outside, b)
    call_kernel(load_int(layer + TO_COLUMNS), rows, padded, load_int(work + inside), 0, 0)


@njit(nogil=True)
def _save_ended(layer: int, work: int, step: int, inside: int, outside: int) -> None:
    """Gives the caller the states of the sequences whose last step this was."""
    row, padded, rows = 4 * load_int(layer + HIDDEN), load_int(layer + PADDED), load_int(work + ROWS)
    call_kernel(load_int(layer + TO_ROWS), load_int(work + inside), padded, rows, 0, 0)
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
    if load_int(layer + INPUTS_BY_SEQUENCE) == 0:
        input_sums(layer, work, load_int(work + SUMS), step, step + 1)
        call_kernel(load_int(layer + TO_COLUMNS), load_int(work + SUMS), row_bytes(layer) // 4, z, 0, 0)
        return
    _start_columns(width, layer, load_int(layer + BIAS), z)
    for b in range(active(work, step)):
        copy_input(layer, work, b, input_row(work, step, b))
    columns = load_int(work + TRANSPOSED)
    call_kernel(load_int(layer + TO_COLUMNS), load_int(work + COPIES), load_int(layer + PADDED_INPUTS), columns, 0, 0)
    call_kernel(load_int(layer + INPUT_PRODUCT), load_int(layer + MATRIX), 0, columns, z, 0)


@njit(nogil=True)
def _recurrence(width: Any, layer: int, work: int, step: int) -> None:
    h, c, z, u = load_int(work + STATE_H), load_int(work + STATE_C), load_int(work + Z), load_int(work + U)
    sums = z
    if load_int(layer + RECURRENCE_APART) != 0:
        sums = u
        _start_columns(width, layer, load_int(layer + RECURRENT_BIAS), u)
    call_kernel(load_int(layer + RECURRENT_PRODUCT), recurrent_matrix(layer, step), 0, h, sums, 0)
    call_kernel(load_int(layer + CELL), z, u, h, c, load_int(layer + PADDED) * width_of(width))


@njit(nogil=True)
def _run_chunk(width: Any, layer: int, work: int) -> None:
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
        _recurrence(width, layer, work, step)
        call_kernel(load_int(layer + TO_ROWS), load_int(work + STATE_H), padded, rows, 0, 0)
        for b in range(count):
            copy_bytes(output_row(work, step, b), rows + 4 * b * padded, row)
        if length_of(work, count - 1) == step + 1:
            _save_ended(layer, work, step, STATE_H, H)
            if has_c:
                _save_ended(layer, work, step, STATE_C, C)


def run_by_sequence(
    width: Any, layer: int, work: int, x: int, x_time: int, x_row: int, out: int, out_time: int, out_row: int,
    h: int, c: int, time: int, batch: int, offsets: int, way: int,
) -> None:  # fmt: skip
    """Runs all sequences; compiled by :func:`jali.inference.kernels.entry`, which says what the arguments are."""
    begin_call(work, x, x_time, x_row, out, out_time, out_row, h, c, time, offsets, way)
    chunk = width_of(width)
    for first in range(0, batch, chunk):
        store_int(work + FIRST, first)
        store_int(work + COUNT, min(chunk, batch - first))
        _run_chunk(width, layer, work)
