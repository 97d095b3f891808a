"""Operations that join tensors along an axis that they have, or along a new one."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from jali.flow.layout import Data, Family, Features, Port, States, settled
from jali.flow.rules.registry import UNSAFE, Shapes, argument, from_end, rule


@rule(torch.cat, torch.concat, torch.concatenate)
def cat(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Shapes) -> Any:
    """Along the features, whose labels follow one another, or along another axis, where they must be the same."""
    dim, result = argument(args, kwargs, 0, "dim", "axis", default=0), shape(-1)
    if not isinstance(x, tuple | list) or result is None or not isinstance(dim, int):
        return UNSAFE
    return _joined(x, from_end(dim, len(result)), [shape(k) for k in range(len(x))], len(result))


@rule(torch.hstack)
def hstack(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Shapes) -> Any:
    """``cat`` along axis 1, or 0 of vectors."""
    result = shape(-1)
    return UNSAFE if result is None else cat(x, [min(1, len(result) - 1)], {}, shape)


@rule(torch.vstack)
def vstack(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Shapes) -> Any:
    """``cat`` along axis 0, after vectors became rows."""
    first = shape(0)
    return UNSAFE if first is None else (stack if len(first) < 2 else cat)(x, [0], {}, shape)


@rule(torch.dstack)
def dstack(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Shapes) -> Any:
    """``cat`` along axis 2, which matrices get."""
    first = shape(0)
    return UNSAFE if first is None or len(first) < 2 else (stack if len(first) < 3 else cat)(x, [2], {}, shape)


@rule(torch.stack)
def stack(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Shapes) -> Any:
    """Along a new axis."""
    dim, result = argument(args, kwargs, 0, "dim", default=0), shape(-1)
    if not isinstance(x, tuple | list) or result is None or not isinstance(dim, int):
        return UNSAFE
    place = from_end(dim, len(result))
    parts: list[Any] = []
    for item in x:
        if isinstance(item, States) and place != -1:
            parts.append(settled(np.expand_dims(item.labels, place + item.labels.ndim + 1), item))
        elif isinstance(item, Features):
            # An axis after that of the features moves it one place from the end.
            parts.append(item.moved(item.axis - 1 if place >= item.axis else item.axis))
        else:
            return UNSAFE
    one = tuple(1 if axis == place + len(result) else n for axis, n in enumerate(result))
    return _joined(parts, place, [one] * len(parts), len(result))


def _joined(x: Any, axis: int, sizes: list[Any], rank: int) -> Any:
    """``x`` joined along ``axis`` (from the end); ``sizes``: their shapes, of rank ``rank``."""
    labelled = [item for item in x if isinstance(item, Features | States)]
    if not labelled or any(not isinstance(item, Features | States | Data) for item in x):
        return UNSAFE
    ports, family = frozenset[Port]().union(*(item.ports for item in labelled)), _common(labelled)
    if any(isinstance(item, States) for item in labelled):
        return _joined_rows(x, axis, sizes, rank, ports, family)
    return _joined_features(x, axis, sizes, rank, ports, family)


def _joined_features(
    x: Any, axis: int, sizes: list[Any], rank: int, ports: frozenset[Port], family: Family | None
) -> Any:
    labelled = [item for item in x if isinstance(item, Features)]
    first = labelled[0]
    if any(item.axis != first.axis for item in labelled):
        return UNSAFE
    if axis == first.axis:
        if any(size is None for size in sizes):
            return UNSAFE
        widths = zip(x, sizes, strict=True)
        parts = [i.labels if isinstance(i, Features) else np.full(size[axis], -1) for i, size in widths]
        return Features(np.concatenate(parts), axis, ports, family)
    if len(labelled) < len(x):
        return UNSAFE
    if all(np.array_equal(item.labels, first.labels) for item in labelled):
        return Features(first.labels, first.axis, ports, family)
    return _joined_rows(x, axis, sizes, rank, ports, family)


def _common(labelled: list[Any]) -> Family | None:
    families = {item.family for item in labelled}
    return families.pop() if len(families) == 1 else None


def _joined_rows(x: Any, axis: int, sizes: list[Any], rank: int, ports: frozenset[Port], family: Family | None) -> Any:
    """Join tensors whose features are last, and which may differ from row to row.

    Along another axis than the last, every row must keep equally many features: the widths fit after the cut as before.
    """
    parts = []
    for item, size in zip(x, sizes, strict=True):
        if size is None or (isinstance(item, Features) and item.axis != -1) or (isinstance(item, Data) and axis != -1):
            return UNSAFE
        labels = np.full(size[-1], -1) if isinstance(item, Data) else item.labels
        labels = labels.reshape((1,) * (rank - labels.ndim) + labels.shape)
        parts.append(labels if axis == -1 else np.repeat(labels, size[axis] // labels.shape[axis], axis))
    others = [[n for k, n in enumerate(part.shape[:-1]) if k != axis + rank] for part in parts]
    common = list(np.broadcast_shapes(*others))
    whole = []
    for part in parts:
        full = [*common, part.shape[-1]]
        if axis != -1:
            full.insert(axis + rank, part.shape[axis])
        whole.append(np.broadcast_to(part, full))
    if axis != -1:
        counts = {int(n) for part in whole for n in (part >= 0).sum(-1).reshape(-1)}
        if family is None or len(counts) != 1:
            return UNSAFE
    return settled(np.concatenate(whole, axis), States(parts[0], ports, family))
