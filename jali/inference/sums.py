"""LLVM code for the sums of a group of weights over its steps: what the kernels of products are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from jali.inference.emit import F32, I64, at, load_vector, multiply_add, select_from_two, splat_value, vector

Step = Callable[..., None]


def const(value: int) -> ir.Constant:
    """An int64."""
    return ir.Constant(I64, value)


def at_index(builder: Any, base: Any, index: Any, scale: int) -> Any:
    """``base + scale · index``."""
    return builder.add(base, builder.mul(index, const(scale)))


def load_index(builder: Any, address: Any, scale: int) -> Any:
    """The byte offset of the column or register that an index names."""
    number = builder.load(at(builder, address, ir.IntType(16)))
    return builder.mul(builder.zext(number, I64), const(scale))


def each_step(builder: Any, begin: Any, end: Any, unroll: int, body: Any) -> None:
    """``body(k, copy)`` for k from begin to end, ``unroll`` copies at a time, then half as many, and so on.

    One by one, the rest would wait for its own sums: every step for the multiply-add of the step before.
    """
    count = builder.sub(end, begin)
    done = builder.add(begin, builder.and_(count, const(-unroll)))
    with cgutils.for_range_slice(builder, begin, done, const(unroll), I64, inc=True) as (k, _):
        for copy in range(unroll):
            body(builder.add(k, const(copy)), copy)
    part = unroll // 2
    while part:
        some = builder.and_(count, const(part))
        with builder.if_then(builder.icmp_unsigned("!=", some, const(0))):
            for copy in range(part):
                body(builder.add(done, const(copy)), copy)
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


def add_vector(builder: Any, address: Any, total: Any) -> None:
    """Adds ``total`` to the floats at ``address``."""
    lanes = total.type.count
    new = builder.fadd(load_vector(builder, address, lanes), total)
    builder.store(new, at(builder, address, vector(lanes)), align=1)


class Sums:
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


def tile_step(width: Any) -> Step:
    """A step of ``tiles``: a column's input, times W weights for each gate."""
    lanes, gates = width.lanes, width.gates

    def step(builder: Any, k: Any, copy: int, sums: Sums, bases: Any, index: Any, select: Any, values: Any) -> None:
        column = load_index(builder, at_index(builder, index, k, 2), 4)
        where = at_index(builder, values, k, 4 * lanes * gates)
        weights = [load_vector(builder, builder.add(where, const(4 * lanes * g)), lanes) for g in range(gates)]
        for r, base in enumerate(bases):
            value = splat_value(builder, builder.load(at(builder, builder.add(base, column), F32)), lanes)
            for g in range(gates):
                sums.add(copy, 0, r, g, weights[g], value)

    return step


def lane_step(width: Any) -> Step:
    """A step of ``lanes`` or ``aligned``: in every turn each lane's own input, times a weight for each gate."""
    lanes, gates, turns = width.lanes, width.gates, width.turns

    def step(builder: Any, k: Any, copy: int, sums: Sums, bases: Any, index: Any, select: Any, values: Any) -> None:
        pair = at_index(builder, index, k, 4)
        first, second = (load_index(builder, builder.add(pair, const(2 * j)), 4 * lanes) for j in range(2))
        chosen, where = (
            at_index(builder, select, k, lanes * turns),
            at_index(builder, values, k, 4 * lanes * gates * turns),
        )
        pairs = [(builder.add(base, first), builder.add(base, second)) for base in bases]
        for turn in range(turns):
            choice = load_vector(builder, builder.add(chosen, const(lanes * turn)), lanes, ir.IntType(8))
            here = [builder.add(where, const(4 * lanes * (turn * gates + g))) for g in range(gates)]
            weights = [load_vector(builder, address, lanes) for address in here]
            for r, (a, b) in enumerate(pairs):
                inputs = select_from_two(builder, a, b, choice, lanes)
                for g in range(gates):
                    sums.add(copy, turn, r, g, weights[g], inputs)

    return step
