"""Operations that move, add or drop axes, or repeat a tensor along them; the features stay on one axis."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from jali.flow.layout import Data, Features, Spread, States, Width, has_escaped, settled
from jali.flow.rules.registry import (
    UNSAFE,
    Shape,
    Shapes,
    argument,
    constant,
    from_end,
    rule,
    same_features,
    sizes_given,
    treats_features_alike,
)


@rule(torch.transpose, torch.swapaxes, "transpose", "swapaxes")
def transpose(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Shapes) -> Any:
    """Two axes change places."""
    size = shape(0)
    dims = [*args, *(kwargs[k] for k in ("dim0", "dim1", "axis0", "axis1") if k in kwargs)]
    if size is None or len(dims) != 2 or not constant(dims):
        return UNSAFE
    first, second = (from_end(d, len(size)) for d in dims)
    order = list(range(-len(size), 0))
    order[first], order[second] = second, first
    return _permuted(x, order)


@rule(torch.permute, "permute")
def permute(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Shapes) -> Any:
    """The axes in another order, all of them given."""
    size, dims = shape(0), sizes_given(args, kwargs, "dims")
    if size is None or len(dims) != len(size) or not constant(dims):
        return UNSAFE
    return _permuted(x, [from_end(d, len(size)) for d in dims])


def _permuted(x: Any, order: list[int]) -> Any:
    """``order``: for each axis of the result, the axis of ``x``, both counted from the end."""
    if isinstance(x, Features):
        return x.moved(order.index(x.axis) - len(order))
    if isinstance(x, States) and order[-1] == -1:
        return settled(x.labels.transpose(order), x)
    return UNSAFE


@rule(torch.unsqueeze, "unsqueeze")
def unsqueeze(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Shapes) -> Any:
    """A new axis of size 1; one after the features moves them one place from the end."""
    size, dim = shape(0), argument(args, kwargs, 0, "dim")
    if size is None or not isinstance(dim, int):
        return UNSAFE
    place = dim if dim >= 0 else dim + len(size) + 1
    if isinstance(x, States):
        return settled(np.expand_dims(x.labels, place), x) if place < len(size) else UNSAFE
    if not isinstance(x, Features | Spread):
        return UNSAFE
    axis = x.axis - 1 if place > len(size) + x.axis else x.axis
    return x.moved(axis) if isinstance(x, Features) else Spread(x.labels, axis, x.ports)


@rule(torch.squeeze, "squeeze")
def squeeze(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Shapes) -> Any:
    """An axis of size 1 that is named goes."""
    size, dim = shape(0), argument(args, kwargs, 0, "dim")
    # Without a dimension the result depends on the sizes, which the cut may change.
    if size is None or not isinstance(dim, int):
        return UNSAFE
    place = from_end(dim, len(size))
    if isinstance(x, States) and place != -1:
        return settled(x.labels.squeeze(place), x) if size[place] == 1 else x
    if not isinstance(x, Features) or place == x.axis:
        return UNSAFE
    return x.moved(x.axis + 1 if place > x.axis and size[place] == 1 else x.axis)


@rule(torch.broadcast_to, "expand", "broadcast_to", widths=True)
def expand(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Shapes) -> Any:
    """Copies along other axes; or plain data expanded to the width of features, which then follows the cut."""
    sizes = sizes_given(args, kwargs, "size")
    if isinstance(x, Features):
        rest = [size for place, size in enumerate(sizes) if place != x.axis + len(sizes)]
        own = sizes[x.axis] if len(sizes) >= -x.axis else None
        follows = own == -1 or (isinstance(own, Width) and np.array_equal(own.labels, x.labels))
        return x if follows and not has_escaped(rest) else UNSAFE
    if isinstance(x, States):
        if len(sizes) < x.labels.ndim or sizes[-1] != -1 or has_escaped(sizes):
            return UNSAFE
        return settled(x.labels.reshape((1,) * (len(sizes) - x.labels.ndim) + x.labels.shape), x)
    return _spread(x, sizes, shape(0))


@rule("repeat", widths=True)
def repeat(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Shapes) -> Any:
    """Copies along other axes, or of the whole block of features; or one entry repeated to the width of features."""
    counts = sizes_given(args, kwargs, "repeats")
    if not isinstance(x, Features):
        return _spread(x, counts, shape(0))
    if len(counts) < -x.axis or has_escaped(counts):
        return UNSAFE
    copies = counts[x.axis]
    if not isinstance(copies, int) or copies < 1:
        return UNSAFE
    return Features(np.tile(x.labels, copies), x.axis, x.ports, x.family)


def _spread(x: Any, sizes: list[Any], size: Shape) -> Any:
    """Plain data whose one entry along an axis is copied as often as there are features."""
    widths = [place - len(sizes) for place, item in enumerate(sizes) if isinstance(item, Width)]
    if not isinstance(x, Data) or size is None or len(widths) != 1:
        return UNSAFE
    (place,) = widths
    rest = [item for k, item in enumerate(sizes) if k - len(sizes) != place]
    if has_escaped(rest) or not (len(size) < -place or size[place] == 1):
        return UNSAFE
    width: Width = sizes[place]
    return Spread(width.labels, place, width.ports)


@rule("expand_as")
def expand_as(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Shapes) -> Any:
    """To the shape of another tensor: of the same features, or plain data to their width."""
    other = argument(args, kwargs, 0, "other")
    if not isinstance(other, Features | Spread):
        return UNSAFE
    if isinstance(x, Features):
        return x if same_features(x, other) else UNSAFE
    like = Features(other.labels, other.axis, other.ports)
    narrow = isinstance(x, Data | Spread) and treats_features_alike(x, shape(0), like)
    return Spread(other.labels, other.axis, other.ports) if narrow else UNSAFE
