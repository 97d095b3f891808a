"""What an operation leaves behind: the two models and how the one was cut out of the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import nn

from jali.flow import Flow
from jali.plans import Plan


@dataclass(frozen=True, eq=False)
class Surgery:
    """``model`` was cut by ``plan`` into ``compact``.

    ``keep``: site name → kept units. ``inputs``: path of a shrunk reader → kept input features. ``inner``: path of a
    replaced module in ``model`` → path of the narrow PyTorch module (or uneven stack) in ``compact``.
    """

    model: nn.Module
    compact: nn.Module
    plan: Plan
    flow: Flow
    keep: Mapping[str, np.ndarray]
    inputs: Mapping[str, np.ndarray]
    inner: Mapping[str, str]
    notes: tuple[str, ...] = ()
