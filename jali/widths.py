"""Modules that stand where PyTorch has none: layers of unequal width, and narrow layers with full-width outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from jali.errors import DataError
from jali.view import View, build
from jali.wired import WiredLayers


class UnevenLayers(nn.Module):
    """A stacked, possibly bidirectional RNN, GRU or LSTM whose layers and directions differ in width.

    Called like PyTorch's layers (batch first or not, packed or unbatched). The states are a tuple with one entry per
    layer and direction: ``h`` of shape (1, B, width), or ``(h, c)`` for an LSTM.
    """

    def __init__(self, layers: Sequence[Sequence[nn.RNNBase]], dropout: float = 0.0) -> None:
        """``layers[layer][direction]``: plain single layers; ``dropout`` between layers, in training mode."""
        super().__init__()
        first = layers[0][0]
        self.input_size, self.batch_first, self.proj_size = first.input_size, first.batch_first, first.proj_size
        self.lstm, self.dropout = isinstance(first, nn.LSTM) or bool(getattr(first, "lstm", False)), dropout
        self.num_layers, self.bidirectional = len(layers), len(layers[0]) == 2
        self.layers = nn.ModuleList(nn.ModuleList(directions) for directions in layers)
        self.train(first.training)

    @classmethod
    def of(cls, views: Sequence[Sequence[View]], like: nn.RNNBase) -> UnevenLayers:
        """The stack that holds ``views[layer][direction]``, of ``like``'s type and options."""
        return cls([[build([[alone(view)]], like) for view in directions] for directions in views], like.dropout)

    def forward(self, input: Any, hx: Sequence[Any] | None = None) -> tuple[Any, tuple[Any, ...]]:
        """Output and final states.

        ``input``: (T, B, I), batch first (B, T, I), unbatched (T, I), or packed. ``hx``: initial states, one entry per layer
        and direction (forward before reverse), zeros if None: ``h`` (1, B, width), or ``(h, c)`` for an LSTM; (1, width)
        unbatched; behind a projection h has its width. The output is as long as the input, with the last layer's widths
        (of both directions, one after the other) as its features; the final states have the form of ``hx``.
        Raises PyTorch's own errors for shapes that do not fit.
        """
        states: list[Any] = []
        x = input
        for depth, directions in enumerate(self.rows()):
            outputs = []
            for reverse, module in enumerate(directions):
                given = None if hx is None else hx[len(states)]
                flipped = _reversed(x, self.batch_first) if reverse else x
                y, state = module(flipped, given)
                outputs.append(_reversed(y, self.batch_first) if reverse else y)
                states.append(state)
            x = _joined(outputs)
            if self.dropout and depth + 1 < len(self.layers):
                x = _dropped(x, self.dropout, self.training)
        return x, tuple(states)

    def rows(self) -> list[list[nn.RNNBase]]:
        """The plain single layers, ``[layer][direction]``."""
        return [list(directions) for directions in self.layers]  # type: ignore[call-overload]

    def slot_states(self, hx: Sequence[Any] | None) -> tuple[Any, Any]:
        """Given states as ``(h per slot, c per slot)``; ``c`` is None but for an LSTM, both are None without states."""
        if hx is None or isinstance(hx[0], Tensor):
            return hx, None
        return tuple(h for h, _ in hx), tuple(c for _, c in hx)

    def flatten_parameters(self) -> None:
        """Compact the weights for cuDNN, as PyTorch's layers do."""
        for directions in self.rows():
            for module in directions:
                if isinstance(module, nn.RNNBase):
                    module.flatten_parameters()


def alone(view: View) -> View:
    """The view as that of a single forward layer."""
    return dataclasses.replace(view, site=dataclasses.replace(view.site, module="", layer=0, reverse=False))


def _joined(outputs: list[Any]) -> Any:
    if len(outputs) == 1:
        return outputs[0]
    if isinstance(outputs[0], PackedSequence):
        return outputs[0]._replace(data=torch.cat([y.data for y in outputs], dim=-1))
    return torch.cat(outputs, dim=-1)


def _dropped(x: Any, p: float, training: bool) -> Any:
    if isinstance(x, PackedSequence):
        return x._replace(data=F.dropout(x.data, p, training))
    return F.dropout(x, p, training)


def _reversed(x: Any, batch_first: bool) -> Any:
    """Every sequence backwards in time, packed sequences each within their own length."""
    if isinstance(x, PackedSequence):
        return x._replace(data=x.data.index_select(0, packed_reversal(x.batch_sizes).to(x.data.device)))
    return x.flip(1 if batch_first and x.dim() == 3 else 0)


