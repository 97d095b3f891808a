"""Figure 5 of the LEGCNet paper: the spectrum of the first layer on MNIST beside that of the same weights in random order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jali.maths.power_law import eigenvalues
from jali.report.tables import Cell
from jali.studies.base import Figure, Record, Table, Task, mean_interval
from jali.studies.legcnet_runs import Runs
from jali.studies.legcnet_settings import PAPER
from jali.studies.legcnet_tables import LegcnetStudy, means

SHOWN = ("dense", "FT", "PT", "random 40 %", "magnitude 25 %")  # the last two are in the paper's appendix


class LegcnetFigure5(LegcnetStudy):
    name = "legcnet-figure5"
    title = "Spectra of the first layer, trained and shuffled"
    paper = f"{PAPER}, Figure 5"
    data = ("mnist",)
    shows = SHOWN

    def more(self, made: Runs, task: Task) -> dict[str, Any]:
        return {"spectra": [spectrum(made, made.where(what)[0], task.seed) | {"what": what} for what in SHOWN]}

    def tables(self, records: Sequence[Record]) -> list[Table]:
        rows: list[tuple[Cell, ...]] = []
        for what in SHOWN:
            found = [each for record in records for each in record.data["spectra"] if each["what"] == what]
            ratio = mean_interval(each["trained"][0] / each["shuffled"][0] for each in found if each["shuffled"][0] > 0)
            outside = mean_interval(sum(v > each["shuffled"][0] for v in each["trained"]) for each in found)
            rows.append((what, ratio.text(2), outside.text(1)))
        caption = (
            "λ_max: the largest eigenvalue of W₁ᵀW₁, and of the same entries in random order. Eigenvalues above that one are "
            f"order that training made. {means(records)}"
        )
        columns = ("network", "λ_max, trained / shuffled", "eigenvalues above the shuffled ones")
        return [Table("The first layer beside chance", columns, tuple(rows), caption)]

    def figures(self, records: Sequence[Record]) -> list[Figure]:
        return [_figure(each) for each in records[0].data["spectra"] if each["trained"][0] > 0] if records else []


def spectrum(made: Runs, n: int, seed: int) -> dict[str, list[float]]:
    """Eigenvalues of the first layer of network ``n``, and of its entries shuffled, largest first."""
    weight = made.bank.weights[0][n].detach().double().numpy()
    shuffled = np.random.default_rng(seed).permutation(weight.ravel()).reshape(weight.shape)
    return {"trained": eigenvalues(weight).tolist(), "shuffled": eigenvalues(shuffled).tolist()}


def _figure(each: dict[str, Any]) -> Figure:
    top = [value for kind in ("trained", "shuffled") for value in each[kind] if value > 0]
    edges = np.geomspace(min(top) * 0.99, max(top) * 1.01, 24)
    middles = np.sqrt(edges[1:] * edges[:-1]).tolist()
    series = [
        {"label": kind, "x": middles, "y": [float(c) for c in np.histogram(each[kind], edges)[0]]}
        for kind in ("trained", "shuffled")
    ]
    payload = {"x_label": "eigenvalue of WᵀW", "y_label": "eigenvalues per bin", "series": series, "log_x": True}
    return Figure(
        "lines", f"Layer 1, {each['what']}", payload, "One initialisation; bins of equal width in the logarithm."
    )


STUDY = LegcnetFigure5()
