"""Laplacians of the neighbourhoods of a directed weighted graph, and the edge that a node prunes by their eigenvalues.

Source: N. Bessone, "Spectral theory for edge pruning in asynchronous recurrent graph neural networks", equations 4 to 7.
``L = D − A∘W`` has the edges of one node only, so that it is an arrowhead (:mod:`jali.maths.arrowhead`): pole ``d_i`` is the
degree of neighbour i in this neighbourhood, product ``p_i = w(i→n) w(n→i)``. Arrays of edges are ``[to, from]``.

Which edge a conjugate pair of eigenvalues ``x ± iy`` stands for, the paper does not say: eigenvalues have no nodes. Two rules:

``"lapack-order"``
    what the paper's published code does: the *position* of an eigenvalue in LAPACK's output names a node. LAPACK puts a pair
    in neighbouring positions k, k + 1, so that this rule removes edges k+1 → k of the numbering of the nodes, and no others;
    and it takes the imaginary parts of rounding for a pair where an eigenvalue is multiple.
``"eigenvector"``
    the imaginary part of the secular equation at a complex root says ``Σ_i −p_i / |λ − d_i|² = 1`` exactly. The term of i is the
    product of the components of i in the left and the right eigenvector, relative to the node's own: its share of the
    oscillation. The partner is the neighbour of the largest share. Every cycle of a star runs through its centre, so the other
    node is the one that decides, and it prunes its own input from the partner.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numba import types
from numpy.typing import ArrayLike, NDArray

from jali.errors import ContextError, DynamicsError
from jali.jit import njit
from jali.maths.arrowhead import Complexes, Floats, arrowhead_eigenvalues, eigenvalues_into

Bools = NDArray[np.bool_]
Degree = Literal["directed", "weighted"]
NodeOf = Literal["lapack-order", "eigenvector"]
DEGREES: tuple[str, ...] = ("directed", "weighted")
NODE_RULES: tuple[str, ...] = ("lapack-order", "eigenvector")
TOLERANCE = 1e-7  # of the matrix: two eigenvalues that coincide part by the root of the rounding, 1.5e-8
KEEP = -1  # no edge goes
FAILED = -2  # the eigenvalues did not converge, or something is not finite


@dataclass(frozen=True, eq=False)
class LocalLaplacian:
    """The Laplacian of one node's neighbourhood; ``neighbours`` ``(k,)`` are tied to it by an edge in some direction.

    ``into``, ``out`` ``(k,)``: weights of the edges neighbour → node and node → neighbour, 0 where there is none.
    ``degree``: d of the node; ``poles`` ``(k,)``: those of the neighbours.
    """

    node: int
    size: int
    neighbours: NDArray[np.int64]
    into: Floats
    out: Floats
    degree: float
    poles: Floats

    @property
    def products(self) -> Floats:
        """``w(i→n) w(n→i)``, ``(k,)``: negative where the two act on each other with opposite signs."""
        return self.into * self.out

    def eigenvalues(self) -> Complexes:
        """Eigenvalues of the neighbourhood, ``(k + 1,)``; the nodes outside it add zeros only."""
        return arrowhead_eigenvalues(self.degree, self.poles, self.products)

    def shares(self, eigenvalue: complex) -> Floats:
        """``−p_i / |λ − d_i|²``, ``(k,)``: how much of a complex eigenvalue's oscillation is due to each neighbour; sum 1."""
        return -self.products / np.abs(eigenvalue - self.poles) ** 2

    def matrix(self) -> Floats:
        """``L`` ``(n, n)`` over all nodes, in the paper's orientation ``[from, to]``."""
        full = np.zeros((self.size, self.size))
        full[self.neighbours, self.node], full[self.node, self.neighbours] = -self.into, -self.out
        full[self.neighbours, self.neighbours] = self.poles
        full[self.node, self.node] = self.degree
        return full


@dataclass(frozen=True)
class Decision:
    """An edge to remove: ``source`` → ``target``, and the imaginary part a > 0 that says so (equation 7)."""

    source: int
    target: int
    imaginary: float


