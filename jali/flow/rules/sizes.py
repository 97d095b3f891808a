"""Sizes and other attributes of a tensor: plain data, but for the width of the features, which the cut changes."""

from __future__ import annotations

from typing import Any

from jali.flow.layout import Escaped, Features, States, Width
from jali.flow.rules.reductions import Extremum
from jali.flow.rules.registry import UNSAFE, Shapes, rule


@rule("size", getattr)
def size_of(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Shapes) -> Any:
    """``x.shape``, ``x.size(…)`` and plain attributes."""
    if args and isinstance(args[0], str) and args[0] != "shape":
        return _attribute(x, args[0])
    size = shape(0)
    if not isinstance(x, Features | States) or size is None:
        return UNSAFE
    # The rows of states have different features: their width is that of no features in particular.
    axis, width = (x.axis, Width(x.ports, x.labels)) if isinstance(x, Features) else (-1, Escaped(x.ports))
    sizes = [width if place == axis + len(size) else None for place in range(len(size))]
    place = args[0] if args else kwargs.get("dim")
    return sizes[place] if isinstance(place, int) else tuple(sizes)


def _attribute(x: Any, name: str) -> Any:
    """``x.device`` and the like of a tensor; the data and the order of a PackedSequence, whose features are last."""
    if name == "data" and isinstance(x, Features):
        return x
    if name in ("values", "indices") and isinstance(x, Extremum):
        return getattr(x, name)
    plain = ("device", "dtype", "ndim", "is_cuda", "requires_grad", "batch_sizes", "sorted_indices", "unsorted_indices")
    return None if name in plain else UNSAFE


@rule("dim", "ndimension", "is_contiguous")
def rank_of(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Shapes) -> Any:
    """What the cut does not change."""
    return None
