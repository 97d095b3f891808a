"""LEGCNet on recurrent networks, which its paper does not try: is the causal choice better than chance there?

RNN, LSTM and GRU read digits row by row. Random and magnitude remove as many weights of every matrix as LEGCNet does, of
the same initial network, and all are trained again in the same way, so that differences are paired. What the paper takes for
chaos, twins that part, stands beside.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from jali.data import Dataset
from jali.evidence import Trajectory
from jali.plans import Plan
from jali.report.tables import Cell
from jali.studies.base import Figure, Metric, Progress, Record, RecordStore, Settings, Study, Table, Task, mean_interval
from jali.studies.legcnet_recurrent_training import (
    RecurrentRecipe,
    chosen,
    controls,
    descending,
    doubles,
    initial_network,
    recorded,
    retrained,
    weights_of,
)
from jali.studies.legcnet_settings import PAPER, P
from jali.studies.legcnet_tables import mean_of
from jali.studies.legcnet_verdict import OTHERS, paired, wilcoxon, with_holm
from jali.studies.training import accuracy

RATES = {"RNN": 0.03, "LSTM": 0.3, "GRU": 0.3}  # of legcnet-rates the best on the validation part
CHOICES = ("FT", "PT")
OTHER = "FT, causal go"
SHOWN = (
    "dense",
    *(name for choice in CHOICES for name in (choice, f"random as {choice}", f"magnitude as {choice}")),
    OTHER,
)
DELTAS = (1e-4, 1e-6, 1e-8)
Plans = Mapping[str, Plan | None]


class LegcnetRecurrent(Study):
    name = "legcnet-recurrent"
    title = "LEGCNet on RNN, LSTM and GRU"
    paper = f"{PAPER}; networks that it does not try"
    default_seeds = 5

    def tasks(self, settings: Settings) -> list[Task]:
        out = []
        for seed in settings.seeds:
            for cell in list(RATES)[-1 if settings.quick else 0 :]:
                recipe = RecurrentRecipe(RATES[cell]).quick() if settings.quick else RecurrentRecipe(RATES[cell])
                key = {"data": recipe.data, "cell": cell, "seed": seed}
                out.append(Task(key, f"{cell}, seed {seed}", seed, recipe.config()))
        return out

    def run(self, task: Task, workspace: RecordStore, progress: Progress) -> Record:
        recipe = RecurrentRecipe.of(task.config)
        data = doubles(recipe)
        start, train = initial_network(data, recipe, task.key["cell"], task.seed), descending(data, recipe, task.seed)
        progress("twins")
        seen, dense = recorded(start, data, train, recipe, DELTAS[0])
        parts = {"FT": seen, "PT": seen.until(int(recipe.early * seen.iterations)), OTHER: seen}
        plans = {what: chosen(start, part, "causal" if what == OTHER else "non-causal") for what, part in parts.items()}
        runs = [_row(task.seed, "dense", dense, None, data)]
        for what, made in _all(plans, dense, recipe, task.seed):
            progress(what)
            runs.append(_row(task.seed, what, retrained(start, made, dense, train), made, data))
        growth = {DELTAS[0]: seen.distance}
        for delta in DELTAS[1:]:
            progress(f"twins, δ₀ = {delta:g}")
            growth[delta] = recorded(start, data, train, recipe, delta)[0].distance
        found = {
            "runs": runs, "weights": weights_of(start), "windows": {what: len(part) for what, part in parts.items()},
            "tests": {what: _tests(part) for what, part in parts.items()}, "ends": seen.ends.tolist(),
            "growth": [{"delta": delta, "ln": np.log(values / delta).tolist()} for delta, values in growth.items()],
        }  # fmt: skip
        return task.record(self.name, {"dense test": Metric(runs[0]["accuracy"], 1)}, data=found)

    def summary(self, records: Sequence[Record]) -> list[Table]:
        return [_goes(records), _accuracies(records), _differences(records), _growth(records)] if records else []

    def figures(self, records: Sequence[Record]) -> list[Figure]:
        if not records:
            return []
        return [*(_bars(records, choice) for choice in CHOICES), *(_lines(records, cell) for cell in cells_of(records))]


def _all(plans: Plans, dense: nn.Module, recipe: RecurrentRecipe, seed: int) -> Iterator[tuple[str, Plan | None]]:
    """Every pruned variant: the choices, and random and magnitude that remove as many weights of every matrix."""
    for what, made in plans.items():
        yield what, made
        if what in CHOICES:
            yield from controls(made, what, dense, recipe, seed)


def _row(seed: int, what: str, network: nn.Module, made: Plan | None, data: Dataset) -> dict[str, Any]:
    """The test part is read here and nowhere else."""
    removed = 0.0 if made is None else made.sparsity
    return {
        "seed": seed, "what": what, "accuracy": accuracy(network, data.test), "train": accuracy(network, data.train),
        "removed": removed,
    }  # fmt: skip


def _tests(seen: Trajectory) -> dict[str, Any]:
    """Of the weights of all matrices: how many are causal, and how many could not be tested for which reason."""
    matrices = [found for name, found in seen.tests().items() if "weight" in name]
    words = Counter(word for found in matrices for word in found.words if word)
    return {"below p": sum(int((found.p < P).sum()) for found in matrices), "problems": dict(words)}


# --- tables -----------------------------------------------------------------------------------------------------------------


def cells_of(records: Sequence[Record]) -> list[str]:
    """The cells that there are records of."""
    return [cell for cell in RATES if any(record.task["cell"] == cell for record in records)]


def _own(records: Sequence[Record], cell: str) -> list[Record]:
    return [record for record in records if record.task["cell"] == cell]


def _seeds(records: Sequence[Record]) -> int:
    return len({record.seed for record in records})


def _goes(records: Sequence[Record]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for cell in cells_of(records):
        own = _own(records, cell)
        cells: list[Cell] = [cell, own[0].data["weights"]]
        cells += [mean_of(own, own[0].task["data"], what, "removed", 1, 100) for what in (*CHOICES, OTHER)]
        for what in CHOICES:
            shares = [sum(r.data["tests"][what]["problems"].values()) / r.data["weights"] for r in own]
            cells.append(mean_interval(shares).text(1, 100))
        rows.append((*cells, own[0].data["windows"]["FT"], own[0].data["windows"]["PT"]))
    heads = [f"removed by {what} (%)" for what in (*CHOICES, OTHER)] + [f"not testable, {what} (%)" for what in CHOICES]
    caption = f"Weights with p > {P:g} go ({OTHER!r}: those with p < {P:g}). Mean ± 95 % interval over {_seeds(records)} seeds."
    return Table(
        "Recurrent networks: what goes", ("cell", "weights", *heads, "windows, FT", "windows, PT"), tuple(rows), caption
    )


def _accuracies(records: Sequence[Record]) -> Table:
    rows = [
        (cell, *(mean_of(_own(records, cell), _data(records), what, "accuracy", 2, 100) for what in SHOWN))
        for cell in cells_of(records)
    ]
    recipe = RecurrentRecipe.of(records[0].config)
    caption = (
        f"Test accuracy in %, mean ± 95 % interval over {_seeds(records)} seeds. {recipe.hidden} units read "
        f"{recipe.data} row by row; {recipe.epochs} epochs of {recipe.batch} examples. Random and magnitude remove as "
        "many weights of every matrix."
    )
    return Table("Recurrent networks: accuracy", ("cell", *SHOWN), tuple(rows), caption)


def _data(records: Sequence[Record]) -> str:
    return str(records[0].task["data"])


def _pairs(records: Sequence[Record], cell: str, choice: str, other: str) -> list[float]:
    return paired(_own(records, cell), _data(records), choice, other, "accuracy")


def _differences(records: Sequence[Record]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for choice in CHOICES:
        for other in OTHERS:
            each = [_pairs(records, cell, choice, other) for cell in cells_of(records)]
            pooled = [difference for pairs in each for difference in pairs]
            texts = [mean_interval(pairs).text(2, 100) for pairs in (*each, pooled)]
            rows.append((f"{choice} − {other.format(choice)}", *texts, len(pooled), wilcoxon(np.array(pooled))))
    caption = (
        f"Test accuracy, in points, paired by seed: mean ± 95 % interval over {_seeds(records)} seeds, and over all cells and "
        "seeds. Random: the mean of the draws of a seed. p: Wilcoxon's signed-rank test on all, two-sided; p, Holm: corrected "
        "for the six comparisons."
    )
    columns = ("difference", *cells_of(records), "all", "pairs", "p", "p, Holm")
    return Table("Recurrent networks: paired differences", columns, with_holm(rows), caption)


def _curves(records: Sequence[Record], cell: str, delta: float) -> np.ndarray:
    """ln(‖Δw‖ / δ₀) at the end of each window, (seeds, D)."""
    return np.array([g["ln"] for r in _own(records, cell) for g in r.data["growth"] if g["delta"] == delta])


def _growth(records: Sequence[Record]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for cell in cells_of(records):
        ends = np.array(_own(records, cell)[0].data["ends"])
        cells: list[Cell] = [cell, *(mean_interval(_curves(records, cell, delta)[:, -1]).text(2) for delta in DELTAS)]
        least = _curves(records, cell, DELTAS[-1])
        middle = len(ends) // 2
        halves = (least[:, middle] / ends[middle], (least[:, -1] - least[:, middle]) / (ends[-1] - ends[middle]))
        rows.append((*cells, *(mean_interval(1e3 * half).text(2) for half in halves)))
    columns = (
        "cell", *(f"ln(‖Δw‖/δ₀), δ₀ = {delta:g}" for delta in DELTAS), "exponent, first half (per 1 000)",
        "second half (per 1 000)",
    )  # fmt: skip
    caption = (
        "Twins that differ by δ₀ in one recurrent weight, at the end of the training; mean ± 95 % interval over "
        f"{_seeds(records)} seeds. Exponents at δ₀ = {DELTAS[-1]:g}."
    )
    return Table("Recurrent networks: growth of the twins' distance", columns, tuple(rows), caption)


# --- figures ----------------------------------------------------------------------------------------------------------------


def _bars(records: Sequence[Record], choice: str) -> Figure:
    found = [mean_interval(_pairs(records, cell, choice, "random as {}")) for cell in cells_of(records)]
    payload = {
        "y_label": "points of test accuracy above random at the same sparsity", "labels": cells_of(records),
        "values": [100 * each.mean for each in found], "errors": [100 * (each.half or 0.0) for each in found],
        "baseline": 0.0, "baseline_label": "random",
    }  # fmt: skip
    return Figure(
        "bars", f"Recurrent networks: {choice} against random", payload, "Mean and 95 % interval, paired by seed."
    )


def _lines(records: Sequence[Record], cell: str) -> Figure:
    ends, series = _own(records, cell)[0].data["ends"], []
    for delta in DELTAS:
        curves = _curves(records, cell, delta)
        low, high = curves.min(axis=0).tolist(), curves.max(axis=0).tolist()
        middle = np.median(curves, axis=0).tolist()
        series.append({"label": f"δ₀ = {delta:g}", "x": ends, "y": middle, "low": low, "high": high})
    payload = {"x_label": "iterations", "y_label": "ln(‖Δw‖ / δ₀)", "series": series}
    return Figure(
        "lines",
        f"{cell}: distance of the twins",
        payload,
        "Median and range over the seeds. Curves that coincide hide each other.",
    )


STUDY = LegcnetRecurrent()
