"""From scores and a budget to what goes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from jali.errors import BudgetError
from jali.plans.budget import Budget
from jali.view import Site


def decide_units(scores: Mapping[Site, np.ndarray], budget: Budget) -> dict[Site, np.ndarray]:
    """Site → indices of the removed units, ascending.

    The lowest scores go first; equal scores go by descending index, so that a plan depends on nothing else.
    """
    candidates = [(float(s), -unit, k) for k, site in enumerate(scores) for unit, s in enumerate(scores[site])]
    going: list[list[int]] = [[] for _ in scores]
    if budget.threshold is not None:
        chosen = sorted(c for c in candidates if c[0] < budget.threshold)
    elif budget.scope == "global":
        chosen = sorted(candidates)[: round(float(budget.sparsity or 0) * len(candidates))]
    else:
        chosen = sorted(candidates)
    for _, minus_unit, k in chosen:
        going[k].append(-minus_unit)
    out = {}
    for site, order in zip(scores, going, strict=True):
        count = len(order)
        if budget.threshold is None and budget.scope == "site":
            count = round(float(budget.sparsity or 0) * site.size)
        keep = max(site.size - count, budget.min_width, site.minimum)
        keep = min(site.size, math.ceil(keep / budget.multiple_of) * budget.multiple_of)
        out[site] = np.sort(np.asarray(order[: site.size - keep], dtype=int))
    return out


def decide_weights(
    scores: Mapping[Site, Mapping[str, np.ndarray]], budget: Budget
) -> dict[Site, dict[str, np.ndarray]]:
    """Site → view field → keep mask. Equal scores are kept in the order of their index."""
    if budget.multiple_of != 1 or budget.min_width != 1:
        raise BudgetError("multiple_of and min_width round widths, and a plan of weights changes none; leave them out")
    if budget.threshold is not None:
        return {site: {f: s >= budget.threshold for f, s in fields.items()} for site, fields in scores.items()}
    groups = [list(scores)] if budget.scope == "global" else [[site] for site in scores]
    out: dict[Site, dict[str, np.ndarray]] = {}
    for group in groups:
        flat = np.concatenate([scores[site][f].ravel() for site in group for f in scores[site]])
        mask = np.ones(flat.size, dtype=bool)
        order = np.argsort(-flat, kind="stable")
        mask[order[flat.size - round(float(budget.sparsity or 0) * flat.size) :]] = False
        at = 0
        for site in group:
            out[site] = {}
            for name, value in scores[site].items():
                out[site][name] = mask[at : at + value.size].reshape(value.shape)
                at += value.size
    return out
