"""From a model to a plan: the sites, the criterion and the evidence; once, or again and again while the model trains."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from torch import nn

from jali.batches import Batch, batches
from jali.criterion import Criterion, get
from jali.errors import BudgetError, DataError, ModelError
from jali.evidence import Loss, SiteEvidence, Trajectory, collect
from jali.plans import (
    UNSTRUCTURED,
    Budget,
    Granularity,
    Pattern,
    Plan,
    SitePlan,
    Weights,
    decide_groups,
    decide_units,
    decide_weights,
)
from jali.plans.decide import WeightMasks
from jali.plans.ramanujan import in_pieces
from jali.site import Site, sites
from jali.view import View, check_parameters, read

DEFAULT = 0.5
DEFAULT_NOTE = f"no budget was given, so it is the default, {DEFAULT}: the fraction removed"
WeightScores = dict[Site, dict[str, np.ndarray]]


def plan(
    model: nn.Module,
    criterion: str = "lattice",
    budget: float | Budget | None = None,
    data: Any = None,
    *,
    granularity: Granularity = "unit",
    pattern: str | None = None,
    weights: Weights = "all",
    sites: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
    loss: Loss | None = None,
    trajectory: Trajectory | None = None,
    seed: int = 0,
) -> Plan:
    """Decide what goes. ``model`` is not changed.

    ``criterion``: a name of :func:`jali.criteria`, with its ``options``. ``budget``: the fraction removed, in (0, 1), or
    a :class:`jali.Budget`; 0.5 by default, and a note then says so.
    ``data``: calibration data for criteria that need it: a tensor, an iterable of batches or a DataLoader; ``(x, y)`` batches are
    understood. ``granularity``: "unit" (can be compacted) or "weight" (masks only).
    ``pattern``: weights that go together, for fast kernels: "weight", "gate-aligned", "block:16x1", "3:32" (of every 32
    columns of a row 3 stay) or "block-diagonal:4" (4 groups of units that do not read each other); the last two fix the
    budget; see :mod:`jali.plans.pattern`. But for "unit" it implies weights.
    ``weights``: of which matrices of a site they go: "all", "recurrent" (``weight_hh``) or "input" (``weight_ih``); the budget
    then counts these only.
    ``sites``: names or patterns such as ``"encoder.*"``; by default every recurrent layer and direction; a ``Linear`` is
    planned only where it is named. ``loss(output, target)`` for criteria that need gradients, ``trajectory``
    (of :func:`jali.trajectory`) for those that need a training.
    ``seed``: of whatever is drawn, a whole number from 0 to 2³² − 1.
    Raises :class:`ModelError` (also for NaN or infinite values in any parameter of the model), :class:`CriterionError`,
    :class:`BudgetError`, :class:`SeedError` or :class:`DataError`.
    """
    planner = Planner.of(model, criterion, data, granularity, pattern, weights, sites, options, loss, seed, trajectory)
    limit = planner.budget(budget)
    result = planner.decide(model, limit)
    if result.sparsity == 0.0:
        raise BudgetError(nothing_goes(limit, result))
    if budget is None and planner.pattern.sparsity is None:
        result = dataclasses.replace(result, notes=(*result.notes, DEFAULT_NOTE))
    return result


@dataclass(frozen=True, eq=False)
class Planner:
    """Everything that decides but the budget and the model's present weights."""

    sites: tuple[Site, ...]
    granularity: Granularity
    pattern: Pattern
    named: bool  # whether the caller named the pattern; the plan then says so
    weights: Weights
    criterion: Criterion
    items: Sequence[Batch] | None
    loss: Loss | None
    seed: int
    trajectory: Trajectory | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Planner:
        return self  # a value, which holds the user's data

    @staticmethod
    def of(
        model: nn.Module,
        criterion: str,
        data: Any,
        granularity: Granularity,
        pattern: str | None,
        weights: Weights,
        sites: Sequence[str] | None,
        options: Mapping[str, Any] | None,
        loss: Loss | None,
        seed: int,
        trajectory: Trajectory | None = None,
    ) -> Planner:
        """Check the arguments of :func:`plan`, but for the budget."""
        chosen = chosen_sites(model, sites)
        if granularity not in ("unit", "weight"):
            raise BudgetError(f"granularity {granularity!r} is unknown; it is 'unit' or 'weight'")
        if pattern == "unit":
            granularity, pattern = "unit", None
        elif pattern is not None:
            granularity = "weight"
        together = UNSTRUCTURED if pattern is None else Pattern.parse(pattern)
        _check_weights(weights, granularity, together, chosen)
        method = get(criterion, options, seed)
        for site in chosen:
            read(model, site)
        check_parameters(model, but=chosen)  # the fold, the costs and the cut readers use all of the model
        if method.needs - {"trajectory"} and data is None:
            raise DataError(f"criterion {criterion!r} needs calibration data; pass data=...")
        method.require(granularity)
        if "trajectory" in method.needs and trajectory is None:
            raise DataError(
                f"criterion {criterion!r} needs a training; pass trajectory=..., as jali.trajectory(model, train, watch) "
                "records it"
            )
        items = None if data is None else batches(data)
        return Planner(
            tuple(chosen), granularity, together, pattern is not None, weights, method, items, loss, seed, trajectory
        )

    def budget(self, budget: float | Budget | None) -> Budget:
        """``budget`` as a :class:`Budget`, 0.5 by default; with an ``n:m`` pattern the one that it fixes."""
        fixed = self.pattern.sparsity
        if fixed is None:
            return Budget.of(DEFAULT if budget is None else budget)
        limit = Budget.of(fixed if budget is None else budget)
        if limit.sparsity is None or abs(limit.sparsity - fixed) > 1e-9:
            raise BudgetError(f"pattern {self.pattern.name!r} removes {fixed:.6g} of the weights; leave the budget out")
        return limit

    def decide(self, model: nn.Module, limit: Budget, before: Plan | None = None) -> Plan:
        """The plan for ``model`` as it is now. What went ``before`` goes first, whatever it scores."""
        if self.granularity == "unit":
            scores = self._scores(model, self.criterion)
            return self._unit_plan(scores, limit, before)
        scores = self.weight_scores(model)
        if limit.ramanujan is not None:  # weights that are zero are no edges of a graph
            scores = _sunk(scores, {s: {f: w != 0 for f, w in read(model, s).arrays()} for s in scores})
        return self.decide_weights(scores, limit, before)

    def decide_weights(self, scores: WeightScores, limit: Budget, before: Plan | None = None) -> Plan:
        """The plan by the given scores of the weights. What went ``before`` goes first, whatever it scores."""
        groups, notes = self._groups(scores, before), _indifferent(scores)
        if before is None:
            return self.weight_plan(decide_weights(scores, limit, self.pattern, groups=groups), limit, groups, notes)
        old = {site: before.site(site.name).keep for site in self.sites}
        keep = decide_weights(_sunk(scores, old), limit, self.pattern, groups=groups)
        # Groups at an edge are smaller, so that the nearest number of weights may be met without one that had gone.
        kept = {s: {f: m & old[s][f] for f, m in keep[s].items()} for s in self.sites}
        return self.weight_plan(kept, limit, groups, notes)

    def _groups(self, scores: WeightScores, before: Plan | None) -> Mapping[Site, np.ndarray] | None:
        """The groups of units of a ``block-diagonal:k`` pattern: those of ``before``, or new ones."""
        if self.pattern.diagonal is None:
            return None
        if before is None:
            return decide_groups(scores, self.pattern)
        return {site: np.asarray(before.site(site.name).groups) for site in self.sites}

    def weight_scores(self, model: nn.Module, criterion: Criterion | None = None) -> WeightScores:
        """Scores of the weights of ``model`` as it is now, by another criterion if one is given."""
        scores = self._scores(model, criterion or self.criterion)
        field = _FIELDS.get(self.weights)
        return scores if field is None else {site: {field: found[field]} for site, found in scores.items()}

    def weight_plan(
        self,
        keep: WeightMasks,
        limit: Budget,
        groups: Mapping[Site, np.ndarray] | None = None,
        notes: Sequence[str] = (),
    ) -> Plan:
        """The plan that keeps the weights ``keep``, decided by ``limit``, on the way to separate ``groups`` of units."""
        planned = [
            SitePlan(
                site.name,
                site.kind,
                site.size,
                keep=keep[site],
                groups=() if groups is None else tuple(groups[site].tolist()),
            )
            for site in self.sites
        ]
        if limit.ramanujan is not None:
            found = (in_pieces(site.name, keep[site].values()) for site in self.sites)
            notes = (*notes, *(note for note in found if note is not None))
        return self._plan(planned, limit, self.pattern.name if self.named else None, notes)

    def _unit_plan(self, scores: Mapping[Site, np.ndarray], limit: Budget, before: Plan | None) -> Plan:
        gone = {site: () if before is None else before.site(site.name).removed for site in self.sites}
        ranked = {site: values.copy() for site, values in scores.items()}
        for site, values in ranked.items():
            values[list(gone[site])] = -np.inf
        removed = decide_units(ranked, limit)
        planned = [
            SitePlan(
                site.name,
                site.kind,
                site.size,
                tuple(sorted({*gone[site], *removed[site].tolist()})),
                tuple(scores[site].tolist()),
            )
            for site in self.sites
        ]
        return self._plan(planned, limit, None, _indifferent({site: {"unit": scores[site]} for site in self.sites}))

    def _plan(self, planned: Sequence[SitePlan], limit: Budget, pattern: str | None, more: Sequence[str]) -> Plan:
        method = self.criterion
        notes = (*self._narrowest(planned), *_on_the_way(planned), *_cut_off(planned), *more)
        return Plan(self.granularity, method.name, limit, tuple(planned), method.options, self.seed, notes, pattern)

    def _narrowest(self, planned: Sequence[SitePlan]) -> tuple[str, ...]:
        """Where a projection may have stopped the budget: PyTorch wants it narrower than the layer."""
        return tuple(
            f"{site.name!r} can have no fewer units than {site.minimum}, one more than its projection gives"
            for site, each in zip(self.sites, planned, strict=True)
            if self.granularity == "unit" and len(each.kept) == site.minimum > 1
        )

    def _scores(self, model: nn.Module, method: Criterion) -> dict[Site, Any]:
        """Site → what the criterion says of its units, or of its weights."""
        views: dict[Site, View] = {site: read(model, site) for site in self.sites}
        evidence = collect(model, self.items, self.sites, method.needs, self.loss, self.trajectory)
        score = method.score if self.granularity == "unit" else method.score_weights
        return {site: score(view, evidence.sites.get(site.name, SiteEvidence())) for site, view in views.items()}

    def with_pattern(self, pattern: Pattern) -> Planner:
        """The same with another pattern."""
        return dataclasses.replace(self, pattern=pattern)


