"""Operations entry by entry: f(0) = 0 keeps a removed feature zero, and the others do not see it."""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from jali.flow.layout import Data, Features, Spread, States
from jali.flow.rules.registry import UNSAFE, Shape, Shapes, argument, rule, same_features, treats_features_alike

ZERO_PRESERVING_MODULES = (
    nn.Identity, nn.Dropout, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Tanh, nn.Tanhshrink, nn.Softsign, nn.Hardswish, nn.Softshrink, nn.Hardshrink,
)  # fmt: skip
# What a constant along the features may pass through, too: copies and conversions.
COPIES = (
    torch.clone, torch.detach, "clone", "contiguous", "detach", "float", "double", "half", "bfloat16", "to", "cpu",
    "cuda", "type_as",
)  # fmt: skip
ZERO_PRESERVING = (
    F.dropout, F.relu, F.relu6, F.leaky_relu, F.elu, F.celu, F.selu, F.gelu, F.silu, F.mish, F.tanh, F.softsign,
    F.hardswish, torch.relu, torch.tanh, torch.neg, torch.abs, torch.square, torch.sqrt, torch.sin, torch.zeros_like,
    operator.neg, "relu", "relu_", "tanh", "neg", "abs", "square", *COPIES,
)  # fmt: skip


@rule(*ZERO_PRESERVING)
def elementwise(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Shapes) -> Any:
    """f(0) = 0, entry by entry."""
    return x if isinstance(x, Features | States) else UNSAFE


@rule(*COPIES)
def copied(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Shapes) -> Any:
    """The same values elsewhere, or in another type of number."""
    return x if isinstance(x, Features | States | Spread) else UNSAFE


@rule("bool", "long", "int", operator.invert, torch.logical_not)
def converted(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Shapes) -> Any:
    """Masks and positions that were widened stay constant along the features; features themselves do not stay zero."""
    return x if isinstance(x, Spread) else UNSAFE


@rule(
    torch.add, torch.sub, torch.maximum, torch.minimum, operator.add, operator.sub, operator.iadd, operator.isub,
    "add", "sub", "maximum", "minimum",
)  # fmt: skip
def combined(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Shapes) -> Any:
    """Two tensors of the same features, as a residual has them: 0 ± 0 = 0. Anything else would fill the zeros."""
    other = argument(args, kwargs, 0, "other")
    if not isinstance(x, Features) or not isinstance(other, Features) or not same_features(x, other):
        return UNSAFE
    return Features(x.labels, x.axis, x.ports | other.ports, x.family)


@rule(torch.mul, operator.mul, "mul")
def multiply(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Shapes) -> Any:
    """Times a number, a tensor that is alike at every feature (either order), or one of the same features."""
    other = args[0] if args else None
    if isinstance(x, Features) and isinstance(other, Features):
        return combined(x, args, {}, shape)
    if isinstance(other, Features | States):
        return _scaled(other, x, shape(0))
    return _scaled(x, other, shape(1))


@rule(torch.div, operator.truediv, "div")
def divide(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Shapes) -> Any:
    """By a number, or a tensor that is alike at every feature; 1 / features would divide by zero."""
    return _scaled(x, args[0], shape(1)) if args else UNSAFE


def _scaled(x: Any, factor: Any, size: Shape) -> Any:
    if isinstance(x, States):
        return x if isinstance(factor, int | float) else UNSAFE
    return x if isinstance(x, Features) and treats_features_alike(factor, size, x) else UNSAFE


@rule(torch.masked_fill, "masked_fill")
def masked_fill(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Shapes) -> Any:
    """Zeros at places that are alike at every feature. Another value would fill removed features, too."""
    value = argument(args, kwargs, 1, "value")
    zero = isinstance(value, int | float) and value == 0
    if not isinstance(x, Features) or not args or not zero:
        return UNSAFE
    return x if isinstance(args[0], Data | Spread) and treats_features_alike(args[0], shape(1), x) else UNSAFE


@rule(torch.where)
def where(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Shapes) -> Any:
    """``where(condition, a, b)`` of the same features, or of features and the number 0."""
    labelled = [item for item in args if isinstance(item, Features)]
    zeros = [item for item in args if isinstance(item, int | float) and item == 0]
    if not labelled or len(args) != 2 or len(labelled) + len(zeros) != 2:
        return UNSAFE
    first = labelled[0]
    alike = isinstance(x, Data | Spread) and treats_features_alike(x, shape(0), first)
    if not alike or not all(same_features(first, item) for item in labelled):
        return UNSAFE
    ports = frozenset().union(*(item.ports for item in labelled))
    return Features(first.labels, first.axis, ports, first.family)
