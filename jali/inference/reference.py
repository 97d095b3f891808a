"""The same layers in plain numpy, step by step: the oracle of the kernels. In the precision of its arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def sigmoid(x: Array) -> Array:
    """Logistic function, ``(1 + tanh(x / 2)) / 2``."""
    return (1 + np.tanh(x / 2)) / 2


def step(
    cell: str, x: Array, h: Array, c: Array, w_in: Array, w_rec: Array, b_in: Array, b_rec: Array
) -> tuple[Array, Array]:
    """One step of ``x`` (batch, I) from states (batch, H); weights (G, H, ·) and biases (G, H) as in PyTorch's documentation.

    Returns the new h and c; cells without c hand it back.
    """
    z = np.einsum("ghi,bi->gbh", w_in, x) + b_in[:, None]
    u = np.einsum("ghk,bk->gbh", w_rec, h) + b_rec[:, None]
    if cell == "lstm":
        i, f, g, o = z + u
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(c), c
    if cell == "gru":
        r, keep = sigmoid(z[0] + u[0]), sigmoid(z[1] + u[1])
        n = np.tanh(z[2] + r * u[2])
        return (1 - keep) * n + keep * h, c
    return (np.tanh(z[0] + u[0]) if cell == "rnn_tanh" else np.maximum(z[0] + u[0], 0)), c


def run(
    cell: str,
    x: Array,
    h: Array,
    c: Array,
    weights: tuple[Array, Array, Array, Array],
    lengths: Array,
    reverse: bool = False,
) -> tuple[Array, Array, Array]:
    """All steps of ``x`` (T, batch, I) for sequences of the given lengths (batch,); ``weights`` are those of :func:`step`.

    Returns outputs (T, batch, H), zero after a sequence's end, and the last h and c. ``reverse`` runs from each sequence's end.
    """
    out = np.zeros((*x.shape[:2], h.shape[1]), h.dtype)
    h, c = h.copy(), c.copy()
    for b, length in enumerate(lengths):
        row = slice(b, b + 1)
        for t in reversed(range(length)) if reverse else range(length):
            h[row], c[row] = step(cell, x[t, row], h[row], c[row], *weights)
            out[t, b] = h[b]
    return out, h, c
