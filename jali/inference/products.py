"""Products ``z ← z + W x`` of a packed matrix with several input rows at once; see :mod:`jali.inference.packing`.

The plain functions here are compiled by :mod:`jali.inference.compiled`, one by one and only when a layer needs them. A matrix is
passed as the address of a table of int64 (:data:`jali.inference.fields.MATRIX_FIELDS`), input rows as the address of a list of
their addresses, gate sums as the address of the first row and the bytes between rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numpy.typing import NDArray

from jali.inference.emit import F32, I32, I64, at, load_vector, splat_value, vector
from jali.inference.fields import (
    MATRIX_BEGINS,
    MATRIX_ENDS,
    MATRIX_FIELDS,
    MATRIX_GATE_BYTES,
    MATRIX_GATES,
    MATRIX_GROUPS,
    MATRIX_INDEX,
    MATRIX_PLACES,
    MATRIX_SELECT,
    MATRIX_TARGETS,
    MATRIX_UNITS,
    MATRIX_VALUES,
)
from jali.inference.packing import ROWS_AT_ONCE, Packed
from jali.inference.sums import Sums, add_vector, at_index, const, each_step, lane_step, load_index, tile_step
from jali.inference.vector import VecType, add, load, load_int, operation, store, width_of

_ROWS = (8, 4, 2, 1)  # input rows that one pass over a group's weights serves, if there are registers for them


def matrix_tables(packed: Packed) -> tuple[NDArray[np.int64], ...]:
    """The table of one matrix, that of the same one with its groups in reverse order, and what they point to.

    They hold addresses, so ``packed`` and all of these must outlive them.
    """
    begins, ends, targets = packed.starts[:-1], packed.starts[1:], packed.targets
    back = [np.ascontiguousarray(array[::-1]) for array in (begins, ends, targets)]
    return _table(packed, begins, ends, targets), _table(packed, *back), *back


def _table(packed: Packed, begins: NDArray[Any], ends: NDArray[Any], targets: NDArray[Any]) -> NDArray[np.int64]:
    fields = {
        "groups": len(packed.starts) - 1,
        "gates": packed.gates,
        "gate_bytes": 4 * packed.padded,
        "places": packed.places.ctypes.data if packed.scattered else 0,
        "units": len(packed.places),
        **{name: getattr(packed, name).ctypes.data for name in ("index", "select", "values")},
        "begins": begins.ctypes.data,
        "ends": ends.ctypes.data,
        "targets": targets.ctypes.data,
    }
    return np.array([int(fields[name]) for name in MATRIX_FIELDS], np.int64)


def _group_codegen(width: Any, single: bool, step: Any) -> Any:
    """Code for one group: the sums of all steps, for each of ``count`` rows or a ``single`` one, put to the rows' gate sums.

    The group's weights are read from memory for the first rows and are in the cache for the others.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        begin, end, index, select, values, count, sources, z, row_bytes, targets, apart, gate_bytes = args[2:]

        def some_rows(first: Any, rows: int) -> None:
            of_row = [builder.add(first, const(r)) for r in range(rows)]
            bases = [builder.load(at(builder, at_index(builder, sources, r, 8), I64)) for r in of_row]
            sums = Sums(builder, width, rows)
            each_step(
                builder,
                begin,
                end,
                sums.unroll,
                lambda k, copy: step(builder, k, copy, sums, bases, index, select, values),
            )
            starts = [
                builder.add(builder.add(z, builder.mul(row_bytes, r)), builder.mul(gate_bytes, const(g)))
                for r in of_row
                for g in range(width.gates)
            ]
            _put_totals(builder, sums.totals(), starts, targets, apart)

        if single:
            some_rows(const(0), 1)
        else:
            _by_rows(builder, count, [rows for rows in _ROWS if rows * width.gates <= 16], some_rows)
        return context.get_dummy_value()

    return codegen


