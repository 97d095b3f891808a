"""Balanced partition: elements into k groups of nearly equal size, with as much weight as can be found inside the groups.

The exact optimum is NP-hard. A start is improved by exchanging two elements of different groups as long as that gains
weight: the local search of B. W. Kernighan and S. Lin, "An efficient heuristic procedure for partitioning graphs", Bell
System Technical Journal 49 (1970), with the best partner for one element at a time. Of several starts the best is kept.
"""

from __future__ import annotations

import numpy as np

from jali.errors import BudgetError


def inside(weights: np.ndarray, labels: np.ndarray) -> float:
    """Sum of ``weights`` (n, n) between elements of the same group; ``labels`` (n,): group of every element."""
    return float(weights[labels[:, None] == labels[None, :]].sum())


def balanced_partition(weights: np.ndarray, groups: int) -> np.ndarray:
    """Group 0 … ``groups`` − 1 of each of n elements, (n,); sizes differ by one at most, the larger groups come first.

    ``weights`` (n, n): any finite real numbers, not necessarily symmetric; what is maximised is :func:`inside`. Never worse
    than contiguous groups, and locally optimal: no exchange of two elements gains. Deterministic.
    Raises :class:`BudgetError` unless 1 ≤ ``groups`` ≤ n.
    """
    n = len(weights)
    if not 1 <= groups <= n:
        raise BudgetError(f"{groups} groups of {n} elements; give from 1 to {n} groups")
    pull = weights + weights.T
    np.fill_diagonal(pull, 0.0)
    sizes = np.full(groups, n // groups)
    sizes[: n % groups] += 1
    starts = (np.repeat(np.arange(groups), sizes), _grown(pull, sizes), _spectral(pull, sizes))
    return max((_exchanged(pull, labels, groups) for labels in starts), key=lambda labels: inside(pull, labels))


def _grown(pull: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """One group after the other: from the free element most tied to the free ones, add the most tied to the group."""
    labels = np.full(len(pull), -1)
    for group, size in enumerate(sizes):
        tied, own = pull @ (labels < 0), np.zeros(len(pull))
        for _ in range(size):
            chosen = int(np.argmax(np.where(labels < 0, tied, -np.inf)))
            labels[chosen] = group
            own += pull[:, chosen]
            tied = own
    return labels


def _spectral(pull: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Groups along the order of the Fiedler vector: neighbours in it are tied strongly."""
    shifted = pull - min(float(pull.min()), 0.0)
    laplacian = np.diag(shifted.sum(1)) - shifted
    vectors = np.linalg.eigh(laplacian)[1]
    labels = np.empty(len(pull), dtype=int)
    labels[np.argsort(vectors[:, min(1, len(pull) - 1)], kind="stable")] = np.repeat(np.arange(len(sizes)), sizes)
    return labels


def _exchanged(pull: np.ndarray, labels: np.ndarray, groups: int) -> np.ndarray:
    """``labels`` after exchanges of two elements, until none gains."""
    n, labels = len(pull), labels.copy()
    tolerance = 1e-9 * float(np.abs(pull).max(initial=0.0))  # rounding must not look like a gain, over and over
    moved = True
    while moved:  # every exchange gains, so this ends
        ties = np.stack([pull[:, labels == group].sum(1) for group in range(groups)], axis=1)  # (n, groups)
        moved = False
        for i in range(n):
            a, own = labels[i], ties[np.arange(n), labels]
            gain = (ties[i, labels] - own[i]) + (ties[:, a] - own) - 2 * pull[i]
            gain[labels == a] = 0.0
            j = int(np.argmax(gain))
            if gain[j] > tolerance:
                b = labels[j]
                labels[i], labels[j], moved = b, a, True
                ties[:, a] += pull[:, j] - pull[:, i]
                ties[:, b] += pull[:, i] - pull[:, j]
    return labels
