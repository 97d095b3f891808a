"""What share of the edges goes as an asynchronous network grows: parity of more and more bits, and digits of 64 pixels.

The spectral pruning paper sees the share fall with the number of hidden nodes and blames couplings of more than two nodes
(section 5). Here the same networks are pruned by both node rules. An edge can only ever be removed where two nodes act on each
other with opposite signs, which is a quarter of a large random graph; a table has that share beside what went. The control
lacks as many of the edges between nodes that act, taken away at random before training.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jali.data import load
from jali.models.asynchronous import AsynchronousNetwork
from jali.models.asynchronous_values import Floats, SpectralRule
from jali.models.truth_tables import TruthTable, parity
from jali.report.tables import Cell
from jali.studies.argnn_runs import cut_at_random, lost_by, new_network
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

DIGITS = "digits"
SIZES: tuple[tuple[str, int, tuple[int, ...]], ...] = (  # task, inputs shown, hidden nodes
    ("parity of 2", 4000, (2, 5, 10, 20, 40)),
    ("parity of 4", 20000, (5, 10, 20, 40)),
    ("parity of 5", 40000, (10,)),
    ("parity of 6", 40000, (20,)),
    ("parity of 6", 1000, (100,)),
    ("parity of 7", 40000, (20,)),
    ("parity of 8", 4000, (20,)),
    (DIGITS, 4000, (2, 5, 10, 20, 40)),
)
QUICK = (("parity of 3", 100, (2, 4)), (DIGITS, 100, (2,)))
# A third of the published one, by which networks learn parity of four bits and more later and less well.
ERROR_SCALE = 0.05
EVERY = 10  # nodes decide at each such update, once per input: what a decision costs grows with the network
RULES = {
    "D by eigenvector": SpectralRule("directed", "eigenvector", EVERY),
    "D_W by eigenvector": SpectralRule("weighted", "eigenvector", EVERY),
    "D_W": SpectralRule("weighted", "lapack-order", EVERY),
}
CONTROLLED = "D_W by eigenvector"  # the random control loses as many edges as this
RANDOM = "random, as many as D_W by eigenvector"
MODES = ("none", *RULES, RANDOM)
MOST_BY_POSITION = 13  # nodes; LAPACK's order costs the third power of their number at every node


@dataclass(frozen=True)
class Examples:
    """Rows to learn from, and rows to be judged by; of a truth table both are all rows."""

    train: TruthTable
    test: TruthTable

    @property
    def classes(self) -> bool:
        return self.test.y.shape[1] > 1


class ArgnnGrowth(Study):
    name = "argnn-growth"
    title = "Spectral pruning of asynchronous graph networks: larger tasks and networks"
    paper = "N. Bessone, Spectral theory for edge pruning in asynchronous recurrent graph neural networks, section 5"
    default_seeds = 5

    def tasks(self, settings: Settings) -> list[Task]:
        config = {"updates": 10, "every": EVERY, "error_scale": ERROR_SCALE, "seeds": list(settings.seeds)}
        return [
            Task(
                {"task": name, "hidden": hidden, "mode": mode},
                f"{name}, {hidden} hidden, {mode}",
                settings.seeds[0],
                {**config, "inputs": inputs},
            )
            for name, inputs, sizes in (QUICK if settings.quick else SIZES)
            for hidden in sizes
            for mode in MODES
            if mode != "D_W" or _nodes(name, hidden) <= MOST_BY_POSITION
        ]

    def run(self, task: Task, workspace: RecordStore, progress: Progress) -> Record:
        examples = _examples(task.key["task"])
        runs: dict[str, list[float]] = {}
        for k, (seed, network) in enumerate(_networks(task, examples, workspace)):
            progress(f"seed {seed}", k / len(task.config["seeds"]))
            for name, value in _run(network, seed, examples, task).items():
                runs.setdefault(name, []).append(value)
        count = len(task.config["seeds"])
        metrics = {name: Metric(float(np.mean(values)), count) for name, values in runs.items()}
        return task.record(self.name, metrics, data={"runs": runs})

    def summary(self, records: Sequence[Record]) -> list[Table]:
        return [_shares(records), _errors(records), _times(records)] if records else []

    def figures(self, records: Sequence[Record]) -> list[Figure]:
        return [_figure(records)] if records else []


def _nodes(name: str, hidden: int) -> int:
    return 64 + hidden + 10 if name == DIGITS else int(name.rsplit(" ", 1)[1]) + hidden + 1


def _examples(name: str) -> Examples:
    if name != DIGITS:
        table = parity(int(name.rsplit(" ", 1)[1]))
        return Examples(table, table)
    data = load(DIGITS)
    parts = [
        TruthTable(DIGITS, split.x.flatten(1).double().numpy(), np.eye(data.classes)[split.y.numpy()])
        for split in (data.train, data.test)
    ]
    return Examples(*parts)


def _networks(task: Task, examples: Examples, workspace: RecordStore) -> Iterator[tuple[int, AsynchronousNetwork]]:
    """One network per seed; those of the control lack as many edges as the pruned one of the same seed lost."""
    seeds, hidden = task.config["seeds"], task.key["hidden"]
    lost = lost_by(CONTROLLED, task, workspace) if task.key["mode"] == RANDOM else [0.0] * len(seeds)
    for seed, count in zip(seeds, lost, strict=True):
        network = new_network(examples.train, hidden, [seed], error_scale=task.config["error_scale"])
        cut_at_random(network, [count])
        yield seed, network


def _run(network: AsynchronousNetwork, seed: int, examples: Examples, task: Task) -> dict[str, float]:
    updates = task.config["updates"]
    edges, opposed = int(network.adjacency.sum()), _opposed(network.weights[0])
    begin = time.process_time()
    training = network.train(
        *examples.train.draw(task.config["inputs"], seed), updates=updates, rule=RULES.get(task.key["mode"])
    )
    found = {"seconds": time.process_time() - begin, "edges": edges, "opposed": opposed}
    found |= {"removed": len(training.events[0]), "still opposed": _opposed(network.weights[0])}
    found["error"] = float(network.evaluate(examples.test.x, examples.test.y, updates=updates)[0])
    if examples.classes:
        shown = network.respond(examples.test.x, updates=updates)[0]
        found["accuracy"] = float((shown.argmax(axis=1) == examples.test.y.argmax(axis=1)).mean())
    return found


def _opposed(weights: Floats) -> int:
    """Pairs of nodes that act on each other with opposite signs."""
    return int((weights * weights.T < 0).sum()) // 2


# --- tables and figure -------------------------------------------------------------------------------------------------


def _runs(records: Sequence[Record], task: str, hidden: int, mode: str) -> dict[str, list[float]]:
    wanted = {"task": task, "hidden": hidden, "mode": mode}
    return next((record.data["runs"] for record in records if record.task == wanted), {})


def _sizes(records: Sequence[Record]) -> list[tuple[str, int]]:
    return list(dict.fromkeys((record.task["task"], record.task["hidden"]) for record in records))


def _share(runs: dict[str, list[float]], number: str) -> list[float]:
    return [100 * part / whole for part, whole in zip(runs.get(number, []), runs.get("edges", []), strict=True)]


def _shares(records: Sequence[Record]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for task, hidden in _sizes(records):
        none = _runs(records, task, hidden, "none")
        cells = [mean_interval(_share(_runs(records, task, hidden, mode), "removed")).text(1) for mode in RULES]
        edges = int(none["edges"][0]) if none else "–"
        opposed = [mean_interval(_share(none, number)).text(1) for number in ("opposed", "still opposed")]
        rows.append((task, hidden, edges, *cells, *opposed))
    columns = (
        "task",
        "hidden",
        "edges",
        *(f"{mode} (%)" for mode in RULES),
        "opposed at first (%)",
        "opposed at last (%)",
    )
    caption = (
        "Share of the edges removed, mean ± 95 % interval over seeds. Opposed: pairs of nodes that act on each other with "
        "opposite signs, per edge, in the network that is not pruned; only these have complex eigenvalues. D_W without "
        f"eigenvectors, the published code's rule, was run up to {MOST_BY_POSITION} nodes."
    )
    return Table("What share of the edges goes", columns, tuple(rows), caption)


def _errors(records: Sequence[Record]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for task, hidden in _sizes(records):
        number = "accuracy" if task == DIGITS else "error"
        scale, digits = (100, 1) if task == DIGITS else (1, 3)
        found = {mode: _runs(records, task, hidden, mode).get(number, []) for mode in MODES}
        cells = [mean_interval(found[mode]).text(digits, scale) for mode in MODES]
        gains = [_paired(found[CONTROLLED], found[other]).text(digits, scale) for other in ("none", RANDOM)]
        rows.append((f"{task}: {'accuracy (%)' if task == DIGITS else 'error'}", hidden, *cells, *gains))
    caption = (
        "Mean |output − target| over the rows of the table; of digits the accuracy on the test part. Random: a network trained "
        "without as many edges, drawn among those between nodes that act. The last two columns are paired by seed. An error "
        "of 0.5 is a network that has learned nothing."
    )
    columns = ("", "hidden", *MODES, f"{CONTROLLED} − none", f"{CONTROLLED} − random")
    return Table("What is learned", columns, tuple(rows), caption)


def _paired(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    return mean_interval(np.subtract(ours, theirs).tolist() if len(ours) == len(theirs) else [])


def _times(records: Sequence[Record]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for task, hidden in _sizes(records):
        times = [_runs(records, task, hidden, mode).get("seconds", []) for mode in ("none", *RULES)]
        inputs = next(r.config["inputs"] for r in records if (r.task["task"], r.task["hidden"]) == (task, hidden))
        rows.append((task, hidden, inputs, *(f"{np.mean(each):.2f}" if each else "–" for each in times)))
    config: dict[str, Any] = records[-1].config
    caption = (
        f"Seconds of one processor per run, {config['updates']} updates per input, decisions at every {config['every']}th; mean "
        "over runs, compilation in the first."
    )
    return Table("Time of a run", ("task", "hidden", "inputs", "none", *RULES), tuple(rows), caption)


def _figure(records: Sequence[Record]) -> Figure:
    series = []
    for task in dict.fromkeys(task for task, _ in _sizes(records)):
        sizes = [hidden for name, hidden in _sizes(records) if name == task]
        for mode in (CONTROLLED, "D_W"):
            points = [(h, _share(_runs(records, task, h, mode), "removed")) for h in sizes]
            known = [(h, values) for h, values in points if values]
            if len(known) > 1 and (mode == CONTROLLED or task == "parity of 2"):
                series.append({
                    "label": f"{task}, {mode}", "x": [h for h, _ in known], "y": [float(np.mean(v)) for _, v in known],
                })  # fmt: skip
    payload = {"x_label": "hidden nodes", "y_label": "edges removed (%)", "series": series, "log_x": True}
    caption = (
        "Means over seeds of the tasks put to networks of several sizes, which may have seen different numbers of inputs (see "
        "the times). By positions in LAPACK's output (D_W) at most one edge per hidden node can go."
    )
    return Figure("lines", "Share of the edges removed as the network grows", payload, caption)


STUDY = ArgnnGrowth()
