"""Accuracy and Ramanujan bounds of an RNN on MNIST by rows, as ever fewer edges remain: Figures 3a, 3b, 4 and Table 2."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from jali.maths.spectral import random_crossing
from jali.plain import an
from jali.report.tables import Cell, percent
from jali.studies.base import (
    Comparison,
    Figure,
    Metric,
    Progress,
    Record,
    RecordStore,
    Settings,
    Study,
    Table,
    Task,
    comparison_table,
    over_seeds,
)  # fmt: skip
from jali.studies.expander_runs import (
    DRAWS,
    FIELDS,
    LEAST,
    ExpanderRecipe,
    block,
    bounds,
    crossing,
    crossing_by_chance,
    curve,
    cut,
    fit,
    loaded,
    network,
    restored,
    save,
    scores,
    strongest,
    view_of,
)  # fmt: skip

FULL = ExpanderRecipe("mnist", "RNN")
QUICK = replace(FULL, epochs=(3, 1), remaining=(0.5, 0.25, 0.12, 0.05), widths=(64,), noise=(0.0, 0.3))
NARROW = math.sqrt(5)  # the slope that nn.Linear gives to Kaiming He's formula
WIDEST = 2048  # of the widths that are asked for the paper's crossing
PAPER = {("W_xh", "S"): 0.5, ("W_xh", "R"): 0.5, ("W_hh", "S"): 0.12, ("W_hh", "R"): 0.12}


class ExpanderStudy(Study):
    """Train, cut by magnitude at once, fine-tune, at every fraction of the edges; bounds of the cut layers beside it."""

    paper = "Graph expansion in pruned recurrent neural network layers preserves performance, ICLR 2024 Tiny Papers"
    default_seeds = 1
    full: ClassVar[ExpanderRecipe]
    quick: ClassVar[ExpanderRecipe]
    known: ClassVar[dict[tuple[str, str], float]]  # (layer, bound) → where the paper's crossing is

    def tasks(self, settings: Settings) -> list[Task]:
        recipe = self.quick if settings.quick else self.full
        config = recipe.config()
        found = [(seed, *each) for seed in settings.seeds for each in _keys(recipe, seed)]
        found.sort(key=lambda each: each[1]["what"] == "cut")  # crossings of all seeds first: they cost least
        return [Task(key, f"seed {seed}: {title}", seed, config) for seed, key, title in found]

    def run(self, task: Task, workspace: RecordStore, progress: Progress) -> Record:
        begin, recipe = time.process_time(), ExpanderRecipe.of(task.config)
        record = self._run(recipe, task, workspace, progress)
        return replace(record, data={**record.data, "processor seconds": time.process_time() - begin})

    def _run(self, recipe: ExpanderRecipe, task: Task, workspace: RecordStore, progress: Progress) -> Record:
        if task.key["what"] != "cut":
            return self._dense(recipe, task, workspace, progress)
        model = restored(workspace, recipe, task.seed, "dense")
        layers = tuple(FIELDS) if task.key["layer"] == "both" else (task.key["layer"],)
        view = view_of(model)
        cut(model, {FIELDS[e]: strongest(getattr(view, FIELDS[e]), task.key["remaining"]) for e in layers})
        fit(model, recipe, recipe.epochs[1], task.seed, progress)
        return task.record(self.name, {**scores(model, recipe), **bounds(model)})

    def _dense(self, recipe: ExpanderRecipe, task: Task, workspace: RecordStore, progress: Progress) -> Record:
        narrow = task.key["what"] == "narrow start"
        model = network(recipe, task.seed, task.key["width"], NARROW if narrow else 0.0)
        fit(model, recipe, recipe.epochs[0], task.seed, progress)
        if task.key["width"] == recipe.hidden and not narrow:
            save(workspace, model, task.seed, "dense")
        progress("bounds")
        metrics, curves, view = scores(model, recipe), {}, view_of(model)
        for layer, field in FIELDS.items():
            gates = getattr(view, field)
            curves[layer] = curve(block(gates))
            blocks = {layer: [block(gates)], **({f"{layer} per gate": list(gates)} if len(gates) > 1 else {})}
            for name, each in blocks.items():
                for bound in ("S", "R"):
                    by_chance = crossing_by_chance(each[0].shape, bound, task.seed)
                    metrics[f"crossing {name} {bound} random"] = Metric(by_chance, DRAWS)
                    for weighted, word in ((False, ""), (True, " weighted")):
                        found = [crossing(values, bound, weighted) for values in each]
                        metrics[f"crossing {name} {bound}{word}"] = Metric(float(np.mean(found)), len(found))
        features = loaded(recipe.data).features
        return task.record(self.name, metrics, data={"curves": curves, "features": features})

    def summary(self, records: Sequence[Record]) -> list[Table]:
        if not records:
            return []
        return [self._against_paper(records), _crossings(records), *self._widths(records), *_accuracies(records)]

    def _against_paper(self, records: Sequence[Record]) -> Table:
        own = _recipe(records)
        lines = [
            Comparison(
                f"{layer}, Δ_{bound}",
                self.known.get((layer, bound)),
                over_seeds(records, f"crossing {layer} {bound}", _of_width(own.hidden)),
            )
            for layer in FIELDS
            for bound in ("S", "R")
        ]
        minutes = sum(record.data["processor seconds"] for record in records) / 60
        caption = (
            f"Remaining edges at which the bound of the mask of {an(own.kind)} of {own.hidden} units first falls below zero "
            "(Table 2), cut by magnitude at once after training; packed block of all gates. "
            f"The {len(records)} tasks of this study took {minutes:.1f} minutes of one processor core."
        )
        return comparison_table(f"{_what(own)}: where the bounds are lost", lines, unit="%", scale=100, caption=caption)

    def _widths(self, records: Sequence[Record]) -> list[Table]:
        """Which width would lose the bounds of the input weights where the paper's network does."""
        own, rows = _recipe(records), []
        widths = sorted({r.task["width"] for r in records if "width" in r.task})
        if len(widths) < 2:
            return []
        features = next(r.data["features"] for r in records if "width" in r.task)
        for bound in ("S", "R"):
            wanted = self.known["W_xh", bound]
            found = [over_seeds(records, f"crossing W_xh {bound}", _of_width(width)).mean for width in widths]
            line = [random_crossing(width, features, bound) for width in range(1, WIDEST)]
            by_chance = next((f"{w}" for w in range(features, WIDEST) if line[w - 1] >= wanted), f"above {WIDEST}")
            rows.append((f"Δ_{bound}", percent(wanted), _interpolated(widths, found, wanted), by_chance))
        columns = ("bound of W_xh", "lost at, paper", "units, trained and cut", "units, random mask")
        caption = (
            "Width at which a network would lose the bound of its input weights where the paper's does. Trained: between the "
            "widths of the table above, linear in the logarithm of the width. Random mask: the law of large random matrices."
        )
        return [Table(f"{_what(own)}: which width fits the paper", columns, tuple(rows), caption)]

    def figures(self, records: Sequence[Record]) -> list[Figure]:
        return [figure for layer in FIELDS for figure in _figures(records, layer)] if records else []