def _by_rows(builder: Any, count: Any, sizes: list[int], body: Any) -> None:
    """``body(first, size)`` for ``count`` rows in parts of one of the ``sizes``, the largest first."""
    done = cgutils.alloca_once_value(builder, const(0))
    for size in sizes:
        parts = builder.udiv(builder.sub(count, builder.load(done)), const(size))
        with cgutils.for_range(builder, parts):
            first = builder.load(done)
            body(first, size)
            builder.store(builder.add(first, const(size)), done)


def _put_totals(builder: Any, totals: list[Any], starts: list[Any], targets: Any, apart: Any) -> None:
    """Adds each total at its start plus the group's offset, or only stores it there if sums are put in order later."""
    target = builder.load(at(builder, targets, I64))
    places = [builder.add(start, target) for start in starts]
    with builder.if_else(builder.icmp_unsigned("!=", apart, const(0))) as (later, now):
        with later:
            for place, total in zip(places, totals, strict=True):
                builder.store(total, at(builder, place, total.type), align=1)
        with now:
            for place, total in zip(places, totals, strict=True):
                add_vector(builder, place, total)


@operation
def _tile_group(
    typingctx: Any, width: Any, single: Any, begin: Any, end: Any, index: Any, select: Any, values: Any, count: Any,
    sources: Any, z: Any, row_bytes: Any, targets: Any, apart: Any, gate_bytes: Any,
) -> Any:  # fmt: skip
    """One group of ``tiles``: per step a column's input, times W weights for each gate."""
    if not isinstance(single, types.BooleanLiteral):
        return None
    return types.void(width, single, *[types.int64] * 12), _group_codegen(width, single.literal_value, tile_step(width))


@operation
def _lane_group(
    typingctx: Any, width: Any, single: Any, begin: Any, end: Any, index: Any, select: Any, values: Any, count: Any,
    sources: Any, z: Any, row_bytes: Any, targets: Any, apart: Any, gate_bytes: Any,
) -> Any:  # fmt: skip
    """One group of ``lanes`` or ``aligned``: per step and turn each lane's own input, times a weight for each gate."""
    if not isinstance(single, types.BooleanLiteral):
        return None
    return types.void(width, single, *[types.int64] * 12), _group_codegen(width, single.literal_value, lane_step(width))


@operation
def _row_group(
    typingctx: Any, width: Any, begin: Any, end: Any, index: Any, values: Any, source: Any, z: Any, targets: Any
) -> Any:
    """One group of ``rows``: per step and row, one weight times the inputs of W sequences."""
    lanes = width.lanes

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        _, begin, end, index, values, source, z, targets = args
        sums = Sums(builder, width, ROWS_AT_ONCE)

        def step(k: Any, copy: int) -> None:
            columns, weights = (
                at_index(builder, base, k, size * ROWS_AT_ONCE) for base, size in ((index, 2), (values, 4))
            )
            for r in range(ROWS_AT_ONCE):
                column = load_index(builder, builder.add(columns, const(2 * r)), 4 * lanes)
                weight = builder.load(at(builder, builder.add(weights, const(4 * r)), F32))
                inputs = load_vector(builder, builder.add(source, column), lanes)
                sums.add(copy, 0, r, 0, splat_value(builder, weight, lanes), inputs)

        each_step(builder, begin, end, sums.unroll, step)
        for r, total in enumerate(sums.totals()):
            target = builder.load(at(builder, builder.add(targets, const(8 * r)), I64))
            add_vector(builder, builder.add(z, target), total)
        return context.get_dummy_value()

    return types.void(width, *[types.int64] * 7), codegen


