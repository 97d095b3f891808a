"""Least squares of many small regressions, for compiled loops: Householder's reflections and what they leave of a target.

A regression is an array ``a`` of ``(columns, rows)``, one regressor or target in each row of the array, so that a column is
contiguous. After :func:`reflect` the first entries of a target are its coordinates along the regressors, in their order, and
the rest is what they do not explain: the residual sums of squares of all nested regressions are tail sums of one target,
without a difference of large numbers.

Source: G. H. Golub, C. F. Van Loan, Matrix Computations, 4th ed. (2013), secs. 5.1 and 5.3.3.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jali.jit import njit

# A regressor that the others explain up to this share of its length leaves a direction made of rounding errors: half of the
# digits are kept for what depends on it.
DEPENDENT = float(np.sqrt(np.finfo(np.float64).eps))
_SUMS = {"reassoc", "contract", "nsz"}  # sums in any order, or they are not vectors


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_SUMS)
def dot(a: Any, b: Any, start: int) -> float:
    """Σ a[t] b[t] from ``start`` on."""
    total = 0.0
    for t in range(start, len(a)):
        total += a[t] * b[t]
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def reflect(a: Any, regressors: int, filled: Any) -> bool:
    """Turn the first ``regressors`` columns of ``a`` into a triangle, in place, and the others with them.

    ``filled[j]`` becomes the number of independent columns among the first j (``filled`` has ``regressors + 1`` entries);
    ``a[j, filled[j]]`` is then the diagonal entry of column j. A dependent column is passed over. Answers whether all are
    independent.
    """
    columns, rows = a.shape
    filled[0] = 0
    for j in range(regressors):
        at = filled[j]
        column = a[j]
        left = dot(column, column, at)
        if at >= rows or not left > DEPENDENT * DEPENDENT * dot(column, column, 0):
            filled[j + 1] = at
            continue
        filled[j + 1] = at + 1
        diagonal = -np.sqrt(left) if column[at] > 0 else np.sqrt(left)
        head = (
            column[at] - diagonal
        )  # the reflector is (head, column[at + 1:]); its squared length is −2 diagonal · head
        column[at] = head
        scale = -1.0 / (diagonal * head)
        for k in range(j + 1, columns):
            other = a[k]
            share = scale * dot(column, other, at)
            for t in range(at, rows):
                other[t] -= share * column[t]
        column[at] = diagonal
    return bool(filled[regressors] == regressors)


@njit(cache=True, nogil=True, error_model="numpy")
def noise(target: Any, rounding: float) -> float:
    """The residual sum of squares up to which a fit of ``target``, not yet turned, is perfect: what is left is rounding.

    That is 2^−52 of Σ (y − ȳ)², or what errors of the size ``rounding`` in every value amount to.
    """
    mean = target.mean()
    total = 0.0
    for value in target:
        total += (value - mean) ** 2
    return max(np.finfo(np.float64).eps * total, len(target) * rounding**2)
