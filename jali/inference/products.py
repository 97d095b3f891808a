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
from jali.inference.vector import load_int, operation, width_of

MATRIX_FIELDS = ("groups", "gate_bytes", "starts", "targets", "scattered", "index", "select", "values")
_GROUPS, _GATE_BYTES, _STARTS, _TARGETS, _SCATTERED, _INDEX, _SELECT, _VALUES = (
    8 * k for k in range(len(MATRIX_FIELDS))
)
_ROWS = (8, 4, 2, 1)  # input rows that one pass over a group's weights serves, if there are registers for them


def matrix_table(packed: Packed) -> NDArray[np.int64]:
    """The table of one matrix; it holds addresses, so ``packed`` must outlive it."""
    fields = {
        "groups": len(packed.starts) - 1,
        "gate_bytes": 4 * packed.padded,
        "scattered": packed.scattered,
        **{name: getattr(packed, name).ctypes.data for name in ("starts", "targets", "index", "select", "values")},
    }
    return np.array([int(fields[name]) for name in MATRIX_FIELDS], np.int64)


def _const(value: int) -> ir.Constant:
    return ir.Constant(I64, value)


def _offset(builder: Any, base: Any, index: Any, scale: int) -> Any:
    return builder.add(base, builder.mul(index, _const(scale)))


def _load_index(builder: Any, address: Any, scale: int) -> Any:
    """The byte offset of the column or register that an index names."""
    number = builder.load(at(builder, address, ir.IntType(16)))
    return builder.mul(builder.zext(number, I64), _const(scale))


def _steps(builder: Any, begin: Any, end: Any, unroll: int, body: Any) -> None:
    """``body(k, copy)`` for k from begin to end, ``unroll`` copies at a time, then half as many, and so on.

    One by one, the rest would wait for its own sums: every step for the multiply-add of the step before.
    """
    count = builder.sub(end, begin)
    done = builder.add(begin, builder.and_(count, _const(-unroll)))
    with cgutils.for_range_slice(builder, begin, done, _const(unroll), I64, inc=True) as (k, _):
        for copy in range(unroll):
            body(builder.add(k, _const(copy)), copy)
    part = unroll // 2
    while part:
        some = builder.and_(count, _const(part))
        with builder.if_then(builder.icmp_unsigned("!=", some, _const(0))):
            for copy in range(part):
                body(builder.add(done, _const(copy)), copy)
        done = builder.add(done, some)
        part //= 2


def _open_sums(builder: Any, lanes: int, count: int) -> list[Any]:
    """Variables for ``count`` sums, from zero."""
    slots = [cgutils.alloca_once(builder, vector(lanes)) for _ in range(count)]
    for slot in slots:
        builder.store(ir.Constant(vector(lanes), [0.0] * lanes), slot)
    return slots


def _totals(builder: Any, slots: list[Any], targets: int) -> list[Any]:
    """The sums of each target's partial sums."""
    totals = []
    for t in range(targets):
        parts = [builder.load(slot) for slot in slots[t::targets]]
        while len(parts) > 1:
            some = [builder.fadd(a, b) for a, b in zip(parts[::2], parts[1::2], strict=False)]
            parts = some + parts[2 * len(some) :]
        totals.append(parts[0])
    return totals


def _add_vector(builder: Any, address: Any, total: Any) -> None:
    """Adds ``total`` to the floats at ``address``."""
    lanes = total.type.count
    new = builder.fadd(load_vector(builder, address, lanes), total)
    builder.store(new, at(builder, address, vector(lanes)), align=1)


def _add_lanes(builder: Any, base: Any, offsets: Any, total: Any) -> None:
    """Adds each lane of ``total`` to the float at ``base`` plus the lane's offset, one of the int64 at ``offsets``."""
    for k in range(total.type.count):
        offset = builder.load(at(builder, builder.add(offsets, _const(8 * k)), I64))
        place = at(builder, builder.add(base, offset), F32)
        lane = builder.extract_element(total, ir.Constant(I32, k))
        builder.store(builder.fadd(builder.load(place), lane), place)


def _by_rows(builder: Any, count: Any, sizes: list[int], body: Any) -> None:
    """``body(first, size)`` for ``count`` rows in parts of one of the ``sizes``, the largest first."""
    done = cgutils.alloca_once_value(builder, _const(0))
    for size in sizes:
        parts = builder.udiv(builder.sub(count, builder.load(done)), _const(size))
        with cgutils.for_range(builder, parts):
            first = builder.load(done)
            body(first, size)
            builder.store(builder.add(first, _const(size)), done)


