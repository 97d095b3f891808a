"""The LEGCNet paper's networks, many at a time: sigmoid perceptrons without biases, trained by gradient descent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jali.data import Dataset


class Bank(nn.Module):
    """N independent networks ``W_l σ(… σ(W_1 x))``, the paper's equation 1: (N, B, features) → (N, B, outputs).

    Parameter ``weights.k`` has the k-th layer of all, (N, outputs, inputs). One output is the logit of class 1.
    """

    def __init__(self, weights: Sequence[Tensor]) -> None:
        super().__init__()
        self.weights = nn.ParameterList([nn.Parameter(weight.clone()) for weight in weights])

    def forward(self, x: Tensor) -> Tensor:
        for weight in list(self.weights)[:-1]:
            x = torch.sigmoid(x @ weight.mT)
        return x @ self.weights[-1].mT

    @property
    def count(self) -> int:
        return len(self.weights[0])

    def pick(self, index: Sequence[int]) -> Bank:
        """The networks ``index``, also several times."""
        return Bank([weight.detach()[list(index)] for weight in self.weights])

    @staticmethod
    def joined(banks: Sequence[Bank]) -> Bank:
        """The networks of all ``banks``, one after the other."""
        return Bank([torch.cat([w.detach() for w in layer]) for layer in zip(*(b.weights for b in banks), strict=True)])


def widths(data: Dataset, hidden: Sequence[int]) -> tuple[int, ...]:
    """Features, hidden units, outputs: one for two classes."""
    return (data.steps * data.features, *hidden, 1 if data.classes == 2 else data.classes)


def initial(sizes: Sequence[int], seeds: Sequence[int]) -> Bank:
    """One network per seed, W ~ N(0, 1/inputs), float64."""
    layers: list[list[Tensor]] = [[] for _ in sizes[1:]]
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        for layer, inputs, outputs in zip(layers, sizes, sizes[1:], strict=False):
            drawn = torch.randn(outputs, inputs, generator=generator, dtype=torch.float64)
            layer.append(drawn / inputs**0.5)
    return Bank([torch.stack(layer) for layer in layers])


@dataclass(frozen=True, eq=False)
class Examples:
    """What each of N networks is trained on: ``x`` (S, n, F), ``y`` (S, n), and ``seed`` (N,), which of the S it takes.

    ``seeds`` (S,) draw the order of the examples, the same for all networks of one of the S.
    """

    x: Tensor
    y: Tensor
    seed: Tensor
    seeds: tuple[int, ...]

    def of(self, index: Sequence[int]) -> Examples:
        """The same for the networks ``index``."""
        return Examples(self.x, self.y, self.seed[list(index)], self.seeds)

    def order(self, epoch: int) -> Tensor:
        """The order of the examples of an epoch, (N, n)."""
        rows = [np.random.default_rng([seed, epoch]).permutation(self.x.shape[1]) for seed in self.seeds]
        return torch.from_numpy(np.stack(rows))[self.seed]

    def batches(self, epoch: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        order, which = self.order(epoch), self.seed[:, None]
        for part in order.split(size, dim=1):
            yield self.x[which, part], self.y[which, part]


@dataclass(frozen=True)
class Descent:
    """Gradient descent at a constant rate on the cross-entropy, ``batch`` examples at a time; convergence by the loss.

    A network has converged after the first epoch at whose end the training loss is not below (1 − ``gain``) times the
    smallest that it was ``patience`` epochs before or earlier, or after ``epochs`` of them.
    """

    rate: float
    epochs: int
    batch: int = 1
    gain: float = 0.01
    patience: int = 5

    def stops(self, losses: np.ndarray) -> bool:
        """Whether a network has converged at the last of its training losses after epochs 0 (before the first), 1, …"""
        epoch = len(losses) - 1
        if epoch >= self.epochs:
            return True
        return epoch >= self.patience and bool(
            losses[-1] >= (1 - self.gain) * losses[: epoch - self.patience + 1].min()
        )


def logits_loss(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of each network, (N,)."""
    count = logits.shape[0]
    if logits.shape[-1] == 1:
        losses = F.binary_cross_entropy_with_logits(logits[..., 0], y.double(), reduction="none")
    else:
        losses = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none").view(count, -1)
    return losses.mean(1)


def classes_of(logits: Tensor) -> Tensor:
    """The class that each network chooses, (N, B)."""
    return (logits[..., 0] > 0).long() if logits.shape[-1] == 1 else logits.argmax(-1)


@torch.no_grad()
def descend(bank: Bank, x: Tensor, y: Tensor, rate: float, masks: Sequence[Tensor] | None = None) -> None:
    """One step of gradient descent on a batch, in place; ``masks`` of the weights that stay, those of ``bank.weights``."""
    weights = [weight.detach() for weight in bank.weights]
    states = [x.to(weights[0].dtype)]
    for weight in weights[:-1]:
        states.append(torch.sigmoid(states[-1] @ weight.mT))
    logits = states[-1] @ weights[-1].mT
    if logits.shape[-1] == 1:
        error = torch.sigmoid(logits) - y[..., None]
    else:
        error = torch.softmax(logits, -1)
        error.scatter_add_(-1, y[..., None], torch.full_like(error[..., :1], -1.0))
    for k in range(len(weights) - 1, -1, -1):
        gradient = error.mT @ states[k]
        if k:
            error = (error @ weights[k]) * (states[k] * (1 - states[k]))
        if masks is not None:
            gradient *= masks[k]
        weights[k].sub_(gradient, alpha=rate / x.shape[1])
