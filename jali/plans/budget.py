"""Budgets: how much goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jali.errors import BudgetError
from jali.plain import is_finite, is_whole


@dataclass(frozen=True)
class Budget:
    """How much goes.

    Exactly one of ``sparsity`` (fraction of the units or weights removed, in (0, 1), to the nearest whole number of them),
    ``threshold`` (units or weights with a score below it go) and ``ramanujan``: "S" or "R", the largest sparsity of every
    gate's matrix, each by itself, before its spectral bound Δ_S or Δ_R first falls below ``margin``, and at most down to a mean
    degree of 3 (:mod:`jali.plans.ramanujan`); for weights, one by one. ``scope``: rank within each ``"site"``, the same sparsity
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
    ramanujan: Literal["S", "R"] | None = None
    margin: float = 0.0

    def __post_init__(self) -> None:
        if sum(each is not None for each in (self.sparsity, self.threshold, self.ramanujan)) != 1:
            raise BudgetError(
                "a budget is either a sparsity or a threshold, or a bound (ramanujan); give exactly one of them"
            )
        self._check_bound()
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
        self._check_widths()

    def _check_bound(self) -> None:
        if self.ramanujan not in (None, "S", "R"):
            raise BudgetError(
                f"ramanujan {self.ramanujan!r} is no bound; it is 'S' (by λ1) or 'R' (by the mean degree)"
            )
        if not is_finite(self.margin) or self.margin <= -1.0:
            raise BudgetError(f"margin {self.margin!r} is not a finite number above -1, the least value of a bound")
        object.__setattr__(self, "margin", float(self.margin))
        if self.ramanujan is None and self.margin != 0.0:
            raise BudgetError(f"margin {self.margin} is one of a bound; give ramanujan='S' or 'R', or leave it out")
        if self.ramanujan is not None and self.scope != "site":
            raise BudgetError(f"a bound decides for every matrix by itself, and scope is {self.scope!r}; leave it out")

    def _check_widths(self) -> None:
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
