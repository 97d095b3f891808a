"""Does the causal choice beat a random one? Many seeds, each with its own split, initial weights and order of the examples.

Not in the paper. Random and magnitude remove as many weights of every layer, of the same initial weights, and all are trained
again in the same way, so that differences are paired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np

from jali.maths.granger import corrected
from jali.report.tables import Cell
from jali.studies.base import Figure, Record, Settings, Table, Task, mean_interval
from jali.studies.legcnet_networks import Descent
from jali.studies.legcnet_settings import PAPER, SETTINGS, quick
from jali.studies.legcnet_tables import NAMES, LegcnetStudy, per_seed, sets_of

CHOICES = ("FT", "PT")
OTHERS = ("random as {}", "magnitude as {}", "dense")


class LegcnetVerdict(LegcnetStudy):
    name = "legcnet-verdict"
    title = "Is the causal choice better than chance?"
    paper = f"{PAPER}; a question that it does not ask"
    default_seeds = 20
    data = tuple(name for name in NAMES if name != "mnist")
    shows = ("dense", "FT", "PT", "random as", "magnitude as")

    def tasks(self, settings: Settings) -> list[Task]:
        out = []
        for name in self.data[:1] if settings.quick else self.data:
            full = replace(SETTINGS[name], choices=CHOICES, draws=3, descent=Descent(SETTINGS[name].descent.rate, 100))
            setting = quick(full) if settings.quick else full
            config = {**asdict(setting), "seeds": list(settings.seeds), "splits": "own"}
            out.append(Task({"data": name}, name, settings.seeds[0], config))
        return out

    def tables(self, records: Sequence[Record]) -> list[Table]:
        return [_differences(records, "accuracy", 100), _differences(records, "epochs", 1), _pooled(records)]

    def figures(self, records: Sequence[Record]) -> list[Figure]:
        return [_figure(records, choice) for choice in CHOICES] if records else []


def paired(records: Sequence[Record], data: str, choice: str, other: str, number: str) -> list[float]:
    """The choice's number minus the other's, of every seed that has both.

    Rounded far below one test example: means of draws differ by rounding errors where the networks are as good.
    """
    one, two = (per_seed(records, data, what, number) for what in (choice, other.format(choice)))
    return [round(one[seed] - two[seed], 12) for seed in one if seed in two]


def _differences(records: Sequence[Record], number: str, scale: float) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for data in sets_of(records):
        pairs = [paired(records, data, choice, other, number) for choice in CHOICES for other in OTHERS]
        rows.append((NAMES[data], *(mean_interval(pair).text(2, scale) for pair in pairs)))
    what = {"accuracy": "test accuracy, in points", "epochs": "epochs to convergence"}[number]
    heads = tuple(f"{choice} − {other.format(choice)}" for choice in CHOICES for other in OTHERS)
    count = max((len(per_seed(records, data, "FT", number)) for data in sets_of(records)), default=0)
    caption = (
        f"Differences of {what}, mean ± 95 % interval over {count} seeds (own split, initial weights and order each). "
        "Random: the mean of the draws of a seed."
    )
    return Table(f"Paired differences: {number}", ("data", *heads), tuple(rows), caption)


def _pooled(records: Sequence[Record]) -> Table:
    """All data sets together: each seed of each set is one pair."""
    rows: list[tuple[Cell, ...]] = []
    columns = ("difference", "mean ± 95 %", "better (%)", "worse (%)", "pairs", "p", "p, Holm")
    caption = (
        "Test accuracy, in points. p: Wilcoxon's signed-rank test of no difference, two-sided; p, Holm: corrected for the "
        "number of comparisons in this table."
    )
    for choice in CHOICES:
        for other in OTHERS:
            found = np.array([d for s in sets_of(records) for d in paired(records, s, choice, other, "accuracy")])
            p, share = wilcoxon(found), float(np.mean(found > 0)) if len(found) else 0.0
            lost = float(np.mean(found < 0)) if len(found) else 0.0
            cells = (mean_interval(found).text(2, 100), f"{100 * share:.0f}", f"{100 * lost:.0f}", len(found), p)
            rows.append((f"{choice} − {other.format(choice)}", *cells))
    return Table("All data sets together", columns, with_holm(rows), caption)


def with_holm(rows: Sequence[tuple[Cell, ...]]) -> tuple[tuple[Cell, ...], ...]:
    """Rows that end in a p-value, and that value corrected for their number by Holm's method."""
    values = corrected([float(row[-1] or 0.0) for row in rows])
    return tuple((*row, float(value)) for row, value in zip(rows, values, strict=True))


def wilcoxon(differences: np.ndarray) -> float:
    """Two-sided p of Wilcoxon's signed-rank test; 1 where nothing differs."""
    from scipy.stats import wilcoxon as signed_rank

    return float(signed_rank(differences).pvalue) if np.any(differences) else 1.0


def _figure(records: Sequence[Record], choice: str) -> Figure:
    labels, values, errors = [], [], []
    for data in sets_of(records):
        found = mean_interval(paired(records, data, choice, "random as {}", "accuracy"))
        labels.append(NAMES[data])
        values.append(100 * found.mean)
        errors.append(100 * (found.half or 0.0))
    payload = {
        "y_label": "points of test accuracy above random at the same sparsity", "labels": labels, "values": values,
        "errors": errors, "baseline": 0.0, "baseline_label": "random",
    }  # fmt: skip
    return Figure("bars", f"LEGCNet-{choice} against random", payload, "Mean and 95 % interval, paired by seed.")


STUDY = LegcnetVerdict()
