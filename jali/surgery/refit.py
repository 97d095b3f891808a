"""Fold a decoder into the weights that read the decoded features, and into the outputs that stay wide."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from jali.surgery.decode import Rows, fit_rows
from jali.view import View
from jali.widths import Widen


def with_inputs(narrow: View, dense: View, keep: np.ndarray, a: np.ndarray, c: np.ndarray) -> View:
    """``narrow`` reading decoded input features: ``w_in = W A``, ``b_in = b + W c`` of the kept units."""
    weight = dense.w_in[:, keep]
    if dense.b_in is None:
        return narrow.replace(w_in=weight @ a)
    return narrow.replace(w_in=weight @ a, b_in=dense.b_in[:, keep] + weight @ c)


def with_recurrence(narrow: View, dense: View, keep: np.ndarray, a: np.ndarray, c: np.ndarray) -> View:
    """``narrow`` reading its own decoded state.

    The offset goes to ``b_rec``, which a GRU's reset gate scales together with the recurrent term. Behind a projection
    the projection reads the state, and it has no offset.
    """
    if dense.w_proj is not None:
        return narrow.replace(w_proj=dense.w_proj @ a)
    if dense.w_rec is None:
        return narrow
    weight = dense.w_rec[:, keep]
    if dense.b_rec is None:
        return narrow.replace(w_rec=weight @ a)
    return narrow.replace(w_rec=weight @ a, b_rec=dense.b_rec[:, keep] + weight @ c)


def repair(widen: Widen, keep: np.ndarray, parts: Sequence[Rows], prior: np.ndarray) -> None:
    """Let ``widen`` return removed features as an affine map of the kept ones, fitted on rows of outputs.

    ``prior`` (size, K): the map to shrink towards.
    """
    removed = np.setdiff1d(np.arange(widen.size), keep)
    if len(removed) == 0:
        return
    rows = [(narrow, full[:, removed], judges) for narrow, full, judges in parts]
    a, c = fit_rows(rows, prior[removed], np.eye(len(removed)), offset=True)
    like = parts[0][0]
    linear = nn.Linear(len(keep), len(removed), device=widen.order.device, dtype=like.dtype)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(a))
        linear.bias.copy_(torch.from_numpy(c))
    widen.repair = linear.train(widen.training)
