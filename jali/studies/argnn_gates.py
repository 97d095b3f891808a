"""Figure 3 of N. Bessone's spectral pruning paper: logic gates × degree matrix × hidden nodes, error and edges removed.

Beside the paper's two degree matrices by its code's node rule (positions in LAPACK's output) stand the same two by eigenvectors,
from the same seeds: the same first weights, inputs and orders of the nodes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jali.models.asynchronous_values import Floats, Training
from jali.models.truth_tables import GATES
from jali.report.tables import NONE, Cell
from jali.studies.argnn_runs import MODES, cut_at_random, lost_by, new_network, runs_of, train
from jali.studies.base import (
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
    mean_interval,
)

CLOSE = 0.03  # how far an error may be from that without pruning to count as the same
NOISE = 1e-6  # imaginary parts below are rounding: eigenvalues that coincide part by some 1e-8
RANDOM = "random, as many as D_W"
CONTROLLED = "D_W"  # what the random control loses as many edges as
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
        return self.cells(settings, gates, (*MODES, RANDOM), hidden)

    def cells(self, settings: Settings, gates: Sequence[str], modes: Sequence[str], sizes: Sequence[int]) -> list[Task]:
        """A task per gate, mode and number of hidden nodes."""
        config = {"inputs": 300 if settings.quick else 2000, "updates": 10, "seeds": list(settings.seeds)}
        return [
            Task({"gate": gate, "mode": mode, "hidden": h}, f"{gate}, {mode}, {h} hidden", settings.seeds[0], config)
            for gate in gates
            for mode in modes
            for h in sizes
        ]

    def run(self, task: Task, workspace: RecordStore, progress: Progress) -> Record:
        table, hidden, seeds = GATES[task.key["gate"]], task.key["hidden"], task.config["seeds"]
        begin = time.process_time()
        network = new_network(table, hidden, seeds)
        if task.key["mode"] == RANDOM:
            cut_at_random(network, lost_by(CONTROLLED, task, workspace))
        training = train(network, table, MODES.get(task.key["mode"]), task.config)
        metrics, runs = _recorded(training, network.evaluate(table.x, table.y, updates=task.config["updates"]))
        metrics["processor time"] = Metric(time.process_time() - begin, len(seeds), "s")
        return task.record(self.name, metrics, data={"runs": runs})

    def summary(self, records: Sequence[Record]) -> list[Table]:
        if not records:
            return []
        return [
            _errors(records), _removed(records), _agreement(records), _claims(records), _made_of_rounding(records),
            _time(records),
        ]  # fmt: skip

    def figures(self, records: Sequence[Record]) -> list[Figure]:
        gates = list(dict.fromkeys(record.task["gate"] for record in records))
        return [figure for gate in gates for figure in _figures(records, gate)]


def _recorded(training: Training, errors: Floats) -> tuple[dict[str, Metric], dict[str, list[float]]]:
    """Means over the runs, and the numbers of every run."""
    gone = [float(len(events)) for events in training.events]
    runs: dict[str, list[float]] = {
        "error": errors.tolist(),
        "removed": gone,
        "of rounding": [sum(event.imaginary < NOISE for event in events) for events in training.events],
        "edges": (training.edges[:, -1] + gone).tolist(),
    }
    return {name: Metric(float(np.mean(values)), len(values)) for name, values in runs.items()}, runs


# --- tables and figures ----------------------------------------------------------------------------------------------


def _cells(records: Sequence[Record]) -> list[tuple[str, str, int]]:
    return [(r.task["gate"], r.task["mode"], r.task["hidden"]) for r in records]


def _by_size(
    records: Sequence[Record], number: str, paper: Mapping[tuple[str, str], Sequence[float]], digits: int, *without: str
) -> tuple[tuple[str, ...], tuple[tuple[Cell, ...], ...]]:
    """A row per gate and mode, a column per number of hidden nodes: ours, and the paper's in brackets."""
    sizes = sorted({hidden for _, _, hidden in _cells(records)})
    rows: list[tuple[Cell, ...]] = []
    there = dict.fromkeys((gate, mode) for gate, mode, _ in _cells(records) if mode not in without)
    gates = list(dict.fromkeys(gate for gate, _ in there))
    for gate, mode in sorted(there, key=lambda pair: gates.index(pair[0])):  # stable: modes in order
        known, cells = paper.get((gate, mode)), []
        for hidden in sizes:
            ours = mean_interval(runs_of(records, number, gate=gate, mode=mode, hidden=hidden)).text(digits)
            cells.append(ours if known is None else f"{ours} ({known[hidden]:.{digits}f})")
        rows.append((f"{gate}, {mode}", *cells))
    return ("", *(f"{hidden} hidden" for hidden in sizes)), tuple(rows)


