"""Where to draw the elements of a Hasse diagram: layers by rank, few crossings.

The layered method of K. Sugiyama, S. Tagawa, M. Toda, "Methods for visual understanding of hierarchical system
structures", IEEE Trans. SMC 11 (1981) 109-125: an element's layer is the length of the longest chain below it; edges
that span several layers get a place in each; the order within a layer follows the barycentre of the neighbours, swept
up and down, and the sweep with the fewest crossings is kept. Everything is deterministic.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from jali.maths.chains import ranks
from jali.maths.order import covers_of, reflexive_transitive_closure, topological_order
from jali.maths.relation import IntArray

_SWEEPS = 12  # barycentre sweeps settle or cycle well before

Layers = list[list[int]]
Neighbours = list[list[int]]


@dataclass(frozen=True, eq=False)
class HasseLayout:
    """Coordinates of the n elements and the edges of the diagram.

    ``x`` (n,) is centred on 0, neighbours in a layer are at least 1 apart; ``rank`` (n,) is the layer, 0 for minimal
    elements, and serves as y; ``edges`` (m, 2) are pairs (lower, upper) of covering elements; ``crossings`` counts the
    crossings of the edges as routed through the layers.
    """

    x: npt.NDArray[np.float64]
    rank: IntArray
    edges: IntArray
    crossings: int

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, for JSON."""
        return {
            "x": self.x.tolist(),
            "rank": self.rank.tolist(),
            "edges": self.edges.tolist(),
            "crossings": self.crossings,
        }


def hasse_layout(relation: npt.ArrayLike) -> HasseLayout:
    """Layout of the poset that an acyclic relation (n, n) generates: an order, its covers, or anything between.

    Raises ContextError if the relation has a cycle.
    """
    topological_order(relation)
    leq = reflexive_transitive_closure(relation)
    rank = ranks(leq)
    edges = np.argwhere(covers_of(leq)).astype(np.intp)
    layers, lower, upper = _layered(rank, edges)
    layers, crossings = _untangle(layers, lower, upper)
    x = np.zeros(len(rank))
    for layer in layers:
        for place, vertex in enumerate(layer):
            if vertex < len(rank):
                x[vertex] = place - (len(layer) - 1) / 2
    return HasseLayout(x, rank, edges, crossings)


def _layered(rank: IntArray, edges: IntArray) -> tuple[Layers, Neighbours, Neighbours]:
    """Vertices by layer, and the neighbours of each in the next layers down and up; from n on: bends of long edges."""
    layers: Layers = [[] for _ in range(int(rank.max()) + 1)]
    for vertex, layer in enumerate(rank):
        layers[int(layer)].append(vertex)
    lower: Neighbours = [[] for _ in rank]
    upper: Neighbours = [[] for _ in rank]
    for low, high in edges.tolist():
        last = low
        for layer in range(int(rank[low]) + 1, int(rank[high]) + 1):
            if layer == rank[high]:
                vertex = high
            else:
                vertex = len(lower)
                layers[layer].append(vertex)
                lower.append([])
                upper.append([])
            upper[last].append(vertex)
            lower[vertex].append(last)
            last = vertex
    return layers, lower, upper


def _untangle(layers: Layers, lower: Neighbours, upper: Neighbours) -> tuple[Layers, int]:
    """The order within layers, of those met by the sweeps, that has the fewest crossings, and their number."""
    best, fewest = layers, _crossings(layers, upper)
    for sweep in range(_SWEEPS):
        if fewest == 0:
            break
        upwards = sweep % 2 == 0
        layers = _sweep(layers, lower if upwards else upper, upwards)
        crossings = _crossings(layers, upper)
        if crossings < fewest:
            best, fewest = layers, crossings
    return best, fewest


def _sweep(layers: Layers, fixed: Neighbours, upwards: bool) -> Layers:
    """Reorder one layer after the other by the mean place of the neighbours in the layer before it."""
    result = [list(layer) for layer in layers]
    levels = range(1, len(layers)) if upwards else range(len(layers) - 2, -1, -1)
    for level in levels:
        before = result[level - 1 if upwards else level + 1]
        # Places run from -1/2 to 1/2 in every layer, so that a vertex without neighbours can keep its relative place.
        place = {vertex: (i + 0.5) / len(before) for i, vertex in enumerate(before)}
        own = {vertex: (i + 0.5) / len(result[level]) for i, vertex in enumerate(result[level])}
        centre = {
            vertex: sum(place[w] for w in fixed[vertex]) / len(fixed[vertex]) if fixed[vertex] else own[vertex]
            for vertex in result[level]
        }
        result[level].sort(key=centre.__getitem__)  # stable: ties keep their order
    return result


def _crossings(layers: Layers, upper: Neighbours) -> int:
    """Pairs of edges between neighbouring layers that cross: inversions of the upper ends, read by the lower ends."""
    total = 0
    for level in range(len(layers) - 1):
        place = {vertex: i for i, vertex in enumerate(layers[level + 1])}
        ends: list[int] = []
        for vertex in layers[level]:
            reached = sorted(place[w] for w in upper[vertex])
            total += sum(len(ends) - bisect_right(ends, end) for end in reached)
            for end in reached:
                insort(ends, end)
    return total
