"""Decode: the least-squares affine map from what is left to what there was, from additive moments."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from jali.moments import Moments, check_finite

# Relative to the mean variance of the regressors; the held-out sequences choose.
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
HELD_OUT = 5  # every fifth sequence judges

Affine = tuple[np.ndarray, np.ndarray]  # A (Y, K) and c (Y,)


def held_out(size: int) -> Tensor:
    """Boolean (size,): the sequences that judge; none if there is only one."""
    chosen = torch.zeros(size, dtype=torch.bool)
    if size >= 2:
        chosen[HELD_OUT - 1 :: HELD_OUT] = True
        chosen[-1] = True
    return chosen


class PairMoments(Moments):
    """Moments of rows (z, y): of z, what is left, and y, what there was; ``PairMoments(K, Y)``."""

    def solve(self, ridge: float, prior: np.ndarray, *, offset: bool) -> Affine:
        """``min E‖y − A z − c‖² + ridge · mean var(z) · ‖A − prior‖²``; c is free, or 0 without ``offset``.

        Shrinking towards the prior (Y, K), and not towards zero, keeps a fit on few sequences close to the plain cut.
        """
        z, y, zz, zy, _ = self.means()
        mean_z, mean_y = (z, y) if offset else (np.zeros_like(z), np.zeros_like(y))
        covariance, cross = zz - np.outer(mean_z, mean_z), zy - np.outer(mean_z, mean_y)
        # The floor holds for states that never move: A is then the prior, and c carries their constant.
        strength = max(ridge * float(np.trace(covariance)) / len(covariance), 1e-30)
        a = np.linalg.solve(covariance + strength * np.eye(len(covariance)), cross + strength * prior.T).T
        return a, mean_y - a @ mean_z

    def error(self, fitted: Affine, reader: np.ndarray) -> float:
        """``E‖reader (y − A z − c)‖²`` for a reader (O, Y)."""
        a, c = fitted
        z, y, zz, zy, yy = self.means()
        gram = reader.T @ reader
        spread = yy - a @ zy - (a @ zy).T + a @ zz @ a.T
        shift = np.outer(c, c + 2 * (a @ z - y))
        return float(np.einsum("ij,ji->", gram, spread + shift))


def fit(train: PairMoments, held: PairMoments, prior: np.ndarray, reader: np.ndarray, *, offset: bool) -> Affine:
    """The decoder whose ridge does best on ``held``; the strongest of equals. Without held-out rows, on 1e-3."""
    if not held.count:
        return train.solve(1e-3, prior, offset=offset)
    candidates = [train.solve(ridge, prior, offset=offset) for ridge in reversed(RIDGES)]
    return min(candidates, key=lambda fitted: held.error(fitted, reader))


Rows = tuple[Tensor, Tensor, Tensor]  # narrow (N, K), full (N, Y), and which rows judge (N,)


def rows_of(narrow: Tensor, full: Tensor) -> Rows:
    """The rows of (B, …, K) and (B, …, Y); the B are told apart as sequences, and some of them judge."""
    judges = held_out(len(narrow)) if narrow.dim() > 1 else torch.zeros(1, dtype=torch.bool)
    z, y = (t.reshape(-1, t.shape[-1]) for t in (narrow, full))
    return z, y, judges.repeat_interleave(len(z) // len(judges))


def fit_rows(parts: Iterable[Rows], prior: np.ndarray, reader: np.ndarray, *, offset: bool) -> Affine:
    """:func:`fit` on narrow and full rows."""
    train, held = (PairMoments(prior.shape[1], prior.shape[0]) for _ in range(2))
    for z, y, judges in parts:
        check_finite(z, y)
        train.add(z[~judges], y[~judges])
        held.add(z[judges], y[judges])
    return fit(train, held, prior, reader, offset=offset)


def selection(keep: np.ndarray, size: int) -> np.ndarray:
    """The prior of a plain cut (size, K): kept features stand for themselves, removed ones are zero."""
    return np.eye(size)[:, keep]
