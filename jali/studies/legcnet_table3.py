"""Table 3 of the LEGCNet paper: random and magnitude pruning, as the paper has them and at the sparsities of LEGCNet."""

from __future__ import annotations

from collections.abc import Sequence

from jali.report.tables import Cell
from jali.studies.base import Record, Table, mean_interval
from jali.studies.legcnet_settings import PAPER, PAPERS_OWN
from jali.studies.legcnet_table1 import rule
from jali.studies.legcnet_tables import NAMES, LegcnetStudy, against_paper, mean_of, means, seeds_text, sets_of
from jali.studies.legcnet_verdict import CHOICES, OTHERS, paired

SAME = tuple(f"{way}{choice}" for choice in ("FT", "PT") for way in ("", "random as ", "magnitude as "))


class LegcnetTable3(LegcnetStudy):
    name = "legcnet-table3"
    title = "Random and magnitude pruning beside LEGCNet"
    paper = f"{PAPER}, Table 3"
    shows = ("dense", "FT", "PT", "random", "magnitude")

    def tables(self, records: Sequence[Record]) -> list[Table]:
        own = tuple(PAPERS_OWN)
        shares = "Random: 40 % of the weights of every layer; magnitude: 25 %, by the trained dense network. "
        epochs = "The paper has one column of epochs, and does not say of which. "
        return [
            against_paper("Table 3: accuracy", records, "accuracy", own, 2, 100, shares + means(records)),
            against_paper("Table 3: macro F1", records, "f1", own, 2, 100, "In %. " + means(records)),
            against_paper("Table 3: epochs to convergence", records, "epochs", own, 0, 1, epochs + rule()),
            _same(records, "accuracy", "At the same sparsity: accuracy", 2, 100),
            _same(records, "f1", "At the same sparsity: macro F1", 2, 100),
            _same(records, "epochs", "At the same sparsity: epochs", 0, 1),
            _differences(records),
        ]


def _same(records: Sequence[Record], number: str, title: str, digits: int, scale: float) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for data in sets_of(records):
        cells = (mean_of(records, data, what, number, digits, scale) for what in ("dense", *SAME))
        rows.append((NAMES[data], *cells))
    caption = (
        "Random and magnitude remove as many weights of every layer as LEGCNet does, of the same initial weights; all are "
        f"trained again in the same way. {means(records)}"
    )
    return Table(title, ("data", "dense", *SAME), tuple(rows), caption)


def _differences(records: Sequence[Record]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for data in sets_of(records):
        pairs = [paired(records, data, choice, other, "accuracy") for choice in CHOICES for other in OTHERS]
        rows.append((NAMES[data], *(mean_interval(pair).text(2, 100) for pair in pairs)))
    heads = tuple(f"{choice} − {other.format(choice)}" for choice in CHOICES for other in OTHERS)
    caption = f"Test accuracy, in points, paired by initialisation: mean ± 95 % interval over {seeds_text(records)}."
    return Table("At the same sparsity: paired differences", ("data", *heads), tuple(rows), caption)


STUDY = LegcnetTable3()
