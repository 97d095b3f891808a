"""Sparse patterns: which weights go together, so that a kernel can use that they are gone.

====================  ====================================================================================================
pattern               what goes or stays as one
====================  ====================================================================================================
``weight``            every weight for itself
``gate-aligned``      the weights from one unit or input to one unit, in all gates
``block:RxC``         R consecutive units × C consecutive columns of one gate, e.g. ``block:16x1``; smaller at the edges
``n:m``               of every m consecutive columns of a row, n stay, e.g. ``3:32``; this fixes the sparsity
``block-diagonal:k``  k groups of units that do not read each other: of the recurrent weights those inside a group stay
====================  ====================================================================================================

With ``block-diagonal:k`` the recurrence falls apart into k independent ones that can run in parallel. The groups differ in
size by one unit at most and are the same in all gates; they are chosen so that as much score as can be found stays
(:mod:`jali.maths.partition`). The input weights stay whole, and the sparsity of the recurrent ones is 1 − 1/k, or nearly so
where k does not divide the number of units. A training schedule (:class:`jali.Pruner`) finds the groups when it first cuts, and
then removes the weights between them one by one, the worst first.

A group's score is the mean of its weights' scores, so that small groups at an edge compete fairly.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from jali.errors import BudgetError
from jali.maths.partition import balanced_partition


@dataclass(frozen=True)
class Pattern:
    """A parsed pattern. ``block`` (rows, columns), ``per_row`` (n, m) and ``diagonal`` (k) only where the name says so."""

    name: str
    block: tuple[int, int] | None = None
    per_row: tuple[int, int] | None = None
    diagonal: int | None = None

    @staticmethod
    def parse(text: str) -> Pattern:
        """The pattern of this name; :class:`BudgetError` for any other text."""
        if text in ("weight", "gate-aligned"):
            return Pattern(text)
        number = r"(\d{1,9})"
        block = re.fullmatch(f"block:{number}x{number}", str(text))
        ratio = re.fullmatch(f"{number}:{number}", str(text))
        diagonal = re.fullmatch(f"block-diagonal:{number}", str(text))
        if block and min(int(block[1]), int(block[2])) >= 1:
            return Pattern(text, block=(int(block[1]), int(block[2])))
        if ratio and 1 <= int(ratio[1]) < int(ratio[2]):
            return Pattern(text, per_row=(int(ratio[1]), int(ratio[2])))
        if diagonal and int(diagonal[1]) >= 2:
            return Pattern(text, diagonal=int(diagonal[1]))
        raise BudgetError(
            f"pattern {text!r:.80} is unknown; it is 'unit', 'weight', 'gate-aligned', 'block:RxC' with R, C ≥ 1, 'n:m' "
            "with 1 ≤ n < m, or 'block-diagonal:k' with k ≥ 2"
        )

    @property
    def sparsity(self) -> float | None:
        """The sparsity that the pattern fixes, or None; of the recurrent weights for ``block-diagonal:k``."""
        if self.diagonal is not None:
            return 1 - 1 / self.diagonal
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

    def diagonal_groups(self, scores: np.ndarray) -> np.ndarray:
        """Group of every unit, (H,), of a ``block-diagonal:k`` pattern from the scores of recurrent weights (G, H, H)."""
        if self.diagonal is None:
            raise BudgetError(f"pattern {self.name!r} has no diagonal blocks; it needs a budget")
        return balanced_partition(scores.sum(axis=0), self.diagonal)


UNSTRUCTURED = Pattern("weight")
