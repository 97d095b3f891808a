"""Products ``z ← z + W x`` of a packed matrix with several input rows at once; see :mod:`jali.inference.packing`.

The plain functions here are compiled by :mod:`jali.inference.compiled`, one by one and only when a layer needs them. A matrix is
passed as the address of a table of int64 (:data:`MATRIX_FIELDS`), input rows as the address of a list of their addresses, gate
sums as the address of the first row and the bytes between rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numpy.typing import NDArray

from jali.inference.emit import F32, I32, I64, at, load_vector, multiply_add, select_from_two, splat_value, vector
from jali.inference.packing import ROWS_AT_ONCE, Packed
from jali.inference.vector import load_int, operation

MATRIX_FIELDS = ("groups", "gate_bytes", "starts", "targets", "index", "select", "values")
_GROUPS, _GATE_BYTES, _STARTS, _TARGETS, _INDEX, _SELECT, _VALUES = (8 * k for k in range(len(MATRIX_FIELDS)))


def matrix_table(packed: Packed) -> NDArray[np.int64]:
    """The table of one matrix; it holds addresses, so ``packed`` must outlive it."""
    arrays = (packed.starts, packed.targets, packed.index, packed.select, packed.values)
    numbers = (len(packed.starts) - 1, 4 * packed.padded)
    return np.array([*numbers, *(a.ctypes.data for a in arrays)], np.int64)


def product_name(packed: Packed) -> str:
    """Name of the kernel that multiplies with this matrix; for one gate, ``aligned`` is ``lanes``."""
    gates = packed.values.shape[1]
    if packed.format != "aligned":
        return packed.format
    return "lanes" if gates == 1 else f"aligned_{gates}"


def _unroll(lanes: int, sums: int) -> int:
    """Copies of the loop's body, so that enough independent sums hide the latency of multiply-adds and fit the registers."""
    wanted = 16 if lanes == 16 else 8
    return max(u for u in (1, 2, 4, 8) if u == 1 or u * sums <= wanted)


def _const(value: int) -> ir.Constant:
    return ir.Constant(I64, value)


def _offset(builder: Any, base: Any, index: Any, scale: int) -> Any:
    return builder.add(base, builder.mul(index, _const(scale)))


def _accumulate(builder: Any, slots: list[Any], position: int, a: Any, b: Any) -> None:
    slot = slots[position]
    builder.store(multiply_add(builder, a, b, builder.load(slot)), slot)


def _steps(builder: Any, begin: Any, end: Any, unroll: int, body: Any) -> None:
    """``body(k, copy)`` for k from begin to end, ``unroll`` copies at a time, the rest one by one."""
    middle = begin
    if unroll > 1:
        whole = builder.and_(builder.sub(end, begin), _const(-unroll))
        middle = builder.add(begin, whole)
        with cgutils.for_range_slice(builder, begin, middle, _const(unroll), I64, inc=True) as (k, _):
            for copy in range(unroll):
                body(builder.add(k, _const(copy)), copy)
    with cgutils.for_range_slice(builder, middle, end, _const(1), I64, inc=True) as (k, _):
        body(k, 0)


def _open_sums(builder: Any, targets: list[Any], lanes: int, copies: int) -> list[Any]:
    """Variables for ``copies`` partial sums of each target; the first copy starts with what the target holds."""
    slots = [cgutils.alloca_once(builder, vector(lanes)) for _ in range(copies * len(targets))]
    for slot, target in zip(slots, targets, strict=False):
        builder.store(load_vector(builder, target, lanes), slot)
    for slot in slots[len(targets) :]:
        builder.store(ir.Constant(vector(lanes), [0.0] * lanes), slot)
    return slots


def _close_sums(builder: Any, targets: list[Any], lanes: int, slots: list[Any]) -> None:
    """Adds up the partial sums and writes the targets."""
    for t, target in enumerate(targets):
        parts = [builder.load(slot) for slot in slots[t :: len(targets)]]
        while len(parts) > 1:
            parts = [builder.fadd(a, b) for a, b in zip(parts[::2], parts[1::2], strict=True)]
        builder.store(parts[0], at(builder, target, vector(lanes)), align=1)


