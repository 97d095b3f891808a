"""The time loops: one call runs a packed layer over all steps without leaving machine code.

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
from jali.inference.by_sequence import run_by_sequence
from jali.inference.by_unit import run_by_unit
from jali.inference.layer import Layer, Workspace
from jali.inference.packing import Floats
from jali.inference.vector import Width, width_type
from jali.jit import with_cache
from jali.plain import an


@functools.cache
def entry(lanes: int, by_sequence: bool) -> Any:
    """The compiled time loop for vectors of ``lanes`` over units or over sequences; from numba's cache on disk where that has it.

    ``f(width, layer, work, x, x_time, x_row, out, out_time, out_row, h, c, time, batch, offsets, way)`` takes
    ``Width(lanes)`` and integers: the addresses of a :class:`Layer` and a :class:`Workspace` for at least ``batch`` sequences;
    the address of x and the bytes from one step and from one sequence to the next; the same of the outputs; the addresses of h
    and c (0 where the cell has none), dense (batch, H), updated in place; the number of steps and sequences; the address of the
    steps' row offsets (T + 1) or 0; and ``way``, 1 for the reverse direction plus 2 where the states begin at zero, whatever is
    at h and c. It checks nothing, allocates nothing and releases the GIL.
    """
    signature = types.void(width_type(lanes), *[types.int64] * 14)

    def compiled(cache: bool) -> Any:
        loop: Any = njit(cache=cache, nogil=True)(run_by_sequence if by_sequence else run_by_unit)
        loop.compile(signature.args)
        return loop.overloads[signature.args].entry_point

    return with_cache(compiled)


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
    ``PackedSequence``. ``reverse`` runs each sequence from its own end. ``out`` has x's shape but for H floats in the last
    place; rows may lie apart (a part of a wider array). All arrays are float32. :class:`DataError` for shapes, types or
    layouts that do not fit.
    """
    batch = h.shape[0] if h.ndim == 2 else -1
    _check_rows("h", h, (batch, layer.hidden), contiguous=True)
    if (c is not None) != (layer.cell == "lstm"):
        raise DataError(
            f"c {'is missing' if c is None else 'given'}; {an(layer.cell)} layer takes {'it' if c is None else 'none'}"
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
    entry(layer.width, layer.by_sequence)(
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
    rows_dense = array.size == 0 or array.shape[-1] == 1 or array.strides[-1] == 4
    if not rows_dense or (contiguous and not array.flags.c_contiguous):
        raise DataError(f"{name} has strides {array.strides}; make it contiguous first")
