"""Expander: keep large weights, on a graph that stays well connected when it is sparse.

"Graph expansion in pruned recurrent neural network layers preserves performance", ICLR 2024 Tiny Papers: a network keeps its
accuracy while the graphs of its weights are expanders. Here the choice sees to it, :func:`jali.maths.expanders.expander_ranking`.
"""

from __future__ import annotations

import numpy as np

from jali.evidence import SiteEvidence
from jali.maths.expanders import expander_ranking
from jali.view import View

SUMMARY = "large weights on a graph that is better connected at every sparsity; -0.3 as strength harms it (a control)"
NEEDS: tuple[str, ...] = ()


def score_weights(
    view: View, evidence: SiteEvidence, *, strength: float = 0.1, floor: float = 0.25
) -> dict[str, np.ndarray]:
    """The rank of a weight within the matrix of its gate, in (0, 1]: for every k the k best are a well connected graph.

    ``strength``: how much an edge that raises α2 is preferred, in units of log |w|; 0 not at all, negative the opposite.
    ``floor``, in [0, 1]: the least degree of a unit or input, as a fraction of the mean one. With both 0 the order within a
    matrix is that of ``|w|``. Ranks are alike in all matrices, so that a site's budget gives them all one density.
    """
    return {
        field: np.stack([(expander_ranking(gate, strength, floor) + 1.0) / gate.size for gate in value])
        for field, value in view.arrays()
        if field in ("w_in", "w_rec")
    }
