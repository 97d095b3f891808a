"""Where the rows of a tensor lie: what the kernels take instead of the tensor."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Rows(NamedTuple):
    """Rows of float32: the address of the first, and the bytes from one step and from one sequence to the next."""

    address: int
    step: int
    row: int

    @staticmethod
    def of(x: Tensor, time: int) -> Rows:
        """Rows of x with axes time and 1 - time, or of a packed sequence (rows, ·); the last axis is dense."""
        if x.dim() == 2:
            return Rows(x.data_ptr(), 4 * x.stride(0), 4 * x.stride(0))
        return Rows(x.data_ptr(), 4 * x.stride(time), 4 * x.stride(1 - time))

    def at(self, row: int) -> Rows:
        """The rows from this sequence on."""
        return Rows(self.address + row * self.row, self.step, self.row)
