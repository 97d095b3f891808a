"""Operations that merge or split axes: flatten, reshape, chunk, split, unbind."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from jali.flow.layout import Features, States, Width, has_escaped, settled
from jali.flow.rules.registry import UNSAFE, Shapes, argument, constant, from_end, rule, sizes_given


@rule(torch.flatten, "flatten", nn.Flatten)
def flatten(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Shapes) -> Any:
    """Axes ``start_dim`` to ``end_dim`` become one."""
    size, result = shape(0), shape(-1)
    start, end = argument(args, kwargs, 0, "start_dim", default=0), argument(args, kwargs, 1, "end_dim", default=-1)
    if size is None or not constant([start, end]):
        return UNSAFE
    if isinstance(x, States):
        return UNSAFE if result is None else regrouped(x, size, result)
    return _merged(x, size, from_end(start, len(size)), from_end(end, len(size))) if isinstance(x, Features) else UNSAFE


def _merged(x: Features, size: tuple[int, ...], start: int, end: int) -> Any:
    """Axes ``start..end`` (negative, inclusive) become one; the axes after the features repeat each of them."""
    if x.axis < start or x.axis > end:
        return x.moved(x.axis + (end - start) if x.axis < start else x.axis)
    before, after = (
        math.prod(size[start + len(size) : x.axis + len(size)]),
        math.prod(size[i] for i in range(x.axis + 1, end + 1)),
    )
    # Units that no longer lie side by side are not to be split again.
    return Features(np.tile(np.repeat(x.labels, after), before), end, x.ports, x.family if after == 1 else None)


@rule(torch.reshape, "reshape", "view", widths=True)
def reshape(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Shapes) -> Any:
    """The last size must follow the cut: it is inferred (-1), or it is the width of the very features it ends up with."""
    size, result, new = shape(0), shape(-1), sizes_given(args, kwargs, "shape")
    if size is None or result is None or not new or has_escaped(new[:-1]):
        return UNSAFE
    if not isinstance(x, States | Features):
        return UNSAFE
    last = new[-1]
    if isinstance(last, Width):
        value = regrouped(x, size, result)
        return value if isinstance(value, Features) and np.array_equal(value.labels, last.labels) else UNSAFE
    inferred = isinstance(last, int) and last == -1 and not any(isinstance(d, int) and d == -1 for d in new[:-1])
    return regrouped(x, size, result) if inferred else UNSAFE


def regrouped(x: Features | States, size: tuple[int, ...], result: tuple[int, ...]) -> Any:
    """Entries of ``size`` read in the same order as ``result``, whose last axis follows the cut.

    That commutes with the cut if every row of the result keeps equally many features: rows that are all the same, or
    that consist of whole sites of one family.
    """
    width = result[-1]
    if isinstance(x, Features) and x.axis != -1:
        start = len(result) - 1 - len(size)
        merges = start < 0 and result[:-1] == size[:start] and x.axis >= start
        return _merged(x, size, start, -1) if merges else UNSAFE
    if width == 0 or size[-1] == 0:
        return UNSAFE
    if isinstance(x, Features) and width % size[-1] == 0:
        return Features(np.tile(x.labels, width // size[-1]), -1, x.ports, x.family)
    labels = x.labels.reshape((1,) * (len(size) - x.labels.ndim) + x.labels.shape)
    same = 0  # leading axes that stay as they are need not be written out
    while same < min(len(size), len(result)) - 1 and size[same] == result[same] and labels.shape[same] == 1:
        same += 1
    rest = labels.reshape(labels.shape[same:])
    rows = np.broadcast_to(rest, size[same:]).reshape(result[same:])
    flat = rows.reshape(-1, width)
    whole = x.family is not None and width % x.family.size == 0 and bool((flat >= 0).all())
    if not whole and not (flat == flat[:1]).all():
        return UNSAFE
    return settled(rows.reshape((1,) * same + rows.shape), x)


@rule(torch.unbind, "unbind")
def unbind(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Shapes) -> Any:
    """One tensor for every position on an axis that is not that of the features."""
    size, dim = shape(0), argument(args, kwargs, 0, "dim", default=0)
    if size is None or not isinstance(dim, int):
        return UNSAFE
    place = from_end(dim, len(size))
    if isinstance(x, States) and place != -1:
        parts = np.moveaxis(
            np.broadcast_to(x.labels, (*x.labels.shape[:place], size[place], *_after(x, place))), place, 0
        )
        return tuple(settled(part, x) for part in parts)
    if not isinstance(x, Features) or place == x.axis:
        return UNSAFE
    return (x.moved(x.axis + 1 if place > x.axis else x.axis),) * size[place]


def _after(x: States, place: int) -> tuple[int, ...]:
    return x.labels.shape[place + 1 :]


@rule(torch.chunk, "chunk")
def chunk(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Shapes) -> Any:
    """Parts along another axis; or the directions of a layer whose directions keep equally many units."""
    size, parts = shape(0), argument(args, kwargs, 0, "chunks")
    dim = argument(args, kwargs, 1, "dim", default=0)
    if not isinstance(x, Features) or size is None or not isinstance(dim, int) or not isinstance(parts, int):
        return UNSAFE
    place = from_end(dim, len(size))
    if place != x.axis:
        return (x,) * _pieces(size[place], math.ceil(size[place] / parts))
    if x.family is None or len(x.labels) % (parts * x.family.size) or (x.labels < 0).any():
        return UNSAFE
    return tuple(Features(labels, x.axis, x.ports, x.family) for labels in np.split(x.labels, parts))


@rule(torch.split, "split")
def split(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Shapes) -> Any:
    """Parts along another axis. A number of features does not follow the cut."""
    size, given = shape(0), argument(args, kwargs, 0, "split_size_or_sections", "split_size")
    dim = argument(args, kwargs, 1, "dim", default=0)
    if not isinstance(x, Features) or size is None or not isinstance(dim, int):
        return UNSAFE
    place = from_end(dim, len(size))
    if place == x.axis:
        return UNSAFE
    if isinstance(given, tuple | list):
        return (x,) * len(given)
    return (x,) * _pieces(size[place], given) if isinstance(given, int) else UNSAFE


def _pieces(size: int, each: int) -> int:
    return max(1, math.ceil(size / each)) if each else 1
