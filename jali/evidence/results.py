"""The frozen results of measuring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from jali.view import View


@dataclass(frozen=True, eq=False)
class Use:
    """One place that reads the units' states h: it computes ``weight @ h``.

    ``weight`` (O, H); ``mean`` (H,) = E[h]; ``second`` (H, H) = E[h hᵀ], over the ``samples`` readings there (the head of
    a classifier that looks at the last step is measured at the last step only).
    """

    reader: str
    weight: np.ndarray
    mean: np.ndarray
    second: np.ndarray
    samples: int

    @property
    def covariance(self) -> np.ndarray:
        """E[h hᵀ] − E[h] E[h]ᵀ, (H, H)."""
        return self.second - np.outer(self.mean, self.mean)


@dataclass(frozen=True, eq=False)
class SiteTrajectory:
    """What a training did to the weights of one site, D windows long (:mod:`jali.evidence.twins`).

    ``exponents``: view field → (D, *its shape); ``performance`` (D,): of the network at the end of each window.
    """

    exponents: Mapping[str, np.ndarray]
    performance: np.ndarray


@dataclass(frozen=True, eq=False)
class SiteEvidence:
    """What was measured at one site: who reads its units, the loss gradient of its parameters per batch, its training."""

    uses: tuple[Use, ...] = ()
    gradients: tuple[View, ...] = ()
    trajectory: SiteTrajectory | None = None


@dataclass(frozen=True, eq=False)
class Evidence:
    """Evidence per site name."""

    sites: Mapping[str, SiteEvidence] = field(default_factory=dict)
