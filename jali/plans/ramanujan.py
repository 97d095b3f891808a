"""The budget ``ramanujan``: how sparse a matrix can be before its graph loses a spectral bound."""

from __future__ import annotations

import numpy as np

from jali.maths.spectral import expansion
from jali.plans.budget import Budget

LEVELS = 64  # densities, evenly spaced in their logarithm, among which the first loss is found


def kept_expanders(scores: np.ndarray, budget: Budget) -> np.ndarray:
    """Keep mask (G, H, I): the best weights of every gate, as few as :func:`edges_at_loss` says."""
    keep = np.zeros(scores.shape, dtype=bool)
    for gate, own in zip(keep, scores, strict=True):
        order = np.lexsort((np.arange(own.size), -own.ravel()))
        gate.ravel()[order[: edges_at_loss(order.reshape(own.shape), str(budget.ramanujan), budget.margin)]] = True
    return keep


def edges_at_loss(order: np.ndarray, bound: str, margin: float = 0.0) -> int:
    """How many entries must stay so that Δ has not yet fallen below ``margin``, on the way from the full matrix.

    ``order (m, n)``: all indices into the flat matrix, the first to stay first, in the shape of the matrix. The full matrix is
    a complete graph, λ2 = 0, and keeps every bound; at each of 64 densities Δ is asked for, a Δ that is undefined has fallen,
    and the first loss is then found to the edge by bisection. Below it Δ may rise again: graphs of a few edges are no
    expanders, whatever their Δ. "The largest sparsity at which the bound has not become negative for the first time", as in
    Table 2 of the paper. mn if even the first level has lost it.
    """
    shape, flat = order.shape, order.ravel()

    def holds(edges: int) -> bool:
        mask = np.zeros(flat.size, dtype=bool)
        mask[flat[:edges]] = True
        delta = expansion(mask.reshape(shape)).delta(bound)
        return delta is not None and delta >= margin

    levels = np.unique(np.geomspace(1, flat.size, LEVELS).round().astype(int))[::-1]
    good = flat.size
    for level in levels[1:].tolist():
        if not holds(level):
            break
        good = level
    else:
        return good
    bad = level
    while good - bad > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if holds(middle) else (good, middle)
    return good
