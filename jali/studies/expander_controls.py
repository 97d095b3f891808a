"""Is expansion the cause, or the density? Masks of one density from expander to its opposite, and how their accuracy ranks.

The paper above says that a network keeps its accuracy while its layers are expanders; D. Hoang et al., "Revisiting pruning at
initialization through the lens of Ramanujan graph", ICLR 2023, find no significant relation. Here the density is fixed and the
bound is moved: the same ranking (:func:`jali.maths.expanders.expander_ranking`) with strengths from −0.3 (bound broken) to 0.3
(corrected), on the sizes of trained weights, on random numbers, and on random numbers before training. Beside them stand what
others would do at this density: the largest weights and nothing else, and random regular masks before training (X-Net).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from jali.maths.expanders import expander_ranking, regular_ranking
from jali.maths.rank_correlation import rank_correlation
from jali.maths.spectral import cheeger, expansion
from jali.report.tables import Cell, percent
from jali.studies.base import (
    Figure,
    Metric,
    Progress,
    Record,
    RecordStore,
    Settings,
    Study,
    Table,
    Task,
    mean_interval,
    over_seeds,
)  # fmt: skip
from jali.studies.expander_runs import (
    FIELDS,
    ExpanderRecipe,
    block,
    cut,
    fit,
    network,
    restored,
    save,
    scores,
    view_of,
)  # fmt: skip

FAMILIES = ("magnitude", "random", "initial")
PLAIN, REGULAR = "largest", "regular"  # the criteria `magnitude` and `random-regular`
UNTRAINED = ("initial", REGULAR)
STRENGTHS = (-0.3, -0.1, 0.0, 0.1, 0.3)
BROKEN = min(STRENGTHS)
MEASURES = ("Δ_S", "Δ_R", "α2")
RIVALS = (  # (what and strength of the masks), (of those they are measured against)
    (("magnitude", 0.1), (PLAIN, 0.0)),
    (("magnitude", 0.0), (PLAIN, 0.0)),
    (("magnitude", BROKEN), (PLAIN, 0.0)),
    (("random", 0.0), (PLAIN, 0.0)),
    (("initial", 0.1), ("initial", 0.0)),
    ((REGULAR, 0.0), ("initial", 0.0)),
)
NAMES = {
    (PLAIN, 0.0): "largest weights",
    ("magnitude", 0.1): "expander",
    ("magnitude", 0.0): "largest weights, least degree",
    ("magnitude", BROKEN): "anti-expander",
    ("random", 0.0): "random, least degree",
    ("initial", 0.0): "random before training, least degree",
    ("initial", 0.1): "expander before training",
    (REGULAR, 0.0): "random regular before training",
}
FULL = ExpanderRecipe(
    "mnist", "RNN", hidden=64, epochs=(6, 3), lr=2e-3, remaining=(0.1, 0.05), noise=(0.0, 0.3), examples=10_000
)
QUICK = replace(FULL, data="digits", epochs=(10, 5), batch=32, lr=5e-3, remaining=(0.1,))


class ExpanderControls(Study):
    name = "expander-controls"
    title = "Expansion or density? Masks of one density, from expanders to their opposite"
    paper = (
        "Graph expansion in pruned recurrent neural network layers, ICLR 2024 Tiny Papers; D. Hoang et al., ICLR 2023"
    )
    default_seeds = 5

    def tasks(self, settings: Settings) -> list[Task]:
        recipe = QUICK if settings.quick else FULL
        config = recipe.config()
        return [
            Task(key, f"seed {seed}: {title}", seed, config)
            for seed in settings.seeds
            for key, title in _keys(recipe, seed)
        ]

    def run(self, task: Task, workspace: RecordStore, progress: Progress) -> Record:
        recipe = ExpanderRecipe.of(task.config)
        if task.key["what"] == "dense":
            model = network(recipe, task.seed)
            fit(model, recipe, recipe.epochs[0], task.seed, progress)
            save(workspace, model, task.seed, "dense")
            return task.record(self.name, scores(model, recipe))
        untrained = task.key["what"] in UNTRAINED
        model = network(recipe, task.seed) if untrained else restored(workspace, recipe, task.seed, "dense")
        keep = masks(model, task.key, task.seed)
        cut(model, keep)
        fit(model, recipe, sum(recipe.epochs) if untrained else recipe.epochs[1], task.seed, progress)
        return task.record(self.name, {**scores(model, recipe), **measured(keep)})

    def summary(self, records: Sequence[Record]) -> list[Table]:
        return (
            [_rivals(records), _correlations(records), _differences(records), _accuracies(records)] if records else []
        )

    def figures(self, records: Sequence[Record]) -> list[Figure]:
        return (
            [_scatter(records, remaining) for remaining in ExpanderRecipe.of(records[-1].config).remaining]
            if records
            else []
        )


def _keys(recipe: ExpanderRecipe, seed: int) -> Iterator[tuple[dict[str, Any], str]]:
    yield {"what": "dense", "seed": seed}, "dense"
    for remaining in recipe.remaining:
        for family in FAMILIES:
            for strength in STRENGTHS:
                key = {"what": family, "strength": strength, "remaining": remaining, "seed": seed}
                yield key, f"{family} {strength:+g}, {percent(remaining)} of the edges"
        for control in (PLAIN, REGULAR):
            key = {"what": control, "strength": 0.0, "remaining": remaining, "seed": seed}
            yield key, f"{NAMES[control, 0.0]}, {percent(remaining)} of the edges"


def masks(model: Any, key: dict[str, Any], seed: int) -> dict[str, np.ndarray]:
    """View field → mask (G, H, I) of ``key["remaining"]`` of the entries; a random family has the seed's numbers as sizes."""
    view, rng, found = view_of(model), np.random.default_rng([seed, 1]), {}
    for number, field in enumerate(FIELDS.values()):
        sizes = getattr(view, field)
        sizes = sizes if key["what"] in ("magnitude", PLAIN) else rng.normal(size=sizes.shape)
        count = round(key["remaining"] * sizes[0].size)
        if key["what"] == REGULAR:
            ranks = [regular_ranking(gate.shape[0], gate.shape[1], (seed, number, k)) for k, gate in enumerate(sizes)]
        else:
            floor = {"floor": 0.0} if key["what"] == PLAIN else {}
            ranks = [expander_ranking(gate, key["strength"], **floor) for gate in sizes]
        found[field] = np.stack([rank >= rank.size - count for rank in ranks])
    return found


