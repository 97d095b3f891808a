"""Table 4 of the LEGCNet paper: power-law exponents of the spectra of the layers on MNIST, as WeightWatcher defines them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jali.errors import DataError
from jali.maths.power_law import weighted_alpha
from jali.report.tables import NONE, Cell
from jali.studies.base import Figure, Record, Table, Task, mean_interval
from jali.studies.legcnet_runs import Runs
from jali.studies.legcnet_settings import PAPER
from jali.studies.legcnet_tables import LegcnetStudy, apart, means

PAPERS_ALPHA = {  # variant → (α, α-weighted) of each layer
    "dense": ((2.19, 1.63), (1.51, 1.88), (1.94, 2.76)),
    "FT": ((2.24, 1.64), (1.51, 1.83), (2.29, 3.20)),
    "PT": ((2.19, 1.71), (1.51, 1.85), (2.73, 3.87)),
    "random 40 %": ((2.30, 1.53), (1.70, 1.95), (2.00, 2.84)),
    "magnitude 25 %": ((2.19, 1.63), (1.55, 1.85), (1.96, 2.78)),
}
BESIDE = ("random as FT", "magnitude as FT", "random as PT", "magnitude as PT")


class LegcnetTable4(LegcnetStudy):
    name = "legcnet-table4"
    title = "Power-law exponents of the layers' spectra"
    paper = f"{PAPER}, Table 4"
    data = ("mnist",)
    shows = (*PAPERS_ALPHA, *BESIDE)

    def more(self, made: Runs, task: Task) -> dict[str, Any]:
        wanted = [n for n, what in enumerate(made.what) if what in self.shows]
        return {"alpha": [{"what": made.what[n], "layers": layers_of(made, n)} for n in wanted]}

    def tables(self, records: Sequence[Record]) -> list[Table]:
        return [_table(records)]

    def figures(self, records: Sequence[Record]) -> list[Figure]:
        return [_figure(records, k) for k in range(2)] if records else []


def layers_of(made: Runs, n: int) -> list[list[float] | None]:
    """(α, α-weighted) of each layer of network ``n``; None where its spectrum has too few values."""
    out: list[list[float] | None] = []
    for weight in made.bank.weights:
        try:
            out.append(list(weighted_alpha(weight[n].detach().double().numpy())))
        except DataError:
            out.append(None)
    return out


def _table(records: Sequence[Record]) -> Table:
    depth = max(len(each["layers"]) for record in records for each in record.data["alpha"])
    rows: list[tuple[Cell, ...]] = []
    for what in LegcnetTable4.shows:
        cells: list[Cell] = [what]
        for layer in range(depth):
            for k in range(2):
                known = PAPERS_ALPHA.get(what)
                found = [e["layers"][layer] for r in records for e in r.data["alpha"] if e["what"] == what]
                ours = mean_interval(each[k] for each in found if each is not None)
                paper = NONE if known is None or layer >= len(known) else f"{known[layer][k]:.2f}"
                cells += [paper, ours.text(2) + ("" if None not in found else f" ({found.count(None)} undefined)")]
        rows.append(tuple(cells))
    heads = [
        f"layer {i + 1} {name}, {whose}" for i in range(depth) for name in ("α", "α_w") for whose in ("paper", "ours")
    ]
    caption = (
        "α by Clauset, Shalizi and Newman's method on the eigenvalues of WᵀW, α_w = α log₁₀ λ_max. The last layer has ten "
        "eigenvalues. Undefined: fewer than three that differ from 0, as in a layer that lost nearly all weights. "
        f"{means(records)}"
    )
    return Table("Table 4: exponents of the spectra", ("network", *heads), tuple(rows), caption)


def _figure(records: Sequence[Record], k: int) -> Figure:
    """α (``k`` = 0) or α-weighted (1) of every layer, the paper's variants."""
    found = {}
    for what in PAPERS_ALPHA:
        layers = zip(
            *(e["layers"] for record in records for e in record.data["alpha"] if e["what"] == what), strict=True
        )
        found[what] = [[pair[k] for pair in layer if pair is not None] for layer in layers]
    names = [str(layer + 1) for layer in range(max(map(len, found.values())))]
    payload = {"x_label": "layer", "y_label": ("α", "α-weighted")[k], **apart(found), "x_names": names}
    title = ("Exponents of the spectra", "Weighted exponents of the spectra")[k]
    return Figure("scatter", title, payload, "One point per initialisation.")


STUDY = LegcnetTable4()
