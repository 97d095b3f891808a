"""Reconstruction: which units do the others reproduce best, for the readers that read them?

Backward elimination in the manner of the optimal brain surgeon (B. Hassibi, D. Stork, "Second order derivatives for
network pruning", NIPS 1992), on second moments of the states instead of a Hessian. A reader computes ``W h``. If unit u
goes and the others stand in for it linearly, the least squared error added is ``‖W[:, u]‖² / P[u, u]`` with ``P`` the
inverse covariance of the states that are left; W and P are then updated as if u had been folded into the rest.
"""

from __future__ import annotations

import numpy as np

from jali.errors import CriterionError
from jali.evidence import SiteEvidence, Use
from jali.view import View

SUMMARY = "backward elimination by how well the other units reproduce what is read of a unit (OBS on states)"
NEEDS = ("states",)


def score(view: View, evidence: SiteEvidence, *, ridge: float = 1e-3) -> np.ndarray:
    """Rank in the order of elimination, (H,) in (0, 1]: the first unit to go has 1/H, the last 1.

    Every reader's error is measured relative to the variance of what it reads, and the readers are summed with equal
    weight. ``ridge`` > 0 is relative to the mean variance of the states.
    """
    if not ridge > 0:
        raise CriterionError(f"ridge {ridge} is not positive; it keeps the inverse covariance finite")
    readers = [_Reader(use, ridge) for use in evidence.uses if np.abs(use.weight).max() > 0]
    if not readers:
        raise CriterionError(f"site {view.site.name!r}: nothing reads its units, so there is nothing to reproduce")
    alive, rank = np.ones(view.hidden, dtype=bool), np.zeros(view.hidden)
    for place in range(1, view.hidden + 1):
        cost = np.where(alive, sum(reader.cost() for reader in readers), np.inf)
        unit = int(np.argmin(cost))
        for reader in readers:
            reader.remove(unit)
        alive[unit], rank[unit] = False, place
    return rank / view.hidden


class _Reader:
    """One reader's weights and the inverse covariance of what it reads, as units are removed."""

    def __init__(self, use: Use, ridge: float) -> None:
        size = len(use.mean)
        variance = float(np.trace(use.covariance)) / size
        # The covariance of constant states is rounding noise, and indefinite: the ridge stays above it.
        noise = size * np.finfo(float).eps * float(np.trace(use.second))
        covariance = use.covariance + max(ridge * variance, noise, np.finfo(float).tiny ** 0.5) * np.eye(size)
        self.weight, self.precision = use.weight.copy(), np.linalg.inv(covariance)
        self.scale = float(np.einsum("oi,ij,oj->", use.weight, covariance, use.weight))

    def cost(self) -> np.ndarray:
        return (self.weight**2).sum(axis=0) / np.diag(self.precision) / self.scale

    def remove(self, unit: int) -> None:
        row = self.precision[unit] / self.precision[unit, unit]
        self.weight -= np.outer(self.weight[:, unit], row)
        self.weight[:, unit] = 0.0
        self.precision -= np.outer(self.precision[:, unit], row)
        self.precision[unit], self.precision[:, unit] = 0.0, 0.0
        self.precision[unit, unit] = 1.0
