"""What the tables of the LEGCNet studies share: the paper's numbers, one record per data set, and cells from records."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from jali.report.tables import NONE, Cell
from jali.studies.base import Metric, Progress, Record, RecordStore, Settings, Study, Table, Task, mean_interval
from jali.studies.legcnet_networks import classes_of
from jali.studies.legcnet_runs import Runs, runs
from jali.studies.legcnet_settings import WEIGHTS, tasks_of
from jali.studies.legcnet_training import datasets

NAMES = {
    "cancer": "Cancer", "titanic": "Titanic", "banknote": "Banknote", "iris": "Iris", "iris-3": "Iris (3 features)",
    "vowel": "Vowel", "mnist": "MNIST",
}  # fmt: skip
# The paper's Tables 1 to 3: variant → number → one per data set, in the order of NAMES.
_EPOCHS, _ACCURACY, _F1, _KEPT = "epochs", "accuracy", "f1", "kept"
_ROWS: dict[str, dict[str, tuple[float, ...]]] = {
    "dense": {
        _EPOCHS: (70, 43, 9, 182, 139, 36, 27), _ACCURACY: (0.8759, 0.7225, 0.9018, 0.9, 0.9, 0.7462, 0.9121),
        _F1: (0.8656, 0.6948, 0.9016, 0.9124, 0.9330, 0.7307, 0.8669), _KEPT: tuple(WEIGHTS.values()),
    },
    "FT": {
        _EPOCHS: (38, 20, 7, 166, 126, 14, 30), _ACCURACY: (0.8686, 0.7177, 0.8909, 0.9, 0.9, 0.7538, 0.9165),
        _F1: (0.8570, 0.6843, 0.8906, 0.9419, 0.9040, 0.7400, 0.8781), _KEPT: (54, 52, 36, 40, 26, 34, 40861),
    },
    "PT": {
        _EPOCHS: (24, 36, 6, 173, 135, 20, 29), _ACCURACY: (0.8759, 0.7249, 0.8945, 0.9, 0.9333, 0.7538, 0.9152),
        _F1: (0.8643, 0.6969, 0.8943, 0.9124, 0.9330, 0.7441, 0.8408), _KEPT: (42, 29, 37, 40, 28, 28, 40867),
    },
    "random 40 %": {
        _EPOCHS: (42, 35, 6, 179, 160, 28, 31), _ACCURACY: (0.8759, 0.7201, 0.8945, 0.9, 0.9, 0.7462, 0.9119),
        _F1: (0.8656, 0.6842, 0.8943, 0.9124, 0.9330, 0.7229, 0.8627),
    },
    "magnitude 25 %": {
        _ACCURACY: (0.8905, 0.7201, 0.9018, 0.9, 0.9333, 0.7462, 0.9121),
        _F1: (0.8814, 0.6906, 0.9015, 0.9124, 0.9330, 0.7307, 0.8669),
    },
}  # fmt: skip
PAPERS: dict[tuple[str, str], dict[str, float]] = {
    (what, number): dict(zip(NAMES, values, strict=True))
    for what, numbers in _ROWS.items()
    for number, values in numbers.items()
}
LOWER_IS_BETTER = ("epochs",)


class LegcnetStudy(Study):
    """Trains, or finds, the networks of every data set, and records those variants that it shows."""

    default_seeds = 5
    data: ClassVar[tuple[str, ...]] = tuple(NAMES)
    shows: ClassVar[tuple[str, ...]]  # a variant's name, or how it begins

    def tasks(self, settings: Settings) -> list[Task]:
        return tasks_of(settings, self.data)

    def run(self, task: Task, workspace: RecordStore, progress: Progress) -> Record:
        made = runs(task.config, workspace, progress)
        measured = [row for row in scored(made, task.config) if row["what"].startswith(self.shows)]
        data = {
            "runs": measured, "windows": made.windows, "problems": made.problems, "examples": made.examples,
            "weights": made.kept(0), "below p": {choice: _below(p) for choice, p in made.p.items()},
            **self.more(made, task),
        }  # fmt: skip
        dense = [row["accuracy"] for row in measured if row["what"] == "dense"]
        return task.record(self.name, {"dense test": Metric(float(np.mean(dense)), len(dense))}, data=data)

    def more(self, made: Runs, task: Task) -> dict[str, Any]:
        """What else the study records."""
        return {}

    def summary(self, records: Sequence[Record]) -> list[Table]:
        return self.tables(records) if records else []

    @abstractmethod
    def tables(self, records: Sequence[Record]) -> list[Table]: ...


def _below(p: np.ndarray) -> list[float]:
    """Of the weights that could be tested the share with p < 0.05, per seed; 0 where none could."""
    return [float(np.mean(row[np.isfinite(row)] < 0.05)) if np.isfinite(row).any() else 0.0 for row in p]


@torch.no_grad()
def scored(made: Runs, config: dict[str, Any]) -> list[dict[str, Any]]:
    """Every network on the test part, which is read here and nowhere else: accuracy and macro F1."""
    from sklearn.metrics import f1_score

    sets, rows = datasets(config), []
    dtype = made.bank.weights[0].dtype
    for n, (what, seed) in enumerate(zip(made.what, made.seed, strict=True)):
        test = sets[seed].test
        found = classes_of(made.bank.pick([n])(test.x.flatten(1).to(dtype)[None]))[0]
        rows.append(
            {
                "what": what, "seed": config["seeds"][seed], "accuracy": float((found == test.y).double().mean()),
                "f1": float(f1_score(test.y, found, average="macro", labels=range(sets[seed].classes), zero_division=0)),
                "kept": made.kept(n), "epochs": made.epochs[n],
            }
        )  # fmt: skip
    return rows


# --- cells ----------------------------------------------------------------------------------------------------------------


def sets_of(records: Sequence[Record]) -> list[str]:
    """The data sets that there are records of, in the paper's order."""
    return [name for name in NAMES if any(record.task["data"] == name for record in records)]


