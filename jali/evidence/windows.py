"""One window of the differences of twin trainings, and what it is reduced to when it is full: no more is ever held."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from jali.maths.series_exponents import direct, rosenstein

Floats = NDArray[np.float64]
Method = Literal["direct", "rosenstein"]
_CHUNK = 4096  # series that are reduced at a time


class Windows:
    """One window of the differences of all weights, and what became of those that were full."""

    def __init__(
        self, model: nn.Module, twin: nn.Module, window: int, stride: int, method: Method, delta: float, moved: int
    ) -> None:
        own = list(model.named_parameters())
        self.names = {name: tuple(parameter.shape) for name, parameter in own}
        self.pairs = list(zip((p.detach() for _, p in own), (q.detach() for q in twin.parameters()), strict=True))
        count = sum(p.numel() for p, _ in self.pairs)
        self.held = np.empty((window, count))  # one iterate per row
        self.full, self.stride, self.method = 0, stride, method
        self.parted, self.moved = False, moved  # whether more weights ever differed than were moved
        self.before = np.full(count, abs(delta))  # the differences just before the window: δ₀ at first
        self.exponents: list[Floats] = []
        self.watched: list[Floats] = []
        self.distance: list[float] = []
        self.ends: list[int] = []

    def add(self, done: int) -> bool:
        """Take the iterate ``done``; whether that closed a window."""
        row, start = torch.from_numpy(self.held[self.full]), 0
        for p, q in self.pairs:
            row[start : start + p.numel()] = (q - p).reshape(-1)
            start += p.numel()
        self.full += 1
        if self.full < len(self.held):
            return False
        self.parted |= bool(np.count_nonzero(self.held[-1]) > self.moved)
        self.exponents.append(self._reduced())
        with np.errstate(over="ignore"):  # a training that diverges has an infinite distance
            self.distance.append(float(np.linalg.norm(self.held[-1])))
        self.ends.append(done)
        self.before = self.held[self.stride - 1].copy()
        for first in range(0, len(self.held) - self.stride, self.stride):  # in pieces: copies that do not overlap
            piece = self.held[first + self.stride : first + 2 * self.stride]
            self.held[first : first + len(piece)] = piece
        self.full = len(self.held) - self.stride
        return True

    def _reduced(self) -> Floats:
        out = np.empty(self.held.shape[1])
        for start in range(0, len(out), _CHUNK):
            series = np.ascontiguousarray(self.held[:, start : start + _CHUNK].T)  # (S, W)
            before = self.before[start : start + _CHUNK]
            out[start : start + _CHUNK] = direct(series, before) if self.method == "direct" else rosenstein(series)
        return out

    def all_exponents(self) -> dict[str, Floats]:
        """Parameter → its exponents, (windows, *shape)."""
        flat, start, out = np.stack(self.exponents), 0, {}
        for name, shape in self.names.items():
            size = int(np.prod(shape))
            out[name] = flat[:, start : start + size].reshape(len(flat), *shape)
            start += size
        return out
