"""Graded irreducibility: the binary test carried over to real weights by residuated algebras.

In a residuated lattice on [0, 1] with conjunction ⊗ and residuum → (``x ⊗ y ≤ z`` iff ``x ≤ y → z``), column a contains
column b to the degree ``S(b, a) = inf_i b_i → a_i``. The intersection of the columns that contain b becomes

    M_i = inf_k  S(b, a_k) → a_k,i                       over the columns a_k other than b,

the least element above b of all that meets and shifts ``x → ·`` make from the other columns: the fuzzy closure of b in
the context without b (R. Bělohlávek, *Concept lattices and order in fuzzy logic*, APAL 128, 2004). The degrees S are
the principal solution of that residuated system. Column b is irreducible to the degree to which M and b differ,

    1 − inf_i (M_i ↔ b_i)  =  sup_i 1 − (M_i → b_i),

one minus the truth of "b is the intersection of the columns that contain it", with the algebra's own equality ↔.

On a 0/1 matrix S is 1 exactly for the columns that contain b, and the degree is the binary verdict, 0 or 1, exactly.
The binary test compares with strictly larger columns; here this is had by clarifying: columns equal to b are left out.
So a duplicate shares its verdict, while a column that is merely close to b makes b nearly reducible.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jali.errors import ContextError
from jali.jit import njit

Floats = NDArray[np.float64]
Algebra = Literal["godel", "lukasiewicz", "goguen", "min-plus"]
ALGEBRAS: tuple[str, ...] = get_args(Algebra)
_GODEL, _LUKASIEWICZ, _PRODUCT = 0, 1, 2
_KERNEL = {"godel": _GODEL, "lukasiewicz": _LUKASIEWICZ, "goguen": _PRODUCT, "min-plus": _PRODUCT}


@dataclass(frozen=True, eq=False)
class GradedIrreducibility:
    """How far each column is from the intersection of the others that contain it.

    Attributes:
        algebra: one of :data:`ALGEBRAS`.
        scaled: the weights as degrees in [0, 1], ``(m, n)``.
        meet: the graded intersection of the other columns above each column, in [0, 1], ``(m, n)``; ``meet ≥ scaled``.
        gap: ``1 − (meet → scaled)`` per entry, in [0, 1], ``(m, n)``.
    """

    algebra: Algebra
    scaled: Floats
    meet: Floats
    gap: Floats

    @property
    def degree(self) -> Floats:
        """Degree of irreducibility per column, in [0, 1], ``(n,)``: the largest gap. 0 is exactly reducible."""
        return self.gap.max(axis=0)

    @property
    def mean_gap(self) -> Floats:
        """Mean gap per column, in [0, 1], ``(n,)``: zero where :attr:`degree` is, and less easily saturated."""
        return self.gap.mean(axis=0)


def graded_irreducibility(weights: ArrayLike, algebra: Algebra = "lukasiewicz") -> GradedIrreducibility:
    """Graded (meet-)irreducibility of the columns of ``weights (m, n)``; of the rows, pass the transpose.

    * ``godel``: ``x ⊗ y = min(x, y)``. Only the order of the entries counts; any gap costs ``1 − b_i`` at once.
    * ``lukasiewicz``: ``max(0, x + y − 1)``. Gaps are differences ``M − b``.
    * ``goguen``: ``x · y``. Gaps are relative, ``1 − b / M``.
    * ``min-plus``: costs ``c = −log w`` in (ℝ, min, +), where a column may be shifted by any finite cost, up or down;
      the principal solution is ``λ_k = min_i c_i − c_k,i`` and ``M`` has the costs ``max_k λ_k + c_k``
      (R. Cuninghame-Green, *Minimax Algebra*, 1979; P. Butkovič, *Max-linear Systems*, 2010, chapter 3). As ⊗ is a
      product of weights, this is ``goguen`` after each non-zero column is scaled to maximum 1: the shape of a column
      counts, not its strength, and proportional columns are the duplicates that are left out.

    For the other algebras the whole matrix is divided by its maximum. O(m·n²) time.

    Raises:
        ContextError: weights that are not a non-empty matrix, negative, NaN or infinite, or an unknown algebra.
    """
    if algebra not in _KERNEL:
        raise ContextError(f"algebra is {algebra!r}; use one of {', '.join(ALGEBRAS)}")
    matrix = np.asarray(weights, dtype=np.float64)
    if matrix.ndim != 2 or not matrix.size:
        raise ContextError(f"weights form a matrix with at least one row and column, these have shape {matrix.shape}")
    if not np.isfinite(matrix).all() or matrix.min() < 0:
        raise ContextError("weights must be finite and nonnegative; join gates and signs first, for example by abs")
    largest = matrix.max(axis=0) if algebra == "min-plus" else matrix.max()
    scaled = matrix / np.where(largest > 0, largest, 1.0)
    columns = np.ascontiguousarray(scaled.T)
    duplicates = np.unique(columns, axis=0, return_inverse=True)[1].ravel()
    meet, gap = _gaps(columns, duplicates, _KERNEL[algebra])
    return GradedIrreducibility(algebra, scaled, meet.T, gap.T)


def conjunction(x: ArrayLike, y: ArrayLike, algebra: Algebra) -> Floats:
    """``x ⊗ y`` of degrees in [0, 1], elementwise; for ``min-plus`` the product, which adds the costs."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    kind = _KERNEL[algebra]
    if kind == _GODEL:
        return np.minimum(x, y)
    return np.maximum(0.0, x + y - 1.0) if kind == _LUKASIEWICZ else x * y


def residuum(x: ArrayLike, y: ArrayLike, algebra: Algebra) -> Floats:
    """``x → y`` of degrees in [0, 1], elementwise: the largest z with ``x ⊗ z ≤ y``; 1 where ``x ≤ y``."""
    x, y = np.broadcast_arrays(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64))
    return _residua(x.ravel(), y.ravel(), _KERNEL[algebra]).reshape(x.shape)


@njit(cache=True, nogil=True, inline="always")
def _residuum(x, y, kind):  # type: ignore[no-untyped-def]
    if x <= y:
        return 1.0
    if kind == _GODEL:
        return y
    if kind == _LUKASIEWICZ:
        return 1.0 - (x - y)
    return y / x


@njit(cache=True, nogil=True)
def _residua(x, y, kind):  # type: ignore[no-untyped-def]
    out = np.empty(x.size)
    for i in range(x.size):
        out[i] = _residuum(x[i], y[i], kind)
    return out


@njit(cache=True, nogil=True)
def _gaps(columns, duplicates, kind):  # type: ignore[no-untyped-def]
    """Meets and gaps, both ``(n, m)``, of columns given as rows ``(n, m)`` and their classes of equals ``(n,)``."""
    n, m = columns.shape
    meet, gap = np.ones((n, m)), np.empty((n, m))
    for j in range(n):
        b = columns[j]
        for k in range(n):
            if duplicates[k] == duplicates[j]:
                continue
            a = columns[k]
            contains = 1.0
            for i in range(m):
                contains = min(contains, _residuum(b[i], a[i], kind))
            if contains == 0.0:  # 0 → a is 1: no constraint
                continue
            for i in range(m):
                meet[j, i] = min(meet[j, i], _residuum(contains, a[i], kind))
        for i in range(m):
            meet[j, i] = max(meet[j, i], b[i])  # M ≥ b; this takes off the rounding below
            gap[j, i] = 1.0 - _residuum(meet[j, i], b[i], kind)
    return meet, gap
