"""What figures share: text as it is, gaps, axes and their ticks, legends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jali.report.tables import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LONGEST = 60
Payload = dict[str, Any]


def text(value: object) -> str:
    """Text that matplotlib shows as it is: no mathematics between dollars, no control characters, never hidden.

    Cut at LONGEST characters: a longer label would leave no room for the axes.
    """
    clean = printable(value)
    clean = (clean if len(clean) <= LONGEST else clean[: LONGEST - 1] + "…").replace("$", r"\$")
    # A leading underscore would hide a label from the legend.
    return f" {clean}" if clean.startswith("_") else clean


def gaps(values: list[float | None]) -> list[float]:
    return [float("nan") if value is None else float(value) for value in values]


def axis_labels(axes: Axes, payload: Payload) -> None:
    axes.set_xlabel(text(payload["x_label"]))
    axes.set_ylabel(text(payload["y_label"]))
    if payload.get("log_x"):
        axes.set_xscale("log")
        plain_ticks(axes)
    elif payload.get("logit_x"):
        logit(axes)
    elif payload.get("x_names") is not None:
        names = [text(name) for name in payload["x_names"]]
        slanted = sum(map(len, names)) > 60
        axes.set_xticks(
            range(1, len(names) + 1), names, rotation=30 if slanted else 0, ha="right" if slanted else "center"
        )
    elif all(x.is_integer() for series in payload["series"] for x in gaps(series["x"]) if x == x):
        whole_ticks(axes)


def plain_ticks(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.10g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def whole_ticks(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=(1, 2, 5, 10), integer=True))


def logit(axes: Axes) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axes.set_xscale("logit")
    ticks = (0.001, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99, 0.999)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:.3g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def legend(axes: Axes, count: int) -> None:
    if count > 1:
        axes.legend(fontsize=9, loc="best" if count < 5 else "upper left", bbox_to_anchor=None if count < 5 else (1, 1))
