"""From scores and a budget to what goes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from jali.errors import BudgetError
from jali.plans.budget import Budget
from jali.plans.distribution import apportion, erdos_renyi
from jali.plans.pattern import UNSTRUCTURED, Pattern
from jali.plans.ramanujan import kept_expanders
from jali.site import Site

WeightMasks = Mapping[Site, Mapping[str, np.ndarray]]


def decide_units(scores: Mapping[Site, np.ndarray], budget: Budget) -> dict[Site, np.ndarray]:
    """Site → indices of the removed units, ascending.

    The lowest scores go first; equal scores go by descending index, so that a plan depends on nothing else. Units that
    must stay for a width's sake do not count as removed: a global budget takes others in their place.
    """
    if budget.scope == "erk":
        raise BudgetError("scope 'erk' shares out the weights of matrices, not units; choose 'site' or 'global'")
    if budget.ramanujan is not None:
        raise BudgetError("a ramanujan budget is one of weights, not units; choose granularity='weight'")
    orders = []
    for site, values in scores.items():
        spare = site.size - max(budget.min_width, site.minimum)
        orders.append(np.lexsort((-np.arange(site.size), values))[: max(spare, 0)])
    out = {}
    for site, order, count in zip(scores, orders, _counts(scores, orders, budget), strict=True):
        keep = min(site.size, math.ceil((site.size - count) / budget.multiple_of) * budget.multiple_of)
        out[site] = np.sort(order[: site.size - keep])
    return out


def _counts(scores: Mapping[Site, np.ndarray], orders: list[np.ndarray], budget: Budget) -> list[int]:
    """How many units go at each site, before rounding; ``orders``: the units that may go, the first to go first."""
    rows, threshold = list(zip(scores.values(), orders, strict=True)), budget.threshold
    if threshold is not None:
        return [int((values[order] < threshold).sum()) for values, order in rows]
    if budget.scope == "site":
        return [min(_nearest(budget, len(values)), len(order)) for values, order in rows]
    candidates = [(float(values[unit]), -unit, k) for k, (values, order) in enumerate(rows) for unit in order]
    chosen = sorted(candidates)[: _nearest(budget, sum(len(values) for values, _ in rows))]
    return np.bincount([k for _, _, k in chosen], minlength=len(rows)).tolist()


def _nearest(budget: Budget, size: int) -> int:
    return round(float(budget.sparsity or 0) * size)


def decide_weights(
    scores: Mapping[Site, Mapping[str, np.ndarray]],
    budget: Budget,
    pattern: Pattern = UNSTRUCTURED,
    thin: float = 0.0,
    groups: Mapping[Site, np.ndarray] | None = None,
) -> dict[Site, dict[str, np.ndarray]]:
    """Site → view field → keep mask.

    The worst groups of ``pattern`` go until the fraction of weights removed is nearest to the budget's, or those scored
    below its threshold; ``thin``: of those that would stay, this fraction goes too. Equal groups go by descending index, so
    that a plan depends on nothing else. An ``n:m`` pattern fixes what goes. A ``block-diagonal:k`` pattern plans ``w_rec`` only,
    with the ``groups`` of :func:`decide_groups` unless they are given: all weights between them go, the worst first where the
    budget is below the sparsity that the pattern fixes. A ``ramanujan`` budget is met by every gate's matrix by itself.
    Raises :class:`BudgetError` for widths in the budget, and for sites
    of which a ``block-diagonal:k`` pattern cannot be had.
    """
    if budget.multiple_of != 1 or budget.min_width != 1:
        raise BudgetError("multiple_of and min_width round widths, and a plan of weights changes none; leave them out")
    if budget.ramanujan is not None:
        if pattern != UNSTRUCTURED:
            raise BudgetError(
                f"a ramanujan budget removes weights one by one, not in pattern {pattern.name!r}; leave it out"
            )
        return {site: {f: kept_expanders(s, budget) for f, s in fields.items()} for site, fields in scores.items()}
    if pattern.per_row is not None:
        n, m = pattern.per_row
        thinned = dataclasses.replace(pattern, per_row=(n - round(thin * n), m))
        return {site: {f: thinned.keep_per_row(s) for f, s in fields.items()} for site, fields in scores.items()}
    if pattern.diagonal is not None:
        labels = decide_groups(scores, pattern) if groups is None else groups
        part = float(budget.sparsity or 0) / float(pattern.sparsity or 1)
        return {site: {"w_rec": _kept_between(f["w_rec"], labels[site], part)} for site, f in scores.items()}
    places = [(site, field) for site, fields in scores.items() for field in fields]
    out: dict[Site, dict[str, np.ndarray]] = {site: {} for site in scores}
    for rivals, quota in _rivals(places, scores, budget):
        parts = [(site, f, pattern.groups(scores[site][f].shape)) for site, f in rivals]
        sizes = [np.bincount(number.ravel()) for *_, number in parts]
        means = [
            np.bincount(number.ravel(), weights=scores[site][f].ravel()) / size
            for (site, f, number), size in zip(parts, sizes, strict=True)
        ]
        going = quota + round(thin * (sum(scores[site][f].size for site, f in rivals) - quota))
        keep = _kept_groups(np.concatenate(means), np.concatenate(sizes), budget, going)
        ends = np.cumsum([len(size) for size in sizes])[:-1]
        for (site, f, number), kept in zip(parts, np.split(keep, ends), strict=True):
            out[site][f] = kept[number]
    return out


def decide_groups(scores: Mapping[Site, Mapping[str, np.ndarray]], pattern: Pattern) -> dict[Site, np.ndarray]:
    """Site → group of every unit, (H,), of a ``block-diagonal:k`` pattern; :class:`BudgetError` where it cannot be had."""
    return {site: _groups(site, fields, pattern) for site, fields in scores.items()}


def _groups(site: Site, scores: Mapping[str, np.ndarray], pattern: Pattern) -> np.ndarray:
    recurrent = scores.get("w_rec")
    if recurrent is None or recurrent.shape[2] != site.size:
        why = "has no recurrent weights" if recurrent is None else "has a projection, which mixes all units"
        raise BudgetError(
            f"pattern {pattern.name!r} cannot be had at site {site.name!r}, which {why}; leave the site out"
        )
    if pattern.diagonal is not None and pattern.diagonal > site.size:
        raise BudgetError(
            f"pattern {pattern.name!r} asks for more groups than the {site.size} units of site {site.name!r}; give "
            f"block-diagonal:{site.size} or less"
        )
    return pattern.diagonal_groups(recurrent)


def _kept_between(scores: np.ndarray, labels: np.ndarray, part: float) -> np.ndarray:
    """Keep mask (G, H, H): everything inside the groups, and of what lies between them all but the worst ``part``."""
    keep = np.ones(scores.shape, dtype=bool)
    between = np.flatnonzero(np.broadcast_to(labels[:, None] != labels[None, :], scores.shape))
    order = np.lexsort((-between, scores.ravel()[between]))
    keep.ravel()[between[order[: round(min(part, 1.0) * len(between))]]] = False
    return keep


def regrown_weights(
    keep: WeightMasks,
    scores: Mapping[Site, Mapping[str, np.ndarray]],
    growth: Mapping[Site, Mapping[str, np.ndarray]],
    budget: Budget,
    pattern: Pattern,
    fraction: float,
) -> dict[Site, dict[str, np.ndarray]]:
    """The masks after ``fraction`` of the weights that ``keep`` keeps, the worst by ``scores``, gave way to the best by
    ``growth``; among these are those that have just gone. The sparsity stays the budget's.
    """
    alive = {s: {f: np.where(keep[s][f], v, -np.inf) for f, v in fields.items()} for s, fields in scores.items()}
    rest = decide_weights(alive, budget, pattern, thin=fraction)
    wanted = {
        site: {f: np.where(mask & keep[site][f], np.inf, growth[site][f]) for f, mask in fields.items()}
        for site, fields in rest.items()
    }
    return decide_weights(wanted, budget, pattern)


Place = tuple[Site, str]


def _rivals(
    places: Sequence[Place], scores: Mapping[Site, Mapping[str, np.ndarray]], budget: Budget
) -> list[tuple[list[Place], int]]:
    """The sets of matrices that are ranked together, and how many weights go from each."""
    sizes = np.array([scores[site][field].size for site, field in places])
    if budget.scope == "erk":
        total = int(sizes.sum())
        shapes = [scores[site][field].shape for site, field in places]
        density = erdos_renyi(shapes, 1 - float(budget.sparsity or 0))
        staying = apportion(density * sizes, total - _nearest(budget, total))
        return [([place], int(gone)) for place, gone in zip(places, sizes - staying, strict=True)]
    if budget.scope == "global":
        return [(list(places), _nearest(budget, int(sizes.sum())))]
    per_site = [[place for place in places if place[0] == site] for site in scores]
    return [(own, _nearest(budget, sum(scores[site][field].size for site, field in own))) for own in per_site if own]


def _kept_groups(scores: np.ndarray, sizes: np.ndarray, budget: Budget, going: int) -> np.ndarray:
    """Which groups stay, (number of groups,); ``sizes``: weights in each; ``going``: how many weights a sparsity removes."""
    if budget.threshold is not None:
        return scores >= budget.threshold
    order = np.lexsort((-np.arange(scores.size), scores))
    gone = np.concatenate(([0], np.cumsum(sizes[order])))  # weights gone with the first k groups
    keep = np.ones(scores.size, dtype=bool)
    keep[order[: int(np.argmin(np.abs(gone - going)))]] = False
    return keep
