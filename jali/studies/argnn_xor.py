"""One cell of Figure 3 that ten runs leave open: does D_W remove more edges than D from small networks that learn XOR?

The runs of ``argnn-gates``, which are its first ten, continued to forty. As the ten are what asked for more, the thirty are
also taken alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jali.report.tables import Cell
from jali.studies.argnn_gates import ArgnnGates, paired, verdict
from jali.studies.argnn_runs import runs_of
from jali.studies.base import Figure, Record, Settings, Table, Task, mean_interval

GATE = "XOR"
SHOWN = ("none", "D", "D_W")
HIDDEN = (2, 3)
KNOWN = ArgnnGates.default_seeds  # runs that were known when more were asked for


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
            new = mean_interval(np.subtract(gone[1], gone[0]).tolist()[KNOWN:] if len(gone[0]) == len(gone[1]) else [])
            worse = [paired(records, "error", GATE, hidden, mode, "none").text(3) for mode in ("D", "D_W")]
            removed = (mean_interval(each).text(2) for each in gone)
            rows.append((f"{hidden} hidden", len(gone[0]), *removed, more.text(2), verdict(more), new.text(2), *worse))
        caption = (
            "Edges removed and errors, paired by seed, mean ± 95 % interval. More: the whole interval is above 0. New runs: "
            f"without the first {KNOWN}, which are those of Figure 3."
        )
        columns = (
            "", "runs", "D", "D_W", "D_W − D", "more?", "D_W − D, new runs", "error: D − none", "error: D_W − none",
        )  # fmt: skip
        return [Table("D_W beside D on XOR", columns, tuple(rows), caption)] if rows else []

    def figures(self, records: Sequence[Record]) -> list[Figure]:
        return []


STUDY = ArgnnXor()
