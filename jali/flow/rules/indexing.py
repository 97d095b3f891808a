"""Operations that take parts of a tensor by position; the features must be taken whole."""

from __future__ import annotations

import operator
from typing import Any

import torch

from jali.flow.layout import Data, Features, Spread, States, settled
from jali.flow.rules.registry import (
    UNSAFE,
    Shapes,
    argument,
    constant,
    from_end,
    rule,
    same_features,
    sizes_given,
    treats_features_alike,
)


@rule(operator.getitem)
def getitem(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Shapes) -> Any:
    """An item of a tuple; or a tensor's part, with the features whole."""
    index = args[0]
    if isinstance(x, tuple | list):
        return x[index] if isinstance(index, int | slice) and constant(index) else UNSAFE
    size = shape(0)
    if not isinstance(x, Features | States) or size is None:
        return UNSAFE
    return _taken(x, list(index) if isinstance(index, tuple) else [index], len(size))


def _taken(x: Features | States, items: list[Any], rank: int) -> Any:
    taken = [_axes_taken(item) for item in items]
    if None in taken:
        return UNSAFE
    full = [slice(None)] * (rank - sum(taken))  # type: ignore[arg-type]
    if Ellipsis in items:
        at = items.index(Ellipsis)
        items[at : at + 1] = full
    else:
        items += full
    if isinstance(x, States):
        return _rows_taken(x, items)
    if any(isinstance(item, Data) for item in items):
        # A last axis that is taken whole stays last, wherever indexing by tensors puts the other axes.
        return x if x.axis == -1 and items[-1] == slice(None) else UNSAFE
    return _indexed(x, items, rank)


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


def _rows_taken(x: States, items: list[Any]) -> Any:
    """Index the labels as the tensor is indexed; along axes that do not matter they have one entry."""
    if not items or items[-1] != slice(None):
        return UNSAFE
    index: list[Any] = []
    axis = 0
    for item in items:
        if item is None:
            index.append(item)
            continue
        if isinstance(item, Data):
            return UNSAFE
        if x.labels.shape[axis] == 1:
            item = 0 if isinstance(item, int) else slice(None)
        elif not constant(item):
            return UNSAFE
        index.append(item)
        axis += 1
    labels = x.labels[tuple(index)]
    return settled(labels, x) if labels.size else UNSAFE


@rule(torch.select, "select")
def select(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Shapes) -> Any:
    """One position along an axis that is not that of the features."""
    size, dim, index = shape(0), argument(args, kwargs, 0, "dim"), argument(args, kwargs, 1, "index")
    if not isinstance(x, Features | States) or size is None or not isinstance(dim, int):
        return UNSAFE
    place = from_end(dim, len(size))
    if isinstance(x, Features):  # the position may be computed: every one of them has the same features
        return UNSAFE if place == x.axis else x.moved(x.axis + 1 if place > x.axis else x.axis)
    return _taken(x, [*[slice(None)] * (place + len(size)), index], len(size)) if isinstance(index, int) else UNSAFE


@rule(torch.narrow, torch.index_select, torch.cumsum, "narrow", "index_select", "cumsum")
def along_another_axis(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Shapes) -> Any:
    """Parts of, or sums along, an axis that is not that of the features."""
    size, dim = shape(0), argument(args, kwargs, 0, "dim")
    if not isinstance(x, Features) or size is None or not isinstance(dim, int):
        return UNSAFE
    return UNSAFE if from_end(dim, len(size)) == x.axis else x


@rule(torch.flip, "flip")
def flip(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Shapes) -> Any:
    """Backwards along other axes."""
    size, dims = shape(0), sizes_given(args, kwargs, "dims")
    if not isinstance(x, Features) or size is None or not dims or not constant(dims):
        return UNSAFE
    return UNSAFE if x.axis in [from_end(d, len(size)) for d in dims] else x


@rule(torch.gather, "gather")
def gather(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Shapes) -> Any:
    """Positions on another axis, which were expanded to the width of the same features."""
    size, dim, index = shape(0), argument(args, kwargs, 0, "dim"), argument(args, kwargs, 1, "index")
    if not isinstance(x, Features) or size is None or not isinstance(dim, int) or from_end(dim, len(size)) == x.axis:
        return UNSAFE
    return x if isinstance(index, Spread) and same_features(index, x) else UNSAFE


@rule(torch.take_along_dim, "take_along_dim")
def take_along_dim(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Shapes) -> Any:
    """Like gather, but one entry along the features is broadcast to all of them."""
    size, dim, index = shape(0), argument(args, kwargs, 1, "dim"), args[0] if args else None
    if not isinstance(x, Features) or size is None or not isinstance(dim, int) or from_end(dim, len(size)) == x.axis:
        return UNSAFE
    alike = isinstance(index, Data | Spread) and treats_features_alike(index, shape(1), x)
    return x if alike else UNSAFE
