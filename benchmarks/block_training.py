"""Ways to k independent blocks, by accuracy: which units go together, and when the weights between them go.

Run with ``python -m benchmarks.block_training [--seeds 5]``. An LSTM of 64 units reads the rows of 8×8 digits (scikit-learn's).
It is trained for 20 epochs; then the blocks are made and trained for 20 more. The optimizer and its state, the batches and
the number of epochs are the same for all.

==================  ====================================================================================================
way                 what happens after 20 epochs
==================  ====================================================================================================
``dense``           nothing is cut
``at once``         balanced communities, all weights between them cut
``gradual``         the same communities, cut on a cubic schedule over 70 % of the steps that are left
``by index``        contiguous blocks, cut at once
``from the start``  contiguous blocks in all 40 epochs
==================  ====================================================================================================
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import jali
from benchmarks import ROOT, environment, write_json
from jali.plans import Budget, Plan, SitePlan
from jali.report.tables import Table, markdown
from jali.site import sites

HIDDEN, EPOCHS, BATCH, TRAIN, RATE = 64, 20, 64, 1200, 3e-3
BLOCKS = (4, 8, 16)
Data = tuple[Tensor, Tensor]


class Network(nn.Module):
    """Rows of a picture → scores of the ten digits."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(8, hidden, batch_first=True), nn.Linear(hidden, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][:, -1])


def digits(seed: int) -> tuple[Data, Data]:
    """Pictures (N, 8, 8) in [0, 1] and labels: for training, and for the test."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(x))
    pictures, labels = torch.tensor(x[order] / 16, dtype=torch.float32).reshape(-1, 8, 8), torch.tensor(y[order])
    return (pictures[:TRAIN], labels[:TRAIN]), (pictures[TRAIN:], labels[TRAIN:])


def train(model: nn.Module, optimizer: torch.optim.Optimizer, data: Data, seed: int, pruner: Any = None) -> None:
    """EPOCHS epochs in batches drawn with ``seed``."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(data[0]), generator=generator).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(model(data[0][rows]), data[1][rows]).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if pruner is not None:
                pruner.step()


def accuracy(model: nn.Module, data: Data) -> float:
    with torch.no_grad():
        return float((model(data[0]).argmax(1) == data[1]).float().mean())


class Index:
    """Holds contiguous blocks, as a :class:`jali.Pruner` holds what it has cut."""

    def __init__(self, model: Network, k: int) -> None:
        site = sites(model)[0]
        labels = np.sort(np.arange(site.size) % k)
        keep = np.broadcast_to(labels[:, None] == labels, (4, site.size, site.size)).copy()
        plan = Plan(
            "weight", "index", Budget(1 - 1 / k), (SitePlan(site.name, site.kind, site.size, keep={"w_rec": keep}),)
        )
        self.weight = model.rnn.weight_hh_l0
        self.keep = (jali.mask(model, plan).rnn.weight_hh_l0 != 0).detach()
        self.weight.register_hook(lambda gradient: gradient * self.keep)
        self.step()

    def step(self) -> None:
        with torch.no_grad():
            self.weight.mul_(self.keep)


def started(seed: int) -> tuple[Network, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = Network(HIDDEN)
    return model, torch.optim.Adam(model.parameters(), RATE)


def again(model: Network, optimizer: torch.optim.Optimizer) -> tuple[Network, torch.optim.Optimizer]:
    """Copies that train on independently."""
    other = copy.deepcopy(model)
    fresh = torch.optim.Adam(other.parameters(), RATE)
    fresh.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    return other, fresh


def measure(seed: int, blocks: Sequence[int] = BLOCKS) -> list[dict[str, Any]]:
    """One row per k: shares of the influence, and test accuracies."""
    learn, test = digits(seed)
    half, optimizer = started(seed)
    train(half, optimizer, learn, seed)
    dense, other = again(half, optimizer)
    train(dense, other, learn, seed + 1000)
    rows = []
    for k in blocks:
        pattern, found = f"block-diagonal:{k}", jali.decompose(half, k, by="communities").sites[0]
        row = {"seed": seed, "k": k, "share": found.share, "share by index": found.by_index, "evenly": found.work}
        row["dense"] = accuracy(dense, test)
        steps = EPOCHS * -(-TRAIN // BATCH)
        for way, schedule in (("at once", jali.OneShot()), ("gradual", jali.Cubic(end=int(0.7 * steps), every=10))):
            model, other = again(half, optimizer)
            pruner = jali.Pruner(model, "magnitude", None, schedule, other, pattern=pattern)
            train(model, other, learn, seed + 1000, pruner)
            row[way] = _apart(model, k, test)
        model, other = again(half, optimizer)
        train(model, other, learn, seed + 1000, Index(model, k))
        row["by index"] = _apart(model, k, test)
        model, other = started(seed)
        held = Index(model, k)
        train(model, other, learn, seed, held)
        train(model, other, learn, seed + 1000, held)
        row["from the start"] = _apart(model, k, test)
        rows.append(row)
    return rows


def _apart(model: nn.Module, k: int, data: Data) -> float:
    """The accuracy of a model that must have k independent blocks, run as one batched product."""
    found = jali.decompose(model, k)
    return accuracy(jali.reorder(model, found, data[0][:8], batched=True), data)


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """Means over the seeds and, of the accuracies, their standard deviations."""
    names = ("share", "share by index", "dense", "at once", "gradual", "by index", "from the start")
    lines = []
    for k in sorted({row["k"] for row in rows}):
        cells = []
        for name in names:
            values = 100 * np.array([row[name] for row in rows if row["k"] == k])
            spread = f" ± {values.std(ddof=1):.1f}" if len(values) > 1 and "share" not in name else ""
            cells.append(f"{values.mean():.1f}{spread}")
        lines.append((str(k), *cells))
    seeds = len({row["seed"] for row in rows})
    columns = ("k", "influence in communities (%)", "in blocks by index (%)", *names[2:])
    caption = f"Test accuracy (%), mean ± standard deviation over seeds; {seeds} seeds."
    return Table("An LSTM of 64 units on rows of digits, in k independent blocks", columns, tuple(lines), caption)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "block_training.json")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    about = {
        **environment("jali", "torch", "numpy", "scikit-learn"),
        "hidden": HIDDEN,
        "epochs": 2 * EPOCHS,
        "batch": BATCH,
    }
    old = json.loads(chosen.out.read_text(encoding="utf-8")) if chosen.out.exists() else {"git": None, "rows": []}
    rows = old["rows"] if old["git"] == about["git"] else []
    for seed in range(chosen.seeds):
        if not any(row["seed"] == seed for row in rows):
            rows += measure(seed)
            write_json(chosen.out, {**about, "rows": rows})
            print(markdown(table(rows)), flush=True)


if __name__ == "__main__":
    main()
