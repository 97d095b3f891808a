"""The tables of results in the README and the docs, made from committed records and JSON: no figure is typed in.

``python -m benchmarks.readme`` puts them in place of those of the same titles.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import ROOT
from benchmarks.blocks import KINDS
from benchmarks.import_time import LIMIT
from jali.report.tables import Cell, Table, markdown, percent
from jali.runs.store import RecordStore
from jali.studies.base import find_study

README = ROOT / "README.md"
MATHS = ROOT / "benchmarks" / "results" / "maths.json"
SERIES = ROOT / "benchmarks" / "results" / "series.json"
DYNAMICS = ROOT / "docs" / "dynamics.md"
COLD_START = ROOT / "benchmarks" / "results" / "cold_start.json"
INFERENCE = ROOT / "benchmarks" / "results" / "inference.json"
TRAJECTORY = ROOT / "benchmarks" / "results" / "trajectory.json"
LEGCNET = ROOT / "docs" / "legcnet.md"
BLOCKS = ROOT / "benchmarks" / "results" / "blocks.json"
BLOCKS_PAGE = ROOT / "docs" / "blocks.md"
FAST = ROOT / "docs" / "fast.md"
DENSE = ("torch", "onnxruntime", "openvino")
SIZES = (
    (512, 512, 1),
    (512, 512, 8),
    (512, 512, 64),
    (512, 64, 1),
    (256, 256, 1),
    (128, 128, 1),
)  # hidden, inputs, batch
PRUNED = (  # family, sparsity
    ("weight", 0.5), ("weight", 0.9), ("gate-aligned", 0.9), ("block:16x1", 0.9), ("n:m", 0.9), ("block-diagonal", 0.9),
    ("unit", 0.5), ("unit", 0.75),
)  # fmt: skip
STUDIES: dict[Path, tuple[str, ...]] = {  # page → the studies whose tables it shows
    README: ("fold-mnist",),
    BLOCKS_PAGE: (),
    ROOT / "docs" / "reproduction.md": ("lattice-table1", "lattice-table2"),
    LEGCNET: (
        "legcnet-table1",
        "legcnet-table2",
        "legcnet-table3",
        "legcnet-table4",
        "legcnet-figure5",
        "legcnet-figure6",
        "legcnet-sensitivity",
        "legcnet-verdict",
        "legcnet-rates",
        "legcnet-recurrent",
    ),
    DYNAMICS: (),
    FAST: ("iso-accuracy",),
    ROOT / "docs" / "expanders.md": ("expander-mnist", "expander-layers", "expander-speech", "expander-controls"),
    ROOT / "docs" / "argnn.md": (
        "argnn-gates",
        "argnn-xor",
        "argnn-eigen",
        "argnn-timing",
        "argnn-growth",
        "argnn-lstm",
    ),
}


def tables(page: Path = README) -> list[Table]:
    """Every generated table of a page."""
    found = [
        table
        for name in STUDIES[page]
        for table in find_study(name).summary(RecordStore(ROOT / "docs" / "results" / name).records())
    ]
    if page == README:
        maths = _read(MATHS)
        found += [speeds(maths), contracts(maths), inference(_read(INFERENCE)), cold_start(_read(COLD_START))]
    if page == BLOCKS_PAGE:
        found.append(blocks(_read(BLOCKS)))
    if page == DYNAMICS:
        found += [series(_read(SERIES)), exponents(_read(SERIES))]
    if page == LEGCNET:
        found.append(recording(_read(TRAJECTORY)))
    return found


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def recording(content: dict[str, Any]) -> Table:
    """What it costs to record a training."""
    limits, windows, count = content["limits"], content["window_seconds"], content["windows"]
    other = content["recorded_seconds"] + count * (windows["rosenstein"] - windows["direct"])
    rows: tuple[tuple[Cell, ...], ...] = (
        ("plain training, seconds", f"{content['plain_seconds']:.1f}", "–"),
        ("with its twin, recorded and reduced by equation 5, seconds", f"{content['recorded_seconds']:.1f}", "–"),
        ("times as long", f"{content['times']:.2f}", f"{limits['times']:g}"),
        (
            "times as long with Rosenstein's method, from the time of one window",
            f"{other / content['plain_seconds']:.1f}",
            "–",
        ),
        ("largest memory of the process, GiB", f"{content['memory_gb']:.2f}", f"{limits['memory_gb']:g}"),
        (
            "the six small sets of section 5, five initialisations, end to end, seconds",
            f"{content['small_seconds']:.0f}",
            f"{limits['small_seconds']:g}",
        ),
    )
    caption = (
        f"MNIST, {content['weights']:,} weights in float64, {content['iterations']:,} iterations of 128 images, "
        f"{count} windows of 200; processor seconds of one thread. {_where(content)}"
    )
    return Table("Recording a whole training", ("what", "measured", "limit"), rows, caption)


def speeds(content: dict[str, Any]) -> Table:
    rows = tuple(
        (
            row["task"],
            row["peer"],
            _milliseconds(row["seconds"]),
            _milliseconds(row["peer_seconds"]),
            _times(row["ratio"]),
        )
        for row in content["rows"]
    )
    caption = (
        "Fastest of several calls of each in one run, on one thread, after a first one that compiles; both gave the same "
        f"result. {_where(content)}"
    )
    return Table("Order and lattice algorithms", ("task", "peer", "jali (ms)", "peer (ms)", "faster"), rows, caption)


def series(content: dict[str, Any]) -> Table:
    """Granger tests and exponents of windows, per series."""
    rows = tuple(
        (
            row["task"],
            row["peer"],
            f"{row['micros']:.3g}",
            f"{row['peer_micros']:,.0f}",
            _times(row["ratio"]),
            f"{row['largest']:.0e}" + (" of it" if row["relative"] else ""),
            f"{row['limit']:g}",
        )
        for row in content["rows"]
    )
    samples = ", ".join(str(row["sample"]) for row in content["rows"])
    caption = (
        f"CPU time on one thread; both in turns in one run, the fastest of {content['rounds']} turns of each. The peers take one "
        f"series at a time and were timed on the first {samples} of them; 'differs by' is the largest difference there. "
        f"{_where(content)}"
    )
    header = ("task", "peer", "jali (µs per series)", "peer (µs per series)", "faster", "differs by", "allowed")
    return Table("Tests and exponents of series", header, rows, caption)


def exponents(content: dict[str, Any]) -> Table:
    """Systems whose exponents are known, by both methods."""
    rows = tuple(
        (
            row["system"],
            f"{row['known']:.3f}",
            *(_beside_known(row[method], row["known"]) for method in ("direct", "rosenstein")),
        )
        for row in content["known"]
    )
    caption = (
        "Nats per iterate or unit of time, and how far that is from the known exponent. direct: the mean over 20,000 (Lorenz: "
        f"1,000) pairs of twins; rosenstein: one series of 3,000, 4,900 and 10,000 values. {_where(content)}"
    )
    return Table("Exponents of known systems", ("system", "known", "direct", "rosenstein"), rows, caption)


def _beside_known(found: float, wanted: float) -> str:
    return f"{found:.3f} ({100 * (found / wanted - 1):+.1f} %)"


def inference(content: dict[str, Any]) -> Table:
    """Pruned layers on one thread beside the fastest dense peer of the same size."""
    measured = {
        (row["hidden"], row["inputs"], row["batch"], row["family"], row["sparsity"]): row
        for row in content["rows"]
        if row["threads"] == 1
    }
    rows: list[tuple[Cell, ...]] = []
    for family, sparsity in PRUNED:
        cells = [measured[*size, family, sparsity] for size in SIZES]
        name = f"units (compacted), {percent(1 - sparsity)} kept" if family == "unit" else cells[0]["pattern"]
        rows.append((name, percent(round(cells[0]["removed"], 2)), *(_beside(row) for row in cells)))
    worst = max(row["jali"]["error"] for row in content["rows"])
    names = [f"H={hidden} I={inputs} B={batch}" for hidden, inputs, batch in SIZES]
    best = [_fastest(measured[*size, "weight", 0.9]) for size in SIZES]
    peers = "; ".join(f"{size}: {peer} {1e6 * s:,.0f} µs" for size, (peer, s) in zip(names, best, strict=True))
    caption = (
        f"One LSTM layer with H units and I inputs, {content['steps']} steps of B sequences, one thread: median µs of "
        "jali.accelerate and how many times as fast that is as the fastest of PyTorch, ONNX Runtime and OpenVINO on the dense "
        f"layer in float32, interleaved in one run ({peers}). Removed: of the weights where I = H. "
        f"{_slower(content['rows'])} Largest difference from PyTorch: {worst:.0e}. "
        f"{_where(content, [row['git'] for row in content['rows']])}"
    )
    header = ("weights kept in", "removed", *names)
    return Table("One layer, pruned and accelerated", header, tuple(rows), caption)


def _slower(rows: Sequence[dict[str, Any]], margin: float = 0.95) -> str:
    """How many rows are slower than the fastest dense peer by more than 5 %, and which is the slowest."""
    found = []
    for threads in sorted({row["threads"] for row in rows}):
        own = [row for row in rows if row["threads"] == threads]
        behind = [row for row in own if _fastest(row)[1] < margin * row["jali"]["median"]]
        text = f"{len(behind)} of the {len(own)} rows on {threads} thread{'s' if threads > 1 else ''}"
        if behind:
            worst = min(behind, key=lambda row: _fastest(row)[1] / row["jali"]["median"])
            peer, seconds = _fastest(worst)
            ratio, removed = seconds / worst["jali"]["median"], percent(round(worst["removed"], 2))
            size = f"H={worst['hidden']} I={worst['inputs']} B={worst['batch']}"
            text += f" (at worst {ratio:.2f}× {peer}: {worst['pattern']} {removed}, {size})"
        found.append(text)
    return f"Slower than that by more than 5 % are {' and '.join(found)}."


def _fastest(row: dict[str, Any]) -> tuple[str, float]:
    return min(((name, row["peers"][name]["median"]) for name in DENSE), key=lambda pair: pair[1])


def _beside(row: dict[str, Any]) -> str:
    seconds = row["jali"]["median"]
    return f"{1e6 * seconds:,.0f} ({_fastest(row)[1] / seconds:.1f}×)"


def contracts(content: dict[str, Any]) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (
            f"masked − compacted, largest of {each['combinations']:,} combinations, {each['dtype']}",
            f"{each['largest']:.1e}",
            f"{each['limit']:.0e}",
        )
        for each in content["agreement"]
    ]
    for i, each in enumerate(content["import"]):
        what = f"{each['statement']}, seconds beyond torch's, median of {each['pairs']} pairs"
        rows.append((what, f"{each['median']:.2f}", f"{LIMIT:g}" if i == 0 else "–"))
    each = content["spectrum"]
    size = f"{each['hidden']} units, {each['steps']} steps, {each['batch']} sequences"
    what = f"Lyapunov spectrum of an LSTM, {size}, one core, seconds"
    rows.append((what, f"{each['median']:.1f}", f"{each['limit']:g}"))
    caption = (
        "Combinations: RNN (tanh, relu), LSTM (plain, projected), GRU × 1–3 layers × directions × bias × batch first × "
        "batched, unbatched, packed (sorted or not) × given initial states; sizes, weights, inputs and removed units drawn "
        f"by a seed; outputs and final states. {_where(content)}"
    )
    return Table("Same results, light import", ("what", "measured", "limit"), tuple(rows), caption)


def cold_start(content: dict[str, Any]) -> Table:
    """How long the first call takes in a fresh process."""
    rows: list[tuple[Cell, ...]] = []
    for each in content["rows"]:
        everything = each["imported"] == "all"
        before = "torch, jali, numba and what it imports with its first kernel" if everything else "torch and jali"
        rows.append((each["pattern"], before, f"{each['median']:.2f}", f"{content['limit']:g}" if everything else "–"))
    caption = (
        f"`jali.load` of an accelerated LSTM layer ({content['hidden']} units and inputs, {content['sparsity']:.0%} zeros) and "
        f"its first call ({content['steps']} steps) in a fresh process, with kernels in numba's cache: median seconds of "
        f"{content['processes']} processes, one thread. {_where(content)}"
    )
    return Table("Cold start", ("pattern", "imported before", "seconds", "limit"), tuple(rows), caption)


def blocks(content: dict[str, Any]) -> Table:
    """Speed of a layer of k independent blocks beside PyTorch's dense layer."""
    rows: list[tuple[Cell, ...]] = []
    for row in content["rows"]:
        dense = row["torch"]["median"]
        ratios = [f"{dense / row[kind]['median']:.2f}" if kind in row else "–" for kind in KINDS]
        size = (row["hidden"], row["batch"], row["k"])
        rows.append((*map(str, size), f"{1e6 * dense:,.0f}", *ratios, f"{1 / row['work']:.2f}"))
    worst = max(row[kind]["error"] for row in content["rows"] for kind in KINDS if kind in row)
    caption = (
        f"One LSTM layer, {content['features']} features, {content['steps']} steps, float32, one thread: how many "
        "times as fast as PyTorch's dense layer, whose median is given, interleaved in one run; the last column is what the "
        f"multiply-adds alone would give. Largest difference from the masked layer: {worst:.0e}. {_where(content)}"
    )
    header = ("H", "batch", "k", "dense (µs)", *KINDS, "by multiply-adds")
    return Table("Speed of k independent blocks", header, tuple(rows), caption)


