"""What a site looks like as a lattice: payloads of the persistence and the Hasse figures."""

from __future__ import annotations

from typing import Any

import numpy as np

from jali.errors import LimitError
from jali.maths.concepts import ConceptLattice, enumerate_concepts
from jali.maths.hasse import hasse_layout
from jali.maths.persistence import filtration, strongest
from jali.plans import SitePlan
from jali.view import View

MOST_CONCEPTS = 48  # a diagram of more is no longer read

PERSISTENCE = (
    "Left: how many units are meet-irreducible when only the strongest influences count, against their density, by what "
    "they drive (columns) and by what drives them (rows); while there is one influence only, nothing is an intersection of "
    "others. Right: the score of every unit, and which units stayed. The score by `lattice` is the mean share of the left "
    "half, up to density 50 %, in which the unit is irreducible."
)


def hasse_caption(payload: dict[str, Any]) -> str:
    """What the diagram of a payload of :func:`hasse_payload` shows."""
    return (
        f"The {payload['concepts']} concepts of the strongest {100 * payload['density']:.2g} % of the influences, labelled "
        "with the units whose column they are. The highlighted units are meet-irreducible: none of them is the "
        "intersection of others."
    )


def persistence_payload(view: View, planned: SitePlan, criterion: str) -> dict[str, Any]:
    """Irreducible units against density over the whole filtration, the scores of the plan, and which units it keeps."""
    levels = filtration(view.influence())
    kept = np.isin(np.arange(planned.size), planned.removed, invert=True)
    return {
        "density": levels.densities.tolist(),
        "columns": levels.column_counts.tolist(),
        "rows": levels.row_counts.tolist(),
        "units": planned.size,
        "criterion": criterion,
        "scores": list(planned.scores),
        "kept": kept.tolist(),
    }


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
