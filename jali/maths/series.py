"""What can be wrong with one series of a batch, and the parts that tests of series share."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jali.errors import DataError

Floats = NDArray[np.float64]
Codes = NDArray[np.int8]

# In the order of the codes. A test that has a problem has no p-value.
PROBLEMS = ("", "not finite", "constant", "too short", "singular", "perfect fit", "nonstationary")
FINE, NOT_FINITE, CONSTANT, TOO_SHORT, SINGULAR, PERFECT_FIT, NONSTATIONARY = range(len(PROBLEMS))


def words(codes: Codes) -> list[str]:
    """The problem of every series in words, "" for none."""
    return [PROBLEMS[code] for code in codes]


def as_series(name: str, values: ArrayLike) -> Floats:
    """Series ``(S, T)`` as floats, one per row; ``(T,)`` is one. Raises DataError for other shapes and other things."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} is no array of real numbers ({error}); give (S, T), one series per row") from None
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2 or not array.shape[1]:
        raise DataError(f"{name} has shape {array.shape}; give (S, T), one series of T > 0 values per row")
    return array


def standardized(series: Floats, order: int = 0) -> tuple[Floats, Codes, Floats]:
    """Every series after ``order`` differences, less its mean, over its largest deviation: values, problems, rounding.

    No test here depends on the place or the scale of a series, but rounding does. Rounding, ``(S,)``, bounds the
    rounding errors of the values. A series is constant if its values differ by no more than that; it becomes zero, as does one
    that is not finite.
    """
    codes = np.where(np.isfinite(series).all(axis=1), FINE, NOT_FINITE).astype(np.int8)
    if series.shape[1] <= order:
        codes[codes == FINE] = TOO_SHORT
        return np.zeros((len(series), 0)), codes, np.zeros(len(series))
    values = np.where(codes[:, None] == FINE, series, 0.0)
    size = np.abs(values).max(axis=1, keepdims=True)
    values = np.diff(np.divide(values, size, out=np.zeros_like(values), where=size > 0), order)
    values -= values.mean(axis=1, keepdims=True)
    spread = np.abs(values).max(axis=1, keepdims=True)
    rounding = 4 * 2**order * np.finfo(float).eps
    moves = spread > rounding
    codes[(codes == FINE) & ~moves[:, 0]] = CONSTANT
    values = np.divide(values, spread, out=np.zeros_like(values), where=moves)
    return values, codes, np.divide(rounding, spread, out=np.zeros_like(spread), where=moves)[:, 0]
