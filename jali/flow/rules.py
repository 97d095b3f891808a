"""One rule per operation: what happens to labelled features when they pass through it.

A rule returns the abstract value of the result, or :data:`UNSAFE` when it cannot prove that removing the removed
units' (zero) features commutes with the operation. Operations without a rule are unsafe for labelled features.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import rnn

from jali.flow.layout import Data, Escaped, Features, States

UNSAFE = object()
Shape = tuple[int, ...] | None
Rule = Callable[[Any, list[Any], dict[str, Any], Callable[[int], Shape]], Any]
RULES: dict[Any, Rule] = {}

# f(0) = 0, entry by entry: a zero feature stays zero, the others do not see it.
ZERO_PRESERVING_MODULES = (
    nn.Identity, nn.Dropout, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Tanh, nn.Tanhshrink, nn.Softsign, nn.Hardswish, nn.Softshrink, nn.Hardshrink,
)  # fmt: skip
ZERO_PRESERVING = (
    F.dropout, F.relu, F.relu6, F.leaky_relu, F.elu, F.celu, F.selu, F.gelu, F.silu, F.mish, F.tanh, F.softsign,
    F.hardswish, torch.relu, torch.tanh, torch.neg, torch.abs, torch.square, torch.sqrt, torch.sin, torch.clone,
    torch.detach, operator.neg, "relu", "relu_", "tanh", "neg", "abs", "square", "clone", "contiguous", "detach",
    "float", "double", "half", "bfloat16", "to", "cpu", "cuda", "type_as",
)  # fmt: skip


def rule(*targets: Any) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        for target in targets:
            RULES[target] = function
        return function

    return register


def _constant(value: Any) -> bool:
    """A literal of the graph (no abstract value inside)."""
    if isinstance(value, tuple | list):
        return all(_constant(item) for item in value)
    if isinstance(value, slice):
        return _constant((value.start, value.stop, value.step))
    return value is None or value is Ellipsis or isinstance(value, bool | int | float | str)


@rule(*ZERO_PRESERVING)
def elementwise(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Callable[[int], Shape]) -> Any:
    return x if isinstance(x, Features | States) else UNSAFE


@rule(operator.getitem)
def getitem(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Callable[[int], Shape]) -> Any:
    index = args[0]
    if isinstance(x, tuple | list):
        return x[index] if isinstance(index, int | slice) and _constant(index) else UNSAFE
    if isinstance(x, States):
        return _states_item(x, index)
    size = shape(0)
    items = list(index) if isinstance(index, tuple) else [index]
    taken = [_axes_taken(item) for item in items]
    if not isinstance(x, Features) or size is None or None in taken:
        return UNSAFE
    full = [slice(None)] * (len(size) - sum(taken))  # type: ignore[arg-type]
    if Ellipsis in items:
        at = items.index(Ellipsis)
        items[at : at + 1] = full
    else:
        items += full
    if any(isinstance(item, Data) for item in items):
        # A last axis that is taken whole stays last, wherever indexing by tensors puts the other axes.
        return x if x.axis == -1 and items[-1] == slice(None) else UNSAFE
    return _indexed(x, items, len(size))


def _axes_taken(item: Any) -> int | None:
    """Axes of the indexed tensor that one item of an index takes up; None for an item of unknown effect."""
    if item is None or item is Ellipsis:
        return 0
    if isinstance(item, Data):
        return item.axes
    return 1 if isinstance(item, int | slice) and not isinstance(item, bool) else None


def _indexed(x: Features, items: list[Any], rank: int) -> Any:
    axis, old, kept_after = rank + x.axis, 0, 0
    for item in items:
        if item is None:
            kept_after += old > axis
            continue
        if old == axis and item != slice(None):
            return UNSAFE
        if old > axis and not isinstance(item, int):
            kept_after += 1
        old += 1
    return x.moved(-1 - kept_after)


def _states_item(x: States, index: Any) -> Any:
    items = index if isinstance(index, tuple) else (index,)
    if any(item != slice(None) for item in items[1:]) or len(items) > 3:
        return UNSAFE
    if isinstance(items[0], int) and not isinstance(items[0], bool):
        return Features(x.slots[items[0]], -1, x.ports)
    if isinstance(items[0], slice) and _constant(items[0]):
        return States(x.slots[items[0]], x.ports)
    return UNSAFE


@rule(torch.transpose, torch.swapaxes, "transpose", "swapaxes")
def transpose(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Callable[[int], Shape]) -> Any:
    size = shape(0)
    dims = [*args, *(kwargs[k] for k in ("dim0", "dim1") if k in kwargs)]
    if not isinstance(x, Features) or size is None or len(dims) != 2 or not _constant(dims):
        return UNSAFE
    first, second = (d - len(size) if d >= 0 else d for d in dims)
    swap = {first: second, second: first}
    return x.moved(swap.get(x.axis, x.axis))


@rule(torch.permute, "permute")
def permute(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Callable[[int], Shape]) -> Any:
    size = shape(0)
    dims = args[0] if args and isinstance(args[0], tuple | list) else args or kwargs.get("dims", ())
    if not isinstance(x, Features) or size is None or len(dims) != len(size) or not _constant(dims):
        return UNSAFE
    places = [d - len(size) if d >= 0 else d for d in dims]
    return x.moved(places.index(x.axis) - len(size))


@rule(torch.unsqueeze, "unsqueeze")
def unsqueeze(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Callable[[int], Shape]) -> Any:
    size, dim = shape(0), args[0] if args else kwargs.get("dim")
    if not isinstance(x, Features) or size is None or not isinstance(dim, int):
        return UNSAFE
    place = dim if dim >= 0 else dim + len(size) + 1
    return x.moved(x.axis - 1 if place > len(size) + x.axis else x.axis)


@rule(torch.squeeze, "squeeze")
def squeeze(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Callable[[int], Shape]) -> Any:
    size, dim = shape(0), args[0] if args else kwargs.get("dim")
    if isinstance(x, States) and dim == 0 and len(x.slots) == 1:
        return Features(x.slots[0], -1, x.ports)
    # Without a dimension the result depends on the sizes, which the cut may change.
    if not isinstance(x, Features) or size is None or not isinstance(dim, int):
        return UNSAFE
    place = dim - len(size) if dim >= 0 else dim
    if place == x.axis:
        return UNSAFE
    return x.moved(x.axis + 1 if place > x.axis and size[place] == 1 else x.axis)


@rule(torch.flatten, "flatten", nn.Flatten)
def flatten(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Callable[[int], Shape]) -> Any:
    size = shape(0)
    if not isinstance(x, Features) or size is None or not _constant([*args, *kwargs.values()]):
        return UNSAFE
    start = args[0] if args else kwargs.get("start_dim", 0)
    end = args[1] if len(args) > 1 else kwargs.get("end_dim", -1)
    rank = len(size)
    return _merged(x, size, start - rank if start >= 0 else start, end - rank if end >= 0 else end)


def _merged(x: Features, size: tuple[int, ...], start: int, end: int) -> Any:
    """Axes ``start..end`` (negative, inclusive) become one; the features must be the last of them."""
    if x.axis < start or x.axis > end:
        return x.moved(x.axis + (end - start) if x.axis < start else x.axis)
    if x.axis != end:
        return UNSAFE
    repeats = int(np.prod([size[i] for i in range(start, end)], dtype=int))
    return Features(np.tile(x.labels, repeats), end, x.ports)


@rule(torch.reshape, "reshape", "view")
def reshape(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Callable[[int], Shape]) -> Any:
    """``reshape(B, -1)`` and ``reshape(..., -1)`` where the last axis is inferred, so that it follows the cut."""
    size = shape(0)
    new = args[0] if args and isinstance(args[0], tuple | list) else args or kwargs.get("shape", ())
    if not isinstance(x, Features) or size is None or x.axis != -1 or not len(new) or new[-1] != -1:
        return UNSAFE
    result = shape(-1)
    if result is None or result[-1] % size[-1] or any(d == -1 for d in new[:-1]):
        return UNSAFE
    return Features(np.tile(x.labels, result[-1] // size[-1]), -1, x.ports)


@rule(torch.cat, torch.concat)
def cat(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Callable[[int], Shape]) -> Any:
    dim = args[0] if args else kwargs.get("dim", kwargs.get("axis", 0))
    result = shape(-1)
    if not isinstance(x, tuple | list) or result is None or not isinstance(dim, int):
        return UNSAFE
    axis = dim - len(result) if dim >= 0 else dim
    labelled = [item for item in x if isinstance(item, Features)]
    ports = frozenset().union(*(item.ports for item in labelled))
    if not labelled or any(not isinstance(item, Features | Data) for item in x):
        return UNSAFE
    if any(item.axis != labelled[0].axis for item in labelled):
        return UNSAFE
    if axis != labelled[0].axis:
        same = len(labelled) == len(x) and all(np.array_equal(i.labels, labelled[0].labels) for i in labelled)
        return Features(labelled[0].labels, labelled[0].axis, ports) if same else UNSAFE
    parts, widths = [], [shape(k) for k in range(len(x))]
    for item, width in zip(x, widths, strict=True):
        if width is None:
            return UNSAFE
        parts.append(item.labels if isinstance(item, Features) else np.full(width[axis], -1))
    return Features(np.concatenate(parts), axis, ports)


@rule(torch.mean, torch.sum, torch.amax, torch.amin, "mean", "sum", "amax", "amin")
def reduce(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Callable[[int], Shape]) -> Any:
    """Reductions over other axes: the sum, mean or extremum of zeros is zero."""
    size = shape(0)
    dims = args[0] if args else kwargs.get("dim", kwargs.get("axis"))
    keep = args[1] if len(args) > 1 else kwargs.get("keepdim", False)
    dims = (dims,) if isinstance(dims, int) else dims
    if not isinstance(x, Features) or size is None or not isinstance(dims, tuple | list) or not _constant(list(dims)):
        return UNSAFE
    places = [d - len(size) if d >= 0 else d for d in dims]
    if x.axis in places or not isinstance(keep, bool):
        return UNSAFE
    return x if keep else x.moved(x.axis + sum(place > x.axis for place in places))


@rule(torch.max, torch.min, "max", "min")
def extremum(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Callable[[int], Shape]) -> Any:
    """``x.max(dim)`` returns values and positions; only the values carry features."""
    values = reduce(x, args, kwargs, shape) if args or "dim" in kwargs else UNSAFE
    return (values, Escaped(values.ports)) if isinstance(values, Features) else UNSAFE


@rule(F.adaptive_max_pool1d, F.adaptive_avg_pool1d, F.max_pool1d, F.avg_pool1d)
def pool(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Callable[[int], Shape]) -> Any:
    return x if isinstance(x, Features) and x.axis == -2 else UNSAFE


@rule(torch.mul, operator.mul, "mul")
def multiply(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Callable[[int], Shape]) -> Any:
    """Times a number, or a tensor that has one entry (or no axis) where the features are; either order."""
    if args and isinstance(args[0], Features) and not isinstance(x, Features):
        return _scaled(args[0], x, shape(0))
    return _scaled(x, args[0], shape(1)) if args else UNSAFE


@rule(torch.div, operator.truediv, "div")
def divide(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Callable[[int], Shape]) -> Any:
    return _scaled(x, args[0], shape(1)) if args else UNSAFE


def _scaled(x: Any, factor: Any, size: Shape) -> Any:
    if not isinstance(x, Features):
        return UNSAFE
    if isinstance(factor, int | float):
        return x
    narrow = isinstance(factor, Data) and size is not None and (len(size) < -x.axis or size[x.axis] == 1)
    return x if narrow else UNSAFE


@rule(torch.bmm, torch.matmul, operator.matmul, "bmm", "matmul")
def mix_time(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Callable[[int], Shape]) -> Any:
    """``weights @ x``: attention over time; the features are the last axis, and not the only one, of the right operand."""
    right = args[0] if args else None
    if isinstance(x, Data) and isinstance(right, Features) and right.axis == -1 and len(shape(1) or ()) > 1:
        return right
    return UNSAFE


@rule(rnn.pack_padded_sequence)
def pack(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Callable[[int], Shape]) -> Any:
    return x if isinstance(x, Features) and x.axis == -1 else UNSAFE


@rule(rnn.pad_packed_sequence)
def unpack(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Callable[[int], Shape]) -> Any:
    """Padding is zero unless the caller asks for another value, which removed features would have, too."""
    padding = args[1] if len(args) > 1 else kwargs.get("padding_value", 0.0)
    return (x, None) if isinstance(x, Features) and padding == 0 else UNSAFE


@rule("size", getattr)
def size_of(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Callable[[int], Shape]) -> Any:
    """Sizes and other attributes. A size is plain data unless it is the width of the features, which the cut changes."""
    if args and isinstance(args[0], str) and args[0] != "shape":
        return _attribute(x, args[0])
    size = shape(0)
    if not isinstance(x, Features) or size is None:
        return UNSAFE
    sizes = [Escaped(x.ports) if place == x.axis + len(size) else None for place in range(len(size))]
    place = args[0] if args else kwargs.get("dim")
    return sizes[place] if isinstance(place, int) else tuple(sizes)


def _attribute(x: Any, name: str) -> Any:
    """``x.device`` and the like of a tensor; the data and the order of a PackedSequence, whose features are last."""
    if name == "data" and isinstance(x, Features):
        return x
    plain = ("device", "dtype", "ndim", "is_cuda", "requires_grad", "batch_sizes", "sorted_indices", "unsorted_indices")
    return None if name in plain else UNSAFE


@rule("_replace")
def repack(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Callable[[int], Shape]) -> Any:
    """``packed._replace(data=...)``: other rows in the same packing."""
    data = kwargs.get("data")
    return data if isinstance(data, Features) and data.axis == -1 else UNSAFE


@rule("dim", "ndimension", "is_contiguous")
def rank_of(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Callable[[int], Shape]) -> Any:
    return None
