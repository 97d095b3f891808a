"""Who reads the units of every site, through which weights, and the moments of the states that are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from jali.batches import Batch
from jali.capture import Call, input_of, inputs_of, layer_call, layer_states, state_of, unit_states
from jali.errors import DataError
from jali.evidence.results import Use
from jali.flow import Flow, Reader, occurrences, trace
from jali.moments import Moments, check_finite
from jali.site import Site, module_sites
from jali.view import AtPath, View, layer_views, read
from jali.wired import WiredLayers

Calls = Sequence[tuple[Any, ...]]


def state_uses(model: nn.Module, items: Sequence[Batch], sites: Sequence[Site]) -> dict[str, tuple[Use, ...]]:
    """Site name → every place that reads its units, measured on the batches ``items``."""
    flow = trace(model, sites, items[0].args, items[0].kwargs)
    paths = dict.fromkeys([*(site.module for site in sites), *(reader.module for reader in flow.readers)])
    calls = inputs_of(model, paths, items)
    found: dict[str, list[Use]] = {site.name: [] for site in sites}
    for path in dict.fromkeys(site.module for site in sites):
        module = model.get_submodule(path)
        own = [site for site in sites if site.module == path]
        escaped = any(port.module == path for port in flow.escapes)
        if isinstance(module, nn.RNNBase):
            _Layers(module, path, calls[path]).uses(own, found, escaped)
        elif isinstance(module, WiredLayers):
            _wired_uses(module, path, calls[path], own, found, escaped)
        elif isinstance(module, nn.RNNCellBase):
            found[own[0].name] += _cell_uses(read(model, own[0]), calls[path])
        elif escaped:
            found[own[0].name].append(_output_use(own[0], module, calls[path]))
    for reader in flow.readers:
        _reader_uses(model, reader, flow, calls[reader.module], found)
    return {name: tuple(uses) for name, uses in found.items()}


class _Layers:
    """The states of every layer and direction of one recurrent module, over all its calls."""

    def __init__(self, module: nn.RNNBase, path: str, calls: Calls) -> None:
        self.views = layer_views(module, path)
        flat = [view for row in self.views for view in row]
        self.before = {view.site.name: Moments(view.hidden) for view in flat}
        self.after = {view.site.name: Moments(view.hidden) for view in flat}
        for args, kwargs in calls:
            self._add(module, layer_call(module, args, kwargs))

    def _add(self, module: nn.RNNBase, call: Call) -> None:
        states = layer_states(self.views, call, module)
        for depth, row in enumerate(self.views):
            if depth:
                call = replace(call, x=torch.cat([after for _, after in states[depth - 1]], -1))
            for direction, view in enumerate(row):
                before, after = states[depth][direction]
                slot, name = depth * len(row) + direction, view.site.name
                if view.w_proj is not None and isinstance(module, nn.LSTM):
                    before, after = unit_states(view, call, module, slot)
                _add(self.before[name], before[call.valid])
                _add(self.after[name], after[call.valid])

    def uses(self, own: Sequence[Site], found: dict[str, list[Use]], escaped: bool) -> None:
        names = {site.name for site in own}
        for depth, row in enumerate(self.views):
            for direction, view in enumerate(row):
                if view.site.name in names:
                    found[view.site.name] += self._uses_of(view, depth, direction, escaped)

    def _uses_of(self, view: View, depth: int, direction: int, escaped: bool) -> list[Use]:
        name, last = view.site.name, depth + 1 == len(self.views)
        if view.w_proj is not None:
            return [_use(self.after[name], name, "projection", view.w_proj)]
        weight = view.recurrence().reshape(-1, view.hidden)
        uses = [_use(self.before[name], name, "recurrence", weight)]
        if not last:
            columns = slice(direction * view.hidden, (direction + 1) * view.hidden)
            above = self.views[depth + 1]
            weight = np.concatenate([v.w_in[:, :, columns].reshape(-1, view.hidden) for v in above])
            uses.append(_use(self.after[name], name, f"layer {depth + 1}", weight))
        elif escaped:
            uses.append(_use(self.after[name], name, "output", np.eye(view.hidden)))
        return uses


def _use(moments: Moments, site: str, reader: str, weight: np.ndarray) -> Use:
    """What ``reader`` makes of these moments. Raises :class:`DataError` if nothing was measured."""
    if moments.count == 0:
        raise DataError(f"site {site!r} was never run on the calibration data; give data that reaches it")
    mean, second = moments.means()
    return Use(reader, weight, mean, second, moments.count)


def _add(moments: Moments, states: Tensor) -> None:
    check_finite(states)
    moments.add(states)


def _cell_uses(view: View, calls: Calls) -> list[Use]:
    name, states = view.site.name, Moments(view.hidden)
    for args, kwargs in calls:
        state = state_of(args, kwargs)
        if state is not None:
            _add(states, state[0] if isinstance(state, tuple | list) else state)
    weight = view.recurrence().reshape(-1, view.hidden)
    return [_use(states, name, "recurrence", weight), _use(states, name, "output", np.eye(view.hidden))]


def _wired_uses(
    module: WiredLayers, path: str, calls: Calls, own: Sequence[Site], found: dict[str, list[Use]], escaped: bool
) -> None:
    """What the wires read, and the output where it is not known who reads it."""
    sites, last = module_sites(module, path), len(module.sizes) - 1
    with torch.no_grad():
        runs = [module.trajectory(input_of(*call), state_of(*call)) for call in calls]
    for wire in module.wires():
        site = sites[wire.source]
        if site in own:
            columns = slice(wire.first, wire.first + site.size)
            weight = getattr(read(AtPath(module, path), sites[wire.reader]), wire.field)[0][:, columns]
            moments = Moments(site.size)
            for seen in runs:
                _add(moments, seen[wire.source][:, :-1] if wire.delayed else seen[wire.source][:, 1:])
            found[site.name].append(_use(moments, site.name, f"layer {wire.reader}", weight))
    if escaped and sites[last] in own:
        moments = Moments(sites[last].size)
        for seen in runs:
            _add(moments, seen[last][:, 1:])
        found[sites[last].name].append(_use(moments, sites[last].name, "output", np.eye(sites[last].size)))


def _output_use(site: Site, module: nn.Module, calls: Calls) -> Use:
    outputs = Moments(site.size)
    with torch.no_grad():
        for args, kwargs in calls:
            _add(outputs, module(*args, **kwargs))
    return _use(outputs, site.name, "output", np.eye(site.size))


def _reader_uses(model: nn.Module, reader: Reader, flow: Flow, calls: Calls, found: dict[str, list[Use]]) -> None:
    """A module that reads units of other sites: its input weights, and the moments of what it reads."""
    module = model.get_submodule(reader.module)
    first = module_sites(module, reader.module)[: 2 if getattr(module, "bidirectional", False) else 1]
    views = [read(model, site) for site in first]
    outer = len(reader.labels)  # a network with feedback inside reads more columns than its input has
    weight = np.concatenate([view.w_in[:, :, :outer].reshape(-1, outer) for view in views])
    for site in flow.units.sites:
        for columns in occurrences(reader.labels, flow.units.labels(site)):
            moments = Moments(site.size)
            for args, kwargs in calls:
                _add(moments, input_of(args, kwargs).data[..., columns])  # also of a PackedSequence
            found[site.name].append(_use(moments, site.name, reader.module, weight[:, columns]))
