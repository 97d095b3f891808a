"""The time loop: one compiled function that runs a packed layer over all steps without leaving machine code.

:func:`run` is the checked entry for numpy arrays. :func:`entry` is the compiled function itself, for callers that have addresses
at hand and call once per time step.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from jali.errors import DataError
from jali.inference.cells import gru_cell, lstm_cell, relu_cell, tanh_cell
from jali.inference.layer import CELLS, LAYER_FIELDS, WORK_FIELDS, Layer, Workspace
from jali.inference.packing import Floats
from jali.inference.products import product
from jali.inference.vector import Width, add, copy_bytes, load, load_int, store, store_int, width_of, width_type

_LSTM, _GRU, _TANH, _RELU = range(len(CELLS))
_CELL, _HIDDEN, _PADDED, _GATES, _INPUTS, _COPY, _MATRIX, _RECURRENT, _BIAS, _RECURRENT_BIAS = (
    8 * k for k in range(len(LAYER_FIELDS))
)
_H, _C, _Z, _U, _COPIES, _SOURCES, _STATES, _LENGTHS, _BLOCK = (8 * k for k in range(len(WORK_FIELDS)))


@njit(nogil=True)
def _exchange_state(work: int, layer: int, h: int, c: int, batch: int, inward: bool) -> None:
    """Copies states between the caller's rows of H and the workspace's padded rows."""
    row, padded = 4 * load_int(layer + _HIDDEN), 4 * load_int(layer + _PADDED)
    for b in range(batch):
        for inside, outside in ((load_int(work + _H), h), (load_int(work + _C), c)):
            if outside != 0 and inward:
                copy_bytes(inside + b * padded, outside + b * row, row)
            elif outside != 0:
                copy_bytes(outside + b * row, inside + b * padded, row)


@njit(nogil=True)
def _count_lengths(work: int, offsets: int, time: int, batch: int) -> None:
    """Length of every sequence, from the row offsets of the steps (0: all are ``time`` long)."""
    for b in range(batch):
        length = time
        if offsets != 0:
            while length > 0 and load_int(offsets + 8 * length) - load_int(offsets + 8 * length - 8) <= b:
                length -= 1
        store_int(load_int(work + _LENGTHS) + 8 * b, length)


@njit(nogil=True)
def _active(offsets: int, step: int, batch: int) -> int:
    """Number of sequences that are at least ``step + 1`` long: they come first."""
    if offsets == 0:
        return batch
    return load_int(offsets + 8 * step + 8) - load_int(offsets + 8 * step)


@njit(nogil=True)
def _row(base: int, time_bytes: int, row_bytes: int, offsets: int, step: int, b: int, length: int, reverse: int) -> int:
    """Address of the row of sequence b at its ``step``-th step; a reverse direction starts at the sequence's own end."""
    t = length - 1 - step if reverse != 0 else step
    if offsets != 0:
        return base + (load_int(offsets + 8 * t) + b) * row_bytes
    return base + t * time_bytes + b * row_bytes


@njit(nogil=True)
def _start_sums(width: Any, layer: int, z: int, x: int) -> None:
    """Gate sums of one row: the bias, plus the row x itself where the caller gives the inputs' part."""
    size = 4 * load_int(layer + _GATES) * load_int(layer + _PADDED)
    bias = load_int(layer + _BIAS)
    if load_int(layer + _MATRIX) != 0:
        copy_bytes(z, bias, size)
        return
    for k in range(0, size, 4 * width_of(width)):
        store(z + k, add(load(width, bias + k), load(width, x + k)))


@njit(nogil=True)
def _input_part(
    width: Any, layer: int, work: int, x: int, time_bytes: int, row_bytes: int, offsets: int, begin: int, end: int,
    batch: int, reverse: int,
) -> None:  # fmt: skip
    """Gate sums' input part for steps begin … end - 1, all rows at once, one after the other in the workspace."""
    size = 4 * load_int(layer + _GATES) * load_int(layer + _PADDED)
    sources, z, lengths = load_int(work + _SOURCES), load_int(work + _Z), load_int(work + _LENGTHS)
    copied, copies = 4 * load_int(layer + _COPY), load_int(work + _COPIES)
    rows = 0
    for step in range(begin, end):
        for b in range(_active(offsets, step, batch)):
            source = _row(x, time_bytes, row_bytes, offsets, step, b, load_int(lengths + 8 * b), reverse)
            _start_sums(width, layer, z + rows * size, source)
            if copied != 0:
                copy_bytes(copies + rows * copied, source, 4 * load_int(layer + _INPUTS))
                source = copies + rows * copied
            store_int(sources + 8 * rows, source)
            rows += 1
    if load_int(layer + _MATRIX) != 0:
        product(width, load_int(layer + _MATRIX), rows, sources, z, size)


@njit(nogil=True)
def _recurrent_part(width: Any, layer: int, work: int, z: int, rows: int) -> None:
    """One step of ``rows`` sequences: adds the recurrent product to the gate sums at z, then updates the states."""
    cell, padded = load_int(layer + _CELL), load_int(layer + _PADDED)
    size = 4 * load_int(layer + _GATES) * padded
    h, c, u = load_int(work + _H), load_int(work + _C), load_int(work + _U)
    if cell == _GRU:
        for b in range(rows):
            copy_bytes(u + b * size, load_int(layer + _RECURRENT_BIAS), size)
    target = u if cell == _GRU else z
    product(width, load_int(layer + _RECURRENT), rows, load_int(work + _STATES), target, size)
    for b in range(rows):
        state = b * 4 * padded
        if cell == _LSTM:
            lstm_cell(width, z + b * size, h + state, c + state, padded)
        elif cell == _GRU:
            gru_cell(width, z + b * size, u + b * size, h + state, padded)
        elif cell == _TANH:
            tanh_cell(width, z + b * size, h + state, padded)
        else:
            relu_cell(width, z + b * size, h + state, padded)


