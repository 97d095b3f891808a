"""Theorem III.1: "the dependency structure forms a modular lattice". It does not: the answer is a pentagon N5.

The dependency lattice (Definition III.2, the smallest lattice that contains the poset) is the Dedekind–MacNeille completion.
The poset of a relation with cycles is its condensation (units that influence each other are one element, as the paper's
proof says) or its unfolding over one step (units now and units next). Both are tested, of all weights and of the strongest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jali.errors import LimitError
from jali.maths.completion import Completion, dedekind_macneille
from jali.maths.lattice_laws import is_modular
from jali.maths.order import condensation, unfolding
from jali.theorems.case import DENSITIES, Case, named, relation
from jali.theorems.verdict import Verdict

LIMIT = 600  # elements of a lattice that is looked at
SMALLEST = "elsewhere it fails from 3 units on: one influence a → c beside a unit b completes to a pentagon"


@dataclass(frozen=True)
class Pentagon:
    """A sublattice N5, ``(o, a, c, b, i)`` by name, of a completion of ``elements`` elements."""

    model: str
    names: tuple[str, str, str, str, str]
    elements: int

    def __str__(self) -> str:
        o, a, c, b, i = self.names
        return f"a={a} ≤ c={c}, b={b}: a ∨ (b ∧ c) = a ∨ {o} = {a}, but (a ∨ b) ∧ c = {i} ∧ c = {c}"


def lattices(drives: NDArray[np.bool_], limit: int = LIMIT) -> dict[str, Completion | None]:
    """The dependency lattices of ``drives (n, n)``, ``[from, to]``, by name; None where one exceeds ``limit`` elements."""
    n = len(drives)
    modules = condensation(drives)
    merged = ["+".join(f"u{u}" for u in modules.members(k)) for k in range(len(modules.leq))]
    unrolled = [f"u{u}@{t}" for t in range(2) for u in range(n)]
    made: dict[str, Completion | None] = {}
    for name, leq, labels in (
        ("condensation", modules.leq, merged),
        ("unfolding", unfolding(drives, 1), unrolled),
    ):
        try:
            made[name] = dedekind_macneille(leq, labels, limit=limit)
        except LimitError:
            made[name] = None
    return made


def pentagon(completion: Completion, model: str) -> Pentagon | None:
    """The pentagon that refutes the modular law in a completion; None where the law holds."""
    lattice = completion.lattice
    found = is_modular(lattice)
    if found:
        return None
    labels = lattice.labels or tuple(map(str, range(len(lattice))))
    o, a, c, b, i = (_short(labels[x]) for x in found.witness)
    return Pentagon(model, (o, a, c, b, i), len(lattice))


def modular_law(case: Case) -> Verdict:
    """III.1 on the lattices of one site, of all its weights and of the strongest; the first pentagon answers."""
    weights, answers, first = case.view.influence(), [], None
    for density in DENSITIES:
        for model, completion in lattices(relation(weights, density).T).items():
            found = None if completion is None else pentagon(completion, model)
            answers.append(_row(density, model, completion, found))
            if found is not None and first is None:
                first = (density, found)
    checked = sum(row["modular"] is not None for row in answers)
    measured = {"lattices": answers, "checked": checked, "limit": LIMIT}
    if first is not None:
        density, found = first
        return Verdict("III.1", case.site, "fails", f"{named(density)}, {found.model}: {found}", measured)
    if not checked:
        why = f"no lattice of at most {LIMIT} elements could be completed; {SMALLEST}"
        return Verdict("III.1", case.site, "premise not met", why, measured)
    return Verdict("III.1", case.site, "holds", f"all {checked} lattices completed are modular; {SMALLEST}", measured)


def _row(density: float, model: str, completion: Completion | None, found: Pentagon | None) -> dict[str, Any]:
    if completion is None:
        return {"density": density, "model": model, "elements": None, "modular": None}
    return {"density": density, "model": model, "elements": len(completion.lattice), "modular": found is None}


def _short(label: str) -> str:
    """A readable name: a module or cut of many units by its first ones; the empty cut is the bottom."""
    if label == "{}":
        return "⊥"
    for mark in (", ", "+"):
        parts = label.split(mark)
        if len(parts) > 3:
            return mark.join(parts[:2]) + f"{mark}… ({len(parts)})" + ("}" if label.endswith("}") else "")
    return label
