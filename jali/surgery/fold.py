"""Fold: repair the survivors of a cut so that they reproduce what was cut. No labels, no gradients, no training.

Every reader of a unit's state is linear in the state h of the original network: recurrent gates, the next layer, a
``Linear``. On calibration data the whole original state is decoded from the narrow one, ``h ≈ A h' + c`` (ridge
regression), and A and c are folded into the reader: ``W h + b ≈ (W A) h' + (b + W c)``.

*Open loop*, h' are the kept entries of the original states. But the narrow network runs on its own, slightly different
trajectory; so, *closed loop*, its own states are paired with the original's at the same step, added to the moments, and
the fit is repeated (dataset aggregation: S. Ross, G. Gordon, D. Bagnell, AISTATS 2011). Of all rounds the one is kept
whose own trajectory decodes best on held-out calibration sequences.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from jali.batches import Batch, batches
from jali.capture import input_of, inputs_of, state_of
from jali.errors import DataError
from jali.flow import occurrences
from jali.site import module_sites
from jali.surgery.closed_loop import Loop
from jali.surgery.decode import fit_rows, held_out, rows_of, selection
from jali.surgery.fold_layers import fold_layers
from jali.surgery.fold_states import repair_cell_states
from jali.surgery.refit import repair, with_inputs, with_recurrence
from jali.surgery.surgery import Surgery
from jali.surgery.wired import fold_wired
from jali.view import View, read, write
from jali.widths import FullWidthCell, FullWidthLinear
from jali.wired import WiredLayers

Calls = Sequence[tuple[Any, ...]]


def fold(surgery: Surgery, data: Any) -> None:
    """Repair ``surgery.compact`` in place on calibration ``data`` (as for :func:`jali.plan`; targets are not read).

    Modules are repaired in the order in which the model calls them, each on the trajectories that the repaired ones
    before it produce. Raises :class:`DataError` for data that does not fit the model or never reaches a cut layer.
    """
    _Fold(surgery, batches(data)).run()


class _Fold:
    """One repair: the surgery, its calibration data, and the decoder A (H, K) of every site repaired so far."""

    def __init__(self, surgery: Surgery, items: Sequence[Batch]) -> None:
        self.surgery, self.items = surgery, items
        self.decoders: dict[str, np.ndarray] = {}

    def run(self) -> None:
        for path, dense in inputs_of(self.surgery.model, self.surgery.inner, self.items).items():
            if not dense:
                raise DataError(f"module {path!r} was never run on the calibration data; give data that reaches it")
            module = self.surgery.model.get_submodule(path)
            if isinstance(module, nn.RNNBase):
                narrow, prior = self._narrow_calls(path), self._prior(path)
                self.decoders.update(fold_layers(self.surgery, path, dense, narrow, prior))
            elif isinstance(module, WiredLayers):
                narrow, prior = self._narrow_calls(path), self._prior(path)
                self.decoders.update(fold_wired(self.surgery, path, dense, narrow, prior))
            elif isinstance(module, nn.RNNCellBase):
                self._cell(path, dense)
            else:
                self._linear(path, dense, self._narrow_calls(path))

    def _narrow_calls(self, path: str) -> Calls:
        inner = self.surgery.inner[path]
        return inputs_of(self.surgery.compact, [inner], self.items)[inner]

    def _prior(self, path: str) -> np.ndarray | None:
        """(features, kept features) of a shrunk reader: decoded as in the layer they come from; None if not shrunk."""
        inputs = self.surgery.inputs.get(path)
        if inputs is None:
            return None
        labels = next(reader.labels for reader in self.surgery.flow.readers if reader.module == path)
        prior = selection(inputs, len(labels))
        for site in self.surgery.flow.units.sites:
            decoder = self.decoders.get(site.name)
            if decoder is None:
                continue
            for columns in occurrences(labels, self.surgery.flow.units.labels(site)):
                prior[np.ix_(columns, np.searchsorted(inputs, columns[self.surgery.keep[site.name]]))] = decoder
        return prior

    def _linear(self, path: str, dense: Calls, narrow: Calls) -> None:
        """The full input features decoded from the narrow ones and, where the output stays wide, its removed features."""
        _, keep, base = self._cut_view(path, dense, narrow)
        write(self.surgery.compact, _placed(base, self.surgery.inner[path]))
        old, new = self.surgery.model.get_submodule(path), self.surgery.compact.get_submodule(path)
        if isinstance(new, FullWidthLinear):
            with torch.no_grad():
                pairs = [
                    (new.inner(input_of(*cut)), old(input_of(*full))) for full, cut in zip(dense, narrow, strict=True)
                ]
            repair(new.output, keep, [rows_of(cut, full) for cut, full in pairs], selection(keep, new.out_features))

    def _cell(self, path: str, dense: Calls) -> None:
        """A cell's loop is the model's own code, so every round runs the whole narrow model."""
        inner = self.surgery.inner[path]
        view, keep, base = self._cut_view(path, dense, self._narrow_calls(path))
        write(self.surgery.compact, _placed(base, inner))
        new = self.surgery.compact.get_submodule(path)
        if not isinstance(new, FullWidthCell):
            return
        targets = [_given_state(call, view.hidden) for call in dense]

        def simulate(candidate: View) -> tuple[list[Tensor], Calls]:
            write(self.surgery.compact, _placed(candidate, inner))
            calls = self._narrow_calls(path)
            return [_given_state(call, len(keep)) for call in calls], calls

        best, (decoder, _), calls = Loop(
            targets=targets,
            held=[held_out(len(rows)) for rows in targets],
            keep=keep,
            reader=view.recurrence()[:, keep].reshape(-1, view.hidden),
            build=lambda a, c: with_recurrence(base, view, keep, a, c),
            simulate=simulate,
            offset=view.b_rec is not None,
        ).run()
        write(self.surgery.compact, _placed(best, inner))
        repair_cell_states(new, self.surgery.model.get_submodule(path), (dense, calls), decoder)

    def _cut_view(self, path: str, dense: Calls, narrow: Calls) -> tuple[View, np.ndarray, View]:
        """Original view, kept units, and the narrow view with decoded inputs, of a cell or a Linear."""
        site = module_sites(self.surgery.model.get_submodule(path), path)[0]
        view = read(self.surgery.model, site)
        keep, prior = self.surgery.keep.get(site.name, np.arange(site.size)), self._prior(path)
        if prior is None:
            return view, keep, view.cut(keep)
        pairs = [(input_of(*cut), input_of(*full)) for full, cut in zip(dense, narrow, strict=True)]
        reader = view.w_in[:, keep].reshape(-1, view.inputs)
        a, c = fit_rows([rows_of(cut, full) for cut, full in pairs], prior, reader, offset=view.b_in is not None)
        return view, keep, with_inputs(view.cut(keep), view, keep, a, c)


def _given_state(call: tuple[Any, ...], width: int) -> Tensor:
    """The state h that a cell was called with, (B, width); zeros if none."""
    state = state_of(*call)
    if state is None:
        x = input_of(*call)
        return x.new_zeros(_rows(x).shape[0], width)
    return _rows(_hidden(state))


def _hidden(state: Any) -> Tensor:
    return state[0] if isinstance(state, tuple | list) else state


def _rows(value: Tensor) -> Tensor:
    return value.reshape(-1, value.shape[-1])


def _placed(view: View, module: str) -> View:
    return dataclasses.replace(view, site=dataclasses.replace(view.site, module=module))
