"""Packed sequences: the features are the last axis of their data."""

from __future__ import annotations

from typing import Any

from torch.nn.utils import rnn

from jali.flow.layout import Features
from jali.flow.rules.registry import UNSAFE, Shapes, rule


@rule(rnn.pack_padded_sequence)
def pack(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Shapes) -> Any:
    """The valid steps, in rows; the features stay last."""
    return x if isinstance(x, Features) and x.axis == -1 else UNSAFE


@rule(rnn.pad_packed_sequence)
def unpack(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Shapes) -> Any:
    """Padding is zero unless the caller asks for another value, which removed features would have, too."""
    padding = args[1] if len(args) > 1 else kwargs.get("padding_value", 0.0)
    return (x, None) if isinstance(x, Features) and padding == 0 else UNSAFE


@rule("_replace")
def repack(x: Any, args: list[Any], kwargs: dict[str, Any], shape: Shapes) -> Any:
    """``packed._replace(data=...)``: other rows in the same packing."""
    data = kwargs.get("data")
    return data if isinstance(data, Features) and data.axis == -1 else UNSAFE
