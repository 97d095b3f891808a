"""LLVM instructions on vectors of float32, written with llvmlite: what the operations and the products are made of."""

from __future__ import annotations

import functools
from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.core.registry import cpu_target

F32, I32, I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)


@functools.cache
def cpu_has(feature: str) -> bool:
    """Whether numba compiles for a processor with this LLVM feature; it may be told to compile for another than this one."""
    return f"+{feature}" in cpu_target.target_context.codegen().magic_tuple()[2].split(",")


def vector(lanes: int, element: ir.Type = F32) -> ir.VectorType:
    """LLVM's ``<lanes x element>``."""
    return ir.VectorType(element, lanes)


def at(builder: Any, address: Any, kind: ir.Type) -> Any:
    """The address (i64) as a pointer to ``kind``."""
    return builder.inttoptr(address, kind.as_pointer())


def load_vector(builder: Any, address: Any, lanes: int, element: ir.Type = F32) -> Any:
    """Unaligned load of ``lanes`` elements."""
    return builder.load(at(builder, address, vector(lanes, element)), align=1)


def splat_value(builder: Any, value: Any, lanes: int) -> Any:
    """``value`` in every lane."""
    kind = vector(lanes, value.type)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(I32, 0))
    order = ir.Constant(vector(lanes, I32), [0] * lanes)
    return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), order)


def call(builder: Any, name: str, kind: ir.Type, args: tuple[Any, ...]) -> Any:
    """Call of an LLVM intrinsic that returns ``kind``."""
    signature = ir.FunctionType(kind, [a.type for a in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), args)


def multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """``a·b + c``; one instruction where the processor has it."""
    return call(builder, f"llvm.fmuladd.v{a.type.count}f32", a.type, (a, b, c))


def quotient(builder: Any, a: Any, b: Any) -> Any:
    """``a / b``; with AVX-512 from an estimate of 1 / b and one correction, good to about a unit in the last place.

    The instruction for a division keeps the processor busy for longer than all else that a cell computes.
    """
    if a.type.count != 16 or not cpu_has("avx512f"):
        return builder.fdiv(a, b)
    all_lanes = ir.Constant(ir.IntType(16), 0xFFFF)
    estimate = call(builder, "llvm.x86.avx512.rcp14.ps.512", a.type, (b, b, all_lanes))
    first = builder.fmul(a, estimate)
    left = multiply_add(builder, builder.fneg(b), first, a)
    return multiply_add(builder, left, estimate, first)


def select_from_two(builder: Any, first: Any, second: Any, choice: Any, lanes: int) -> Any:
    """Lane k = element ``choice[k]`` of the 2·lanes floats at the addresses ``first`` and ``second``."""
    index = builder.zext(choice, vector(lanes, I32))
    if lanes == 16 and cpu_has("avx512f"):
        a, b = load_vector(builder, first, 16), load_vector(builder, second, 16)
        return call(builder, "llvm.x86.avx512.vpermi2var.ps.512", a.type, (a, index, b))
    if lanes == 8 and cpu_has("avx2"):
        a, b = (
            call(builder, "llvm.x86.avx2.permps", vector(8), (load_vector(builder, p, 8), index))
            for p in (first, second)
        )
        return builder.select(builder.icmp_unsigned("<", index, ir.Constant(index.type, [8] * 8)), a, b)
    out = ir.Constant(vector(lanes), ir.Undefined)
    for k in range(lanes):
        lane = ir.Constant(I32, k)
        j = builder.zext(builder.extract_element(choice, lane), I64)
        inside = builder.icmp_unsigned("<", j, ir.Constant(I64, lanes))
        base = builder.select(inside, first, builder.sub(second, ir.Constant(I64, 4 * lanes)))
        address = builder.add(base, builder.shl(j, ir.Constant(I64, 2)))
        out = builder.insert_element(out, builder.load(at(builder, address, F32)), lane)
    return out
