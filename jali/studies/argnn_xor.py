"""One cell of Figure 3 that ten runs leave open: does D_W remove more edges than D from small networks that learn XOR?

The runs of ``argnn-gates``, which are its first ten, continued to forty.
"""

from __future__ import annotations

from collections.abc import Sequence

from jali.report.tables import Cell
from jali.studies.argnn_gates import ArgnnGates, paired, verdict
from jali.studies.argnn_runs import runs_of
from jali.studies.base import Figure, Record, Settings, Table, Task, mean_interval

GATE = "XOR"
SHOWN = ("none", "D", "D_W")
HIDDEN = (2, 3)


class ArgnnXor(ArgnnGates):
    name = "argnn-xor"
    title = "Spectral pruning of asynchronous graph networks: XOR, more runs"
    default_seeds = 40

    def tasks(self, settings: Settings) -> list[Task]:
        return self.cells(settings, (GATE,), SHOWN, HIDDEN)

    def summary(self, records: Sequence[Record]) -> list[Table]:
        rows: list[tuple[Cell, ...]] = []
        for hidden in dict.fromkeys(record.task["hidden"] for record in records):
            gone = [runs_of(records, "removed", gate=GATE, mode=mode, hidden=hidden) for mode in ("D", "D_W")]
            more = paired(records, "removed", GATE, hidden, "D_W", "D")
            worse = [paired(records, "error", GATE, hidden, mode, "none").text(3) for mode in ("D", "D_W")]
            removed = (mean_interval(each).text(2) for each in gone)
            rows.append((f"{hidden} hidden", len(gone[0]), *removed, more.text(2), verdict(more), *worse))
        caption = "Edges removed and errors, paired by seed, mean ± 95 % interval. More: the whole interval is above 0."
        columns = ("", "runs", "D", "D_W", "D_W − D", "more?", "error: D − none", "error: D_W − none")
        return [Table("D_W beside D on XOR", columns, tuple(rows), caption)] if rows else []

    def figures(self, records: Sequence[Record]) -> list[Figure]:
        return []


STUDY = ArgnnXor()
