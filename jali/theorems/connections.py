"""Theorems III.3 and III.4: after pruning "at most |M|² connections" are left, M the meet-irreducible units.

The pruning is that of Algorithm 1 and section III.D: all connections of a reducible unit x go if μ(x) = 1 / Σ_y w(x, y) is below
τ. A reducible unit that is driven weakly has μ ≥ τ and stays with its connections, which the bound does not count. For every τ
there are weights small enough that nothing at all is pruned. (Without the condition μ < τ the bound is trivial: what is left is
a relation on |M| units.)

III.3 is asked of the recurrent connections of one layer, III.4 of all connections of a multilayer network: the recurrent ones,
those from a layer to the next, and the feedback. In both, a unit is irreducible iff the set of units that it drives is not the
intersection of those that contain it: M of the concept lattice of these connections, which III.4 calls the global one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from jali.dynamics import Floats
from jali.theorems.case import DENSITIES, Case, named, relation
from jali.theorems.layers import Layers, multilayer
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


def pruning_efficiency_of_layers(network: Layers) -> Verdict:
    """III.4 on a multilayer network: M and the connections are those of all layers together, also from layer to layer."""
    tried = [prune(network.weights, threshold, density) for density in DENSITIES for threshold in THRESHOLDS]
    where = {"layers": network.depth, "sizes": list(network.sizes), "connections between layers": network.between}
    answer = _answer("III.4", network.path, tried, where)
    return replace(answer, witness=f"{network.depth} layers and what lies between them: {answer.witness}")


def pruning_efficiency_of_networks(model: nn.Module) -> tuple[Verdict, ...]:
    """III.4 on every module of several layers; one verdict that says so where there is none."""
    found = tuple(pruning_efficiency_of_layers(network) for network in multilayer(model))
    why = (
        "no module has several recurrent layers, and what leads from one module to another is not counted: what III.3 says of "
        "each layer is all there is"
    )
    return found or (Verdict("III.4", "", "premise not met", why),)


def _answer(theorem: str, site: str, tried: Sequence[Pruned], where: Mapping[str, Any] | None = None) -> Verdict:
    measured = {**(where or {}), "prunings": [asdict(each) | {"bound": each.bound} for each in tried]}
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
