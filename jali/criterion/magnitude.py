"""Magnitude: keep what is large.

S. Han, J. Pool, J. Tran, W. Dally, "Learning both weights and connections for efficient neural networks", NIPS 2015.
"""

from __future__ import annotations

import numpy as np

from jali.evidence import SiteEvidence
from jali.view import View

SUMMARY = "l2 norm of a unit's recurrent and input weights, or |w| of a weight (Han et al. 2015)"
NEEDS: tuple[str, ...] = ()


def score(view: View, evidence: SiteEvidence) -> np.ndarray:
    """``sqrt(Σ w_in[u]² + Σ w_rec[to=u]² + Σ w_rec[from=u]²)`` over all gates, (H,): what drives u and what u drives."""
    total = (view.w_in**2).sum(axis=(0, 2))
    if view.site.recurrent:
        squared = view.recurrence() ** 2
        total = total + squared.sum(axis=(0, 2)) + squared.sum(axis=(0, 1))
    return np.sqrt(total)


def score_weights(view: View, evidence: SiteEvidence) -> dict[str, np.ndarray]:
    """``|w|`` of every input and recurrent weight."""
    return {field: np.abs(value) for field, value in view.arrays() if field in ("w_in", "w_rec")}
