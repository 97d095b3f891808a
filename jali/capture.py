"""Watch a model run: what every module is given, and the states of every recurrent layer and direction.

PyTorch's fused layers show only the last layer's states. Here each layer and direction is run on its own, from the
captured inputs, so that the states of all of them are seen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from jali.batches import Batch, run
from jali.modes import evaluation_mode
from jali.view import View, build
from jali.widths import UnevenLayers


@dataclass(frozen=True)
class Call:
    """One call of a recurrent layer: ``x`` (B, T, I), ``lengths`` (B,), initial ``h`` and ``c`` per slot or None."""

    x: Tensor
    lengths: Tensor
    h: Tensor | Sequence[Tensor] | None = None
    c: Tensor | Sequence[Tensor] | None = None

    @property
    def valid(self) -> Tensor:
        """True where a time step belongs to the sequence, (B, T)."""
        return torch.arange(self.x.shape[1])[None, :] < self.lengths[:, None]


def inputs_of(model: nn.Module, paths: Iterable[str], data: Sequence[Batch]) -> dict[str, list[tuple[Any, ...]]]:
    """Module path → the positional and keyword arguments ``(args, kwargs)`` of each of its calls, in order.

    The paths come in the order in which they are first called; those that never are come last. The model runs in
    evaluation mode without gradients and is left as it was.
    """
    calls: dict[str, list[tuple[Any, ...]]] = {path: [] for path in paths}
    order: dict[str, None] = {}
    with ExitStack() as stack, torch.no_grad(), evaluation_mode(model):
        for path, seen in calls.items():
            handle = model.get_submodule(path).register_forward_pre_hook(_recorder(path, seen, order), with_kwargs=True)
            stack.callback(handle.remove)
        for batch in data:
            run(model, batch)
    return {path: calls[path] for path in [*order, *(path for path in calls if path not in order)]}


def _recorder(path: str, seen: list[tuple[Any, ...]], order: dict[str, None]):  # type: ignore[no-untyped-def]
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        order.setdefault(path)
        seen.append((args, kwargs))

    return hook


def input_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What a layer, cell or Linear was given as its input: a tensor or PackedSequence."""
    return args[0] if args else kwargs["input"]


def state_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The initial state that a layer or cell was given: ``h``, ``(h, c)``, or None."""
    return args[1] if len(args) > 1 else kwargs.get("hx")


def layer_call(module: nn.RNNBase | UnevenLayers, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    """A captured call of ``module`` in batch-first, padded form, on the CPU."""
    x, state = input_of(args, kwargs), state_of(args, kwargs)
    if isinstance(module, UnevenLayers):
        h, c = module.slot_states(state)
    else:
        h, c = state if isinstance(state, tuple | list) else (state, None)
    if isinstance(x, PackedSequence):
        padded, lengths = pad_packed_sequence(x, batch_first=True)
        # pad_packed_sequence restores the caller's order, in which the given states are, too.
        return Call(padded.cpu(), lengths.cpu(), _cpu(h), _cpu(c))
    if x.dim() == 2:
        x = x.unsqueeze(0)
        h, c = (None if s is None else [part.reshape(1, 1, -1) for part in s] for s in (h, c))
    elif not module.batch_first:
        x = x.transpose(0, 1)
    return Call(x.cpu(), torch.full((x.shape[0],), x.shape[1]), _cpu(h), _cpu(c))


def _cpu(state: Tensor | Sequence[Tensor] | None) -> Tensor | Sequence[Tensor] | None:
    if state is None or isinstance(state, Tensor):
        return None if state is None else state.cpu()
    return [part.cpu() for part in state]


@torch.no_grad()
def run_direction(view: View, call: Call, like: nn.RNNBase, slot: int) -> tuple[Tensor, Tensor]:
    """States of one layer and direction on one call: before and after each step, both (B, T, R), in the order of time.

    "Before" is what the recurrent weights read (R = H, or P with a projection). For the reverse direction, before is
    the state of the following step. Padding is zero in both.
    """
    reverse = view.site.reverse
    x = reverse_within(call.x, call.lengths) if reverse else call.x
    forward = dataclasses.replace(view, site=dataclasses.replace(view.site, layer=0, reverse=False))
    module = build([[forward]], like).cpu().eval()
    width = module.proj_size or module.hidden_size
    h = _initial(call.h, slot, x, width)
    state: Any = (h, _initial(call.c, slot, x, module.hidden_size)) if isinstance(module, nn.LSTM) else h
    module.batch_first = True
    after = module(x, state)[0]
    before = torch.cat((h.transpose(0, 1), after[:, :-1]), dim=1)
    valid = call.valid.unsqueeze(-1)
    before, after = before * valid, after * valid
    if reverse:
        before, after = reverse_within(before, call.lengths), reverse_within(after, call.lengths)
    return before, after


def _initial(state: Tensor | Sequence[Tensor] | None, slot: int, x: Tensor, width: int) -> Tensor:
    return x.new_zeros(1, x.shape[0], width) if state is None else state[slot].reshape(1, x.shape[0], -1)


def reverse_within(x: Tensor, lengths: Tensor) -> Tensor:
    """Each sequence of (B, T, ·) reversed within its own length; the padding stays behind."""
    steps = torch.arange(x.shape[1])[None, :].expand(x.shape[0], -1)
    index = torch.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps)
    return torch.gather(x, 1, index.unsqueeze(-1).expand_as(x))


def layer_states(views: Sequence[Sequence[View]], call: Call, like: nn.RNNBase) -> list[list[tuple[Tensor, Tensor]]]:
    """``[layer][direction]`` → states (before, after) of one call, each layer reading the one below.

    Dropout between layers is off, as in evaluation mode.
    """
    states: list[list[tuple[Tensor, Tensor]]] = []
    for depth, directions in enumerate(views):
        slots = range(depth * len(directions), (depth + 1) * len(directions))
        row = [run_direction(view, call, like, slot) for slot, view in zip(slots, directions, strict=True)]
        states.append(row)
        call = dataclasses.replace(call, x=torch.cat([after for _, after in row], dim=-1))
    return states


def unit_states(view: View, call: Call, like: nn.LSTM, slot: int) -> tuple[Tensor, Tensor]:
    """As :func:`run_direction`, for the units behind a projection, (B, T, H).

    The projected recurrence is the unprojected one with ``w_rec @ w_proj``; a given initial ``h = P m`` starts from the
    least-norm ``m``, which projects to the same ``h``.
    """
    if view.w_proj is None:
        return run_direction(view, call, like, slot)
    lift = torch.from_numpy(np.linalg.pinv(view.w_proj)).to(call.x.dtype)
    plain = nn.LSTM(1, 1, bias=like.bias, batch_first=True, dtype=call.x.dtype)
    h = None if call.h is None else [part @ lift.T for part in call.h]
    return run_direction(
        view.replace(w_rec=view.recurrence(), w_proj=None), dataclasses.replace(call, h=h), plain, slot
    )