def _milliseconds(seconds: float) -> str:
    value = 1e3 * seconds
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}×" if ratio >= 10 else f"{ratio:.1f}×"


def _where(content: dict[str, Any], commits: Sequence[str] = ()) -> str:
    """Machine, versions and commit; ``commits`` of the rows where they were measured one after the other."""
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items() if name != "jali")
    dirty = " with changes" if content["git_dirty"] else ""
    found = dict.fromkeys(str(commit)[:12] for commit in commits or [content["git"]])
    return f"{content['cpu']}; {versions}; commit{'s' * (len(found) > 1)} {', '.join(found)}{dirty}."


def replaced(text: str, page: Path = README) -> str:
    """The text with every table of ``page`` in place of that of its title; ValueError where there is none."""
    for table in tables(page):
        # Title, rows and caption: three paragraphs.
        pattern = re.compile(re.escape(f"**{table.title}**\n\n") + r"(\|[^\n]*\n)+\n[^\n]+\n")
        new = markdown(table)
        text, count = pattern.subn(lambda match, new=new: new, text)
        if count != 1:
            raise ValueError(f"{count} tables in {page.name} have the title {table.title!r}; there must be one")
    return text


def main() -> None:
    for page in STUDIES:
        page.write_text(replaced(page.read_text(encoding="utf-8"), page), encoding="utf-8")
        print(f"written to {page}")


if __name__ == "__main__":
    main()
