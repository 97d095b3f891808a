"""Directed weighted modularity: how much more weight lies inside communities than their degrees would put there.

``Q = 1/W Σ_ij (A_ij − k_i^out k_j^in / W) δ(c_i, c_j)``, paper 1, section III.E.1; E. A. Leicht, M. E. J. Newman, "Community
structure in directed networks", Phys. Rev. Lett. 100 (2008) 118703. −1 ≤ Q < 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jali.errors import ContextError
from jali.plain import seed_of


@dataclass(frozen=True, eq=False)
class Communities:
    """A partition and its modularity: ``labels (n,)`` numbered by their smallest unit, ``q``, and what a reader must know."""

    labels: NDArray[np.int64]
    q: float
    notes: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        return int(self.labels.max()) + 1

    @property
    def sizes(self) -> tuple[int, ...]:
        """Units per community, in the order of the labels."""
        return tuple(np.bincount(self.labels).tolist())


def modularity(weights: ArrayLike, labels: ArrayLike) -> float:
    """Q of the partition ``labels (n,)`` of the digraph ``weights (n, n)``, nonnegative.

    ``A`` and its transpose have the same Q, so ``[to, from]`` and ``[from, to]`` may both be given. Without any edge there
    is no weight to divide, and Q is 0 by definition.
    Raises :class:`ContextError` for weights that are not square, finite and nonnegative, or labels that do not fit.
    """
    matrix, labels = _checked(weights), np.asarray(labels)
    if labels.shape != (len(matrix),):
        raise ContextError(f"labels has shape {labels.shape}; one label for each of {len(matrix)} units is wanted")
    scale = matrix.max()
    if scale == 0:
        return 0.0
    matrix = matrix / scale  # sums of huge weights stay finite
    member = np.unique(labels, return_inverse=True)[1][:, None] == np.arange(len(np.unique(labels)))
    inside = np.einsum("ic,ij,jc->c", member, matrix, member, optimize=True)
    out, into = matrix.sum(axis=1) @ member, matrix.sum(axis=0) @ member
    total = matrix.sum()
    return float(np.sum(inside / total - (out / total) * (into / total)))


def communities(weights: ArrayLike, seed: int = 0) -> Communities:
    """A partition of large modularity, by the Louvain method of networkx; the same ``seed`` gives the same one.

    Louvain finds a local optimum. It never moves a unit without an edge: that stays a community of its own.
    V. D. Blondel et al., "Fast unfolding of communities in large networks", J. Stat. Mech. (2008) P10008.
    Raises :class:`ContextError` as :func:`modularity`.
    """
    matrix, seed = _checked(weights), seed_of(seed)
    if not matrix.any():
        return Communities(np.arange(len(matrix)), 0.0, ("there is no edge: every unit is a community, and Q is 0",))
    import networkx

    graph = networkx.from_numpy_array(matrix / matrix.max(), create_using=networkx.DiGraph)
    found = networkx.community.louvain_communities(graph, weight="weight", seed=seed)
    labels = np.empty(len(matrix), dtype=np.int64)
    for number, members in enumerate(sorted(found, key=min)):
        labels[list(members)] = number
    alone = int((~(matrix.any(axis=0) | matrix.any(axis=1))).sum())
    notes = (f"{alone} of {len(matrix)} units have no edge; each is a community of its own",) if alone else ()
    return Communities(labels, modularity(matrix, labels), notes)


def _checked(weights: ArrayLike) -> NDArray[np.float64]:
    matrix = np.asarray(weights, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise ContextError(f"a graph has a square matrix of weights, this has shape {matrix.shape}")
    if not np.isfinite(matrix).all() or matrix.min() < 0:
        raise ContextError("weights must be finite and nonnegative; take their absolute values first")
    return matrix
