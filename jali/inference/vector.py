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

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import NativeValue, intrinsic, models, register_model, typeof_impl, unbox

from jali.errors import LimitError
from jali.inference.emit import (
    F32,
    I32,
    I64,
    at,
    call,
    cpu_has,
    load_vector,
    multiply_add,
    quotient,
    splat_value,
    vector,
)

WIDTHS = (4, 8, 16)
_SOURCES = (
    "by_sequence.py", "by_unit.py", "cells.py", "emit.py", "fields.py", "packing.py", "products.py", "steps.py",
    "sums.py", "transposition.py", "vector.py", "vector_math.py",
)  # fmt: skip
operation: Any = intrinsic  # numba types the result by the function before its typing context is taken away


@functools.cache
def sources_digest() -> str:
    """Digest of the sources that compiled kernels are made of."""
    folder = Path(__file__).parent
    return hashlib.sha256(b"".join((folder / name).read_bytes() for name in _SOURCES)).hexdigest()[:12]


def default_width() -> int:
    """Lanes of this processor's widest float32 vectors: 16 with AVX-512, 8 with AVX2, 4 otherwise."""
    return 16 if cpu_has("avx512f") else 8 if cpu_has("avx2") else 4


class Width:
    """The token that hands a vector width to compiled code: ``Width(16)``. Any of 4, 8, 16 is correct on any processor."""

    def __init__(self, lanes: int) -> None:
        if lanes not in WIDTHS:
            raise LimitError(f"vector width {lanes!r} is none of {WIDTHS}; leave it out for this processor's own width")
        self.lanes = lanes


class WidthType(types.Type):
    """Numba type of a :class:`Width`; kernels of products also see the ``gates`` and ``turns`` of their steps in it."""

    def __init__(self, lanes: int, digest: str, gates: int = 1, turns: int = 1) -> None:
        self.lanes, self.gates, self.turns = lanes, gates, turns
        super().__init__(name=f"Width({lanes}, {gates}, {turns}, {digest})")


class VecType(types.Type):
    """``lanes`` float32 in one register (or more, where the processor's are narrower)."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(name=f"Vec({lanes})")


def width_type(lanes: int, gates: int = 1, turns: int = 1) -> WidthType:
    """Numba type of ``Width(lanes)``, for explicit signatures."""
    return WidthType(Width(lanes).lanes, sources_digest(), gates, turns)


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


@operation
def width_of(typingctx: Any, width: Any) -> Any:
    """Lanes of a width, as an integer constant."""
    return types.int64(width), lambda context, builder, sig, args: ir.Constant(I64, sig.args[0].lanes)


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
        return splat_value(builder, builder.load(at(builder, args[1], F32)), sig.args[0].lanes)

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


@operation
def div(typingctx: Any, a: Any, b: Any) -> Any:
    """Lane-wise ``a / b``, for b of magnitude 1 … 2¹²⁷."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return quotient(builder, *args)

    return a(a, a), codegen


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
        bits = builder.bitcast(args[0], vector(lanes, I32))
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
        bits = builder.bitcast(args[0], vector(lanes, I32))
        exponent = builder.shl(bits, ir.Constant(bits.type, [23] * lanes))
        return builder.bitcast(builder.add(exponent, ir.Constant(bits.type, [127 << 23] * lanes)), args[0].type)

    return shifted(shifted), codegen


@operation
def load_int(typingctx: Any, address: Any) -> Any:
    """An int64 from an address."""
    return types.int64(types.int64), lambda context, builder, sig, args: builder.load(at(builder, args[0], I64))


@operation
def store_int(typingctx: Any, address: Any, value: Any) -> Any:
    """Writes an int64 to an address."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[1], at(builder, args[0], I64))
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
            load_vector(builder, builder.add(source, builder.mul(source_row, ir.Constant(I64, r))), lanes)
            for r in range(lanes)
        ]
        half = 1
        while half < lanes:  # exchange the off-diagonal quarters of every block of 2·half
            low = [k if k & half == 0 else lanes + k - half for k in range(lanes)]
            high = [k + half if k & half == 0 else lanes + k for k in range(lanes)]
            orders = [ir.Constant(vector(lanes, I32), order) for order in (low, high)]
            for r in range(lanes):
                if r & half == 0:
                    pair = rows[r], rows[r + half]
                    rows[r], rows[r + half] = (builder.shuffle_vector(*pair, order) for order in orders)
            half *= 2
        for r, row in enumerate(rows):
            address = builder.add(target, builder.mul(target_row, ir.Constant(I64, r)))
            builder.store(row, at(builder, address, row.type), align=1)
        return context.get_dummy_value()

    return types.void(width, *[types.int64] * 4), codegen


@operation
def call_kernel(typingctx: Any, address: Any, a: Any, b: Any, c: Any, d: Any, e: Any) -> Any:
    """Calls the kernel (:mod:`jali.inference.compiled`) at an address with five integers; its width is its own."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        token = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [token, *[I64] * 5])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), [ir.Constant(token, None), *args[1:]])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), codegen
