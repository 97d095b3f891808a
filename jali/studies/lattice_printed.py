"""Algorithms 1, 2 and 3 of the lattice pruning paper, exactly as they are printed.

R. Sengupta, "Lattice-based pruning in recurrent neural networks via poset modeling". ``A[i, j]`` is the connection from unit
j to unit i. In Algorithms 2 and 3 it is made once, with the network: it is no function of the weights, and training never
changes it. What the paper leaves open is said where it is decided. The library's own Algorithm 1, which reads A from the
weights and repairs what it cuts, is :func:`jali.prune` with the criterion ``lattice`` or ``moebius``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from jali.errors import DataError
from jali.maths.concepts import enumerate_concepts
from jali.maths.context import as_incidence, irreducible_columns
from jali.maths.moebius import moebius

EPSILON = 1e-8  # "a small constant"


# --- adjacency ----------------------------------------------------------------------------------------------------------


def binary_adjacency(units: int) -> np.ndarray:
    """A of Table I, (H, H) bool: the first half of the units is meet-irreducible (Definition III.3), the second is not.

    The paper prints no matrix. This is the plainest whose lattice can be built, (H/4 + 1)² elements: the columns of the first
    half are two chains, C_1 ⊃ C_2 ⊃ … on the first half of the rows and D_1 ⊃ D_2 ⊃ … on the second, and each column of the
    second half is some C_i ∩ D_j, so "the meet (logical AND) of other connections". ``units``: a multiple of 4, at least 16.
    """
    if units < 16 or units % 4:
        raise DataError(f"{units} units cannot be halved into two chains; give a multiple of 4, at least 16")
    half, length = units // 2, units // 4
    rows = np.arange(units)[:, None]
    start = np.arange(1, length + 1)
    first, second = (rows >= half) | (rows >= start), (rows < half) | (rows >= half + start)
    # Only the two largest of D take part: at the bottom of the lattice μ is not 0.
    i, j = np.arange(half) % length, np.arange(half) // length
    return np.concatenate([first, second, first[:, i] & second[:, j]], axis=1)


def continuous_adjacency(units: int, seed: int) -> np.ndarray:
    """A of Table II, (H, H): A ~ U(0.5, 2.0) (Algorithm 3, line 1)."""
    return np.random.default_rng(seed).uniform(0.5, 2.0, (units, units))


# --- what stays ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Choice:
    """What Algorithm 1 finds of every unit, (H,): in ``irreducible`` whether it is in M, its ``centrality``, ``keep``."""

    irreducible: np.ndarray
    centrality: np.ndarray
    keep: np.ndarray


def algorithm_1(incidence: np.ndarray, threshold: float) -> Choice:
    """Algorithm 1: construct the lattice L, find the meet-irreducible M, compute μ, and prune L \\ M where μ < τ.

    L is the concept lattice of ``incidence``, (H, H) bool, the completion of the unfolded relation, and an element of it is a
    unit by its column. μ(m) is μ(0̂, m); the paper writes one argument, and wants μ ≥ 0 in Definition III.4: the absolute value.
    Raises :class:`LimitError` where L is too large to be built.
    """
    relation = as_incidence(incidence)
    lattice = enumerate_concepts(relation, limit=10_000)
    place = {extent.tobytes(): k for k, extent in enumerate(lattice.extents)}
    units = [place[column.tobytes()] for column in np.ascontiguousarray(relation.T)]
    irreducible = irreducible_columns(relation) | relation.all(axis=0)  # Definition III.3 holds of the top, too
    centrality = np.abs(moebius(lattice.order())[len(lattice) - 1, units]).astype(np.float64)
    return Choice(irreducible, centrality, irreducible | (centrality >= threshold))


def centrality(adjacency: np.ndarray, epsilon: float = EPSILON) -> np.ndarray:
    """Algorithm 3, lines 13 and 14: ``c_j = 1 / (Σ_i A[i, j] + ε)``, (H,). Section IV.C sums the rows instead."""
    return np.asarray(1.0 / (adjacency.sum(axis=0) + epsilon))


def algorithm_3(adjacency: np.ndarray, threshold: float, epsilon: float = EPSILON) -> np.ndarray:
    """Algorithm 3, line 15: keep unit j where ``c_j ≥ τ``, (H,) bool.

    No column sum of A ~ U(0.5, 2) is below H/2, so ``c_j ≤ 2/H``: with τ = 0.2 nothing stays of more than ten units.
    """
    return np.asarray(centrality(adjacency, epsilon) >= threshold)


def expanded(keep: np.ndarray, rows: int) -> Tensor:
    """Algorithm 3, line 18: m repeated along the first dimension, (``rows``, H) bool: the columns of ``weight_hh`` that stay."""
    return torch.from_numpy(np.asarray(keep, dtype=bool)).repeat(rows, 1)


class Every:
    """Lines 11 to 13 of Algorithm 2, 10 to 21 of Algorithm 3: every ``interval`` epochs the mask is applied to ``weight_hh``.

    Between, it is held: the paper does not say so, but right after the mask was applied the network is at chance, and with its
    last pruning in the last epoch that would be its result. A companion of :func:`jali.studies.training.train`.
    """

    def __init__(self, model: nn.Module, keep: np.ndarray, interval: int) -> None:
        self.interval, self.epochs, self.applied = interval, 0, False
        self._weights = [p for name, p in model.named_parameters() if "weight_hh" in name]
        self._gone = [~expanded(keep, len(weight)) for weight in self._weights]

    def step(self) -> None:
        if self.applied:
            self._apply()

    def epoch(self) -> None:
        self.epochs += 1
        if self.epochs % self.interval == 0:
            self.applied = True
            self._apply()

    @torch.no_grad()
    def _apply(self) -> None:
        for weight, gone in zip(self._weights, self._gone, strict=True):
            weight.masked_fill_(gone, 0)
