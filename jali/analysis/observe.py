"""The sequences that every site steps through when a model runs on data, and the answers of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from jali.batches import Batch, run
from jali.capture import Call, input_of, inputs_of, layer_call, layer_states, reverse_within, state_of
from jali.dynamics import Floats, Recurrence
from jali.modes import evaluation_mode
from jali.site import Site, module_sites
from jali.view import layer_views
from jali.wired import WiredLayers


@dataclass(frozen=True, eq=False)
class Run:
    """One call as a site sees it, in its own order of time (a reverse site starts at the end).

    ``x (B, T, I)`` its input, ``h (B, T, R)`` its states, ``start (B, size)``, ``lengths (B,)``; ``given (B, T · I)`` is the
    input of its module, flattened.
    """

    x: Floats
    h: Floats
    start: Floats
    lengths: np.ndarray
    given: Floats

    @property
    def last(self) -> Floats:
        """The states after the last step of each sequence, ``(B, R)``."""
        return self.h[np.arange(len(self.h)), self.lengths - 1]

    @property
    def rows(self) -> Floats:
        """The states of all steps that belong to a sequence, ``(N, R)``."""
        return self.h[np.arange(self.h.shape[1]) < self.lengths[:, None]]


def observe(model: nn.Module, items: Sequence[Batch], sites: Sequence[Site]) -> dict[str, list[Run]]:
    """Site name → its runs, for the sites of recurrent layers; a cell, which is called step by step, has none."""
    paths = list(dict.fromkeys(site.module for site in sites if not site.cell))
    runs: dict[str, list[Run]] = {site.name: [] for site in sites}
    for path, calls in inputs_of(model, paths, items).items():
        module = model.get_submodule(path)
        if isinstance(module, WiredLayers):
            for args, kwargs in calls:
                for layer, own in enumerate(_wired(module, input_of(args, kwargs), state_of(args, kwargs))):
                    runs[module_sites(module, path)[layer].name].append(own)
            continue
        views = layer_views(module, path)  # type: ignore[arg-type]
        for args, kwargs in calls:
            call = layer_call(module, args, kwargs)  # type: ignore[arg-type]
            inside, given = call.x, _numpy(call.x).reshape(len(call.x), -1)
            for depth, row in enumerate(layer_states(views, call, module)):  # type: ignore[arg-type]
                for direction, (_, after) in enumerate(row):
                    site = views[depth][direction].site
                    parts = [reverse_within(p, call.lengths) if site.reverse else p for p in (inside, after)]
                    start = _start(call, depth * len(row) + direction, site.kind)
                    start = np.zeros((len(given), 0)) if start is None else start
                    x, h = map(_numpy, parts)
                    runs[site.name].append(Run(x, h, start, call.lengths.numpy(), given))
                inside = torch.cat([after for _, after in row], dim=-1)
    return runs


@torch.no_grad()
def _wired(module: WiredLayers, x: torch.Tensor, hx: torch.Tensor | None) -> list[Run]:
    """The run of every layer; what its wires bring is a part of its input."""
    seen, made = module.trajectory(x, hx), []
    starts = None if hx is None else hx.split(module.sizes, dim=-1)
    for layer in range(len(module.sizes)):
        wires = sorted((w for w in module.wires() if (w.reader, w.field) == (layer, "w_in")), key=lambda w: w.first)
        read = [seen[w.source][:, :-1] if w.delayed else seen[w.source][:, 1:] for w in wires]
        inside = torch.cat(read if layer else [x, *read], dim=-1)
        start = np.zeros((len(x), 0)) if starts is None else _numpy(starts[layer])
        lengths = np.full(len(x), x.shape[1])
        made.append(Run(_numpy(inside), _numpy(seen[layer][:, 1:]), start, lengths, _numpy(x).reshape(len(x), -1)))
    return made


def started(run: Run, recurrence: Recurrence) -> Floats:
    """The first states, zero where the caller gave none."""
    return run.start if run.start.shape[1] else np.zeros((len(run.x), recurrence.size))


def answers(model: nn.Module, items: Sequence[Batch]) -> list[Any]:
    """The model's output on every batch, in evaluation mode and without gradients."""
    with torch.no_grad(), evaluation_mode(model):
        return [run(model, batch) for batch in items]


def _start(call: Call, slot: int, kind: str) -> Floats | None:
    if call.h is None:
        return None
    parts = [call.h[slot]] + ([call.c[slot]] if kind == "LSTM" and call.c is not None else [])
    return np.concatenate([_numpy(part.reshape(len(call.x), -1)) for part in parts], axis=1)


def _numpy(tensor: torch.Tensor) -> Floats:
    return tensor.detach().to("cpu", torch.float64).numpy()
