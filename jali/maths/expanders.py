"""Bipartite expanders as masks: random regular graphs, lifts of complete graphs, the graphs of Lubotzky, Phillips and Sarnak.

A mask ``(m, n)`` is the biadjacency matrix of a bipartite graph; a regular one of degrees (c, d) is Ramanujan where
``λ2 ≤ √(c − 1) + √(d − 1)``.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from jali.errors import ContextError, LimitError
from jali.jit import njit
from jali.maths.spectral import biadjacency, singular_values
from jali.plain import is_whole, seed_of

MIXING = 10  # tries of a swap per edge
ATTEMPTS = 200  # signings of one lift
GROWTH = 1.2  # of the number of edges from one round of a ranking to the next
SLACK = 1e-9
MOST = 2**24  # entries of a lift, edges of a graph of Lubotzky, Phillips and Sarnak


def random_regular(rows: int, columns: int, edges: int, seed: int = 0) -> NDArray[np.bool_]:
    """A random mask (rows, columns) with exactly ``edges`` ones, the degrees as equal as that allows.

    Rows have ``edges / rows`` ones each, columns ``edges / columns``: exactly where that is whole, else one more or less. A
    balanced pattern is mixed by swaps of edge pairs that keep every degree (10 tries per edge). Almost every such graph is
    nearly Ramanujan (J. Friedman 2008). The masks of A. Prabhu et al., "Deep expander networks" (X-Net), ECCV 2018.
    Raises :class:`ContextError` for numbers out of range.
    """
    whole = all(map(is_whole, (rows, columns, edges)))
    if not whole or rows < 1 or columns < 1 or not 0 <= edges <= rows * columns:
        raise ContextError(
            f"{edges} edges do not fit a mask of {rows} x {columns}; give whole numbers, edges 0 to rows·columns"
        )
    rng = np.random.default_rng(seed_of(seed))
    mask = np.zeros((rows, columns), dtype=np.bool_)
    # Consecutive edges go to consecutive columns, so that columns are balanced; a row takes a run of at most n of them.
    row = np.repeat(np.arange(rows), np.diff(edges * np.arange(rows + 1) // rows))
    column = np.arange(edges) % columns
    mask[row, column] = True
    if 0 < edges < rows * columns:
        _swap(mask, row, column, rng.integers(0, edges, size=(MIXING * edges, 2)))
    return mask[rng.permutation(rows)][:, rng.permutation(columns)]


@njit(cache=True, nogil=True)
def _swap(mask: np.ndarray, row: np.ndarray, column: np.ndarray, pairs: np.ndarray) -> None:
    """Edges (a, b), (c, d) become (a, d), (c, b) where both are free."""
    for k in range(pairs.shape[0]):
        i, j = pairs[k, 0], pairs[k, 1]
        a, b, c, d = row[i], column[i], row[j], column[j]
        if mask[a, d] or mask[c, b]:
            continue
        mask[a, b] = mask[c, d] = False
        mask[a, d] = mask[c, b] = True
        column[i], column[j] = d, b


def ramanujan_lift(c: int, d: int, doublings: int, seed: int = 0) -> NDArray[np.bool_]:
    """A Ramanujan mask of ``d·2^doublings`` rows of degree c and ``c·2^doublings`` columns of degree d.

    Lifts of the complete bipartite graph K_{d,c}: every edge is doubled, straight or crossed; the new eigenvalues are those
    of the ±1 signed matrix (Y. Bilu, N. Linial 2006), and some signing keeps them within ``√(c−1) + √(d−1)`` (A. Marcus, D.
    Spielman, N. Srivastava, "Interlacing families I", Ann. Math. 2015). Random signings are tried until one does, so the
    result is proved by its own spectrum. Raises :class:`ContextError` for degrees below 2 or a negative number of doublings,
    :class:`LimitError` for masks of more than 2²⁴ entries, or if no signing of 200 will do.
    """
    if not all(map(is_whole, (c, d, doublings))) or c < 2 or d < 2 or doublings < 0:
        raise ContextError(
            f"degrees {c!r} and {d!r} must be at least 2, and doublings {doublings!r} at least 0, all whole numbers"
        )
    if c * d * 4 ** min(doublings, 24) > MOST:
        raise LimitError(
            f"a mask of {c}·{d}·4^{doublings} entries is above the limit of {MOST:,}; give fewer doublings"
        )
    rng = np.random.default_rng(seed_of(seed))
    bound = math.sqrt(c - 1) + math.sqrt(d - 1)
    mask = np.ones((d, c), dtype=np.bool_)
    for level in range(doublings):
        signs = next(
            (s for s in _signings(mask, rng) if singular_values(mask * s, 1)[0] <= bound + SLACK),
            None,
        )
        if signs is None:
            raise LimitError(
                f"no signing among {ATTEMPTS} keeps lift {level + 1} within {bound:.4g}; take another seed, or larger degrees"
            )
        straight, crossed = mask & (signs > 0), mask & (signs < 0)
        mask = np.block([[straight, crossed], [crossed, straight]])
    return mask


def _signings(mask: np.ndarray, rng: np.random.Generator) -> Any:
    for _ in range(ATTEMPTS):
        yield np.where(rng.random(mask.shape) < 0.5, 1.0, -1.0)


def lps(p: int, q: int) -> Any:
    """The biadjacency matrix (scipy.sparse CSR) of the Ramanujan graph X^{p,q} of degree p + 1, λ2 ≤ 2√p.

    p ≠ q are primes ≡ 1 mod 4 with q > 2√p. Where p is no square mod q, the graph is bipartite on PGL₂(q), and the block has
    q(q² − 1)/2 rows and columns; where it is, the graph lives on PSL₂(q), and the block is its adjacency matrix, of the same
    size (its bipartite double cover). A. Lubotzky, R. Phillips, P. Sarnak, "Ramanujan graphs", Combinatorica 8 (1988).
    Raises :class:`ContextError` for other numbers, :class:`LimitError` for graphs of more than 2²⁴ edges.
    """
    for each in (p, q):
        if not is_whole(each) or each < 2:
            raise ContextError(f"{each!r} is no prime of the form 4k + 1, as 5, 13, 17, 29")
    p, q = int(p), int(q)
    if q * (q * q - 1) // 2 * (p + 1) > MOST:  # before the search for divisors, which takes long for large numbers
        raise LimitError(f"the graph of p={p}, q={q} has more than {MOST:,} edges; give smaller primes")
    for each in (p, q):
        if any(each % k == 0 for k in range(2, math.isqrt(each) + 1)) or each % 4 != 1:
            raise ContextError(f"{each} is no prime of the form 4k + 1, as 5, 13, 17, 29")
    if p == q or q * q <= 4 * p:
        raise ContextError(f"q={q} must differ from p={p} and be larger than 2√p = {2 * math.sqrt(p):.4g}")
    from scipy.sparse import csr_matrix

    group = _projective(q)
    codes = group @ q ** np.arange(3, -1, -1)
    order = np.argsort(codes)
    degree = np.arange(len(group))
    source, target = [], []
    for matrix in _generators(p, q):
        a, b, c, d = group.T
        w, x, y, z = matrix
        product = np.stack([a * w + b * y, a * x + b * z, c * w + d * y, c * x + d * z], axis=1) % q
        target.append(order[np.searchsorted(codes[order], _normalised(product, q) @ q ** np.arange(3, -1, -1))])
        source.append(degree)
    i, j = np.concatenate(source), np.concatenate(target)
    squares = np.unique(np.arange(1, q) ** 2 % q)
    special = np.isin((group[:, 0] * group[:, 3] - group[:, 1] * group[:, 2]) % q, squares)
    other = special if p % q in squares else ~special
    keep = special[i]
    numbers = [np.cumsum(part) - 1 for part in (special, other)]
    half = int(special.sum())
    return csr_matrix((np.ones(int(keep.sum())), (numbers[0][i[keep]], numbers[1][j[keep]])), shape=(half, half))


def _projective(q: int) -> NDArray[np.int64]:
    """One matrix (a, b, c, d) of every class of PGL₂(q): its first entry that is not zero is 1."""
    b, c, d = (each.ravel() for each in np.meshgrid(*[np.arange(q)] * 3, indexing="ij"))
    first = np.stack([np.ones_like(b), b, c, d], axis=1)[(d - b * c) % q != 0]
    c, d = (each.ravel() for each in np.meshgrid(np.arange(1, q), np.arange(q), indexing="ij"))
    return np.concatenate([first, np.stack([np.zeros_like(c), np.ones_like(c), c, d], axis=1)])


def _normalised(matrices: np.ndarray, q: int) -> np.ndarray:
    inverse = np.array([0, *(pow(k, -1, q) for k in range(1, q))])
    lead = np.where(matrices[:, 0] != 0, matrices[:, 0], matrices[:, 1])
    return matrices * inverse[lead][:, None] % q


def _generators(p: int, q: int) -> list[tuple[int, int, int, int]]:
    """The p + 1 quaternions of norm p with a positive odd real part and even others, as matrices mod q."""
    i = next(k for k in range(q) if (k * k + 1) % q == 0)
    top = math.isqrt(p)
    span = range(-top, top + 1)
    even = [k for k in span if k % 2 == 0]
    return [
        ((a + i * b) % q, (c + i * d) % q, (-c + i * d) % q, (a - i * b) % q)
        for a in span if a > 0 and a % 2 == 1 for b in even for c in even for d in even
        if a * a + b * b + c * c + d * d == p
    ]  # fmt: skip


def expander_ranking(
    weights: Any, strength: float = 0.1, floor: float = 0.25, of: Literal["alpha2", "lambda2"] = "alpha2"
) -> NDArray[np.int64]:
    """Rank of every entry of ``|weights| (m, n)``, 0 … mn − 1: for every k the k entries of highest rank are well connected.

    Edges are taken in rounds, in each a fifth of what there is. First come edges of vertices that have less than ``floor``
    times the mean degree of their side, so that none is isolated; then the others. Both in the order of
    ``|w| exp(−strength · t)``, where t says how much an edge would harm the graph so far, in units of its root mean square
    over all entries: lower α2 of the normalised Laplacian, which bounds how hard the graph is to cut
    (:func:`jali.maths.spectral.cheeger`), or raise λ2 (``of="lambda2"``). The first raises Δ_R as well, as a rule; the
    second raises Δ_S and Δ_R more, by edges that crowd on a few vertices, and leaves a sparse graph in pieces: it is there to
    tell the bounds from the connection that they stand for. With ``strength`` and ``floor`` 0 the ranking is that of ``|w|``;
    ``floor`` 1 makes degrees equal, as nearly as it can; a negative ``strength`` does harm. Equal entries go by index; zeros
    come last of all. No graph of fewer than m + n − 1 edges is connected.

    Raises :class:`ContextError` as :func:`jali.maths.spectral.expansion`, for a strength that is not finite, for a floor
    outside [0, 1] and an unknown ``of``.
    """
    size = biadjacency(weights, weighted=True)
    size = size.toarray() if hasattr(size, "toarray") else size
    if not math.isfinite(strength):
        raise ContextError(
            f"strength {strength!r} is not a finite number; 0.1 corrects, 0 does not, -0.3 does the opposite"
        )
    if of not in ("alpha2", "lambda2"):
        raise ContextError(f"of={of!r} is unknown; it is 'alpha2' (how well connected) or 'lambda2' (the bounds)")
    if not 0.0 <= floor <= 1.0:
        raise ContextError(f"floor {floor!r} is outside [0, 1]; it is the least degree as a fraction of the mean one")
    m, n = size.shape
    taken, order = np.zeros((m, n), dtype=np.bool_), np.empty(m * n, dtype=np.int64)
    key, there, count, edges = _logarithm(size), size > 0, 0, max(m, n)
    while count < m * n:
        lean = key - strength * _tilt(taken, of) if strength and count else key
        free = np.flatnonzero(there & ~taken)
        free = np.flatnonzero(~taken) if not len(free) else free
        free = free[np.argsort(-lean.ravel()[free], kind="stable")]
        rows, columns = taken.sum(axis=1), taken.sum(axis=0)
        least = math.ceil(floor * edges / m), math.ceil(floor * edges / n)
        chosen = free[_poorest_first(free, rows, columns, *least, edges - count)]
        order[count : count + len(chosen)] = chosen
        taken.ravel()[chosen] = True
        count += len(chosen)
        edges = min(max(edges + 1, int(edges * GROWTH)), m * n)
    ranks = np.empty(m * n, dtype=np.int64)
    ranks[order] = np.arange(m * n - 1, -1, -1)
    return ranks.reshape(m, n)


def regular_ranking(rows: int, columns: int, seed: int | tuple[int, ...] = 0) -> NDArray[np.int64]:
    """Random rank of every entry, 0 … mn − 1: for every k the k entries of highest rank are a nearly regular random graph.

    Rounds of random matchings: in round r no vertex of the longer side has more than r edges, and the others keep pace. So
    :func:`random_regular` for all densities at once, each mask inside the denser ones, and degrees equal up to a few edges.
    """
    if not (is_whole(rows) and is_whole(columns)) or rows < 1 or columns < 1:
        raise ContextError(f"a mask has at least one row and one column, not {rows} and {columns}")
    seeds = [seed_of(each) for each in (seed if isinstance(seed, tuple) else (seed,))]
    longer, rng = max(rows, columns), np.random.default_rng(seeds)
    parts: list[np.ndarray] = []
    used = np.zeros(rows * columns, dtype=np.bool_)
    of_row, of_column = np.zeros(rows, dtype=np.int64), np.zeros(columns, dtype=np.int64)
    degree = 1
    while not used.all():
        free = rng.permutation(np.flatnonzero(~used))
        caps = -(-degree * longer // rows), -(-degree * longer // columns)
        chosen = free[_capped(free, of_row, of_column, *caps)]
        used[chosen] = True
        parts.append(chosen)
        degree += 1
    ranks = np.empty(rows * columns, dtype=np.int64)
    ranks[np.concatenate(parts)] = np.arange(rows * columns - 1, -1, -1)
    return ranks.reshape(rows, columns)


@njit(cache=True, nogil=True)
def _capped(free: np.ndarray, rows: np.ndarray, columns: np.ndarray, of_row: int, of_column: int) -> np.ndarray:
    """Positions in ``free`` of the edges taken in order while their vertices are below the caps; the degrees follow."""
    n = len(columns)
    chosen = np.empty(len(free), dtype=np.int64)
    count = 0
    for k in range(len(free)):
        i, j = free[k] // n, free[k] % n
        if rows[i] < of_row and columns[j] < of_column:
            rows[i] += 1
            columns[j] += 1
            chosen[count] = k
            count += 1
    return chosen[:count]


def _tilt(taken: np.ndarray, of: str) -> np.ndarray:
    """How much an edge harms the graph (positive) or helps it; root mean square 1, or all zero.

    The derivative by the entries of ``tr (MᵀM)⁵``, up to a factor. For λ2 ``M = B − r cᵀ / E`` is the modularity matrix
    (degrees r, c, E edges), and the derivative ``M (MᵀM)⁴``. For α2 it is ``R M C`` with ``R = diag(r)^(−1/2)`` and C alike,
    whose singular values are those of the normalised graph without the first; there an edge also raises two degrees. High
    powers, so that the largest values outweigh the others: one singular pair would be arbitrary where values are equal.
    """
    graph = taken.astype(np.float64)
    rows, columns = graph.sum(axis=1), graph.sum(axis=0)
    matrix = graph - np.outer(rows, columns) / graph.sum()
    left, right = (1 / np.sqrt(np.maximum(degrees, 1.0)) for degrees in (rows, columns))
    if of == "alpha2":
        matrix *= np.outer(left, right)
    size = float(np.abs(matrix).max())
    if size < 1e-9:
        return np.zeros_like(matrix)
    matrix /= size
    square = matrix.T @ matrix
    for _ in range(2):
        square = square @ (square / np.abs(square).max())
    tilt = matrix @ square
    if of == "alpha2":
        share = tilt * matrix * size  # sums: of every vertex, its part of the singular vectors
        of_rows, of_columns = share.sum(axis=1) * left**2, share.sum(axis=0) * right**2
        tilt = tilt * np.outer(left, right) - (of_rows[:, None] + of_columns) / 2
    return tilt * (math.sqrt(tilt.size) / np.linalg.norm(tilt))


def _logarithm(size: np.ndarray) -> np.ndarray:
    """log |w|, and something finite for zeros, which have turns of their own."""
    return np.where(size > 0, np.log(np.where(size > 0, size, 1.0)), -1e6)


@njit(cache=True, nogil=True)
def _poorest_first(
    free: np.ndarray, rows: np.ndarray, columns: np.ndarray, of_row: int, of_column: int, wanted: int
) -> np.ndarray:
    """Positions in ``free`` of the next edges: those of vertices below their least degree, then the others, in order."""
    n = len(columns)
    chosen = np.empty(min(wanted, len(free)), dtype=np.int64)
    used = np.zeros(len(free), dtype=np.bool_)
    count = 0
    for k in range(len(free)):
        if count == len(chosen):
            return chosen
        i, j = free[k] // n, free[k] % n
        if rows[i] < of_row or columns[j] < of_column:
            chosen[count] = k
            used[k] = True
            count += 1
            rows[i] += 1
            columns[j] += 1
    for k in range(len(free)):
        if count == len(chosen):
            break
        if not used[k]:
            chosen[count] = k
            count += 1
    return chosen
