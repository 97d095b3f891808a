"""Figures 1 and 2 of N. Bessone's spectral pruning paper: a network before and after, and the eigenvalues at its nodes.

XOR, two hidden nodes, one run per seed. A run is trained at once, and then again in parts that stop at chosen updates, all
removals among them; there the eigenvalues of the arrowhead method are compared with LAPACK's. One run of every rule is kept
whole, for the figures and the stepper: of those that removed most the first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from jali.maths.arrowhead import Complexes
from jali.maths.local_laplacian import Degree, local_laplacian
from jali.models.asynchronous import AsynchronousNetwork
from jali.models.asynchronous_values import Event, SpectralRule
from jali.models.truth_tables import GATES
from jali.report.tables import Cell
from jali.studies.argnn_runs import MODES, new_network
from jali.studies.base import Figure, Metric, Progress, Record, RecordStore, Settings, Study, Table, Task

PAPER = "3→2, 4→3"  # what the paper's example removed, in this order
POINTS = 90  # updates at which a run is looked at, beside those of the removals
EARLY = 0.01  # part of a run: where edges go before, updates are drawn on a logarithmic axis
DIGITS = 4  # of the numbers kept for figures
TABLE = GATES["XOR"]
PRUNING = {mode: rule for mode, rule in MODES.items() if rule is not None}


class ArgnnEigen(Study):
    name = "argnn-eigen"
    title = "Spectral pruning of asynchronous graph networks: one network and its eigenvalues"
    paper = (
        "N. Bessone, Spectral theory for edge pruning in asynchronous recurrent graph neural networks, Figures 1 and 2"
    )
    default_seeds = 10

    def tasks(self, settings: Settings) -> list[Task]:
        config = {"inputs": 60 if settings.quick else 2000, "updates": 10, "hidden": 2, "seeds": list(settings.seeds)}
        return [Task({"mode": mode}, mode, settings.seeds[0], config) for mode in PRUNING]

    def run(self, task: Task, workspace: RecordStore, progress: Progress) -> Record:
        rule, seeds = PRUNING[task.key["mode"]], task.config["seeds"]
        runs = [_run(seed, task.config, rule) for seed in seeds]
        shown = max(runs, key=lambda run: len(run["removed"]))
        compared = sum(run["compared"] for run in runs)
        metrics = {
            "removed": Metric(float(np.mean([len(run["removed"]) for run in runs])), len(runs)),
            "difference from LAPACK": Metric(max(run["difference"] for run in runs), compared),
        }
        per_run = [{name: run[name] for name in ("seed", "removed", "others")} for run in runs]
        return task.record(self.name, metrics, data={"runs": per_run, "shown": shown["seed"], **shown["kept"]})

    def summary(self, records: Sequence[Record]) -> list[Table]:
        return [_what_went(records), _agreement(records)] if records else []

    def figures(self, records: Sequence[Record]) -> list[Figure]:
        return [figure for record in records for figure in (_graph(record), _components(record))]


# --- one run -----------------------------------------------------------------------------------------------------------


def _run(seed: int, config: dict[str, Any], rule: SpectralRule) -> dict[str, Any]:
    """Train twice: at once for the removals, in parts for what the network was at each update of ``_chosen``."""
    x, y = TABLE.draw(config["inputs"], seed)
    updates = config["updates"]
    (events,) = new_network(TABLE, config["hidden"], [seed]).train(x, y, updates=updates, rule=rule).events
    network = new_network(TABLE, config["hidden"], [seed])
    edges = [(int(source), int(target)) for target, source in np.argwhere(network.adjacency[0])]
    at = _chosen(config["inputs"] * updates, events)
    frames, worst, compared, now = [_frame(network, edges, 0, (), _at_rest(network, rule.degree))], 0.0, 0, 0
    for stop in at:
        spectra: Any = None
        while now < stop:  # to the end of this input, over whole inputs, into the last one
            first, done = divmod(now, updates)
            whole = 1 if done or stop - now < updates else (stop - now) // updates
            count = min(updates - done, stop - now)
            rows = slice(first, first + whole)
            spectra = network.train(x[rows], y[rows], updates=count, rule=rule, trace=True).eigenvalues
            now += whole * count
        frames.append(_frame(network, edges, stop, events, spectra[0, -1]))
        difference, count = _difference(network, rule.degree)
        worst, compared = max(worst, difference), compared + count
    kept = {"nodes": _nodes(network), "edges": edges, "at": [0, *at], "frames": frames}
    return {
        "seed": seed,
        "removed": [_name(e) for e in events],
        "others": sum(event.node != event.target for event in events),
        "difference": worst,
        "compared": compared,
        "kept": kept,
    }


def _chosen(last: int, events: Sequence[Event]) -> list[int]:
    """Counts of updates done: dense at the start, where most happens, then evenly; before and after every removal."""
    spread = {
        *np.geomspace(1, last, POINTS // 2).astype(int).tolist(),
        *np.linspace(1, last, POINTS // 2).astype(int).tolist(),
    }
    return sorted(spread | {event.update + k for event in events for k in (0, 1) if event.update + k > 0})


def _frame(
    network: AsynchronousNetwork, edges: Sequence[tuple[int, int]], at: int, events: Sequence[Event], spectra: Complexes
) -> dict[str, Any]:
    """The network after ``at`` updates; ``spectra`` ``(n, n)``: the eigenvalues that each node found in its last turn."""
    weights, alive = network.weights[0], network.adjacency[0]
    own: list[list[list[float]]] = [[] for _ in range(network.nodes)]
    for node in range(network.inputs, network.nodes):
        own[node] = [[_short(value.real), _short(value.imag)] for value in spectra[node]]
    gone = [event for event in events if event.update == at - 1]
    return {
        "label": f"update {at}" if at else "before training",
        "note": "; ".join(f"{_label(e.node)} removed {_name(e)} (imaginary part {e.imaginary:.3g})" for e in gone),
        "removed": [[e.node, _name(e)] for e in gone],
        "weights": [_short(weights[target, source]) if alive[target, source] else None for source, target in edges],
        "values": [_short(value) for value in network.values[0]],
        "eigenvalues": own,
    }


def _at_rest(network: AsynchronousNetwork, degree: Degree) -> Complexes:
    """The eigenvalues at every node as it stands, ``(n, n)``, in LAPACK's order."""
    weights, edges = network.weights[0], network.adjacency[0]
    stars = [local_laplacian(weights, edges, node, degree).matrix() for node in range(network.nodes)]
    return np.linalg.eigvals(np.stack(stars)).astype(np.complex128)


