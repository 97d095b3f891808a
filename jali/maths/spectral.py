"""Spectra of blocks of weights as bipartite graphs: singular values, Ramanujan bounds, the Cheeger–Buser interval.

A block ``(m, n)`` is the biadjacency matrix B of a bipartite graph between m rows and n columns: ``B = (W ≠ 0)`` unweighted,
``B = |W|`` weighted. The eigenvalues of the graph are ± the singular values of B, and zeros. With λ1 ≥ λ2 the two largest
singular values and d_avg the mean degree of all m + n vertices,

``Δ_R = (2√(d_avg − 1) − λ2) / λ2``,  ``Δ_S = (2√(λ1 − 1) − λ2) / λ2``,

"Graph expansion in pruned recurrent neural network layers preserves performance", ICLR 2024 Tiny Papers, equations 1 and 2;
B. Pal et al., "A study on the Ramanujan graph property of winning lottery tickets", ICML 2022. Nonnegative: at least as good
an expander as a Ramanujan graph of that degree. A weighted bound is not invariant under scaling of the weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jali.errors import ContextError
from jali.plain import is_whole

DENSE = 256  # of the shorter side: up to here LAPACK is faster than Lanczos
RESTARTS = 100  # of Lanczos, before LAPACK is asked
ROUNDING = 1e-9  # of the imaginary part of a real root
COMPLEX = "a block is a matrix of real numbers, and these are complex; give their absolute values"
RESOLVED = 1e-5  # Lanczos works on BᵀB, which loses singular values smaller than √ε of the largest


@dataclass(frozen=True)
class Expansion:
    """How good an expander a block is.

    ``edges``: entries that are not zero; ``degree``: d_avg, for a weighted graph the mean sum of the weights at a vertex;
    ``isolated``: vertices without an edge, (rows, columns). ``delta_r``, ``delta_s``: None where the bound is undefined
    (degree or λ1 below 1), then ``problems`` says so in words; infinite where λ2 = 0, as in a complete graph.
    """

    shape: tuple[int, int]
    weighted: bool
    edges: int
    degree: float
    lambda1: float
    lambda2: float
    isolated: tuple[int, int]
    delta_r: float | None
    delta_s: float | None
    problems: tuple[str, ...] = ()

    @property
    def density(self) -> float:
        """Fraction of the entries that are not zero, in [0, 1]."""
        return self.edges / (self.shape[0] * self.shape[1])

    def delta(self, bound: str) -> float | None:
        """Δ_R for "R", Δ_S for "S"."""
        if bound not in ("R", "S"):
            raise ContextError(f"bound {bound!r} is unknown; it is 'R' (average degree) or 'S' (λ1)")
        return self.delta_r if bound == "R" else self.delta_s


@dataclass(frozen=True)
class Cheeger:
    """``low ≤ h ≤ high`` of the edge Cheeger constant h (conductance) from α2 of the normalised Laplacian, in [0, 2].

    Vertices without an edge have no volume; they are left out and counted in ``isolated``.
    """

    alpha2: float
    low: float
    high: float
    isolated: int


def expansion(block: Any, weighted: bool = False) -> Expansion:
    """λ1, λ2, d_avg, Δ_R and Δ_S of ``block``, a matrix (m, n) of numpy, scipy.sparse or torch.

    Raises :class:`ContextError` for a block that has no rows or columns, or is not finite. A block of zeros has an answer:
    no edges, λ1 = λ2 = 0, both bounds undefined.
    """
    graph = biadjacency(block, weighted)
    m, n = graph.shape
    edges = int(graph.nnz if _sparse(graph) else np.count_nonzero(graph))
    rows, columns = _degrees(graph)
    degree = float(2 * rows.sum() / (m + n))
    lambda1, lambda2 = (*singular_values(graph, 2), 0.0)[:2]
    if lambda2 < lambda1 * max(m, n) * np.finfo(float).eps:
        lambda2 = 0.0  # a rounding error of λ1, which would make Δ an arbitrary large number
    isolated = (int((rows == 0).sum()), int((columns == 0).sum()))
    of_degree, of_lambda = _delta("Δ_R", "d_avg", degree, lambda2), _delta("Δ_S", "λ1", lambda1, lambda2)
    problems = [each for each in (of_degree, of_lambda) if isinstance(each, str)]
    if edges == 0:
        problems.insert(0, "the block has no edge")
    delta_r, delta_s = (None if isinstance(each, str) else each for each in (of_degree, of_lambda))
    return Expansion((m, n), weighted, edges, degree, lambda1, lambda2, isolated, delta_r, delta_s, tuple(problems))


def _delta(name: str, of: str, degree: float, lambda2: float) -> float | str:
    """``(2√(degree − 1) − λ2) / λ2``, or why there is none."""
    below = degree - 1
    if below < -1e-12 * max(1.0, degree):
        return f"{name} is undefined: {of} = {degree:.4g} is below 1"
    return math.inf if lambda2 == 0 else (2 * math.sqrt(max(below, 0.0)) - lambda2) / lambda2


def singular_values(block: Any, k: int = 2) -> tuple[float, ...]:
    """The ``min(k, m, n)`` largest singular values of ``block (m, n)``, numpy or scipy.sparse, in descending order.

    LAPACK up to a shorter side of 256, else Lanczos on BᵀB (R. Lehoucq, D. Sorensen, C. Yang, ARPACK, 1998), one value after
    the other, each with those before it projected away, so that equal values are all found. Where λ is so small beside λ1
    that squaring loses it, LAPACK answers. Relative error of a value below 1e-9 of λ1. Deterministic.
    Raises :class:`ContextError` as :func:`expansion`, and for k below 1.
    """
    if not is_whole(k) or k < 1:
        raise ContextError(f"k={k!r} is no whole number of at least 1; ask for at least one singular value")
    matrix = _checked(block)
    shorter = min(matrix.shape)
    if shorter > max(DENSE, 8 * k):
        found = _lanczos(matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T, k)
        if found is not None:
            return found
    import scipy.linalg

    values = scipy.linalg.svdvals(matrix.toarray() if _sparse(matrix) else matrix, check_finite=False)
    return tuple(float(value) for value in values[:k])


def _lanczos(matrix: Any, k: int) -> tuple[float, ...] | None:
    """The k largest, or None where they are not resolved."""
    from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

    n = matrix.shape[1]
    turned = matrix.T.tocsr() if _sparse(matrix) else matrix.T
    start = np.random.default_rng(0).random(n)
    known = np.zeros((n, 0))
    squares: list[float] = []

    def gram(x: np.ndarray) -> np.ndarray:
        x = x.ravel()
        x = x - known @ (known.T @ x)
        y = turned @ (matrix @ x)
        return y - known @ (known.T @ y)

    for _ in range(k):
        operator = LinearOperator((n, n), matvec=gram, dtype=np.float64)
        try:
            value, vector = eigsh(operator, k=1, which="LA", v0=start, tol=1e-10, ncv=40, maxiter=RESTARTS)
        except ArpackError:
            return None
        squares.append(max(float(value[0]), 0.0))
        if squares[-1] < squares[0] * RESOLVED**2 or squares[0] == 0.0:
            return None
        known = np.linalg.qr(np.column_stack([known, vector]))[0]
    return tuple(math.sqrt(square) for square in squares)


def cheeger(block: Any, weighted: bool = False) -> Cheeger:
    """The Cheeger–Buser interval ``α2/2 ≤ h ≤ √(2 α2)`` of a block's graph.

    ``h = min cut(S) / vol(S)`` over sets S of vertices with at most half of the volume (the sum of the degrees); α2 is the
    second smallest eigenvalue of ``I − D^(−1/2) A D^(−1/2)``, for a bipartite graph 1 minus the second singular value of
    ``D_rows^(−1/2) B D_columns^(−1/2)``. J. Dodziuk 1984; N. Alon, V. Milman 1985. A disconnected graph has h = 0. A single
    edge has α2 = 2. Without any edge nothing is connected: α2 = 0. Raises :class:`ContextError` as :func:`expansion`.
    """
    graph = biadjacency(block, weighted)
    rows, columns = _degrees(graph)
    alone = int((rows == 0).sum() + (columns == 0).sum())
    graph = graph[rows > 0][:, columns > 0]
    if 0 in graph.shape:
        return Cheeger(0.0, 0.0, 0.0, alone)
    left, right = 1 / np.sqrt(rows[rows > 0]), 1 / np.sqrt(columns[columns > 0])
    if _sparse(graph):
        normal = graph.multiply(left[:, None]).multiply(right[None, :]).tocsr()
    else:
        normal = graph * left[:, None] * right[None, :]
    if graph.shape == (1, 1):
        alpha2 = 2.0
    else:
        values = (*singular_values(normal, 2), 0.0)
        alpha2 = min(max(1.0 - values[1], 0.0), 1.0)
    alpha2 = 0.0 if alpha2 < 1e-12 else alpha2
    return Cheeger(alpha2, alpha2 / 2, math.sqrt(2 * alpha2), alone)


def biadjacency(block: Any, weighted: bool = False) -> Any:
    """B of ``block (m, n)``: ``|W|`` if ``weighted``, else 1.0 where W is not zero; sparse (CSR) if ``block`` is sparse."""
    matrix = _checked(block)
    if _sparse(matrix):
        matrix = matrix.copy()
        matrix.data = np.abs(matrix.data) if weighted else np.ones_like(matrix.data)
        return matrix
    return np.abs(matrix) if weighted else (matrix != 0).astype(np.float64)


def random_crossing(rows: int, columns: int, bound: str = "S") -> float:
    """The density at which a uniformly random mask of a large block (rows, columns) loses its bound on the way from the full one.

    With density p, λ2 → √(p(1−p)) (√m + √n), the edge of the Marchenko–Pastur law, and λ1 → √((pm + 1 − p)(pn + 1 − p)), a
    rank-one matrix and noise (F. Benaych-Georges, R. Nadakuditi 2012); d_avg = 2pmn/(m+n). The bound "R" holds from the larger
    root of ``C p² − (C − 8mn/(m+n)) p − 4 = 0`` on, C = (√m + √n)², which is 1/√n for a square block of n, and 1 if it is
    larger. For "S" the noise counts: of a square block λ1 − 1 exceeds λ2²/4 by a fraction p only. It holds from the largest
    root in (0, 1) of ``(1 + p(m−1))(1 + p(n−1)) = (1 + C p(1−p)/4)²`` on, which is 1/n for a square block; 0 where there is none.
    Both laws want mean degrees well above 1: masks of square blocks lose Δ_S between 1/n and 1/√n, where it is all but zero.
    """
    if bound not in ("R", "S"):
        raise ContextError(f"bound {bound!r} is unknown; it is 'R' (average degree) or 'S' (λ1)")
    if not (is_whole(rows) and is_whole(columns)) or min(rows, columns) < 1:
        raise ContextError(f"a block has at least one row and one column, not {rows} and {columns}")
    m, n, edge = rows, columns, (math.sqrt(rows) + math.sqrt(columns)) ** 2
    if bound == "R":
        linear = edge - 8 * m * n / (m + n)
        return min((linear + math.sqrt(linear**2 + 16 * edge)) / (2 * edge), 1.0)
    q = edge / 4
    found = np.roots([-(q**2), 2 * q**2, (m - 1) * (n - 1) - q**2 + 2 * q, m + n - 2 - 2 * q])  # the equation over p
    return max((float(root.real) for root in found if abs(root.imag) < ROUNDING and 0 < root.real < 1), default=0.0)


def _degrees(graph: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.asarray(graph.sum(axis=1)).ravel(), np.asarray(graph.sum(axis=0)).ravel()


def _sparse(matrix: Any) -> bool:
    return hasattr(matrix, "tocsr")


def _checked(block: Any) -> Any:
    """A float64 matrix, dense or CSR without stored zeros; real numbers only."""
    if _sparse(block):
        if block.dtype.kind == "c":
            raise ContextError(COMPLEX)
        matrix = block.tocsr().astype(np.float64)
        if matrix is block or matrix.data is block.data:
            matrix = matrix.copy()
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
        values = matrix.data
    else:
        matrix = values = _dense(block)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ContextError(f"a block is a matrix with rows and columns, this has shape {matrix.shape}")
    if not np.isfinite(values).all():
        raise ContextError("the block has NaN or infinite values; restore a good checkpoint first")
    return matrix


def _dense(block: Any) -> NDArray[np.float64]:
    given = block
    try:
        if callable(getattr(block, "detach", None)):  # a parameter of a model, without an import of torch here
            block = block.detach().cpu().to_dense()
            block = block if block.is_complex() else block.double().numpy()
        array = np.asarray(block)
        if array.dtype.kind != "c":
            return array.astype(np.float64, copy=False)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ContextError(f"a block is a matrix of real numbers, not this {type(given).__name__} ({error})") from error
    raise ContextError(COMPLEX)
