"""Lattice criterion: keep the meet-irreducible units of the dependency lattice.

R. Sengupta, "Lattice-based pruning in recurrent neural networks via poset modeling", Definition III.3 and Algorithm 1: a
unit that is the meet of others can go. By formal concept analysis (B. Ganter, R. Wille, 1999) a unit is irreducible iff
its column in the influence context is not the intersection of the columns that strictly contain it; its row says the same
of what drives it. One threshold on a dense trained network separates nothing, so the default scores the *persistence* of
irreducibility over the threshold filtration. By default its sparse half counts, densities up to 1/2, where a context says
who is influenced *strongest*; in the dense half it says who is influenced *least*, and on trained LSTMs units chosen by
that half alone were no better than random ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from jali.errors import CriterionError
from jali.evidence import SiteEvidence
from jali.view import View

SUMMARY = "persistence of a unit's meet-irreducibility in the influence lattice; exact and graded forms as options"
NEEDS: tuple[str, ...] = ()


USES = {"persistence": "span", "exact": "density", "graded": "algebra"}  # form → the option of it alone
# Where they are not given:
SPAN: Literal["sparse", "full"] = "sparse"
DENSITY = 0.05
ALGEBRA: Literal["godel", "lukasiewicz", "goguen", "min-plus"] = "lukasiewicz"


def score(
    view: View,
    evidence: SiteEvidence,
    *,
    form: Literal["persistence", "exact", "graded"] = "persistence",
    side: Literal["both", "columns", "rows"] = "both",
    span: Literal["sparse", "full"] | None = None,
    density: float | None = None,
    algebra: Literal["godel", "lukasiewicz", "goguen", "min-plus"] | None = None,
) -> np.ndarray:
    """Scores (H,) in [0, 1].

    ``form``: "persistence", the share of the filtration over which the unit is irreducible, of its half up to density
    1/2 or of the "full" one by ``span`` ("sparse" unless given); "exact", irreducibility in the context of the strongest
    ``density`` of the entries, in (0, 1) and 0.05 unless given (1/2 per side, and up to another 1/2 by strength to order
    equals); "graded", the mean residual distance to the idempotent span of the other units in a residuated ``algebra``
    (godel, lukasiewicz, goguen, min-plus; "lukasiewicz" unless given). ``side``: what the unit drives (columns), what
    drives it (rows), or the mean. Raises :class:`CriterionError` for a density out of range, and for an option that the
    form does not use.
    """
    _check(form, {"span": span, "density": density, "algebra": algebra})
    weights = view.influence()
    if form == "persistence":
        return _persistence(weights, side, span or SPAN)
    if form == "exact":
        level = DENSITY if density is None else density
        return _mean(side, *(_exact(matrix, level) for matrix in (weights, weights.T)))
    from jali.maths.graded import graded_irreducibility

    return _mean(side, *(graded_irreducibility(matrix, algebra or ALGEBRA).mean_gap for matrix in (weights, weights.T)))


def _check(form: str, given: Mapping[str, Any]) -> None:
    density = given["density"]
    if density is not None and not 0.0 < density < 1.0:
        raise CriterionError(f"criterion 'lattice': density {density} is outside (0, 1); give e.g. {DENSITY}")
    for option, value in given.items():
        if value is not None and USES[form] != option:
            owner = next(each for each, used in USES.items() if used == option)
            raise CriterionError(
                f"criterion 'lattice': option {option}={value!r} has no effect in form {form!r}, which uses {USES[form]}; "
                f"leave it out or choose form={owner!r}"
            )


def _persistence(weights: np.ndarray, side: Literal["both", "columns", "rows"], span: str) -> np.ndarray:
    from jali.maths.persistence import filtration, logit_grid

    grid = logit_grid(*weights.shape)
    return filtration(weights, grid[grid <= 0.5] if span == "sparse" else grid).persistence(side)


def _mean(side: str, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return {"columns": columns, "rows": rows, "both": (columns + rows) / 2}[side]


def _exact(weights: np.ndarray, density: float) -> np.ndarray:
    from jali.maths.context import irreducible_columns
    from jali.maths.persistence import strongest

    strength = weights.sum(axis=0)
    return (irreducible_columns(strongest(weights, density)) + strength / max(strength.max(), np.finfo(float).tiny)) / 2
