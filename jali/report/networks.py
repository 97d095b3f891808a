"""Two kinds of figures of networks that change: the graph before and after, and quantities of its nodes over time.

Payloads are described in :mod:`jali.report.plots`. Of the kind "network" the page also has a stepper through all frames
(``templates/stepper.js``); the picture is what stands where scripts do not run.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from jali.report.tables import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

    from jali.report.plots import Theme

LONGEST = 40  # characters of a label
WIDEST = 4.0  # points, of the edge of the largest weight


def stepper(payload: dict[str, Any]) -> dict[str, Any]:
    """What the stepper needs of a "network", checked: the same nodes, edges and frames, all else left out.

    Raises KeyError, TypeError and ValueError where the payload does not fit.
    """
    nodes = [{"label": printable(n["label"]), "x": _number(n["x"]), "y": _number(n["y"])} for n in payload["nodes"]]
    edges = [[int(source), int(target)] for source, target in payload["edges"]]
    if not all(0 <= end < len(nodes) for edge in edges for end in edge):
        raise ValueError(f"an edge ends at none of the {len(nodes)} nodes")
    return {"nodes": nodes, "edges": edges, "frames": [_frame(f, len(nodes), len(edges)) for f in payload["frames"]]}


def _frame(frame: dict[str, Any], nodes: int, edges: int) -> dict[str, Any]:
    weights, values = frame["weights"], frame["values"]
    eigenvalues = frame["eigenvalues"]
    if (len(weights), len(values), len(eigenvalues)) != (edges, nodes, nodes):
        raise ValueError(
            f"a frame has {len(weights)} weights, {len(values)} values and {len(eigenvalues)} spectra for {edges} edges and "
            f"{nodes} nodes"
        )
    return {
        "label": printable(frame["label"]),
        "note": printable(frame["note"]),
        "weights": [None if w is None else _number(w) for w in weights],
        "values": [_number(value) for value in values],
        "eigenvalues": [[[_number(part) for part in (real, imaginary)] for real, imaginary in own] for own in eigenvalues],
    }  # fmt: skip


def _number(value: Any) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{value!r} is no finite number")
    return float(value)


def _text(value: object) -> str:
    """A label without mathematics between dollars, short enough to leave room for the drawing, and never hidden."""
    clean = printable(value)[:LONGEST].replace("$", r"\$")
    return f" {clean}" if clean.startswith("_") else clean


def draw_network(canvas: Canvas, payload: dict[str, Any], colours: Theme) -> None:
    """The first and the last frame side by side; edges that are gone in the last one are dashed there."""
    from matplotlib.lines import Line2D

    found = stepper(payload)
    first, last = found["frames"][0], found["frames"][-1]
    largest = max((abs(w) for frame in (first, last) for w in frame["weights"] if w is not None), default=0.0) or 1.0
    canvas.set_size_inches(7.2, 4.0)
    for axes, frame in zip(canvas.subplots(1, 2), (first, last), strict=True):
        axes.set_axis_off()
        axes.set_aspect("equal")
        axes.text(0.5, 1, _text(frame["label"]), transform=axes.transAxes, ha="center", va="top", fontsize=10)
        for (source, target), before, weight in zip(found["edges"], first["weights"], frame["weights"], strict=True):
            if before is not None:
                _arrow(axes, found["nodes"][source], found["nodes"][target], weight, largest, colours)
        for node in found["nodes"]:
            axes.scatter(node["x"], node["y"], s=330, c=colours.paper, edgecolors=colours.ink, linewidths=1.2, zorder=2)
            axes.text(node["x"], node["y"], _text(node["label"]), ha="center", va="center", fontsize=9)
        axes.margins(0.18)
    marks = (
        (colours.series[0], "-", "positive"),
        (colours.series[3], "-", "negative"),
        (colours.quiet, ":", "removed"),
    )
    key = [Line2D([], [], color=colour, ls=style, lw=2, label=label) for colour, style, label in marks]
    canvas.legend(handles=key, loc="outside lower center", ncols=3, fontsize=9)


def _arrow(
    axes: Axes, start: dict[str, Any], end: dict[str, Any], weight: float | None, largest: float, colours: Theme
) -> None:
    from matplotlib.patches import FancyArrowPatch

    colour = colours.quiet if weight is None else colours.series[0 if weight >= 0 else 3]
    width = 1.0 if weight is None else 0.5 + (WIDEST - 0.5) * abs(weight) / largest
    arrow = FancyArrowPatch(
        (start["x"], start["y"]), (end["x"], end["y"]), connectionstyle="arc3,rad=0.16", arrowstyle="-|>",
        mutation_scale=8 + 2 * width, lw=width, color=colour, ls=":" if weight is None else "-", shrinkA=10, shrinkB=10,
        zorder=1,
    )  # fmt: skip
    axes.add_patch(arrow)


def draw_traces(canvas: Canvas, payload: dict[str, Any], colours: Theme) -> None:
    """Panels of one horizontal axis in rows of ``columns``; marks are vertical lines, each with its word in one panel."""
    panels, columns = payload["panels"], int(payload["columns"])
    rows = -(-len(panels) // columns)
    canvas.set_size_inches(7.2, 0.9 + 1.55 * rows)
    grid = canvas.subplots(rows, columns, squeeze=False, sharex=True)
    for i, panel in enumerate(panels):
        axes = grid[i // columns][i % columns]
        for series in panel["series"]:
            y = [float("nan") if value is None else float(value) for value in series["y"]]
            axes.plot(
                series["x"],
                y,
                color=colours.series[int(series["colour"]) % 7],
                lw=1.3,
                label=_text(series["label"]),
            )
        for mark in panel["marks"]:
            axes.axvline(float(mark["x"]), color=colours.ink, lw=0.9, ls="--")
            axes.annotate(_text(mark["label"]), (float(mark["x"]), 1), (3, -9), fontsize=8,
                          xycoords=("data", "axes fraction"), textcoords="offset points")  # fmt: skip
        axes.set_ylabel(_text(panel["y_label"]), fontsize=9)
        if payload.get("log_x"):
            axes.set_xscale("log")
        if i // columns == rows - 1:
            axes.set_xlabel(_text(payload["x_label"]))
    entries: dict[str, Any] = {}
    for axes in grid.flat:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    canvas.legend(
        entries.values(), entries.keys(), loc="outside upper center", ncols=min(len(entries), 6) or 1, fontsize=9
    )