def _sunk(scores: WeightScores, stays: Mapping[Site, Mapping[str, np.ndarray]]) -> WeightScores:
    """The scores, with −∞ for weights that do not stay; fields that ``stays`` lacks are left out."""
    return {
        s: {f: np.where(stays[s][f], v, -np.inf) for f, v in fields.items() if f in stays[s]}
        for s, fields in scores.items()
    }


def _on_the_way(planned: Sequence[SitePlan]) -> tuple[str, ...]:
    """Where groups of units still read each other."""
    left = [(site.name, site.between()) for site in planned if site.groups]
    return tuple(f"{name!r} still has {count:,} weights between its groups of units" for name, count in left if count)


def _cut_off(planned: Sequence[SitePlan]) -> tuple[str, ...]:
    """Sites that no longer read their input."""
    gone = [site.name for site in planned if "w_in" in site.keep and not site.keep["w_in"].any()]
    return tuple(
        f"{name!r} keeps no input weight: what it puts out no longer depends on what it reads" for name in gone
    )


def _indifferent(scores: WeightScores) -> tuple[str, ...]:
    """Sites whose scores tell nothing apart, as where every weight is zero."""
    notes = []
    for site, fields in scores.items():
        values = np.concatenate([value.ravel() for value in fields.values()])
        if len(values) > 1 and (values == values[0]).all():
            what = "unit" if "unit" in fields else "weight"
            notes.append(
                f"every {what} of {site.name!r} scores {values[0]:.4g}: nothing tells them apart, and the last ones go first; "
                "check its weights, or what was measured of them"
            )
    return tuple(notes)


