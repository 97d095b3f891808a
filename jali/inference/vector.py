"""Vectors of W float32 in numba: a type whose width is part of it, and the few operations that the kernels need.

LLVM turns them into AVX-512, AVX2, NEON or SSE instructions, whichever the processor has; no compiler is needed. A width is
handed to compiled functions as a :class:`Width` token, so that it is part of their signature: numba's cache on disk keys on
signatures and not on globals. The token's type also carries a digest of the kernels' sources, since numba looks for changes
only in the file of the cached function and not in the files that it calls.

Addresses are plain integers (``int64``, bytes). The callers check sizes; nothing here does.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import NativeValue, intrinsic, models, register_model, typeof_impl, unbox

from jali.errors import LimitError

WIDTHS = (4, 8, 16)
_SOURCES = ("vector.py", "vector_math.py", "products.py", "cells.py", "steps.py", "by_unit.py", "by_sequence.py")
operation: Any = intrinsic  # numba types the result by the function before its typing context is taken away
_F32, _I32, _I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)


@functools.cache
def sources_digest() -> str:
    """Digest of the sources that compiled kernels are made of."""
    folder = Path(__file__).parent
    return hashlib.sha256(b"".join((folder / name).read_bytes() for name in _SOURCES)).hexdigest()[:12]


def _cpu_has(feature: str) -> bool:
    return bool(llvm.get_host_cpu_features().get(feature, False))


def default_width() -> int:
    """Lanes of this processor's widest float32 vectors: 16 with AVX-512, 8 with AVX2, 4 otherwise."""
    return 16 if _cpu_has("avx512f") else 8 if _cpu_has("avx2") else 4


class Width:
    """The token that hands a vector width to compiled code: ``Width(16)``. Any of 4, 8, 16 is correct on any processor."""

    def __init__(self, lanes: int) -> None:
        if lanes not in WIDTHS:
            raise LimitError(f"vector width {lanes!r} is none of {WIDTHS}; leave it out for this processor's own width")
        self.lanes = lanes


class WidthType(types.Type):
    """Numba type of a :class:`Width`."""

    def __init__(self, lanes: int, digest: str) -> None:
        self.lanes = lanes
        super().__init__(name=f"Width({lanes}, {digest})")


class VecType(types.Type):
    """``lanes`` float32 in one register (or more, where the processor's are narrower)."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(name=f"Vec({lanes})")


def width_type(lanes: int) -> WidthType:
    """Numba type of ``Width(lanes)``, for explicit signatures."""
    return WidthType(Width(lanes).lanes, sources_digest())


@register_model(WidthType)
class _WidthModel(models.OpaqueModel):
    pass


@register_model(VecType)
class _VecModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: VecType) -> None:
        super().__init__(dmm, fe_type, vector(fe_type.lanes))


@typeof_impl.register(Width)
def _typeof_width(val: Width, c: Any) -> WidthType:
    return width_type(val.lanes)


@unbox(WidthType)
def _unbox_width(typ: WidthType, obj: Any, c: Any) -> NativeValue:
    return NativeValue(c.context.get_dummy_value())


# ---- LLVM, for this file and for the products ----


def vector(lanes: int, element: ir.Type = _F32) -> ir.VectorType:
    """LLVM's ``<lanes x element>``."""
    return ir.VectorType(element, lanes)


def at(builder: Any, address: Any, kind: ir.Type) -> Any:
    """The address (i64) as a pointer to ``kind``."""
    return builder.inttoptr(address, kind.as_pointer())


def load_vector(builder: Any, address: Any, lanes: int, element: ir.Type = _F32) -> Any:
    """Unaligned load of ``lanes`` elements."""
    return builder.load(at(builder, address, vector(lanes, element)), align=1)


def splat_value(builder: Any, value: Any, lanes: int) -> Any:
    """``value`` in every lane."""
    kind = vector(lanes, value.type)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(_I32, 0))
    order = ir.Constant(vector(lanes, _I32), [0] * lanes)
    return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), order)


