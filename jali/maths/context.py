"""Formal contexts: a binary relation between rows and columns, its closures, and what in it is irreducible.

For a network the rows are the influenced units (to), the columns the influencing ones (from): ``A[to, from]`` cut at a
threshold. A column is the set of rows in which it has a one.

Source: B. Ganter, R. Wille, *Formal Concept Analysis: Mathematical Foundations*, Springer 1999, chapter 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jali.errors import ContextError
from jali.maths.bitset import irreducible_words, strict_meets, transpose
from jali.maths.words import Bools, pack, unpack

Labels = tuple[str, ...]
Classes = tuple[tuple[int, ...], ...]


def as_incidence(relation: ArrayLike) -> Bools:
    """A relation as a boolean matrix ``(rows, columns)``.

    Raises:
        ContextError: not two-dimensional, no rows, no columns, or an entry other than 0, 1, True, False.
    """
    array = np.asarray(relation)
    if array.ndim != 2:
        raise ContextError(f"a context has 2 dimensions (rows, columns), this has shape {array.shape}")
    if not array.size:
        raise ContextError(f"a context needs at least one row and one column, this has shape {array.shape}")
    if array.dtype == np.bool_:
        return array
    if array.dtype.kind not in "iuf" or not np.isin(array, (0, 1)).all():
        raise ContextError("a context holds only 0 and 1; cut real values at a threshold first, for example A > 0.1")
    return array.astype(np.bool_)


@dataclass(frozen=True, eq=False)
class Context:
    """A formal context: ``incidence (rows, columns)``, row ``i`` has column ``j`` where it is True.

    The array is copied and read-only. Labels are optional, one per row and column.

    Raises:
        ContextError: the relation is empty or not binary, or the labels do not fit.
    """

    incidence: Bools
    row_labels: Labels | None = None
    column_labels: Labels | None = None

    def __post_init__(self) -> None:
        incidence = as_incidence(self.incidence).copy()
        incidence.flags.writeable = False
        object.__setattr__(self, "incidence", incidence)
        for name, size in (("row_labels", self.n_rows), ("column_labels", self.n_columns)):
            labels = getattr(self, name)
            if labels is None:
                continue
            if len(labels) != size:
                raise ContextError(f"{name} has {len(labels)} entries for {size}; give one label each")
            object.__setattr__(self, name, tuple(labels))

    @property
    def n_rows(self) -> int:
        """Number of rows (objects)."""
        return self.incidence.shape[0]

    @property
    def n_columns(self) -> int:
        """Number of columns (attributes)."""
        return self.incidence.shape[1]

    @property
    def density(self) -> float:
        """Fraction of ones, in [0, 1]."""
        return float(self.incidence.mean())

    @property
    def T(self) -> Context:
        """The dual context: rows and columns change places."""
        return Context(self.incidence.T, self.column_labels, self.row_labels)

    def intent(self, rows: Bools | Iterable[int]) -> Bools:
        """Derivation ``R' = {column : every row of R has it}``, a mask ``(columns,)``; all columns for no rows.

        ``rows`` is a boolean mask ``(rows,)`` or the indices of the rows.
        """
        return np.all(self.incidence[_mask(rows, self.n_rows, "row")], axis=0)

    def extent(self, columns: Bools | Iterable[int]) -> Bools:
        """Derivation ``C' = {row : it has every column of C}``, a mask ``(rows,)``; all rows for no columns."""
        return np.all(self.incidence[:, _mask(columns, self.n_columns, "column")], axis=1)

    def close_rows(self, rows: Bools | Iterable[int]) -> Bools:
        """The smallest extent that contains the rows, ``R''``."""
        return self.extent(self.intent(rows))

    def close_columns(self, columns: Bools | Iterable[int]) -> Bools:
        """The smallest intent that contains the columns, ``C''``."""
        return self.intent(self.extent(columns))

    def clarify(self) -> Reduction:
        """Merge equal rows and equal columns; the lattice stays the same."""
        row_classes, column_classes = _equal_rows(self.incidence), _equal_rows(self.incidence.T)
        kept = [c[0] for c in row_classes], [c[0] for c in column_classes]
        return Reduction(self._select(*kept), row_classes, column_classes)

    def reduce(self) -> Reduction:
        """Clarify, then drop every reducible row and column: the smallest context with an isomorphic lattice.

        Raises:
            ContextError: every entry is one; then everything is reducible and the lattice has a single element.
        """
        if self.incidence.all():
            raise ContextError("every entry is one: the lattice has one element and the reduced context is empty")
        clear = self.clarify()
        rows, columns = irreducible_rows(clear.context.incidence), irreducible_columns(clear.context.incidence)
        row_classes = tuple(c for c, keep in zip(clear.row_classes, rows, strict=True) if keep)
        column_classes = tuple(c for c, keep in zip(clear.column_classes, columns, strict=True) if keep)
        kept = [c[0] for c in row_classes], [c[0] for c in column_classes]
        return Reduction(self._select(*kept), row_classes, column_classes)

    def arrows(self) -> Arrows:
        """The arrow relations, see :class:`Arrows`."""
        up = _up_arrows(self.incidence)
        return Arrows(down=_up_arrows(self.incidence.T).T, up=up)

    def _select(self, rows: list[int], columns: list[int]) -> Context:
        row_labels = self.row_labels and tuple(self.row_labels[i] for i in rows)
        column_labels = self.column_labels and tuple(self.column_labels[j] for j in columns)
        return Context(self.incidence[np.ix_(rows, columns)], row_labels, column_labels)


