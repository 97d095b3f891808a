"""Showing the study of controls: who wins at one density, and whether accuracy goes with expansion."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

from jali.maths.rank_correlation import rank_correlation
from jali.report.tables import Cell, percent
from jali.studies.base import Figure, Record, Table, mean_interval, over_seeds
from jali.studies.expander_runs import ExpanderRecipe

Of = Literal["alpha2", "lambda2"]
FAMILIES: dict[str, tuple[Of, str | None]] = {  # what the correction follows; the family of the same mask without one
    "magnitude": ("lambda2", None),
    "random": ("lambda2", None),
    "initial": ("lambda2", None),
    "magnitude, α2": ("alpha2", "magnitude"),
    "initial, α2": ("alpha2", "initial"),
}
PLAIN, REGULAR = "largest", "regular"  # the criteria `magnitude` and `random-regular`
UNTRAINED = ("initial", "initial, α2", REGULAR)
STRENGTHS = (-0.3, -0.1, 0.0, 0.1, 0.3)
BROKEN = min(STRENGTHS)
MEASURES = ("Δ_S", "Δ_R", "α2")
NAMES = {
    (PLAIN, 0.0): "largest weights",
    ("magnitude, α2", 0.1): "expander",
    ("magnitude", 0.1): "Δ raised",
    ("magnitude", 0.0): "least degree",
    ("magnitude, α2", BROKEN): "α2 lowered",
    ("magnitude", BROKEN): "Δ lowered",
    ("random", 0.0): "random",
    ("initial", 0.0): "random, before training",
    ("initial, α2", 0.1): "expander, before training",
    (REGULAR, 0.0): "random regular, before training",
}
RIVALS = (  # masks, and those that they are measured against
    *(((what, strength), (PLAIN, 0.0)) for what, strength in NAMES if what in ("magnitude", "magnitude, α2", "random")),
    (("initial, α2", 0.1), ("initial", 0.0)),
    ((REGULAR, 0.0), ("initial", 0.0)),
)


def _at(family: str | None, remaining: float, strength: float | None = None) -> Callable[[Record], bool]:
    """Whether a record is of this family (None: of any of :data:`FAMILIES`), density and strength."""
    base = FAMILIES.get(family or "", (None, None))[1]

    def chosen(record: Record) -> bool:
        what, own = record.task["what"], record.task.get("strength")
        if what == "dense" or record.task["remaining"] != remaining or strength not in (None, own):
            return False
        return what in FAMILIES if family is None else what == family or (what == base and own == 0.0)

    return chosen


def rivals(records: Sequence[Record]) -> Table:
    """Who wins at one density, within a seed."""
    recipe, rows = ExpanderRecipe.of(records[-1].config), []
    for remaining in recipe.remaining:
        for ours, theirs in RIVALS:
            cells = _minus(records, recipe, remaining, ours, theirs)
            rows.append((percent(remaining), NAMES[ours], NAMES[theirs], *cells))
    caption = (
        "Masks of one density and seed: mean difference ± 95 % interval over the seeds; an interval that holds 0 shows no "
        "winner. Largest weights: the criterion magnitude. Expander: the criterion of this name. Least degree: every unit and "
        "input keeps a quarter of the mean degree, as it does in all masks but those of the largest weights; Δ raised, Δ "
        f"lowered, α2 lowered: corrected by strengths of 0.1 and {BROKEN:g}. {_setting(recipe)}"
    )
    return Table("Who wins at one density", ("edges", "masks", "minus", *_gains(recipe)), tuple(rows), caption)


def _minus(
    records: Sequence[Record],
    recipe: ExpanderRecipe,
    remaining: float,
    ours: tuple[str, float],
    theirs: tuple[str, float],
) -> list[str]:
    """Accuracies in points and measures of ``ours`` minus those of ``theirs``, over the seeds that have both."""
    cells = []
    for name in (*(f"test σ={sigma:g}" for sigma in recipe.noise), *MEASURES):
        a, b = (_by_seed(records, name, _at(what, remaining, strength)) for what, strength in (ours, theirs))
        each = mean_interval(a[seed] - b[seed] for seed in a if seed in b)
        cells.append(each.text(3) if name in MEASURES else each.text(2, 100))
    return cells


def _gains(recipe: ExpanderRecipe) -> tuple[str, ...]:
    return (*(f"accuracy, σ = {sigma:g} (points)" for sigma in recipe.noise), *MEASURES)


def correlations(records: Sequence[Record]) -> Table:
    """Spearman's ρ of every measure with accuracy at one density, within a family, per seed; then over the seeds."""
    recipe, rows = ExpanderRecipe.of(records[-1].config), []
    for remaining in recipe.remaining:
        for family in (*FAMILIES, None):
            cells: list[Cell] = [percent(remaining), family or "all"]
            for sigma in recipe.noise:
                for measure in MEASURES:
                    each = map(_rank_correlation(measure, f"test σ={sigma:g}"), _seeds(records, _at(family, remaining)))
                    cells.append(mean_interval(r for r in each if r is not None).text(2))
            rows.append(tuple(cells))
    columns = ("edges", "masks from", *(f"ρ({m}), σ = {sigma:g}" for sigma in recipe.noise for m in MEASURES))
    every = sum(len(STRENGTHS) - (base is not None) for _, base in FAMILIES.values())
    caption = (
        "Rank correlation of a measure of expansion with test accuracy among masks of one density and origin, mean ± 95 % "
        f"interval over the seeds; {len(STRENGTHS)} masks each. All: among the {every} masks of all origins, whose accuracies "
        "differ by origin, too. An interval that holds 0 shows no relation. α2 behind a name: corrected by α2, otherwise by λ2, "
        "of which the bounds are made. Seeds whose masks are all alike in a measure have no rank correlation and are left out."
    )
    return Table("Expansion and accuracy at fixed density", columns, tuple(rows), caption)


