"""The sequences that every site steps through when a model runs on data, and the answers of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from jali.batches import Batch, run
from jali.capture import Call, inputs_of, layer_call, layer_states, reverse_within
from jali.dynamics import Floats
from jali.modes import evaluation_mode
from jali.site import Site
from jali.view import layer_views


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
    """Site name → its runs, for the sites of PyTorch's recurrent layers; cells and wired layers have none."""
    paths = list(dict.fromkeys(site.module for site in sites if not site.cell))
    paths = [path for path in paths if isinstance(model.get_submodule(path), nn.RNNBase)]
    runs: dict[str, list[Run]] = {site.name: [] for site in sites}
    for path, calls in inputs_of(model, paths, items).items():
        module = model.get_submodule(path)
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
