"""Figure 4 of N. Bessone's spectral pruning paper: error and edges removed while XOR is learned; and the same under bad messages.

Two hidden nodes, 1000 inputs, as in the published code. Beyond the paper: the rule by eigenvectors, and messages that are late,
lost or out of order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jali.models.asynchronous_values import Channel
from jali.models.truth_tables import GATES
from jali.studies.argnn_gates import MODES, new_network, recorded, trained
from jali.studies.base import (
    Comparison,
    Figure,
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

CHANNELS = {
    "perfect": Channel(),
    "delay 3": Channel(delay=3),
    "loss 30 %": Channel(loss=0.3),
    "delay 3, loss 30 %, reordered": Channel(3, 0.3, True),
}
WINDOW = 10  # inputs that a point of a curve is averaged over, as in the published figure
# Share of the edges removed at the end, means of 5 runs in the results published with the code of Figure 4 (XOR, 2 hidden).
PAPER = {"D": 1 - 10.4 / 12, "D_W": 1 - 10 / 12}


class ArgnnTiming(Study):
    name = "argnn-timing"
    title = "Spectral pruning of asynchronous graph networks: when edges go"
    paper = "N. Bessone, Spectral theory for edge pruning in asynchronous recurrent graph neural networks, Figure 4"
    default_seeds = 10

    def tasks(self, settings: Settings) -> list[Task]:
        config = {"inputs": 100 if settings.quick else 1000, "updates": 10, "seeds": list(settings.seeds), "hidden": 2}
        modes = [mode for mode in MODES if mode != "none"]
        pairs = [(mode, "perfect") for mode in modes]
        pairs += [
            (mode, channel) for mode in ("D_W", "D_W by eigenvector") for channel in CHANNELS if channel != "perfect"
        ]
        return [
            Task({"mode": mode, "messages": channel}, f"{mode}, messages: {channel}", settings.seeds[0], config)
            for mode, channel in pairs
        ]

    def run(self, task: Task, workspace: RecordStore, progress: Progress) -> Record:
        network = new_network(GATES["XOR"], task.config["hidden"], task.config["seeds"], CHANNELS[task.key["messages"]])
        training, errors = trained(network, GATES["XOR"], MODES[task.key["mode"]], task.config)
        metrics, runs = recorded([(training, errors)])
        share = 1 - training.edges / np.array(runs["edges"])[:, None]
        first = [events[0].update / task.config["updates"] if events else None for events in training.events]
        happened = [value for value in first if value is not None]
        if happened:
            metrics["first removal"] = Metric(float(np.mean(happened)), len(happened), "inputs")
        curves = {"error": _curve(training.errors), "removed": _curve(100 * share)}
        return task.record(self.name, metrics, data={"runs": runs, "curves": curves, "first removal": first})

    def summary(self, records: Sequence[Record]) -> list[Table]:
        removed, first, errors = [], [], []
        for record in records:
            runs, label = record.data["runs"], f"{record.task['mode']}, {record.task['messages']}"
            share = mean_interval(np.divide(runs["removed"], runs["edges"]).tolist())
            known = PAPER.get(record.task["mode"]) if record.task["messages"] == "perfect" else None
            removed.append(Comparison(label, known, share))
            happened = [value for value in record.data["first removal"] if value is not None]
            first.append(Comparison(label, None, mean_interval(happened)))
            errors.append(Comparison(label, None, mean_interval(runs["error"])))
        caption = "Messages perfect: every node knows at any time what its neighbours have; the paper's case."
        return [
            comparison_table("Edges removed at the end", removed, unit="%", scale=100, caption=caption),
            comparison_table(
                "First removal",
                first,
                unit="inputs",
                digits=0,
                caption="Inputs shown before it, in the runs that removed any.",
            ),
            comparison_table(
                "Error, by timing and messages",
                errors,
                digits=4,
                caption="Mean |output − target| over the rows of XOR.",
            ),
        ]

    def figures(self, records: Sequence[Record]) -> list[Figure]:
        figures = []
        paper = [record for record in records if record.task["messages"] == "perfect"]
        bad = [record for record in records if record.task["mode"] == "D_W by eigenvector"]
        for title, chosen, key in (("XOR", paper, "mode"), ("D_W by eigenvector under bad messages", bad, "messages")):
            for number, label in (("error", "error"), ("removed", "edges removed (%)")):
                series = [{"label": r.task[key], **r.data["curves"][number]} for r in chosen]
                payload = {"x_label": "inputs shown", "y_label": label, "series": series}
                caption = f"Mean over the runs ± their standard deviation, smoothed over {WINDOW} inputs."
                figures.append(Figure("lines", f"{title}: {label} while it is learned", payload, caption))
        return figures


def _curve(values: np.ndarray) -> dict[str, Any]:
    """Mean and standard deviation over runs ``(R, T)``, smoothed and thinned to some 50 points."""
    smooth = np.stack([np.convolve(run, np.ones(WINDOW) / WINDOW, mode="valid") for run in values])
    every = max(smooth.shape[1] // 50, 1)
    mean, spread = smooth.mean(axis=0)[::every], smooth.std(axis=0)[::every]
    x = (np.arange(smooth.shape[1]) + WINDOW)[::every]
    return {"x": x.tolist(), "y": mean.tolist(), "low": (mean - spread).tolist(), "high": (mean + spread).tolist()}


STUDY = ArgnnTiming()
