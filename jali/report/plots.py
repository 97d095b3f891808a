"""The kinds of figures, each drawn from JSON to PNG. A payload comes from a file and is therefore not trusted.

=============  =======================================================================================================
kind           payload (``?`` = optional)
=============  =======================================================================================================
hasse          nodes: [{x, y, label, highlight?}], edges: [[i, j]] (indices of nodes), key?: what highlight means
persistence    density: [0..1], columns: [count], rows: [count], units: total, criterion, scores: [per unit],
               kept: [bool per unit], counted: {up_to: density, sides} or None: what made the scores
scatter        x_label, y_label, series: [{label, x, y, error?, colour?}], log_x?, apart?: series of the same x stand side
               by side, each with a line through its points, x_names?: what x = 1, 2, … are called
lines          x_label, y_label, series: [{label, x, y, low?, high?, colour?}], log_x?, logit_x?, x_names?, zero?: y = 0 is
               drawn, marks?: upright lines [{x, label}]
bars           y_label, labels, values, errors?, baseline?, baseline_label?
network        nodes: [{label, x, y}], edges: [[from, to]], frames: [{label, note, weights: [per edge, None where it is
               gone], values: [per node, 0..1], eigenvalues: [per node: [[real, imaginary]]]}]
traces         x_label, columns, panels: [{y_label, series: [{label, x, y, colour}], marks: [{x, label}]}], log_x?
=============  =======================================================================================================

A None in ``y`` leaves a gap. Colours: Okabe and Ito's palette, which stays apart under every colour blindness; series
differ by marker and line as well.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from jali.errors import FileError
from jali.report.axes import axis_labels, gaps, legend, logit, text
from jali.report.networks import draw_network, draw_traces
from jali.report.tables import Figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

MARKERS = "osD^vPX"
APART, BESIDE = 0.13, 0.4  # inches between series drawn side by side, and between the first and the last at most
STYLES = ("-", "--", "-.", ":")


@dataclass(frozen=True)
class Theme:
    """Colours of one ground: paper and ink, lines fainter and fainter, and the series' palette."""

    paper: str
    ink: str
    quiet: str
    faint: str
    series: tuple[str, ...]


