"""Figure 4 of N. Bessone's spectral pruning paper: error and edges removed while XOR is learned.

Beyond it: pruning before and after training, which the paper's section 4.2 names, and messages that are late, lost or out of
order.

Two hidden nodes, 1000 inputs, as in the published code. All modes meet the same runs: the same first weights, inputs and orders.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jali.models.asynchronous_values import Channel, Floats
from jali.models.truth_tables import GATES
from jali.report.tables import Cell
from jali.studies.argnn_runs import MODES, cut_at_random, lost_by, new_network, runs_of, train
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

PERFECT, DURING = "perfect", "during"
CHANNELS = {
    PERFECT: Channel(),
    "delay 3": Channel(delay=3),
    "delay 3, reordered": Channel(3, 0.0, True),
    "loss 30 %": Channel(loss=0.3),
    "delay 3, loss 30 %, reordered": Channel(3, 0.3, True),
}
WHEN = ("before", DURING, "after")
CONTROLS = {mode: f"random, as many as {mode}" for mode in ("D_W", "D_W by eigenvector")}
CONTROLLED = {control: mode for mode, control in CONTROLS.items()}
TABLE = GATES["XOR"]
WINDOW = 10  # inputs that a point of a curve is averaged over, as in the published figure
LAST = 100  # inputs whose errors are the error at the end of training
# From the results published with the code of Figure 4, 5 runs: share of the edges removed at the end; inputs before the first
# removal, in the runs that had one (4 of D, 5 of D_W); mean error of the last 100 inputs.
PAPER = {"D": (1 - 10.4 / 12, 355.75, 0.0437), "D_W": (1 - 10 / 12, 0.0, 0.0638)}


class ArgnnTiming(Study):
    name = "argnn-timing"
    title = "Spectral pruning of asynchronous graph networks: when edges go"
    paper = "N. Bessone, Spectral theory for edge pruning in asynchronous recurrent graph neural networks, Figure 4"
    default_seeds = 10

    def tasks(self, settings: Settings) -> list[Task]:
        config = {"inputs": 100 if settings.quick else 1000, "updates": 10, "seeds": list(settings.seeds), "hidden": 2}
        keys = [(mode, channel, DURING) for channel in CHANNELS for mode in MODES]
        keys += [(mode, PERFECT, when) for when in WHEN for mode in (*MODES, *CONTROLLED)]
        return [
            Task(
                {"mode": mode, "messages": channel, "when": when},
                f"{mode}, {when} training, messages: {channel}",
                settings.seeds[0],
                config,
            )
            for mode, channel, when in dict.fromkeys(keys)
            if mode != "none" or when == DURING
        ]

    def run(self, task: Task, workspace: RecordStore, progress: Progress) -> Record:
        mode, when = task.key["mode"], task.key["when"]
        network = new_network(TABLE, task.config["hidden"], task.config["seeds"], CHANNELS[task.key["messages"]])
        edges, rule = network.adjacency.sum(axis=(1, 2)), MODES.get(mode)
        # A control lacks all its edges from the start where its mode loses them one by one.
        at_rest = "before" if mode in CONTROLLED and when == DURING else when

        def prune() -> None:
            if mode in CONTROLLED:
                cut_at_random(network, lost_by(CONTROLLED[mode], task, workspace))
            elif rule is not None:
                network.prune(rule)

        if at_rest == "before":
            prune()
        training = train(network, TABLE, rule if at_rest == DURING else None, task.config)
        if at_rest == "after":
            prune()
        runs = {
            "error": network.evaluate(TABLE.x, TABLE.y, updates=task.config["updates"]).tolist(),
            "learning error": training.errors[:, -LAST:].mean(axis=1).tolist(),
            "removed": (edges - network.adjacency.sum(axis=(1, 2))).tolist(),
            "edges": edges.tolist(),
        }
        metrics = {name: Metric(float(np.mean(values)), len(values)) for name, values in runs.items()}
        data: dict[str, Any] = {"runs": runs}
        if when == DURING:
            first = [events[0].update / task.config["updates"] for events in training.events if events]
            data["first removal"] = first
            if first:
                metrics["first removal"] = Metric(float(np.mean(first)), len(first), "inputs")
            data["curves"] = {
                "error": _curve(training.errors),
                "removed": _curve(100 * (1 - training.edges / edges[:, None])),
            }
        return task.record(self.name, metrics, data=data)

    def summary(self, records: Sequence[Record]) -> list[Table]:
        return [*_as_in_the_paper(records), _by_time(records), _by_messages(records)] if records else []

    def figures(self, records: Sequence[Record]) -> list[Figure]:
        drawn = [record for record in records if record.task["when"] == DURING and record.task["mode"] in MODES]
        chosen = {"XOR": ("mode", [r for r in drawn if r.task["messages"] == PERFECT])}
        for mode in ("none", "D_W", "D_W by eigenvector"):
            chosen[f"{mode}, by messages"] = ("messages", [r for r in drawn if r.task["mode"] == mode])
        figures = []
        for title, (key, found) in chosen.items():
            for number, label in (("error", "error"), ("removed", "edges removed (%)")):
                if number == "removed" and title.startswith("none"):
                    continue
                series = [{"label": r.task[key], **r.data["curves"][number]} for r in found]
                payload = {"x_label": "inputs shown", "y_label": label, "series": series}
                caption = f"Mean over the runs ± their standard deviation, smoothed over {WINDOW} inputs."
                figures.append(Figure("lines", f"{title}: {label} while it is learned", payload, caption))
        return figures


def _as_in_the_paper(records: Sequence[Record]) -> list[Table]:
    removed, first, learning = [], [], []
    for record in records:
        mode, runs = record.task["mode"], record.data["runs"]
        if mode not in MODES or (record.task["messages"], record.task["when"]) != (PERFECT, DURING):
            continue
        known = PAPER.get(mode, (None, None, None))
        learning.append(Comparison(mode, known[2], mean_interval(runs["learning error"])))
        if mode != "none":
            removed.append(Comparison(mode, known[0], mean_interval(_shares(runs))))
            first.append(Comparison(mode, known[1], mean_interval(record.data["first removal"])))
    shown = f"Pruned during training, {records[0].config['inputs']:,} inputs (the paper: 1,000)."
    return [
        comparison_table("Edges removed at the end", removed, unit="%", scale=100, caption=shown),
        comparison_table(
            "First removal",
            first,
            unit="inputs",
            digits=0,
            caption="Inputs shown before it, in the runs that removed any.",
        ),
        comparison_table(
            "Error at the end of training",
            learning,
            digits=4,
            caption=f"Mean |output − target| over the last {LAST} inputs while the network learns. {shown}",
        ),
    ]


def _by_time(records: Sequence[Record]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for when in WHEN:
        for mode in (*MODES, *CONTROLLED):
            found = _found(records, mode, PERFECT, when)
            if found and (mode != "none" or when == DURING):
                dense = _paired(found, _found(records, "none", PERFECT, DURING))
                random = _paired(found, _found(records, CONTROLS.get(mode, ""), PERFECT, when))
                rows.append((f"{mode}, {when}" if mode != "none" else mode, *_outcome(found), dense, random))
    caption = (
        "XOR; error over its rows at the end, paired by seed. Before and after training nodes decide at rest until none removes "
        "an edge; after it nothing is learned any more. Random: networks that lack as many edges between nodes that act, cut "
        "after training where the mode prunes after it, else before."
    )
    columns = ("", "edges removed (%)", "error", "error − none", "error − random, as many")
    return Table("Pruned before, during or after training", columns, tuple(rows), caption)


def _by_messages(records: Sequence[Record]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for channel in CHANNELS:
        for mode in MODES:
            if found := _found(records, mode, channel, DURING):
                dense = _paired(found, _found(records, "none", channel, DURING))
                sound = _paired(found, _found(records, mode, PERFECT, DURING))
                rows.append((f"{channel}: {mode}", *_outcome(found), dense, sound))
    caption = (
        "XOR, pruned during training; error over its rows, paired by seed. Perfect: every node knows at any time what its "
        "neighbours have. Delay 3: a message takes 0 to 3 updates at random; reordered: an older one that comes later counts."
    )
    columns = ("", "edges removed (%)", "error", "error − none, same messages", "error − same mode, perfect messages")
    return Table("Under bad messages", columns, tuple(rows), caption)


def _found(records: Sequence[Record], mode: str, messages: str, when: str) -> dict[str, list[float]]:
    key = {"mode": mode, "messages": messages, "when": when}
    return {number: runs_of(records, number, **key) for number in ("error", "removed", "edges")}


def _shares(runs: dict[str, list[float]]) -> list[float]:
    return [part / whole for part, whole in zip(runs["removed"], runs["edges"], strict=True)]


def _outcome(runs: dict[str, list[float]]) -> tuple[str, str]:
    return mean_interval(_shares(runs)).text(1, 100), mean_interval(runs["error"]).text(3)


def _paired(ours: dict[str, list[float]], theirs: dict[str, list[float]]) -> str:
    same = len(ours["error"]) == len(theirs["error"])
    interval: Interval = mean_interval(np.subtract(ours["error"], theirs["error"]).tolist() if same else [])
    return interval.text(3)


def _curve(values: Floats) -> dict[str, Any]:
    """Mean and standard deviation over runs ``(R, T)``, smoothed and thinned to some 50 points."""
    smooth = np.stack([np.convolve(run, np.ones(WINDOW) / WINDOW, mode="valid") for run in values])
    every = max(smooth.shape[1] // 50, 1)
    mean, spread = smooth.mean(axis=0)[::every], smooth.std(axis=0)[::every]
    x = (np.arange(smooth.shape[1]) + WINDOW)[::every]
    return {"x": x.tolist(), "y": mean.tolist(), "low": (mean - spread).tolist(), "high": (mean + spread).tolist()}


STUDY = ArgnnTiming()
