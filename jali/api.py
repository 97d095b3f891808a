"""The verbs that decide and do all: plan and prune."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from jali.batches import Batch, batches, example
from jali.costs import Cost, cost
from jali.criterion import Criterion, get
from jali.errors import BudgetError, DataError, ModelError
from jali.evidence import Loss, SiteEvidence, collect
from jali.plans import UNSTRUCTURED, Budget, Granularity, Pattern, Plan, SitePlan, decide_units, decide_weights
from jali.site import Site, sites
from jali.surgery.compact import operate
from jali.surgery.fold import fold as fold_into
from jali.surgery.mask import mask
from jali.view import View, check_parameters, read


def plan(
    model: nn.Module,
    criterion: str = "lattice",
    budget: float | Budget | None = None,
    data: Any = None,
    *,
    granularity: Granularity = "unit",
    pattern: str | None = None,
    sites: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
    loss: Loss | None = None,
    seed: int = 0,
) -> Plan:
    """Decide what goes. ``model`` is not changed.

    ``criterion``: a name of :func:`jali.criteria`, with its ``options``. ``budget``: the fraction removed, in (0, 1), or
    a :class:`jali.Budget`; 0.5 by default. ``data``: calibration data for criteria that need it: a tensor, an iterable of
    batches or a DataLoader; ``(x, y)`` batches are understood. ``granularity``: "unit" (can be compacted) or "weight"
    (masks only).
    ``pattern``: weights that go together, for fast kernels: "weight", "gate-aligned", "block:16x1", "3:32" (of every 32
    columns of a row 3 stay) or "block-diagonal:4" (4 groups of units that do not read each other); the last two fix the
    budget; see :mod:`jali.plans.pattern`. But for "unit" it implies weights.
    ``sites``: names or patterns such as ``"encoder.*"``; by default every recurrent layer and direction; a ``Linear`` is
    planned only where it is named. ``loss(output, target)`` for criteria that need gradients.
    Raises :class:`ModelError` (also for NaN or infinite values in any parameter of the model), :class:`CriterionError`,
    :class:`BudgetError` or :class:`DataError`.
    """
    chosen = _chosen_sites(model, sites)
    granularity, pattern = _granularity(granularity, pattern)
    limit = _budget(budget, UNSTRUCTURED if pattern is None else Pattern.parse(pattern))
    method = get(criterion, options, seed)
    measured = _measured(model, chosen, method, data, loss)
    decide = _units if granularity == "unit" else _weights
    result = Plan(
        granularity, criterion, limit, decide(method, measured, limit, pattern), method.options, seed, pattern=pattern
    )
    if result.sparsity == 0.0:
        raise BudgetError(_nothing_goes(limit, result.sites))
    return result


def _granularity(granularity: Granularity, pattern: str | None) -> tuple[Granularity, str | None]:
    """What is planned, and the pattern of weights: one other than "unit" implies weights."""
    if granularity not in ("unit", "weight"):
        raise BudgetError(f"granularity {granularity!r} is unknown; it is 'unit' or 'weight'")
    if pattern is None or pattern == "unit":
        return granularity if pattern is None else "unit", None
    return "weight", pattern


Measured = Mapping[Site, tuple[View, SiteEvidence]]


def _measured(model: nn.Module, chosen: Sequence[Site], method: Criterion, data: Any, loss: Loss | None) -> Measured:
    """What the criterion sees of every site: its weights, and what it needs to know of the data."""
    views = {site: read(model, site) for site in chosen}
    check_parameters(model, but=chosen)  # the fold, the costs and the cut readers use all of the model
    if method.needs and data is None:
        raise DataError(f"criterion {method.name!r} needs calibration data; pass data=...")
    items = None if data is None else batches(data)
    evidence = collect(model, items, chosen, method.needs, loss)
    return {site: (view, evidence.sites.get(site.name, SiteEvidence())) for site, view in views.items()}


def _units(method: Criterion, measured: Measured, limit: Budget, _: str | None) -> tuple[SitePlan, ...]:
    scores = {site: method.score(*seen) for site, seen in measured.items()}
    return tuple(
        SitePlan(site.name, site.kind, site.size, tuple(removed.tolist()), tuple(scores[site].tolist()))
        for site, removed in decide_units(scores, limit).items()
    )


def _weights(method: Criterion, measured: Measured, limit: Budget, pattern: str | None) -> tuple[SitePlan, ...]:
    scores = {site: method.score_weights(*seen) for site, seen in measured.items()}
    keep = decide_weights(scores, limit, UNSTRUCTURED if pattern is None else Pattern.parse(pattern))
    return tuple(SitePlan(site.name, site.kind, site.size, keep=keep[site]) for site in measured)


def _budget(budget: float | Budget | None, pattern: Pattern) -> Budget:
    if pattern.sparsity is None:
        return Budget.of(0.5 if budget is None else budget)
    limit = Budget.of(pattern.sparsity if budget is None else budget)
    if limit.sparsity is None or abs(limit.sparsity - pattern.sparsity) > 1e-9:
        raise BudgetError(
            f"pattern {pattern.name!r} removes {pattern.sparsity:.6g} of the weights; leave the budget out"
        )
    return limit


def _chosen_sites(model: nn.Module, patterns: Sequence[str] | None) -> list[Site]:
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"the model is a {type(model).__name__}; give the torch.nn.Module that holds the recurrent layers"
        )
    if patterns is None:
        return list(sites(model))
    if isinstance(patterns, str) or not patterns:
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


def _nothing_goes(budget: Budget, planned: Sequence[SitePlan]) -> str:
    widths = ", ".join(f"{site.name} has {site.size}" for site in planned)
    if budget.threshold is None:
        return (
            f"sparsity {budget.sparsity} with multiple_of={budget.multiple_of} and min_width={budget.min_width} removes "
            f"nothing ({widths}); raise the sparsity or relax the widths"
        )
    scores = [score for site in planned for score in site.scores]
    spread = f"; the scores lie in [{min(scores):.4g}, {max(scores):.4g}]" if scores else ""
    return f"threshold {budget.threshold} removes nothing{spread}; choose one above the smallest score"


@dataclass(frozen=True, eq=False)
class Result:
    """What :func:`prune` returns: the smaller ``model``, its ``plan``, ``notes``, and the costs before and after."""

    model: nn.Module
    plan: Plan
    notes: tuple[str, ...]
    before: Cost
    after: Cost

    def __str__(self) -> str:
        lines = [str(self.plan)]
        rows = [
            ("parameters", self.before.parameters, self.after.parameters),
            ("bytes", self.before.bytes, self.after.bytes),
        ]
        if self.before.macs and self.after.macs is not None:
            rows.append(("multiply-adds per call", self.before.macs, self.after.macs))
        lines += [f"  {name:<24} {old:>12,} -> {new:>12,}  ({new / old:.3f})" for name, old, new in rows]
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)


def prune(
    model: nn.Module,
    criterion: str = "lattice",
    budget: float | Budget | None = None,
    data: Any = None,
    example_inputs: Any = None,
    *,
    fold: bool = True,
    granularity: Granularity = "unit",
    pattern: str | None = None,
    sites: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
    loss: Loss | None = None,
    seed: int = 0,
) -> Result:
    """Plan, cut, repair: the smaller model with its plan, and a summary that prints well.

    ``data`` calibrates both the criterion and the fold; without data nothing is folded, and a note says so.
    ``example_inputs`` defaults to the first batch of ``data``. The other arguments are those of :func:`plan`. With
    ``granularity="weight"`` or a ``pattern`` nothing can be made smaller and the result is the masked model; a note says so.
    """
    items = None if data is None else batches(data)
    inputs = example(example_inputs) if example_inputs is not None else (items[0] if items else None)
    made = plan(
        model, criterion, budget, items, granularity=granularity, pattern=pattern, sites=sites, options=options,
        loss=loss, seed=seed,
    )  # fmt: skip
    smaller, notes = _masked(model, made) if made.granularity == "weight" else _cut(model, made, inputs, items, fold)
    return Result(smaller, made, notes, cost(model, inputs), cost(smaller, inputs))


def _masked(model: nn.Module, made: Plan) -> tuple[nn.Module, tuple[str, ...]]:
    return mask(model, made), ("weights were masked: the shapes, and so the size and speed, are unchanged",)


def _cut(
    model: nn.Module, made: Plan, inputs: Batch | None, items: Sequence[Batch] | None, fold: bool
) -> tuple[nn.Module, tuple[str, ...]]:
    """The compact model, repaired where there is data to repair it on, and what to know about it."""
    surgery = operate(model, made, inputs)
    if fold and items is not None:
        fold_into(surgery, items)
    unrepaired = ("not folded: pass calibration data to repair the survivors",) if fold and items is None else ()
    return surgery.compact, (*unrepaired, *surgery.notes)
