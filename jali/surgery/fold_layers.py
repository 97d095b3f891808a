"""Fold recurrent layers: layer after layer, each direction in its own closed loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.linalg import block_diag
from torch import Tensor, nn

from jali.capture import Call, layer_call, run_direction, unit_states
from jali.errors import ModelError
from jali.plain import an
from jali.surgery.closed_loop import Loop
from jali.surgery.decode import Rows, fit_rows, held_out
from jali.surgery.fold_states import repair_states
from jali.surgery.refit import repair, with_inputs, with_recurrence
from jali.surgery.surgery import Surgery
from jali.view import View, layer_views, write
from jali.widths import FullWidth, UnevenLayers

Calls = Sequence[tuple[Any, ...]]


def fold_layers(
    surgery: Surgery, path: str, dense_calls: Calls, narrow_calls: Calls, prior: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Repair the narrow layers that replace the recurrent module at ``path``, in place.

    ``prior``: what to shrink the decoder of the cut input features towards; None if the inputs are not cut. Returns, per
    pruned site, the decoder A (H, K) of its states.
    """
    module = surgery.model.get_submodule(path)
    inner = surgery.compact.get_submodule(surgery.inner[path])
    if not isinstance(module, nn.RNNBase) or not isinstance(inner, nn.RNNBase | UnevenLayers):
        raise ModelError(f"{path!r} is {an(type(module).__name__)} and no recurrent layer")
    dense = [layer_call(module, *call) for call in dense_calls]
    narrow = [layer_call(inner, *call) for call in narrow_calls]
    directions = 2 if module.bidirectional else 1
    wrapper, decoders = surgery.compact.get_submodule(path), {}
    slots: list[_Direction] = []
    for depth, row in enumerate(layer_views(module, path)):
        rows: list[_Direction] = []
        for direction, view in enumerate(row):
            keep = surgery.keep.get(view.site.name, np.arange(view.hidden))
            one = _Direction(view, keep, module, depth * directions + direction, dense, narrow, prior)
            _put(inner, depth, direction, one.view)
            rows.append(one)
        dense = _next(dense, [one.originals for one in rows])
        narrow = _next(narrow, [one.outputs for one in rows])
        decoders.update({one.dense_view.site.name: one.decoder for one in rows})
        cut = not module.proj_size and any(view.site.name in surgery.keep for view in row)
        prior = block_diag(*(one.decoder for one in rows)) if cut else None
        slots.extend(rows)
    if isinstance(wrapper, FullWidth):
        if wrapper.output is not None and prior is not None:
            kept = np.concatenate([one.keep + d * module.hidden_size for d, one in enumerate(rows)])
            repair(wrapper.output, kept, _valid_rows(dense, narrow), prior)
        repair_states(wrapper, module, (dense_calls, narrow_calls), [(one.keep, one.decoder) for one in slots])
    return {name: decoder for name, decoder in decoders.items() if name in surgery.keep}


def _valid_rows(dense: Sequence[Call], narrow: Sequence[Call]) -> list[Rows]:
    """The inputs at the steps that belong to a sequence; whole sequences judge."""
    return [
        (cut.x[cut.valid], full.x[full.valid], _judges(full.valid)) for full, cut in zip(dense, narrow, strict=True)
    ]


def _judges(valid: Tensor) -> Tensor:
    """Which valid steps of (B, T) belong to sequences that judge, one by one."""
    return held_out(len(valid))[:, None].expand_as(valid)[valid]


def _next(calls: Sequence[Call], outputs: Sequence[Sequence[Tensor]]) -> list[Call]:
    """The calls of the layer above, which reads the outputs of all directions."""
    return [dataclasses.replace(call, x=torch.cat([o[i] for o in outputs], dim=-1)) for i, call in enumerate(calls)]


def _put(inner: nn.RNNBase | UnevenLayers, depth: int, direction: int, view: View) -> None:
    if isinstance(inner, UnevenLayers):
        inner, depth, direction = inner.rows()[depth][direction], 0, 0
    site = dataclasses.replace(view.site, module="", layer=depth, reverse=bool(direction))
    write(inner, dataclasses.replace(view, site=site))


class _Direction:
    """The repair of one direction of one layer.

    ``view``: the repaired narrow view; ``decoder`` (H, K): of its states, the identity if the site is not pruned;
    ``originals`` and ``outputs``: what the original and the narrow network put out, (B, T, ·) per call.
    """

    def __init__(
        self,
        view: View,
        keep: np.ndarray,
        module: nn.RNNBase,
        slot: int,
        dense: Sequence[Call],
        narrow: Sequence[Call],
        prior: np.ndarray | None,
    ) -> None:
        self.dense_view, self.keep, self.module, self.slot = view, keep, module, slot
        self._dense, self._narrow = dense, narrow
        base = view.cut(keep)
        if prior is not None:
            reader = view.w_in[:, keep].reshape(-1, view.inputs)
            a, c = fit_rows(_valid_rows(dense, narrow), prior, reader, offset=view.b_in is not None)
            base = with_inputs(base, view, keep, a, c)
        pairs = [self._read(view, call) for call in dense]
        self.originals = [output for _, output in pairs]
        if len(keep) < view.hidden:
            self.view, (self.decoder, _), self.outputs = self._loop(base, [read for read, _ in pairs]).run()
        else:
            self.view, self.decoder = base, np.eye(view.hidden)
            self.outputs = [self._read(base, call)[1] for call in narrow]

    def _loop(self, base: View, read: Sequence[Tensor]) -> Loop[View, list[Tensor]]:
        view, valid = self.dense_view, [call.valid for call in self._dense]
        projected = view.w_proj is not None
        reader = view.w_proj if projected else view.recurrence()[:, self.keep].reshape(-1, view.hidden)
        return Loop(
            targets=[states[v] for states, v in zip(read, valid, strict=True)],
            held=[_judges(v) for v in valid],
            keep=self.keep,
            reader=reader,  # type: ignore[arg-type]
            build=lambda a, c: with_recurrence(base, view, self.keep, a, c),
            simulate=self._simulate,
            offset=not projected and view.b_rec is not None,
        )

    def _simulate(self, candidate: View) -> tuple[list[Tensor], list[Tensor]]:
        pairs = [self._read(candidate, call) for call in self._narrow]
        states = [read[call.valid] for (read, _), call in zip(pairs, self._narrow, strict=True)]
        return states, [output for _, output in pairs]

    def _read(self, view: View, call: Call) -> tuple[Tensor, Tensor]:
        """The states that are read inside the layer, and the layer's output.

        The projection reads the units after the step, the recurrent weights read them before it.
        """
        before, after = run_direction(view, call, self.module, self.slot)
        if view.w_proj is None or not isinstance(self.module, nn.LSTM):
            return before, after
        return unit_states(view, call, self.module, self.slot)[1], after
