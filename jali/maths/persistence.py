"""Persistence of irreducibility over the threshold filtration of a weighted relation.

One fixed threshold on a dense trained network separates nothing: nearly every unit is irreducible at most densities.
So the relation is grown from its strongest entry to its last, and a unit scores by how much of the way it is
irreducible, as features are scored in persistent homology (H. Edelsbrunner, J. Harer, *Computational Topology*, AMS
2010, chapter VII).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jali.errors import BudgetError, ContextError
from jali.jit import njit
from jali.maths.bitset import irreducible_words
from jali.maths.words import Bools

Floats = NDArray[np.float64]
Side = Literal["columns", "rows", "both"]
LEVELS = 256  # ranks the units of a trained 128-unit LSTM as the exact filtration does (Spearman 0.999), in its 1/30


@dataclass(frozen=True, eq=False)
class Filtration:
    """Irreducible columns and rows at each level of a filtration, from sparse to dense; L levels.

    Attributes:
        densities: asked density per level ``(L,)``, strictly increasing, in (0, 1).
        thresholds: weakest weight kept per level ``(L,)``, in units of the weights.
        kept: number of entries kept per level ``(L,)``; more than asked where weights tie, fewer where they are zero.
        columns: irreducible columns per level, mask ``(L, n)``.
        rows: irreducible rows per level, mask ``(L, m)``.
    """

    densities: Floats
    thresholds: Floats
    kept: NDArray[np.int64]
    columns: Bools
    rows: Bools

    @property
    def column_counts(self) -> NDArray[np.int64]:
        """Number of irreducible columns per level ``(L,)``."""
        return self.columns.sum(axis=1)

    @property
    def row_counts(self) -> NDArray[np.int64]:
        """Number of irreducible rows per level ``(L,)``."""
        return self.rows.sum(axis=1)

    @property
    def measure(self) -> Floats:
        """Share of each level in the filtration ``(L,)``, sums to 1: its cell on the logit scale of density.

        The cell of a level reaches halfway to its neighbours; the first and last levels end the range.
        """
        position = logit(self.densities)
        edges = np.concatenate((position[:1], (position[1:] + position[:-1]) / 2, position[-1:]))
        span = edges[-1] - edges[0]
        return np.diff(edges) / span if span else np.ones(1)

    def persistence(self, side: Side = "columns") -> Floats:
        """Measure of the part of the filtration in which each unit is irreducible, in [0, 1].

        ``columns`` gives ``(n,)`` (what a unit drives), ``rows`` ``(m,)`` (what drives it), ``both`` their mean.

        Raises:
            ContextError: an unknown side, or ``both`` of a relation that is not square.
        """
        if side == "columns":
            return self.measure @ self.columns
        if side == "rows":
            return self.measure @ self.rows
        if side != "both":
            raise ContextError(f'side is {side!r}; use "columns", "rows" or "both"')
        if self.rows.shape != self.columns.shape:
            raise ContextError(
                f'side "both" pairs row i with column i, but there are {self.rows.shape[1]} rows and '
                f'{self.columns.shape[1]} columns; use "columns" or "rows"'
            )
        return (self.persistence("rows") + self.persistence("columns")) / 2


def filtration(weights: ArrayLike, densities: ArrayLike | None = None) -> Filtration:
    """Irreducible rows and columns of ``weights (m, n)`` with the strongest entries kept, at growing densities.

    Level p keeps the ``round(p·m·n)`` largest entries, at least one; entries that tie with the last one kept are kept
    too, so that the result does not depend on the order of units, and zeros never are: they are no influence. Hence
    only the order of the positive weights matters, and on a 0/1 matrix every level is the matrix itself.

    Args:
        weights: nonnegative and finite, ``[to, from]`` for a network.
        densities: strictly increasing, in (0, 1); by default :func:`logit_grid`. ``numpy.arange(1, m*n) / (m*n)``
            visits every level that there is, for exact persistence (0.4 s for 128 x 128).

    Raises:
        ContextError: weights that are not a non-empty matrix, negative, NaN or infinite, or without a positive entry.
        BudgetError: densities outside (0, 1) or not increasing.
    """
    matrix = _checked_weights(weights)
    m, n = matrix.shape
    grid = logit_grid(m, n) if densities is None else _checked_densities(densities)
    ranked = np.argsort(-matrix, axis=None, kind="stable")
    kept = _kept(matrix.ravel()[ranked], grid)
    columns, rows = _sweep(ranked, kept, m, n)
    return Filtration(grid, matrix.ravel()[ranked[kept - 1]], kept, columns, rows)


def strongest(weights: ArrayLike, density: float) -> Bools:
    """One level of :func:`filtration`: the incidence ``(m, n)`` of the strongest entries at ``density`` in (0, 1).

    Raises:
        ContextError, BudgetError: as :func:`filtration`.
    """
    matrix = _checked_weights(weights)
    descending = -np.sort(-matrix, axis=None)
    kept = _kept(descending, _checked_densities([density]))
    return matrix >= descending[kept[0] - 1]


def logit_grid(m: int, n: int, levels: int = LEVELS) -> Floats:
    """The default densities: from one entry to all but one, uniform in ``log(p / (1 - p))``.

    Symmetric in p and 1 - p: complementing every context mirrors the grid. It has no free parameter but its fineness.
    A relation of fewer than three entries has one level, at 1/2.
    """
    end = float(logit(1 - 1 / max(m * n, 2)))
    return np.unique(1 / (1 + np.exp(-np.linspace(-end, end, levels))))


def logit(p: ArrayLike) -> Floats:
    """``log(p / (1 - p))`` of densities in (0, 1)."""
    p = np.asarray(p, dtype=np.float64)
    return np.log(p / (1 - p))


def _kept(descending: Floats, densities: Floats) -> NDArray[np.int64]:
    """Entries that each density keeps, ties with the last one included and zeros excluded."""
    asked = np.maximum(np.rint(densities * descending.size).astype(np.int64), 1)
    asked = np.minimum(asked, np.count_nonzero(descending))
    return np.searchsorted(-descending, -descending[asked - 1], side="right")


@njit(cache=True, nogil=True)
def _sweep(ranked, kept, m, n):  # type: ignore[no-untyped-def]
    """Irreducible columns ``(L, n)`` and rows ``(L, m)``, adding the entries to one packed context."""
    rows = np.zeros((m, (n + 63) // 64), np.uint64)
    columns = np.zeros((n, (m + 63) // 64), np.uint64)
    out_columns = np.empty((kept.size, n), np.bool_)
    out_rows = np.empty((kept.size, m), np.bool_)
    done = 0
    for level in range(kept.size):
        if level and kept[level] == done:
            out_columns[level], out_rows[level] = out_columns[level - 1], out_rows[level - 1]
            continue
        for e in range(done, kept[level]):
            i, j = ranked[e] // n, ranked[e] % n
            rows[i, j >> 6] |= np.uint64(1) << np.uint64(j & 63)
            columns[j, i >> 6] |= np.uint64(1) << np.uint64(i & 63)
        done = kept[level]
        out_columns[level] = irreducible_words(rows, columns)
        out_rows[level] = irreducible_words(columns, rows)
    return out_columns, out_rows


def _checked_weights(weights: ArrayLike) -> Floats:
    matrix = np.asarray(weights, dtype=np.float64)
    if matrix.ndim != 2 or not matrix.size:
        raise ContextError(f"weights form a matrix with at least one row and column, these have shape {matrix.shape}")
    if not np.isfinite(matrix).all() or matrix.min() < 0:
        raise ContextError("weights must be finite and nonnegative; join gates and signs first, for example by abs")
    if not matrix.any():
        raise ContextError("no weight is positive: there is no influence to filter")
    return matrix


def _checked_densities(densities: ArrayLike) -> Floats:
    grid = np.atleast_1d(np.asarray(densities, dtype=np.float64))
    if grid.ndim != 1 or not grid.size or not ((grid > 0) & (grid < 1)).all():
        raise BudgetError(f"densities lie strictly between 0 and 1, these are {grid.tolist()}")
    if (np.diff(grid) <= 0).any():
        raise BudgetError(f"densities must strictly increase, these are {grid.tolist()}")
    return grid
