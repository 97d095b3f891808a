"""Eigenvalues of arrowhead matrices: a centre, and leaves that are tied to the centre only.

``M = [[c, r^T], [s, diag(d)]]``. Leaf i enters the characteristic polynomial by its pole ``d_i`` and its product
``p_i = r_i s_i`` alone. A leaf without product, and all but one of the leaves of one pole, give an eigenvalue each as they
are (deflation). What is left has the eigenvalues where the secular function ``h(z) = z − c − Σ p_i / (z − d_i)`` is zero.
Products of the same sign at all leaves interlace roots and poles; a negative product makes roots complex, which methods for
symmetric arrowheads exclude. All roots are therefore found at once by Ehrlich and Aberth's iteration on ``h``, whose value
at every point is known to working precision: O(n²) per round, and no matrix.

Sources: G. H. Golub, "Some modified matrix eigenvalue problems", SIAM Review 15 (1973) 318-334 (secular function); O. Aberth,
"Iteration methods for finding all zeros of a polynomial simultaneously", Math. Comp. 27 (1973) 339-344; D. A. Bini, L. Robol,
"Solving secular and polynomial equations", J. Comput. Appl. Math. 272 (2014) 276-292.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jali.errors import DynamicsError
from jali.jit import njit

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]
EPSILON = float(np.finfo(np.float64).eps)
ROUNDS = 200  # 5 to 15 are the rule
_GOLDEN = 2.399963229728653  # an angle whose multiples never line up: starts stay off every axis of symmetry


def arrowhead_eigenvalues(centre: float, poles: ArrayLike, products: ArrayLike) -> Complexes:
    """All eigenvalues, ``(n + 1,)``, sorted by real part, then imaginary part; complex ones in exact conjugate pairs.

    ``centre``: c; ``poles``: d, ``(n,)``; ``products``: ``r_i s_i``, ``(n,)``. Errors are those of a backward stable method:
    a few units of rounding of the largest entry, and their square root where eigenvalues coincide.

    Raises :class:`DynamicsError` for entries that are not finite, for lengths that differ, and where the iteration stops short.
    """
    d, p = np.array(poles, dtype=np.float64), np.array(products, dtype=np.float64)
    if d.ndim != 1 or d.shape != p.shape:
        raise DynamicsError(f"an arrowhead needs one product per pole; got shapes {d.shape} and {p.shape}")
    if not (np.isfinite(centre) and np.isfinite(d).all() and np.isfinite(p).all()):
        raise DynamicsError("an arrowhead has an entry that is not finite; the weights have exploded: bound them")
    out = np.empty(len(d) + 1, dtype=np.complex128)
    if not eigenvalues_into(float(centre), d, p, out):
        raise DynamicsError(f"the eigenvalues of an arrowhead of {len(d) + 1} did not converge in {ROUNDS} rounds")
    return out[np.lexsort((out.imag, out.real))]


@njit(cache=True, nogil=True, error_model="numpy")
def eigenvalues_into(centre: float, poles: Floats, products: Floats, out: Complexes) -> bool:
    """Write the eigenvalues into ``out`` ``(n + 1,)``, in no order of meaning; whether the iteration converged."""
    scale = abs(centre) + np.sqrt(np.abs(products).sum()) + (np.abs(poles).max() if poles.size else 0.0)
    tiny = EPSILON * scale
    order = np.argsort(poles)
    d, p = np.empty(poles.size), np.empty(poles.size)
    count, done = 0, 0
    for i in order:
        if count and poles[i] - d[count - 1] <= 2 * tiny:
            p[count - 1] += products[i]
            out[done] = poles[i]
            done += 1
        else:
            d[count], p[count] = poles[i], products[i]
            count += 1
    kept = 0
    for i in range(count):
        if abs(p[i]) <= tiny * tiny:  # moves no eigenvalue by more than rounding does
            out[done] = d[i]
            done += 1
        else:
            d[kept], p[kept] = d[i], p[i]
            kept += 1
    return _secular_roots(centre, d[:kept], p[:kept], scale, out[done:])


@njit(cache=True, nogil=True, error_model="numpy")
def _secular_roots(centre: float, d: Floats, p: Floats, scale: float, out: Complexes) -> bool:
    if d.size == 0:
        out[0] = centre
        return True
    if d.size == 1:
        _quadratic(centre, d[0], p[0], out)
        return True
    for i in range(d.size):
        radius = abs(p[i]) / (abs(centre - d[i]) + np.sqrt(abs(p[i])))
        out[i] = d[i] + radius * np.exp(1j * _GOLDEN * (i + 0.5))
    out[d.size] = centre + 0.5 * np.sqrt(np.abs(p).sum()) * np.exp(1j * _GOLDEN * (d.size + 0.5))
    converged = _aberth(centre, d, p, scale, out)
    _pair(out)
    return converged


@njit(cache=True, nogil=True, error_model="numpy")
def _quadratic(centre: float, d: float, p: float, out: Complexes) -> None:
    """Both roots of ``(z − c)(z − d) = p``, without cancellation."""
    middle, half = (centre + d) / 2, (centre - d) / 2
    square = half * half + p
    if square < 0:
        out[0] = complex(middle, np.sqrt(-square))
        out[1] = complex(middle, -np.sqrt(-square))
        return
    # The root far from the nearer of c and d first; the other one by its small distance p / (z − d) from c.
    far = np.sqrt(square) + abs(half)
    if far == 0.0:
        out[0], out[1] = centre, d
    elif half >= 0:
        out[0], out[1] = d + far, d - p / far
    else:
        out[0], out[1] = centre + far, centre - p / far


@njit(cache=True, nogil=True, error_model="numpy")
def _aberth(centre: float, d: Floats, p: Floats, scale: float, z: Complexes) -> bool:
    moving = np.ones(z.size, dtype=np.bool_)
    left = z.size
    for _ in range(ROUNDS):
        for k in range(z.size):
            if moving[k] and _move(centre, d, p, scale, z, k):
                moving[k] = False
                left -= 1
        if left == 0:
            return True
    return False


@njit(cache=True, nogil=True, error_model="numpy")
def _move(centre: float, d: Floats, p: Floats, scale: float, z: Complexes, k: int) -> bool:
    """One Newton step of root k that the other roots push away; whether it has arrived."""
    here, tiny = z[k], EPSILON * scale
    value, slope, size, logs = here - centre, 1.0 + 0.0j, abs(centre) + abs(here), 0.0j
    for i in range(d.size):
        gap = here - d[i]
        if abs(gap.real) + abs(gap.imag) < tiny:  # on a pole, which is no root
            z[k] = here + 8 * tiny * (1 + 1j)
            return False
        inverse = 1.0 / gap
        term = p[i] * inverse
        value -= term
        slope += term * inverse
        size += abs(term.real) + abs(term.imag)
        logs += inverse
    if abs(value) <= 4 * EPSILON * size:  # no more than the rounding of its own sum
        return True
    push = logs
    for j in range(z.size):
        gap = here - z[j]
        if j != k and gap != 0:
            push -= 1.0 / gap
    step = 1.0 / (slope / value + push)
    z[k] = here - step
    return abs(step) <= tiny / 2


@njit(cache=True, nogil=True, error_model="numpy")
def _pair(z: Complexes) -> None:
    """Make conjugates of what is conjugate but for rounding, and real what is nearest to its own conjugate."""
    free = np.ones(z.size, dtype=np.bool_)
    for k in range(z.size):
        if not free[k]:
            continue
        free[k] = False
        mate, best = k, 2 * abs(z[k].imag)
        for j in range(k + 1, z.size):
            gap = abs(z[j] - z[k].conjugate())
            if free[j] and gap < best:
                mate, best = j, gap
        if mate == k:
            z[k] = z[k].real
        else:
            free[mate] = False
            middle = (z[k] + z[mate].conjugate()) / 2
            z[k], z[mate] = middle, middle.conjugate()
