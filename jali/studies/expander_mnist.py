"""Accuracy and Ramanujan bounds of an RNN on MNIST by rows, as ever fewer edges remain: Figures 3a, 3b, 4 and Table 2."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from jali.report.tables import percent
from jali.studies.base import Figure, Metric, Progress, Record, RecordStore, Settings, Study, Table, Task
from jali.studies.expander_runs import (
    DRAWS,
    FIELDS,
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
from jali.studies.expander_tables import Crossings, accuracies, against_paper, crossings, curves, fitting_widths

FULL = ExpanderRecipe("mnist", "RNN")
QUICK = replace(FULL, epochs=(3, 1), remaining=(0.5, 0.25, 0.12, 0.05), widths=(64,), noise=(0.0, 0.3))
NARROW = math.sqrt(5)  # the slope that nn.Linear gives to Kaiming He's formula
PAPER = {("W_xh", "S"): 0.5, ("W_xh", "R"): 0.5, ("W_hh", "S"): 0.12, ("W_hh", "R"): 0.12}


class ExpanderStudy(Study):
    """Train, cut by magnitude at once, fine-tune, at every fraction of the edges; bounds of the cut layers beside it."""

    paper = "Graph expansion in pruned recurrent neural network layers preserves performance, ICLR 2024 Tiny Papers"
    default_seeds = 1
    full: ClassVar[ExpanderRecipe]
    quick: ClassVar[ExpanderRecipe]
    known: ClassVar[Crossings]

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
        metrics, drawn, view = scores(model, recipe), {}, view_of(model)
        for layer, field in FIELDS.items():
            gates = getattr(view, field)
            drawn[layer] = curve(block(gates))
            blocks = {layer: [block(gates)], **({f"{layer} per gate": list(gates)} if len(gates) > 1 else {})}
            for name, each in blocks.items():
                for bound in ("S", "R"):
                    by_chance = crossing_by_chance(each[0].shape, bound, task.seed)
                    metrics[f"crossing {name} {bound} random"] = Metric(by_chance, DRAWS)
                    for weighted, word in ((False, ""), (True, " weighted")):
                        found = [crossing(values, bound, weighted) for values in each]
                        metrics[f"crossing {name} {bound}{word}"] = Metric(float(np.mean(found)), len(found))
        features = loaded(recipe.data).features
        return task.record(self.name, metrics, data={"curves": drawn, "features": features})

    def summary(self, records: Sequence[Record]) -> list[Table]:
        if not records:
            return []
        widths = fitting_widths(records, self.known)
        return [against_paper(records, self.known), crossings(records), *widths, *accuracies(records)]

    def figures(self, records: Sequence[Record]) -> list[Figure]:
        return [figure for layer in FIELDS for figure in curves(records, layer, self.known)] if records else []


def _keys(recipe: ExpanderRecipe, seed: int) -> Iterator[tuple[dict[str, Any], str]]:
    for width in (recipe.hidden, *recipe.widths):
        yield {"what": "dense", "width": width, "seed": seed}, f"train {width} units"
    if recipe.widths:
        key = {"what": "narrow start", "width": recipe.hidden, "seed": seed}
        yield key, f"train {recipe.hidden} units from PyTorch's own weights"
    for layer in recipe.layers:
        for remaining in recipe.remaining:
            if remaining == 1 and layer != recipe.layers[0]:
                continue  # a cut of nothing is the same in every layer
            key = {"what": "cut", "layer": layer, "remaining": remaining, "seed": seed}
            yield key, f"{layer}, {percent(remaining)} of the edges"


class ExpanderMnist(ExpanderStudy):
    name = "expander-mnist"
    title = "Ramanujan bounds and accuracy under noise: an RNN on MNIST by rows"
    full, quick, known = FULL, QUICK, PAPER


STUDY = ExpanderMnist()