class _Sums:
    """The sums of a group for some input rows: ``rows × gates`` of them, each in as many parts as there are registers for.

    A part is for every so many steps, and for one turn of a step if that can be.
    """

    def __init__(self, builder: Any, width: Any, rows: int) -> None:
        self.builder, self.rows, self.gates = builder, rows, width.gates
        registers, targets = 16 if width.lanes == 16 else 8, rows * width.gates
        self.spread = width.turns if targets * width.turns <= registers else 1
        parts = self.spread * targets
        self.unroll = max(u for u in (1, 2, 4, 8) if u == 1 or u * parts <= registers)
        self._slots = _open_sums(builder, width.lanes, self.unroll * parts)

    def add(self, copy: int, turn: int, row: int, gate: int, a: Any, b: Any) -> None:
        """Adds a · b."""
        part = copy * self.spread + turn % self.spread
        slot = self._slots[(part * self.rows + row) * self.gates + gate]
        self.builder.store(multiply_add(self.builder, a, b, self.builder.load(slot)), slot)

    def totals(self) -> list[Any]:
        """The sums, row by row and gate by gate."""
        return _totals(self.builder, self._slots, self.rows * self.gates)


def _group_codegen(width: Any, single: bool, step: Any) -> Any:
    """Code for one group: the sums of all steps, for each of ``count`` rows or a ``single`` one, added to the rows' gate sums.

    The group's weights are read from memory for the first rows and are in the cache for the others.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        begin, end, index, select, values, count, sources, z, row_bytes, targets, scattered, gate_bytes = args[2:]

        def some_rows(first: Any, rows: int) -> None:
            of_row = [builder.add(first, _const(r)) for r in range(rows)]
            bases = [builder.load(at(builder, _offset(builder, sources, r, 8), I64)) for r in of_row]
            sums = _Sums(builder, width, rows)
            _steps(
                builder,
                begin,
                end,
                sums.unroll,
                lambda k, copy: step(builder, k, copy, sums, bases, index, select, values),
            )
            starts = [
                builder.add(builder.add(z, builder.mul(row_bytes, r)), builder.mul(gate_bytes, _const(g)))
                for r in of_row
                for g in range(width.gates)
            ]
            _add_totals(builder, sums.totals(), starts, targets, scattered)

        if single:
            some_rows(_const(0), 1)
        else:
            _by_rows(builder, count, [rows for rows in _ROWS if rows * width.gates <= 16], some_rows)
        return context.get_dummy_value()

    return codegen


def _add_totals(builder: Any, totals: list[Any], starts: list[Any], targets: Any, scattered: Any) -> None:
    """Adds each total at its start plus the group's offset, or plus the lanes' offsets if they are ``scattered``."""
    with builder.if_else(builder.icmp_unsigned("!=", scattered, _const(0))) as (apart, together):
        with apart:
            for start, total in zip(starts, totals, strict=True):
                _add_lanes(builder, start, targets, total)
        with together:
            offset = builder.load(at(builder, targets, I64))
            for start, total in zip(starts, totals, strict=True):
                _add_vector(builder, builder.add(start, offset), total)


@operation
def _tile_group(
    typingctx: Any, width: Any, single: Any, begin: Any, end: Any, index: Any, select: Any, values: Any, count: Any,
    sources: Any, z: Any, row_bytes: Any, targets: Any, scattered: Any, gate_bytes: Any,
) -> Any:  # fmt: skip
    """One group of ``tiles``: per step a column's input, times W weights for each gate."""
    if not isinstance(single, types.BooleanLiteral):
        return None
    lanes, gates = width.lanes, width.gates

    def step(builder: Any, k: Any, copy: int, sums: _Sums, bases: Any, index: Any, select: Any, values: Any) -> None:
        column = _load_index(builder, _offset(builder, index, k, 2), 4)
        where = _offset(builder, values, k, 4 * lanes * gates)
        weights = [load_vector(builder, builder.add(where, _const(4 * lanes * g)), lanes) for g in range(gates)]
        for r, base in enumerate(bases):
            value = splat_value(builder, builder.load(at(builder, builder.add(base, column), F32)), lanes)
            for g in range(gates):
                sums.add(copy, 0, r, g, weights[g], value)

    return types.void(width, single, *[types.int64] * 12), _group_codegen(width, single.literal_value, step)


