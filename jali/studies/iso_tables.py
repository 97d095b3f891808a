"""Choosing and showing for the iso-accuracy study: which model counts for a pattern, and the tables and the figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jali.report.tables import Cell
from jali.studies.base import Figure, Record, Table, mean_interval
from jali.studies.peers import DENSE
from jali.studies.variants import FAMILIES, Variant

TOLERANCE = 0.005  # of the accuracy on the validation split

# --- choosing ---------------------------------------------------------------------------------------------------------


def of(records: Sequence[Record], what: str) -> list[Record]:
    return [record for record in records if record.task["what"] == what]


def chosen(records: Sequence[Record]) -> list[Record]:
    """Of every family and sparsity the criterion that is best on the validation split; the first of equals."""
    best: dict[tuple[str, float], Record] = {}
    for record in records:
        key = (record.task["family"], record.task["sparsity"])
        if key not in best or record.metrics["validation"].value > best[key].metrics["validation"].value:
            best[key] = record
    return list(best.values())


def row_of(record: Record, dense: Record) -> dict[str, Any]:
    values = {name: metric.value for name, metric in record.metrics.items()}
    lost = dense.metrics["validation"].value - values["validation"]
    within = lost <= TOLERANCE + 1e-9  # a loss of exactly half a point is within, however it is rounded
    shown = {part: record.task[part] for part in ("family", "sparsity", "criterion")}
    pattern = Variant(record.task["family"], record.task["sparsity"]).pattern
    return {**shown, "pattern": pattern, **values, "lost on validation": lost, "within": within}


def winners(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The fastest of each family that loses no more than allowed on the validation split."""
    found = []
    for family in dict.fromkeys(row["family"] for row in rows):
        fit = [row for row in rows if row["family"] == family and row["within"]]
        found += [min(fit, key=lambda row: row["seconds"]["median"])] if fit else []
    return found


def best_engine(engines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return min((each for each in engines if each["name"] in DENSE), key=lambda each: each["seconds"]["median"])


def ratio(row: dict[str, Any], engines: Sequence[dict[str, Any]]) -> float:
    return float(best_engine(engines)["seconds"]["median"] / row["seconds"]["median"])


# --- tables and figures -----------------------------------------------------------------------------------------------


def fastest(name: str, records: Sequence[Record]) -> Table:
    times, rows = of(records, "time"), []
    reference = {record.task["seed"]: record.metrics["test"] for record in of(records, "dense")}
    dense = mean_interval(metric.value for metric in reference.values())
    sizes = " or ".join(dict.fromkeys(f"{metric.n:,}" for metric in reference.values()))
    for family in FAMILIES:
        found = [(row, record) for record in times for row in winners(record.data["rows"]) if row["family"] == family]
        tests = mean_interval(row["test, accelerated"] for row, _ in found)
        lost = mean_interval(reference[r.task["seed"]].value - row["test, accelerated"] for row, r in found)
        ratios = mean_interval(ratio(row, record.data["engines"]) for row, record in found)
        removed = mean_interval(row["removed"] for row, _ in found)
        micro = mean_interval(row["seconds"]["median"] for row, _ in found)
        points = (removed.text(1, 100), tests.text(2, 100), lost.text(2, 100))
        cells: tuple[Cell, ...] = (*points, micro.text(0, 1e6), ratios.text(1))
        rows.append((_shown(family), f"{len(found)} of {len(times)}", *cells))
    names = sorted({best_engine(record.data["engines"])["name"] for record in times})
    caption = (
        f"The fastest model that loses at most {100 * TOLERANCE:g} points to the dense LSTM on the validation split; test "
        f"accuracy as jali.accelerate computes it, and the points lost there (dense: {dense.text(2, 100)} % of "
        f"{sizes or 'no'} sequences; negative: gained). Time of one sequence on one thread, and "
        f"how many times as fast as the dense LSTM in the fastest engine ({', '.join(names) or 'not timed yet'}), in one "
        "interleaved run. Mean ± 95 % interval over the seeds where there is such a model."
    )
    columns = ("pattern", "seeds", "weights removed (%)", "test (%)", "lost on test", "µs", "times as fast")
    return Table(f"{name}: the fastest without loss", columns, tuple(rows), caption)


def ladder(name: str, records: Sequence[Record]) -> Table:
    everything = [(row, record) for record in of(records, "time") for row in record.data["rows"]]
    rows = []
    for key in dict.fromkeys((row["family"], row["sparsity"]) for row, _ in everything):
        own = [(row, record) for row, record in everything if (row["family"], row["sparsity"]) == key]
        cells = [
            mean_interval(row["removed"] for row, _ in own).text(1, 100),
            mean_interval(row["lost on validation"] for row, _ in own).text(2, 100),
            mean_interval(row["test"] for row, _ in own).text(2, 100),
            mean_interval(ratio(row, record.data["engines"]) for row, record in own).text(1),
            f"{max(row['error'] for row, _ in own):.0e}",
        ]
        chosen = ", ".join(dict.fromkeys(row["criterion"] for row, _ in own))
        rows.append((own[0][0]["pattern"] if key[0] != "unit" else f"units − {100 * key[1]:g} %", chosen, *cells))
    caption = (
        "Every rung, with the criterion that was best on the validation split; points lost there (negative: gained); the "
        "last column is the largest difference between jali.accelerate and PyTorch."
    )
    columns = ("pattern", "criterion", "removed (%)", "lost (points)", "test (%)", "times as fast", "error")
    return Table(f"{name}: all sparsities", columns, tuple(rows), caption)


def engines(name: str, records: Sequence[Record]) -> Table:
    times = of(records, "time")
    rows = []
    for engine in dict.fromkeys(each["name"] for record in times for each in record.data["engines"]):
        own = [each for record in times for each in record.data["engines"] if each["name"] == engine]
        micro = mean_interval(each["seconds"]["median"] for each in own).text(0, 1e6)
        rows.append((engine, micro, f"{max(each['error'] for each in own):.0e}"))
    caption = (
        "The dense LSTM, one sequence, one thread. Error: largest difference from PyTorch; bf16 and int8 are lossy."
    )
    return Table(f"{name}: the dense LSTM in other engines", ("engine", "µs", "error"), tuple(rows), caption)


def accuracy_against_speed(name: str, records: Sequence[Record]) -> Figure:
    series = []
    everything = [(row, record) for record in of(records, "time") for row in record.data["rows"]]
    for family in dict.fromkeys(row["family"] for row, _ in everything):
        own = [(row, record) for row, record in everything if row["family"] == family]
        rungs = sorted({row["sparsity"] for row, _ in own})
        parts = [[(row, record) for row, record in own if row["sparsity"] == rung] for rung in rungs]
        x = [mean_interval(ratio(row, record.data["engines"]) for row, record in part).mean for part in parts]
        tests = [mean_interval(row["test"] for row, _ in part) for part in parts]
        series.append({"label": _shown(family), "x": x, "y": [100 * test.mean for test in tests]})
    payload = {"x_label": "times as fast as the dense LSTM", "y_label": "test accuracy (%)", "series": series}
    dense = mean_interval(record.metrics["test"].value for record in of(records, "dense"))
    caption = (
        f"Every sparsity of every pattern after fine-tuning, means over seeds; the dense LSTM: {dense.text(2, 100)} %."
    )
    return Figure("lines", f"{name}: accuracy against speed", payload, caption)


def _shown(family: str) -> str:
    return "units (compacted)" if family == "unit" else family
