"""Theorem III.5: if connections between communities are weaker on average, cutting those below τ raises modularity Q.

An average does not stop a threshold from cutting weak connections *inside* a community first, and then Q falls. Two units with
self-connections are enough. Q is that of the same communities before and after, as in the paper's proof.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jali.maths.modularity import communities, modularity
from jali.theorems.case import Case
from jali.theorems.verdict import Verdict

LEVELS = 64  # thresholds that are tried, at most
_ROUNDING = 1e-12


def modularity_rises(case: Case) -> Verdict:
    """III.5 on one site, with the communities of the Louvain method."""
    weights = case.view.influence()
    return weak_ties(weights, communities(weights, case.seed).labels, case.site)


def weak_ties(weights: ArrayLike, labels: ArrayLike, site: str = "") -> Verdict:
    """III.5 for ``weights (n, n)``, nonnegative, and communities ``labels (n,)``.

    τ goes as far as connections of both kinds are left: with a single one Q is 0 in any network, and that would refute too
    cheaply. The averages are over connections, entries above zero.
    Raises :class:`ContextError` as
    :func:`jali.maths.modularity.modularity`.
    """
    matrix, member = np.asarray(weights, dtype=np.float64), np.asarray(labels)
    before = modularity(matrix, member)
    within = (member[:, None] == member) & (matrix > 0)
    between = (member[:, None] != member) & (matrix > 0)
    measured: dict[str, Any] = {"Q": before, "communities": len(np.unique(member))}
    if not (within.any() and between.any()):
        why = f"no connections {'between' if within.any() else 'inside'} communities to compare"
        return Verdict("III.5", site, "premise not met", why, measured)
    inside, across = float(matrix[within].mean()), float(matrix[between].mean())
    measured |= {"mean inside": inside, "mean between": across}
    if across >= inside:
        why = f"connections between communities are not weaker on average: {across:.3g} ≥ {inside:.3g}"
        return Verdict("III.5", site, "premise not met", why, measured)
    distinct = np.unique(matrix[(matrix > 0) & (matrix <= min(matrix[within].max(), matrix[between].max()))])
    taus = distinct[np.unique(np.linspace(0, len(distinct) - 1, LEVELS).round().astype(int))]
    after = [modularity(np.where(matrix < tau, 0.0, matrix), member) for tau in taus]
    measured |= {"thresholds": taus.tolist(), "Q after": after}
    fallen = np.flatnonzero(np.array(after) < before - _ROUNDING)
    if fallen.size:
        first = int(fallen[0])
        tau = taus[first]
        gone = [int(((matrix < tau) & part).sum()) for part in (within, between)]
        why = (
            f"Q falls from {before:.4g} to {after[first]:.4g} at τ = {tau:.3g}, which cuts {gone[0]} connections inside and "
            f"{gone[1]} between communities, although those between are weaker on average ({across:.3g} < {inside:.3g})"
        )
        return Verdict("III.5", site, "fails", why, measured)
    why = f"Q is never below {before:.4g} at {len(taus)} thresholds; it reaches {max(after):.4g}"
    return Verdict("III.5", site, "holds", why, measured)
