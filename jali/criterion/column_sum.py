"""Column-sum centrality of paper 1, Algorithm 3.

R. Sengupta, "Lattice-based pruning in recurrent neural networks via poset modeling": ``c_j = 1 / (Σ_i A[i, j] + ε)``,
kept where ``c_j ≥ τ``. The formula keeps the units that drive the others *least*; it is offered as printed.
"""

from __future__ import annotations

import numpy as np

from jali.errors import CriterionError
from jali.evidence import SiteEvidence
from jali.view import View

SUMMARY = (
    "the lattice pruning paper's centrality 1 / (Σ_i A[i, j] + ε) of the influence graph, as printed (Algorithm 3)"
)
NEEDS: tuple[str, ...] = ()


def score(view: View, evidence: SiteEvidence, *, epsilon: float = 1e-8) -> np.ndarray:
    """``1 / (Σ_to A[to, u] + ε)``, (H,), with ``A`` the l2 norm over the gates; in (0, 1/ε]."""
    if not epsilon > 0:
        raise CriterionError(f"epsilon {epsilon} is not positive; it keeps the centrality of an unused unit finite")
    return 1.0 / (view.influence().sum(axis=0) + epsilon)
