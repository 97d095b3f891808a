"""What the studies of asynchronous networks share: ways to prune, networks of a seed, random controls, numbers per run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jali.models.asynchronous import ERROR_SCALE, AsynchronousNetwork
from jali.models.asynchronous_values import Channel, SpectralRule, Training
from jali.models.truth_tables import TruthTable
from jali.studies.base import Record, RecordStore, Task

MODES: dict[str, SpectralRule | None] = {
    "none": None,
    "D": SpectralRule("directed", "lapack-order"),
    "D_W": SpectralRule("weighted", "lapack-order"),
    "D by eigenvector": SpectralRule("directed", "eigenvector"),
    "D_W by eigenvector": SpectralRule("weighted", "eigenvector"),
}


def new_network(
    table: TruthTable,
    hidden: int,
    seeds: Sequence[int],
    channel: Channel | None = None,
    error_scale: float = ERROR_SCALE,
) -> AsynchronousNetwork:
    """One run per seed, of the size that the table needs."""
    return AsynchronousNetwork(
        table.x.shape[1], hidden, table.y.shape[1], seeds=seeds, channel=channel, error_scale=error_scale
    )


def cut_at_random(network: AsynchronousNetwork, counts: Sequence[float]) -> None:
    """Each run loses its count of edges, drawn by its seed among those between nodes that act: no rule takes others."""
    gone = []
    for edges, seed, count in zip(network.adjacency, network.seeds, counts, strict=True):
        places = np.argwhere(edges & (np.arange(network.nodes) >= network.inputs))[:, ::-1]
        gone.append(places[np.random.default_rng([seed, 4]).choice(len(places), int(count), replace=False)].tolist())
    network.cut(gone)


def lost_by(mode: str, task: Task, workspace: RecordStore) -> list[float]:
    """How many edges each run lost in the record of this task by another mode, which ran before."""
    wanted = {**task.key, "mode": mode}
    return next(r.data["runs"]["removed"] for r in workspace.records() if (r.task, r.config) == (wanted, task.config))


def train(
    network: AsynchronousNetwork, table: TruthTable, rule: SpectralRule | None, config: dict[str, Any]
) -> Training:
    """Train every run on its own random rows."""
    drawn = (table.draw(config["inputs"], seed) for seed in network.seeds)
    x, y = (np.stack(part) for part in zip(*drawn, strict=True))
    return network.train(x, y, updates=config["updates"], rule=rule)


def runs_of(records: Sequence[Record], number: str, **key: Any) -> list[float]:
    """That number of every run of the record with this key; empty where there is none."""
    for record in records:
        if all(record.task.get(name) == value for name, value in key.items()):
            return list(record.data["runs"][number])
    return []
