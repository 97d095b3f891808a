"""Table I of the lattice pruning paper: Algorithm 2 with a binary adjacency matrix, and beside it what works at 50 %.

Algorithm 1 decides by a 0/1 matrix whose first half of the units is meet-irreducible; of the other half the columns of W_hh
go, every third epoch. Beside it: no pruning; the weights of W_hh that are smallest in magnitude, gradually; and the
library's own Algorithm 1, where the units of the trained network are chosen by its own weights, cut out, and folded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from jali.api import prune
from jali.data import Dataset, load
from jali.report.tables import Cell
from jali.studies.base import Figure, Metric, Progress, Record, RecordStore, Settings, Study, Table, Task, over_seeds
from jali.studies.lattice_printed import algorithm_1, binary_adjacency
from jali.studies.lattice_tables import (
    PAPER,
    THRESHOLDS,
    TableRecipe,
    against_paper,
    by_pruner,
    classifier,
    epochs_figure,
    is_one,
    printed,
    scores,
    tasks_of,
    trained,
)
from jali.studies.training import fine_tuned

TABLE = {0.2: (0.4943, 0.9829), 0.5: (0.5000, 0.9847), 0.7: (0.5038, 0.9828)}  # τ → sparsity, accuracy
SPARSITY = 0.5
OWN = ("lattice", "moebius", "reconstruction")  # the library's Algorithm 1, by criterion


class LatticeTable1(Study):
    name = "lattice-table1"
    title = "Table I: an LSTM on MNIST, half of W_hh pruned by a binary adjacency matrix"
    paper = f"{PAPER}, Table I and Algorithms 1 and 2"

    def tasks(self, settings: Settings) -> list[Task]:
        return tasks_of(settings, _keys())

    def run(self, task: Task, workspace: RecordStore, progress: Progress) -> Record:
        recipe = TableRecipe.of(task.config)
        data = load(recipe.data)
        what = task.key["what"]
        if what == "printed":
            keep = algorithm_1(binary_adjacency(recipe.hidden), task.key["tau"]).keep
            return printed(self.name, task, data, keep, workspace, progress)
        if what == "dense":
            model, record = trained(self.name, task, data, lambda model, optimizer: _Nothing(), progress)
            workspace.write_tensors(_weights(task.seed), model.state_dict())
            return record
        if what in OWN:
            return _own(recipe, task, data, workspace, progress)
        return by_pruner(self.name, task, data, progress)

    def summary(self, records: Sequence[Record]) -> list[Table]:
        return [_paper(records), _beside(records), _units(records)] if records else []

    def figures(self, records: Sequence[Record]) -> list[Figure]:
        names = {"printed": "Algorithm 2, printed", "dense": "not pruned", "magnitude": "magnitude, gradually"}
        return [epochs_figure("Half of W_hh goes", records, lambda record: names.get(record.task["what"]))]


class _Nothing:
    """The companion of a dense training."""

    def step(self) -> None: ...

    def epoch(self) -> None: ...


def _keys() -> Iterator[tuple[dict[str, Any], str]]:
    """The key without its seed, and the title, of every task in order: the network that is cut comes before its cuts."""
    for tau in THRESHOLDS:
        yield {"what": "printed", "tau": tau, "rate": "constant"}, f"Algorithm 2, τ = {tau:g}"
    yield {"what": "dense", "rate": "constant"}, "dense"
    for criterion in OWN:
        yield {"what": criterion, "sparsity": SPARSITY}, f"units by {criterion}, folded"
    key = {"what": "magnitude", "schedule": "cubic", "sparsity": SPARSITY, "rate": "constant"}
    yield key, "weights by magnitude"


def _own(recipe: TableRecipe, task: Task, data: Dataset, workspace: RecordStore, progress: Progress) -> Record:
    """Algorithm 1 by the library: half of the units cut out and folded, then trained for one more epoch."""
    model = classifier(recipe, data, task.seed)
    model.load_state_dict(workspace.read_tensors(_weights(task.seed)))
    x, y = (part[: recipe.calibration].split(recipe.calibration_batch) for part in data.train)
    result = prune(model.eval(), task.key["what"], task.key["sparsity"], list(zip(x, y, strict=True)), seed=task.seed)
    metrics = scores(result.model, data, "folded ")
    progress("fine-tune")
    metrics |= scores(fine_tuned(result.model, data.train, recipe.tuning, task.seed), data, "tuned ")
    left = [sum(p.numel() for n, p in m.named_parameters() if "weight_hh" in n) for m in (model, result.model)]
    metrics["sparsity"] = Metric(1 - left[1] / left[0], 1)
    return task.record(LatticeTable1.name, metrics, data={"removed": list(result.plan.sites[0].removed)})


def _weights(seed: int) -> str:
    return f"dense-seed{seed}.safetensors"


# --- tables -------------------------------------------------------------------------------------------------------------


def _paper(records: Sequence[Record]) -> Table:
    caption = (
        "Test accuracy, mean ± 95 % interval over seeds; sparsity of W_hh. μ is a whole number, 0 for every unit of the second "
        "half: all three thresholds prune the same, and are one training of each seed."
    )
    return against_paper("Table I: binary adjacency", records, TABLE, caption)


def _beside(records: Sequence[Record]) -> Table:
    shown = {
        "printed": "Algorithm 2, printed (τ = 0.2)",
        "dense": "not pruned",
        "magnitude": "magnitude, cubic schedule",
    }
    rows: list[tuple[Cell, ...]] = []
    for what, label in shown.items():
        own = [r for r in records if is_one(r, what=what) and r.task.get("tau", 0.2) == 0.2]
        rows.append((label, *(over_seeds(own, metric).text(2, 100) for metric in ("sparsity", "test"))))
    columns = ("what goes", "W_hh removed (%)", "accuracy (%)")
    caption = "The same training: test accuracy, mean ± 95 % interval over seeds."
    return Table("Half of W_hh by other ways", columns, tuple(rows), caption)


def _units(records: Sequence[Record]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for what in OWN:
        own = [r for r in records if is_one(r, what=what)]
        cells = (over_seeds(own, metric).text(2, 100) for metric in ("sparsity", "folded test", "tuned test"))
        rows.append((what, *cells))
    columns = ("choice of units", "W_hh removed (%)", "folded (%)", "+ 1 epoch (%)")
    caption = (
        "Algorithm 1 by the library: half of the units of the network that was not pruned, chosen by its own weights, are cut "
        "out with their rows and columns, and the others are repaired on unlabelled data. Test accuracy, mean ± 95 % interval."
    )
    return Table("Half of the units, cut out and folded", columns, tuple(rows), caption)


STUDY = LatticeTable1()
