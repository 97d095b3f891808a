"""Evidence: what is measured once on data, for the criteria that need it. Frozen results; no model inside."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jali.batches import Batch, batches, device_of, run, tensors_in
from jali.capture import inputs_of, layer_call, layer_states, unit_states
from jali.errors import DataError, ModelError
from jali.flow import Flow, occurrences, trace
from jali.view import Site, View, layer_views, module_sites, read

Loss = Callable[[Any, Any], Tensor]


class Moments:
    """Running first and second moments of rows of features, in float64."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self._total = torch.zeros(width, dtype=torch.float64)
        self._products = torch.zeros(width, width, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """Add the rows of a (…, width) tensor."""
        x = rows.detach().reshape(-1, rows.shape[-1]).to("cpu", torch.float64)
        self.count += len(x)
        self._total += x.sum(0)
        self._products.addmm_(x.T, x)

    @property
    def mean(self) -> np.ndarray:
        return self._total.numpy() / self.count

    @property
    def second(self) -> np.ndarray:
        return self._products.numpy() / self.count


@dataclass(frozen=True, eq=False)
class Use:
    """One place that reads the units' states h: it computes ``weight @ h``.

    ``weight`` (O, H); ``mean`` (H,) = E[h]; ``second`` (H, H) = E[h hᵀ], over the ``samples`` readings there (the head of
    a classifier that looks at the last step is measured at the last step only).
    """

    reader: str
    weight: np.ndarray
    mean: np.ndarray
    second: np.ndarray
    samples: int

    @property
    def covariance(self) -> np.ndarray:
        return self.second - np.outer(self.mean, self.mean)


@dataclass(frozen=True, eq=False)
class SiteEvidence:
    """What was measured at one site: who reads its units, and the loss gradient of its parameters per batch."""

    uses: tuple[Use, ...] = ()
    gradients: tuple[View, ...] = ()


@dataclass(frozen=True, eq=False)
class Evidence:
    """Evidence per site name."""

    sites: Mapping[str, SiteEvidence] = field(default_factory=dict)


def collect(
    model: nn.Module,
    data: Any,
    sites: Sequence[Site],
    needs: Iterable[str],
    loss: Loss | None = None,
) -> Evidence:
    """Measure what ``needs`` names ("states", "gradients") at ``sites`` on calibration ``data``.

    ``loss(output, target)`` → scalar, for gradients; by default cross-entropy for integer targets and the mean squared
    error for real ones. Raises :class:`DataError` if the data does not fit the model or lacks targets.
    """
    wanted = set(needs)
    if not wanted:
        return Evidence()
    items = batches(data)
    uses = _uses(model, items, sites) if "states" in wanted else {}
    gradients = _gradients(model, items, sites, loss) if "gradients" in wanted else {}
    return Evidence({s.name: SiteEvidence(uses.get(s.name, ()), gradients.get(s.name, ())) for s in sites})


def _uses(model: nn.Module, items: Sequence[Batch], sites: Sequence[Site]) -> dict[str, tuple[Use, ...]]:
    flow = trace(model, sites, items[0].args, items[0].kwargs)
    paths = dict.fromkeys([*(site.module for site in sites), *(reader.module for reader in flow.readers)])
    calls = inputs_of(model, paths, items)
    found: dict[str, list[Use]] = {site.name: [] for site in sites}
    for path in dict.fromkeys(site.module for site in sites):
        module = model.get_submodule(path)
        own = {s.name: s for s in sites if s.module == path}
        escaped = any(port.module == path for port in flow.escapes)
        if isinstance(module, nn.RNNBase):
            _layer_uses(module, path, calls[path], own, found, escaped)
        elif isinstance(module, nn.RNNCellBase):
            _cell_uses(model, next(iter(own.values())), calls[path], found)
        elif escaped:
            site = next(iter(own.values()))
            outputs = Moments(site.size)
            with torch.no_grad():
                for args, kwargs in calls[path]:
                    outputs.add(module(*args, **kwargs))
            _add(found, site.name, "output", np.eye(site.size), outputs)
    _reader_uses(model, flow, calls, found)
    return {name: tuple(uses) for name, uses in found.items()}


def _add(found: dict[str, list[Use]], name: str, reader: str, weight: np.ndarray, moments: Moments) -> None:
    if moments.count == 0:
        raise DataError(f"site {name!r} was never run on the calibration data; give data that reaches it")
    found[name].append(Use(reader, weight, moments.mean, moments.second, moments.count))


def _layer_uses(
    module: nn.RNNBase,
    path: str,
    calls: Sequence[tuple[Any, ...]],
    own: Mapping[str, Site],
    found: dict[str, list[Use]],
    escaped: bool,
) -> None:
    views = layer_views(module, path)
    before, after = ({name: Moments(site.size) for name, site in own.items()} for _ in range(2))
    for args, kwargs in calls:
        call = layer_call(module, args, kwargs)
        states = layer_states(views, call, module)
        valid = call.valid
        for depth, row in enumerate(views):
            if depth:
                call = type(call)(torch.cat([a for _, a in states[depth - 1]], -1), call.lengths, call.h, call.c)
            for direction, view in enumerate(row):
                if view.site.name not in own:
                    continue
                pair = states[depth][direction]
                if view.w_proj is not None and isinstance(module, nn.LSTM):
                    pair = unit_states(view, call, module, depth * len(row) + direction)
                before[view.site.name].add(pair[0][valid])
                after[view.site.name].add(pair[1][valid])
    for depth, row in enumerate(views):
        for direction, view in enumerate(row):
            name = view.site.name
            if name not in own:
                continue
            if view.w_proj is not None:
                _add(found, name, "projection", view.w_proj, after[name])
                continue
            _add(found, name, "recurrence", view.recurrence().reshape(-1, view.hidden), before[name])
            if depth + 1 < len(views):
                columns = slice(direction * view.hidden, (direction + 1) * view.hidden)
                weight = np.concatenate([v.w_in[:, :, columns].reshape(-1, view.hidden) for v in views[depth + 1]])
                _add(found, name, f"layer {depth + 1}", weight, after[name])
            elif escaped:
                _add(found, name, "output", np.eye(view.hidden), after[name])


def _cell_uses(model: nn.Module, site: Site, calls: Sequence[tuple[Any, ...]], found: dict[str, list[Use]]) -> None:
    view, states = read(model, site), Moments(site.size)
    for args, kwargs in calls:
        state = args[1] if len(args) > 1 else kwargs.get("hx")
        if state is not None:
            states.add(state[0] if isinstance(state, tuple) else state)
    _add(found, site.name, "recurrence", view.recurrence().reshape(-1, view.hidden), states)
    _add(found, site.name, "output", np.eye(view.hidden), states)


def _reader_uses(
    model: nn.Module, flow: Flow, calls: Mapping[str, Sequence[tuple[Any, ...]]], found: dict[str, list[Use]]
) -> None:
    """Modules that read a site's units: their weights, and the moments of what they read."""
    for reader in flow.readers:
        module = model.get_submodule(reader.module)
        weight = np.concatenate(
            [read(model, site).w_in.reshape(-1, len(reader.labels)) for site in module_sites(module, reader.module)[:2]]
            if getattr(module, "bidirectional", False)
            else [read(model, module_sites(module, reader.module)[0]).w_in.reshape(-1, len(reader.labels))]
        )
        for site in flow.units.sites:
            for columns in occurrences(reader.labels, flow.units.labels(site)):
                moments = Moments(site.size)
                for args, kwargs in calls[reader.module]:
                    x = args[0] if args else kwargs["input"]
                    moments.add(tensors_in(x)[0][..., columns])
                _add(found, site.name, reader.module, weight[:, columns], moments)


def _gradients(
    model: nn.Module, items: Sequence[Batch], sites: Sequence[Site], loss: Loss | None
) -> dict[str, tuple[View, ...]]:
    parameters = {
        (site.name, key): model.get_submodule(site.module)._parameters[name]
        for site in sites
        for key, name in site.parameter_names().items()
        if model.get_submodule(site.module)._parameters.get(name) is not None
    }
    training = {module: module.training for module in model.modules()}
    required = {p: p.requires_grad for p in parameters.values() if p is not None}
    out: dict[str, list[View]] = {site.name: [] for site in sites}
    model.eval()
    # cuDNN computes gradients of recurrent layers in training mode only; dropout stays off in all others.
    for module in model.modules():
        if isinstance(module, nn.RNNBase) and device_of(model).type == "cuda" and not module.dropout:
            module.train()
    try:
        for parameter in required:
            parameter.requires_grad_(True)
        for batch in items:
            with torch.enable_grad():
                value = _loss(run(model, batch), batch.to(device_of(model)), loss)
                grads = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)  # type: ignore[arg-type]
            for site in sites:
                out[site.name].append(_gradient_view(model, site, dict(zip(parameters, grads, strict=True))))
    finally:
        for module, mode in training.items():
            module.training = mode
        for parameter, flag in required.items():
            parameter.requires_grad_(flag)
    return {name: tuple(views) for name, views in out.items()}


