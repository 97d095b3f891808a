"""Independent parts: the connected components of a relation, the direct factors of a lattice.

Units in different components never influence each other: a network of k components has a block-diagonal
recurrence of k blocks. A lattice factor is the finer notion: the lattice is a product of intervals [0, z], in which
joins and meets are computed factor by factor. Between the two lies the condensation: its stages are block-triangular.

Source: G. Birkhoff, *Lattice Theory*, 3rd ed., AMS 1967, ch. III sec. 8 (the centre of a lattice).
"""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from jali.errors import BudgetError
from jali.maths.lattice import Lattice
from jali.maths.order import number_components, topological_order
from jali.maths.relation import IntArray


def weak_components(relation: npt.ArrayLike) -> IntArray:
    """(n,) number of the component of each element when directions are ignored; numbered by smallest element."""
    return number_components(relation, "weak")


class Stages(NamedTuple):
    """A condensation: ``labels (n,)`` numbers the strong components so that none is influenced by a later one;
    ``stage (components,)`` is the length of the longest path that leads to each."""

    labels: IntArray
    stage: IntArray


def staged_components(relation: npt.ArrayLike) -> Stages:
    """The strong components of ``relation`` (n, n), ``relation[a, b]``: a influences b, in an order in which they can run.

    Components of one stage do not influence each other.
    """
    array = np.asarray(relation)
    labels = number_components(array, "strong")
    count = int(labels.max()) + 1
    between = np.zeros((count, count), dtype=bool)
    a, b = np.nonzero(array)
    between[labels[a], labels[b]] = True
    np.fill_diagonal(between, False)
    order = topological_order(between)
    stage = np.zeros(count, dtype=np.intp)
    for component in order:
        after = between[component]
        stage[after] = np.maximum(stage[after], stage[component] + 1)
    rank = np.lexsort((order.argsort(), stage))  # by stage: what can run together stands together
    return Stages(np.argsort(rank)[labels].astype(np.intp), stage[rank])


def merged(labels: npt.ArrayLike, groups: int) -> IntArray:
    """``labels`` (n,) of parts, put together to ``groups`` groups of about equal size, (n,), numbered by smallest element.

    The largest part first, each to the smallest group so far: the largest group is at most 4/3 − 1/(3·groups) times that of
    the best division. R. L. Graham, "Bounds on multiprocessing timing anomalies", SIAM J. Appl. Math. 17 (1969) 416-429.
    Raises :class:`BudgetError` unless 1 ≤ ``groups`` ≤ number of parts.
    """
    sizes = np.bincount(np.asarray(labels, dtype=np.intp))
    if not 1 <= groups <= len(sizes):
        raise BudgetError(f"{groups} groups of {len(sizes)} parts; give from 1 to {len(sizes)} groups")
    load = [(0, group) for group in range(groups)]
    group_of = np.empty(len(sizes), dtype=np.intp)
    for part in np.argsort(-sizes, kind="stable"):
        size, group = heapq.heappop(load)
        group_of[part] = group
        heapq.heappush(load, (size + int(sizes[part]), group))
    return renumbered(group_of[np.asarray(labels, dtype=np.intp)])


def renumbered(labels: npt.ArrayLike) -> IntArray:
    """The same division (n,), its groups numbered by their smallest element."""
    _, first, inverse = np.unique(np.asarray(labels), return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.intp)


def direct_factors(lattice: Lattice) -> tuple[int, ...]:
    """Elements z₁ … zₘ, ascending, so that x ↦ (x ∧ z₁, …, x ∧ zₘ) maps the lattice onto the product of the [0, zᵢ].

    The finest such decomposition, the atoms of the centre; (top,) for an indecomposable lattice, () for one element.
    """
    central = [z for z in range(len(lattice)) if z != lattice.bottom and _is_central(lattice, z)]
    return tuple(z for z in central if not any(lattice.leq[y, z] for y in central if y != z))


def _is_central(lattice: Lattice, z: int) -> bool:
    """Whether z has a complement y so that x ↦ (x ∧ z, x ∧ y) and (u, v) ↦ u ∨ v are inverse to each other."""
    complements = lattice.complements(z)
    if len(complements) != 1:  # the complement of a central element is unique
        return False
    y, join, meet = int(complements[0]), lattice.join, lattice.meet
    if not np.array_equal(join[meet[:, z], meet[:, y]], np.arange(len(lattice))):
        return False
    u, v = np.flatnonzero(lattice.leq[:, z])[:, None], np.flatnonzero(lattice.leq[:, y])
    joined = join[u, v]
    return bool((meet[joined, z] == u).all() and (meet[joined, y] == v).all())