@njit(cache=True, nogil=True)
def _run(
    width: Any, layer: int, work: int, x: int, x_time: int, x_row: int, out: int, out_time: int, out_row: int,
    h: int, c: int, time: int, batch: int, offsets: int, reverse: int,
) -> None:  # fmt: skip
    hidden, padded = 4 * load_int(layer + _HIDDEN), 4 * load_int(layer + _PADDED)
    states, lengths = load_int(work + _H), load_int(work + _LENGTHS)
    block = load_int(work + _BLOCK)
    _exchange_state(work, layer, h, c, batch, True)
    _count_lengths(work, offsets, time, batch)
    for begin in range(0, time, block):
        end = min(begin + block, time)
        _input_part(width, layer, work, x, x_time, x_row, offsets, begin, end, batch, reverse)
        z = load_int(work + _Z)
        for step in range(begin, end):
            rows = _active(offsets, step, batch)
            _recurrent_part(width, layer, work, z, rows)
            z += rows * load_int(layer + _GATES) * padded
            for b in range(rows):
                target = _row(out, out_time, out_row, offsets, step, b, load_int(lengths + 8 * b), reverse)
                copy_bytes(target, states + b * padded, hidden)
    _exchange_state(work, layer, h, c, batch, False)


@functools.cache
def entry(lanes: int) -> Any:
    """The compiled time loop for vectors of ``lanes``; from numba's cache on disk where that has it.

    ``f(width, layer, work, x, x_time, x_row, out, out_time, out_row, h, c, time, batch, offsets, reverse)`` takes
    ``Width(lanes)`` and integers: the addresses of a :class:`Layer` and a :class:`Workspace`; the address of x and the bytes from one
    step and one sequence to the next; the same of the outputs; the addresses of h and c (0 where the cell has none), dense
    (batch, H), updated in place; the number of steps and sequences; the address of the steps' row offsets or 0; 1 for the reverse
    direction. It checks nothing, allocates nothing and releases the GIL.
    """
    signature = types.void(width_type(lanes), *[types.int64] * 14)
    _run.compile(signature.args)
    return _run.overloads[signature.args].entry_point


def run(
    layer: Layer,
    x: Floats,
    h: Floats,
    c: Floats | None = None,
    *,
    sizes: NDArray[np.int64] | None = None,
    reverse: bool = False,
    out: Floats | None = None,
) -> Floats:
    """Runs a layer; returns the outputs and updates the states ``h``, ``c`` (batch, H) in place.

    ``x`` is (T, batch, I), or (rows, I) with ``sizes`` (T,), the number of sequences at each step, not increasing, as in a
    ``PackedSequence``; (T, batch, G · padded) or (rows, G · padded) for a layer without input weights. ``reverse`` runs each
    sequence from its own end. ``out`` has x's shape but for H floats in the last place; rows may lie apart (a part of a wider
    array). All arrays are float32. :class:`DataError` for shapes, types or layouts that do not fit.
    """
    batch = h.shape[0] if h.ndim == 2 else -1
    _check_rows("h", h, (batch, layer.hidden), contiguous=True)
    if (c is not None) != (layer.cell == "lstm"):
        raise DataError(
            f"c {'is missing' if c is None else 'given'}; a {layer.cell} layer takes {'it' if c is None else 'none'}"
        )
    if c is not None:
        _check_rows("c", c, (batch, layer.hidden), contiguous=True)
    offsets = None if sizes is None else _row_offsets(sizes, batch)
    leading = (x.shape[0], batch) if offsets is None else (int(offsets[-1]),)
    _check_rows("x", x, (*leading, layer.features))
    out = np.empty((*leading, layer.hidden), np.float32) if out is None else out
    _check_rows("out", out, (*leading, layer.hidden))
    time = x.shape[0] if offsets is None else len(offsets) - 1
    work = Workspace(layer, batch)
    entry(layer.width)(
        Width(layer.width), layer.address, work.address,
        x.ctypes.data, x.strides[0], x.strides[-2], out.ctypes.data, out.strides[0], out.strides[-2],
        h.ctypes.data, 0 if c is None else c.ctypes.data, time, batch,
        0 if offsets is None else offsets.ctypes.data, int(reverse),
    )  # fmt: skip
    return out


def _row_offsets(sizes: NDArray[np.int64], batch: int) -> NDArray[np.int64]:
    if sizes.ndim != 1 or (np.diff(sizes) > 0).any() or (sizes < 0).any() or (sizes > batch).any():
        raise DataError(f"sizes {sizes!r} must not increase and lie between 0 and the {batch} sequences of h")
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def _check_rows(name: str, array: Floats, shape: tuple[int, ...], contiguous: bool = False) -> None:
    if array.shape != shape or array.dtype != np.float32:
        raise DataError(f"{name} is {array.dtype} {array.shape}; expected float32 {shape}")
    rows_dense = array.shape[-1] <= 1 or array.strides[-1] == 4
    if not rows_dense or (contiguous and not array.flags.c_contiguous):
        raise DataError(f"{name} has strides {array.strides}; make it contiguous first")