def _gradient_view(model: nn.Module, site: Site, grads: Mapping[tuple[str, str], Tensor | None]) -> View:
    view = read(model, site)
    arrays = {}
    for key, value in view.arrays():
        grad = grads[(site.name, key)]
        arrays[key] = (
            np.zeros_like(value) if grad is None else grad.to("cpu", torch.float64).numpy().reshape(value.shape)
        )
    return view.replace(**arrays)


def _loss(output: Any, batch: Batch, loss: Loss | None) -> Tensor:
    if batch.target is None:
        raise DataError("this criterion needs gradients, so the data must give (inputs, target) batches")
    if loss is not None:
        return loss(output, batch.target)
    first = tensors_in(output)
    if not first or not isinstance(batch.target, Tensor):
        raise DataError("no default loss fits this model's output and target; pass loss=callable(output, target)")
    if batch.target.is_floating_point():
        if first[0].shape != batch.target.shape:
            raise DataError(
                f"output {tuple(first[0].shape)} and target {tuple(batch.target.shape)} differ in shape; pass loss=..."
            )
        return F.mse_loss(first[0], batch.target)
    if first[0].shape[:-1] != batch.target.shape:
        raise DataError(
            f"output {tuple(first[0].shape)} does not give one row of class scores per target of shape "
            f"{tuple(batch.target.shape)}; pass loss=callable(output, target)"
        )
    value = F.cross_entropy(first[0].reshape(-1, first[0].shape[-1]), batch.target.reshape(-1))
    if not torch.isfinite(value):
        raise ModelError("the loss on the calibration data is not finite; check the targets and the weights")
    return value
