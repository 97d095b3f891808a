"""A whole recurrent layer on packed weights: padded, packed or unbatched input, given or fresh states."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from jali.errors import DataError
from jali.inference.rows import Rows
from jali.plain import an


def run(module: nn.RNNBase, rows: list[list[Any]], x: Tensor, hx: Any) -> tuple[Any, Any]:
    """The whole layer on packed weights; shapes as PyTorch takes and gives them."""
    _check_input(module, x, (2, 3))
    unbatched = x.dim() == 2
    if unbatched:
        x = x.unsqueeze(1)
    time = 1 if module.batch_first and not unbatched else 0
    h, c = given_states(module, hx, x.shape[1 - time], unbatched, None)
    out = through(module, rows, x, time, (h, c))
    if unbatched:
        out, h, c = out.squeeze(1), h.squeeze(1), None if c is None else c.squeeze(1)
    return out, h if c is None else (h, c)


def run_packed(module: nn.RNNBase, rows: list[list[Any]], packed: PackedSequence, hx: Any) -> tuple[Any, Any]:
    """As :func:`run`, on a packed sequence."""
    _check_input(module, packed.data, (2,))
    sizes = packed.batch_sizes.numpy()
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    h, c = given_states(module, hx, int(sizes[0]), False, packed.sorted_indices)
    out = through(module, rows, packed.data, 0, (h, c), offsets)
    if packed.unsorted_indices is not None:
        h, c = (None if s is None else s.index_select(1, packed.unsorted_indices) for s in (h, c))  # type: ignore[assignment]
    return packed._replace(data=out), h if c is None else (h, c)


def through(
    module: nn.RNNBase, rows: list[list[Any]], x: Tensor, time: int, states: tuple[Tensor, Tensor | None], offsets: Any = None
) -> Tensor:  # fmt: skip
    """Outputs of all layers; ``states`` (slots, B, H) become the final ones. Works on addresses: a call costs little."""
    h, c = states
    batch, width = h.shape[1], module.hidden_size
    steps = x.shape[time] if offsets is None else len(offsets) - 1
    at_h, at_c, size = h.data_ptr(), 0 if c is None else c.data_ptr(), 4 * batch * width
    if x.requires_grad:
        x = x.detach()
    if x.is_neg():  # an imaginary part of a conjugate: its memory has the other sign
        x = x.resolve_neg()
    if x.stride(-1) != 1:
        x = x.contiguous()
    for row in rows:
        out = torch.empty(*x.shape[:-1], len(row) * width, dtype=torch.float32, device="cpu")
        target = Rows.of(out, time)
        for direction in row:
            direction.run(x, time, target, at_h, at_c, steps, batch, offsets)
            target = Rows(target.address + 4 * width, target.step, target.row)
            at_h, at_c = at_h + size, at_c and at_c + size
        x = out
    return x


def _check_input(module: nn.RNNBase, x: Tensor, axes: tuple[int, ...]) -> None:
    if x.dim() not in axes:
        raise DataError(f"the input has {x.dim()} axes; it must be (T, I), (T, B, I) or, with batch_first, (B, T, I)")
    if x.shape[-1] != module.input_size:
        raise DataError(f"the input has {x.shape[-1]} features, the layer reads {module.input_size}")


def given_states(
    module: nn.RNNBase, hx: Any, batch: int, unbatched: bool, order: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Fresh initial states (slots, B, H), which the run turns into the final ones; c is None but for an LSTM.

    ``hx``: the caller's, without B if ``unbatched``, or None for zeros; ``order`` of its sequences, or None.
    """
    slots = module.num_layers * (2 if module.bidirectional else 1)
    lstm = isinstance(module, nn.LSTM)
    count = 2 if lstm else 1
    if hx is None:
        zeros = [torch.zeros(slots, batch, module.hidden_size, dtype=torch.float32, device="cpu") for _ in range(count)]
        return zeros[0], zeros[1] if lstm else None
    if lstm != isinstance(hx, tuple | list) or (lstm and len(hx) != count):
        raise DataError(
            f"an initial state of {an('LSTM' if lstm else type(module).__name__)} is {'a pair (h, c)' if lstm else 'a tensor'}"
        )
    shape = (slots, module.hidden_size) if unbatched else (slots, batch, module.hidden_size)
    states = []
    for state in hx if lstm else (hx,):
        if (
            not isinstance(state, Tensor)
            or tuple(state.shape) != shape
            or state.dtype != torch.float32
            or not state.is_cpu
        ):
            got = f"{state.dtype} {tuple(state.shape)}" if isinstance(state, Tensor) else an(type(state).__name__)
            raise DataError(f"an initial state is {got}; it must be float32 {shape}, on the CPU")
        own = state.detach().unsqueeze(1) if unbatched else state.detach()
        states.append(
            (own if order is None else own.index_select(1, order)).clone(memory_format=torch.contiguous_format)
        )
    return states[0], states[1] if lstm else None
