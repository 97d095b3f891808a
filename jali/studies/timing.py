"""One thread, and latency: models run alternately in one run, so that whatever else the machine does meets them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def one_thread() -> Iterator[None]:
    """torch on one thread: the result depends on the seed and not on the number of cores, nor on who else uses them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@torch.inference_mode()
def latencies(models: Sequence[nn.Module], x: Tensor, repeats: int = 100) -> list[float]:
    """Median seconds of one call of each model on ``x``, on one thread."""
    times: list[list[float]] = [[] for _ in models]
    with one_thread():
        for model in models:
            model.eval()
            model(x)
        for _ in range(repeats):
            for model, seconds in zip(models, times, strict=True):
                begin = time.perf_counter()
                model(x)
                seconds.append(time.perf_counter() - begin)
    return [statistics.median(seconds) for seconds in times]
