"""Random choice: the control that every other criterion must beat."""

from __future__ import annotations

import zlib

import numpy as np

from jali.evidence import SiteEvidence
from jali.plain import seed_of
from jali.view import View

SUMMARY = "uniform random scores; the control that every criterion must beat"
NEEDS: tuple[str, ...] = ()


def score(view: View, evidence: SiteEvidence, *, seed: int = 0) -> np.ndarray:
    """Uniform scores in [0, 1), (H,); the same seed and site give the same scores."""
    return _generator(view, seed).random(view.hidden)


def score_weights(view: View, evidence: SiteEvidence, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Uniform scores in [0, 1) of every input and recurrent weight."""
    generator = _generator(view, seed)
    return {field: generator.random(value.shape) for field, value in view.arrays() if field in ("w_in", "w_rec")}


def _generator(view: View, seed: int) -> np.random.Generator:
    # crc32 of the name, not hash(): Python salts that one per process.
    return np.random.default_rng([seed_of(seed), zlib.crc32(view.site.name.encode())])
