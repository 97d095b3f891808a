"""Latency: models run alternately in one run, so that whatever else the machine does meets them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn


@torch.inference_mode()
def latencies(models: Sequence[nn.Module], x: Tensor, repeats: int = 100) -> list[float]:
    """Median seconds of one call of each model on ``x``, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for model in models:
            model.eval()
            model(x)
        times: list[list[float]] = [[] for _ in models]
        for _ in range(repeats):
            for model, seconds in zip(models, times, strict=True):
                begin = time.perf_counter()
                model(x)
                seconds.append(time.perf_counter() - begin)
    finally:
        torch.set_num_threads(threads)
    return [statistics.median(seconds) for seconds in times]