def _group_codegen(lanes: int, rows: int, gates: int, step: Any) -> Any:
    """Code for one group: loads ``rows × gates`` sums, adds all steps, writes them back."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        begin, end, index, select, values, sources, z, row_bytes, gate_bytes = args[-9:]
        unroll = _unroll(lanes, rows * gates)
        bases = [builder.load(at(builder, builder.add(sources, _const(8 * r)), I64)) for r in range(rows)]
        targets = [
            builder.add(builder.add(z, builder.mul(row_bytes, _const(r))), builder.mul(gate_bytes, _const(g)))
            for r in range(rows)
            for g in range(gates)
        ]
        slots = _open_sums(builder, targets, lanes, unroll)
        _steps(builder, begin, end, unroll, lambda k, copy: step(builder, k, copy, slots, bases, index, select, values))
        _close_sums(builder, targets, lanes, slots)
        return context.get_dummy_value()

    return codegen


@operation
def _tile_group(
    typingctx: Any, width: Any, rows: Any, begin: Any, end: Any, index: Any, select: Any, values: Any,
    sources: Any, z: Any, row_bytes: Any, gate_bytes: Any,
) -> Any:  # fmt: skip
    """One group of ``tiles``: per step a column's weights times that column's input, for ``rows`` (a literal) input rows."""
    if not isinstance(rows, types.IntegerLiteral):
        return None
    lanes, count = width.lanes, rows.literal_value

    def step(builder: Any, k: Any, copy: int, slots: Any, bases: Any, index: Any, select: Any, values: Any) -> None:
        column = builder.sext(builder.load(at(builder, _offset(builder, index, k, 4), I32)), I64)
        weights = load_vector(builder, _offset(builder, values, k, 4 * lanes), lanes)
        for r, base in enumerate(bases):
            value = builder.load(at(builder, builder.add(base, column), F32))
            _accumulate(builder, slots, copy * len(bases) + r, weights, splat_value(builder, value, lanes))

    return types.void(width, rows, *[types.int64] * 9), _group_codegen(lanes, count, 1, step)


@operation
def _lane_group(
    typingctx: Any, width: Any, rows: Any, gates: Any, begin: Any, end: Any, index: Any, select: Any, values: Any,
    sources: Any, z: Any, row_bytes: Any, gate_bytes: Any,
) -> Any:  # fmt: skip
    """One group of ``lanes`` or ``aligned``: per step each lane's own input, times one weight per gate."""
    if not (isinstance(rows, types.IntegerLiteral) and isinstance(gates, types.IntegerLiteral)):
        return None
    lanes, count, per_step = width.lanes, rows.literal_value, gates.literal_value

    def step(builder: Any, k: Any, copy: int, slots: Any, bases: Any, index: Any, select: Any, values: Any) -> None:
        pair = _offset(builder, index, k, 8)
        first, second = (
            builder.sext(builder.load(at(builder, builder.add(pair, _const(4 * j)), I32)), I64) for j in range(2)
        )
        choice = load_vector(builder, _offset(builder, select, k, lanes), lanes, ir.IntType(8))
        where = _offset(builder, values, k, 4 * lanes * per_step)
        weights = [load_vector(builder, builder.add(where, _const(4 * lanes * g)), lanes) for g in range(per_step)]
        for r, base in enumerate(bases):
            inputs = select_from_two(builder, builder.add(base, first), builder.add(base, second), choice, lanes)
            for g in range(per_step):
                _accumulate(builder, slots, (copy * len(bases) + r) * per_step + g, weights[g], inputs)

    return types.void(width, rows, gates, *[types.int64] * 9), _group_codegen(lanes, count, per_step, step)


@operation
def _row_group(
    typingctx: Any, width: Any, begin: Any, end: Any, index: Any, values: Any, source: Any, z: Any, targets: Any
) -> Any:
    """One group of ``rows``: per step and row, one weight times the inputs of W sequences."""
    lanes = width.lanes

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        _, begin, end, index, values, source, z, targets = args
        unroll = _unroll(lanes, ROWS_AT_ONCE)
        sums = [
            builder.add(z, builder.load(at(builder, builder.add(targets, _const(8 * r)), I64)))
            for r in range(ROWS_AT_ONCE)
        ]

        def step(k: Any, copy: int) -> None:
            place = _offset(builder, _const(0), k, 4 * ROWS_AT_ONCE)
            for r in range(ROWS_AT_ONCE):
                here = builder.add(place, _const(4 * r))
                column = builder.sext(builder.load(at(builder, builder.add(index, here), I32)), I64)
                weight = builder.load(at(builder, builder.add(values, here), F32))
                inputs = load_vector(builder, builder.add(source, column), lanes)
                _accumulate(builder, slots, copy * ROWS_AT_ONCE + r, splat_value(builder, weight, lanes), inputs)

        slots = _open_sums(builder, sums, lanes, unroll)
        _steps(builder, begin, end, unroll, step)
        _close_sums(builder, sums, lanes, slots)
        return context.get_dummy_value()

    return types.void(width, *[types.int64] * 7), codegen


