"""Hypothesis strategies for contexts and weighted relations, and the plain references that the tests compare with."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp


def shapes(most: int = 8) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(1, most), st.integers(1, most))


def incidences(most: int = 8) -> st.SearchStrategy[np.ndarray]:
    """Small boolean relations of every density, ties and duplicates included."""
    return shapes(most).flatmap(lambda shape: hnp.arrays(np.bool_, shape))


def weights(most: int = 7, positive: bool = True) -> st.SearchStrategy[np.ndarray]:
    """Nonnegative matrices with many ties and zeros; ``positive``: at least one entry above zero."""
    values = st.sampled_from([0.0, 0.0, 0.125, 0.25, 0.3, 0.5, 0.7, 1.0, 3.0])
    matrices = shapes(most).flatmap(lambda shape: hnp.arrays(np.float64, shape, elements=values))
    return matrices.filter(np.any) if positive else matrices


def seeds() -> st.SearchStrategy[np.random.Generator]:
    return st.integers(0, 2**32 - 1).map(np.random.default_rng)


def irreducible_by_sets(incidence: np.ndarray) -> list[bool]:
    """The definition with Python sets: a column against the intersection of the columns that strictly contain it."""
    columns = [set(np.flatnonzero(column).tolist()) for column in incidence.T]
    verdicts = []
    for column in columns:
        meet = set(range(incidence.shape[0]))
        for other in columns:
            if column < other:
                meet &= other
        verdicts.append(meet != column)
    return verdicts


def concepts_by_intersection(incidence: np.ndarray) -> set[tuple[frozenset[int], frozenset[int]]]:
    """All concepts: the extents are the intersections of columns, the empty intersection included."""
    columns = [frozenset(np.flatnonzero(column).tolist()) for column in incidence.T]
    extents = {frozenset(range(incidence.shape[0]))}
    for column in columns:
        extents |= {extent & column for extent in extents}
    return {(extent, frozenset(j for j, column in enumerate(columns) if extent <= column)) for extent in extents}


def contranominal(n: int) -> np.ndarray:
    """(n, n, ≠): the context of the Boolean lattice with n atoms."""
    return ~np.eye(n, dtype=bool)
