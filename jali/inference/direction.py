"""One layer and direction on the kernels: memory at hand, sequences for every thread."""

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
from jali.inference.rows import Rows
from jali.inference.vector import Width
from jali.view import View

AT_LEAST = 4  # sequences that are worth a thread


class Direction:
    """The packed weights of one direction and what runs them, packed for about ``batch`` sequences; threads may share it."""

    def __init__(self, view: View, cell: str, *, batch: int) -> None:
        self.reverse = int(view.site.reverse)
        w_in, w_rec = (np.asarray(weights, np.float32) for weights in (view.w_in, view.w_rec))
        self.layer: Layer = build_layer(cell, w_in, w_rec, view.b_in, view.b_rec, batch=batch)
        self._width, self._address, self._row = Width(self.layer.width), self.layer.address, 4 * self.layer.hidden
        self._entry = entry(self.layer.width, self.layer.by_sequence)
        self._spare: deque[Workspace] = deque()  # its pop and append are atomic

    @property
    def bytes(self) -> int:
        """Bytes of weights and indices that one step reads."""
        return self.layer.bytes

    def __str__(self) -> str:
        return f"{self.layer.inputs.format} + {self.layer.recurrent.format}"

    def run(
        self, x: Tensor, time: int, out: Rows, h: int, c: int, steps: int, batch: int, offsets: NDArray[Any] | None = None
    ) -> None:  # fmt: skip
        """Outputs of x, whose axis ``time`` has the steps, into ``out``; the states (batch, H) at h and c, in place.

        ``c`` is 0 where the cell has none. With ``offsets`` (steps + 1), the first row of every step, x (rows, I) is a packed
        sequence, which stays in one thread.
        """
        rows = Rows.of(x, time)
        threads = 1 if offsets is not None or batch < 2 * AT_LEAST else min(torch.get_num_threads(), batch // AT_LEAST)
        if threads == 1:
            self.call(rows, out, h, c, steps, batch, 0 if offsets is None else offsets.ctypes.data)
            return
        parts = [
            (rows.at(a), out.at(a), h + a * self._row, c and c + a * self._row, steps, b - a, 0)
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
