"""The LEGCNet paper's evidence of chaos in gradient descent: do trainings that start close part, and how?

The paper moves w₁₁ and then w₁₂, and takes positive exponents of the weight series for a sign of chaos. Here the same, with three
sizes of δ₀, and with what positive exponents say: those of series that cannot be chaotic stand beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from jali.evidence import Trajectory
from jali.maths.series_exponents import rosenstein
from jali.report.tables import Cell
from jali.studies.base import Figure, Metric, Progress, Record, RecordStore, Settings, Study, Table, Task, mean_interval
from jali.studies.legcnet_networks import initial, widths
from jali.studies.legcnet_settings import PAPER, SETTINGS, quick, setting_of
from jali.studies.legcnet_tables import NAMES, sets_of
from jali.studies.legcnet_training import datasets, examples_of, recorded

DELTAS = (1e-4, 1e-6, 1e-8)
EPOCHS = 40


class LegcnetSensitivity(Study):
    name = "legcnet-sensitivity"
    title = "Do trainings that start close part?"
    paper = f"{PAPER}, 'Empirical evidence of chaos in backpropagation'"
    default_seeds = 5

    def tasks(self, settings: Settings) -> list[Task]:
        names = ["iris"] if settings.quick else [name for name in NAMES if name != "mnist"]
        out = []
        for name in names:
            setting = quick(SETTINGS[name]) if settings.quick else SETTINGS[name]
            for place in (0, 1):
                own = asdict(replace(setting, place=place))
                config = {**own, "seeds": list(settings.seeds), "epochs": setting.early if settings.quick else EPOCHS}
                out.append(
                    Task({"data": name, "weight": place + 1}, f"{name}, w1{place + 1}", settings.seeds[0], config)
                )
        return out

    def run(self, task: Task, workspace: RecordStore, progress: Progress) -> Record:
        config = {key: value for key, value in task.config.items() if key != "epochs"}
        setting, seeds, sets = setting_of(config), config["seeds"], datasets(config)
        examples, start = examples_of(sets, seeds), initial(widths(sets[0], setting.hidden), seeds)
        found: list[dict[str, Any]] = []
        for delta in DELTAS:
            seen = recorded(start, examples, replace(setting, delta=delta), task.config["epochs"], progress)
            for n, seed in enumerate(seeds):
                grown = growth(seen, n, delta)
                found.append({"delta": delta, "seed": seed, "growth": grown.tolist(), "positive": positive(seen, n)})
        seen = recorded(start, examples, replace(setting, method="rosenstein"), task.config["epochs"], progress)
        slopes = [positive(seen, n) for n in range(len(seeds))]
        data = {
            "twins": found,
            "rosenstein": slopes,
            "window": setting.window,
            "controls": controls(len(seen), setting.window),
        }
        ends = [each["growth"][-1] for each in found]
        return task.record(self.name, {"ln growth": Metric(float(np.mean(ends)), len(ends))}, data=data)

    def summary(self, records: Sequence[Record]) -> list[Table]:
        return [_growth(records), _positive(records)] if records else []

    def figures(self, records: Sequence[Record]) -> list[Figure]:
        return [_figure(records, data) for data in sets_of(records)]


def growth(seen: Trajectory, n: int, delta: float) -> np.ndarray:
    """ln(‖Δw‖ / δ₀) of network ``n`` at the end of each window, from the exponents of its weights, which add up."""
    logs = np.concatenate([values[:, n].reshape(len(seen), -1) for values in seen.exponents.values()], axis=1)
    total = np.cumsum(logs * seen.window, axis=0)  # ln |δ_t| / δ₀ of each weight
    top = total.max(axis=1)
    return np.asarray(top + 0.5 * np.log(np.exp(2 * (total - top[:, None])).sum(axis=1)))


def positive(seen: Trajectory, n: int) -> float:
    """Share of all windows and weights of network ``n`` with an exponent above 0."""
    values = np.concatenate([each[:, n].ravel() for each in seen.exponents.values()])
    return float((values > 0).mean())


def controls(windows: int, length: int) -> dict[str, float]:
    """Share of windows with a positive Rosenstein exponent, of two series that have no chaos: noise, and a damped process."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(max(windows, 200), length + 100))
    damped = np.zeros_like(noise)
    for t in range(1, noise.shape[1]):
        damped[:, t] = 0.9 * damped[:, t - 1] + noise[:, t]
    return {name: float((rosenstein(s[:, 100:]) > 0).mean()) for name, s in (("noise", noise), ("damped", damped))}


