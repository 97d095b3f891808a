"""Calls that repeat: dense sequences of one shape, no given state. All sizes are known, so little is left but arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Call = Callable[[Tensor], tuple[Tensor, Any]]


def repeated_call(module: nn.RNNBase, rows: Sequence[Sequence[Any]], shape: Sequence[int]) -> Call:
    """What runs ``module`` on packed ``rows`` [layer][direction], on one thread, for contiguous x of ``shape``, from zero states.

    x is (B, T, I) or (T, B, I), as the module takes it; the result is the module's.
    """
    time = 1 if module.batch_first else 0
    steps, batch, width = shape[time], shape[1 - time], module.hidden_size
    nothing = torch.empty(sum(map(len, rows)), batch, width, dtype=torch.float32, device="cpu")
    size = 4 * batch * width
    lstm = isinstance(module, nn.LSTM)
    layers = []
    for row, features in zip(rows, [module.input_size, *(len(row) * width for row in rows)], strict=False):
        like = nothing.new_empty(1).expand(
            *shape[:2], len(row) * width
        )  # empty_like is the cheapest way to make a tensor
        layers.append((like, _strides(shape, time, features), _strides(shape, time, like.shape[2]), row))

    def call(x: Tensor) -> tuple[Tensor, Any]:
        h = torch.empty_like(nothing)
        c = torch.empty_like(nothing) if lstm else None
        at_h, at_c, source = h.data_ptr(), 0 if c is None else c.data_ptr(), x.data_ptr()
        for like, read, written, row in layers:
            out = torch.empty_like(like, memory_format=torch.contiguous_format)
            target = first = out.data_ptr()
            for direction in row:
                direction.call((source, *read), (target, *written), at_h, at_c, steps, batch, 0, True)
                target, at_h, at_c = target + 4 * width, at_h + size, at_c and at_c + size
            x, source = out, first
        return x, h if c is None else (h, c)

    return call


def _strides(shape: Sequence[int], time: int, features: int) -> tuple[int, int]:
    """Bytes from one step and from one sequence to the next, of float32 (·, ·, features) without gaps."""
    outer, inner = 4 * shape[1] * features, 4 * features
    return (inner, outer) if time else (outer, inner)
