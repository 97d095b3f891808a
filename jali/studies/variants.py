"""What the comparisons of patterns prune: a family of patterns at a sparsity, and the plan for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from jali.planning import plan
from jali.plans import Plan

PATTERNS = ("weight", "gate-aligned", "block:16x1", "n:m", "block-diagonal")
FAMILIES = (*PATTERNS, "unit")
OF, BLOCKS = 32, (2, 4, 8, 16, 32, 64)  # the m of n:m, and numbers of diagonal blocks


@dataclass(frozen=True)
class Variant:
    """``family``: one of :data:`FAMILIES`; ``sparsity``: what is asked for, of the weights or of the units."""

    family: str
    sparsity: float

    @property
    def pattern(self) -> str:
        """The pattern of :func:`jali.plan` nearest to the sparsity: with n:m and block-diagonal it fixes the sparsity."""
        if self.family == "n:m":
            return f"{max(1, round(OF * (1 - self.sparsity)))}:{OF}"
        if self.family == "block-diagonal":
            return f"block-diagonal:{min(BLOCKS, key=lambda k: abs(1 / k - (1 - self.sparsity)))}"
        return self.family

    def plan(self, model: nn.Module, criterion: str, data: Any = None, seed: int = 0) -> Plan:
        """The plan of :func:`jali.plan` for the recurrent layers of ``model``."""
        budget = None if self.family in ("n:m", "block-diagonal") else self.sparsity
        return plan(model, criterion, budget, data, pattern=self.pattern, seed=seed)