def _dense(record: Record) -> bool:
    return bool(record.task["what"] == "dense")


def _setting(recipe: ExpanderRecipe) -> str:
    return (
        f"{recipe.kind} of {recipe.hidden} units on {recipe.data}, at most {recipe.examples:,} training examples, "
        f"{recipe.epochs[0]} epochs before the cut and {recipe.epochs[1]} after it, {sum(recipe.epochs)} in all for those cut "
        "before training."
    )


def _seeds(records: Sequence[Record], chosen: Callable[[Record], bool]) -> list[list[Record]]:
    own = [record for record in records if chosen(record)]
    return [[r for r in own if r.seed == seed] for seed in sorted({r.seed for r in own})]


def _rank_correlation(measure: str, accuracy: str) -> Callable[[list[Record]], float | None]:
    def of(records: list[Record]) -> float | None:
        x, y = ([r.metrics[name].value for r in records] for name in (measure, accuracy))
        return rank_correlation(x, y)

    return of


def differences(records: Sequence[Record]) -> Table:
    """Corrected minus broken, within a seed: what the bound itself is worth at one density."""
    recipe, rows = ExpanderRecipe.of(records[-1].config), []
    for remaining in recipe.remaining:
        for family in FAMILIES:
            for corrected in (s for s in STRENGTHS if s > 0):
                cells = _minus(records, recipe, remaining, (family, corrected), (family, BROKEN))
                rows.append((f"{family}, {percent(remaining)}", f"{corrected:+g}", *cells))
    caption = (
        f"Corrected masks minus broken ones (strength {BROKEN:g}) of the same seed, density and origin: mean ± 95 % interval "
        "over the seeds. An interval that holds 0 shows no difference."
    )
    columns = ("masks from, edges", "strength", *_gains(recipe))
    return Table("Corrected minus broken", columns, tuple(rows), caption)


def _by_seed(records: Sequence[Record], metric: str, chosen: Callable[[Record], bool]) -> dict[int, float]:
    return {record.seed: record.metrics[metric].value for record in records if chosen(record)}


def accuracies(records: Sequence[Record]) -> Table:
    recipe, rows = ExpanderRecipe.of(records[-1].config), []
    before = (over_seeds(records, f"test σ={sigma:g}", _dense).text(2, 100) for sigma in recipe.noise)
    rows.append(("before the cut", *before, *("–" for _ in MEASURES)))
    for remaining in recipe.remaining:
        each = [(f"{family}, {strength:+g}", family, strength) for family in FAMILIES for strength in STRENGTHS]
        for title, family, strength in (*each, *((NAMES[control, 0.0], control, 0.0) for control in (PLAIN, REGULAR))):
            here = _at(family, remaining, strength)
            accuracy = [over_seeds(records, f"test σ={sigma:g}", here).text(2, 100) for sigma in recipe.noise]
            found = [over_seeds(records, measure, here).text(3) for measure in MEASURES]
            rows.append((f"{title}, {percent(remaining)}", *accuracy, *found))
    columns = ("masks from, strength, edges", *(f"σ = {sigma:g} (%)" for sigma in recipe.noise), *MEASURES)
    caption = (
        "Test accuracy by the noise on the images; measures are means of W_xh and W_hh. Strength below 0 breaks the bound, "
        "0 leaves it to chance, above 0 corrects it; every unit keeps a quarter of the mean degree, except with the largest "
        "weights, which have no strength. magnitude and random: cut after training and fine-tuned; initial: random, cut before "
        f"training. {_setting(recipe)}"
    )
    return Table("Masks from expanders to their opposite", columns, tuple(rows), caption)


def scatter(records: Sequence[Record], remaining: float, measure: str) -> Figure:
    """Accuracy against a measure of expansion at one density."""
    series = []
    for family in FAMILIES:
        own = [r for r in records if _at(family, remaining)(r) and math.isfinite(r.metrics["test σ=0"].value)]
        y = [100 * r.metrics["test σ=0"].value for r in own]
        series.append({"label": family, "x": [r.metrics[measure].value for r in own], "y": y})
    payload = {"x_label": f"{measure}, mean of W_xh and W_hh", "y_label": "test accuracy (%)", "series": series}
    title = f"Accuracy against {measure}, {percent(remaining)} of the edges"
    return Figure("scatter", title, payload, "Each point is a mask.")
