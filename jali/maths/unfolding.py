"""A recurrent layer of k steps as one bipartite graph.

Vertices are the units at times 0 … k and the inputs at times 1 … k; an input weight joins ``x_t`` and ``h_t``, a recurrent
one ``h_{t−1}`` and ``h_t``. Units alternate between the two sides with the parity of t, and inputs lie opposite the units that
they drive, so the graph is bipartite, and :func:`jali.maths.spectral.expansion` applies to its block. "Graph expansion in pruned
recurrent neural network layers preserves performance", ICLR 2024 Tiny Papers, section 2 and figure 2.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jali.errors import ContextError


def unfolded(w_in: ArrayLike, w_rec: ArrayLike, steps: int) -> Any:
    """The block (scipy.sparse CSR) of the graph of ``w_in (H, I)`` and ``w_rec (H, H)``, [to, from], over ``steps`` steps.

    Rows are the vertices on the side of ``h_0``, columns the others. On each side come the units in the order of time, then
    the inputs in the order of time; weights are copied as they are. Of a gated layer give one matrix per gate, or one that
    joins the gates (:meth:`jali.view.View.influence`). As a whole it is hardly ever an expander: with k steps the gap between λ1
    and λ2 closes like 1/k², as along every chain.
    Raises :class:`ContextError` for shapes that do not fit, or fewer than one step.
    """
    inputs, recurrent = np.asarray(w_in, dtype=np.float64), np.asarray(w_rec, dtype=np.float64)
    if recurrent.ndim != 2 or recurrent.shape[0] != recurrent.shape[1] or not recurrent.size:
        raise ContextError(f"w_rec has shape {recurrent.shape}; (H, H) with H at least 1 is wanted")
    if inputs.ndim != 2 or inputs.shape[0] != len(recurrent):
        raise ContextError(f"w_in has shape {inputs.shape}; ({len(recurrent)}, I) is wanted")
    if steps < 1:
        raise ContextError(f"steps={steps} is below 1; a graph over time has at least one step")
    from scipy.sparse import coo_matrix

    hidden, features = inputs.shape
    sides = (hidden * (steps // 2 + 1), hidden * ((steps + 1) // 2))  # units at even times, at odd times
    rows, columns, values = [], [], []
    for time in range(1, steps + 1):
        # A unit at `time` has number time // 2 on its side. An input of the n-th odd (even) time follows the even (odd) units.
        before, driven = hidden * ((time - 1) // 2), sides[(time + 1) % 2] + features * ((time - 1) // 2)
        parts = ((recurrent, hidden * (time // 2), before), (inputs, hidden * (time // 2), driven))
        for weights, to, start in parts:
            i, j = np.nonzero(weights)
            near, far = i + to, j + start
            rows.append(near if time % 2 == 0 else far)
            columns.append(far if time % 2 == 0 else near)
            values.append(weights[i, j])
    shape = (sides[0] + features * ((steps + 1) // 2), sides[1] + features * (steps // 2))
    return coo_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=shape).tocsr()