def packed_reversal(batch_sizes: Tensor) -> Tensor:
    """Index that reverses each sequence inside packed data; its own inverse.

    Step t of sequence b is stored at ``offset[t] + b``; its mirror image is step ``length[b] - 1 - t``.
    """
    sizes = batch_sizes.cpu()
    offsets = torch.cumsum(sizes, 0) - sizes
    step = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
    sequence = torch.arange(int(sizes.sum())) - offsets[step]
    length = (sizes[:, None] > torch.arange(int(sizes[0]))[None, :]).sum(0)
    return offsets[length[sequence] - 1 - step] + sequence


class Widen(nn.Module):
    """Narrow features → full width. Removed features are zero, or with ``repair`` an affine map of the kept ones."""

    order: Tensor

    def __init__(self, keep: np.ndarray, size: int) -> None:
        super().__init__()
        removed = np.setdiff1d(np.arange(size), keep)
        self.kept, self.size = len(keep), size
        order = np.argsort(np.concatenate((keep, removed)))
        self.register_buffer("order", torch.from_numpy(order))
        # Registered by name, so that it can be None until a fold sets it.
        self.repair: nn.Linear | None
        self.register_module("repair", None)

    def forward(self, x: Tensor) -> Tensor:
        """(…, kept) → (…, size), every kept feature at its old place."""
        removed = x.new_zeros((*x.shape[:-1], self.size - self.kept)) if self.repair is None else self.repair(x)
        return torch.cat((x, removed), dim=-1).index_select(-1, self.order)

    def extra_repr(self) -> str:
        return f"{self.kept} -> {self.size}"


def _check_units(state: Tensor, size: int) -> None:
    """Choosing units would take a wider state in silence."""
    if state.shape[-1] != size:
        raise DataError(f"an initial state has {state.shape[-1]} units, the layer has {size}")


class FullWidth(nn.Module):
    """A narrow recurrent layer that its surroundings may treat as the layer it replaces.

    Initial states are taken at full width and narrowed. The output, ``h`` and ``c`` are each returned at full width
    where ``output``, ``h``, ``c`` say so. ``keep[slot]``: the kept units of each layer and direction; ``size``: the
    original number of units. Behind a projection the output and ``h`` have their width anyway.
    """

    def __init__(
        self,
        inner: nn.RNNBase | UnevenLayers,
        keep: Sequence[np.ndarray],
        hidden_size: int,
        *,
        output: bool,
        h: bool,
        c: bool,
    ) -> None:
        super().__init__()
        self.inner, self.hidden_size = inner, hidden_size
        self.input_size, self.num_layers, self.batch_first = inner.input_size, inner.num_layers, inner.batch_first
        self.bidirectional, self.proj_size = inner.bidirectional, inner.proj_size
        self.lstm = isinstance(inner, nn.LSTM) or bool(getattr(inner, "lstm", False))
        self.uneven = isinstance(inner, UnevenLayers)  # then states go in and out slot by slot
        directions = 2 if self.bidirectional else 1
        for slot, kept in enumerate(keep):
            self.register_buffer(f"keep_{slot}", torch.from_numpy(np.asarray(kept)))
        self.slots = len(keep)
        last = np.concatenate([k + d * hidden_size for d, k in enumerate(keep[-directions:])])
        self.output = Widen(last, directions * hidden_size) if output and not self.proj_size else None
        widen_h = h and not self.proj_size
        self.h = nn.ModuleList(Widen(k, hidden_size) for k in keep) if widen_h else None
        self.c = nn.ModuleList(Widen(k, hidden_size) for k in keep) if c and self.lstm else None
        self.train(inner.training)

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, Any]:
        """Output and final states, as the layer with H = ``hidden_size`` units would give them.

        ``input``: as for PyTorch's layers. ``hx``: ``h``, or ``(h, c)`` of an LSTM, each (layers · directions, B, H) at full
        width ((layers · directions, H) unbatched; behind a projection h has its width P), zeros if None; the entries of
        removed units are not read. The output (…, directions · H), ``h`` and ``c`` are at full width where ``output``,
        ``h``, ``c`` ask for it, with zeros or a repair in the removed features; elsewhere they have the kept units only:
        one tensor if all layers and directions are equally wide, else a tuple with one tensor (1, B, width) for each.
        Raises :class:`DataError` for an initial state with another number of rows or units.
        """
        y, state = self.inner(input, None if hx is None else self._narrow_state(hx))
        if self.output is not None:
            y = y._replace(data=self.output(y.data)) if isinstance(y, PackedSequence) else self.output(y)
        return y, self._wide_state(state)

    def _narrow_state(self, hx: Any) -> Any:
        if not self.lstm:
            return self._narrow(hx, units=True)
        h, c = self._narrow(hx[0], units=not self.proj_size), self._narrow(hx[1], units=True)
        return tuple(zip(h, c, strict=True)) if self.uneven else (h, c)

    def _narrow(self, state: Tensor, *, units: bool) -> Any:
        if state.shape[0] != self.slots:
            raise DataError(
                f"an initial state has {state.shape[0]} rows, the layer has {self.slots} layers and directions"
            )
        parts = [state[slot : slot + 1] for slot in range(self.slots)]
        if units:
            _check_units(state, self.hidden_size)
            parts = [part.index_select(-1, getattr(self, f"keep_{slot}")) for slot, part in enumerate(parts)]
        return tuple(parts) if self.uneven else torch.cat(parts)

    def _wide_state(self, state: Any) -> Any:
        if not self.lstm:
            return self._wide(state, self.h)
        if self.uneven:
            state = tuple(zip(*state, strict=True))
        return self._wide(state[0], self.h), self._wide(state[1], self.c)

    def _wide(self, parts: Any, widen: nn.ModuleList | None) -> Any:
        if widen is None:
            one_shape = isinstance(parts, tuple) and len({part.shape[-1] for part in parts}) == 1
            return torch.cat(parts) if one_shape else parts
        pieces = parts if isinstance(parts, tuple) else [parts[slot : slot + 1] for slot in range(self.slots)]
        return torch.cat([layer(piece) for layer, piece in zip(widen, pieces, strict=True)])

    def flatten_parameters(self) -> None:
        """Compact the weights for cuDNN, as PyTorch's layers do."""
        self.inner.flatten_parameters()


