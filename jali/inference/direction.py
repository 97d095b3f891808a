"""One layer and direction on the kernels, for torch tensors: memory at hand, input products where they are fastest."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jali.inference.kernels import entry
from jali.inference.layer import Layer, Workspace, build_layer
from jali.inference.packing import pad_units
from jali.inference.vector import Width
from jali.view import View

SUMS = 2**19  # floats of input products that are made at once: 2 MB stay in the cache until they are read
AT_LEAST = 4  # sequences that are worth a thread


@dataclass(frozen=True)
class Rows:
    """A tensor of float32 rows: its address, and the bytes from one step and from one sequence to the next."""

    address: int
    step: int
    row: int

    @staticmethod
    def of(x: Tensor) -> Rows:
        """Rows of x (T, B, ·), or (rows, ·) of a packed sequence; the last axis is dense."""
        first, second = (x.stride(0), x.stride(1)) if x.dim() == 3 else (x.stride(0), x.stride(0))
        return Rows(x.data_ptr(), 4 * first, 4 * second)


class Direction:
    """The packed weights of one direction and what runs them.

    ``dense``: the input product is one matrix product for many steps, made by PyTorch; else the kernels make it, step by
    step. ``batch``: the number of sequences that the packing is chosen for.
    """

    def __init__(self, view: View, cell: str, *, dense: bool, batch: int, width: int | None = None) -> None:
        self.reverse = view.site.reverse
        w_in = np.asarray(view.w_in, np.float32)
        self.layer: Layer = build_layer(
            cell, None if dense else w_in, view.w_rec, view.b_in, view.b_rec, batch=batch, width=width  # type: ignore[arg-type]
        )  # fmt: skip
        self.w_in: Tensor | None = None
        if dense:
            padded = pad_units(w_in, self.layer.width)
            self.w_in = torch.from_numpy(padded.reshape(-1, w_in.shape[2]))
        self._width = Width(self.layer.width)
        self._entry = entry(self.layer.width)
        self._spare: deque[Workspace] = deque()  # its pop and append are atomic: threads share it

    @property
    def bytes(self) -> int:
        """Bytes of weights and indices that one step reads."""
        return self.layer.bytes + (0 if self.w_in is None else self.w_in.numel() * 4)

    def __str__(self) -> str:
        inputs = "dense" if self.layer.inputs is None else self.layer.inputs.format
        return f"{inputs} + {self.layer.recurrent.format}"

    def run(self, x: Tensor, out: Tensor, h: Tensor, c: Tensor | None, sizes: Tensor | None = None) -> None:
        """Outputs of x (T, B, I) into ``out`` (T, B, H), both dense in the last axis; ``h``, ``c`` (B, H) in place.

        With ``sizes`` (T,), the number of sequences at each step, x and ``out`` are the rows of a packed sequence.
        """
        if sizes is not None:
            offsets = np.concatenate([[0], np.cumsum(sizes.numpy())]).astype(np.int64)
            self._part(self._sums(x), out, h, c, len(sizes), offsets)
            return
        parts = _parts(len(h))
        if len(parts) == 1:
            self._chunks(x, out, h, c)
            return
        split = [(x[:, p], out[:, p], h[p], None if c is None else c[p]) for p in parts]
        list(_threads(len(parts)).map(lambda part: self._chunks(*part), split))

    def step(self, x: int, out: int, h: int, c: int, batch: int) -> None:
        """One step of ``batch`` dense rows, everything by address (c: 0 where the cell has none)."""
        work = self._workspace(batch)
        self._entry(self._width, self.layer.address, work.address, x, 0, 4 * self.layer.features, out, 0,
                    4 * self.layer.hidden, h, c, 1, batch, 0, 0)  # fmt: skip
        self._spare.append(work)

    def _chunks(self, x: Tensor, out: Tensor, h: Tensor, c: Tensor | None) -> None:
        """As many steps at a time as input products stay in the cache; the reverse direction begins with the last."""
        time, batch = x.shape[:2]
        length = time if self.w_in is None else max(1, SUMS // (batch * len(self.w_in)))
        starts = range(0, time, length)
        for start in reversed(starts) if self.reverse else starts:
            some = slice(start, start + length)
            self._part(self._sums(x[some]), out[some], h, c, min(length, time - start), None)

    def _sums(self, x: Tensor) -> Tensor:
        return x if self.w_in is None else torch.matmul(x, self.w_in.T)

    def _part(self, x: Tensor, out: Tensor, h: Tensor, c: Tensor | None, time: int, offsets: Any) -> None:
        source, target, batch = Rows.of(x), Rows.of(out), len(h)
        work = self._workspace(batch)
        self._entry(
            self._width, self.layer.address, work.address, source.address, source.step, source.row,
            target.address, target.step, target.row, h.data_ptr(), 0 if c is None else c.data_ptr(), time, batch,
            0 if offsets is None else offsets.ctypes.data, int(self.reverse),
        )  # fmt: skip
        self._spare.append(work)

    def _workspace(self, batch: int) -> Workspace:
        while self._spare:
            try:
                work = self._spare.pop()
            except IndexError:  # another thread was faster
                break
            if work.batch == batch:
                return work
        return Workspace(self.layer, batch)


def _parts(batch: int) -> Sequence[slice]:
    """Sequences per thread of PyTorch's number of threads."""
    count = max(1, min(torch.get_num_threads(), batch // AT_LEAST))
    ends = [round(k * batch / count) for k in range(count + 1)]
    return [slice(a, b) for a, b in itertools.pairwise(ends)]


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="jali")


def cell_of(view: View, nonlinearity: str = "tanh") -> str:
    """The kernels' name of a view's cell, one of :data:`jali.inference.layer.CELLS`."""
    return f"rnn_{nonlinearity}" if view.site.kind == "RNN" else view.site.kind.lower()
