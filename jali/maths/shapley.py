"""Exact Shapley values of the features of a prediction.

The value of a set S of features is the mean of f over a background, with the features of S taken from the example. A feature's
Shapley value is what it adds, averaged over all orders in which the features can come:
φ_i = Σ_{S ∌ i} |S|! (n − |S| − 1)! / n! (v(S ∪ {i}) − v(S)). All 2^n sets are evaluated, so n is small.

Source: L. S. Shapley, "A value for n-person games" (1953); S. M. Lundberg, S.-I. Lee, "A unified approach to interpreting model
predictions", NIPS 2017 (the "interventional" value function).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jali.errors import DataError, LimitError

Floats = NDArray[np.float64]
MOST = 14  # features: 16 384 sets
_CHUNK = 1 << 16  # rows that f is given at a time


def shapley(f: Callable[[Floats], Floats], x: ArrayLike, background: ArrayLike) -> Floats:
    """Shapley values ``(E, F, K)`` of the features of the examples ``x`` (E, F) for the outputs of ``f``: (rows, F) → (rows, K).

    ``background`` (B, F): what features that are not known are averaged over. The values of an example sum to
    f(example) − mean of f over the background. Costs E · B · 2^F rows.

    Raises :class:`DataError` for arrays of other shapes, :class:`LimitError` for more than 14 features.
    """
    examples, base = np.asarray(x, dtype=np.float64), np.asarray(background, dtype=np.float64)
    if examples.ndim != 2 or base.ndim != 2 or examples.shape[1] != base.shape[1] or not len(base) or not len(examples):
        raise DataError(f"examples {examples.shape} and background {base.shape} are not (E, F) and (B, F)")
    n = examples.shape[1]
    if n > MOST:
        raise LimitError(f"{n} features have 2^{n} sets; exact values are for at most {MOST}, sample them for more")
    known = (np.arange(2**n)[:, None] >> np.arange(n)) & 1 > 0  # (sets, F)
    values = np.stack([_values(f, example, base, known) for example in examples])  # (E, sets, K)
    size = known.sum(axis=1)
    out = np.zeros((len(examples), n, values.shape[2]))
    for feature in range(n):
        without = np.flatnonzero(~known[:, feature])
        weights = np.array([1 / (n * math.comb(n - 1, int(size[s]))) for s in without])
        gain = values[:, without + (1 << feature)] - values[:, without]
        out[:, feature] = np.einsum("s,esk->ek", weights, gain)
    return out


def _values(f: Callable[[Floats], Floats], example: Floats, base: Floats, known: NDArray[np.bool_]) -> Floats:
    """The mean of f over the background for each set of known features, (sets, K)."""
    step = max(_CHUNK // len(base), 1)
    out = []
    for start in range(0, len(known), step):
        rows = np.where(known[start : start + step, None], example, base[None])  # (s, B, F)
        found = np.asarray(f(rows.reshape(-1, base.shape[1])))
        out.append(found.reshape(len(rows), len(base), -1).mean(axis=1))
    return np.concatenate(out)
