"""One layer and direction on the kernels: input products where they are fastest, memory at hand, sequences for every thread."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jali.inference.kernels import entry
from jali.inference.layer import Layer, Workspace, build_layer
from jali.inference.packing import pad_units
from jali.inference.rows import Rows
from jali.inference.vector import Width
from jali.view import View

SUMS = 2**19  # floats of input products that are made at once: 2 MB stay in the cache until they are read
AT_LEAST = 4  # sequences that are worth a thread


class Direction:
    """The packed weights of one direction and what runs them; threads may share it.

    ``dense``: the input product is one matrix product for many steps, made by PyTorch; else the kernels make it, step by
    step. ``batch``: the number of sequences that the packing is chosen for.
    """

    def __init__(self, view: View, cell: str, *, dense: bool, batch: int) -> None:
        self.reverse = int(view.site.reverse)
        w_in = np.asarray(view.w_in, np.float32)
        w_rec = np.asarray(view.w_rec, np.float32)
        self.layer: Layer = build_layer(
            cell, None if dense else w_in, w_rec, view.b_in, view.b_rec, batch=batch
        )  # fmt: skip
        self.w_in: Tensor | None = None
        if dense:
            padded = pad_units(w_in, self.layer.width).reshape(-1, w_in.shape[2])
            self.w_in = torch.from_numpy(padded.T.copy())  # (I, G · padded)
        self._width, self._address, self._row = Width(self.layer.width), self.layer.address, 4 * self.layer.hidden
        self._entry = entry(self.layer.width, self.layer.by_sequence)
        self._spare: deque[Workspace] = deque()  # its pop and append are atomic

    @property
    def bytes(self) -> int:
        """Bytes of weights and indices that one step reads."""
        return self.layer.bytes + (0 if self.w_in is None else self.w_in.numel() * 4)

    def __str__(self) -> str:
        inputs = "dense" if self.layer.inputs is None else self.layer.inputs.format
        return f"{inputs} + {self.layer.recurrent.format}"

    def run(
        self, x: Tensor, time: int, out: Rows, h: int, c: int, steps: int, batch: int, offsets: NDArray[Any] | None = None
    ) -> None:  # fmt: skip
        """Outputs of x, whose axis ``time`` has the steps, into ``out``; the states (batch, H) at h and c, in place.

        ``c`` is 0 where the cell has none. With ``offsets`` (steps + 1), the first row of every step, x (rows, I) is a packed
        sequence.
        """
        if self.w_in is None:
            self._shared(Rows.of(x, time), out, h, c, steps, batch, offsets)
            return
        # As many steps at a time as input products stay in the cache; the reverse direction begins with the last.
        length = steps if offsets is not None else max(1, SUMS // (batch * self.w_in.shape[1]))
        starts = range(0, steps, length)
        for start in reversed(starts) if self.reverse else starts:
            count = min(length, steps - start)
            some = x if count == steps else x.narrow(time, start, count)
            sums = torch.matmul(some, self.w_in)
            self._shared(Rows.of(sums, time), out.at(step=start), h, c, count, batch, offsets)

    def _shared(self, x: Rows, out: Rows, h: int, c: int, steps: int, batch: int, offsets: NDArray[Any] | None) -> None:
        """One call of the kernels for every thread; a packed sequence stays in one."""
        threads = 1 if offsets is not None or batch < 2 * AT_LEAST else min(torch.get_num_threads(), batch // AT_LEAST)
        if threads == 1:
            self.call(x, out, h, c, steps, batch, 0 if offsets is None else offsets.ctypes.data)
            return
        parts = [
            (x.at(row=a), out.at(row=a), h + a * self._row, c and c + a * self._row, steps, b - a, 0)
            for a, b in _parts(batch, threads)
        ]
        list(_threads(threads).map(lambda part: self.call(*part), parts))

    def call(
        self, x: tuple[int, int, int], out: tuple[int, int, int], h: int, c: int, steps: int, batch: int, offsets: int,
        from_zero: bool = False,
    ) -> None:  # fmt: skip
        """One call of the kernels, on one thread: :class:`Rows`, and as ``offsets`` the address of those of :meth:`run` or 0.

        ``from_zero``: the states begin at zero, whatever is at h and c.
        """
        work, way = self._workspace(batch), self.reverse + 2 * from_zero
        self._entry(self._width, self._address, work.address, *x, *out, h, c, steps, batch, offsets, way)
        self._spare.append(work)

    def _workspace(self, batch: int) -> Workspace:
        try:
            work = self._spare.pop()
        except IndexError:  # none yet, or all in use by other threads
            return Workspace(self.layer, batch)
        return work if work.batch == batch else Workspace(self.layer, batch)


def _parts(batch: int, count: int) -> Sequence[tuple[int, int]]:
    """First and last + 1 of about equally many sequences for each of ``count`` threads."""
    return list(itertools.pairwise(round(k * batch / count) for k in range(count + 1)))


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="jali")


def cell_of(view: View, nonlinearity: str = "tanh") -> str:
    """The kernels' name of a view's cell, one of :data:`jali.inference.layer.CELLS`."""
    return f"rnn_{nonlinearity}" if view.site.kind == "RNN" else view.site.kind.lower()
