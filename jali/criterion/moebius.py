"""Möbius centrality of paper 1, Algorithm 1, step 3: μ(0̂, m) in the poset of the strongest influences.

The poset is the unfolding in time of the influence context at one density, elements (unit, t), with a bottom adjoined
(R. Sengupta; G.-C. Rota, "On the foundations of combinatorial theory I", 1964, for μ). For one step,
``μ(0̂, (u, 1)) = (number of units that drive u) − 1``; more steps count chains with alternating sign. The
condensation, the other poset of a network, is one single element for a trained network and tells no units apart.
"""

from __future__ import annotations

import numpy as np

from jali.errors import CriterionError
from jali.evidence import SiteEvidence
from jali.view import View

SUMMARY = "the lattice pruning paper's Möbius function |μ(0, u)| in the unfolded influence poset (Algorithm 1, step 3)"
NEEDS: tuple[str, ...] = ()


def score(view: View, evidence: SiteEvidence, *, density: float = 0.05, steps: int = 2) -> np.ndarray:
    """``log(1 + |μ(0̂, (u, steps))|)``, (H,), nonnegative.

    ``density`` in (0, 1): share of the entries of A kept as influences; ``steps`` ≥ 1: length of the unfolding.
    """
    from jali.maths.moebius import moebius_from
    from jali.maths.order import unfolding
    from jali.maths.persistence import strongest

    if steps < 1:
        raise CriterionError(f"steps {steps} is below 1; the unfolding needs at least one step")
    drives = strongest(view.influence(), density).T  # [from, to], the direction of ≤
    last = moebius_from(unfolding(drives, steps))[-view.hidden :]
    return np.array([np.log1p(abs(float(value))) for value in last])
