"""A multilayer network whole: all its units, and the connections within its layers and between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from torch import nn

from jali.dynamics import Floats
from jali.site import module_sites
from jali.view import View, read
from jali.widths import UnevenLayers
from jali.wired import WiredLayers


@dataclass(frozen=True, eq=False)
class Layers:
    """A module of ``depth`` ≥ 2 recurrent layers at ``path``.

    ``weights (n, n)``: who influences whom, nonnegative, ``[to, from]``, over the units of all layers (and directions): the
    l2 norm over the gates of a recurrent weight, of one from a layer to the next, or of one of the feedback.
    """

    path: str
    depth: int
    sizes: tuple[int, ...]
    weights: Floats

    @property
    def between(self) -> int:
        """How many connections lead from one layer or direction to another."""
        label = np.repeat(np.arange(len(self.sizes)), self.sizes)
        return int(np.count_nonzero(self.weights[label[:, None] != label]))


def multilayer(model: nn.Module) -> Iterator[Layers]:
    """Every module of ``model`` that has several layers: of PyTorch, of unequal widths, or of :mod:`jali.models`.

    What leads from one module to another is no connection here: the forward pass of ``model`` may do anything between them.
    """
    for path, module in model.named_modules():
        rows = _rows(model, module, path)
        if len(rows) > 1:
            views = [view for row in rows for view in row]
            weights = _wired(views, module) if isinstance(module, WiredLayers) else _stacked(rows)
            yield Layers(path, len(rows), tuple(view.hidden for view in views), weights)


def _rows(model: nn.Module, module: nn.Module, path: str) -> list[list[View]]:
    """The views ``[layer][direction]`` of a module; none for one that holds no layers of its own."""
    if isinstance(module, UnevenLayers):
        prefix = f"{path}." if path else ""
        paths = [[f"{prefix}layers.{k}.{d}" for d in range(len(row))] for k, row in enumerate(module.rows())]
        found = [[module_sites(model.get_submodule(each), each) for each in row] for row in paths]
        return [[read(model, sites[0]) for sites in row] for row in found] if all(map(all, found)) else []
    rows: dict[int, list[View]] = {}
    for site in module_sites(module, path):
        if site.recurrent and not site.cell:
            rows.setdefault(site.layer, []).append(read(model, site))
    return list(rows.values())


def _wired(views: Sequence[View], module: WiredLayers) -> Floats:
    whole, first = _within(views)
    for wire in module.wires():
        if wire.field == "w_in":
            weight = views[wire.reader].w_in[:, :, wire.first : wire.first + views[wire.source].hidden]
            _place(whole, first, wire.reader, wire.source, weight)
    return whole


def _stacked(rows: Sequence[Sequence[View]]) -> Floats:
    views = [view for row in rows for view in row]
    whole, first = _within(views)
    number = {id(view): k for k, view in enumerate(views)}
    for below, row in pairwise(rows):
        for reader in row:
            column = 0
            for source in below:
                out = source.hidden if source.w_proj is None else source.w_proj.shape[0]
                weight = reader.w_in[:, :, column : column + out]  # of what the source puts out
                read_units = weight if source.w_proj is None else weight @ source.w_proj
                _place(whole, first, number[id(reader)], number[id(source)], read_units)
                column += out
    return whole


def _within(views: Sequence[View]) -> tuple[Floats, list[int]]:
    """The recurrent weights on the diagonal, and where the units of each view begin."""
    first = np.concatenate(([0], np.cumsum([view.hidden for view in views]))).tolist()
    whole = np.zeros((first[-1], first[-1]))
    for k, view in enumerate(views):
        whole[first[k] : first[k + 1], first[k] : first[k + 1]] = view.influence()
    return whole, first


def _place(whole: Floats, first: Sequence[int], to: int, source: int, weight: np.ndarray) -> None:
    """``weight (G, H_to, H_source)`` by its norm over the gates."""
    block = whole[first[to] : first[to + 1], first[source] : first[source + 1]]
    block[:] = np.sqrt((weight**2).sum(axis=0))