def measured(keep: dict[str, np.ndarray]) -> dict[str, Metric]:
    """Mean over both layers of Δ_S and Δ_R (−1, the least value, where undefined), and of α2 of the Cheeger interval."""
    values: dict[str, list[float]] = {measure: [] for measure in MEASURES}
    for mask in keep.values():
        found = expansion(block(mask))
        for name, delta in (("Δ_S", found.delta_s), ("Δ_R", found.delta_r)):
            values[name].append(-1.0 if delta is None else delta)
        values["α2"].append(cheeger(block(mask)).alpha2)
    return {name: Metric(float(np.mean(each)), len(each)) for name, each in values.items()}


def _at(family: str | None, remaining: float, strength: float | None = None) -> Callable[[Record], bool]:
    """Whether a record is of this family (None: of any of :data:`FAMILIES`), density and strength."""

    def chosen(record: Record) -> bool:
        task = record.task
        own = task["what"] in FAMILIES if family is None else task["what"] == family
        return own and task["remaining"] == remaining and strength in (None, task["strength"])

    return chosen


def _rivals(records: Sequence[Record]) -> Table:
    """Who wins at one density, within a seed."""
    recipe, rows = ExpanderRecipe.of(records[-1].config), []
    for remaining in recipe.remaining:
        for ours, theirs in RIVALS:
            cells = _minus(records, recipe, remaining, ours, theirs)
            rows.append((percent(remaining), NAMES[ours], NAMES[theirs], *cells))
    caption = (
        "Masks of one density and seed: mean difference ± 95 % interval over the seeds; an interval that holds 0 shows no "
        "winner. Expander: the criterion of this name. Least degree: of every unit and input, a quarter of the mean one."
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


def _correlations(records: Sequence[Record]) -> Table:
    """Spearman's ρ of every measure with accuracy at one density, within a family, per seed; then over the seeds."""
    recipe, rows = ExpanderRecipe.of(records[-1].config), []
    for remaining in recipe.remaining:
        for family in (*FAMILIES, None):
            cells: list[Cell] = [f"{percent(remaining)} of the edges", family or "all three"]
            for sigma in recipe.noise:
                for measure in MEASURES:
                    each = map(_rank_correlation(measure, f"test σ={sigma:g}"), _seeds(records, _at(family, remaining)))
                    cells.append(mean_interval(r for r in each if r is not None).text(2))
            rows.append(tuple(cells))
    columns = ("density", "masks from", *(f"ρ({m}), σ = {sigma:g}" for sigma in recipe.noise for m in MEASURES))
    caption = (
        "Rank correlation of a measure of expansion with test accuracy among masks of one density and origin, mean ± 95 % "
        f"interval over the seeds; {len(STRENGTHS)} masks each. An interval that holds 0 shows no relation. "
        "Seeds whose masks are all alike in a measure have no rank correlation and are left out."
    )
    return Table("Expansion and accuracy at fixed density", columns, tuple(rows), caption)


def _seeds(records: Sequence[Record], chosen: Callable[[Record], bool]) -> list[list[Record]]:
    own = [record for record in records if chosen(record)]
    return [[r for r in own if r.seed == seed] for seed in sorted({r.seed for r in own})]


def _rank_correlation(measure: str, accuracy: str) -> Callable[[list[Record]], float | None]:
    def of(records: list[Record]) -> float | None:
        x, y = ([r.metrics[name].value for r in records] for name in (measure, accuracy))
        return rank_correlation(x, y)

    return of


def _differences(records: Sequence[Record]) -> Table:
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


def _accuracies(records: Sequence[Record]) -> Table:
    recipe, rows = ExpanderRecipe.of(records[-1].config), []
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
        "training."
    )
    return Table("Masks from expanders to their opposite", columns, tuple(rows), caption)


def _scatter(records: Sequence[Record], remaining: float) -> Figure:
    series = []
    for family in FAMILIES:
        own = [r for r in records if _at(family, remaining)(r) and math.isfinite(r.metrics["test σ=0"].value)]
        y = [100 * r.metrics["test σ=0"].value for r in own]
        series.append({"label": family, "x": [r.metrics["Δ_S"].value for r in own], "y": y})
    payload = {"x_label": "Δ_S, mean of W_xh and W_hh", "y_label": "test accuracy (%)", "series": series}
    return Figure(
        "scatter", f"Accuracy against Δ_S, {percent(remaining)} of the edges", payload, "Each point is a mask."
    )


STUDY = ExpanderControls()