def call(builder: Any, name: str, kind: ir.Type, args: tuple[Any, ...]) -> Any:
    """Call of an LLVM intrinsic that returns ``kind``."""
    signature = ir.FunctionType(kind, [a.type for a in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), args)


def multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """``a·b + c``; one instruction where the processor has it."""
    return call(builder, f"llvm.fmuladd.v{a.type.count}f32", a.type, (a, b, c))


def select_from_two(builder: Any, first: Any, second: Any, choice: Any, lanes: int) -> Any:
    """Lane k = element ``choice[k]`` of the 2·lanes floats at the addresses ``first`` and ``second``."""
    index = builder.zext(choice, vector(lanes, _I32))
    if lanes == 16 and _cpu_has("avx512f"):
        a, b = load_vector(builder, first, 16), load_vector(builder, second, 16)
        return call(builder, "llvm.x86.avx512.vpermi2var.ps.512", a.type, (a, index, b))
    if lanes == 8 and _cpu_has("avx2"):
        a, b = (
            call(builder, "llvm.x86.avx2.permps", vector(8), (load_vector(builder, p, 8), index))
            for p in (first, second)
        )
        return builder.select(builder.icmp_unsigned("<", index, ir.Constant(index.type, [8] * 8)), a, b)
    out = ir.Constant(vector(lanes), ir.Undefined)
    for k in range(lanes):
        lane = ir.Constant(_I32, k)
        j = builder.zext(builder.extract_element(choice, lane), _I64)
        inside = builder.icmp_unsigned("<", j, ir.Constant(_I64, lanes))
        base = builder.select(inside, first, builder.sub(second, ir.Constant(_I64, 4 * lanes)))
        address = builder.add(base, builder.shl(j, ir.Constant(_I64, 2)))
        out = builder.insert_element(out, builder.load(at(builder, address, _F32)), lane)
    return out


# ---- the operations, as seen by numba code ----


@operation
def width_of(typingctx: Any, width: Any) -> Any:
    """Lanes of a width, as an integer constant."""
    return types.int64(width), lambda context, builder, sig, args: ir.Constant(_I64, sig.args[0].lanes)


@operation
def load(typingctx: Any, width: Any, address: Any) -> Any:
    """``lanes`` floats from an address."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return load_vector(builder, args[1], sig.args[0].lanes)

    return VecType(width.lanes)(width, types.int64), codegen


@operation
def load_splat(typingctx: Any, width: Any, address: Any) -> Any:
    """The float at an address, in every lane."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return splat_value(builder, builder.load(at(builder, args[1], _F32)), sig.args[0].lanes)

    return VecType(width.lanes)(width, types.int64), codegen


@operation
def store(typingctx: Any, address: Any, value: Any) -> Any:
    """Writes a vector to an address."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[1], at(builder, args[0], args[1].type), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, value), codegen


@operation
def splat(typingctx: Any, width: Any, value: Any) -> Any:
    """A number in every lane."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return splat_value(builder, args[1], sig.args[0].lanes)

    return VecType(width.lanes)(width, types.float32), codegen


def _binary(name: str, meaning: str) -> Any:
    def function(typingctx: Any, a: Any, b: Any) -> Any:
        return a(a, a), lambda context, builder, sig, args: getattr(builder, name)(*args)

    function.__name__, function.__doc__ = name, meaning
    return intrinsic(function)


add = _binary("fadd", "Lane-wise ``a + b``.")
sub = _binary("fsub", "Lane-wise ``a - b``.")
mul = _binary("fmul", "Lane-wise ``a · b``.")
div = _binary("fdiv", "Lane-wise ``a / b``.")