def per_seed(records: Sequence[Record], data: str, what: str, number: str) -> dict[int, float]:
    """Seed → the number of that variant, the mean of its draws."""
    found: dict[int, list[float]] = {}
    for record in records:
        if record.task["data"] == data:
            for row in record.data["runs"]:
                if row["what"] == what:
                    found.setdefault(row["seed"], []).append(row[number])
    return {seed: sum(values) / len(values) for seed, values in found.items()}


def mean_of(records: Sequence[Record], data: str, what: str, number: str, digits: int = 1, scale: float = 1.0) -> str:
    return mean_interval(per_seed(records, data, what, number).values()).text(digits, scale)


def removed(records: Sequence[Record], data: str, what: str) -> list[float]:
    """Share of the weights that went, per seed."""
    return [1 - kept / weights_of(records, data) for kept in per_seed(records, data, what, "kept").values()]


def weights_of(records: Sequence[Record], data: str) -> int:
    return next(record.data["weights"] for record in records if record.task["data"] == data)


def against_paper(
    title: str, records: Sequence[Record], number: str, variants: Sequence[str], digits: int, scale: float, caption: str,
    beside: Sequence[str] = (),
) -> Table:  # fmt: skip
    """Per data set and variant: paper, ours (mean ± interval), the best of ours, difference; then ours of ``beside``."""
    rows: list[tuple[Cell, ...]] = []
    for data in sets_of(records):
        cells: list[Cell] = [NAMES[data]]
        for what in variants:
            cells += _four(records, data, what, number, digits, scale)
        cells += [mean_of(records, data, what, number, digits, scale) for what in beside]
        rows.append(tuple(cells))
    heads = [f"{what}, {part}" for what in variants for part in ("paper", "ours", "best of ours", "difference")]
    return Table(title, ("data", *heads, *(f"{what}, ours" for what in beside)), tuple(rows), caption)


def _four(records: Sequence[Record], data: str, what: str, number: str, digits: int, scale: float) -> list[Cell]:
    ours = list(per_seed(records, data, what, number).values())
    known = PAPERS.get((what, number), {}).get(data)
    best = (min if number in LOWER_IS_BETTER else max)(ours) if ours else None
    mean = mean_interval(ours)
    return [
        NONE if known is None else f"{scale * known:.{digits}f}",
        mean.text(digits, scale),
        NONE if best is None else f"{scale * best:.{digits}f}",
        NONE if known is None or not ours else f"{scale * (mean.mean - known):+.{digits}f}",
    ]


def seeds_text(records: Sequence[Record]) -> str:
    """For captions: how many initialisations each data set has."""
    counts = {data: len(per_seed(records, data, "dense", "accuracy")) for data in sets_of(records)}
    few = max(counts.values(), default=0)
    less = [f"{NAMES[data]} {count}" for data, count in counts.items() if count != few]
    return f"{few} initialisations" + (f" ({', '.join(less)})" if less else "")


MEANS = "Ours: mean ± 95 % interval over {}; the paper gives the best of five."


def means(records: Sequence[Record]) -> str:
    return MEANS.format(seeds_text(records))


Column = Callable[[str], Cell]


def by_data(title: str, records: Sequence[Record], columns: Mapping[str, Column], caption: str) -> Table:
    """One row per data set, of functions of its name."""
    rows = tuple((NAMES[data], *(cell(data) for cell in columns.values())) for data in sets_of(records))
    return Table(title, ("data", *columns), rows, caption)


def apart(found: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, Any]:
    """Series of a scatter figure: label → the points above x = 1, 2, …; those of different labels stand side by side."""
    step = 0.7 / max(len(found), 1)
    series = []
    for i, (label, columns) in enumerate(found.items()):
        aside = (i - (len(found) - 1) / 2) * step
        points = [(at + aside, value) for at, values in enumerate(columns, 1) for value in values]
        series.append({"label": label, "x": [x for x, _ in points], "y": [y for _, y in points]})
    return {"series": series}
