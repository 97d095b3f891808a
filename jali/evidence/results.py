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
class SiteEvidence:
    """What was measured at one site: who reads its units, and the loss gradient of its parameters per batch."""

    uses: tuple[Use, ...] = ()
    gradients: tuple[View, ...] = ()


@dataclass(frozen=True, eq=False)
class Evidence:
    """Evidence per site name."""

    sites: Mapping[str, SiteEvidence] = field(default_factory=dict)
