"""Reorder: the units of a layer stand block after block, and the model computes what it computed.

A permutation of the units of a layer permutes rows and columns of its own weights and the columns of its readers. Where
tracing does not prove who reads them, the output is put back into its old order.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from jali.batches import Batch, example
from jali.block_layers import BlockLayer
from jali.blocks import Decomposition, SiteBlocks
from jali.copies import copy_of
from jali.errors import ModelError, PlanError
from jali.flow import Flow, Port, occurrences, trace
from jali.plain import an
from jali.site import Site, module_sites, sites
from jali.surgery.agreement import UNCHECKED, disagreement, trains
from jali.surgery.mask import ZeroInitialState
from jali.surgery.replace import OPAQUE, dropped_hooks, plain_classes, proved_for, replaced
from jali.surgery.wired import wired_views
from jali.view import AtPath, View, build, build_cell, build_linear, build_wired, layer_views, read
from jali.widths import FullWidth, FullWidthCell, UnevenLayers, alone
from jali.wired import WiredLayers

_log = logging.getLogger("jali")


def reorder(model: nn.Module, found: Decomposition, example_inputs: Any = None, *, batched: bool = False) -> nn.Module:
    """A copy of ``model`` in which the units of every site of ``found`` stand block after block; outputs stay the same.

    ``found``: from :func:`jali.decompose`. ``example_inputs``: what ``model`` is called with, as for :func:`jali.compact`;
    without it no reader can be permuted, and every reordered layer puts its outputs back into their old order. ``batched``:
    independent blocks run as one batched product per step (:class:`jali.block_layers.BlockLayer`), k equal ones with 1/k of
    the recurrent multiply-adds and parameters. Otherwise the layers stay PyTorch's, which can be pruned further; for
    :func:`jali.accelerate`, which skips the zeros between blocks, the order is best.

    The copy must agree with ``model`` on the example inputs, or it puts everything back. What is put back, and why, is logged
    as a warning under ``"jali"``. Raises :class:`PlanError` for a decomposition of another model, without two blocks, or with
    ``batched`` of dependent ones, :class:`ModelError`, :class:`DataError`; ``model`` itself is never changed.
    """
    job = _Job.of(model, found, batched)
    batch = None if example_inputs is None else example(example_inputs)
    made, notes = job.run(batch)
    if batch is not None:
        why = disagreement(model, made, batch)
        if why is None and not trains(model, made, batch):
            why = "in training mode the reordered model fails, or returns something else, on the example inputs"
        if why is not None:
            made, notes = job.run(None, why)
            why = disagreement(model, made, batch)
            if why is not None and why != UNCHECKED:
                raise ModelError(
                    f"{type(model).__name__} does not compute the same with its units reordered, even where they are put "
                    f"back: {why}; its forward depends on the inside of a layer, or on chance"
                )
    for note in [*job.notes, *notes]:
        _log.warning(note)
    return made


@dataclass(frozen=True, eq=False)
class _Job:
    """What is to be done: the blocks of the sites that have more than one, and those that run as one batched product."""

    model: nn.Module
    blocks: Mapping[str, SiteBlocks]
    sites: tuple[Site, ...]
    batched: frozenset[str]
    notes: tuple[str, ...]

    @staticmethod
    def of(model: nn.Module, found: Decomposition, batched: bool) -> _Job:
        if not isinstance(found, Decomposition):
            raise PlanError(f"the decomposition is {an(type(found).__name__)}; make one with jali.decompose")
        known = {site.name: site for site in sites(model)}
        for each in found.sites:
            _check_fits(each, known)
        several = {each.name: each for each in found.sites if each.count > 1}
        if not several:
            names = ", ".join(each.name for each in found.sites)
            raise PlanError(
                f"no site falls into two blocks or more ({names}), so there is nothing to reorder; cut the recurrence first "
                "with jali.plan(model, 'magnitude', pattern='block-diagonal:4') and jali.mask"
            )
        wired = [name for name in several if isinstance(model.get_submodule(known[name].module), WiredLayers)]
        if wired:
            others = [name for name, site in known.items() if name not in wired and name in several]
            raise ModelError(
                f"{', '.join(wired)}: the units of {an(known[wired[0]].kind)} stay in their order, which its own equations and "
                "wires follow; "
                + (
                    f"reorder the others: jali.decompose(model, sites={others})"
                    if others
                    else "no other site has two blocks, so there is nothing to reorder; jali.compact makes it smaller"
                )
            )
        fit = _batchable(several, known) if batched else frozenset()
        notes = tuple(
            f"{name!r} stays a layer of PyTorch: {'it is a cell' if known[name].cell else 'it has a projection'}"
            for name in several
            if batched and name not in fit
        )
        return _Job(model, several, tuple(known[name] for name in several), fit, notes)

    def run(self, batch: Batch | None, why: str | None = None) -> tuple[nn.Module, list[str]]:
        """The new model and what to say of it; ``why`` nothing was proved, where that is known."""
        args, kwargs = (None, None) if batch is None else (batch.args, batch.kwargs)
        orders = {name: each.order for name, each in self.blocks.items()}
        moved = [s for s in self.sites if (orders[s.name] != np.arange(s.size)).any() or s.name in self.batched]
        flow = trace(self.model, moved, args, kwargs, opaque=OPAQUE)
        columns = {r.module: _columns(r.labels, flow, orders) for r in flow.readers if (r.labels >= 0).any()}
        made, inner = copy_of(self.model), {}
        for path in dict.fromkeys([*(site.module for site in moved), *columns]):
            old = self.model.get_submodule(path)
            new = self._placed(old, path, orders, columns.get(path), flow).to(next(old.parameters()).device)
            _keep_zeros(old, path, new, orders)
            inner[path] = path
            made = replaced(made, self.model, path, new)
        notes = [] if moved else ["the units stand in the order of their blocks already"]
        notes += [*_put_back(flow, moved, why), *proved_for(self.model, batch, columns)]
        return made, [*notes, *dropped_hooks(self.model, inner), *plain_classes(self.model, inner)]

    def _placed(
        self, old: nn.Module, path: str, orders: Mapping[str, np.ndarray], columns: np.ndarray | None, flow: Flow
    ) -> nn.Module:
        """The replacement of one module: units in their new order, reading input features in theirs."""
        own = module_sites(old, path)
        order = [orders.get(site.name, np.arange(site.size)) for site in own]
        if isinstance(old, nn.RNNBase):
            return self._layers(old, path, own, order, columns, flow)
        if isinstance(old, WiredLayers):
            return _reading(old, path, columns)
        view = read(AtPath(old, path), own[0]).cut(order[0], columns)
        if isinstance(old, nn.RNNCellBase):
            cell = build_cell(view, old)
            return FullWidthCell(cell, order[0], old.hidden_size) if own[0].name in orders else cell
        if not isinstance(old, nn.Linear):
            raise ModelError(f"{path!r} is {an(type(old).__name__)}, which has no units to reorder")
        return build_linear(view, old)

    def _layers(
        self,
        old: nn.RNNBase,
        path: str,
        own: Sequence[Site],
        order: Sequence[np.ndarray],
        columns: np.ndarray | None,
        flow: Flow,
    ) -> nn.Module:
        directions = 2 if old.bidirectional else 1
        views: list[list[View]] = []
        for layer, pair in enumerate(layer_views(old, path)):
            reads = columns if layer == 0 else None
            if layer and not old.proj_size:
                below = order[(layer - 1) * directions : layer * directions]
                reads = np.concatenate([units + d * old.hidden_size for d, units in enumerate(below)])
            views.append([view.cut(order[layer * directions + d], reads) for d, view in enumerate(pair)])
        widen = {what: Port(path, what) in flow.escapes for what in ("output", "h", "c")}
        if self.batched & {site.name for site in own}:
            rows = [[self._direction(view, old) for view in pair] for pair in views]
            return FullWidth(UnevenLayers(rows, old.dropout), order, old.hidden_size, **widen)
        inner = build(views, old)
        if path in {site.module for site in flow.units.sites} and (path in flow.initial or any(widen.values())):
            return FullWidth(inner, order, old.hidden_size, **widen)
        return inner

    def _direction(self, view: View, like: nn.RNNBase) -> Any:
        """One layer and direction alone, its units reordered already."""
        if view.site.name not in self.batched:
            return build([[alone(view)]], like)
        ends = np.cumsum(self.blocks[view.site.name].sizes)
        return BlockLayer.of(view, np.split(np.arange(ends[-1]), ends[:-1]), like)


def _reading(old: WiredLayers, path: str, columns: np.ndarray | None) -> WiredLayers:
    """The same units, reading the outer input in the order ``columns``."""
    first, *others = wired_views(old, path)
    outer = np.arange(old.input_size) if columns is None else columns
    reads = np.concatenate([outer, np.arange(old.input_size, first.inputs)])
    return build_wired([first.cut(np.arange(first.hidden), reads), *others], old.input_size, old)


def _check_fits(blocks: SiteBlocks, known: Mapping[str, Site]) -> None:
    site = known.get(blocks.name)
    if site is None or (site.kind, site.size) != (blocks.kind, len(blocks.labels)):
        have = f"{an(site.kind)} of {site.size} units" if site else f"none of that name, only {', '.join(known)}"
        raise PlanError(
            f"the decomposition has site {blocks.name!r}, {an(blocks.kind)} of {len(blocks.labels)} units, and the model has "
            f"{have}; decompose this model"
        )


def _batchable(several: Mapping[str, SiteBlocks], known: Mapping[str, Site]) -> frozenset[str]:
    for name, each in several.items():
        if not each.independent:
            raise PlanError(
                f"the {each.count} blocks of site {name!r} are not independent: {each.between:,} pairs of units influence each "
                f"other between them; cut those first with jali.plan(model, 'magnitude', "
                f"pattern='block-diagonal:{each.count}') and jali.mask, then decompose the masked model"
            )
    fit = frozenset(name for name, each in several.items() if not each.projected and not known[name].cell)
    if not fit:
        raise ModelError(
            f"no site can run as one batched product: {', '.join(several)} are cells or have projections; leave batched out"
        )
    return fit


def _columns(labels: np.ndarray, flow: Flow, orders: Mapping[str, np.ndarray]) -> np.ndarray:
    """For every input feature of a reader in the new order, which one it was in the old."""
    columns = np.arange(len(labels))
    for site in flow.units.sites:
        for places in occurrences(labels, flow.units.labels(site)):
            columns[places] = places[orders[site.name]]
    return columns


def _keep_zeros(old: nn.Module, path: str, new: nn.Module, orders: Mapping[str, np.ndarray]) -> None:
    """The states of units that a mask has removed start at zero in the new module, too."""
    own = module_sites(old, path)
    for hook in old._forward_pre_hooks.values():
        if isinstance(hook, ZeroInitialState):
            slots = hook.slots
            if not isinstance(new, FullWidth | FullWidthCell):  # then states are given in the new order
                place = [np.argsort(orders.get(site.name, np.arange(site.size))) for site in own]
                slots = {slot: sorted(place[slot][units].tolist()) for slot, units in slots.items()}
            new.register_forward_pre_hook(ZeroInitialState(slots), with_kwargs=True)


def _put_back(flow: Flow, moved: Sequence[Site], why: str | None) -> list[str]:
    if not moved:
        return []
    if why or flow.reason:
        return [f"every reordered layer puts its outputs back into their old order: {why or flow.reason}"]
    names = {"output": "the output", "h": "the final state h", "c": "the final state c"}
    modules = {site.module for site in moved}
    return [
        f"{names[port.what]} of {port.module!r} is put back into its old order: {reason}"
        for port, reason in flow.escapes.items()
        if port.module in modules
    ]
