"""Tables and figures as values, and the statistics that fill them: intervals over seeds, paper against ours."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jali.errors import DataError
from jali.runs.record import Record, canonical

Cell = str | int | float
NONE = "–"


@dataclass(frozen=True)
class Table:
    """A table to print and to put into a report; floats are shown with four significant digits, strings as they are."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", tuple(self.columns))
        object.__setattr__(self, "rows", tuple(tuple(row) for row in self.rows))
        for row in self.rows:
            if len(row) != len(self.columns):
                raise DataError(f"table {self.title!r}: a row of {len(row)} cells under {len(self.columns)} columns")


@dataclass(frozen=True)
class Figure:
    """A figure as data: ``kind`` names the drawing in :mod:`jali.report.plots`, ``payload`` is JSON for it."""

    kind: str
    title: str
    payload: dict[str, Any]
    caption: str = ""


@dataclass(frozen=True)
class Interval:
    """A mean over ``n`` runs and the half width of its 95 % confidence interval (None below two runs)."""

    mean: float
    half: float | None
    n: int

    def text(self, digits: int = 2, scale: float = 1.0) -> str:
        """For example ``"96.61 ± 0.24"``; with one run ``"96.61"``; the en dash when nothing finite was measured."""
        if not math.isfinite(self.mean):
            return NONE
        mean = f"{round(scale * self.mean, digits) + 0.0:.{digits}f}"  # + 0.0: never "-0.00"
        return mean if self.half is None else f"{mean} ± {scale * self.half:.{digits}f}"


def mean_interval(values: Iterable[float]) -> Interval:
    """Mean and 95 % interval of Student's t, ``t_{0.975, n-1} s / √n`` (s with n − 1), of independent runs.

    A value that is not finite makes the mean NaN: a run that diverged is part of the result and not left out.
    """
    sample = [float(value) for value in values]
    n = len(sample)
    if n == 0 or not all(map(math.isfinite, sample)):
        return Interval(math.nan, None, n)
    mean = math.fsum(sample) / n
    if n == 1:
        return Interval(mean, None, 1)
    from scipy.stats import t

    variance = math.fsum((value - mean) ** 2 for value in sample) / (n - 1)
    return Interval(mean, float(t.ppf(0.975, n - 1)) * math.sqrt(variance / n), n)


def over_seeds(
    records: Iterable[Record], metric: str, where: Callable[[Record], bool] = lambda record: True
) -> Interval:
    """The interval of one metric over the records that have it and satisfy ``where``."""
    return mean_interval(each.metrics[metric].value for each in records if metric in each.metrics and where(each))


@dataclass(frozen=True)
class Comparison:
    """One line of a paper-against-ours table; ``paper`` is None where the paper gives no figure."""

    label: str
    paper: float | None
    ours: Interval


def comparison_table(
    title: str, lines: Sequence[Comparison], *, unit: str = "", digits: int = 2, scale: float = 1.0, caption: str = "",
    whose: str = "paper",
) -> Table:  # fmt: skip
    """The standard table: what was measured, paper, ours (mean ± 95 % interval over n runs), n, difference.

    ``scale`` multiplies every number before it is shown (100 shows a fraction in %); the difference is ours − paper.
    ``whose`` heads the column of the figures compared with, where they are not a paper's.
    """
    suffix = f" ({unit})" if unit else ""
    rows = []
    for line in lines:
        known = line.paper is not None and math.isfinite(line.ours.mean)
        rows.append(
            (
                line.label,
                NONE if line.paper is None else f"{scale * line.paper:.{digits}f}",
                line.ours.text(digits, scale),
                line.ours.n,
                f"{scale * (line.ours.mean - line.paper):+.{digits}f}" if known and line.paper is not None else NONE,
            )
        )
    difference = "difference (points)" if unit == "%" else f"difference{suffix}"  # of two percentages
    columns = ("", f"{whose}{suffix}", f"ours, mean ± 95 % interval{suffix}", "runs", difference)
    return Table(title, columns, tuple(rows), caption)


def metrics_tables(records: Sequence[Record]) -> list[Table]:
    """For records of a study that nobody knows: per study, one row per task without its seed, one column per metric."""
    tables = []
    for study in sorted({record.study for record in records}):
        own = [record for record in records if record.study == study]
        names = sorted({(name, metric.unit) for record in own for name, metric in record.metrics.items()})
        groups: dict[str, list[Record]] = {}
        for record in own:
            task = {key: value for key, value in record.task.items() if key != "seed"}
            groups.setdefault(canonical(task), []).append(record)
        rows: list[tuple[Cell, ...]] = []
        for group in groups.values():
            cells = [_mean_text(group, name) for name, _ in names]
            rows.append((_task_text(group[0]), len(group), *cells))
        columns = ("task", "runs", *(f"{name} ({unit})" if unit else name for name, unit in names))
        tables.append(
            Table(f"Metrics of {study}", columns, tuple(rows), "Mean ± 95 % interval over the runs of a task.")
        )
    return tables


def show(cell: Cell) -> str:
    """The text of a cell: strings whole, numbers with four significant digits or, if larger, to the unit."""
    if isinstance(cell, str) or not math.isfinite(cell):
        return cell if isinstance(cell, str) else NONE
    if isinstance(cell, int) or 1e3 <= abs(cell) < 1e15:
        return f"{cell:,.0f}"
    return f"{cell:.4g}"


def percent(fraction: float) -> str:
    """For example ``"50 %"`` or ``"12.5 %"``: the one way in which tables write a fraction."""
    return f"{100 * fraction:.4g} %"


def markdown(table: Table) -> str:
    """The table for a Markdown page: title, rows, caption; pipes in cells are escaped."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(printable(cell).replace("|", "\\|") for cell in cells) + " |"

    lines = [f"**{printable(table.title)}**", "", line(table.columns), "|---" * len(table.columns) + "|"]
    lines += [line([show(cell) for cell in row]) for row in table.rows]
    return "\n".join([*lines, "", printable(table.caption)]).rstrip() + "\n"


def printable(value: object) -> str:
    """Text without control characters: a string from a file must not steer a terminal or break a drawing."""
    return "".join(c if c.isprintable() else "\ufffd" for c in str(value))


def _mean_text(records: Sequence[Record], metric: str) -> str:
    interval = over_seeds(records, metric)
    if not math.isfinite(interval.mean):
        return NONE
    half = interval.half
    return show(interval.mean) + ("" if half is None else f" ± {half:.2g}" if half < 100 else f" ± {show(half)}")


def _task_text(record: Record) -> str:
    return ", ".join(f"{key} {value}" for key, value in record.task.items() if key != "seed") or NONE
