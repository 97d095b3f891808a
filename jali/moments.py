"""First and second moments of rows of features, summed batch by batch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from jali.errors import DataError


class Moments:
    """Sums over rows (x₀, x₁, …), with ``widths`` features each, of xᵢ and of xᵢ xⱼᵀ for i ≤ j, in float64 on the CPU."""

    def __init__(self, *widths: int) -> None:
        self.count = 0
        self._sums = [torch.zeros(n, dtype=torch.float64) for n in widths]
        self._products = {
            (i, j): torch.zeros(n, widths[j], dtype=torch.float64)
            for i, n in enumerate(widths)
            for j in range(i, len(widths))
        }

    def add(self, *parts: Tensor) -> None:
        """Add rows: one tensor (…, width) for each width, with the same numbers of rows."""
        rows = [part.detach().reshape(-1, part.shape[-1]).to("cpu", torch.float64) for part in parts]
        self.count += len(rows[0])
        for total, x in zip(self._sums, rows, strict=True):
            total += x.sum(0)
        for (i, j), total in self._products.items():
            total.addmm_(rows[i].T, rows[j])

    def means(self) -> list[np.ndarray]:
        """E xᵢ for every i, then E xᵢ xⱼᵀ for (i, j) = (0, 0), (0, 1), …, (1, 1), …; zeros before the first row."""
        return [total.numpy() / max(self.count, 1) for total in (*self._sums, *self._products.values())]


def check_finite(*states: Tensor) -> None:
    """Raises :class:`DataError` for NaN or infinite states: whatever is fitted to them would be NaN, too."""
    if not all(torch.isfinite(value).all() for value in states):
        raise DataError(
            "the states of the network are NaN or infinite on the calibration data; give data on which it is stable"
        )