def _rates(each: dict[str, Any], window: int) -> tuple[float, float]:
    """Exponents of ‖Δw‖ over the first and the second half, per 1 000 iterations."""
    grown = [0.0, *each["growth"]]
    middle = len(grown) // 2
    return 1e3 * grown[middle] / (middle * window), 1e3 * (grown[-1] - grown[middle]) / (
        (len(grown) - 1 - middle) * window
    )


def _own(records: Sequence[Record], data: str) -> list[Record]:
    return [record for record in records if record.task["data"] == data]


def _growth(records: Sequence[Record]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for data in sets_of(records):
        cells: list[Cell] = [NAMES[data]]
        for delta in DELTAS:
            ends = [e["growth"][-1] for r in _own(records, data) for e in r.data["twins"] if e["delta"] == delta]
            cells.append(mean_interval(ends).text(2))
        halves = [
            _rates(e, r.data["window"])
            for r in _own(records, data)
            for e in r.data["twins"]
            if e["delta"] == DELTAS[-1]
        ]
        cells += [mean_interval(half[k] for half in halves).text(3) for k in (0, 1)]
        rows.append(tuple(cells))
    columns = (
        "data", *(f"ln(‖Δw‖/δ₀), δ₀ = {delta:g}" for delta in DELTAS), "exponent, first half (per 1 000)",
        "second half (per 1 000)",
    )  # fmt: skip
    caption = (
        f"Twins that differ by δ₀ in w₁₁ or w₁₂, after {records[0].config['epochs']} epochs; mean ± 95 % interval over both and "
        "the initialisations. Chaos would go on in the second half until ‖Δw‖ has the size of the weights, and so stop at "
        f"1/δ₀. Exponents at δ₀ = {DELTAS[-1]:g}."
    )
    return Table("Growth of the twins' distance", columns, tuple(rows), caption)


def _positive(records: Sequence[Record]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for data in sets_of(records):
        own = _own(records, data)
        direct = mean_interval(e["positive"] for r in own for e in r.data["twins"] if e["delta"] == DELTAS[0])
        slopes = mean_interval(share for r in own for share in r.data["rosenstein"])
        held = [mean_interval(r.data["controls"][name] for r in own).mean for name in ("noise", "damped")]
        rows.append((NAMES[data], direct.text(1, 100), slopes.text(1, 100), *(f"{100 * each:.1f}" for each in held)))
    columns = ("data", "equation 5 (%)", "Rosenstein (%)", "Rosenstein, noise (%)", "Rosenstein, damped noise (%)")
    caption = (
        f"Windows and weights with a positive exponent, δ₀ = {DELTAS[0]:g}. Rosenstein's slope is positive for white noise, "
        "and for noise that a stable linear process damps (0.9 per step), which have no chaos."
    )
    return Table("Positive exponents", columns, tuple(rows), caption)


def _figure(records: Sequence[Record], data: str) -> Figure:
    own, series = _own(records, data), []
    for delta in DELTAS:
        curves = np.array([e["growth"] for r in own for e in r.data["twins"] if e["delta"] == delta])
        ends = [own[0].data["window"] * (k + 1) for k in range(curves.shape[1])]
        low, high = np.quantile(curves, (0.1, 0.9), axis=0).tolist()
        series.append(
            {"label": f"δ₀ = {delta:g}", "x": ends, "y": np.median(curves, axis=0).tolist(), "low": low, "high": high}
        )
    payload = {"x_label": "iterations", "y_label": "ln(‖Δw‖ / δ₀)", "series": series}
    caption = "Median, and the middle 80 %. Curves that coincide hide each other."
    return Figure("lines", f"{NAMES[data]}: distance of the twins", payload, caption)


STUDY = LegcnetSensitivity()
