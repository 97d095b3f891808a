"""The budget ``ramanujan``: how sparse a matrix can be before its graph loses a spectral bound."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

from jali.maths.spectral import expansion
from jali.plans.budget import Budget

FINEST, COARSEST = 0.01, 0.1  # steps between the densities that are asked for, as a fraction of the edges
LEAST_DEGREE = 3  # "d-regular (d ≥ 3)": of smaller degrees the paper's definition does not speak


def kept_expanders(scores: np.ndarray, budget: Budget) -> np.ndarray:
    """Keep mask (G, H, I): the best weights of every gate, as few as :func:`edges_at_loss` says.

    Never fewer than a mean degree of 3: of graphs with fewer edges a bound says nothing, as they fall into pieces. What scores
    −∞ is no edge and goes.
    """
    keep = np.zeros(scores.shape, dtype=bool)
    for gate, own in zip(keep, scores, strict=True):
        order = np.lexsort((np.arange(own.size), -own.ravel())).reshape(own.shape)
        least = math.ceil(LEAST_DEGREE * sum(own.shape) / 2)
        edges = int((own > -math.inf).sum())
        gate.ravel()[order.ravel()[: edges_at_loss(order, str(budget.ramanujan), budget.margin, least, edges)]] = True
    return keep


def edges_at_loss(order: np.ndarray, bound: str, margin: float = 0.0, least: int = 1, edges: int | None = None) -> int:
    """How many entries must stay so that Δ has not yet fallen below ``margin``, on the way from the full matrix.

    Or from the first ``edges`` of the order, where the others are none; all of these if the bound is lost there already.

    ``order (m, n)``: all indices into the flat matrix, the first to stay first, in the shape of the matrix. The full matrix is
    a complete graph, λ2 = 0, and keeps every bound. From there the edges go in steps: an eighth of Δ − margin as a fraction of
    the edges, within 1 % and 10 %, and at least one. A Δ that is undefined has fallen. The first loss between two steps is
    found to the edge by bisection; a loss that is over within one step is not seen. Below it Δ may rise again. "The largest
    sparsity at which the bound has not become negative for the first time", as in Table 2 of the paper. At least ``least``
    entries stay; mn if the first step has lost the bound already.
    """
    shape, flat = order.shape, order.ravel()

    def above(count: int) -> float:
        mask = np.zeros(flat.size, dtype=bool)
        mask[flat[:count]] = True
        delta = expansion(mask.reshape(shape)).delta(bound)
        return -math.inf if delta is None else delta - margin

    good, slack = flat.size if edges is None else edges, math.inf
    least = min(least, good)
    if good < flat.size and above(good) < 0:
        return good
    while good > least:
        step = max(int(good * min(max(slack / 8, FINEST), COARSEST)), 1)
        asked = max(good - step, least)
        slack = above(asked)
        if slack < 0:
            return _first_loss(above, good, asked)
        good = asked
    return good


def in_pieces(name: str, masks: Iterable[np.ndarray]) -> str | None:
    """A note on a site whose ``masks (G, H, I)`` are not all connected graphs: a bound alone does not see to that."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    gates = [gate for mask in masks for gate in mask]
    broken = alone = 0
    for gate in gates:
        m, n = gate.shape
        rows, columns = np.nonzero(gate)
        graph = coo_matrix((np.ones(len(rows)), (rows, columns + m)), shape=(m + n, m + n))
        broken += connected_components(graph, directed=False)[0] > 1
        alone += int((~gate.any(axis=1)).sum() + (~gate.any(axis=0)).sum())
    if not broken:
        return None
    lost = f"; units and inputs in them without any weight: {alone}" if alone else ""
    return (
        f"{broken} of the {len(gates)} matrices of {name!r} fall into pieces{lost}; a larger margin keeps more, and criterion "
        "'expander' keeps them together for longer"
    )


def _first_loss(above: Callable[[int], float], good: int, bad: int) -> int:
    """Bisection: the bound holds with ``good`` edges and is lost with ``bad``."""
    while good - bad > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if above(middle) >= 0 else (good, middle)
    return good
