"""Plans: what goes, from scores and a budget. Pure data and arithmetic, no model.

A :class:`Plan` is JSON with a schema version; the same scores and the same budget give the same plan, bit for bit.
"""

from jali.plans.budget import Budget
from jali.plans.decide import decide_groups, decide_units, decide_weights, regrown_weights
from jali.plans.pattern import UNSTRUCTURED, Pattern
from jali.plans.plan import SCHEMA, Granularity, Plan, Weights
from jali.plans.site_plan import SitePlan

__all__ = [
    "SCHEMA",
    "UNSTRUCTURED",
    "Budget",
    "Granularity",
    "Pattern",
    "Plan",
    "SitePlan",
    "Weights",
    "decide_groups",
    "decide_units",
    "decide_weights",
    "regrown_weights",
]
