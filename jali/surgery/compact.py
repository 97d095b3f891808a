"""Compact: a physically smaller module that computes what the masked model computes.

The forward code of the model stays the user's; only submodules are replaced. A reader of removed units shrinks where
tracing proves that it may; elsewhere the layer gives its output back at full width, and the report says why.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from jali.batches import Batch, example
from jali.copies import copy_of
from jali.errors import ModelError, PlanError
from jali.flow import Flow, Port, trace
from jali.plain import an
from jali.plans import Plan
from jali.site import module_sites, sites
from jali.surgery.agreement import UNCHECKED, disagreement, trains
from jali.surgery.fold import fold as fold_into
from jali.surgery.mask import mask, planned_sites
from jali.surgery.replace import OPAQUE, dropped_hooks, plain_classes, proved_for, replaced
from jali.surgery.surgery import Surgery
from jali.surgery.wired import cut_views
from jali.view import AtPath, View, build, build_cell, build_linear, build_wired, layer_views, read
from jali.widths import FullWidth, FullWidthCell, FullWidthLinear, FullWidthWired, UnevenLayers
from jali.wired import WiredLayers

_log = logging.getLogger("jali")


def compact(model: nn.Module, plan: Plan, example_inputs: Any = None, fold: Any = None) -> nn.Module:
    """A physically smaller copy of ``model``, repaired on calibration data if ``fold`` is given.

    ``plan``: a plan of units. ``example_inputs``: what ``model`` is called with (a tensor, a tuple of arguments, or a
    dict); without it nothing can be proved and every pruned layer keeps its outer width. ``fold``: calibration data as
    for :func:`jali.plan`; without it the result computes exactly what :func:`jali.mask` computes, which is checked on
    the example inputs. Arguments that the example inputs leave at their defaults are proved for the defaults only.
    That, and where a layer had to keep its outer width, is logged as a warning under ``"jali"``.
    Raises :class:`PlanError`, :class:`ModelError`, :class:`DataError`; ``model`` itself is never changed.
    """
    surgery = operate(model, plan, example_inputs)
    if fold is not None:
        fold_into(surgery, fold)
    for note in surgery.notes:
        _log.warning(note)
    return surgery.compact


def operate(model: nn.Module, plan: Plan, example_inputs: Any = None) -> Surgery:
    """Cut, check against the masked model, and return all that was learnt on the way."""
    planned_sites(model, plan)
    if plan.granularity != "unit":
        raise PlanError(
            f"a plan of {plan.granularity}s leaves every shape as it is, so there is nothing to compact; "
            "use jali.mask, or make a plan with granularity='unit'"
        )
    pruned = {planned.name: planned for planned in plan.sites if planned.removed}
    if not pruned:
        raise PlanError("the plan removes no unit, so the model would stay unchanged; raise the budget")
    batch = None if example_inputs is None else example(example_inputs)
    surgery = _cut(model, plan, batch)
    if batch is None:
        return surgery
    masked = mask(model, plan)
    why = disagreement(masked, surgery.compact, batch)
    if why is None and not trains(masked, surgery.compact, batch):
        why = "in training mode the shrunk model fails, or returns something else, on the example inputs"
    if why is None:
        return surgery
    # The proof by tracing was wrong about this model (say, a width that the forward code computes on its own), or
    # nothing can show that it was right.
    surgery = _cut(model, plan, None, why=why)
    why = disagreement(masked, surgery.compact, batch)
    if why is not None and why != UNCHECKED:
        hooks = dropped_hooks(model, surgery.inner)
        raise ModelError(
            f"{type(model).__name__} does not compute the same after cutting, even at full outer width; its forward "
            f"depends on the inside of a pruned layer, or on chance: {'; '.join([why, *hooks])}. Or use jali.mask for this "
            "model"
        )
    return surgery


def _cut(model: nn.Module, plan: Plan, batch: Batch | None, why: str | None = None) -> Surgery:
    everything = sites(model, linear=True)
    pruned = [site for site in everything if any(p.name == site.name and p.removed for p in plan.sites)]
    keep = {site.name: plan.site(site.name).kept for site in pruned}
    uneven = frozenset(path for path in {s.module for s in pruned} if _is_uneven(model, path, keep))
    args, kwargs = (None, None) if batch is None else (batch.args, batch.kwargs)
    flow = trace(model, pruned, args, kwargs, opaque=OPAQUE, full_states=uneven)
    removed = flow.units.removed({name: np.setdiff1d(np.arange(plan.site(name).size), k) for name, k in keep.items()})
    inputs = {
        reader.module: np.flatnonzero(~((reader.labels >= 0) & removed[reader.labels]))
        for reader in flow.readers
        if (reader.labels >= 0).any()
    }
    compacted = copy_of(model)
    inner: dict[str, str] = {}
    for path in dict.fromkeys([*(site.module for site in pruned), *inputs]):
        old = model.get_submodule(path)
        new = _smaller(old, path, keep, inputs.get(path), flow).to(next(old.parameters()).device)
        wide = FullWidth | FullWidthCell | FullWidthLinear | FullWidthWired
        inner[path] = f"{path}.inner".lstrip(".") if isinstance(new, wide) else path
        compacted = replaced(compacted, model, path, new)
    cells = [path for path in inner if isinstance(compacted.get_submodule(path), FullWidthCell)]
    notes = [*_notes(flow, pruned, why, cells), *proved_for(model, batch, inputs), *dropped_hooks(model, inner)]
    notes += plain_classes(model, inner)
    return Surgery(model, compacted, plan, flow, keep, inputs, inner, tuple(notes))


def _is_uneven(model: nn.Module, path: str, keep: dict[str, np.ndarray]) -> bool:
    module = model.get_submodule(path)
    if isinstance(module, WiredLayers):
        return False  # one tensor holds its states, whatever their widths
    widths = {len(keep[s.name]) if s.name in keep else s.size for s in module_sites(module, path)}
    return len(widths) > 1


def _smaller(
    old: nn.Module, path: str, keep: dict[str, np.ndarray], inputs: np.ndarray | None, flow: Flow
) -> nn.Module:
    """The replacement of one module: fewer units, fewer input features, wrapped where the width must stay."""
    own = module_sites(old, path)
    kept = [keep.get(site.name, np.arange(site.size)) for site in own]
    if isinstance(old, nn.RNNBase):
        return _smaller_layers(old, path, kept, inputs, flow)
    if isinstance(old, WiredLayers):
        return _smaller_wired(old, path, kept, inputs, flow)
    view = read(AtPath(old, path), own[0]).cut(kept[0], inputs)
    full = len(kept[0]) == own[0].size
    if isinstance(old, nn.RNNCellBase):
        cell = build_cell(view, old)
        return cell if full else FullWidthCell(cell, kept[0], old.hidden_size)
    if not isinstance(old, nn.Linear):
        raise ModelError(f"{path!r} is {an(type(old).__name__)}, which has no units to cut")
    linear = build_linear(view, old)
    return (
        FullWidthLinear(linear, kept[0], old.out_features)
        if Port(path, "output") in flow.escapes and not full
        else linear
    )


def _smaller_layers(
    old: nn.RNNBase, path: str, kept: Sequence[np.ndarray], inputs: np.ndarray | None, flow: Flow
) -> nn.Module:
    directions = 2 if old.bidirectional else 1
    views: list[list[View]] = []
    for layer, pair in enumerate(layer_views(old, path)):
        reads = inputs
        if layer and not old.proj_size:
            below = kept[(layer - 1) * directions : layer * directions]
            reads = np.concatenate([units + d * old.hidden_size for d, units in enumerate(below)])
        elif layer:
            reads = None
        views.append([view.cut(kept[layer * directions + d], reads) for d, view in enumerate(pair)])
    even = len({len(units) for units in kept}) == 1
    inner = build(views, old) if even else UnevenLayers.of(views, old)
    if all(len(units) == old.hidden_size for units in kept):
        return inner
    widen = {what: Port(path, what) in flow.escapes for what in ("output", "h", "c")}
    if path in flow.initial or any(widen.values()):
        return FullWidth(inner, kept, old.hidden_size, **widen)
    return inner


def _smaller_wired(
    old: WiredLayers, path: str, kept: Sequence[np.ndarray], inputs: np.ndarray | None, flow: Flow
) -> nn.Module:
    reads = np.arange(old.input_size) if inputs is None else inputs
    inner = build_wired(cut_views(old, path, kept, reads), len(reads), old)
    if [len(units) for units in kept] == list(old.sizes):
        return inner
    output, h = (Port(path, what) in flow.escapes for what in ("output", "h"))
    if path in flow.initial or output or h:
        return FullWidthWired(inner, kept, old.sizes, output=output, h=h)
    return inner


def _notes(flow: Flow, pruned: Sequence[Any], why: str | None, cells: Sequence[str]) -> list[str]:
    if why or flow.reason:
        return [f"every pruned layer keeps its outer width: {why or flow.reason}"]
    names = {"output": "the output", "h": "the final state h", "c": "the final state c"}
    modules = {site.module for site in pruned}
    escapes = [
        f"{names[port.what]} of {port.module!r} keeps its full width: {reason}"
        for port, reason in flow.escapes.items()
        if port.module in modules
    ]
    return escapes + [f"the states of {path!r} keep their full width: it is a cell" for path in cells]