@operation
def _lane_group(
    typingctx: Any, width: Any, single: Any, begin: Any, end: Any, index: Any, select: Any, values: Any, count: Any,
    sources: Any, z: Any, row_bytes: Any, targets: Any, scattered: Any, gate_bytes: Any,
) -> Any:  # fmt: skip
    """One group of ``lanes`` or ``aligned``: per step and turn each lane's own input, times a weight for each gate."""
    if not isinstance(single, types.BooleanLiteral):
        return None
    lanes, gates, turns = width.lanes, width.gates, width.turns

    def step(builder: Any, k: Any, copy: int, sums: _Sums, bases: Any, index: Any, select: Any, values: Any) -> None:
        pair = _offset(builder, index, k, 4)
        first, second = (_load_index(builder, builder.add(pair, _const(2 * j)), 4 * lanes) for j in range(2))
        chosen, where = (
            _offset(builder, select, k, lanes * turns),
            _offset(builder, values, k, 4 * lanes * gates * turns),
        )
        pairs = [(builder.add(base, first), builder.add(base, second)) for base in bases]
        for turn in range(turns):
            choice = load_vector(builder, builder.add(chosen, _const(lanes * turn)), lanes, ir.IntType(8))
            here = [builder.add(where, _const(4 * lanes * (turn * gates + g))) for g in range(gates)]
            weights = [load_vector(builder, address, lanes) for address in here]
            for r, (a, b) in enumerate(pairs):
                inputs = select_from_two(builder, a, b, choice, lanes)
                for g in range(gates):
                    sums.add(copy, turn, r, g, weights[g], inputs)

    return types.void(width, single, *[types.int64] * 12), _group_codegen(width, single.literal_value, step)


@operation
def _row_group(
    typingctx: Any, width: Any, begin: Any, end: Any, index: Any, values: Any, source: Any, z: Any, targets: Any
) -> Any:
    """One group of ``rows``: per step and row, one weight times the inputs of W sequences."""
    lanes = width.lanes

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        _, begin, end, index, values, source, z, targets = args
        unroll = 4 if lanes == 16 else 2

        def step(k: Any, copy: int) -> None:
            columns, weights = (
                _offset(builder, base, k, size * ROWS_AT_ONCE) for base, size in ((index, 2), (values, 4))
            )
            for r in range(ROWS_AT_ONCE):
                column = _load_index(builder, builder.add(columns, _const(2 * r)), 4 * lanes)
                weight = builder.load(at(builder, builder.add(weights, _const(4 * r)), F32))
                inputs = load_vector(builder, builder.add(source, column), lanes)
                slot = slots[copy * ROWS_AT_ONCE + r]
                builder.store(
                    multiply_add(builder, splat_value(builder, weight, lanes), inputs, builder.load(slot)), slot
                )

        slots = _open_sums(builder, lanes, unroll * ROWS_AT_ONCE)
        _steps(builder, begin, end, unroll, step)
        for r, total in enumerate(_totals(builder, slots, ROWS_AT_ONCE)):
            offset = builder.load(at(builder, builder.add(targets, _const(8 * r)), I64))
            _add_vector(builder, builder.add(z, offset), total)
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
    """``tiles``, for ``count`` input rows."""
    starts, index, values = load_int(m + _STARTS), load_int(m + _INDEX), load_int(m + _VALUES)
    targets, gate = load_int(m + _TARGETS), load_int(m + _GATE_BYTES)
    for g in range(load_int(m + _GROUPS)):
        begin, end, target = load_int(starts + 8 * g), load_int(starts + 8 * g + 8), targets + 8 * g
        if count == 1:
            _tile_group(width, True, begin, end, index, 0, values, 1, sources, z, row_bytes, target, 0, gate)
        else:
            _tile_group(width, False, begin, end, index, 0, values, count, sources, z, row_bytes, target, 0, gate)


def lanes(width: Any, m: int, count: int, sources: int, z: int, row_bytes: int) -> None:
    """``lanes`` and ``aligned``, for ``count`` input rows."""
    starts, index = load_int(m + _STARTS), load_int(m + _INDEX)
    select, values, targets = load_int(m + _SELECT), load_int(m + _VALUES), load_int(m + _TARGETS)
    scattered, gate = load_int(m + _SCATTERED), load_int(m + _GATE_BYTES)
    each = 8 * width_of(width) if scattered != 0 else 8
    for g in range(load_int(m + _GROUPS)):
        begin, end, target = load_int(starts + 8 * g), load_int(starts + 8 * g + 8), targets + each * g
        if count == 1:
            _lane_group(
                width, True, begin, end, index, select, values, 1, sources, z, row_bytes, target, scattered, gate
            )
        else:
            _lane_group(
                width, False, begin, end, index, select, values, count, sources, z, row_bytes, target, scattered, gate
            )
