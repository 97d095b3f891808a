"""One LSTM layer of k independent blocks against the dense layer of PyTorch: speed as a function of k (Corollary III.1).

Run with ``python -m benchmarks.blocks [--quick] [--threads N]``. At every size (hidden, batch) all contestants of all k take
turns, round after round, so that whatever else the machine does meets them alike; medians are compared. The units of a block
are scattered over the layer, as communities are. Stop it whenever you like: sizes that this commit has measured are skipped.

=============  ========================================================================================================
contestant     what runs
=============  ========================================================================================================
``torch``      PyTorch's dense layer; with zeros between blocks it takes as long
``scattered``  ``jali.accelerate`` of the masked layer, units in their old order
``reordered``  ``jali.accelerate`` of the layer that ``jali.reorder`` gives, block after block
``batched``    ``jali.reorder(…, batched=True)``: PyTorch, one batched product per step
``layers``     k of PyTorch's layers of H/k units, one after the other
=============  ========================================================================================================
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import jali
from benchmarks import ROOT, environment, write_json
from jali.plans import Budget, Plan, SitePlan
from jali.site import sites
from jali.studies.peers import Contestant, interleaved, max_error, quartiles, torch_call
from jali.view import build, layer_views

STEPS, FEATURES = 100, 64
HIDDEN, BATCH, BLOCKS = (256, 512, 1024), (1, 8, 64), (1, 2, 4, 8, 16)
QUICK = ((64, 128), (1, 8), (1, 2, 4))
KINDS = ("scattered", "reordered", "batched", "layers")
ROUNDS = (7, 300)  # at least, at most
SECONDS = 60.0  # for the rounds of one size, but for the least number of them

Row = dict[str, Any]


class Network(nn.Module):
    """A recurrent layer with a reader, so that its units may be reordered without putting them back."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(FEATURES, hidden), nn.Linear(hidden, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0])