def _difference(network: AsynchronousNetwork, degree: Degree) -> tuple[float, int]:
    """Largest distance of an eigenvalue from LAPACK's, over all nodes that act, and how many there were."""
    from scipy.optimize import linear_sum_assignment

    worst, count = 0.0, 0
    for node in range(network.inputs, network.nodes):
        star = local_laplacian(network.weights[0], network.adjacency[0], node, degree)
        ours = np.zeros(network.nodes, dtype=complex)
        found = star.eigenvalues()
        ours[: len(found)] = found  # nodes outside the neighbourhood have zeros
        apart = np.abs(ours[:, None] - np.linalg.eigvals(star.matrix())[None, :])
        worst, count = max(worst, float(apart[linear_sum_assignment(apart)].max())), count + network.nodes
    return worst, count


def _nodes(network: AsynchronousNetwork) -> list[dict[str, Any]]:
    """Three columns from left to right: inputs, hidden nodes, outputs."""
    columns = (network.inputs, network.hidden, network.outputs)
    places = []
    for column, count in enumerate(columns):
        for k in range(count):
            # Hidden nodes stand aside by turns: no two of them and a third one on a line.
            aside = (0.2 if k % 2 else -0.2) if column == 1 else 0.0
            places.append(
                (column - 1 + aside, 1.0 - 2.0 * (k + 0.5) / count if column != 1 else 1 - 2 * k / max(count - 1, 1))
            )
    return [{"label": _label(node), "x": x, "y": y} for node, (x, y) in enumerate(places)]


