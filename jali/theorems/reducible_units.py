"""Theorem III.2: "removing the non-meet-irreducible elements preserves the essential dependency structure".

Three readings. As an order it is trivial: a part of a poset keeps its order. As a concept lattice it is the reduction theorem of
formal concept analysis: without the reducible columns of a context the lattice stays the same. As a network it fails: with
the unit go its connections, and with these every path that led through it. The paper speaks of neurons, so the last decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jali.maths.context import irreducible_columns
from jali.maths.order import condensation, reflexive_transitive_closure
from jali.theorems.case import DENSITIES, Case, named, relation
from jali.theorems.verdict import Verdict

Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Removal:
    """Which units of a relation are ``kept (n,)``, and a path ``lost`` with the others: (from, removed, to), or None."""

    kept: Bools
    lost: tuple[int, int, int] | None


def irreducible(columns: Bools) -> Bools:
    """Meet-irreducible in the words of Definition III.3, which a full column satisfies: m = a ∧ b only if m = a or m = b."""
    return irreducible_columns(columns) | columns.all(axis=0)


def remove_reducible(drives: Bools) -> Removal:
    """Remove every unit of ``drives (n, n)``, ``[from, to]``, whose module is reducible in the completion of the condensation.

    A module x is reducible iff its lower set ↓x is the intersection of the lower sets that strictly contain it: the cuts of
    the completion are the intersections of lower sets, so no lattice need be built.
    """
    modules = condensation(drives)
    kept = irreducible(modules.leq)[modules.membership]
    before = modules.leq[np.ix_(modules.membership, modules.membership)]
    rest = np.flatnonzero(kept)
    if not rest.size:
        return Removal(kept, None)
    after = reflexive_transitive_closure(drives[np.ix_(rest, rest)])
    broken = np.argwhere(before[np.ix_(rest, rest)] & ~after)
    if not broken.size:
        return Removal(kept, None)
    a, b = (int(rest[x]) for x in broken[0])
    through = int(np.flatnonzero(before[a] & before[:, b] & ~kept)[0])
    return Removal(kept, (a, through, b))


def reducible_units(case: Case) -> Verdict:
    """III.2 on the units of one site, of all its weights and of the strongest."""
    weights, rows, first = case.view.influence(), [], None
    for density in DENSITIES:
        removal = remove_reducible(relation(weights, density).T)
        rows.append(_row(density, removal))
        if removal.lost is not None and first is None:
            first = density, removal.lost
    measured = {"levels": rows}
    if first is not None:
        density, (a, x, b) = first
        why = f"{named(density)}: u{a} influences u{b} only through reducible units such as u{x}; without them the path is gone"
        return Verdict("III.2", case.site, "fails", why, measured)
    most = max(row["reducible"] for row in rows)
    if most == 0:
        why = "no unit is reducible at any level: there is nothing to remove"
        return Verdict("III.2", case.site, "premise not met", why, measured)
    why = f"the order of the rest is unchanged at all {len(rows)} levels, with up to {most} of {len(weights)} units removed"
    return Verdict("III.2", case.site, "holds", why, measured)


def _row(density: float, removal: Removal) -> dict[str, Any]:
    lost = None if removal.lost is None else list(removal.lost)
    return {"density": density, "reducible": int((~removal.kept).sum()), "lost path": lost}
