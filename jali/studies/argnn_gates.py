"""Figure 3 of N. Bessone's spectral pruning paper: logic gates × degree matrix × hidden nodes, error and edges removed.

Beside the paper's two degree matrices by its code's node rule (positions in LAPACK's output) stand the same two by eigenvectors,
from the same seeds: the same first weights, inputs and orders of the nodes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jali.models.asynchronous import AsynchronousNetwork
from jali.models.asynchronous_values import Channel, SpectralRule, Training
from jali.models.truth_tables import GATES, TruthTable
from jali.report.tables import Cell
from jali.studies.base import (
    Comparison,
    Figure,
    Interval,
    Metric,
    Progress,
    Record,
    RecordStore,
    Settings,
    Study,
    Table,
    Task,
    comparison_table,
    mean_interval,
)

NOISE = 1e-6  # imaginary parts below are rounding: eigenvalues that coincide part by some 1e-8
MODES: dict[str, SpectralRule | None] = {
    "none": None,
    "D": SpectralRule("directed", "lapack-order"),
    "D_W": SpectralRule("weighted", "lapack-order"),
    "D by eigenvector": SpectralRule("directed", "eigenvector"),
    "D_W by eigenvector": SpectralRule("weighted", "eigenvector"),
}
HIDDEN = (0, 1, 2, 3, 4, 5)
# Means over 10 runs in the results that the author published with the code of Figure 3: gate, mode → per number of hidden nodes.
PAPER_REMOVED = {
    ("AND", "D"): (0, 1, 1.2, 1.6, 2.6, 3.9), ("AND", "D_W"): (0, 1, 1.9, 2.8, 3.7, 4.9),
    ("OR", "D"): (0, 1, 0, 1, 2, 3), ("OR", "D_W"): (0, 1, 1.7, 2.5, 3.8, 4.7),
    ("XOR", "D"): (0, 1, 1.8, 2.5, 2.9, 3.6), ("XOR", "D_W"): (0, 1, 2, 2.8, 4, 4.9),
}  # fmt: skip
PAPER_ERROR = {
    ("AND", "none"): (0.5032, 0.0700, 0.0120, 0.0057, 0.0042, 0.0118),
    ("AND", "D"): (0.4984, 0.0322, 0.0070, 0.0072, 0.0035, 0.0039),
    ("AND", "D_W"): (0.4977, 0.0321, 0.0049, 0.0040, 0.0051, 0.0037),
    ("OR", "none"): (0.1257, 0.0026, 0.0006, 0.0006, 0.0006, 0.0007),
    ("OR", "D"): (0.1257, 0.0021, 0.0006, 0.0005, 0.0007, 0.0008),
    ("OR", "D_W"): (0.1257, 0.0021, 0.0009, 0.0005, 0.0006, 0.0008),
    ("XOR", "none"): (0.4947, 0.3896, 0.0615, 0.0420, 0.0357, 0.0324),
    ("XOR", "D"): (0.5019, 0.3905, 0.0527, 0.0397, 0.0321, 0.0312),
    ("XOR", "D_W"): (0.4880, 0.4150, 0.0842, 0.0410, 0.0302, 0.0310),
}


class ArgnnGates(Study):
    name = "argnn-gates"
    title = "Spectral pruning of asynchronous graph networks: logic gates"
    paper = (
        "N. Bessone, Spectral theory for edge pruning in asynchronous recurrent graph neural networks, Figure 3; the paper's "
        "figures are those of its published code"
    )
    default_seeds = 10

    def tasks(self, settings: Settings) -> list[Task]:
        gates, hidden = (("XOR",), (0, 2, 3)) if settings.quick else (tuple(GATES), HIDDEN)
        config = {"inputs": 300 if settings.quick else 2000, "updates": 10, "seeds": list(settings.seeds)}
        return [
            Task({"gate": gate, "mode": mode, "hidden": h}, f"{gate}, {mode}, {h} hidden", settings.seeds[0], config)
            for gate in gates
            for mode in MODES
            for h in hidden
        ]

    def run(self, task: Task, workspace: RecordStore, progress: Progress) -> Record:
        begin = time.process_time()
        network = new_network(GATES[task.key["gate"]], task.key["hidden"], task.config["seeds"])
        training, errors = trained(network, GATES[task.key["gate"]], MODES[task.key["mode"]], task.config)
        metrics, runs = recorded(training, errors)
        metrics["processor time"] = Metric(time.process_time() - begin, len(training.events), "s")
        return task.record(self.name, metrics, data={"runs": runs})

    def summary(self, records: Sequence[Record]) -> list[Table]:
        if not records:
            return []
        return [_errors(records), _removed(records), _claims(records), _made_of_rounding(records)]

    def figures(self, records: Sequence[Record]) -> list[Figure]:
        gates = list(dict.fromkeys(record.task["gate"] for record in records))
        return [figure for gate in gates for figure in _figures(records, gate)]


def new_network(
    table: TruthTable, hidden: int, seeds: Sequence[int], channel: Channel | None = None
) -> AsynchronousNetwork:
    """One run per seed, of the size that the table needs."""
    return AsynchronousNetwork(table.x.shape[1], hidden, table.y.shape[1], seeds=seeds, channel=channel)


def trained(
    network: AsynchronousNetwork, table: TruthTable, rule: SpectralRule | None, config: dict[str, Any]
) -> tuple[Training, np.ndarray]:
    """Train every run on its own random rows, and the mean error of each over the rows of the table ``(R,)``."""
    x, y = (
        np.stack(part) for part in zip(*(table.draw(config["inputs"], seed) for seed in network.seeds), strict=True)
    )
    training = network.train(x, y, updates=config["updates"], rule=rule)
    return training, network.evaluate(table.x, table.y, updates=config["updates"])


def recorded(training: Training, errors: np.ndarray) -> tuple[dict[str, Metric], dict[str, list[float]]]:
    """Means over the runs, and the numbers of every run."""
    runs = {
        "error": errors.tolist(),
        "removed": [len(events) for events in training.events],
        "of rounding": [sum(event.imaginary < NOISE for event in events) for events in training.events],
        "edges": (training.edges[:, -1] + [len(events) for events in training.events]).tolist(),
    }
    metrics = {name: Metric(float(np.mean(values)), len(values)) for name, values in runs.items()}
    return metrics, runs


# --- tables and figures ----------------------------------------------------------------------------------------------


def runs_of(records: Sequence[Record], number: str, **key: Any) -> list[float]:
    """That number of every run of the record with this key; empty where there is none."""
    for record in records:
        if all(record.task.get(name) == value for name, value in key.items()):
            return list(record.data["runs"][number])
    return []


def _cells(records: Sequence[Record]) -> list[tuple[str, str, int]]:
    return [(r.task["gate"], r.task["mode"], r.task["hidden"]) for r in records]


def _compared(
    records: Sequence[Record], number: str, paper: Mapping[tuple[str, str], Sequence[float]]
) -> list[Comparison]:
    lines = []
    for gate, mode, hidden in _cells(records):
        known = paper.get((gate, mode))
        ours = mean_interval(runs_of(records, number, gate=gate, mode=mode, hidden=hidden))
        lines.append(Comparison(f"{gate}, {mode}, {hidden} hidden", None if known is None else known[hidden], ours))
    return lines


def _errors(records: Sequence[Record]) -> Table:
    caption = (
        "Mean |output − target| over the rows of the gate after training. Without hidden nodes XOR has no solution."
    )
    return comparison_table("Error after training", _compared(records, "error", PAPER_ERROR), digits=4, caption=caption)


def _removed(records: Sequence[Record]) -> Table:
    lines = [line for line in _compared(records, "removed", PAPER_REMOVED) if ", none," not in line.label]
    caption = (
        "By the code's node rule, positions in LAPACK's output, only an edge from a node to the one numbered before it can go: "
        "one per hidden node, of (h + 1)(h + 2) edges. The falling share in the paper's Figure 3 is that of this rule."
    )
    return comparison_table("Edges removed", lines, caption=caption)


def _paired(records: Sequence[Record], number: str, gate: str, hidden: int, first: str, second: str) -> Interval:
    ours, theirs = (runs_of(records, number, gate=gate, mode=mode, hidden=hidden) for mode in (first, second))
    return mean_interval(np.subtract(ours, theirs).tolist() if len(ours) == len(theirs) else [])


def _claims(records: Sequence[Record]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for gate, hidden in dict.fromkeys((gate, hidden) for gate, _, hidden in _cells(records)):
        for rule in ("", " by eigenvector"):
            more = _paired(records, "removed", gate, hidden, f"D_W{rule}", f"D{rule}")
            worse = [_paired(records, "error", gate, hidden, f"{mode}{rule}", "none") for mode in ("D", "D_W")]
            rows.append((f"{gate}, {hidden} hidden{rule}", more.text(2), *(each.text(4) for each in worse)))
    caption = (
        "Paired by seed, mean ± 95 % interval. The paper: D_W removes consistently more than D, and pruning leaves the error "
        "as it is."
    )
    columns = ("", "edges removed: D_W − D", "error: D − none", "error: D_W − none")
    return Table("The paper's claims", columns, tuple(rows), caption)


def _made_of_rounding(records: Sequence[Record]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for gate, mode, hidden in _cells(records):
        removed = sum(runs_of(records, "removed", gate=gate, mode=mode, hidden=hidden))
        noise = sum(runs_of(records, "of rounding", gate=gate, mode=mode, hidden=hidden))
        if noise:
            rows.append((f"{gate}, {mode}, {hidden} hidden", int(removed), int(noise)))
    caption = (
        f"Edges removed in all runs, and those of them where the imaginary part a of equation 7 is below {NOISE:g}. With D all "
        "neighbours have the degree 2: from three hidden nodes on that is a multiple eigenvalue, real and exact, which LAPACK's "
        "rounding parts into conjugate pairs."
    )
    return Table("Pruned by rounding", ("", "removed", "by rounding"), tuple(rows), caption)


def _figures(records: Sequence[Record], gate: str) -> list[Figure]:
    wanted: tuple[tuple[str, str, Callable[[str], bool]], ...] = (
        ("error", "mean error", lambda mode: True),
        ("removed", "edges removed", lambda mode: mode != "none"),
    )
    figures = []
    for number, label, shown in wanted:
        series = [_series(records, number, gate, mode) for mode in MODES if shown(mode)]
        payload = {"x_label": "hidden nodes", "y_label": label, "series": [s for s in series if s["x"]], "apart": True}
        caption = "Means and standard deviations over the runs, as in the paper's Figure 3."
        figures.append(Figure("scatter", f"{gate}: {label}", payload, caption))
    share = [_series(records, "removed", gate, mode, of_edges=True) for mode in MODES if mode != "none"]
    payload = {"x_label": "hidden nodes", "y_label": "edges removed (%)", "series": [s for s in share if s["x"]]}
    return [*figures, Figure("scatter", f"{gate}: share of the edges removed", payload | {"apart": True}, "As above.")]


def _series(records: Sequence[Record], number: str, gate: str, mode: str, of_edges: bool = False) -> dict[str, Any]:
    x, y, error = [], [], []
    for hidden in sorted({h for g, m, h in _cells(records) if (g, m) == (gate, mode)}):
        values = np.array(runs_of(records, number, gate=gate, mode=mode, hidden=hidden))
        if of_edges:
            values = 100 * values / runs_of(records, "edges", gate=gate, mode=mode, hidden=hidden)
        x.append(hidden)
        y.append(float(values.mean()))
        error.append(float(values.std()))
    return {"label": mode, "x": x, "y": y, "error": error}


STUDY = ArgnnGates()
