"""The verb that does it all: prune."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from jali.batches import Batch, batches, example
from jali.costs import Cost, cost
from jali.evidence import Loss, Trajectory
from jali.planning import plan
from jali.plans import Budget, Granularity, Plan, Weights
from jali.surgery.compact import operate
from jali.surgery.fold import fold as fold_into
from jali.surgery.mask import mask


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
    weights: Weights = "all",
    sites: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
    loss: Loss | None = None,
    trajectory: Trajectory | None = None,
    seed: int = 0,
) -> Result:
    """Plan, cut, repair: the smaller model with its plan, and a summary that prints well.

    ``budget``: the fraction of the units removed, or a :class:`jali.Budget`; without one half of them go, and a note says so.
    ``data`` calibrates both the criterion and the fold; without data nothing is folded, and a note says so.
    ``example_inputs`` defaults to the first batch of ``data``. The other arguments are those of :func:`plan`. With
    ``granularity="weight"`` or a ``pattern`` nothing can be made smaller and the result is the masked model; a note says so.
    """
    items = None if data is None else batches(data)
    inputs = example(example_inputs) if example_inputs is not None else (items[0] if items else None)
    made = plan(
        model, criterion, budget, items, granularity=granularity, pattern=pattern, weights=weights, sites=sites,
        options=options, loss=loss, trajectory=trajectory, seed=seed,
    )  # fmt: skip
    smaller, notes = _masked(model, made) if made.granularity == "weight" else _cut(model, made, inputs, items, fold)
    return Result(smaller, made, notes, cost(model, inputs), cost(smaller, inputs))


def _masked(model: nn.Module, made: Plan) -> tuple[nn.Module, tuple[str, ...]]:
    return mask(model, made), (
        "weights were masked: the shapes are unchanged; jali.accelerate skips the zeros, jali.save stores each in a bit",
    )


def _cut(
    model: nn.Module, made: Plan, inputs: Batch | None, items: Sequence[Batch] | None, fold: bool
) -> tuple[nn.Module, tuple[str, ...]]:
    """The compact model, repaired where there is data to repair it on, and what to know about it."""
    surgery = operate(model, made, inputs)
    if fold and items is not None:
        fold_into(surgery, items)
    unrepaired = ("not folded: pass calibration data to repair the survivors",) if fold and items is None else ()
    return surgery.compact, (*unrepaired, *surgery.notes)
