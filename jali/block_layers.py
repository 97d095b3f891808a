"""A recurrent layer of independent blocks: every step is one batched product of k small matrices.

A step of B sequences costs ``G · B · Σ n_b²`` multiply-adds, and not ``G · B · H²``: with k equal blocks 1/k of the work.
Smaller blocks are padded to the largest by units that stay zero: their weights and biases are, and so are their gradients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from jali.errors import DataError, ModelError
from jali.site import GATES, LAYERS
from jali.view import View

SUMS = 2**19  # floats of input products that are made at once: 2 MB stay in the cache until they are read
FIELDS = {"weight_ih": "w_in", "weight_hh": "w_rec", "bias_ih": "b_in", "bias_hh": "b_rec"}


class BlockLayer(nn.Module):
    """One layer and direction of an RNN, GRU or LSTM whose recurrence is block-diagonal; it can be trained.

    Called like PyTorch's layers of one direction (batch first or not, packed or unbatched). k blocks of at most n units, G gates:
    ``weight_ih`` (k · G · n, I), ``weight_hh`` (k, n, G · n) as [block, from, gate and to], ``bias_ih`` (k · G · n), ``bias_hh``
    (k, 1, G · n); the biases are None in a layer without. Outputs and states have the units block after block, (…, H).
    """

    weight_ih: Tensor
    weight_hh: Tensor
    places: Tensor
    proj_size = 0

    def __init__(
        self, kind: str, nonlinearity: str, input_size: int, sizes: Sequence[int], batch_first: bool, bias: bool
    ) -> None:
        """Without values; :meth:`of` gives them. ``sizes``: units per block, ``kind`` and ``nonlinearity`` as in PyTorch."""
        super().__init__()
        k, n, gates = len(sizes), max(sizes), GATES[kind]
        self.kind, self.nonlinearity, self.input_size, self.batch_first = kind, nonlinearity, input_size, batch_first
        self.sizes, self.hidden_size, self.lstm, self.bias = tuple(sizes), sum(sizes), kind == "LSTM", bias
        self.weight_ih = nn.Parameter(torch.empty(k * gates * n, input_size))
        self.weight_hh = nn.Parameter(torch.empty(k, n, gates * n))
        self.bias_ih = nn.Parameter(torch.empty(k * gates * n)) if bias else None
        self.bias_hh = nn.Parameter(torch.empty(k, 1, gates * n)) if bias else None
        places = np.concatenate([b * n + np.arange(size) for b, size in enumerate(sizes)])
        self.register_buffer("places", torch.from_numpy(places), persistent=False)

    @classmethod
    def of(cls, view: View, blocks: Sequence[np.ndarray], like: nn.RNNBase) -> BlockLayer:
        """The layer of ``view`` with the units ``blocks[b]`` in block b; dtype, device and options of ``like``.

        What the recurrent weights between blocks hold is not looked at. Raises :class:`ModelError` for a projection, or blocks
        that are no division of the units.
        """
        if view.w_rec is None or view.w_proj is not None:
            raise ModelError(f"site {view.site.name!r} has no square recurrence, so it has no independent blocks")
        if sorted(np.concatenate([*blocks, []]).tolist()) != list(range(view.hidden)):
            raise ModelError(f"the blocks do not hold each of the {view.hidden} units of {view.site.name!r} once")
        made = cls(
            view.site.kind, getattr(like, "nonlinearity", "tanh"), view.inputs, [len(units) for units in blocks],
            like.batch_first, view.b_in is not None,
        )  # fmt: skip
        weight: Tensor = like.weight_ih_l0  # type: ignore[assignment]
        made = made.to(weight.device, weight.dtype).train(like.training)
        with torch.no_grad():
            old = view.site.parameter_names()
            for name, value in _packed(view, blocks).items():
                parameter = getattr(made, name)
                parameter.copy_(torch.from_numpy(value).reshape(parameter.shape))
                parameter.requires_grad_(getattr(like, old[FIELDS[name]]).requires_grad)
        return made

    @property
    def options(self) -> dict[str, Any]:
        """What the constructor takes, but for ``sizes``."""
        return {name: getattr(self, name) for name in ("kind", "nonlinearity", "input_size", "batch_first", "bias")}

    def plain(self) -> nn.RNNBase:
        """PyTorch's layer of the same units in the same order, its recurrent weights zero between the blocks."""
        cls = next(cls for cls, kind in LAYERS.items() if kind == self.kind)
        options: dict[str, Any] = {"nonlinearity": self.nonlinearity} if self.kind == "RNN" else {}
        with torch.device("meta"):
            made = cls(self.input_size, self.hidden_size, bias=self.bias, batch_first=self.batch_first, **options)
        made = made.to_empty(device=self.weight_ih.device).to(self.weight_ih.dtype).train(self.training)
        k, n, gates, places = len(self.sizes), max(self.sizes), GATES[self.kind], self.places
        wide = self.weight_hh.new_zeros(gates, k, n, k, n)
        for b, weight in enumerate(self.weight_hh.detach()):
            wide[:, b, :, b] = weight.reshape(n, gates, n).permute(1, 2, 0)  # [gate, to, from]
        square = wide.reshape(gates, k * n, k * n)[:, places][:, :, places]
        parts = {"weight_hh": square}
        for name in ("weight_ih", "bias_ih", "bias_hh"):
            if (value := getattr(self, name)) is not None:
                rows = value.detach().reshape(k, gates, n, -1).transpose(0, 1)
                parts[name] = rows.reshape(gates, k * n, -1)[:, places]
        with torch.no_grad():
            for name, part in parts.items():
                parameter = getattr(made, f"{name}_l0")
                parameter.copy_(part.reshape(parameter.shape))
                parameter.requires_grad_(getattr(self, name).requires_grad)
        return made

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, Any]:
        """Output and final state, as PyTorch's layer with one direction gives them: h (1, B, H), or (h, c) for an LSTM.

        ``input``: (T, B, I), batch first (B, T, I), unbatched (T, I), or packed; ``hx``: h, or (h, c), zeros if None.
        Raises :class:`DataError` for shapes that do not fit.
        """
        packed = isinstance(input, PackedSequence)
        x = input.data if packed else input
        if x.shape[-1] != self.input_size or x.dim() not in ((2,) if packed else (2, 3)):
            raise DataError(
                f"the input has shape {tuple(x.shape)}; its last axis must be the {self.input_size} features"
            )
        unbatched = not packed and x.dim() == 2
        if unbatched:
            x = x.unsqueeze(1)
        elif not packed and self.batch_first:
            x = x.transpose(0, 1)
        sizes = input.batch_sizes.tolist() if packed else [x.shape[1]] * len(x)
        order = input.sorted_indices if packed else None
        state = self._start(hx, x, sizes[0] if packed else x.shape[1], unbatched, order)
        y, state = self._run(x.reshape(-1, self.input_size), sizes, state)
        if packed:
            back = input.unsorted_indices
            final = [part if back is None else part.index_select(1, back) for part in state]
            return input._replace(data=y), self._given(final)
        y = y.reshape(*x.shape[:2], self.hidden_size)
        if unbatched:
            return y.squeeze(1), self._given([part.squeeze(1) for part in state])
        return y.transpose(0, 1) if self.batch_first else y, self._given(state)

    def _run(self, rows: Tensor, sizes: Sequence[int], state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Outputs (N, H) of the steps' rows (N, I), ``sizes[t]`` of them at step t, and the final states (1, B, H)."""
        state, outputs = [self._spread(part) for part in state], []
        for now in self._fed(rows, sizes):
            done = state[0].shape[1] - now.shape[1]  # sequences that have ended keep their states
            if done:
                new = self._cell(now, [part[:, :-done] for part in state])
                state = [torch.cat((a, b[:, -done:]), 1) for a, b in zip(new, state, strict=True)]
            else:
                new = state = self._cell(now, state)
            outputs.append(new[0])
        y = torch.cat(outputs, 1) if outputs else state[0][:, :0]
        return self._gathered(y), [self._gathered(part).unsqueeze(0) for part in state]

    def _fed(self, rows: Tensor, sizes: Sequence[int]) -> Iterator[Tensor]:
        """What the inputs add to the sums of every step, (k, B, G · n); both biases where they only ever add up."""
        bias: Tensor | None = self.bias_ih
        if bias is not None and self.bias_hh is not None and self.kind != "GRU":
            bias = bias + self.bias_hh.reshape(-1)
        count = max(1, SUMS // len(self.weight_ih) // max(sizes, default=1))
        first = 0
        for start in range(0, len(sizes), count):
            some = list(sizes[start : start + count])
            fed = nn.functional.linear(rows[first : first + sum(some)], self.weight_ih, bias)
            first += sum(some)
            yield from fed.reshape(len(fed), len(self.sizes), -1).transpose(0, 1).split(some, 1)

    def _cell(self, fed: Tensor, state: list[Tensor]) -> list[Tensor]:
        """The next state from the input's sums (k, B, G · n); a GRU's recurrent bias is still to come."""
        h, weight = state[0], self.weight_hh
        if self.kind == "GRU":
            n = h.shape[-1]
            back = torch.bmm(h, weight) if self.bias_hh is None else torch.baddbmm(self.bias_hh, h, weight)
            r, z = torch.sigmoid(fed[..., : 2 * n] + back[..., : 2 * n]).chunk(2, -1)
            new = torch.tanh(fed[..., 2 * n :] + r * back[..., 2 * n :])
            return [new + z * (h - new)]
        sums = torch.baddbmm(fed, h, weight)
        if self.kind == "RNN":
            return [torch.relu(sums) if self.nonlinearity == "relu" else torch.tanh(sums)]
        i, f, g, o = sums.chunk(4, -1)
        c = torch.addcmul(torch.sigmoid(f) * state[1], torch.sigmoid(i), torch.tanh(g))
        return [torch.sigmoid(o) * torch.tanh(c), c]

    def _spread(self, state: Tensor) -> Tensor:
        """(1, B, H) → (k, B, n), zeros in the padding."""
        k, n = len(self.sizes), max(self.sizes)
        wide = state.new_zeros(state.shape[1], k * n).index_copy(1, self.places, state[0])
        return wide.reshape(-1, k, n).transpose(0, 1)

    def _gathered(self, blocks: Tensor) -> Tensor:
        """(k, N, n) → (N, H) without the padding."""
        flat = blocks.transpose(0, 1).reshape(blocks.shape[1], -1)
        return flat if flat.shape[1] == self.hidden_size else flat.index_select(1, self.places)

    def _start(self, hx: Any, x: Tensor, batch: int, unbatched: bool, order: Tensor | None) -> list[Tensor]:
        shape = (1, batch, self.hidden_size)
        if hx is None:
            return [x.new_zeros(shape) for _ in range(2 if self.lstm else 1)]
        parts = [part.unsqueeze(1) if unbatched else part for part in (hx if self.lstm else (hx,))]
        for part in parts:
            if tuple(part.shape) != shape:
                raise DataError(f"an initial state has shape {tuple(part.shape)}; it must be {shape}")
        return parts if order is None else [part.index_select(1, order) for part in parts]

    def _given(self, state: list[Tensor]) -> Any:
        return tuple(state) if self.lstm else state[0]

    def extra_repr(self) -> str:
        """What the layer prints of itself."""
        sizes = f"{max(self.sizes)}" if len(set(self.sizes)) == 1 else f"{min(self.sizes)} to {max(self.sizes)}"
        return f"{self.kind}, {self.input_size} -> {self.hidden_size}, {len(self.sizes)} blocks of {sizes}"


def _packed(view: View, blocks: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """The parameters of :class:`BlockLayer` as arrays, flattened behind the block."""
    k, n = len(blocks), max(len(units) for units in blocks)
    parts = [view.cut(units) for units in blocks]
    shapes: dict[str, tuple[int, ...]] = {"weight_ih": (view.gates, n, view.inputs), "weight_hh": (n, view.gates, n)}
    if view.b_in is not None:
        shapes |= {"bias_ih": (view.gates, n), "bias_hh": (view.gates, n)}
    out = {name: np.zeros((k, *shape)) for name, shape in shapes.items()}
    for b, part in enumerate(parts):
        size = part.hidden
        out["weight_ih"][b, :, :size] = part.w_in
        out["weight_hh"][b, :size, :, :size] = part.recurrence().transpose(
            2, 0, 1
        )  # [gate, to, from] to [from, gate, to]
        if part.b_in is not None and part.b_rec is not None:
            out["bias_ih"][b, :, :size], out["bias_hh"][b, :, :size] = part.b_in, part.b_rec
    return out
