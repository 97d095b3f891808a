"""Sparse patterns: which weights go together, so that a kernel can use that they are gone.

=================  ====================================================================================================
pattern            what goes or stays as one
=================  ====================================================================================================
``weight``         every weight for itself
``gate-aligned``   the weights from one unit or input to one unit, in all gates
``block:RxC``      R consecutive units × C consecutive columns of one gate, e.g. ``block:16x1``; smaller at the edges
``n:m``            of every m consecutive columns of a row, n stay, e.g. ``3:32``; this fixes the sparsity
=================  ====================================================================================================

A group's score is the mean of its weights' scores, so that small groups at an edge compete fairly.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from jali.errors import BudgetError


@dataclass(frozen=True)
class Pattern:
    """A parsed pattern. ``block`` (rows, columns) and ``per_row`` (n, m) only where the name says so."""

    name: str
    block: tuple[int, int] | None = None
    per_row: tuple[int, int] | None = None

    @staticmethod
    def parse(text: str) -> Pattern:
        """The pattern of this name; :class:`BudgetError` for any other text."""
        if text in ("weight", "gate-aligned"):
            return Pattern(text)
        block, ratio = re.fullmatch(r"block:(\d+)x(\d+)", str(text)), re.fullmatch(r"(\d+):(\d+)", str(text))
        if block and min(int(block[1]), int(block[2])) >= 1:
            return Pattern(text, block=(int(block[1]), int(block[2])))
        if ratio and 1 <= int(ratio[1]) < int(ratio[2]):
            return Pattern(text, per_row=(int(ratio[1]), int(ratio[2])))
        raise BudgetError(
            f"pattern {text!r} is unknown; it is 'weight', 'gate-aligned', 'block:RxC' with R, C ≥ 1, or 'n:m' with 1 ≤ n < m"
        )

    @property
    def sparsity(self) -> float | None:
        """The sparsity that the pattern fixes, or None."""
        return None if self.per_row is None else 1 - self.per_row[0] / self.per_row[1]

    def groups(self, shape: tuple[int, ...]) -> np.ndarray:
        """Group number of every weight, 0, 1, …, for an array of ``shape`` (G, H, I)."""
        gates, units, columns = shape
        index = np.arange(gates * units * columns).reshape(shape)
        if self.name == "gate-aligned":
            return np.broadcast_to(index[0], shape)
        if self.block is None:
            return index
        rows, wide = self.block
        down, across = -(-units // rows), -(-columns // wide)
        gate, unit, column = np.ogrid[:gates, :units, :columns]
        return (gate * down + unit // rows) * across + column // wide

    def keep_per_row(self, scores: np.ndarray) -> np.ndarray:
        """Keep mask of an ``n:m`` pattern: the n best of every m columns; a shorter rest keeps its share, rounded up."""
        if self.per_row is None:
            raise BudgetError(f"pattern {self.name!r} fixes no number of weights per row; it needs a budget")
        n, m = self.per_row
        keep = np.zeros(scores.shape, dtype=bool)
        for start in range(0, scores.shape[-1], m):
            part = scores[..., start : start + m]
            count = -(-n * part.shape[-1] // m)
            best = np.argsort(-part, axis=-1, kind="stable")[..., :count]
            np.put_along_axis(keep[..., start : start + m], best, True, axis=-1)
        return keep


UNSTRUCTURED = Pattern("weight")