# Okabe and Ito's colours; lightened on the dark ground, where their blue and vermilion lack contrast.
THEMES = {
    "light": Theme("#ffffff", "#1c1c1a", "#9a978f", "#d8d5cd",
                   ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#777777")),
    "dark": Theme("#1d1f22", "#e8e6e1", "#7d8087", "#3a3d42",
                  ("#4FA8DE", "#E69F00", "#1FBF92", "#F0803C", "#E39CC6", "#A6DBF7", "#B5B5B5")),
}  # fmt: skip
Payload = dict[str, Any]


def with_shared_colours(figures: Sequence[Figure]) -> list[Figure]:
    """The figures of one page, with one colour and marker for a label in all of them, if there are enough for all labels."""
    series = [each for figure in figures if figure.kind in ("scatter", "lines") for each in figure.payload["series"]]
    labels = list(dict.fromkeys(str(each["label"]) for each in series))
    if len(labels) > len(MARKERS):
        return list(figures)

    def coloured(figure: Figure) -> Figure:
        if figure.kind not in ("scatter", "lines"):
            return figure
        own = [{"colour": labels.index(str(each["label"])), **each} for each in figure.payload["series"]]
        return replace(figure, payload={**figure.payload, "series": own})

    return [coloured(figure) for figure in figures]


def draw(figure: Figure, theme: str = "light") -> bytes:
    """The figure as PNG (160 dots per inch), on a ``"light"`` or ``"dark"`` ground.

    Raises :class:`~jali.errors.FileError` for an unknown kind and for a payload that lacks a part or mixes lengths.
    """
    if figure.kind not in KINDS:
        raise FileError(f"figure {figure.title!r}: unknown kind {figure.kind!r}; known: {', '.join(KINDS)}")
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    colours = THEMES[theme]
    with mpl.rc_context(_style(colours)):
        canvas = Canvas(layout="constrained")
        FigureCanvasAgg(canvas)
        try:
            KINDS[figure.kind](canvas, figure.payload, colours)
            buffer = io.BytesIO()
            # The writer's name and version would make the bytes differ between versions for no reason.
            canvas.savefig(buffer, format="png", dpi=160, metadata={"Software": None})
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
            problem = f"{type(error).__name__}: {error}"
            raise FileError(
                f"figure {figure.title!r}: its payload does not fit kind {figure.kind!r} ({problem})"
            ) from error
    return buffer.getvalue()


def _style(colours: Theme) -> Any:
    return {
        "font.size": 10,
        "figure.facecolor": colours.paper,
        "axes.facecolor": colours.paper,
        "savefig.facecolor": colours.paper,
        "text.color": colours.ink,
        "axes.labelcolor": colours.ink,
        "axes.edgecolor": colours.quiet,
        "xtick.color": colours.ink,
        "ytick.color": colours.ink,
        "grid.color": colours.faint,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "lines.linewidth": 1.6,
        "figure.figsize": (7.2, 4.2),
    }


def _hasse(canvas: Canvas, payload: Payload, colours: Theme) -> None:
    from matplotlib.collections import LineCollection
    from matplotlib.lines import Line2D
    from matplotlib.patheffects import withStroke

    nodes, edges = payload["nodes"], payload["edges"]
    place = [(float(node["x"]), float(node["y"])) for node in nodes]
    high = [bool(node.get("highlight")) for node in nodes]
    rows = max((sum(1 for _, y in place if y == level) for level in {y for _, y in place}), default=1)
    canvas.set_size_inches(7.2, min(9.0, 2.4 + 0.6 * len({y for _, y in place})))
    axes = canvas.subplots()
    axes.set_axis_off()
    axes.margins(0.05, 0.06)
    axes.add_collection(
        LineCollection([(place[i], place[j]) for i, j in edges], colors=colours.quiet, linewidths=0.9, zorder=1)
    )
    crowded = rows > 12 or len(nodes) > 60
    size = 40 if crowded else 130
    for flag, colour in ((False, colours.paper), (True, colours.series[2])):
        points = [point for point, mark in zip(place, high, strict=True) if mark is flag]
        if points:
            x_of, y_of = [x for x, _ in points], [y for _, y in points]
            axes.scatter(x_of, y_of, s=size, c=colour, edgecolors=colours.ink, linewidths=1.0, zorder=2)
    for node, (x, y) in zip(nodes, place, strict=True):
        label = text(node["label"])
        if label:
            written = axes.annotate(
                label if not crowded or len(label) <= 5 else label[:4] + "…",
                (x, y), (4, 5), textcoords="offset points", fontsize=7.5 if crowded else 9, zorder=3,
            )  # fmt: skip
            written.set_path_effects([withStroke(linewidth=2.5, foreground=colours.paper)])  # readable across edges
    if payload.get("key") and any(high):
        mark = Line2D(
            [], [], marker="o", ls="", mfc=colours.series[2], mec=colours.ink, ms=8, label=text(payload["key"])
        )
        axes.legend(handles=[mark], loc="upper left", fontsize=9)


def _persistence(canvas: Canvas, payload: Payload, colours: Theme) -> None:
    from matplotlib.patches import Patch

    density, units = gaps(payload["density"]), int(payload["units"])
    scores, kept = payload["scores"], payload["kept"]
    canvas.set_size_inches(7.2, 4.0)
    left, right = canvas.subplots(1, 2, width_ratios=(1.1, 1))
    for i, (side, meaning) in enumerate({"columns": "what it drives", "rows": "what drives it"}.items()):
        left.plot(density, gaps(payload[side]), lw=2.6 - i, ls=STYLES[i], color=colours.series[3 * i],
                  label=f"by {side}: {meaning}")  # fmt: skip
    counted = payload["counted"]
    if counted is not None:
        end = min(float(counted["up_to"]), density[-1])
        left.axvspan(density[0], end, color=colours.series[0], alpha=0.13, lw=0, label="counts for the score")
    left.axhline(units, color=colours.quiet, lw=1, ls="--")
    left.annotate(f"all {units} units", (0.99, units), (0, 3), xycoords=("axes fraction", "data"),
                  textcoords="offset points", fontsize=9, ha="right")  # fmt: skip
    left.set_ylim(0, units * 1.1)
    logit(left)
    left.set_xlabel("influences kept, strongest first (%, logit scale)")
    left.set_ylabel("irreducible units")
    left.legend(fontsize=9, loc="lower left", bbox_to_anchor=(0, 1), ncols=1)
    order = sorted(zip(gaps(scores), kept, strict=True), key=lambda pair: -pair[0])
    right.bar(range(len(order)), [score for score, _ in order], width=1.0,
              color=[colours.series[0] if flag else colours.series[1] for _, flag in order], edgecolor=colours.paper,
              linewidth=0.3 if len(order) < 200 else 0)  # fmt: skip
    right.grid(axis="x", visible=False)
    right.set_xlabel("units, highest score first")
    right.set_ylabel(text(f"score by {payload['criterion']}"))
    key = [Patch(color=colours.series[i], label=label) for i, label in enumerate(("kept", "removed"))]
    right.legend(handles=key, fontsize=9, loc="lower left", bbox_to_anchor=(0, 1))


def _scatter(canvas: Canvas, payload: Payload, colours: Theme) -> None:
    from matplotlib.transforms import ScaledTranslation

    axes = canvas.subplots()
    apart = bool(payload.get("apart"))
    places = [set(series["x"]) for series in payload["series"]]
    for i, series in enumerate(payload["series"]):
        error = gaps(series["error"]) if series.get("error") is not None else None
        before, there = places[:i].count(places[i]), places.count(places[i])
        aside = (before - (there - 1) / 2) * min(APART, BESIDE / there) if apart else 0.0
        look = int(series.get("colour", i)) % 7
        drawn = axes.errorbar(gaps(series["x"]), gaps(series["y"]), yerr=error, label=text(series["label"]),
                      color=colours.series[look], marker=MARKERS[look], ms=6.5, ls="-" if apart else "", lw=0.9,
                      capsize=3, elinewidth=1.2, mec=colours.paper, mew=0.6)  # fmt: skip
        for artist in drawn.get_children():  # moved on paper only, so that the limits stay those of the data
            artist.set_transform(axes.transData + ScaledTranslation(aside, 0, canvas.dpi_scale_trans))
    axes.margins(x=0.15 if apart else 0.05)
    axis_labels(axes, payload)
    legend(axes, len(payload["series"]))


def _lines(canvas: Canvas, payload: Payload, colours: Theme) -> None:
    axes = canvas.subplots()
    for i, series in enumerate(payload["series"]):
        look = int(series.get("colour", i)) % 7
        x, y, colour = gaps(series["x"]), gaps(series["y"]), colours.series[look]
        axes.plot(x, y, label=text(series["label"]), color=colour, marker=MARKERS[look], ms=4.5, ls=STYLES[look % 4])
        if series.get("low") is not None:
            axes.fill_between(x, gaps(series["low"]), gaps(series["high"]), color=colour, alpha=0.18, lw=0)
    if payload.get("zero"):
        axes.axhline(0, color=colours.ink, lw=0.9)
    for mark in payload.get("marks", ()):
        axes.axvline(float(mark["x"]), color=colours.ink, lw=0.9, ls="--")
        axes.annotate(text(mark["label"]), (float(mark["x"]), 0), (-3, 4), fontsize=9, rotation=90, ha="right",
                      xycoords=("data", "axes fraction"), textcoords="offset points")  # fmt: skip
    axis_labels(axes, payload)
    legend(axes, len(payload["series"]))


def _bars(canvas: Canvas, payload: Payload, colours: Theme) -> None:
    labels, values = [text(label) for label in payload["labels"]], gaps(payload["values"])
    errors = gaps(payload["errors"]) if payload.get("errors") is not None else None
    canvas.set_size_inches(7.2, 1.3 + 0.42 * len(labels))
    axes = canvas.subplots()
    place = list(range(len(labels)))[::-1]  # the first label on top
    axes.barh(place, values, xerr=errors, height=0.66, color=colours.series[0], ecolor=colours.ink, capsize=3)
    axes.set_yticks(place, labels)
    axes.set_ylim(-0.6, len(labels) - 0.4)  # a bar that was not measured keeps its place
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(text(payload["y_label"]))
    if payload.get("baseline") is not None:
        label = text(payload.get("baseline_label", "baseline"))
        axes.axvline(float(payload["baseline"]), color=colours.series[3], ls="--", lw=1.4, label=label)
        axes.legend(fontsize=9, loc="lower left", bbox_to_anchor=(0, 1))


KINDS: dict[str, Callable[[Canvas, Payload, Theme], None]] = {
    "hasse": _hasse,
    "persistence": _persistence,
    "scatter": _scatter,
    "lines": _lines,
    "bars": _bars,
    "network": draw_network,
    "traces": draw_traces,
}
