"""Theorems III.3 and III.4: after pruning "at most |M|² connections" are left, M the meet-irreducible units.

The pruning is that of Algorithm 1 and section III.D: all connections of a reducible unit x go if μ(x) = 1 / Σ_y w(x, y) is below
τ. A reducible unit that is driven weakly has μ ≥ τ and stays with its connections, which the bound does not count. For every τ
there are weights small enough that nothing at all is pruned. (Without the condition μ < τ the bound is trivial: what is left is
a relation on |M| units.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from jali.dynamics import Floats
from jali.theorems.case import DENSITIES, Case, named, relation
from jali.theorems.reducible_units import irreducible
from jali.theorems.verdict import Verdict

THRESHOLDS = (0.2, 0.5, 0.7)  # those of the paper's Tables I and II


@dataclass(frozen=True)
class Pruned:
    """One pruning: units, irreducible units |M|, reducible ones that stay as their μ ≥ τ, connections before and after."""

    density: float
    threshold: float
    units: int
    irreducible: int
    spared: int
    connections: int
    left: int

    @property
    def bound(self) -> int:
        return self.irreducible**2

    def __str__(self) -> str:
        return (
            f"{named(self.density)}, τ = {self.threshold:g}: |M| = {self.irreducible} of {self.units} units, "
            f"{self.left} of {self.connections} connections are left"
        )


def prune(weights: Floats, threshold: float, density: float = 1.0) -> Pruned:
    """Algorithm 1 with μ of section III.D on ``weights (n, n)``, ``[to, from]``, of which the strongest ``density`` count."""
    incidence = relation(weights, density)
    kept = irreducible(incidence)
    driven = np.where(incidence, weights, 0.0).sum(axis=1)
    with np.errstate(divide="ignore"):
        spared = ~kept & (1 / driven >= threshold)
    stay = kept | spared
    left = int(incidence[np.ix_(stay, stay)].sum())
    return Pruned(density, threshold, len(weights), int(kept.sum()), int(spared.sum()), int(incidence.sum()), left)


def pruning_efficiency(case: Case) -> Verdict:
    """III.3 on one site, at the paper's thresholds, of all its weights and of the strongest."""
    weights = case.view.influence()
    tried = [prune(weights, threshold, density) for density in DENSITIES for threshold in THRESHOLDS]
    return _answer("III.3", case.site, tried)


def pruning_efficiency_of_layers(found: Sequence[Case]) -> Verdict:
    """III.4 on all sites together: M is the union of the layers' and so are the recurrent connections."""
    if len(found) < 2:
        why = "one recurrent layer and direction: what III.3 says of it is all there is"
        return Verdict("III.4", "", "premise not met", why, {"sites": len(found)})
    tried = []
    for density in DENSITIES:
        for threshold in THRESHOLDS:
            parts = [prune(case.view.influence(), threshold, density) for case in found]
            total = {name: sum(getattr(part, name) for part in parts) for name in _COUNTS}
            tried.append(Pruned(density, threshold, **total))
    return _answer("III.4", "", tried)


_COUNTS = ("units", "irreducible", "spared", "connections", "left")


def _answer(theorem: str, site: str, tried: Sequence[Pruned]) -> Verdict:
    measured = {"prunings": [asdict(each) | {"bound": each.bound} for each in tried]}
    broken = [each for each in tried if each.left > each.bound]
    if broken:
        worst = max(broken, key=lambda each: each.left / max(each.bound, 1))
        why = f"{worst} > |M|² = {worst.bound}: {worst.spared} reducible units have μ ≥ τ and stay"
        return Verdict(theorem, site, "fails", why, measured)
    spoken = [each for each in tried if each.irreducible < each.units]  # elsewhere the bound is n², which says nothing
    if not spoken:
        why = "every unit is irreducible at every level, so |M| = n: nothing is pruned, and the bound n² says nothing"
        return Verdict(theorem, site, "premise not met", why, measured)
    tight = max(spoken, key=lambda each: each.left / max(each.bound, 1))
    return Verdict(theorem, site, "holds", f"{tight} ≤ |M|² = {tight.bound}, the tightest of {len(spoken)}", measured)