def _errors(records: Sequence[Record]) -> Table:
    caption = (
        f"Mean |output − target| over the rows of the gate after {records[0].config['inputs']:,} inputs (the paper: 2,000), "
        "mean ± 95 % interval over the runs; in brackets the paper's mean. Without hidden nodes XOR has no solution. Random: "
        "a network trained without as many of the edges between nodes that act as D_W removed in the run of the same seed."
    )
    return Table("Error after training", *_by_size(records, "error", PAPER_ERROR, 4), caption)


def _removed(records: Sequence[Record]) -> Table:
    caption = (
        "Mean ± 95 % interval over the runs; in brackets the paper's mean. "
        "By the code's node rule, positions in LAPACK's output, only an edge from a node to the one numbered before it can go: "
        "one per hidden node, of (h + 1)(h + 2) edges. The falling share in the paper's Figure 3 is that of this rule."
    )
    return Table("Edges removed", *_by_size(records, "removed", PAPER_REMOVED, 1, "none", RANDOM), caption)


def _agreement(records: Sequence[Record]) -> Table:
    """Only cells with an interval are compared: one run has none."""
    rows: list[tuple[Cell, ...]] = []
    for label, number, paper, digits in (("error", "error", PAPER_ERROR, 4), ("edges", "removed", PAPER_REMOVED, 1)):
        inside, far, where = [], 0.0, NONE
        for gate, mode, hidden in _cells(records):
            if (gate, mode) not in paper:
                continue
            ours = mean_interval(runs_of(records, number, gate=gate, mode=mode, hidden=hidden))
            if ours.half is None:
                continue
            theirs = paper[gate, mode][hidden]
            gap = abs(theirs - ours.mean)
            inside.append(gap <= ours.half + 0.5 * 10.0**-digits)  # the paper's means are rounded
            if not inside[-1] and gap > far:
                far, where = gap, f"{gate}, {mode}, {hidden} hidden: {theirs:.{digits}f} beside {ours.text(digits)}"
        rows.append((label, len(inside), sum(inside), where))
    caption = (
        f"How many of the paper's means lie in our 95 % intervals, after {records[0].config['inputs']:,} inputs (the paper: "
        "2,000). The paper's own spread is not counted."
    )
    return Table("The paper's means", ("", "compared", "in our interval", "farthest outside"), tuple(rows), caption)


def paired(records: Sequence[Record], number: str, gate: str, hidden: int, first: str, second: str) -> Interval:
    """How much more of ``number`` the first mode has than the second, run by run."""
    ours, theirs = (runs_of(records, number, gate=gate, mode=mode, hidden=hidden) for mode in (first, second))
    return mean_interval(np.subtract(ours, theirs).tolist() if len(ours) == len(theirs) else [])


def _claims(records: Sequence[Record]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for gate, hidden in dict.fromkeys((gate, hidden) for gate, _, hidden in _cells(records) if hidden):
        more = paired(records, "removed", gate, hidden, "D_W", "D")
        worse = {
            mode: paired(records, "error", gate, hidden, mode, "none") for mode in (*MODES, RANDOM) if mode != "none"
        }
        close = all(abs(worse[mode].mean) <= CLOSE for mode in ("D", "D_W"))
        verdicts = (verdict(more), _yes(close))
        chance = paired(records, "error", gate, hidden, CONTROLLED, RANDOM)
        errors = (each.text(3) for each in (*worse.values(), chance))
        rows.append((f"{gate}, {hidden} hidden", more.text(2), *verdicts, *errors))
    caption = (
        "Paired by seed, mean ± 95 % interval. The paper: D_W removes consistently more than D, and pruning leaves the error "
        f"as it is. More: the whole interval is above 0. Within {CLOSE:g}: the means of D and D_W."
    )
    columns = (
        "", "edges removed: D_W − D", "more?", f"error within {CLOSE:g}?",
        *(f"error: {mode} − none" for mode in (*MODES, RANDOM) if mode != "none"), "error: D_W − random",
    )  # fmt: skip
    return Table("The paper's claims", columns, tuple(rows), caption)


def verdict(difference: Interval) -> str:
    """Whether a difference is above 0 beyond doubt; one run has no interval and so no verdict."""
    return NONE if difference.half is None else _yes(difference.mean - difference.half > 0)


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"


def _time(records: Sequence[Record]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for label, modes in (
        ("as in the paper", ("none", "D", "D_W")),
        ("by eigenvector", ("D by eigenvector", "D_W by eigenvector")),
    ):
        found = [r.metrics["processor time"] for r in records if r.task["mode"] in modes]
        rows.append((label, sum(metric.n for metric in found), f"{sum(metric.value for metric in found):.0f}"))
    caption = "Sum over all runs, training and evaluation; runs are divided among the processors."
    return Table("Time of the whole figure", ("", "runs", "processor seconds"), tuple(rows), caption)


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
        ("removed", "edges removed", lambda mode: mode not in ("none", RANDOM)),
    )
    figures = []
    for number, label, shown in wanted:
        series = [_series(records, number, gate, mode) for mode in (*MODES, RANDOM) if shown(mode)]
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
