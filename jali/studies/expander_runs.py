"""What the studies of expansion share: their networks, how these are trained, masked and made noisy, and their bounds."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jali.data import Dataset, Split, batches, load
from jali.maths.spectral import expansion
from jali.plans.ramanujan import edges_at_loss
from jali.runs.record import Metric
from jali.runs.store import RecordStore
from jali.site import sites
from jali.studies.base import Progress
from jali.studies.training import accuracy
from jali.view import View, read, write

FIELDS = {"W_xh": "w_in", "W_hh": "w_rec"}  # the paper's names
CURVE = 32  # densities at which the bounds are drawn
LEAST = 0.01  # the smallest of these densities
DRAWS = 5  # random cuts of a block


@dataclass(frozen=True)
class ExpanderRecipe:
    """Adam at a constant rate, cross-entropy, weights uniform as Kaiming He's: the paper's Table 1.

    ``epochs`` of training, then of fine-tuning what a one-shot cut left; ``remaining``: fractions of the edges; ``noise``:
    standard deviations on a fraction ``noisy`` of the pixels of the test images; ``examples``: how many of the training part.
    """

    data: str
    kind: str
    hidden: int = 128
    epochs: tuple[int, int] = (20, 20)
    batch: int = 128
    lr: float = 1e-3
    remaining: tuple[float, ...] = (0.5, 0.25, 0.12, 0.08, 0.05, 0.03)
    layers: tuple[str, ...] = ("both",)
    widths: tuple[int, ...] = (64, 256)
    noise: tuple[float, ...] = (0.0, 0.15, 0.30, 0.45, 0.60)
    noisy: float = 0.2
    examples: int = 10**9

    def config(self) -> dict[str, Any]:
        """The ``config`` of a record: the recipe, and how many examples of which part are used."""
        data = loaded(self.data)
        used = {part: len(getattr(data, part).x) for part in ("train", "validation", "test")}
        return {**asdict(self), "used": {**used, "train": min(used["train"], self.examples)}}

    @staticmethod
    def of(config: dict[str, Any]) -> ExpanderRecipe:
        """The recipe of a task's settings: what is recorded is what is run."""
        own: dict[str, Any] = {}
        for each in fields(ExpanderRecipe):
            value = config[each.name]
            own[each.name] = tuple(value) if isinstance(value, list) else value
        return ExpanderRecipe(**own)


class Network(nn.Module):
    """An RNN or LSTM and a linear head on its last step: (B, T, features) → (B, classes)."""

    def __init__(self, kind: str, features: int, hidden: int, classes: int, slope: float = 0.0) -> None:
        super().__init__()
        self.rnn = {"RNN": nn.RNN, "LSTM": nn.LSTM}[kind](features, hidden, batch_first=True)
        self.head = nn.Linear(hidden, classes)
        for weight in (self.rnn.weight_ih_l0, self.rnn.weight_hh_l0, self.head.weight):
            nn.init.kaiming_uniform_(weight, a=slope)  # ±√(6 / (1 + slope²) / fan-in)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][:, -1])


@lru_cache(maxsize=2)
def loaded(name: str) -> Dataset:
    """Tasks of one set follow each other, and reading it takes seconds."""
    return load(name)


def network(recipe: ExpanderRecipe, seed: int, hidden: int | None = None, slope: float = 0.0) -> Network:
    """The network before training; ``seed`` draws its weights, ``slope`` is that of Kaiming He's formula."""
    data = loaded(recipe.data)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Network(recipe.kind, data.features, hidden or recipe.hidden, data.classes, slope)


def fit(model: Network, recipe: ExpanderRecipe, epochs: int, seed: int, progress: Progress | None = None) -> None:
    """Train ``model`` in place. Recurrent and input weights that are zero stay zero."""
    x, y = (part[: recipe.examples] for part in loaded(recipe.data).train)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.lr)
    masks = {p: p.detach() != 0 for name, p in model.named_parameters() if name.startswith("rnn.weight")}
    model.train()
    for epoch in range(epochs):
        for inputs, targets in batches(x, y, recipe.batch, generator, shuffle=True):
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), targets).backward()
            for weight, mask in masks.items():  # Adam does not move a weight that never had a gradient
                weight.grad = None if weight.grad is None else weight.grad * mask
            optimizer.step()
        if progress is not None:
            progress(f"epoch {epoch + 1} of {epochs}", (epoch + 1) / epochs)
    model.eval()


