"""An analysis as tables and figures, from what :func:`jali.analyze` saved alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jali.analysis.results import Analysis
from jali.errors import DataError, FileError
from jali.plain import parse_json
from jali.report.tables import NONE, Cell, Figure, Table

_AFTER = " after"


@dataclass(frozen=True)
class Section:
    """What a report shows of one analysis."""

    tables: tuple[Table, ...]
    figures: tuple[Figure, ...]
    notes: tuple[str, ...]


def analysis_section(found: Analysis, name: str, *, named: bool = False) -> Section:
    """Tables and figures of ``found``, saved as ``name``; ``named``: every title says so, to tell several analyses apart.

    Raises :class:`FileError` where a value is not what :func:`jali.analyze` writes.
    """
    try:
        tables = (
            _overview(found, name),
            _modularity(found),
            _expansion(found),
            _information(found),
            _distortion(found),
        )
        figures = (_spectrum(found), _thresholds(found), _communities(found), _rates(found))
        notes = [f"{site.name}: {note}" for site in found.sites for note in site.notes]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, DataError) as error:
        problem = f"{type(error).__name__}: {error}"
        raise FileError(f"{name} holds no analysis that can be shown ({problem}); make it again") from error
    tail = f" ({name})" if named else ""
    return Section(
        tuple(replace(t, title=t.title + (tail if i else "")) for i, t in enumerate(tables) if t is not None),
        tuple(replace(f, title=f.title + tail) for f in figures if f is not None),
        tuple(str(note) + tail for note in (*found.notes, *notes)),
    )


def saved_analyses(folder: str | Path) -> tuple[list[tuple[str, Analysis]], list[str]]:
    """(file name, analysis) of every analysis among the JSON files of ``folder``, and what to say of files that are none.

    Other JSON (a plan, results) is passed over. Raises :class:`FileError` for an analysis that is not understood.
    """
    found, problems = [], []
    for path in sorted(Path(folder).glob("*.json")):
        try:
            body = parse_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            problems.append(f"{path.name} could not be read as JSON ({error}) and is not shown")
            continue
        if isinstance(body, dict) and {"schema", "model", "sites", "task"} <= body.keys():
            found.append((path.name, _read(path)))
    return found, problems


def _read(path: Path) -> Analysis:
    try:
        return Analysis.load(path)
    except FileError as error:
        raise FileError(f"{path}: {error}") from error


def _overview(found: Analysis, name: str) -> Table:
    rows = []
    for site in found.sites:
        levels, dynamics = site.lattice, site.dynamics
        irreducible = f"{max(levels['irreducible columns'])} of {int(site.size)}" if levels else NONE
        answer = str(dynamics.get("theorem III.7", NONE))
        bounds = [_number(dynamics.get(key)) for key in ("sampled sup |Df|", "bound of sup |Df|")]
        rows.append(
            (
                str(site.name),
                f"{site.kind} of {site.size}",
                irreducible,
                _number(dynamics.get("largest exponent")),
                *bounds,
                answer,
            )
        )
    columns = ("site", "layer", "irreducible units, most", "largest exponent (nats per step)", "sampled sup |Df|",
               "bound of sup |Df|", "theorem III.7")  # fmt: skip
    caption = (
        "Irreducible: units whose column is no intersection of others, at the density where most are. The sampled norm is a "
        "lower bound, the other an upper one; below 1 the network contracts (theorem III.7)."
    )
    return Table(f"Analysis of {found.model} ({name}, seed {found.seed})", columns, tuple(rows), caption)


def _modularity(found: Analysis) -> Table | None:
    rows = []
    for site in found.sites:
        part = site.modularity
        if part:
            after = [_number(part.get(key)) for key in ("Q after", "Q of the old communities after")]
            count = part.get("communities after")
            rows.append(
                (
                    str(site.name),
                    _number(part["Q"]),
                    int(part["communities"]),
                    *after,
                    NONE if count is None else int(count),
                )
            )
    columns = ("site", "Q", "communities", "Q after the plan", "Q of the old communities after", "communities after")
    caption = "Directed weighted modularity of the influence graph, communities by the Louvain method."
    return Table("Modularity", columns, tuple(rows), caption) if rows else None


def _expansion(found: Analysis) -> Table | None:
    """The worst gate of every matrix, before and after a plan; nothing where all are full."""
    rows = []
    for site in found.sites:
        for key, density in site.expansion.items():
            field, found_one, when = key.partition(" density")
            if not found_one or min(map(float, density)) == 1:
                continue
            measures = [density, *(site.expansion[f"{field} {name}{when}"] for name in ("Δ_S", "Δ_R", "α2"))]
            least = [NONE if None in each else _number(min(map(float, each))) for each in measures]
            rows.append((str(site.name), f"{field}{when}", *least, int(sum(site.expansion[f"{field} isolated{when}"]))))
    columns = ("site", "weights", "density", "Δ_S", "Δ_R", "α2", "isolated")
    caption = (
        "The least over the gates: the bounds of the mask (– where one is undefined), and α2 of the normalised Laplacian, 0 "
        "where a graph falls into pieces. Isolated: units and inputs without a weight, of all gates."
    )
    return Table("Expansion of the masks", columns, tuple(rows), caption) if rows else None


def _information(found: Analysis) -> Table | None:
    rows: list[tuple[Cell, ...]] = []
    for label, part in [*((str(site.name), site.information) for site in found.sites), ("the task", found.task)]:
        for key, value in part.items():
            if isinstance(value, int | float) and not key.endswith(_AFTER):
                rows.append((label, key, _number(value), _number(part.get(key + _AFTER))))
    columns = ("of", "information", "nats", "nats after the plan")
    caption = (
        "Of a deterministic state, I(X; h) measures the resolution of the sample: compare it at one sample size only. I(Y; "
        "answer) has no such problem."
    )
    return Table("Mutual information", columns, tuple(rows), caption) if rows else None


def _distortion(found: Analysis) -> Table | None:
    rows = []
    for site in found.sites:
        part = site.pruning
        if part:
            share = part["distortion"] / part["variance"] if part["variance"] else math.nan
            values = (part["distortion"], part["variance"], share, part["R(D), Gaussian bound"])
            rows.append((str(site.name), *map(_number, values)))
    columns = ("site", "distortion D", "variance", "D / variance", "R(D), at most (nats)")
    caption = (
        "D = E‖h − ĥ‖² of the states under the plan; R(D) of a Gaussian of their covariance: no source needs more."
    )
    return Table("Distortion and rate of the plan", columns, tuple(rows), caption) if rows else None


def _spectrum(found: Analysis) -> Figure | None:
    series = [
        {"label": site.name, "x": list(range(1, len(values) + 1)), "y": [_finite(value) for value in values]}
        for site in found.sites
        if (values := site.dynamics.get("exponents"))
    ]
    gone = sum(value == -math.inf for site in found.sites for value in site.dynamics.get("exponents", ()))
    caption = "Above 0 differences grow, below they are forgotten." + (
        f" {gone} exponents of −∞ are not drawn." if gone else ""
    )
    return _lines("Lyapunov spectrum", "exponent, largest first", "nats per step", series, caption)


def _thresholds(found: Analysis) -> Figure | None:
    series = [
        {"label": site.name, "x": [100 * share for share in site.dynamics["weights below tau"]],
         "y": [_finite(value) for value in site.dynamics["largest exponent at tau"]]}
        for site in found.sites
        if site.dynamics.get("tau")
    ]  # fmt: skip
    caption = (
        "Recurrent weights below the threshold τ are zero; a few sequences, from a zero state. At −∞ everything is forgotten in "
        "one step, and nothing is drawn."
    )
    return _lines(
        "Largest exponent as a function of τ", "recurrent weights below τ (%)", "nats per step", series, caption
    )


def _communities(found: Analysis) -> Figure | None:
    labels: list[str] = []
    values: list[float] = []
    for site in found.sites:
        if "Q after" in site.modularity:
            labels += [f"{site.name}, before", f"{site.name}, after"]
            values += [float(site.modularity["Q"]), float(site.modularity["Q after"])]
    if not labels:
        return None
    payload = {"y_label": "modularity Q", "labels": labels, "values": values}
    return Figure("bars", "Modularity before and after the plan", payload, "Communities are found anew after the plan.")


def _rates(found: Analysis) -> Figure | None:
    series: list[dict[str, Any]] = []
    for site in found.sites:
        part = site.pruning
        if part.get("curve D"):
            total = part["variance"]
            series.append(
                {"label": site.name, "x": [100 * at / total for at in part["curve D"]], "y": part["curve R(D)"]}
            )
            rate = _finite(part["R(D), Gaussian bound"])
            series.append({"label": f"{site.name}, the plan", "x": [100 * part["distortion"] / total], "y": [rate]})
    caption = "The most nats that a description of the states needs at a distortion; the points are those of the plan."
    return _lines("Rate and distortion", "distortion (% of the variance)", "R(D), nats at most", series, caption)


def _lines(title: str, x: str, y: str, series: Sequence[dict[str, Any]], caption: str) -> Figure | None:
    drawn = [one for one in series if any(value is not None for value in one["y"])]
    payload = {"x_label": x, "y_label": y, "series": drawn}
    return Figure("lines", title, payload, caption) if drawn else None


def _finite(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _number(value: Any) -> Cell:
    """A cell: infinities by name, and the dash where nothing was measured."""
    if value is None:
        return NONE
    number = float(value)
    return number if math.isfinite(number) else NONE if math.isnan(number) else "∞" if number > 0 else "−∞"