class FullWidthCell(nn.Module):
    """A narrow recurrent cell whose states have the full width outside."""

    keep: Tensor

    def __init__(self, inner: nn.RNNCellBase, keep: np.ndarray, hidden_size: int) -> None:
        super().__init__()
        self.inner, self.lstm = inner, isinstance(inner, nn.LSTMCell)
        self.input_size, self.hidden_size = inner.input_size, hidden_size
        self.register_buffer("keep", torch.from_numpy(keep))
        self.h = Widen(keep, hidden_size)
        self.c = Widen(keep, hidden_size) if self.lstm else None
        self.train(inner.training)

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        """One step: ``input`` (B, I) or (I,); ``hx`` is ``h``, or ``(h, c)`` of an LSTM, each (B, H) or (H,) at full width.

        Zeros if None; the entries of removed units are not read. Returns the new states in the same form, with zeros or a
        repair at the removed units. Raises :class:`DataError` for a state of another width, and PyTorch's own errors for
        other shapes that do not fit.
        """
        narrow: Any = None
        if hx is not None:
            for state in hx if self.lstm else (hx,):
                _check_units(state, self.hidden_size)
            narrow = tuple(s.index_select(-1, self.keep) for s in (hx if self.lstm else (hx,)))
            narrow = narrow if self.lstm else narrow[0]
        state = self.inner(input, narrow)
        if self.c is None:
            return self.h(state)
        return self.h(state[0]), self.c(state[1])


class FullWidthWired(nn.Module):
    """Narrow wired layers that their surroundings may treat as those they replace.

    ``keep``: the kept units of each layer, of ``sizes``. Initial states are taken at full width and narrowed; the output
    and the final state are each returned at full width where ``output`` and ``h`` say so.
    """

    keep: Tensor

    def __init__(
        self, inner: WiredLayers, keep: Sequence[np.ndarray], sizes: Sequence[int], *, output: bool, h: bool
    ) -> None:
        super().__init__()
        self.inner, self.input_size, self.sizes = inner, inner.input_size, tuple(sizes)
        first = np.cumsum([0, *sizes[:-1]])
        every = np.concatenate([units + start for units, start in zip(keep, first, strict=True)])
        self.register_buffer("keep", torch.from_numpy(every))
        self.output = Widen(keep[-1], sizes[-1]) if output else None
        self.h = Widen(every, sum(sizes)) if h else None
        self.train(inner.training)

    def kept(self) -> list[np.ndarray]:
        """The kept units of each layer."""
        every, first = self.keep.cpu().numpy(), np.cumsum(self.sizes)
        parts = np.split(every, np.searchsorted(every, first[:-1]))
        return [part - start for part, start in zip(parts, (0, *first[:-1]), strict=True)]

    def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As :meth:`jali.wired.WiredLayers.forward`; ``hx`` (B, ΣH) at full width, of which removed units are not read."""
        if hx is not None and hx.shape[-1] != sum(self.sizes):
            raise DataError(f"the initial state is {tuple(hx.shape)}; {(len(input), sum(self.sizes))} is wanted")
        y, h = self.inner(input, None if hx is None else hx.index_select(-1, self.keep))
        return (y if self.output is None else self.output(y)), (h if self.h is None else self.h(h))


class FullWidthLinear(nn.Module):
    """A narrow Linear whose output has the full width outside."""

    def __init__(self, inner: nn.Linear, keep: np.ndarray, out_features: int) -> None:
        super().__init__()
        self.inner, self.output = inner, Widen(keep, out_features)
        self.in_features, self.out_features = inner.in_features, out_features
        self.train(inner.training)

    def forward(self, input: Tensor) -> Tensor:
        """(…, in_features) → (…, out_features), with zeros or a repair in the removed features."""
        return self.output(self.inner(input))
