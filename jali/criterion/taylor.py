"""First-order Taylor importance: how much the loss is expected to move when a unit's parameters go to zero.

P. Molchanov, A. Mallya, S. Tyree, I. Frosio, J. Kautz, "Importance estimation for neural network pruning", CVPR 2019,
eq. 8: the squared sum over the group of gradient × weight, averaged over batches.
"""

from __future__ import annotations

import numpy as np

from jali.evidence import SiteEvidence
from jali.view import View

SUMMARY = "squared gradient × weight, summed over a unit's parameters (Molchanov et al. 2019); needs targets"
NEEDS = ("gradients",)


def score(view: View, evidence: SiteEvidence) -> np.ndarray:
    """``mean over batches of (Σ g·w over the parameters of u)²``, (H,).

    The parameters of u are what :func:`jali.mask` sets to zero in its site: incoming weights, biases, and outgoing
    recurrent weights (or its column of the projection); its weight to itself counts once.
    """
    total = np.zeros(view.hidden)
    for gradient in evidence.gradients:
        moved = (view.w_in * gradient.w_in).sum(axis=(0, 2))
        for bias, slope in ((view.b_in, gradient.b_in), (view.b_rec, gradient.b_rec)):
            if bias is not None and slope is not None:
                moved = moved + (bias * slope).sum(axis=0)
        if view.w_rec is not None and gradient.w_rec is not None:
            product = view.w_rec * gradient.w_rec
            moved = moved + product.sum(axis=(0, 2))
            if view.w_proj is None:
                moved = moved + product.sum(axis=(0, 1)) - np.einsum("guu->u", product)
        if view.w_proj is not None and gradient.w_proj is not None:
            moved = moved + (view.w_proj * gradient.w_proj).sum(axis=0)
        total += moved**2
    return total / len(evidence.gradients)


def score_weights(view: View, evidence: SiteEvidence) -> dict[str, np.ndarray]:
    """``mean over batches of (g·w)²`` of every input and recurrent weight."""
    fields = [(field, value) for field, value in view.arrays() if field in ("w_in", "w_rec")]
    return {
        field: np.mean([(value * getattr(gradient, field)) ** 2 for gradient in evidence.gradients], axis=0)
        for field, value in fields
    }
