"""Budgets: how much goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jali.errors import BudgetError
from jali.plain import is_finite, is_whole


@dataclass(frozen=True)
class Budget:
    """How much goes.

    Exactly one of ``sparsity`` (fraction of the units or weights removed, in (0, 1), to the nearest whole number of them)
    and ``threshold`` (units or weights with a score below it go). ``scope``: rank within each ``"site"``, the same sparsity
    at all of them; over all sites (``"global"``; scores are then compared as they are); or, for weights, within each matrix,
    with Erdős–Rényi densities (``"erk"``, :func:`jali.plans.distribution.erdos_renyi`). ``multiple_of`` rounds the kept
    width *up*, ``min_width`` is the smallest width left; both hold for units only. At least one unit of a site stays, so that
    a plan may reach less than was asked: :attr:`Plan.sparsity` says what it reached. Raises :class:`BudgetError` outside
    these ranges.
    """

    sparsity: float | None = None
    threshold: float | None = None
    scope: Literal["site", "global", "erk"] = "site"
    multiple_of: int = 1
    min_width: int = 1

    def __post_init__(self) -> None:
        if (self.sparsity is None) == (self.threshold is None):
            raise BudgetError("a budget is either a sparsity or a threshold; give exactly one of the two")
        if self.sparsity is not None:
            wanted = "it is the fraction removed, e.g. 0.5 for half of the units"
            if not is_finite(self.sparsity) or not 0.0 < self.sparsity < 1.0:
                raise BudgetError(f"sparsity {self.sparsity!r} is not a number inside (0, 1); {wanted}")
            object.__setattr__(self, "sparsity", float(self.sparsity))
        if self.threshold is not None:
            if not is_finite(self.threshold):
                raise BudgetError(
                    f"threshold {self.threshold!r} is not a finite number; give one on the scale of the scores"
                )
            object.__setattr__(self, "threshold", float(self.threshold))
        if self.scope not in ("site", "global", "erk"):
            raise BudgetError(f"scope {self.scope!r} is unknown; it is 'site' or 'global', or 'erk' for weights")
        if self.scope == "erk" and self.sparsity is None:
            raise BudgetError(
                "scope 'erk' shares out a sparsity, and the budget is a threshold; choose 'site' or 'global'"
            )
        for name in ("multiple_of", "min_width"):
            width = getattr(self, name)
            if not is_whole(width) or width < 1:
                raise BudgetError(f"{name}={width!r} is not a width; give a whole number of units, at least 1")
            object.__setattr__(self, name, int(width))

    @staticmethod
    def of(value: float | Budget) -> Budget:
        """A number is the sparsity; a Budget is itself."""
        if isinstance(value, Budget):
            return value
        if not is_finite(value):
            raise BudgetError(
                f"budget {value!r} is not a number inside (0, 1) nor a jali.Budget; e.g. 0.5 removes half"
            )
        return Budget(sparsity=value)
