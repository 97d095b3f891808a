"""Cut and fold wired layers: everything follows their wires, whatever the cell type."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jali.capture import input_of, state_of
from jali.errors import DynamicsError, ModelError
from jali.plain import an
from jali.site import module_sites
from jali.surgery.closed_loop import Loop
from jali.surgery.decode import Affine, fit_rows, held_out, rows_of, selection
from jali.surgery.refit import repair
from jali.surgery.surgery import Surgery
from jali.view import AtPath, View, read, write
from jali.widths import FullWidthWired
from jali.wired import Wire, WiredLayers

Calls = Sequence[tuple[Any, ...]]


def wired_views(module: WiredLayers, path: str) -> list[View]:
    """The view of every layer."""
    return [read(AtPath(module, path), site) for site in module_sites(module, path)]


def cut_views(module: WiredLayers, path: str, kept: Sequence[np.ndarray], inputs: np.ndarray) -> list[View]:
    """The views with the units ``kept[layer]`` only, reading the outer features ``inputs`` and what is left of each other."""
    wires = module.wires()
    return [view.cut(kept[k], columns_of(wires, kept, k, inputs)) for k, view in enumerate(wired_views(module, path))]


def columns_of(wires: Sequence[Wire], kept: Sequence[np.ndarray], layer: int, inputs: np.ndarray) -> np.ndarray:
    """The columns of ``w_in`` of a layer that are left, ascending."""
    outer = [] if layer else [inputs]
    inner = [wire.first + kept[wire.source] for wire in wires if (wire.reader, wire.field) == (layer, "w_in")]
    return np.sort(np.concatenate(outer + inner))


def fold_wired(
    surgery: Surgery, path: str, dense: Calls, narrow: Calls, prior: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Repair the wired layers that replace the module at ``path``, in place.

    All layers are decoded in the open loop first, as each acts on the others; then layer after layer in a closed loop.
    ``prior``: what to shrink the decoder of the cut input features towards; None if the inputs are not cut. Returns, per
    pruned site, the decoder A (H, K) of what is read of its units.
    """
    module, inner = surgery.model.get_submodule(path), surgery.compact.get_submodule(surgery.inner[path])
    if not isinstance(module, WiredLayers) or not isinstance(inner, WiredLayers):
        raise ModelError(f"{path!r} is {an(type(module).__name__)} and no wired layer")
    fold = _WiredFold(surgery, path, module, inner, dense, narrow)
    if prior is not None:
        fold.inputs(prior)
    cut = [k for k, name in enumerate(fold.names) if name in surgery.keep]
    fold.open_loop(cut)
    decoders = {fold.names[k]: fold.layer(k) for k in cut}
    wrapper = surgery.compact.get_submodule(path)
    if isinstance(wrapper, FullWidthWired):
        _outer(wrapper, module, (dense, narrow), fold.kept[-1], decoders.get(fold.names[-1]))
    return decoders