def _bound(name: str, comparison: str, meaning: str) -> Any:
    def function(typingctx: Any, a: Any, b: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return builder.select(builder.fcmp_ordered(comparison, args[1], args[0]), args[1], args[0])

        return a(a, a), codegen

    function.__name__, function.__doc__ = name, meaning
    return intrinsic(function)


maximum = _bound("maximum", ">", "Lane-wise larger one; a NaN in ``a`` stays.")
minimum = _bound("minimum", "<", "Lane-wise smaller one; a NaN in ``a`` stays.")


@operation
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """Lane-wise ``a·b + c``."""
    return a(a, a, a), lambda context, builder, sig, args: multiply_add(builder, *args)


@operation
def negative_abs(typingctx: Any, a: Any) -> Any:
    """Lane-wise ``-|a|``."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        lanes = sig.args[0].lanes
        bits = builder.bitcast(args[0], vector(lanes, _I32))
        sign = ir.Constant(bits.type, [-(2**31)] * lanes)
        return builder.bitcast(builder.or_(bits, sign), args[0].type)

    return a(a), codegen


@operation
def copy_sign(typingctx: Any, magnitude: Any, sign: Any) -> Any:
    """Lane-wise ``|magnitude|`` with the sign of ``sign``."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return call(builder, f"llvm.copysign.v{sig.args[0].lanes}f32", args[0].type, tuple(args))

    return magnitude(magnitude, magnitude), codegen


@operation
def power_of_two(typingctx: Any, shifted: Any) -> Any:
    """2ⁿ of the integer n in the low bits of ``shifted = n + 1.5·2²³``; −126 ≤ n ≤ 127.

    Reading n from the bits keeps clear of LLVM's conversion to integers, which is undefined for NaN.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        lanes = sig.args[0].lanes
        bits = builder.bitcast(args[0], vector(lanes, _I32))
        exponent = builder.shl(bits, ir.Constant(bits.type, [23] * lanes))
        return builder.bitcast(builder.add(exponent, ir.Constant(bits.type, [127 << 23] * lanes)), args[0].type)

    return shifted(shifted), codegen


@operation
def load_int(typingctx: Any, address: Any) -> Any:
    """An int64 from an address."""
    return types.int64(types.int64), lambda context, builder, sig, args: builder.load(at(builder, args[0], _I64))


@operation
def store_int(typingctx: Any, address: Any, value: Any) -> Any:
    """Writes an int64 to an address."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[1], at(builder, args[0], _I64))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@operation
def copy_bytes(typingctx: Any, target: Any, source: Any, count: Any) -> Any:
    """Copies ``count`` bytes between addresses that do not overlap."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        byte = ir.IntType(8)
        cgutils.raw_memcpy(builder, at(builder, args[0], byte), at(builder, args[1], byte), args[2], 1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@operation
def transpose_block(typingctx: Any, width: Any, source: Any, source_row: Any, target: Any, target_row: Any) -> Any:
    """Transposes a block of ``lanes × lanes`` floats; rows lie ``source_row`` and ``target_row`` bytes apart."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        lanes = sig.args[0].lanes
        _, source, source_row, target, target_row = args
        rows = [
            load_vector(builder, builder.add(source, builder.mul(source_row, ir.Constant(_I64, r))), lanes)
            for r in range(lanes)
        ]
        half = 1
        while half < lanes:  # exchange the off-diagonal quarters of every block of 2·half
            low = [k if k & half == 0 else lanes + k - half for k in range(lanes)]
            high = [k + half if k & half == 0 else lanes + k for k in range(lanes)]
            orders = [ir.Constant(vector(lanes, _I32), order) for order in (low, high)]
            for r in range(lanes):
                if r & half == 0:
                    pair = rows[r], rows[r + half]
                    rows[r], rows[r + half] = (builder.shuffle_vector(*pair, order) for order in orders)
            half *= 2
        for r, row in enumerate(rows):
            address = builder.add(target, builder.mul(target_row, ir.Constant(_I64, r)))
            builder.store(row, at(builder, address, row.type), align=1)
        return context.get_dummy_value()

    return types.void(width, *[types.int64] * 4), codegen


@operation
def call_kernel(typingctx: Any, address: Any, a: Any, b: Any, c: Any, d: Any, e: Any) -> Any:
    """Calls the kernel (:mod:`jali.inference.compiled`) at an address with five integers; its width is its own."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        token = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [token, *[_I64] * 5])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), [ir.Constant(token, None), *args[1:]])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), codegen
