"""What the machine can do at best: read bandwidth by size of the working set, and multiply-adds, measured in the run."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import numba
import numpy as np
import torch

SIZES = tuple(1 << k for k in range(16, 29))  # bytes: 64 KiB, in the first cache, to 256 MiB, in memory
REPEATS = 10


@dataclass(frozen=True)
class Machine:
    """``bandwidth``: bytes per second read from a working set of each of ``sizes`` bytes; ``flops``: per second, float32.

    Both on ``threads`` threads, the best of several repeats: a limit is what nothing can beat.
    """

    threads: int
    sizes: tuple[int, ...]
    bandwidth: tuple[float, ...]
    flops: float

    def read_seconds(self, size: float, times: int) -> float:
        """Least time to read ``size`` bytes ``times`` times over, at the bandwidth of a working set of that size."""
        if size == 0:
            return 0.0
        bandwidth = np.exp(np.interp(np.log(size), np.log(self.sizes), np.log(self.bandwidth)))
        return float(size * times / bandwidth)


def measure_machine(threads: int) -> Machine:
    """Measure this machine; takes a few seconds. The number of threads of torch must have been set to ``threads``."""
    return Machine(threads, SIZES, tuple(_bandwidth(size, threads) for size in SIZES), _flops())


@numba.njit(nogil=True, fastmath=True)
def _read(x: np.ndarray, passes: int) -> float:
    """Sum of ``x``, ``passes`` times over; four sums, so that an addition does not wait for the one before it."""
    total = np.float32(0)
    for _ in range(passes):
        a = b = c = d = np.float32(0)
        quarter = len(x) // 4
        for i in range(quarter):
            a += x[i]
            b += x[quarter + i]
            c += x[2 * quarter + i]
            d += x[3 * quarter + i]
        total += a + b + c + d
    return total


def _bandwidth(size: int, threads: int) -> float:
    """Each thread streams over its own share of the working set, as the threads of a layer do with its weights."""
    parts = np.array_split(np.ones(size // 4, dtype=np.float32), threads)
    passes = max(1, (1 << 28) // size)
    _read(parts[0], 1)

    def seconds() -> float:
        workers = [threading.Thread(target=_read, args=(part, passes)) for part in parts]
        begin = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return time.perf_counter() - begin

    return size * passes / min(seconds() for _ in range(REPEATS))


def _flops(size: int = 1024) -> float:
    """Of a square matrix product in oneDNN, which uses all of the processor; torch's own product may not."""
    a, times = torch.ones(size, size), []
    packed = a.to_mkldnn()
    for _ in range(REPEATS):
        begin = time.perf_counter()
        torch.ops.aten.mkldnn_linear(packed, a)
        times.append(time.perf_counter() - begin)
    return 2 * size**3 / min(times)
