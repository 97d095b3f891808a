"""``jali prune``: prune the caller's own model into a folder, with a record and a report of what was done."""

from __future__ import annotations

import dataclasses
import hashlib
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
from jali.plain import an
from jali.plans import Budget
from jali.report.tables import Cell, percent
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

    from jali.studies.runner import regenerate_report

    limit = Budget(budget, threshold, scope, multiple_of, min_width)
    model = built(build, weights)
    items = batches(data)
    # On a terminal this line moves and then disappears; elsewhere nothing is written.
    with Console(stderr=True).status(f"pruning {type(model).__name__}, {len(items)} batches of calibration data"):
        started = time.perf_counter()
        result = prune(model, criterion, limit, items, fold=fold, options=options, seed=seed)
        seconds = time.perf_counter() - started
    if not save(result.model, out, plan=result.plan, example_inputs=items[0]):
        note = "jali.load needs build=, the builder of the original model: its forward pass cannot be stored as data"
        result = dataclasses.replace(result, notes=(*result.notes, note))
    task = _task(model, weights, result, fold, len(items))
    RecordStore(Path(out)).append(_record(task, model, result, seconds))
    regenerate_report(Path(out), Console(quiet=True))  # the caller prints the result itself
    return result


def built(build: Callable[[], nn.Module], weights: str | os.PathLike[str]) -> nn.Module:
    """The caller's model with its weights, in evaluation mode."""
    model = build()
    if not isinstance(model, nn.Module):
        raise ModelError(f"the model's builder returned {an(type(model).__name__)}; it must return an nn.Module")
    load_weights(model, weights)
    return model.eval()


def _task(model: nn.Module, weights: str | os.PathLike[str], result: Result, fold: bool, batch_count: int) -> Task:
    """The key says which model it was and what was done to it: the class alone says little, two may share a folder."""
    plan = result.plan
    key = {
        "model": type(model).__name__,
        "weights": _digest(Path(weights).read_bytes()),
        "plan": _digest(plan.to_json().encode()),
        "fold": fold,
    }
    config = {
        "criterion": plan.criterion,
        "options": {name: str(value) for name, value in plan.options.items()},
        "budget": dataclasses.asdict(plan.budget),
        "fold": fold,
        "calibration batches": batch_count,
    }
    return Task(key, "prune", plan.seed, config)


def _digest(content: bytes) -> str:
    """The first 12 hexadecimal digits of the SHA-256."""
    return hashlib.sha256(content).hexdigest()[:12]


def _record(task: Task, model: nn.Module, result: Result, seconds: float) -> Record:
    plan = result.plan
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
    data = {"structure": structure, "widths": widths}
    return task.record(STUDY.name, metrics, timings={"prune": seconds}, data=data, notes=result.notes)


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
                name = found["site"] if len(records) == 1 else f"{_name(record)}, {found['site']}"
                title, caption = f"{name}: persistence of irreducibility", persistence_caption(found["persistence"])
                figures.append(Figure("persistence", title, found["persistence"], caption))
                if found["hasse"]:
                    title = f"{name}: dependency lattice of its strongest influences"
                    figures.append(Figure("hasse", title, found["hasse"], hasse_caption(found["hasse"])))
        return figures


def _name(record: Record) -> str:
    """For example "Tagger (weights 1f0c…)": which model, of those in one folder."""
    weights = record.task.get("weights")  # older records lack it
    return f"{record.task['model']} (weights {weights})" if weights else str(record.task["model"])


def _costs_table(record: Record) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for name, label in (("parameters", "parameters"), ("bytes", "bytes"), ("macs", "multiply-adds per call")):
        if f"{name} before" in record.metrics:
            before, after = (int(record.metrics[f"{name} {when}"].value) for when in ("before", "after"))
            rows.append((label, before, after, f"{after / before:.3f}" if before else "–"))
    title = f"{_name(record)}, pruned by {record.config['criterion']}"
    caption = f"Made {record.created}; the folder holds the model made last."
    return Table(title, ("", "before", "after", "ratio"), tuple(rows), caption)


def _widths_table(record: Record) -> Table:
    rows = tuple((name, kind, size, kept) for name, kind, size, kept in record.data["widths"])
    repair = "the others were repaired (folded)" if record.config["fold"] else "nothing was repaired"
    caption = (
        f"{percent(record.metrics['sparsity'].value)} of the units were removed; {repair}. "
        "A site is one recurrent layer in one direction."
    )
    return Table(f"Sites of {_name(record)}", ("site", "kind", "units before", "units kept"), rows, caption)


STUDY = Pruned()
