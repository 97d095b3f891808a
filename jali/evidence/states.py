"""Who reads the units of every site, through which weights, and the moments of the states that are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from jali.batches import Batch, tensors_in
from jali.capture import Call, inputs_of, layer_call, layer_states, unit_states
from jali.errors import DataError
from jali.evidence.results import Use
from jali.flow import Flow, Reader, occurrences, trace
from jali.site import Site, module_sites
from jali.view import View, layer_views, read

Calls = Sequence[tuple[Any, ...]]


class Moments:
    """Running first and second moments of rows of features, in float64."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self._total = torch.zeros(width, dtype=torch.float64)
        self._products = torch.zeros(width, width, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """Add the rows of a (…, width) tensor."""
        x = rows.detach().reshape(-1, rows.shape[-1]).to("cpu", torch.float64)
        if not torch.isfinite(x).all():
            raise DataError(
                "the states of the network are NaN or infinite on the calibration data; give data on which it is stable"
            )
        self.count += len(x)
        self._total += x.sum(0)
        self._products.addmm_(x.T, x)

    def use(self, site: str, reader: str, weight: np.ndarray) -> Use:
        """What ``reader`` makes of these moments. Raises :class:`DataError` if nothing was measured."""
        if self.count == 0:
            raise DataError(f"site {site!r} was never run on the calibration data; give data that reaches it")
        mean, second = self._total.numpy() / self.count, self._products.numpy() / self.count
        return Use(reader, weight, mean, second, self.count)


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
                self.before[name].add(before[call.valid])
                self.after[name].add(after[call.valid])

    def uses(self, own: Sequence[Site], found: dict[str, list[Use]], escaped: bool) -> None:
        names = {site.name for site in own}
        for depth, row in enumerate(self.views):
            for direction, view in enumerate(row):
                if view.site.name in names:
                    found[view.site.name] += self._uses_of(view, depth, direction, escaped)

    def _uses_of(self, view: View, depth: int, direction: int, escaped: bool) -> list[Use]:
        name, last = view.site.name, depth + 1 == len(self.views)
        if view.w_proj is not None:
            return [self.after[name].use(name, "projection", view.w_proj)]
        weight = view.recurrence().reshape(-1, view.hidden)
        uses = [self.before[name].use(name, "recurrence", weight)]
        if not last:
            columns = slice(direction * view.hidden, (direction + 1) * view.hidden)
            above = self.views[depth + 1]
            weight = np.concatenate([v.w_in[:, :, columns].reshape(-1, view.hidden) for v in above])
            uses.append(self.after[name].use(name, f"layer {depth + 1}", weight))
        elif escaped:
            uses.append(self.after[name].use(name, "output", np.eye(view.hidden)))
        return uses


def _input(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    x: Tensor = tensors_in(args[0] if args else kwargs["input"])[0]
    return x


def _cell_uses(view: View, calls: Calls) -> list[Use]:
    name, states = view.site.name, Moments(view.hidden)
    for args, kwargs in calls:
        state = args[1] if len(args) > 1 else kwargs.get("hx")
        if state is not None:
            states.add(state[0] if isinstance(state, tuple | list) else state)
    weight = view.recurrence().reshape(-1, view.hidden)
    return [states.use(name, "recurrence", weight), states.use(name, "output", np.eye(view.hidden))]


def _output_use(site: Site, module: nn.Module, calls: Calls) -> Use:
    outputs = Moments(site.size)
    with torch.no_grad():
        for args, kwargs in calls:
            outputs.add(module(*args, **kwargs))
    return outputs.use(site.name, "output", np.eye(site.size))


def _reader_uses(model: nn.Module, reader: Reader, flow: Flow, calls: Calls, found: dict[str, list[Use]]) -> None:
    """A module that reads units of other sites: its input weights, and the moments of what it reads."""
    module = model.get_submodule(reader.module)
    first = module_sites(module, reader.module)[: 2 if getattr(module, "bidirectional", False) else 1]
    views = [read(model, site) for site in first]
    weight = np.concatenate([view.w_in.reshape(-1, len(reader.labels)) for view in views])
    for site in flow.units.sites:
        for columns in occurrences(reader.labels, flow.units.labels(site)):
            moments = Moments(site.size)
            for args, kwargs in calls:
                moments.add(_input(args, kwargs)[..., columns])
            found[site.name].append(moments.use(site.name, reader.module, weight[:, columns]))
