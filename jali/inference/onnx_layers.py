"""Recurrent layers as single ONNX operators, with batch and time left open.

``torch.onnx`` unrolls ``nn.RNN`` and ``UnevenLayers`` over the steps of the example and fixes the length of the others.
Here each layer and direction becomes one operator ``RNN``, ``GRU`` or ``LSTM`` of the ONNX standard (operator set 14):
weights ``W (1, G·H, I)``, ``R (1, G·H, H)``, ``B (1, 2·G·H)`` with the gates in ONNX's order, ``i, o, f, c`` for LSTM and
``z, r, h`` for GRU with ``linear_before_reset`` (PyTorch's reset gate multiplies ``W h + b``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from jali.block_layers import BlockLayer
from jali.errors import DataError, ModelError
from jali.view import View, layer_views
from jali.widths import UnevenLayers

ORDER = {"RNN": (0,), "GRU": (1, 0, 2), "LSTM": (0, 3, 1, 2)}  # ONNX's gates as indices of PyTorch's
OPSET = 14


class OnnxDirection(nn.Module):
    """One layer and direction, time-major, as one ONNX operator. It can be traced for export, not run."""

    w: Tensor
    r: Tensor
    b: Tensor

    def __init__(self, view: View, like: nn.RNNBase) -> None:
        super().__init__()
        dtype: torch.dtype = like.weight_ih_l0.dtype  # type: ignore[assignment]
        self.kind, self.hidden = view.site.kind, view.hidden
        self.attributes: dict[str, Any] = {
            "hidden_size": view.hidden,
            "direction": "reverse" if view.site.reverse else "forward",
        }
        if isinstance(like, nn.GRU):
            self.attributes["linear_before_reset"] = 1
        if isinstance(like, nn.RNN):
            self.attributes["activations"] = ["Relu" if like.nonlinearity == "relu" else "Tanh"]
        zeros = np.zeros((view.gates, view.hidden))
        biases = [zeros if bias is None else bias for bias in (view.b_in, view.b_rec)]
        order = list(ORDER[view.site.kind])
        packed = {
            "w": view.w_in[order].reshape(1, -1, view.inputs),
            "r": view.recurrence()[order].reshape(1, -1, view.hidden),
            "b": np.concatenate([bias[order].reshape(1, -1) for bias in biases], axis=1),
        }
        for name, value in packed.items():
            self.register_buffer(name, torch.from_numpy(value).to(dtype))
        # Behind a projection the operator keeps the units; what is read of them is projected.
        self.projection = None if view.w_proj is None else torch.from_numpy(view.w_proj).to(dtype)
        self.lift = None if view.w_proj is None else torch.from_numpy(np.linalg.pinv(view.w_proj)).to(dtype)

    def forward(self, x: Tensor, h: Tensor | None, c: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Output (T, B, ·), final h (1, B, ·) and c (1, B, H) of input (T, B, I) from states (1, B, ·)."""
        steps, batch = x.shape[0], x.shape[1]
        start = x.new_zeros(1, batch, self.hidden) if h is None else h if self.lift is None else h @ self.lift.T
        inputs: list[Tensor | None] = [x, self.w, self.r, self.b, None, start]
        shapes = [(steps, 1, batch, self.hidden), (1, batch, self.hidden)]
        if self.kind == "LSTM":
            inputs.append(x.new_zeros(1, batch, self.hidden) if c is None else c)
            shapes.append((1, batch, self.hidden))
        out = torch.onnx.ops.symbolic_multi_out(
            self.kind, inputs, self.attributes, dtypes=[x.dtype] * len(shapes), shapes=shapes, version=OPSET
        )
        y, last = out[0].squeeze(1), out[1]
        if self.projection is not None:
            y, last = y @ self.projection.T, last @ self.projection.T
        return y, last, out[2] if self.kind == "LSTM" else None


class OnnxLayers(nn.Module):
    """Stands in for an ``nn.RNN``, ``nn.GRU``, ``nn.LSTM`` or an :class:`UnevenLayers` while a model is exported."""

    def __init__(self, layers: nn.RNNBase | UnevenLayers) -> None:
        super().__init__()
        self.uneven = isinstance(layers, UnevenLayers)
        self.batch_first, self.lstm = layers.batch_first, isinstance(layers, nn.LSTM) or getattr(layers, "lstm", False)
        self.layers = nn.ModuleList(nn.ModuleList(row) for row in _directions(layers))

    def forward(self, input: Tensor, hx: Any = None) -> tuple[Tensor, Any]:
        if isinstance(input, PackedSequence):
            raise ModelError("ONNX has no packed sequences; export the model with padded input")
        unbatched = input.dim() == 2
        x = input.unsqueeze(1) if unbatched else input.transpose(0, 1) if self.batch_first else input
        slots = self._slots(hx, unbatched)
        for states in slots:
            for state in states:
                if state is not None:  # lets the exporter know that these sizes are one and the same
                    torch._check(state.shape[1] == x.shape[1])
        finals: list[tuple[Tensor, Tensor | None]] = []
        for row in self.layers:
            outputs = []
            for direction in row:  # type: ignore[attr-defined]
                y, h, c = direction(x, *slots[len(finals)])
                outputs.append(y)
                finals.append((h.squeeze(1), None if c is None else c.squeeze(1)) if unbatched else (h, c))
            x = torch.cat(outputs, dim=-1) if len(outputs) > 1 else outputs[0]
        y = x.squeeze(1) if unbatched else x.transpose(0, 1) if self.batch_first else x
        return y, self._states(finals)

    def _slots(self, hx: Any, unbatched: bool) -> list[tuple[Tensor | None, Tensor | None]]:
        """Initial (h, c) of every layer and direction, each (1, B, ·) or None."""
        count = sum(isinstance(module, OnnxDirection) for module in self.modules())
        if hx is None:
            return [(None, None)] * count
        if self.uneven:
            pairs = [slot if self.lstm else (slot, None) for slot in hx]
        else:
            h, c = hx if self.lstm else (hx, None)
            for state in (h, c):
                if state is not None and state.shape[0] != count:
                    raise DataError(
                        f"an initial state has {state.shape[0]} rows, not one of {count} layers and directions"
                    )
            pairs = [(h[k : k + 1], None if c is None else c[k : k + 1]) for k in range(count)]
        if unbatched:
            return [(h.unsqueeze(1), None if c is None else c.unsqueeze(1)) for h, c in pairs]
        return pairs

    def _states(self, finals: Sequence[tuple[Tensor, Tensor | None]]) -> Any:
        if self.uneven:
            return tuple(finals) if self.lstm else tuple(h for h, _ in finals)
        h = torch.cat([h for h, _ in finals])
        return (h, torch.cat([c for _, c in finals if c is not None])) if self.lstm else h


def _directions(layers: nn.RNNBase | UnevenLayers) -> list[list[OnnxDirection]]:
    if not isinstance(layers, UnevenLayers):
        return [[OnnxDirection(view, layers) for view in row] for row in layer_views(layers)]
    found: list[list[OnnxDirection]] = []
    for row in layers.rows():
        found.append([])
        for reverse, module in enumerate(row):
            if isinstance(module, BlockLayer):
                module = module.plain()
            view = layer_views(module)[0][0]
            direction = OnnxDirection(view, module)
            direction.attributes["direction"] = "reverse" if reverse else "forward"
            found[-1].append(direction)
    return found