def local_laplacian(weights: ArrayLike, adjacency: ArrayLike, node: int, degree: Degree = "directed") -> LocalLaplacian:
    """The Laplacian of equation 4 at one node; ``weights``, ``adjacency``: ``(n, n)``, ``[to, from]``, no self-loops.

    ``degree``: "directed" counts the edges in both directions, "weighted" sums their weights. A node without edges has an empty
    neighbourhood and the eigenvalue 0. Raises :class:`ContextError` for arrays of other shapes, a self-loop, a node or degree
    that is none; :class:`DynamicsError` for weights that are not finite.
    """
    w, edges = _graph(weights, adjacency)
    if not 0 <= node < len(w):
        raise ContextError(f"node {node} is none of the {len(w)} nodes, numbered from 0")
    if degree not in DEGREES:
        raise ContextError(f"degree {degree!r} is unknown; give one of {', '.join(map(repr, DEGREES))}")
    near = np.flatnonzero(edges[node] | edges[:, node])
    into, out = w[node, near] * edges[node, near], w[near, node] * edges[near, node]
    counts = edges[node, near].astype(np.float64) + edges[near, node]
    poles = into + out if degree == "weighted" else counts
    return LocalLaplacian(node, len(w), near, into, out, float(poles.sum()), poles)


def decide(
    weights: ArrayLike,
    adjacency: ArrayLike,
    node: int,
    degree: Degree = "directed",
    node_of: NodeOf = "eigenvector",
    tolerance: float = TOLERANCE,
) -> Decision | None:
    """The edge that ``node`` prunes by equations 5 to 7, or None.

    ``tolerance``: imaginary parts up to this share of the matrix count as zero in the rule "eigenvector"; "lapack-order" takes
    every part that is not 0.0, as the published code does. Raises as :func:`local_laplacian` does.
    """
    local_laplacian(weights, adjacency, node, degree)  # checks
    if node_of not in NODE_RULES:
        raise ContextError(f"node_of {node_of!r} is unknown; give one of {', '.join(map(repr, NODE_RULES))}")
    w, edges = _graph(weights, adjacency)
    scratch = np.empty((len(w), len(w)))
    source, target, part = decide_edge(
        w, edges, w[:, node].copy(), edges[:, node].copy(), edges, node, degree == "weighted",
        node_of == "lapack-order", tolerance, scratch,
    )  # fmt: skip
    if source == FAILED:
        raise DynamicsError(
            f"the eigenvalues at node {node} did not converge; the weights are up to {np.abs(w).max():.3g}"
        )
    return None if source == KEEP else Decision(int(source), int(target), float(part))


def _graph(weights: ArrayLike, adjacency: ArrayLike) -> tuple[Floats, Bools]:
    w, edges = np.array(weights, dtype=np.float64), np.array(adjacency, dtype=np.bool_)
    if w.ndim != 2 or w.shape[0] != w.shape[1] or w.shape != edges.shape:
        raise ContextError(
            f"a graph needs two square arrays of one size; got {w.shape} weights, {edges.shape} adjacency"
        )
    if edges.diagonal().any():
        raise ContextError(f"node {int(edges.diagonal().argmax())} has an edge to itself; leave it out")
    if not np.isfinite(w[edges]).all():
        raise DynamicsError(
            f"{int((~np.isfinite(w[edges])).sum())} weights are not finite; bound them while they are trained"
        )
    return np.where(edges, w, 0.0), edges


# --- compiled --------------------------------------------------------------------------------------------------------

# LAPACK's dgeev as numba itself calls it; `np.linalg.eigvals` under numba refuses real matrices with complex eigenvalues.
_double = types.CPointer(types.float64)
_geev: Any = types.ExternalFunction(
    "numba_ez_rgeev",
    types.intc(
        types.char, types.char, types.char, types.intp, _double, types.intp, _double, _double, _double, types.intp, _double,
        types.intp,
    ),
)  # fmt: skip
_D, _N, _V = ord("d"), ord("N"), ord("V")


@njit(cache=True, nogil=True, error_model="numpy")
def decide_edge(
    weights: Floats, edges: Bools, w_out: Floats, has_out: Bools, graph: Bools, node: int, weighted: bool,
    lapack_order: bool, tolerance: float, scratch: Floats,
) -> tuple[int, int, float]:  # fmt: skip
    """``(source, target, imaginary part)`` of the edge that goes; source is KEEP or FAILED where none does.

    ``weights``, ``edges``: rows are what each node knows of its own inputs; ``w_out``, ``has_out`` ``(n,)``: what this node has
    heard of the edges that leave it; ``graph``: the edges there are; ``scratch``: ``(n, n)``, overwritten.
    """
    if lapack_order:
        return _by_position(weights, edges, w_out, has_out, graph, node, weighted, scratch)
    source, part = _by_eigenvector(weights, edges, w_out, has_out, node, weighted, tolerance)
    return source, node, part