@operation
def _load_placed(typingctx: Any, width: Any, sums: Any, places: Any) -> Any:
    """The floats at ``sums`` that the W int32 at ``places`` name.

    Lane by lane from scalar loads: an instruction that gathers takes longer.
    """
    lanes = width.lanes

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        _, sums, places = args
        out = ir.Constant(vector(lanes), ir.Undefined)
        for k in range(lanes):
            place = builder.zext(builder.load(at(builder, builder.add(places, const(4 * k)), I32)), I64)
            lane = builder.load(at(builder, at_index(builder, sums, place, 4), F32))
            out = builder.insert_element(out, lane, ir.Constant(I32, k))
        return out

    return VecType(lanes)(width, types.int64, types.int64), codegen


def rows(width: Any, m: int, count: int, source: int, z: int, row_bytes: int) -> None:
    """``rows``: inputs (C, W) at ``source``, sums (G · padded, W) at z; ``count`` and ``row_bytes`` play no part."""
    begins, ends, targets = load_int(m + MATRIX_BEGINS), load_int(m + MATRIX_ENDS), load_int(m + MATRIX_TARGETS)
    index, values = load_int(m + MATRIX_INDEX), load_int(m + MATRIX_VALUES)
    for g in range(load_int(m + MATRIX_GROUPS)):
        begin, end = load_int(begins + 8 * g), load_int(ends + 8 * g)
        _row_group(width, begin, end, index, values, source, z, targets + 8 * ROWS_AT_ONCE * g)


def tiles(width: Any, m: int, count: int, sources: int, z: int, row_bytes: int) -> None:
    """``tiles``, for ``count`` input rows."""
    begins, ends, targets = load_int(m + MATRIX_BEGINS), load_int(m + MATRIX_ENDS), load_int(m + MATRIX_TARGETS)
    index, values, gate = load_int(m + MATRIX_INDEX), load_int(m + MATRIX_VALUES), load_int(m + MATRIX_GATE_BYTES)
    for g in range(load_int(m + MATRIX_GROUPS)):
        begin, end, target = load_int(begins + 8 * g), load_int(ends + 8 * g), targets + 8 * g
        if count == 1:
            _tile_group(width, True, begin, end, index, 0, values, 1, sources, z, row_bytes, target, 0, gate)
        else:
            _tile_group(width, False, begin, end, index, 0, values, count, sources, z, row_bytes, target, 0, gate)


def lanes(width: Any, m: int, count: int, sources: int, z: int, row_bytes: int) -> None:
    """``lanes`` and ``aligned``, for ``count`` input rows; sums in the order of the packing overwrite z: see :func:`in_order`."""
    begins, ends, targets = load_int(m + MATRIX_BEGINS), load_int(m + MATRIX_ENDS), load_int(m + MATRIX_TARGETS)
    index, select, values = load_int(m + MATRIX_INDEX), load_int(m + MATRIX_SELECT), load_int(m + MATRIX_VALUES)
    apart, gate = load_int(m + MATRIX_PLACES), load_int(m + MATRIX_GATE_BYTES)
    for g in range(load_int(m + MATRIX_GROUPS)):
        begin, end, target = load_int(begins + 8 * g), load_int(ends + 8 * g), targets + 8 * g
        if count == 1:
            _lane_group(width, True, begin, end, index, select, values, 1, sources, z, row_bytes, target, apart, gate)
        else:
            _lane_group(
                width, False, begin, end, index, select, values, count, sources, z, row_bytes, target, apart, gate
            )


def in_order(width: Any, m: int, count: int, sums: int, z: int, row_bytes: int) -> None:
    """Adds ``count`` rows of sums in the order of the packing to rows of gate sums at z."""
    places, gate = load_int(m + MATRIX_PLACES), load_int(m + MATRIX_GATE_BYTES)
    units, gates = load_int(m + MATRIX_UNITS), load_int(m + MATRIX_GATES)
    for row in range(0, count * row_bytes, row_bytes):
        for g in range(row, row + gates * gate, gate):
            for u in range(0, 4 * units, 4 * width_of(width)):
                place = z + g + u
                store(place, add(load(width, place), _load_placed(width, sums + g, places + u)))