def _keys(recipe: ExpanderRecipe, seed: int) -> Iterator[tuple[dict[str, Any], str]]:
    for width in (recipe.hidden, *recipe.widths):
        yield {"what": "dense", "width": width, "seed": seed}, f"train {width} units"
    if recipe.widths:
        key = {"what": "narrow start", "width": recipe.hidden, "seed": seed}
        yield key, f"train {recipe.hidden} units from PyTorch's own weights"
    for layer in recipe.layers:
        for remaining in recipe.remaining:
            key = {"what": "cut", "layer": layer, "remaining": remaining, "seed": seed}
            yield key, f"{layer}, {percent(remaining)} of the edges"


def _recipe(records: Sequence[Record]) -> ExpanderRecipe:
    return ExpanderRecipe.of(records[-1].config)


def _what(recipe: ExpanderRecipe) -> str:
    return f"{recipe.kind} on {recipe.data}"


def _interpolated(widths: Sequence[int], found: Sequence[float], wanted: float) -> str:
    for (low, a), (high, b) in itertools.pairwise(zip(widths, found, strict=True)):
        if a <= wanted <= b:
            return f"{low * (high / low) ** ((wanted - a) / (b - a) if b > a else 0.0):.0f}"
    last = f"{100 * found[0]:.0f} % at {widths[0]}, {100 * found[-1]:.0f} % at {widths[-1]}"
    return f"none from {widths[0]} to {widths[-1]} ({last})"


def _of_width(width: int) -> Callable[[Record], bool]:
    return lambda record: record.task["what"] == "dense" and record.task["width"] == width


def _cut_to(layer: str, remaining: float) -> Callable[[Record], bool]:
    return lambda record: (record.task.get("layer"), record.task.get("remaining")) == (layer, remaining)


