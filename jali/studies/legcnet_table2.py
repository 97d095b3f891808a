"""Table 2 of the LEGCNet paper: LEGCNet-FT beside LEGCNet-PT, which prunes by the first epochs of a training."""

from __future__ import annotations

from collections.abc import Sequence

from jali.studies.base import Record, Table, mean_interval
from jali.studies.legcnet_settings import PAPER, SETTINGS, WEIGHTS
from jali.studies.legcnet_table1 import flops, rule, untested
from jali.studies.legcnet_tables import PAPERS, LegcnetStudy, against_paper, by_data, means, removed

OTHER = "PT, causal go"


class LegcnetTable2(LegcnetStudy):
    name = "legcnet-table2"
    title = "LEGCNet-PT: weights pruned by the first epochs"
    paper = f"{PAPER}, Table 2"
    shows = ("dense", "FT", "PT")

    def tables(self, records: Sequence[Record]) -> list[Table]:
        both = ("FT", "PT")
        return [
            _removed(records),
            against_paper("Table 2: accuracy", records, "accuracy", both, 2, 100, "In %. " + means(records), (OTHER,)),
            against_paper("Table 2: macro F1", records, "f1", both, 2, 100, "In %. " + means(records), (OTHER,)),
            against_paper("Table 2: epochs to convergence", records, "epochs", both, 0, 1, rule(), (OTHER,)),
            flops("Table 2: FLOPs", records, both),
        ]


def _removed(records: Sequence[Record]) -> Table:
    columns = {
        "epochs looked at": lambda data: SETTINGS[data].early,
        "windows": lambda data: min(n for r in records if r.task["data"] == data for n in r.data["windows"]["PT"]),
        "removed by PT (%), paper": lambda data: f"{100 * (1 - PAPERS['PT', 'kept'][data] / WEIGHTS[data]):.2f}",
        "removed, ours": lambda data: mean_interval(removed(records, data, "PT")).text(2, 100),
        "causal go, ours": lambda data: mean_interval(removed(records, data, OTHER)).text(2, 100),
        "not testable (%)": lambda data: f"{100 * untested(records, data, 'PT'):.2f}",
    }
    caption = (
        "The epochs are the paper's. They leave few windows for a test of lagged regressions. Weights that cannot be tested "
        f"stay. {means(records)}"
    )
    return by_data("Table 2: what goes", records, columns, caption)


STUDY = LegcnetTable2()
