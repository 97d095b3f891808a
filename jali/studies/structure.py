"""What a site looks like as a lattice: payloads of the persistence and the Hasse figures."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from jali.criterion import lattice
from jali.errors import LimitError
from jali.maths.concepts import ConceptLattice, enumerate_concepts
from jali.maths.hasse import hasse_layout
from jali.maths.persistence import filtration, strongest
from jali.plans import SitePlan
from jali.view import View

MOST_CONCEPTS = 48  # a diagram of more is no longer read


def persistence_caption(payload: dict[str, Any]) -> str:
    """What the figure of a payload of :func:`persistence_payload` shows."""
    left = (
        "Left: only the strongest influences count, more of them to the right; how many units say something then that no "
        "others together say (are meet-irreducible), by what they drive (columns) and by what drives them (rows). In the "
        "middle all do, so one threshold tells no unit from another; with a single influence, at the far left, nothing can "
        "be said by others together either."
    )
    right = "Right: the score of every unit, and which units were kept."
    if payload["counted"] is None:
        return f"{left} {right} This score does not come from the left panel."
    of = " and of ".join(payload["counted"]["sides"])
    mean = ", mean of both" if len(payload["counted"]["sides"]) == 2 else ""
    score = f"It is the share of the shaded part in which the unit is irreducible (of {of}{mean})."
    return f"{left} {right} {score}"


def hasse_caption(payload: dict[str, Any]) -> str:
    """What the diagram of a payload of :func:`hasse_payload` shows."""
    return (
        f"The strongest {100 * payload['density']:.2g} % of the influences as a lattice of {payload['concepts']} concepts. "
        "A concept is a set of driven units; it lies below another if it is a part of it. A number names the unit that drives "
        "exactly this set. Filled: no intersection of the sets above it (meet-irreducible), so the unit cannot be replaced by "
        "others. A number at an empty circle: the unit drives what others drive in common."
    )


def persistence_payload(view: View, planned: SitePlan, criterion: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Irreducible units against density over the whole filtration, the scores of the plan, and which units it keeps.

    ``counted`` tells which part of the filtration made the scores: densities up to ``up_to``, of ``sides``; None when
    the scores by ``criterion`` with its ``options`` come from elsewhere.
    """
    levels = filtration(view.influence())
    kept = np.isin(np.arange(planned.size), planned.removed, invert=True)
    return {
        "density": levels.densities.tolist(),
        "columns": levels.column_counts.tolist(),
        "rows": levels.row_counts.tolist(),
        "units": planned.size,
        "criterion": criterion,
        "counted": _counted(criterion, options),
        "scores": list(planned.scores),
        "kept": kept.tolist(),
    }


def _counted(criterion: str, options: Mapping[str, Any]) -> dict[str, Any] | None:
    parameters = inspect.signature(lattice.score).parameters
    form, side = (options.get(name, parameters[name].default) for name in ("form", "side"))
    span = options.get("span", lattice.SPAN)
    if criterion != "lattice" or form != "persistence":
        return None
    return {"up_to": 0.5 if span == "sparse" else 1.0, "sides": ["columns", "rows"] if side == "both" else [side]}


def hasse_payload(view: View) -> dict[str, Any]:
    """The concept lattice of the strongest influences, at the largest density with a diagram that can be read.

    A node is labelled with the units whose column it is (its attribute concept); irreducible ones are highlighted.
    """
    influence = view.influence()
    chosen: tuple[float, ConceptLattice] | None = None
    for density in np.geomspace(0.5 / view.hidden**2, 0.5, 40):
        try:
            chosen = float(density), enumerate_concepts(strongest(influence, float(density)), MOST_CONCEPTS)
        except LimitError:
            break
    if chosen is None:
        return {}
    density, lattice = chosen
    covers = lattice.covers()
    relation = np.eye(len(lattice), dtype=bool)
    relation[covers[:, 0], covers[:, 1]] = True
    layout = hasse_layout(relation)
    incidence, extents = strongest(influence, density), lattice.extents
    labels: list[list[str]] = [[] for _ in range(len(lattice))]
    for unit in np.flatnonzero(incidence.any(axis=0)):
        labels[int(np.flatnonzero((extents == incidence[:, unit]).all(axis=1))[0])].append(str(unit))
    irreducible = lattice.meet_irreducible()
    nodes = [
        {"x": float(x), "y": float(y), "label": ",".join(units), "highlight": bool(marked and units)}
        for x, y, units, marked in zip(layout.x, layout.rank, labels, irreducible, strict=True)
    ]
    return {
        "nodes": nodes,
        "edges": layout.edges.tolist(),
        "key": "meet-irreducible",
        "density": density,
        "concepts": len(lattice),
    }
