"""Time of the whole Lyapunov spectrum of an LSTM on data, on one core."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

import jali
from jali.dynamics import recurrence_of, site_spectrum

HIDDEN, STEPS, BATCH = 128, 100, 16
LIMIT = 5.0  # seconds


def spectrum_time(repeats: int = 3) -> dict[str, Any]:
    """Median seconds of all exponents of an LSTM with :data:`HIDDEN` units, on random sequences; its states are twice as many."""
    torch.manual_seed(0)
    model = torch.nn.LSTM(28, HIDDEN, batch_first=True).eval()
    recurrence = recurrence_of(model, jali.sites(model)[0])
    x = torch.randn(BATCH, STEPS, 28).numpy().astype(float)
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        exponents = site_spectrum(recurrence, x).exponents
        seconds.append(time.perf_counter() - begin)
    sizes = {"hidden": HIDDEN, "steps": STEPS, "batch": BATCH, "exponents": int(exponents.shape[-1])}
    return {**sizes, "median": statistics.median(seconds), "seconds": seconds, "limit": LIMIT}