class Apart(nn.Module):
    """k layers side by side."""

    def __init__(self, layers: Sequence[nn.RNNBase]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([layer(x)[0] for layer in self.layers], dim=-1)


def scattered(model: Network, k: int) -> nn.Module:
    """``model`` masked to k blocks whose units are drawn at random."""
    site = sites(model)[0]
    labels = np.random.default_rng(0).permutation(np.arange(site.size) % k)
    keep = np.broadcast_to(labels[:, None] == labels[None, :], (4, site.size, site.size)).copy()
    part = SitePlan(site.name, site.kind, site.size, keep={"w_rec": keep})
    return jali.mask(model, Plan("weight", "random", Budget(max(1 - 1 / k, 1e-6)), (part,)))


def contestants(model: Network, k: int, x: Tensor) -> list[tuple[str, Contestant, str]]:
    """(kind, contestant, what ran) of one k; every one is compared with the masked layer of PyTorch."""
    if k == 1:
        masked, moved, order, sizes = model, model, np.arange(model.rnn.hidden_size), (model.rnn.hidden_size,)
        batched: nn.Module | None = None
    else:
        masked = scattered(model, k)
        found = jali.decompose(masked, k)
        order, sizes = found.sites[0].order, found.sites[0].sizes
        moved, batched = (
            jali.reorder(masked, found, x),
            jali.reorder(masked, found, x, batched=True).get_submodule("rnn"),
        )
    old, new = (each.get_submodule("rnn") for each in (masked, moved))
    want = torch_call(old, x)()
    view = layer_views(new)[0][0]  # type: ignore[arg-type]
    parts = np.split(np.arange(view.hidden), np.cumsum(sizes)[:-1])
    apart = Apart([build([[view.cut(units)]], new) for units in parts])  # type: ignore[arg-type]
    runs: list[tuple[str, nn.Module, Any]] = [("scattered", jali.accelerate(old.eval(), x), np.arange(view.hidden))]
    runs += [("reordered", jali.accelerate(new.eval(), x), order), ("layers", apart, order)]
    runs += [] if batched is None else [("batched", batched, order)]
    out = []
    for kind, module, places in runs:
        call = torch_call(module, x)
        out.append((kind, Contestant(f"{kind} {k}", call, max_error(call(), want[..., places])), str(module)))
    return out


def measure(hidden: int, batch: int, threads: int, blocks: Sequence[int]) -> list[Row]:
    """The rows of one size, one for every k."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model, x = Network(hidden).eval(), torch.randn(STEPS, batch, FEATURES)
    dense = Contestant("torch", torch_call(model.rnn, x), 0.0)
    all_of = {k: contestants(model, k, x) for k in blocks}
    times = interleaved([dense, *(one for each in all_of.values() for _, one, _ in each)], SECONDS, ROUNDS)
    rows = []
    for k, each in all_of.items():
        row: Row = {"hidden": hidden, "batch": batch, "threads": threads, "k": k, "torch": quartiles(times["torch"])}
        row["work"] = (FEATURES + hidden / k) / (FEATURES + hidden)  # multiply-adds of the dense layer
        row |= {kind: {**quartiles(times[one.name]), "error": one.error, "ran": ran} for kind, one, ran in each}
        rows.append(row)
    return rows


def shown(row: Row) -> str:
    """One line of a row."""
    dense = row["torch"]["median"]
    ratios = [f"{kind} {dense / row[kind]['median']:.2f}x" for kind in KINDS if kind in row]
    worst = max(row[kind]["error"] for kind in KINDS if kind in row)
    where = f"H={row['hidden']} B={row['batch']} k={row['k']}"
    return f"{where:<20} torch {1e6 * dense:>8.0f} us  {'  '.join(ratios)}  (work {1 / row['work']:.2f}x)  error {worst:.0e}"


def plot(rows: Sequence[Row], path: Path) -> None:
    """Times as fast as PyTorch's dense layer against k, a panel per size."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    widths, batches = (sorted({row[name] for row in rows}) for name in ("hidden", "batch"))
    figure = Figure(figsize=(3.2 * len(widths) + 1.6, 2.6 * len(batches) + 0.6), layout="constrained")
    panels = figure.subplots(len(batches), len(widths), squeeze=False, sharex=True, sharey=True)
    styles = dict(zip(KINDS, (("#4477aa", "o"), ("#228833", "s"), ("#ee6677", "^"), ("#ccbb44", "D")), strict=True))
    for (i, batch), (j, hidden) in product(enumerate(batches), enumerate(widths)):
        panel, here = panels[i][j], [row for row in rows if (row["batch"], row["hidden"]) == (batch, hidden)]
        here.sort(key=lambda row: row["k"])
        panel.axhline(1.0, color="black", linewidth=0.8)
        panel.plot(
            [r["k"] for r in here], [1 / r["work"] for r in here], color="gray", ls=":", label="multiply-adds saved"
        )
        for kind, (colour, mark) in styles.items():
            own = [row for row in here if kind in row]
            y = [row["torch"]["median"] / row[kind]["median"] for row in own]
            panel.plot([row["k"] for row in own], y, color=colour, marker=mark, markersize=4, linewidth=1.2, label=kind)
        panel.set_title(f"H = {hidden}, batch {batch}", fontsize=9)
        panel.set_xscale("log", base=2)
        panel.set_yscale("log", base=2)
        for axis, text in ((panel.xaxis, "{:g}"), (panel.yaxis, "{:g}×")):
            axis.set_major_formatter(FuncFormatter(lambda value, _, text=text: text.format(value)))
            axis.set_minor_formatter(NullFormatter())
        panel.grid(True, which="major", alpha=0.3)
    figure.supxlabel("blocks k", fontsize=9)
    figure.supylabel("times as fast as PyTorch's dense layer", fontsize=9)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=8, frameon=False)
    figure.suptitle(f"One LSTM layer of k independent blocks, {FEATURES} features, {STEPS} steps", fontsize=10)
    figure.savefig(path, dpi=130)


def run(out: Path, threads: int, quick: bool) -> None:
    """Measure what ``out`` lacks, size by size, and write it with its plot; Ctrl-C keeps every size that was finished."""
    about = {**environment("jali", "torch", "numpy", "numba"), "steps": STEPS, "features": FEATURES, "unit": "seconds"}
    widths, batches, blocks = QUICK if quick else (HIDDEN, BATCH, BLOCKS)
    rows = _known(out, about)
    try:
        for hidden, batch in product(widths, batches):
            if any((row["hidden"], row["batch"], row["threads"]) == (hidden, batch, threads) for row in rows):
                continue
            new = measure(hidden, batch, threads, blocks)
            rows += new
            write_json(out, {**about, "rows": rows})
            print("\n".join(map(shown, new)), flush=True)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here")
    if rows:
        plot([row for row in rows if row["threads"] == threads], out.with_suffix(".png"))
        print(f"written to {out}")


def _known(out: Path, about: dict[str, Any]) -> list[Row]:
    """The rows that this commit, versions and machine have measured."""
    if not out.exists():
        return []
    old = json.loads(out.read_text(encoding="utf-8"))
    rows: list[Row] = old.pop("rows")
    return rows if old == about else []


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two small widths, two batches, three k")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch and the kernels")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "blocks.json")
    chosen = parser.parse_args(arguments)
    run(chosen.out, chosen.threads, chosen.quick)


if __name__ == "__main__":
    main()
