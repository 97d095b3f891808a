"""Definition III.4: "we assume that T preserves the lattice structure". Whether it does is asked of every top-down feedback.

T(x, a) = a ∨ ρ(x), with ρ(x) the join of all that the units up to x feed back to (:mod:`jali.maths.feedback`). It preserves
joins in every lattice, and meets for every feedback iff the lower lattice is distributive.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from jali.dynamics import Floats
from jali.errors import LimitError
from jali.maths.feedback import Dependency, feedback_operator, layer_lattice, operator_preserves
from jali.models import TopDownRNN
from jali.site import module_sites
from jali.theorems.case import DENSITIES, named, relation
from jali.theorems.verdict import Verdict
from jali.view import read

NAME = "Definition III.4"
LIMIT = 600  # elements of a lattice that is looked at


@dataclass(frozen=True, eq=False)
class Feedback:
    """Absolute weights ``[to, from]`` inside a layer and inside the one above it, and ``down`` from this to that."""

    site: str
    lower: Floats
    upper: Floats
    down: Floats


def feedbacks(model: nn.Module) -> Iterator[Feedback]:
    """Every feedback from a layer to the one below in the top-down RNNs of ``model``."""
    for path, module in model.named_modules():
        found = module_sites(module, path)
        if isinstance(module, TopDownRNN) and found:
            inside = [read(model, site).influence() for site in found]
            for layer in range(len(found) - 1):
                down = module.feedback(layer).detach().abs().double().cpu().numpy()
                yield Feedback(found[layer].name, inside[layer], inside[layer + 1], down)


def preserved(feedback: Feedback) -> Verdict:
    """Definition III.4 on one feedback, of all weights and of the strongest of each relation; the first failure answers."""
    rows: list[dict[str, Any]] = []
    first = ""
    for density in DENSITIES:
        try:
            lower, upper = (
                layer_lattice(relation(w, density).T, limit=LIMIT) for w in (feedback.lower, feedback.upper)
            )
        except LimitError:
            rows.append({"density": density, "elements": None, "preserved": None})
            continue
        down = relation(feedback.down, density).T  # [from, to]
        found = operator_preserves(lower.lattice, feedback_operator(upper, lower, down))
        rows.append({"density": density, "elements": len(lower.lattice), "preserved": bool(found)})
        if not found and not first:
            x, a, b = found.witness
            first = (
                f"{named(density)}: {found.law} fails at x={_element(upper, x)}, a={_element(lower, a)}, "
                f"b={_element(lower, b)}"
            )
    checked = sum(row["preserved"] is not None for row in rows)
    measured = {"lattices": rows, "checked": checked, "limit": LIMIT}
    if first:
        return Verdict(NAME, feedback.site, "fails", first, measured)
    if not checked:
        why = f"no lattice of at most {LIMIT} elements could be completed"
        return Verdict(NAME, feedback.site, "premise not met", why, measured)
    return Verdict(
        NAME, feedback.site, "holds", f"T preserves meets and joins in all {checked} lattices completed", measured
    )


def _element(dependency: Dependency, element: int) -> str:
    """An element by its units; one that is no unit's by the units below it."""
    own = np.flatnonzero(dependency.element == element)
    below = np.flatnonzero(dependency.lattice.leq[dependency.element, element])
    if not len(below):
        return "⊥"
    units = own if len(own) else below
    text = "+".join(f"u{unit}" for unit in units[:2]) + (f"+… ({len(units)})" if len(units) > 2 else "")
    return text if len(own) else f"⋁({text})"
