"""What the theorems are asked about: one recurrent site with the sequences that it steps through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from jali.analysis.observe import Run, observe
from jali.batches import batches
from jali.dynamics import Floats, Recurrence, recurrence_of
from jali.errors import ModelError
from jali.plain import an
from jali.site import sites
from jali.view import View

DENSITIES = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
SEQUENCES, STEPS = 64, 50  # at most; and what is drawn without data


@dataclass(frozen=True, eq=False)
class Case:
    """One site: its step, its input ``x (B, T, I)`` and first states ``start (B, size)``.

    ``source``: where ``x`` comes from, "data" or "drawn inputs" (standard normal).
    """

    recurrence: Recurrence
    x: Floats
    start: Floats
    source: str
    seed: int = 0

    @property
    def site(self) -> str:
        return self.view.site.name

    @property
    def view(self) -> View:
        return self.recurrence.view


def cases(model: nn.Module, data: Any, seed: int) -> tuple[Case, ...]:
    """A case per recurrent site of ``model``."""
    if not isinstance(model, nn.Module):
        raise ModelError(f"the model is {an(type(model).__name__)}; give the torch.nn.Module that holds the layers")
    found = sites(model)
    runs = {} if data is None else observe(model, batches(data), found)
    made = []
    for number, site in enumerate(found):
        step = recurrence_of(model, site)
        x, start = _seen(runs.get(site.name, []), step.size) or _drawn(step, seed + number)
        source = "data" if runs.get(site.name) else "drawn inputs"
        made.append(Case(step, x, start, source, seed))
    return tuple(made)


def default_model(seed: int = 0) -> nn.RNN:
    """A small RNN, ``nn.RNN(2, 12)``, with weights drawn by ``seed``; the caller's random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.RNN(2, 12, batch_first=True)


def relation(weights: Floats, density: float) -> NDArray[np.bool_]:
    """The strongest ``density`` of the entries of ``weights (n, n)`` that are not zero; all of these at density 1."""
    from jali.maths.persistence import strongest

    return weights > 0 if density == 1 or not weights.any() else strongest(weights, density) & (weights > 0)


def named(density: float) -> str:
    return "all weights" if density == 1 else f"the strongest {100 * density:g} % of the weights"


def weakest_cut(view: View, fraction: float = 0.5) -> View:
    """The site without the weakest ``fraction`` in [0, 1) of its recurrent weights, by magnitude; the strongest stays."""
    weights = view.w_rec
    if weights is None:
        raise ModelError(f"site {view.site.name!r} has no recurrent weights; choose a recurrent site")
    order = np.argsort(np.abs(weights), axis=None, kind="stable")
    cut = weights.copy()
    cut.flat[order[: min(round(fraction * weights.size), weights.size - 1)]] = 0.0
    return view.replace(w_rec=cut)


def _seen(runs: Sequence[Run], size: int) -> tuple[Floats, Floats] | None:
    """The first sequences, cut to the shortest one: every theorem then speaks of the same steps."""
    if not runs:
        return None
    steps = min(STEPS, min(int(run.lengths.min()) for run in runs))
    starts = [run.start if run.start.shape[1] else np.zeros((len(run.x), size)) for run in runs]
    x = np.concatenate([run.x[:, :steps] for run in runs])[:SEQUENCES]
    return x, np.concatenate(starts)[:SEQUENCES]


def _drawn(step: Recurrence, seed: int) -> tuple[Floats, Floats]:
    x = np.random.default_rng(seed).normal(size=(SEQUENCES, STEPS, step.view.inputs))
    return x, np.zeros((SEQUENCES, step.size))
