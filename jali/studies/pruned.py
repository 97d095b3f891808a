"""``jali prune``: prune the caller's own model into a folder, with a record and a report of what was done."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from torch import nn

from jali.api import Result, prune
from jali.archive import load_weights, save
from jali.batches import batches
from jali.errors import JaliError, ModelError
from jali.plans import Budget
from jali.report.tables import Cell
from jali.runs.store import RecordStore
from jali.site import sites
from jali.studies.base import Figure, Metric, Progress, Record, Settings, Study, Table, Task
from jali.studies.structure import hasse_caption, hasse_payload, persistence_caption, persistence_payload
from jali.view import read


def prune_to_folder(
    *,
    build: Callable[[], nn.Module],
    weights: str | os.PathLike[str],
    data: Any,
    out: str | os.PathLike[str],
    criterion: str = "lattice",
    budget: float | None = None,
    threshold: float | None = None,
    multiple_of: int = 1,
    min_width: int = 1,
    scope: Literal["site", "global"] = "site",
    options: Mapping[str, Any] | None = None,
    fold: bool = True,
    seed: int = 0,
) -> Result:
    """What ``jali prune`` does: build, load ``weights`` (safetensors), prune, and write the folder ``out``.

    The folder gets ``model.safetensors``, ``plan.json``, ``records.jsonl`` and ``report.html``;
    :func:`jali.load` rebuilds the model. Raises the errors of :func:`jali.prune`, and :class:`FileError`.
    """
    from rich.console import Console

    limit = Budget(budget, threshold, scope, multiple_of, min_width)
    model = build()
    if not isinstance(model, nn.Module):
        raise ModelError(f"the model's builder returned a {type(model).__name__}; it must return an nn.Module")
    load_weights(model, weights)
    model.eval()
    items = batches(data)
    # On a terminal this line moves and then disappears; elsewhere nothing is written.
    with Console(stderr=True).status(f"pruning {type(model).__name__}, {len(items)} batches of calibration data"):
        started = time.perf_counter()
        result = prune(model, criterion, limit, items, fold=fold, options=options, seed=seed)
        seconds = time.perf_counter() - started
    if not save(result.model, out, plan=result.plan, example_inputs=items[0]):
        note = "jali.load needs build=, the builder of the original model: its forward pass cannot be stored as data"
        result = dataclasses.replace(result, notes=(*result.notes, note))
    _write_report(model, result, Path(out), fold, seconds)
    return result


def _write_report(model: nn.Module, result: Result, out: Path, fold: bool, seconds: float) -> None:
    from rich.console import Console

    from jali.studies.runner import regenerate_report

    plan = result.plan
    config = {
        "criterion": plan.criterion,
        "options": {key: str(value) for key, value in plan.options.items()},
        "budget": dataclasses.asdict(plan.budget),
        "fold": fold,
    }
    metrics = {"sparsity": Metric(plan.sparsity, 1)}
    for when, found in (("before", result.before), ("after", result.after)):
        metrics[f"parameters {when}"] = Metric(found.parameters, 1)
        metrics[f"bytes {when}"] = Metric(found.bytes, 1)
        if found.macs is not None:
            metrics[f"macs {when}"] = Metric(found.macs, 1)
    known = {site.name: site for site in sites(model, linear=True)}
    structure = []
    for planned in plan.sites:
        view = read(model, known[planned.name])
        if view.site.recurrent and np.any(view.influence() > 0):
            payload = persistence_payload(view, planned, plan.criterion, plan.options)
            structure.append({"site": planned.name, "persistence": payload, "hasse": hasse_payload(view)})
    widths = [[s.name, s.kind, s.size, len(s.kept)] for s in plan.sites]
    record = Record(
        study=STUDY.name,
        task={"model": type(model).__name__},
        seed=plan.seed,
        config=config,
        metrics=metrics,
        timings={"prune": seconds},
        data={"structure": structure, "widths": widths},
        notes=result.notes,
    )
    RecordStore(out).append(record)
    regenerate_report(out, Console(quiet=True))  # the caller prints the result itself


class Pruned(Study):
    """The report of ``jali prune``; it is written by that command and cannot be run as a study."""

    name = "pruned"
    title = "Pruned by jali"
    paper = "Written by the command jali prune. In Python, jali.load(folder) gives the smaller model back."
    listed: ClassVar[bool] = False

    def tasks(self, settings: Settings) -> list[Task]:
        raise JaliError("'pruned' is the report of `jali prune`; run that command instead")

    def run(self, task: Task, workspace: RecordStore, progress: Progress) -> Record:
        raise JaliError("'pruned' is the report of `jali prune`; run that command instead")

    def summary(self, records: Sequence[Record]) -> list[Table]:
        return [table for record in records for table in (_costs_table(record), _widths_table(record))]

    def figures(self, records: Sequence[Record]) -> list[Figure]:
        figures = []
        for record in records:
            for found in record.data["structure"]:
                name = found["site"]
                title, caption = f"{name}: persistence of irreducibility", persistence_caption(found["persistence"])
                figures.append(Figure("persistence", title, found["persistence"], caption))
                if found["hasse"]:
                    title = f"{name}: dependency lattice of its strongest influences"
                    figures.append(Figure("hasse", title, found["hasse"], hasse_caption(found["hasse"])))
        return figures


def _costs_table(record: Record) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for name, label in (("parameters", "parameters"), ("bytes", "bytes"), ("macs", "multiply-adds per call")):
        if f"{name} before" in record.metrics:
            before, after = (int(record.metrics[f"{name} {when}"].value) for when in ("before", "after"))
            rows.append((label, before, after, f"{after / before:.3f}" if before else "–"))
    title = f"{record.task['model']}, pruned by {record.config['criterion']}"
    return Table(title, ("", "before", "after", "ratio"), tuple(rows))


def _widths_table(record: Record) -> Table:
    rows = tuple((name, kind, size, kept) for name, kind, size, kept in record.data["widths"])
    gone = 100 * record.metrics["sparsity"].value
    repair = "the others were repaired (folded)" if record.config["fold"] else "nothing was repaired"
    caption = f"{gone:.4g} % of the units were removed; {repair}. A site is one recurrent layer in one direction."
    return Table("Sites", ("site", "kind", "units before", "units kept"), rows, caption)


STUDY = Pruned()