def _crossings(records: Sequence[Record]) -> Table:
    """Every width: both bounds, weighted and not, beside random cuts of a block of this size."""
    recipe, rows = _recipe(records), []
    measures = [f"{bound}{how}" for bound in ("S", "R") for how in ("", " random", " weighted")]
    layers = [name for name in (*FIELDS, *(f"{layer} per gate" for layer in FIELDS)) if _measured(records, name)]
    widths = sorted({r.task["width"] for r in records if "width" in r.task})
    networks = [(f"{width} units", _of_width(width)) for width in widths]
    networks.append((f"{recipe.hidden} units, narrow start", lambda record: record.task["what"] == "narrow start"))
    for title, chosen in networks:
        for layer in layers if any(map(chosen, records)) else ():
            found = (over_seeds(records, f"crossing {layer} {measure}", chosen) for measure in measures)
            rows.append((f"{layer}, {title}", *(each.text(1, 100) for each in found)))
    header = [f"Δ_{measure}".replace(" random", ", random cut") for measure in measures]
    caption = (
        "First loss of each bound on the way from the full matrix. Random cut: of a block of this shape, mean of "
        f"{DRAWS}. Weighted bounds depend on the scale of the weights: {100 * LEAST:g} means not lost down to the last density "
        "asked, 100 that the dense layer has none."
    )
    if recipe.widths:
        caption += (
            " Narrow start: before training, weights are uniform within ±1/√fan-in, PyTorch's own, and not within ±√(6/fan-in), "
            "Kaiming He's."
        )
    return Table(f"{_what(recipe)}: crossings by width", ("remaining edges (%)", *header), tuple(rows), caption)


def _measured(records: Sequence[Record], layer: str) -> bool:
    return any(f"crossing {layer} S" in record.metrics for record in records)


def _accuracies(records: Sequence[Record]) -> list[Table]:
    recipe, tables = _recipe(records), []
    columns = (
        "remaining edges",
        *(f"σ = {sigma:g}" for sigma in recipe.noise),
        "W_xh Δ_S",
        "W_xh Δ_R",
        "W_hh Δ_S",
        "W_hh Δ_R",
    )
    for layer in recipe.layers:
        rows: list[tuple[Cell, ...]] = []
        for remaining in (1.0, *recipe.remaining):
            here = _of_width(recipe.hidden) if remaining == 1.0 else _cut_to(layer, remaining)
            if not any(map(here, records)):
                continue
            accuracy = [over_seeds(records, f"test σ={sigma:g}", here).text(2, 100) for sigma in recipe.noise]
            deltas = [over_seeds(records, f"{each} Δ_{bound}", here).text(3) for each in FIELDS for bound in ("S", "R")]
            rows.append((percent(remaining), *accuracy, *deltas))
        what = "both layers" if layer == "both" else layer
        caption = (
            f"Test accuracy in %, by the standard deviation of the noise on {percent(recipe.noisy)} of the test inputs; bounds "
            f"of the masks. {recipe.epochs[0]} epochs of training, {recipe.epochs[1]} of fine-tuning after the cut."
        )
        if len(rows) > 1:
            tables.append(Table(f"{_what(recipe)}: accuracy, {what} cut", columns, tuple(rows), caption))
    return tables


def _figures(records: Sequence[Record], layer: str) -> list[Figure]:
    recipe = _recipe(records)
    dense = list(filter(_of_width(recipe.hidden), records))
    figures, accuracy = [], []
    cut_layer = "both" if any(r.task.get("layer") == "both" for r in records) else layer
    for sigma in recipe.noise:
        points = [over_seeds(records, f"test σ={sigma:g}", _cut_to(cut_layer, p)).mean for p in recipe.remaining]
        y = [mean if math.isfinite(mean) else None for mean in points]
        accuracy.append({"label": f"accuracy, σ = {sigma:g}", "x": [100 * p for p in recipe.remaining], "y": y})
    for number, weighted in ((3, ""), (4, " weighted")):
        series = list(accuracy)
        for bound in ("Δ_S", "Δ_R"):
            for record in dense[:1]:
                curves = record.data["curves"][layer]
                shown = [None if d is None or d > 1 else d for d in curves[bound + weighted]]
                series.append({"label": bound + weighted, "x": [100 * p for p in curves["remaining"]], "y": shown})
        payload = {
            "x_label": f"remaining edges of {layer} (%)",
            "y_label": "accuracy; Δ",
            "series": series,
            "log_x": True,
        }
        caption = (
            f"Figure {number} of the paper; the bound is lost where Δ falls below 0. Bounds above 1 are not drawn."
        )
        figures.append(Figure("lines", f"{layer}: accuracy and{weighted or ' unweighted'} bounds", payload, caption))
    return figures


class ExpanderMnist(ExpanderStudy):
    name = "expander-mnist"
    title = "Ramanujan bounds and accuracy under noise: an RNN on MNIST by rows"
    full, quick, known = FULL, QUICK, PAPER


STUDY = ExpanderMnist()