@njit(cache=True, nogil=True, error_model="numpy")
def _tie(
    weights: Floats, edges: Bools, w_out: Floats, has_out: Bools, node: int, i: int, weighted: bool
) -> tuple[float, float, float]:
    """Weights of the edges i → node and node → i, and what i has of a degree from them."""
    into, out, count = 0.0, 0.0, 0.0
    if edges[node, i]:
        into, count = weights[node, i], 1.0
    if has_out[i]:
        out, count = w_out[i], count + 1.0
    return into, out, into + out if weighted else count


@njit(cache=True, nogil=True, error_model="numpy")
def _by_eigenvector(
    weights: Floats, edges: Bools, w_out: Floats, has_out: Bools, node: int, weighted: bool, tolerance: float
) -> tuple[int, float]:
    n = w_out.size
    which, poles, products = np.empty(n, dtype=np.int64), np.empty(n), np.empty(n)
    k, centre, opposed, size = 0, 0.0, 0.0, 0.0
    for i in range(n):
        into, out, pole = _tie(weights, edges, w_out, has_out, node, i, weighted)
        centre += pole
        if into * out != 0.0:  # without, the neighbour's degree is an eigenvalue as it is
            which[k], poles[k], products[k] = i, pole, into * out
            opposed -= min(products[k], 0.0)
            size = max(size, abs(pole), np.sqrt(abs(products[k])))
            k += 1
    if not np.isfinite(centre) or not np.isfinite(opposed):
        return FAILED, 0.0
    least = tolerance * max(size, abs(centre))
    if opposed <= least * least:  # y² ≤ Σ |p_i| over the negative ones, from Σ −p_i / |λ − d_i|² = 1
        return KEEP, 0.0
    values = np.empty(k + 1, dtype=np.complex128)
    if not eigenvalues_into(centre, poles[:k], products[:k], values):
        return FAILED, 0.0
    top = values[0]
    for value in values:
        # Of equal imaginary parts the smaller real one, whatever the order they were found in.
        if value.imag > top.imag or (value.imag == top.imag and value.real < top.real):
            top = value
    if top.imag <= least:
        return KEEP, 0.0
    best, share = KEEP, 0.0
    for i in range(k):
        own = -products[i] / ((top.real - poles[i]) ** 2 + top.imag**2)
        if own > share:
            best, share = which[i], own
    return best, top.imag


@njit(cache=True, nogil=True, error_model="numpy")
def _by_position(
    weights: Floats,
    edges: Bools,
    w_out: Floats,
    has_out: Bools,
    graph: Bools,
    node: int,
    weighted: bool,
    scratch: Floats,
) -> tuple[int, int, float]:
    n = w_out.size
    real, imaginary = np.empty(n), np.empty(n)
    if not lapack_eigenvalues(weights, edges, w_out, has_out, node, weighted, scratch, real, imaginary):
        return FAILED, KEEP, 0.0
    high, low = int(np.argmax(imaginary)), int(np.argmin(imaginary))
    part = imaginary[high]
    if part > 0.0 and imaginary[low] == -part and graph[high, low]:
        return low, high, part
    return KEEP, KEEP, 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def lapack_eigenvalues(
    weights: Floats, edges: Bools, w_out: Floats, has_out: Bools, node: int, weighted: bool, scratch: Floats, real: Floats,
    imaginary: Floats,
) -> bool:  # fmt: skip
    """The eigenvalues of the whole ``(n, n)`` Laplacian at ``node`` in the order in which LAPACK leaves them."""
    n = w_out.size
    scratch[:] = 0.0  # C order [to, from] is Fortran order [from, to], the paper's matrix
    centre = 0.0
    for i in range(n):
        into, out, pole = _tie(weights, edges, w_out, has_out, node, i, weighted)
        scratch[i, i] = pole
        centre += pole
        scratch[node, i], scratch[i, node] = -into, -out
    scratch[node, node] = centre
    if not np.isfinite(centre):
        return False
    left, right = np.empty(1), np.empty((n, n))  # with vectors, as numpy.linalg.eig asks for
    status = _geev(
        _D, _N, _V, n, scratch.ctypes, n, real.ctypes, imaginary.ctypes, left.ctypes, 1, right.ctypes, n
    )  # fmt: skip
    return status == 0
