"""Operations that combine entries along axes, none of which is that of the features."""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from jali.flow.layout import Data, Escaped, Features, States, settled
from jali.flow.rules.registry import UNSAFE, Shapes, argument, constant, from_end, rule


class Extremum(NamedTuple):
    """What ``x.max(dim)`` returns."""

    values: Features
    indices: Escaped


@rule(torch.mean, torch.sum, torch.amax, torch.amin, "mean", "sum", "amax", "amin")
def reduce(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Shapes) -> Any:
    """Reductions over other axes: the sum, mean or extremum of zeros is zero."""
    size, dims = shape(0), argument(args, kwargs, 0, "dim", "axis")
    keep = argument(args, kwargs, 1, "keepdim", default=False)
    dims = (dims,) if isinstance(dims, int) else dims
    if size is None or not dims or not isinstance(dims, tuple | list) or not constant(list(dims)):
        return UNSAFE
    places = [from_end(d, len(size)) for d in dims]
    if not isinstance(keep, bool):
        return UNSAFE
    if isinstance(x, States):
        # Rows of different features are not to be mixed.
        if -1 in places or any(x.labels.shape[place] != 1 for place in places):
            return UNSAFE
        return x if keep else settled(x.labels.squeeze(tuple(places)), x)
    if not isinstance(x, Features) or x.axis in places:
        return UNSAFE
    return x if keep else x.moved(x.axis + sum(place > x.axis for place in places))


@rule(torch.max, torch.min, "max", "min")
def extremum(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Shapes) -> Any:
    """``x.max(dim)`` returns values and positions; only the values carry features."""
    values = reduce(x, args, kwargs, shape) if args or "dim" in kwargs else UNSAFE
    return Extremum(values, Escaped(values.ports)) if isinstance(values, Features) else UNSAFE


@rule(F.adaptive_max_pool1d, F.adaptive_avg_pool1d, F.max_pool1d, F.avg_pool1d)
@rule(nn.AdaptiveMaxPool1d, nn.AdaptiveAvgPool1d, nn.MaxPool1d, nn.AvgPool1d)
def pool(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Shapes) -> Any:
    """Windows along the last axis; the features come before it."""
    return x if isinstance(x, Features) and x.axis == -2 else UNSAFE


@rule(torch.bmm, torch.matmul, operator.matmul, "bmm", "matmul")
def mix_time(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Shapes) -> Any:
    """``weights @ x``: attention over time; the features are the last axis, and not the only one, of the right operand."""
    right = args[0] if args else None
    if isinstance(x, Data) and isinstance(right, Features) and right.axis == -1 and len(shape(1) or ()) > 1:
        return right
    return UNSAFE
