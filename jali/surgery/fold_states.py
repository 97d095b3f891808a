"""Fold the final states that a model sees at full width: removed entries of h and c as affine maps of the kept ones."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from jali.surgery.decode import rows_of, selection
from jali.surgery.refit import repair
from jali.widths import FullWidth, FullWidthCell, UnevenLayers

Calls = Sequence[tuple[Any, ...]]
Slot = tuple[Tensor, Tensor | None]  # final h and, of an LSTM, c of one layer and direction, each (B, width)


def repair_states(
    wrapper: FullWidth, module: nn.RNNBase, calls: tuple[Calls, Calls], slots: Sequence[tuple[np.ndarray, np.ndarray]]
) -> None:
    """Let ``wrapper`` return the removed entries of the final states of ``module``, the layer it replaces.

    ``calls``: how the original and the narrow layer were called. ``slots``: kept units (K,) and decoder (H, K) of the
    states, per layer and direction. h shrinks towards that decoder; nothing reads c, so nothing was decoded from it, and
    it shrinks towards the plain cut, where removed entries are zero.
    """
    if wrapper.h is None and wrapper.c is None:
        return
    dense, narrow = (_final_states(m, c) for m, c in zip((module, wrapper.inner), calls, strict=True))
    for slot, (keep, decoder) in enumerate(slots):
        pairs = [(cut[slot], full[slot]) for full, cut in zip(dense, narrow, strict=True)]
        if wrapper.h is not None:
            _repair(wrapper.h[slot], keep, [(cut[0], full[0]) for cut, full in pairs], decoder)
        if wrapper.c is not None:
            plain = selection(keep, wrapper.hidden_size)
            _repair(wrapper.c[slot], keep, [(cut[1], full[1]) for cut, full in pairs], plain)


def repair_cell_states(
    wrapper: FullWidthCell, cell: nn.Module, calls: tuple[Calls, Calls], decoder: np.ndarray
) -> None:
    """As :func:`repair_states`, for the states that a ``cell`` returns; ``decoder`` (H, K) of its states h."""
    dense, narrow = (_cell_states(m, c) for m, c in zip((cell, wrapper.inner), calls, strict=True))
    keep, pairs = wrapper.keep.cpu().numpy(), list(zip(narrow, dense, strict=True))
    _repair(wrapper.h, keep, [(cut[0], full[0]) for cut, full in pairs], decoder)
    if wrapper.c is not None:
        _repair(wrapper.c, keep, [(cut[1], full[1]) for cut, full in pairs], selection(keep, wrapper.hidden_size))


def _repair(widen: Any, keep: np.ndarray, pairs: Sequence[tuple[Any, Any]], prior: np.ndarray) -> None:
    repair(widen, keep, [rows_of(narrow, full) for narrow, full in pairs], prior)


@torch.no_grad()
def _final_states(layers: nn.RNNBase | UnevenLayers, calls: Calls) -> list[list[Slot]]:
    """Final states per call and slot (layer and direction)."""
    still = copy.deepcopy(layers).eval()  # dropout between layers is off
    found = [still(*args, **kwargs)[1] for args, kwargs in calls]
    if isinstance(layers, UnevenLayers):
        pairs = [[slot if layers.lstm else (slot, None) for slot in states] for states in found]
    elif isinstance(layers, nn.LSTM):
        pairs = [list(zip(*states, strict=True)) for states in found]
    else:
        pairs = [[(h, None) for h in states] for states in found]
    return [[(_rows(h), None if c is None else _rows(c)) for h, c in slots] for slots in pairs]


@torch.no_grad()
def _cell_states(cell: nn.Module, calls: Calls) -> list[Slot]:
    found = [cell(*args, **kwargs) for args, kwargs in calls]
    return [(_rows(s[0]), _rows(s[1])) if isinstance(s, tuple) else (_rows(s), None) for s in found]


def _rows(state: Tensor) -> Tensor:
    return state.reshape(-1, state.shape[-1])
