"""Laplacian: how much of a recurrent graph's oscillation goes through each edge.

N. Bessone, "Spectral theory for edge pruning in asynchronous recurrent graph neural networks": nodes that a conjugate pair of
eigenvalues of ``L = D − W`` couples are redundant, and the edge between them can go. The paper looks at two nodes at a time and
at imaginary parts only; its section 5 asks for eigenvectors, real parts and couplings of more than two nodes. Here one Laplacian
per gate has all units, self-loops included. What an edge does to eigenvalue k with left and right eigenvectors ``y``, ``x``
(``y^H x = 1``) is, to first order and at fixed degrees, ``w[i, j] dλ_k / dw[i, j] = −conj(y[i]) w[i, j] x[j]``. Its imaginary
part, summed over the eigenvalues above the real axis, is the edge's share of the oscillation of all cycles that it lies on, of
any length; an edge of negative share holds oscillation back.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from jali.evidence import SiteEvidence
from jali.view import View

SUMMARY = "an edge's part in the eigenvalues of the recurrent Laplacian; what conjugate pairs couple goes first"
NEEDS: tuple[str, ...] = ()
Floats = NDArray[np.float64]
DEFECTIVE = 1e-8  # |y^H x| of unit vectors below which an eigenvalue has no derivative to speak of


def score(
    view: View,
    evidence: SiteEvidence,
    *,
    degree: Literal["directed", "weighted"] = "weighted",
    part: Literal["imaginary", "real", "both"] = "both",
) -> Floats:
    """Scores of the units, (H,): the sum over a unit's edges in both directions, as :func:`score_weights` has them."""
    edges = np.zeros((view.hidden, view.hidden))
    for gate in view.recurrence():
        edges += _scores(gate, *_eigen(gate, degree), part)
    return np.asarray(edges.sum(axis=0) + edges.sum(axis=1))


def score_weights(
    view: View,
    evidence: SiteEvidence,
    *,
    degree: Literal["directed", "weighted"] = "weighted",
    part: Literal["imaginary", "real", "both"] = "both",
) -> dict[str, Floats]:
    """Scores of the weights: ``|w|`` of an input weight, which is on no cycle; of a recurrent one by ``part``.

    "imaginary": ``|w|`` minus the share of the oscillation (the paper's parts); "real": how far the edge moves the real parts,
    ``Σ_k |Re|``; "both", their sum, is the default, as trained LSTMs prefer it on their validation split. ``degree``: D counts
    edges, D_W sums weights. Through a projection an edge is the weight from one projected state.
    """
    found = []
    for gate, square in zip(view.w_rec if view.w_rec is not None else (), view.recurrence(), strict=True):
        values, left, right = _eigen(square, degree)
        read = right if view.w_proj is None else view.w_proj @ right
        found.append(_scores(gate, values, left, read, part))
    return {"w_in": np.abs(view.w_in), "w_rec": np.stack(found)}


def _eigen(gate: Floats, degree: str) -> tuple[NDArray[np.complex128], NDArray[np.complex128], NDArray[np.complex128]]:
    """Eigenvalues ``(K,)`` of ``D − W`` with left and right eigenvectors ``(H, K)``, ``y^H x = 1``; without the defective."""
    from scipy.linalg import eig

    counted = gate if degree == "weighted" else (gate != 0).astype(np.float64)
    degrees = counted.sum(axis=0) + counted.sum(axis=1)
    found: Any = eig(np.diag(degrees) - gate, left=True, right=True)
    values, left, right = found
    product = (left.conj() * right).sum(axis=0)
    sound = np.abs(product) > DEFECTIVE
    return values[sound], left[:, sound] / product[sound].conj(), right[:, sound]


def _scores(
    gate: Floats, values: NDArray[np.complex128], left: NDArray[np.complex128], read: NDArray[np.complex128], part: str
) -> Floats:
    """Scores of one gate's edges ``(H, R)``; ``read`` ``(R, K)`` is what they read of the right eigenvectors."""
    found = np.zeros(gate.shape)
    if part != "real":
        up = values.imag > 0
        found += np.abs(gate) + gate * (left[:, up].conj() @ read[:, up].T).imag
    if part != "imaginary":
        for k in range(len(values)):
            found += np.abs(gate * np.outer(left[:, k].conj(), read[:, k]).real)
    return found
