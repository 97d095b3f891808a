"""Random regular graphs, whatever the weights are: expanders before training, the control for the criterion ``expander``.

A. Prabhu, G. Varma, A. Namboodiri, "Deep expander networks: efficient deep networks from graph theory" (X-Net), ECCV 2018.
Plan the untrained model with it, and train with a :class:`jali.Pruner` of one shot.
"""

from __future__ import annotations

import zlib

import numpy as np

from jali.evidence import SiteEvidence
from jali.maths.expanders import regular_ranking
from jali.view import View

SUMMARY = (
    "a random graph of equal degrees, whatever the weights: an expander before training (X-Net, Prabhu et al. 2018)"
)
NEEDS: tuple[str, ...] = ()


def score_weights(view: View, evidence: SiteEvidence, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Random ranks in (0, 1]: the k best of every gate's matrix are a nearly regular graph for every k.

    The same seed and site give the same scores.
    """
    scores = {}
    for field, value in view.arrays():
        if field in ("w_in", "w_rec"):
            # crc32 of the name, not hash(): Python salts that one per process.
            own = zlib.crc32(f"{view.site.name}.{field}".encode())
            gates = [regular_ranking(gate.shape[0], gate.shape[1], (seed, own, k)) for k, gate in enumerate(value)]
            scores[field] = np.stack([(ranks + 1.0) / ranks.size for ranks in gates])
    return scores