class _WiredFold:
    """The repair of one module: its original views, the kept units, the plain cut, and the decoders (A, c) found so far."""

    def __init__(
        self, surgery: Surgery, path: str, module: WiredLayers, inner: WiredLayers, dense: Calls, narrow: Calls
    ) -> None:
        self.module, self.inner, self.dense, self.narrow = module, inner, dense, narrow
        self.full = wired_views(module, path)
        self.names = [view.site.name for view in self.full]
        self.kept = [surgery.keep.get(view.site.name, np.arange(view.hidden)) for view in self.full]
        self.plain = wired_views(inner, "")
        self.decoders: dict[int, Affine] = {}
        self.originals = [_trajectory(module, call) for call in dense]

    def inputs(self, prior: np.ndarray) -> None:
        """The first layer reads its decoded outer input."""
        pairs = [(input_of(*cut), input_of(*full)) for full, cut in zip(self.dense, self.narrow, strict=True)]
        view, keep = self.full[0], self.kept[0]
        weight = view.w_in[0, keep][:, : len(prior)]
        a, c = fit_rows([rows_of(cut, full) for cut, full in pairs], prior, weight, offset=view.b_in is not None)
        self.plain[0] = _reading(self.plain[0], "w_in", 0, weight, a, c)
        self._write(self.plain)

    def open_loop(self, layers: Sequence[int]) -> None:
        """First decoders, from the original's own states."""
        for k in layers:
            keep, size = self.kept[k], self.full[k].hidden
            rows = [rows_of(states[k][:, 1:][..., keep], states[k][:, 1:]) for states in self.originals]
            self.decoders[k] = fit_rows(rows, selection(keep, size), self._reader(k), offset=self.module.bias)

    def _reader(self, source: int) -> np.ndarray:
        """All weights that read the units of a layer, (O, H)."""
        return np.concatenate([self._weight(wire) for wire in self.module.wires() if wire.source == source])

    def layer(self, source: int) -> np.ndarray:
        """All that reads the units of layer ``source`` reads them decoded; the decoder (H, K)."""
        # The state after the last step is read by what comes after.
        targets = [states[source][:, 1:] for states in self.originals]
        best, self.decoders[source], _ = Loop(
            targets=[_rows(states) for states in targets],
            held=[_judges(states) for states in targets],
            keep=self.kept[source],
            reader=self._reader(source),
            build=lambda a, c: self._with({**self.decoders, source: (a, c)}),
            simulate=lambda views: (self._simulate(views, source), None),
            offset=self.module.bias,
        ).run()
        self._write(best)
        return self.decoders[source][0]

    def _with(self, decoders: Mapping[int, Affine]) -> list[View]:
        """The narrow views with these decoders folded into all that reads their layers."""
        views = list(self.plain)
        for wire in self.module.wires():
            if wire.source in decoders:
                weight, (a, c) = self._weight(wire), decoders[wire.source]
                views[wire.reader] = _reading(views[wire.reader], wire.field, self._first(wire), weight, a, c)
        return views

    def _weight(self, wire: Wire) -> np.ndarray:
        """The original weights of a wire into the kept units of its reader, (K_reader, H_source)."""
        value = getattr(self.full[wire.reader], wire.field)
        return value[0, self.kept[wire.reader]][:, wire.first : wire.first + self.full[wire.source].hidden]

    def _first(self, wire: Wire) -> int:
        """Where the columns of ``wire`` begin in the narrow module, which has the same wires."""
        return next(
            w.first
            for w in self.inner.wires()
            if (w.source, w.reader, w.field) == (wire.source, wire.reader, wire.field)
        )

    def _simulate(self, views: Sequence[View], source: int) -> list[Tensor]:
        self._write(views)
        try:
            return [_rows(_trajectory(self.inner, call)[source][:, 1:]) for call in self.narrow]
        except DynamicsError:  # the loop drops a candidate that runs away
            width = len(self.kept[source])
            return [torch.full((self._size(call), width), torch.nan) for call in self.narrow]

    def _size(self, call: tuple[Any, ...]) -> int:
        return input_of(*call).shape[0] * input_of(*call).shape[1]

    def _write(self, views: Sequence[View]) -> None:
        for view in views:
            write(AtPath(self.inner, ""), dataclasses.replace(view, site=dataclasses.replace(view.site, module="")))


def _reading(view: View, field: str, first: int, weight: np.ndarray, a: np.ndarray, c: np.ndarray) -> View:
    """``view`` whose columns from ``first`` read decoded features: ``weight @ a`` there, ``weight @ c`` in the bias."""
    value = getattr(view, field).copy()
    value[0, :, first : first + a.shape[1]] = weight @ a
    bias = None if view.b_in is None else view.b_in + weight @ c
    return view.replace(**{field: value}, b_in=bias)


def _outer(
    wrapper: FullWidthWired,
    module: WiredLayers,
    calls: tuple[Calls, Calls],
    keep: np.ndarray,
    decoder: np.ndarray | None,
) -> None:
    """Let ``wrapper`` return removed features of the output and of the final state as affine maps of the kept ones."""
    full, cut = _outputs(module, calls[0]), _outputs(wrapper.inner, calls[1])
    if wrapper.output is not None and decoder is not None:
        repair(wrapper.output, keep, [rows_of(a[0], b[0]) for a, b in zip(cut, full, strict=True)], decoder)
    if wrapper.h is not None:
        every = wrapper.keep.cpu().numpy()
        pairs = [rows_of(a[1], b[1]) for a, b in zip(cut, full, strict=True)]
        repair(wrapper.h, every, pairs, selection(every, sum(module.sizes)))


@torch.no_grad()
def _outputs(module: WiredLayers, calls: Calls) -> list[tuple[Tensor, Tensor]]:
    return [module(input_of(*call), state_of(*call)) for call in calls]


@torch.no_grad()
def _trajectory(module: WiredLayers, call: tuple[Any, ...]) -> list[Tensor]:
    return module.trajectory(input_of(*call), state_of(*call))


def _rows(states: Tensor) -> Tensor:
    return states.reshape(-1, states.shape[-1]).cpu()


def _judges(states: Tensor) -> Tensor:
    """Which rows of (B, T, H) belong to sequences that judge."""
    return held_out(len(states)).repeat_interleave(states.shape[1])