def _label(node: int) -> str:
    return f"n{node}"


def _name(event: Event) -> str:
    return f"{event.source}→{event.target}"


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


# --- tables and figures ------------------------------------------------------------------------------------------------


def _what_went(records: Sequence[Record]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for record in records:
        counts = Counter(", ".join(run["removed"]) or "none" for run in record.data["runs"])
        runs = len(record.data["runs"])
        often = "; ".join(f"{edges}: {count}" for edges, count in counts.most_common(3))
        others = (
            f"{sum(r['others'] for r in record.data['runs'])} of {sum(len(r['removed']) for r in record.data['runs'])}"
        )
        rows.append((record.task["mode"], runs, f"{counts[PAPER]} of {runs}", often, others))
    caption = (
        f"XOR, two hidden nodes n2 and n3, output n4. The paper's example removed {PAPER}, in this order. By the code's node "
        "rule, positions in LAPACK's output, these two are the only edges that can ever go. The paper: a node prunes its own "
        "inputs only; by position a node can remove another node's input."
    )
    columns = ("", "runs", "as in the paper", "most frequent", "not by the node whose input it was")
    return Table("Which edges went, in which order", columns, tuple(rows), caption)


def _agreement(records: Sequence[Record]) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (
            r.task["mode"],
            r.metrics["difference from LAPACK"].n,
            f"{r.metrics['difference from LAPACK'].value:.1e}",
            "1e-09",
        )
        for r in records
    ]
    caption = "Largest distance between an eigenvalue of a local Laplacian by the arrowhead method and LAPACK's, all these runs."
    return Table(
        "Eigenvalues beside LAPACK's", ("", "eigenvalues", "largest difference", "limit"), tuple(rows), caption
    )


def _graph(record: Record) -> Figure:
    payload = {name: record.data[name] for name in ("nodes", "edges", "frames")}
    caption = (
        f"The paper's Figure 1, seed {record.data['shown']}: the width of an edge is its weight. Step by step below: the nodes' "
        "values, and the eigenvalues at each node in its last turn; before training those of the first weights."
    )
    return Figure("network", f"{record.task['mode']}: the network before and after", payload, caption)


def _components(record: Record) -> Figure:
    at, frames = record.data["at"], record.data["frames"]
    acting = [i for i, own in enumerate(frames[-1]["eigenvalues"]) if own]
    panels: list[dict[str, Any]] = []
    for node in acting:
        shown = [(x, frame["eigenvalues"][node]) for x, frame in zip(at, frames, strict=True) if x]  # for the log axis
        gone = [
            {"x": x, "label": name}
            for x, frame in zip(at, frames, strict=True)
            for who, name in frame["removed"]
            if who == node
        ]
        for part, name in enumerate(("real", "imaginary")):
            series = [
                {
                    "label": f"position {i}",
                    "x": [x for x, _ in shown],
                    "y": [own[i][part] for _, own in shown],
                    "colour": i,
                }
                for i in range(len(frames[-1]["eigenvalues"]))
            ]
            panels.append({"y_label": f"at n{node}, {name}", "series": series, "marks": gone})
    early = any(mark["x"] < EARLY * at[-1] for panel in panels for mark in panel["marks"])
    payload = {"x_label": "updates", "columns": 2, "panels": panels, "log_x": early}
    caption = (
        f"The paper's Figure 2, seed {record.data['shown']}. Colours: the position of an eigenvalue in LAPACK's output, which "
        "the published code takes for a node. Dashed: this node removed an edge."
    )
    return Figure("traces", f"{record.task['mode']}: eigenvalues at the nodes while they learn", payload, caption)


STUDY = ArgnnEigen()
