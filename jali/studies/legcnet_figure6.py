"""Figure 6 of the LEGCNet paper: which features matter, dense and pruned, by exact Shapley values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from jali.maths.rank_correlation import rank_correlation
from jali.maths.shapley import Floats, shapley
from jali.report.tables import NONE, Cell
from jali.studies.base import Figure, Record, Table, Task, mean_interval
from jali.studies.legcnet_runs import Runs
from jali.studies.legcnet_settings import PAPER
from jali.studies.legcnet_tables import NAMES, LegcnetStudy, apart, means, sets_of
from jali.studies.legcnet_training import datasets

EXAMPLES, BACKGROUND = 40, 20
VARIANTS = (
    "dense", "FT", "random as FT", "magnitude as FT", "PT", "random as PT", "magnitude as PT", "random 40 %", "magnitude 25 %",
)  # fmt: skip
FEATURES = {
    "cancer": ("clump", "size", "shape", "adhesion", "epithelial", "nuclei", "chromatin", "nucleoli", "mitoses"),
    "banknote": ("variance", "skewness", "kurtosis", "entropy"),
    "titanic": ("class", "sex", "age", "siblings", "parents", "fare"),
}


class LegcnetFigure6(LegcnetStudy):
    name = "legcnet-figure6"
    title = "Importance of the features, dense and pruned"
    paper = f"{PAPER}, Figure 6"
    data = tuple(FEATURES)
    shows = VARIANTS

    def more(self, made: Runs, task: Task) -> dict[str, Any]:
        sets, found = datasets(task.config), []
        for n, (what, seed) in enumerate(zip(made.what, made.seed, strict=True)):
            if what in VARIANTS:
                x = sets[seed].test.x.flatten(1).double().numpy()[:EXAMPLES]
                base = sets[seed].train.x.flatten(1).double().numpy()[:BACKGROUND]
                values = np.abs(shapley(_probability(made, n), x, base)).mean(axis=(0, 2))
                found.append({"what": what, "seed": task.config["seeds"][seed], "importance": values.tolist()})
        return {"importance": found}

    def tables(self, records: Sequence[Record]) -> list[Table]:
        return [_agreement(records)]

    def figures(self, records: Sequence[Record]) -> list[Figure]:
        if not records:
            return []
        return [_agreements(records), *(_importance(records, data) for data in sets_of(records) if data in FEATURES)]


def _probability(made: Runs, n: int) -> Any:
    bank = made.bank.pick([n])

    @torch.no_grad()
    def of(rows: Floats) -> Floats:
        logits = bank(torch.from_numpy(rows).to(bank.weights[0].dtype)[None])[0]
        found = torch.sigmoid(logits) if logits.shape[-1] == 1 else torch.softmax(logits, -1)
        return found.double().numpy()

    return of


def agreement(records: Sequence[Record], data: str, what: str) -> dict[int, list[float | None]]:
    """Seed → rank correlation with its dense network, of every network of that variant."""
    found: dict[int, list[float | None]] = {}
    for record in records:
        if record.task["data"] == data:
            dense = {e["seed"]: e["importance"] for e in record.data["importance"] if e["what"] == "dense"}
            for each in record.data["importance"]:
                if each["what"] == what:
                    found.setdefault(each["seed"], []).append(rank_correlation(dense[each["seed"]], each["importance"]))
    return found


def _alive(found: Iterable[list[float | None]]) -> list[list[float]]:
    """The correlations of each seed's networks in which some feature matters; seeds without one are left out."""
    known = [[value for value in draws if value is not None] for draws in found]
    return [draws for draws in known if draws]


def _agreement(records: Sequence[Record]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for what in VARIANTS[1:]:
        cells: list[Cell] = [what]
        for data in sets_of(records):
            found = agreement(records, data, what).values()
            known = _alive(found)
            text = mean_interval(sum(draws) / len(draws) for draws in known).text(2) if known else NONE
            count, alive = sum(map(len, found)), sum(map(len, known))
            cells.append(text if alive == count else f"{text} ({count - alive} of {count} dead)")
        rows.append(tuple(cells))
    names = tuple(NAMES[data] for data in sets_of(records))
    caption = (
        f"Spearman's correlation of the features' mean |Shapley value| with that of the dense network of the same seed; "
        f"exact values on {EXAMPLES} test examples against {BACKGROUND} training ones. Dead: no feature matters. "
        f"{means(records)}"
    )
    return Table("Figure 6: agreement with the dense network", ("network", *names), tuple(rows), caption)


def _importance(records: Sequence[Record], data: str) -> Figure:
    own = [each for record in records if record.task["data"] == data for each in record.data["importance"]]
    series = []
    for what in ("dense", "FT", "PT", "random as FT", "magnitude as FT", "random 40 %", "magnitude 25 %"):
        alive = np.array([each["importance"] for each in own if each["what"] == what and sum(each["importance"]) > 0])
        if len(alive):
            shares = (alive / alive.sum(axis=1, keepdims=True)).mean(axis=0).tolist()
            series.append({"label": what, "x": list(range(1, len(shares) + 1)), "y": shares})
    payload = {"x_label": "feature", "y_label": "share of the importance", "series": series, "x_names": FEATURES[data]}
    return Figure(
        "lines", f"{NAMES[data]}: importance", payload, "Means over the networks in which any feature matters."
    )


def _agreements(records: Sequence[Record]) -> Figure:
    found = {}
    for data in sets_of(records):
        by_variant = [_alive(agreement(records, data, what).values()) for what in VARIANTS[1:]]
        found[NAMES[data]] = [[float(np.mean(draws)) for draws in seeds] for seeds in by_variant]
    payload = {
        "x_label": "network",
        "y_label": "rank correlation with the dense one",
        **apart(found),
        "x_names": VARIANTS[1:],
    }
    caption = "One point per initialisation; networks in which no feature matters are left out."
    return Figure("scatter", "Agreement of the features' importance", payload, caption)


STUDY = LegcnetFigure6()
