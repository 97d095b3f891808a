"""Showing the studies of cuts and bounds: the paper's crossings beside ours, accuracy by what remains, and the figures."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jali.maths.spectral import random_crossing
from jali.plain import an
from jali.report.tables import Cell, percent
from jali.studies.base import Comparison, Figure, Record, Table, comparison_table, over_seeds
from jali.studies.expander_runs import DRAWS, FIELDS, LEAST, ExpanderRecipe

Crossings = Mapping[tuple[str, str], float]  # (layer, bound) → where the paper's is

WIDEST = 2048  # of the widths that are asked for the paper's crossing


def against_paper(records: Sequence[Record], known: Crossings) -> Table:
    """Where every bound is lost: the paper's Table 2 and ours."""
    own = _recipe(records)
    lines = [
        Comparison(
            f"{layer}, Δ_{bound}",
            known.get((layer, bound)),
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


def crossings(records: Sequence[Record]) -> Table:
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


def fitting_widths(records: Sequence[Record], known: Crossings) -> list[Table]:
    """Which width would lose the bounds of the input weights where the paper's network does."""
    own, rows = _recipe(records), []
    widths = sorted({r.task["width"] for r in records if "width" in r.task})
    if len(widths) < 2:
        return []
    features = next(r.data["features"] for r in records if "width" in r.task)
    for bound in ("S", "R"):
        wanted = known["W_xh", bound]
        found = [over_seeds(records, f"crossing W_xh {bound}", _of_width(width)).mean for width in widths]
        line = [random_crossing(width, features, bound) for width in range(1, WIDEST)]
        by_chance = next((f"{w}" for w in range(features, WIDEST) if line[w - 1] >= wanted), f"above {WIDEST}")
        rows.append((f"Δ_{bound}", percent(wanted), interpolated(widths, found, wanted), by_chance))
    columns = ("bound of W_xh", "lost at, paper", "units, trained and cut", "units, random mask")
    caption = (
        "Width at which a network would lose the bound of its input weights where the paper's does. Trained: between the "
        "widths of the table above, linear in the logarithm of the width. Random mask: the law of large random matrices."
    )
    return [Table(f"{_what(own)}: which width fits the paper", columns, tuple(rows), caption)]


def interpolated(widths: Sequence[int], found: Sequence[float], wanted: float) -> str:
    """The width at which what was found is ``wanted``, linear in the logarithm of the width, or that there is none."""
    for (low, a), (high, b) in itertools.pairwise(zip(widths, found, strict=True)):
        if a <= wanted <= b:
            return f"{low * (high / low) ** ((wanted - a) / (b - a) if b > a else 0.0):.0f}"
    last = f"{100 * found[0]:.0f} % at {widths[0]}, {100 * found[-1]:.0f} % at {widths[-1]}"
    return f"none from {widths[0]} to {widths[-1]} ({last})"


def accuracies(records: Sequence[Record]) -> list[Table]:
    """One table for every choice of layers that were cut: accuracy and bounds at every fraction of the edges."""
    recipe = _recipe(records)
    columns = (
        "remaining edges",
        *(f"σ = {sigma:g}" for sigma in recipe.noise),
        *(f"{layer} Δ_{bound}" for layer in FIELDS for bound in ("S", "R")),
    )
    caption = (
        f"Test accuracy in %, by the standard deviation of the noise on {percent(recipe.noisy)} of the test inputs; bounds "
        f"of the masks, – where a bound is infinite, as of a full layer. {recipe.epochs[0]} epochs of training, then the cut and "
        f"{recipe.epochs[1]} of fine-tuning."
    )
    tables = []
    for layer in recipe.layers:
        stages = [("before the cut", _of_width(recipe.hidden))]
        stages += [(percent(remaining), _cut_to(recipe, layer, remaining)) for remaining in recipe.remaining]
        rows = [_accuracy(records, recipe, title, here) for title, here in stages if any(map(here, records))]
        what = "both layers" if layer == "both" else layer
        if len(rows) > 1:
            tables.append(Table(f"{_what(recipe)}: accuracy, {what} cut", columns, tuple(rows), caption))
    return tables


def _accuracy(
    records: Sequence[Record], recipe: ExpanderRecipe, title: str, here: Callable[[Record], bool]
) -> tuple[Cell, ...]:
    accuracy = [over_seeds(records, f"test σ={sigma:g}", here).text(2, 100) for sigma in recipe.noise]
    deltas = [over_seeds(records, f"{layer} Δ_{bound}", here).text(3) for layer in FIELDS for bound in ("S", "R")]
    return (title, *accuracy, *deltas)


def curves(records: Sequence[Record], layer: str, known: Crossings) -> list[Figure]:
    """Figures 3 and 4 for one layer: accuracy and bounds by what remains, and where the paper's bounds are lost."""
    recipe = _recipe(records)
    dense = list(filter(_of_width(recipe.hidden), records))
    alone = any(r.task.get("layer") == layer for r in records)
    accuracy = [_accuracy_line(records, recipe, layer if alone else "both", sigma) for sigma in recipe.noise]
    figures = []
    for number, weighted in ((3, ""), (4, " weighted")):
        payload = {
            "x_label": f"remaining edges of {layer} (%)",
            "y_label": "accuracy; Δ",
            "series": [*accuracy, *(_bound_line(dense[0], layer, f"Δ_{b}{weighted}") for b in ("S", "R") if dense)],
            "marks": _marks(known, layer),
            "log_x": True,
            "zero": True,
        }
        caption = (
            f"Figure {number} of the paper, with {layer if alone else 'both layers'} cut; a bound is lost where Δ falls below 0. "
            "Upright lines: where the paper's bounds of the mask are lost. Δ above 1 is not drawn; bounds of one seed."
        )
        figures.append(Figure("lines", f"{layer}: accuracy and{weighted or ' unweighted'} bounds", payload, caption))
    return figures


def _accuracy_line(records: Sequence[Record], recipe: ExpanderRecipe, layer: str, sigma: float) -> dict[str, Any]:
    points = [over_seeds(records, f"test σ={sigma:g}", _cut_to(recipe, layer, p)).mean for p in recipe.remaining]
    y = [mean if math.isfinite(mean) else None for mean in points]
    return {"label": f"accuracy, σ = {sigma:g}", "x": [100 * p for p in recipe.remaining], "y": y}


def _bound_line(record: Record, layer: str, name: str) -> dict[str, Any]:
    found = record.data["curves"][layer]
    shown = [None if delta is None or delta > 1 else delta for delta in found[name]]
    return {"label": name, "x": [100 * p for p in found["remaining"]], "y": shown}


def _marks(known: Crossings, layer: str) -> list[dict[str, Any]]:
    """One mark where both bounds are lost together, else one each."""
    where: dict[float, list[str]] = {}
    for (own, bound), crossing in known.items():
        if own == layer:
            where.setdefault(crossing, []).append(f"Δ_{bound}")
    return [{"x": 100 * crossing, "label": f"paper: {', '.join(names)}"} for crossing, names in where.items()]


def _cut_to(recipe: ExpanderRecipe, layer: str, remaining: float) -> Callable[[Record], bool]:
    """Whether a record is of a network whose ``layer`` was cut to this fraction of its edges; a cut of nothing is there once."""
    wanted = (recipe.layers[0] if remaining == 1 else layer, remaining)
    return lambda record: (record.task.get("layer"), record.task.get("remaining")) == wanted


def _of_width(width: int) -> Callable[[Record], bool]:
    return lambda record: record.task["what"] == "dense" and record.task["width"] == width


def _measured(records: Sequence[Record], layer: str) -> bool:
    return any(f"crossing {layer} S" in record.metrics for record in records)


def _recipe(records: Sequence[Record]) -> ExpanderRecipe:
    return ExpanderRecipe.of(records[-1].config)


def _what(recipe: ExpanderRecipe) -> str:
    some = f"{recipe.examples:,} of " if recipe.examples < 10**9 else ""
    return f"{recipe.kind} on {some}{recipe.data}"
