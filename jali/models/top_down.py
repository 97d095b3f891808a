"""A multilayer RNN with feedback from every layer to the one below: object layer ↔ feature layer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

from jali.errors import ModelError
from jali.wired import Wire, WiredLayers


class Relations(NamedTuple):
    """Who influences whom, boolean ``[from, to]``: ``within`` each layer, from each to the next ``up``, and ``down``."""

    within: list[np.ndarray]
    up: list[np.ndarray]
    down: list[np.ndarray]


class TopDownRNN(WiredLayers):
    """``h_ℓ(t) = φ(U_ℓ h_{ℓ−1}(t) + T_ℓ h_{ℓ+1}(t−1) + W_ℓ h_ℓ(t−1) + b_ℓ)``, with h_{−1} the input and no T at the top.

    ``hidden_sizes``: the units of each layer from the input upwards. ``nonlinearity`` φ: "tanh" or "relu". ``weight_ih_l{ℓ}``
    is U_ℓ and T_ℓ side by side, ``weight_hh_l{ℓ}`` is W_ℓ. The output is the top layer. This is the network of paper 1,
    section III.D (R. Sengupta, *Lattice-based pruning in recurrent neural networks via poset modeling*), which gives no
    equations: the feedback comes one step late, as a layer above can only answer what it has seen.
    """

    KIND = "TopDownRNN"

    def __init__(
        self, input_size: int, hidden_sizes: Sequence[int], bias: bool = True, nonlinearity: str = "tanh"
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ModelError(f"nonlinearity {nonlinearity!r} is neither 'tanh' nor 'relu'")
        if not isinstance(hidden_sizes, Iterable):
            raise ModelError(
                f"hidden_sizes={hidden_sizes!r} is one number; give the units of every layer, e.g. hidden_sizes=(24, 12)"
            )
        self.hidden_sizes, self.nonlinearity = tuple(hidden_sizes), nonlinearity
        super().__init__(input_size, tuple(hidden_sizes), bias)

    def wires(self) -> tuple[Wire, ...]:
        below = (self.input_size, *self.sizes)
        own = [Wire(layer, layer, "w_rec", 0, delayed=True) for layer in range(len(self.sizes))]
        up = [Wire(layer, layer + 1, "w_in", 0, delayed=False) for layer in range(len(self.sizes) - 1)]
        down = [Wire(layer + 1, layer, "w_in", below[layer], delayed=True) for layer in range(len(self.sizes) - 1)]
        return (*own, *up, *down)

    def resized(self, input_size: int, sizes: tuple[int, ...]) -> TopDownRNN:
        return TopDownRNN(input_size, sizes, self.bias, self.nonlinearity)

    def steps(self, x: Tensor, state: Tensor) -> tuple[list[list[Tensor]], list[Tensor]]:
        h = list(state.split(self.sizes, dim=-1))
        seen, states = [[part] for part in h], []
        for t in range(x.shape[1]):
            before, below = list(h), x[:, t]
            for layer in range(len(self.sizes)):
                read = torch.cat((below, before[layer + 1]), -1) if layer + 1 < len(self.sizes) else below
                own = linear(before[layer], self.weight("weight_hh", layer), self.weight("bias", layer))
                a = own + linear(read, self.weight("weight_ih", layer))
                below = h[layer] = torch.tanh(a) if self.nonlinearity == "tanh" else torch.relu(a)
                seen[layer].append(below)
            states.append(torch.cat(h, dim=-1))
        return seen, states

    def feedback(self, layer: int) -> Tensor:
        """T_ℓ (H_ℓ, H_{ℓ+1}) as ``[to, from]``, a part of ``weight_ih_l{ℓ}``."""
        if not 0 <= layer < len(self.sizes) - 1:
            raise ModelError(f"layer {layer} has no feedback; of {len(self.sizes)} layers all but the last have")
        return self.weight("weight_ih", layer)[:, -self.sizes[layer + 1] :]

    def relations(self, threshold: float = 0.0) -> Relations:
        """Which units influence which: a weight of size above ``threshold``. For :mod:`jali.maths.feedback`."""

        def related(weight: Tensor) -> np.ndarray:
            return (weight.detach().abs() > threshold).T.cpu().numpy()

        layers = range(len(self.sizes))
        up = [related(self.weight("weight_ih", k)[:, :size]) for k, size in enumerate(self.sizes[:-1], start=1)]
        down = [related(self.feedback(low)) for low, _ in pairwise(layers)]
        return Relations([related(self.weight("weight_hh", layer)) for layer in layers], up, down)

    def remedy(self) -> str:
        bounded = "" if self.nonlinearity == "tanh" else "; relu is unbounded: scale the weights down, or use tanh"
        return super().remedy() + bounded
