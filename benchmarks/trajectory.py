"""What it costs to record a training: LEGCNet's network on MNIST, plainly trained and with its twin, window by window; and what
LEGCNet's six small data sets take end to end.

Run with ``python -m benchmarks.trajectory`` (data from JALI_DATA, or downloaded). One thread. The plain training is run before
and after the recorded one, each half of the iterations; seconds are those of the processor, so that other programs do not count.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402

from benchmarks import environment, write_json  # noqa: E402
from benchmarks.readme import TRAJECTORY, recording  # noqa: E402
from jali.data import load  # noqa: E402
from jali.evidence import Perturbation, trajectory  # noqa: E402
from jali.maths.series_exponents import direct, rosenstein  # noqa: E402
from jali.report.tables import markdown  # noqa: E402
from jali.runs.store import RecordStore  # noqa: E402
from jali.studies.base import Settings  # noqa: E402
from jali.studies.legcnet_networks import Bank, Examples, descend, initial, widths  # noqa: E402
from jali.studies.legcnet_runs import runs  # noqa: E402
from jali.studies.legcnet_settings import SETTINGS, tasks_of  # noqa: E402
from jali.studies.legcnet_tables import scored  # noqa: E402
from jali.studies.legcnet_training import examples_of, watched_accuracy  # noqa: E402

LIMITS = {"memory_gb": 1.5, "times": 3.0, "small_seconds": 600.0}
SEEDS = (0, 1, 2, 3, 4)


def training(examples: Examples, iterations: int) -> Any:
    """A training of ``iterations`` steps, as a generator."""
    descent = SETTINGS["mnist"].descent

    def train(network: nn.Module) -> Iterator[None]:
        done = 0
        for epoch in range(iterations):
            for x, y in examples.batches(epoch, descent.batch):
                descend(network, x, y, descent.rate)
                yield
                done += 1
                if done == iterations:
                    return

    return train


def plain(start: Bank, examples: Examples, iterations: int) -> float:
    """Processor seconds of a training without a twin."""
    network, begin = start.pick([0]), time.process_time()
    for _ in training(examples, iterations)(network):
        pass
    return time.process_time() - begin


def measured(iterations: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    setting, data = SETTINGS["mnist"], load("mnist")
    examples = examples_of([data], [0])
    start = initial(widths(data, setting.hidden), [0])
    plain(start, examples, 20)
    seconds = [plain(start, examples, iterations // 2)]
    begin = time.process_time()
    seen, _ = trajectory(
        start, training(examples, iterations), lambda network: watched_accuracy(network, examples, setting),
        perturbation=Perturbation("weights.0", ((0, 0, setting.place),)), window=setting.window,
    )  # fmt: skip
    recorded = time.process_time() - begin
    seconds.append(plain(start, examples, iterations - iterations // 2))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    series = np.random.default_rng(0).normal(size=(4096, setting.window))
    return {
        "weights": sum(weight.numel() for weight in start.weights), "iterations": seen.iterations, "windows": len(seen),
        "plain_seconds": sum(seconds), "recorded_seconds": recorded, "times": recorded / sum(seconds), "memory_gb": memory,
        "window_seconds": {
            name: _reduction(call, series) * sum(weight.numel() for weight in start.weights) / len(series)
            for name, call in (("direct", lambda s: direct(s, 1e-4)), ("rosenstein", rosenstein))
        },
        "small_seconds": small_sets(), "limits": LIMITS,
    }  # fmt: skip


def small_sets() -> float:
    """Processor seconds of the six small sets: dense networks, twins, tests, every pruned variant, and their scores."""
    begin = time.process_time()
    names = [name for name, setting in SETTINGS.items() if not setting.apart]
    with tempfile.TemporaryDirectory() as folder:
        for task in tasks_of(Settings(seeds=SEEDS), names):
            scored(runs(task.config, RecordStore(Path(folder)), lambda message, fraction=None: None), task.config)
    return time.process_time() - begin


def _reduction(call: Any, series: np.ndarray) -> float:
    call(series[:8])
    begin = time.process_time()
    call(series)
    return time.process_time() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=10200)
    parser.add_argument("--out", type=Path, default=TRAJECTORY)
    chosen = parser.parse_args()
    content = {**environment("torch", "numpy", "numba"), **measured(chosen.iterations)}
    write_json(chosen.out, content)
    print(markdown(recording(content)))


if __name__ == "__main__":
    main()
