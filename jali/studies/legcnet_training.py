"""Banks of networks of the LEGCNet studies: trained to convergence, and beside their perturbed twins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from jali.data import Dataset, load
from jali.evidence import Perturbation, Trajectory, trajectory
from jali.studies.base import Progress
from jali.studies.legcnet_networks import Bank, Examples, classes_of, descend, logits_loss
from jali.studies.legcnet_settings import Setting


def parts(data: Dataset) -> tuple[Tensor, Tensor]:
    """What is trained on: train and validation together, (n, features) and (n,)."""
    both = [data.train, data.validation]
    return torch.cat([part.x for part in both]).flatten(1), torch.cat([part.y for part in both])


def datasets(config: dict[str, Any]) -> list[Dataset]:
    """The data of every seed: the same split for all, or one split each where the config says so."""
    if config.get("splits") == "own":
        return [load(config["data"], seed=seed) for seed in config["seeds"]]
    return [load(config["data"])] * len(config["seeds"])


def examples_of(sets: Sequence[Dataset], seeds: Sequence[int]) -> Examples:
    if all(data is sets[0] for data in sets):
        x, y = parts(sets[0])
        x, y = x.expand(len(sets), *x.shape), y.expand(len(sets), *y.shape)
    else:
        x, y = (torch.stack(each) for each in zip(*map(parts, sets), strict=True))
    return Examples(x, y, torch.arange(len(seeds)), tuple(seeds))


def watched_loss(bank: Bank, examples: Examples, setting: Setting) -> np.ndarray:
    """Training loss of each network, (N,)."""
    return _by_network(bank, examples, setting, lambda logits, y: logits_loss(logits, y))


def watched_accuracy(bank: Bank, examples: Examples, setting: Setting) -> np.ndarray:
    """Training accuracy of each network, (N,)."""
    return _by_network(bank, examples, setting, lambda logits, y: (classes_of(logits) == y).double().mean(1))


@torch.no_grad()
def _by_network(bank: Bank, examples: Examples, setting: Setting, measure: Any) -> np.ndarray:
    """The networks of one seed at a time: the rows of all would not fit."""
    out = np.empty(bank.count)
    for seed in torch.unique(examples.seed):
        own = torch.nonzero(examples.seed == seed)[:, 0]
        x = examples.x[seed, : setting.watched].to(bank.weights[0].dtype)
        y = examples.y[seed, : setting.watched].expand(len(own), -1)
        out[own.numpy()] = measure(bank.pick(own.tolist())(x.expand(len(own), *x.shape)), y).double().numpy()
    return out


def until_converged(
    bank: Bank, examples: Examples, setting: Setting, keep: Sequence[Tensor] | None, progress: Progress
) -> tuple[Bank, tuple[int, ...]]:
    """Every network as it was when it converged, and after how many epochs; ``keep``: masks of the weights that stay."""
    descent, bank, done = setting.descent, bank.pick(range(bank.count)), bank.pick(range(bank.count))
    losses = watched_loss(bank, examples, setting)[:, None]  # (N, epochs so far)
    epochs, active = np.zeros(bank.count, dtype=int), np.arange(bank.count)
    masks = None if keep is None else [mask.to(weight.dtype) for mask, weight in zip(keep, bank.weights, strict=True)]
    while len(active):
        epoch = losses.shape[1] - 1
        for x, y in examples.batches(epoch, descent.batch):
            descend(bank, x, y, descent.rate, masks)
        losses = np.concatenate([losses, watched_loss(bank, examples, setting)[:, None]], axis=1)
        stopped = np.array([descent.stops(row) for row in losses])
        with torch.no_grad():
            for final, weight in zip(done.weights, bank.weights, strict=True):
                final[torch.from_numpy(active[stopped])] = weight[torch.from_numpy(stopped)]
        epochs[active[stopped]] = epoch + 1
        if stopped.any():  # the others go on alone
            left = np.flatnonzero(~stopped).tolist()
            bank, examples, active, losses = bank.pick(left), examples.of(left), active[left], losses[left]
            masks = None if masks is None else [mask[left] for mask in masks]
        progress(f"epoch {epoch + 1}: {len(active)} of {done.count} networks go on")
    return done, tuple(int(each) for each in epochs)


def recorded(bank: Bank, examples: Examples, setting: Setting, epochs: int, progress: Progress) -> Trajectory:
    """The twins of all networks: in each one weight of the first unit starts δ₀ elsewhere.

    The paper's w₁₁, but for MNIST: its first pixel is never lit, so that w₁₁ changes nothing; there it is one of the middle.
    """
    per_epoch = -(-examples.x.shape[1] // setting.descent.batch)

    closed = 0

    def train(network: nn.Module) -> Iterator[None]:
        for epoch in range(epochs):
            for x, y in examples.batches(epoch, setting.descent.batch):
                descend(cast("Bank", network), x, y, setting.descent.rate)
                yield

    def watch(network: nn.Module) -> np.ndarray:
        nonlocal closed
        closed += 1
        progress(f"twins: {closed} windows", closed * setting.window / (epochs * per_epoch))
        return watched_accuracy(cast("Bank", network), examples, setting)

    places = tuple((n, 0, setting.place) for n in range(bank.count))
    moved = Perturbation("weights.0", places, setting.delta)
    return trajectory(
        bank.pick(range(bank.count)).double(), train, watch, perturbation=moved, window=setting.window, method=setting.method
    )[0]  # fmt: skip