_FIELDS = {"recurrent": "w_rec", "input": "w_in"}


def _check_weights(weights: str, granularity: str, pattern: Pattern, chosen: Sequence[Site]) -> None:
    """:class:`BudgetError` where ``weights`` cannot be had."""
    if weights not in ("all", *_FIELDS):
        raise BudgetError(f"weights={weights!r} is unknown; it is 'all', 'recurrent' or 'input'")
    if weights == "all":
        return
    if granularity == "unit":
        raise BudgetError(f"weights={weights!r} names matrices, and whole units go; choose granularity='weight'")
    if weights == "input" and pattern.diagonal is not None:
        raise BudgetError(f"pattern {pattern.name!r} goes by recurrent weights; leave weights='input' out")
    for site in chosen:
        if weights == "recurrent" and not site.recurrent:
            raise BudgetError(f"site {site.name!r} has no recurrent weights; leave it out of sites=[...]")


def chosen_sites(model: nn.Module, patterns: Sequence[str] | None) -> list[Site]:
    if patterns is None:
        return list(sites(model))
    if isinstance(patterns, str) or not patterns or not all(isinstance(pattern, str) for pattern in patterns):
        raise ModelError(
            f"sites={patterns!r} is not a list of names; give e.g. sites=['encoder.*'], or leave it out for all"
        )
    everything = sites(model, linear=True)
    chosen = [site for site in everything if any(fnmatchcase(site.name, pattern) for pattern in patterns)]
    for pattern in patterns:
        if not any(fnmatchcase(site.name, pattern) for site in everything):
            names = ", ".join(site.name for site in everything)
            raise ModelError(f"no site matches {pattern!r}; the model has {names}")
    return chosen


def nothing_goes(budget: Budget, made: Plan) -> str:
    """Why a plan by ``budget`` removes nothing, and what to change."""
    widths = "; ".join([", ".join(f"{site.name} has {site.size}" for site in made.sites), *made.notes])
    if budget.ramanujan is not None:
        return (
            f"no weight can go: every matrix has Δ_{budget.ramanujan} below {budget.margin} as soon as one does ({widths}); "
            "lower the margin, or give a sparsity"
        )
    if budget.threshold is None:
        return (
            f"sparsity {budget.sparsity} with multiple_of={budget.multiple_of} and min_width={budget.min_width} removes "
            f"nothing ({widths}); raise the sparsity or relax the widths"
        )
    scores = [score for site in made.sites for score in site.scores]
    spread = f"; the scores lie in [{min(scores):.4g}, {max(scores):.4g}]" if scores else ""
    return f"threshold {budget.threshold} removes nothing{spread}; choose one above the smallest score"
