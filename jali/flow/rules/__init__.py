"""One rule per operation: what happens to labelled features when they pass through it.

A rule returns the abstract value of the result, or :data:`UNSAFE` when it cannot prove that removing the removed
units' (zero) features commutes with the operation. Operations without a rule are unsafe for labelled features.
"""

from jali.flow.rules import axes, elementwise, indexing, joining, reductions, regrouping, sequences, sizes
from jali.flow.rules.registry import RULES, TAKES_WIDTHS, UNSAFE

__all__ = [
    "RULES", "TAKES_WIDTHS", "UNSAFE", "axes", "elementwise", "indexing", "joining", "reductions", "regrouping",
    "sequences", "sizes",
]  # fmt: skip