def rows(width: Any, m: int, count: int, source: int, z: int, row_bytes: int) -> None:
    """``rows``: inputs (C, W) at ``source``, sums (G · padded, W) at z; ``count`` and ``row_bytes`` play no part."""
    starts, index, values = load_int(m + _STARTS), load_int(m + _INDEX), load_int(m + _VALUES)
    targets = load_int(m + _TARGETS)
    for g in range(load_int(m + _GROUPS)):
        begin, end = load_int(starts + 8 * g), load_int(starts + 8 * g + 8)
        _row_group(width, begin, end, index, values, source, z, targets + 8 * ROWS_AT_ONCE * g)


def tiles(width: Any, m: int, count: int, sources: int, z: int, row_bytes: int) -> None:
    """``tiles``, for up to 8 input rows at a time."""
    starts, index, values = load_int(m + _STARTS), load_int(m + _INDEX), load_int(m + _VALUES)
    targets = load_int(m + _TARGETS)
    done = 0
    while done < count:
        take = 8 if count - done >= 8 else 4 if count - done >= 4 else 2 if count - done >= 2 else 1
        source, sums = sources + 8 * done, z + row_bytes * done
        for g in range(load_int(m + _GROUPS)):
            begin, end = load_int(starts + 8 * g), load_int(starts + 8 * g + 8)
            target = sums + load_int(targets + 8 * g)
            if take == 8:
                _tile_group(width, 8, begin, end, index, 0, values, source, target, row_bytes, 0)
            elif take == 4:
                _tile_group(width, 4, begin, end, index, 0, values, source, target, row_bytes, 0)
            elif take == 2:
                _tile_group(width, 2, begin, end, index, 0, values, source, target, row_bytes, 0)
            else:
                _tile_group(width, 1, begin, end, index, 0, values, source, target, row_bytes, 0)
        done += take


def lanes(width: Any, m: int, count: int, sources: int, z: int, row_bytes: int) -> None:
    """``lanes``, for up to 8 input rows at a time."""
    starts, index = load_int(m + _STARTS), load_int(m + _INDEX)
    select, values, targets = load_int(m + _SELECT), load_int(m + _VALUES), load_int(m + _TARGETS)
    done = 0
    while done < count:
        take = 8 if count - done >= 8 else 4 if count - done >= 4 else 2 if count - done >= 2 else 1
        source, sums = sources + 8 * done, z + row_bytes * done
        for g in range(load_int(m + _GROUPS)):
            begin, end = load_int(starts + 8 * g), load_int(starts + 8 * g + 8)
            target = sums + load_int(targets + 8 * g)
            if take == 8:
                _lane_group(width, 8, 1, begin, end, index, select, values, source, target, row_bytes, 0)
            elif take == 4:
                _lane_group(width, 4, 1, begin, end, index, select, values, source, target, row_bytes, 0)
            elif take == 2:
                _lane_group(width, 2, 1, begin, end, index, select, values, source, target, row_bytes, 0)
            else:
                _lane_group(width, 1, 1, begin, end, index, select, values, source, target, row_bytes, 0)
        done += take


def aligned_3(width: Any, m: int, count: int, sources: int, z: int, row_bytes: int) -> None:
    """``aligned`` with three gates, for up to 4 input rows at a time."""
    starts, index = load_int(m + _STARTS), load_int(m + _INDEX)
    select, values, targets = load_int(m + _SELECT), load_int(m + _VALUES), load_int(m + _TARGETS)
    gate = load_int(m + _GATE_BYTES)
    done = 0
    while done < count:
        take = 4 if count - done >= 4 else 1
        source, sums = sources + 8 * done, z + row_bytes * done
        for g in range(load_int(m + _GROUPS)):
            begin, end = load_int(starts + 8 * g), load_int(starts + 8 * g + 8)
            target = sums + load_int(targets + 8 * g)
            if take == 4:
                _lane_group(width, 4, 3, begin, end, index, select, values, source, target, row_bytes, gate)
            else:
                _lane_group(width, 1, 3, begin, end, index, select, values, source, target, row_bytes, gate)
        done += take


def aligned_4(width: Any, m: int, count: int, sources: int, z: int, row_bytes: int) -> None:
    """``aligned`` with four gates, for up to 4 input rows at a time."""
    starts, index = load_int(m + _STARTS), load_int(m + _INDEX)
    select, values, targets = load_int(m + _SELECT), load_int(m + _VALUES), load_int(m + _TARGETS)
    gate = load_int(m + _GATE_BYTES)
    done = 0
    while done < count:
        take = 4 if count - done >= 4 else 1
        source, sums = sources + 8 * done, z + row_bytes * done
        for g in range(load_int(m + _GROUPS)):
            begin, end = load_int(starts + 8 * g), load_int(starts + 8 * g + 8)
            target = sums + load_int(targets + 8 * g)
            if take == 4:
                _lane_group(width, 4, 4, begin, end, index, select, values, source, target, row_bytes, gate)
            else:
                _lane_group(width, 1, 4, begin, end, index, select, values, source, target, row_bytes, gate)
        done += take
