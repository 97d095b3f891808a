"""Table II of the lattice pruning paper: Algorithm 3 with a continuous adjacency matrix, and beside it what works.

A ~ U(0.5, 2) with 128 units has column sums near 160, so every centrality is near 0.006, below all three thresholds: the
printed criterion removes the whole recurrent matrix, and what the paper reports is an LSTM without recurrent weights.
Beside it: the same sparsity and more, weight by weight, gradually by magnitude, at random, and moved by RigL.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from jali.data import load
from jali.report.tables import Cell, percent
from jali.studies.base import Figure, Progress, Record, RecordStore, Settings, Study, Table, Task, over_seeds
from jali.studies.lattice_printed import algorithm_3, centrality, continuous_adjacency
from jali.studies.lattice_tables import (
    PAPER,
    THRESHOLDS,
    TableRecipe,
    against_paper,
    by_pruner,
    epochs_figure,
    epochs_table,
    is_one,
    minus_paper,
    other_data,
    printed,
    tasks_of,
)

TABLE = {0.2: (0.9847, 0.8707), 0.5: (0.9904, 0.8725), 0.7: (0.9943, 0.8686)}  # τ → sparsity, accuracy
SPARSITY = 0.985  # of W_hh, above the smallest of the paper's
LESS = 0.981  # no less than 98 % however the number of weights is rounded
OTHERS = (  # criterion, schedule, sparsity, rate
    ("magnitude", "cubic", SPARSITY, "one-cycle"),
    ("magnitude", "cubic", LESS, "one-cycle"),
    ("magnitude", "cubic", SPARSITY, "constant"),
    ("random", "cubic", SPARSITY, "one-cycle"),
    ("magnitude", "rigl", SPARSITY, "one-cycle"),
    ("magnitude", "cubic", TABLE[0.5][0], "one-cycle"),
    ("magnitude", "cubic", TABLE[0.7][0], "one-cycle"),
)


class LatticeTable2(Study):
    name = "lattice-table2"
    title = "Table II: an LSTM on MNIST, W_hh pruned by a continuous adjacency matrix"
    paper = f"{PAPER}, Table II and Algorithm 3"

    def tasks(self, settings: Settings) -> list[Task]:
        return tasks_of(settings, _keys())

    def run(self, task: Task, workspace: RecordStore, progress: Progress) -> Record:
        recipe = TableRecipe.of(task.config)
        data = load(recipe.data)
        if task.key["what"] != "printed":
            return by_pruner(self.name, task, data, progress)
        adjacency = continuous_adjacency(recipe.hidden, task.seed)
        keep, largest = algorithm_3(adjacency, task.key["tau"]), float(centrality(adjacency).max())
        return printed(self.name, task, data, keep, workspace, progress, {"largest centrality": largest})

    def summary(self, records: Sequence[Record]) -> list[Table]:
        return [_paper(records), _beside(records), _epochs(records)] if records else []

    def figures(self, records: Sequence[Record]) -> list[Figure]:
        return [epochs_figure("At least 98 % of W_hh goes", records, _label)]


def _keys() -> Iterator[tuple[dict[str, Any], str]]:
    """The key without its seed, and the title, of every task: what the paper prints, then the others."""
    for tau in THRESHOLDS:
        yield {"what": "printed", "tau": tau, "rate": "constant"}, f"Algorithm 3, τ = {tau:g}"
    for what, schedule, sparsity, rate in OTHERS:
        yield _key(what, schedule, sparsity, rate), f"{what}, {schedule}, {percent(sparsity)}, {rate}"


def _key(what: str, schedule: str, sparsity: float, rate: str) -> dict[str, Any]:
    return {"what": what, "schedule": schedule, "sparsity": sparsity, "rate": rate}


# --- tables and figures -------------------------------------------------------------------------------------------------


def _paper(records: Sequence[Record]) -> Table:
    largest = max((r.data["largest centrality"] for r in records if "largest centrality" in r.data), default=0.0)
    caption = (
        f"Test accuracy, mean ± 95 % interval over seeds; sparsity of W_hh. The largest centrality of any unit is {largest:.4f}, "
        "below every threshold: all recurrent weights go, and the three are one training of each seed."
    )
    return against_paper("Table II: continuous adjacency", records, TABLE, caption)


def _beside(records: Sequence[Record]) -> Table:
    lines: list[tuple[str, str, dict[str, Any]]] = [
        ("Algorithm 3, printed (τ = 0.2)", "constant", {"what": "printed", "tau": THRESHOLDS[0]}),
        *((_named(*other[:2]), other[3], _key(*other)) for other in sorted(OTHERS, key=lambda other: other[3])),
    ]
    found = [(label, rate, [r for r in records if is_one(r, **key)]) for label, rate, key in lines]
    rows = tuple(_row(label, rate, own) for label, rate, own in found if own)
    columns = ("what goes", "rate", "W_hh removed (%)", "validation (%)", "test (%)", "runs", "minus paper (points)")
    caption = (
        f"Mean ± 95 % interval over seeds, beside the paper's best, {100 * _best():.2f} %. Constant: Adam, as the paper prints "
        "it; one-cycle: AdamW with a one-cycle rate on images moved by up to a pixel."
    )
    caption += other_data(records)
    return Table("At least 98 % of W_hh by other ways", columns, rows, caption)


def _epochs(records: Sequence[Record]) -> Table:
    constant = [record for record in records if is_one(record, rate="constant")]
    return epochs_table("Epoch by epoch, constant rate", constant, _label)


def _best() -> float:
    return max(test for _, test in TABLE.values())


def _row(label: str, rate: str, own: Sequence[Record]) -> tuple[Cell, ...]:
    cells = (over_seeds(own, metric).text(2, 100) for metric in ("sparsity", "validation", "test"))
    return (label, rate, *cells, len(own), minus_paper(own, _best()))


def _named(what: str, schedule: str) -> str:
    return "magnitude, moved by RigL" if schedule == "rigl" else f"{what}, cubic schedule"


def _label(record: Record) -> str | None:
    task = record.task
    if task["what"] == "printed":
        return "Algorithm 3, constant" if task["tau"] == THRESHOLDS[0] else None
    return f"{_named(task['what'], task['schedule'])}, {percent(task['sparsity'])}, {task['rate']}"


STUDY = LatticeTable2()