def noisy(x: Tensor, sigma: float, fraction: float) -> Tensor:
    """``x`` with Gaussian noise of standard deviation ``sigma`` on a random ``fraction`` of its entries; always the same."""
    generator = torch.Generator().manual_seed(0)
    chosen = torch.rand(x.shape, generator=generator) < fraction
    return x + sigma * torch.randn(x.shape, generator=generator) * chosen


def scores(model: nn.Module, recipe: ExpanderRecipe) -> dict[str, Metric]:
    """Accuracy on the validation part, and on the test part at every noise."""
    data = loaded(recipe.data)
    found = {"validation": Metric(accuracy(model, data.validation), len(data.validation.x))}
    for sigma in recipe.noise:
        split = Split(noisy(data.test.x, sigma, recipe.noisy), data.test.y)
        found[f"test σ={sigma:g}"] = Metric(accuracy(model, split), len(split.x))
    return found


def view_of(model: nn.Module) -> View:
    """The view of the one recurrent layer."""
    return read(model, sites(model)[0])


def cut(model: nn.Module, keep: dict[str, np.ndarray]) -> None:
    """Set to zero what ``keep`` (view field → mask) does not keep, in place."""
    view = view_of(model)
    write(model, view.replace(**{field: getattr(view, field) * mask for field, mask in keep.items()}))


def block(values: np.ndarray) -> np.ndarray:
    """(G, H, I) → the packed block (G·H, I) of a layer."""
    return values.reshape(-1, values.shape[-1])


def strongest(values: np.ndarray, remaining: float) -> np.ndarray:
    """Mask of the ``remaining`` fraction of the largest entries, of the whole layer."""
    order = np.argsort(-np.abs(values), axis=None, kind="stable")
    mask = np.zeros(values.size, dtype=bool)
    mask[order[: max(round(remaining * values.size), 1)]] = True
    return mask.reshape(values.shape)


def crossing(values: np.ndarray, bound: str, weighted: bool = False) -> float:
    """Fraction of the edges of a block that remain when the bound of a cut by magnitude first falls below zero."""
    if not weighted:
        order = np.argsort(-np.abs(values), axis=None, kind="stable").reshape(values.shape)
        return edges_at_loss(order, bound) / values.size
    last = 1.0
    for remaining in np.geomspace(1, LEAST, 4 * CURVE):
        delta = expansion(values * strongest(values, remaining), weighted=True).delta(bound)
        if delta is None or delta < 0:
            return float(last)
        last = remaining
    return float(last)


def crossing_by_chance(shape: tuple[int, int], bound: str, seed: int) -> float:
    """:func:`crossing` of a random cut of a block, mean of :data:`DRAWS`."""
    rng = np.random.default_rng([seed, *shape])
    return float(np.mean([crossing(rng.random(shape), bound) for _ in range(DRAWS)]))


def curve(values: np.ndarray) -> dict[str, list[float | None]]:
    """Both bounds, unweighted and weighted, at fractions of the edges from 1 down; None where undefined or infinite."""
    levels = np.geomspace(1, LEAST, CURVE)
    found: dict[str, list[float | None]] = {"remaining": [float(level) for level in levels]}
    for weighted in (False, True):
        for bound in ("S", "R"):
            deltas = [expansion(values * strongest(values, p), weighted).delta(bound) for p in levels]
            name = f"Δ_{bound}" + (" weighted" if weighted else "")
            found[name] = [d if d is not None and math.isfinite(d) else None for d in deltas]
    return found


def bounds(model: nn.Module) -> dict[str, Metric]:
    """Δ_S and Δ_R of both layers as they are now, unweighted and weighted, where they are defined and finite."""
    found = {}
    for layer, field in FIELDS.items():
        for weighted in (False, True):
            each = expansion(block(getattr(view_of(model), field)), weighted)
            for bound in ("S", "R"):
                delta = each.delta(bound)
                if delta is not None and math.isfinite(delta):
                    found[f"{layer} Δ_{bound}" + (" weighted" if weighted else "")] = Metric(delta, 1)
    return found


def save(workspace: RecordStore, model: nn.Module, seed: int, name: str) -> None:
    workspace.write_tensors(f"{name}-{seed}.safetensors", model.state_dict())


def restored(workspace: RecordStore, recipe: ExpanderRecipe, seed: int, name: str) -> Network:
    """A network that :func:`save` wrote."""
    model = network(recipe, seed)
    model.load_state_dict(workspace.read_tensors(f"{name}-{seed}.safetensors"))
    return model.eval()
