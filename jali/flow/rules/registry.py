"""The table of rules, and what they share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from jali.flow.layout import Data, Features, Spread

UNSAFE = object()
Shape = tuple[int, ...] | None
# Shape of argument k (an item of the first argument if that is a list of tensors), or of the result for -1.
Shapes = Callable[[int], Shape]
Rule = Callable[[Any, list[Any], dict[str, Any], Shapes], Any]
RULES: dict[Any, Rule] = {}
# Targets whose rule itself judges arguments that depend on the number of features; others never see one.
TAKES_WIDTHS: set[Any] = set()


def rule(*targets: Any, widths: bool = False) -> Callable[[Rule], Rule]:
    """Register the rule of ``targets``: functions as they are, tensor methods by name."""

    def register(function: Rule) -> Rule:
        for target in targets:
            RULES[target] = function
        if widths:
            TAKES_WIDTHS.update(targets)
        return function

    return register


def constant(value: Any) -> bool:
    """A literal of the graph (no abstract value inside)."""
    if isinstance(value, tuple | list):
        return all(constant(item) for item in value)
    if isinstance(value, slice):
        return constant((value.start, value.stop, value.step))
    return value is None or value is Ellipsis or isinstance(value, bool | int | float | str)


def from_end(dim: int, rank: int) -> int:
    """``dim`` counted from the end, negative."""
    return dim - rank if dim >= 0 else dim


def argument(args: list[Any], kwargs: dict[str, Any], place: int, *names: str, default: Any = None) -> Any:
    """The argument after the tensor at ``place``, or by one of its names."""
    if len(args) > place:
        return args[place]
    return next((kwargs[name] for name in names if name in kwargs), default)


def sizes_given(args: list[Any], kwargs: dict[str, Any], name: str) -> list[Any]:
    """Sizes or axes given one by one or as a sequence."""
    given = args[0] if args and isinstance(args[0], tuple | list) else args or kwargs.get(name, ())
    return list(given)


def same_features(a: Any, b: Any) -> bool:
    """Whether two values have the same features in the same places."""
    return (
        isinstance(a, Features | Spread)
        and isinstance(b, Features | Spread)
        and a.axis == b.axis
        and np.array_equal(a.labels, b.labels)
    )


def treats_features_alike(value: Any, size: Shape, x: Features) -> bool:
    """Whether ``value``, broadcast against ``x``, is the same at every feature: a number, a mask over time, …"""
    if isinstance(value, bool | int | float):
        return True
    if isinstance(value, Spread):
        return same_features(value, x)
    return isinstance(value, Data) and size is not None and (len(size) < -x.axis or size[x.axis] == 1)
