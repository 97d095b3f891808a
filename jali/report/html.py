"""One self-contained HTML page: tables, figures and provenance, made from records only.

Everything is inside the file (pictures as base64, style and the one script inline); nothing is loaded from a network, and
every string from a record passes the template engine's escaping.
"""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jali.files import atomic_write
from jali.report.networks import stepper
from jali.report.plots import THEMES, draw, with_shared_colours
from jali.report.tables import NONE, Cell, Figure, Table, show
from jali.runs.record import Record, canonical
from jali.runs.store import RecordStore

if TYPE_CHECKING:
    from jinja2 import Template

_NUMERIC = re.compile(
    r"[+\-−<]?\d[\d.,]*(e[+\-−]?\d+)?([\s–%×(/]|$)"
)  # and what may follow: ± and more, a range, a unit


def write_report(
    records: str | Path | Sequence[Record],
    out_html: str | Path,
    *,
    title: str,
    tables: Sequence[Table] = (),
    figures: Sequence[Figure] = (),
    lead: str = "",
    notes: Sequence[str] = (),
) -> Path:
    """Write the page atomically and return its path.

    ``records`` is a folder with ``records.jsonl`` or the records themselves; they give the provenance (versions, seeds,
    settings, times) and the table of all runs. ``lead`` is a sentence under the title, ``notes`` are added to the
    records' own.

    Raises :class:`~jali.errors.FileError` when the records or a figure's payload are malformed, or the page cannot be
    written; an older page is then left as it was.
    """
    problems: list[str] = []
    if isinstance(records, str | Path):
        store = RecordStore(records)
        records, problems = store.records(), store.problems
    page = _template().render(
        title=title,
        lead=lead,
        tables=tables,
        figures=[_picture(figure) for figure in _coloured(figures)],
        notes=[*problems, *notes, *_notes(records)],
        provenance=_provenance(records),
        records=records,
        canonical=canonical,
        themes=THEMES,
    )
    # A lone surrogate is valid in a JSON string and has no UTF-8.
    return atomic_write(out_html, page.encode("utf-8", errors="replace"))


def _template() -> Template:
    """The page; everything that goes in is escaped, and a name that is not given is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("jali.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["show"] = show
    environment.filters["alignments"] = _alignments
    return environment.get_template("report.html.j2")


def _alignments(table: Table) -> list[str]:
    """The class of each column's cells: numbers stand to the right, where all of a column but its gaps begin as numbers do."""

    def numeric(cells: Sequence[Cell]) -> bool:
        return all(not isinstance(cell, str) or cell in ("", NONE) or _NUMERIC.match(cell) for cell in cells)

    columns = zip(*table.rows, strict=True) if table.rows else [()] * len(table.columns)
    return ["number" if k and numeric(cells) else "" for k, cells in enumerate(columns)]


def _coloured(figures: Sequence[Figure]) -> list[Figure]:
    try:
        return with_shared_colours(figures)
    except (KeyError, TypeError, AttributeError):
        return list(figures)  # a payload that does not fit its kind: drawing it says which, and why


def _picture(figure: Figure) -> dict[str, Any]:
    pictures = {theme: base64.b64encode(draw(figure, theme)).decode() for theme in ("light", "dark")}
    steps = stepper(figure.payload) if figure.kind == "network" else None  # draw has checked it
    return {"title": figure.title, "caption": figure.caption, "alt": _alt(figure), "steps": steps, **pictures}


def _alt(figure: Figure) -> str:
    """What the picture shows, for those who do not see it."""
    payload = figure.payload
    parts = [f"{figure.title} ({figure.kind})."]
    if figure.kind == "hasse":
        parts.append(f"{len(payload['nodes'])} elements, {len(payload['edges'])} covering pairs.")
    if figure.kind == "network":
        first, last = (sum(w is not None for w in payload["frames"][at]["weights"]) for at in (0, -1))
        parts.append(f"{len(payload['nodes'])} nodes; {first} edges before, {last} after.")
    if figure.kind == "traces":
        names = ", ".join(str(panel["y_label"]) for panel in payload["panels"])
        parts.append(f"{names} against {payload['x_label']}.")
    if figure.kind == "persistence":
        kept = sum(map(bool, payload["kept"]))
        parts.append(f"{payload['units']} units, {kept} kept.")
    if "series" in payload:
        names = ", ".join(str(series["label"]) for series in payload["series"])
        parts.append(f"{payload['y_label']} against {payload['x_label']}; series: {names}.")
    if figure.kind == "bars":
        pairs = zip(payload["labels"], payload["values"], strict=True)
        parts.append("; ".join(f"{label}: {_shown(value)}" for label, value in pairs) + ".")
    return " ".join(parts)


def _shown(value: float | None) -> str:
    return "not measured" if value is None else show(float(value))


def _notes(records: Sequence[Record]) -> list[str]:
    """The records' notes, each once, with the number of runs that carry it."""
    counts = Counter(note for record in records for note in dict.fromkeys(record.notes))
    return [note if count == 1 else f"{note} ({count} runs)" for note, count in counts.items()]


def _provenance(records: Sequence[Record]) -> list[tuple[str, str]]:
    """What the numbers depend on; every value that differs between runs is listed."""

    def distinct(values: list[str]) -> str:
        return ", ".join(dict.fromkeys(values))

    if not records:
        return []
    found = [
        ("runs", str(len(records))),
        ("study", distinct([record.study for record in records])),
        ("seeds", distinct([str(seed) for seed in sorted({record.seed for record in records})])),
        ("made", " to ".join(dict.fromkeys((min(r.created for r in records), max(r.created for r in records))))),
        ("sum of the timed parts", f"{sum(sum(record.timings.values()) for record in records):.1f} s"),
    ]
    found += [(name, distinct([r.versions[name] for r in records if name in r.versions]))
              for name in sorted({name for record in records for name in record.versions})]  # fmt: skip
    for key in sorted({key for record in records for key in record.config}):
        values = [json.dumps(r.config[key], sort_keys=True, ensure_ascii=False) for r in records if key in r.config]
        found.append((f"setting {key}", distinct(values)))
    return found
