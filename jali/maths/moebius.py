"""The Möbius function of a finite poset, in exact integers.

μ(x, x) = 1 and μ(x, y) = −Σ_{x ≤ z < y} μ(x, z) for x < y; 0 where x ≰ y. It inverts the zeta function,
ζ(x, y) = [x ≤ y]. Source: G.-C. Rota, "On the foundations of combinatorial theory I. Theory of Möbius functions",
Z. Wahrscheinlichkeitstheorie 2 (1964) 340-368; R. P. Stanley, *Enumerative Combinatorics* 1, 2nd ed., sec. 3.7.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from jali.maths.relation import as_elements, as_poset

# Möbius numbers grow exponentially (an ordinal sum of h antichains of 4 has 3^h): leave int64 well before it wraps.
_INT64_SAFE = 2.0**62


def zeta(leq: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """ζ (n, n): 1 where x ≤ y, else 0. Raises ContextError if ``leq`` is not a partial order."""
    return as_poset(leq).astype(np.int64)


def moebius(leq: npt.ArrayLike) -> npt.NDArray[Any]:
    """μ (n, n), ``mu[x, y]`` = μ(x, y), so that μζ = ζμ = 1. O(n³).

    dtype int64; where a value may pass 2^62 the whole array is of Python integers (dtype object): never rounded, never
    wrapped.
    Raises ContextError if ``leq`` is not a partial order.
    """
    array = as_poset(leq)
    order = np.argsort(array.sum(axis=0), kind="stable")
    below = np.ascontiguousarray(array[np.ix_(order, order)].T)  # below[y, z]: z ≤ y, lower triangular
    values: npt.NDArray[Any] = np.zeros(array.shape, dtype=np.int64)  # values[y, x] = μ(x, y): sums run over whole rows
    bound = np.zeros(array.shape, dtype=np.float64)  # |values|
    for y in range(len(array)):
        strictly = np.flatnonzero(below[y, :y])
        total = bound[strictly].sum(axis=0)
        if values.dtype != object and total.max(initial=0.0) >= _INT64_SAFE:
            values = values.astype(object)
        values[y] = -values[strictly].sum(axis=0)
        values[y, y] = 1
        bound[y] = np.abs(values[y].astype(np.float64))
    position = np.argsort(order)
    return values.T[np.ix_(position, position)]


def moebius_from(leq: npt.ArrayLike) -> npt.NDArray[np.object_]:
    """μ(0̂, y) (n,) for every y, after a bottom 0̂ is put below the whole poset; Python integers, exact. O(n²).

    μ(0̂, y) = −1 − Σ_{z < y} μ(0̂, z): −1 for a minimal element, (number of elements below) − 1 where these are minimal.
    Raises ContextError if ``leq`` is not a partial order.
    """
    array = as_poset(leq)
    values = np.zeros(len(array), dtype=object)
    for y in np.argsort(array.sum(axis=0), kind="stable"):
        values[y] = -1 - values[array[:, y]].sum()  # y itself is still 0
    return values


def moebius_interval(leq: npt.ArrayLike, x: int, y: int) -> int:
    """μ(x, y) alone, from the interval [x, y]; 0 where x ≰ y. O(m²) for an interval of m elements."""
    array = as_poset(leq)
    as_elements((x, y), len(array))
    inside = np.flatnonzero(array[x] & array[:, y])
    part = array[np.ix_(inside, inside)]
    order = np.argsort(part.sum(axis=0), kind="stable")
    values: dict[int, int] = {}
    for place, b in enumerate(order):
        values[int(b)] = 1 if place == 0 else -sum(values[int(a)] for a in order[:place] if part[a, b])
    return values[int(order[-1])] if values else 0
