"""How well the graphs of a site's weights are connected, gate by gate."""

from __future__ import annotations

from typing import Any

from jali.maths.spectral import cheeger, expansion
from jali.view import View

FIELDS = ("w_in", "w_rec")


def expansions(view: View, when: str) -> dict[str, Any]:
    """Per matrix and gate: density, Δ_S, Δ_R, α2, and vertices without an edge; None where a bound is undefined."""
    found: dict[str, Any] = {}
    for field, gates in view.arrays():
        if field in FIELDS:
            each, cuts = [expansion(gate) for gate in gates], [cheeger(gate) for gate in gates]
            found |= {
                f"{field} density{when}": [one.density for one in each],
                f"{field} Δ_S{when}": [one.delta_s for one in each],
                f"{field} Δ_R{when}": [one.delta_r for one in each],
                f"{field} α2{when}": [one.alpha2 for one in cuts],
                f"{field} isolated{when}": [sum(one.isolated) for one in each],
            }
    return found
