"""The plot of the inference benchmark: ratio to the best dense float32 peer against sparsity, a panel per size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

COLOURS = {
    "weight": "#4477aa",
    "gate-aligned": "#66ccee",
    "block:16x1": "#228833",
    "n:m": "#ccbb44",
    "block-diagonal": "#ee6677",
    "unit": "#aa3377",
}
MARKS = {"weight": "o", "gate-aligned": "s", "block:16x1": "^", "n:m": "D", "block-diagonal": "v", "unit": "*"}


def plot(rows: Sequence[dict[str, Any]], path: Path, threads: int | None = None) -> None:
    """Write a PNG of the rows with ``threads`` threads, the fewest there are by default, and as many inputs as units."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    threads = min(row["threads"] for row in rows) if threads is None else threads
    rows = [row for row in rows if row["threads"] == threads and row["inputs"] == row["hidden"]]
    widths, batches = (sorted({row[name] for row in rows}) for name in ("hidden", "batch"))
    figure = Figure(figsize=(3.2 * len(widths) + 1.8, 2.6 * len(batches) + 0.6), layout="constrained")
    panels = figure.subplots(len(batches), len(widths), squeeze=False, sharex=True, sharey=True)
    for i, batch in enumerate(batches):
        for j, hidden in enumerate(widths):
            panel = panels[i][j]
            here = [row for row in rows if (row["batch"], row["hidden"]) == (batch, hidden)]
            _panel(panel, here)
            panel.set_title(f"H = {hidden}, batch {batch}" + ("" if here else ": not measured"), fontsize=9)
            panel.set_yscale("log", base=2)
            panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
            panel.yaxis.set_minor_formatter(NullFormatter())
            panel.grid(True, which="major", alpha=0.3)
    figure.supxlabel("weights removed (%)", fontsize=9)
    figure.supylabel("times as fast as the best dense float32 peer", fontsize=9)
    lines = {label: line for row in panels for panel in row for line, label in zip(*_legend(panel), strict=True)}
    figure.legend(lines.values(), lines.keys(), loc="outside right upper", fontsize=8, frameon=False)
    plural = "" if threads == 1 else "s"
    figure.suptitle(f"One LSTM layer of H units and as many inputs, 100 steps, {threads} thread{plural}", fontsize=10)
    figure.savefig(path, dpi=130)


def _panel(panel: Any, rows: Sequence[dict[str, Any]]) -> None:
    from benchmarks.inference import best_peer

    panel.axhline(1.0, color="black", linewidth=0.8)
    for family, colour in COLOURS.items():
        own = sorted((row for row in rows if row["family"] == family), key=lambda row: row["removed"])
        x = [100 * row["removed"] for row in own]
        y = [best_peer(row)[1] / row["jali"]["median"] for row in own]
        if own:
            panel.plot(x, y, color=colour, marker=MARKS[family], markersize=5, linewidth=1.2, label=_name(family))
    if rows:
        for name, style in (("openvino-bf16", ":"), ("onnxruntime-int8", "--")):
            ratio = best_peer(rows[0])[1] / rows[0]["peers"][name]["median"]
            panel.axhline(ratio, color="gray", linestyle=style, linewidth=1, label=f"dense {name} (lossy)")


def _name(family: str) -> str:
    return "units (compacted)" if family == "unit" else family


def _legend(panel: Any) -> tuple[list[Any], list[str]]:
    return panel.get_legend_handles_labels()