@dataclass(frozen=True, eq=False)
class Reduction:
    """A clarified or reduced context, and where its rows and columns come from.

    ``row_classes[i]`` lists the original rows that are equal to row ``i`` of ``context``, the smallest first (the one
    kept); rows in no class were dropped as reducible. Likewise ``column_classes``.
    """

    context: Context
    row_classes: Classes
    column_classes: Classes

    @property
    def rows(self) -> tuple[int, ...]:
        """Original indices of the rows of ``context``."""
        return tuple(c[0] for c in self.row_classes)

    @property
    def columns(self) -> tuple[int, ...]:
        """Original indices of the columns of ``context``."""
        return tuple(c[0] for c in self.column_classes)


@dataclass(frozen=True, eq=False)
class Arrows:
    """Arrow relations, masks ``(rows, columns)`` (Ganter & Wille 1999, section 1.2).

    ``up[g, m]`` (g ↗ m): row g lacks m but has every column that strictly contains m.
    ``down[g, m]`` (g ↙ m): row g lacks m but every row that strictly contains g has m.
    A column is irreducible iff some row points up to it; a row iff it points down to some column.
    """

    down: Bools
    up: Bools

    @property
    def double(self) -> Bools:
        """g ⤢ m: both arrows."""
        return self.down & self.up


def irreducible_columns(incidence: ArrayLike) -> Bools:
    """Which columns are (meet-)irreducible, a mask ``(columns,)``.

    A column is irreducible iff it is not the intersection of the columns that strictly contain it. The intersection of
    none is the set of all rows, so a full column is reducible. Equal columns share the verdict. Nothing is enumerated:
    the supersets of a column are the intersection of the rows in which it has a one, O(n³ / 64) word operations in the
    worst case (Ganter & Wille 1999, section 1.2).

    Raises:
        ContextError: the relation is empty or not binary.
    """
    relation = as_incidence(incidence)
    rows = pack(relation)
    return irreducible_words(rows, transpose(rows, relation.shape[1]))


def irreducible_rows(incidence: ArrayLike) -> Bools:
    """Which rows are irreducible, a mask ``(rows,)``: :func:`irreducible_columns` of the dual context."""
    relation = as_incidence(incidence)
    rows = pack(relation)
    return irreducible_words(transpose(rows, relation.shape[1]), rows)


def reducing_columns(incidence: ArrayLike, column: int) -> NDArray[np.int64] | None:
    """Witness that a column is reducible: columns that strictly contain it and whose intersection it is.

    The witness is small (greedy set cover of the rows outside ``column``) and sorted; it is empty for a full column,
    the intersection of none. None if the column is irreducible.

    Raises:
        ContextError: the relation is empty or not binary, or there is no such column.
    """
    relation = as_incidence(incidence)
    if not 0 <= column < relation.shape[1]:
        raise ContextError(f"column {column} is outside 0 .. {relation.shape[1] - 1}")
    target = relation[:, column]
    above = np.flatnonzero((relation >= target[:, None]).all(axis=0) & (relation != target[:, None]).any(axis=0))
    cuts = ~relation[:, above]  # (rows, supersets): the rows that a superset removes from the intersection
    left = ~target
    if not (cuts.any(axis=1) >= left).all():
        return None
    chosen: list[int] = []
    while left.any():
        best = int(np.argmax(cuts[left].sum(axis=0)))
        chosen.append(int(above[best]))
        left &= ~cuts[:, best]
    return np.array(sorted(chosen), dtype=np.int64)


def _up_arrows(incidence: Bools) -> Bools:
    rows = pack(incidence)
    columns = transpose(rows, incidence.shape[1])
    return unpack(strict_meets(rows, columns) & ~columns, incidence.shape[0]).T


def _equal_rows(incidence: Bools) -> Classes:
    classes: dict[bytes, list[int]] = {}
    for i, row in enumerate(pack(incidence)):
        classes.setdefault(row.tobytes(), []).append(i)
    return tuple(tuple(c) for c in classes.values())


def _mask(selection: Bools | Iterable[int], size: int, kind: str) -> Bools:
    chosen = np.asarray(selection if isinstance(selection, np.ndarray) else list(selection))
    if chosen.dtype == np.bool_:
        if chosen.shape != (size,):
            raise ContextError(f"a {kind} mask has shape ({size},), this has {chosen.shape}")
        return chosen
    indices = chosen.astype(np.int64)
    if ((indices < 0) | (indices >= size)).any():
        raise ContextError(f"{kind} indices lie in 0 .. {size - 1}, these are {indices.tolist()}")
    out = np.zeros(size, dtype=np.bool_)
    out[indices] = True
    return out
