"""The networks that the studies train, and how: one classifier, one recipe, deterministic by seed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jali.data import Dataset, Split, batches
from jali.modes import evaluation_mode
from jali.studies.base import Progress
from jali.surgery.closed_loop import ROUNDS
from jali.surgery.decode import HELD_OUT, RIDGES


class SequenceClassifier(nn.Module):
    """One recurrent layer ("RNN", "LSTM" or "GRU"), and a linear head on its last step: (B, T, features) → (B, classes)."""

    def __init__(self, features: int, hidden: int, classes: int, cell: str = "LSTM") -> None:
        super().__init__()
        layers = {"RNN": nn.RNN, "LSTM": nn.LSTM, "GRU": nn.GRU}
        self.rnn = layers[cell](features, hidden, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][:, -1])


@dataclass(frozen=True)
class Recipe:
    """AdamW with a one-cycle learning rate (L. Smith, N. Topin, 2017), gradient clipping at 1, cross-entropy.

    ``shift``: each image moves by up to this many pixels in both directions, anew in every epoch, zeros come in.
    """

    epochs: int
    batch: int
    lr: float
    shift: int = 0
    warmup: float = 0.15

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(model.parameters(), lr=self.lr, weight_decay=0.0)

    def rates(self, optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
        """What sets the learning rate after each of ``steps`` steps."""
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, total_steps=steps, pct_start=self.warmup)

    clip: ClassVar[float] = 1.0  # largest norm of the gradients of a step


class Companion(Protocol):
    """What goes along with a training: a :class:`jali.Pruner`, for one."""

    def step(self) -> object:
        """After every step of the optimizer."""

    def epoch(self) -> object:
        """After every epoch."""


class Calibrated(Protocol):
    """A study's recipe, a dataclass: it names a data set, and calibrates on the first ``calibration`` of its train split."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def calibration(self) -> int: ...


def settings_of(recipe: Calibrated, data: Dataset, *splits: str) -> dict[str, Any]:
    """The ``config`` of a record: the recipe, the fold's own settings, and how many examples of which split are used.

    Beside "train", "calibration" (of it) and "test", ``splits`` names what else the study reads, "validation".
    """
    calibration = min(recipe.calibration, len(data.train.x))
    used = {split: len(getattr(data, split).x) for split in ("train", *splits, "test")}
    fold = {"rounds": ROUNDS, "ridges": list(RIDGES), "held out, one sequence of": HELD_OUT}
    return {**asdict(recipe), "fold": fold, "examples": {**used, "calibration, first of train": calibration}}


def train(
    model: nn.Module,
    data: Split,
    recipe: Recipe,
    seed: int,
    progress: Progress | None = None,
    companion: Callable[[torch.optim.Optimizer], Companion] | None = None,
) -> None:
    """Train ``model`` in place; the same seed gives the same weights on the same machine and number of threads.

    ``companion(optimizer)`` is made before the first step and goes along.
    """
    generator = torch.Generator().manual_seed(seed)
    steps = recipe.epochs * -(-len(data.x) // recipe.batch)
    optimizer = recipe.optimizer(model)
    rates = recipe.rates(optimizer, steps)
    beside = None if companion is None else companion(optimizer)
    model.train()
    done = 0
    for epoch in range(recipe.epochs):
        for x, y in batches(data.x, data.y, recipe.batch, generator, shuffle=True):
            loss = F.cross_entropy(model(shifted(x, recipe.shift, generator)), y)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            optimizer.step()
            rates.step()
            if beside is not None:
                beside.step()
            done += 1
            if progress is not None and done % 20 == 0:
                progress(f"epoch {epoch + 1} of {recipe.epochs}", done / steps)
        if beside is not None:
            beside.epoch()
    model.eval()


def shifted(x: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """Each image of (B, T, F) moved by up to ``pixels`` rows and columns, zeros coming in."""
    if pixels == 0:
        return x
    count, height, width = x.shape
    padded = F.pad(x, (pixels,) * 4)
    dy, dx = torch.randint(0, 2 * pixels + 1, (2, count), generator=generator)
    rows = (dy[:, None] + torch.arange(height))[:, :, None]
    columns = (dx[:, None] + torch.arange(width))[:, None, :]
    return padded[torch.arange(count)[:, None, None], rows, columns]


@torch.no_grad()
def accuracy(model: nn.Module, split: Split) -> float:
    """Share of the examples of ``split`` that ``model`` classifies right, in [0, 1]."""
    with evaluation_mode(model):
        right = sum(int((model(x).argmax(-1) == y).sum()) for x, y in batches(split.x, split.y, 1000))
    return right / len(split.x)


def dense_classifier(data: Dataset, hidden: int, recipe: Recipe, seed: int, progress: Progress | None) -> nn.Module:
    """A classifier trained from scratch; ``seed`` draws its initial weights and the order of the examples."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SequenceClassifier(data.features, hidden, data.classes)
    train(model, data.train, recipe, seed, progress)
    return model


def fine_tuned(model: nn.Module, data: Split, recipe: Recipe, seed: int) -> nn.Module:
    """A copy of ``model`` trained further."""
    tuned = copy.deepcopy(model)
    train(tuned, data, recipe, seed)
    return tuned
