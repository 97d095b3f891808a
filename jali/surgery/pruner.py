"""The training companion: prunes a model while it trains, with zeros in place."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from jali.criterion import get
from jali.errors import BudgetError, PlanError, ScheduleError
from jali.evidence import Loss, Trajectory
from jali.plain import an
from jali.planning import Planner, nothing_goes
from jali.plans import Budget, Granularity, Pattern, Plan, Weights, regrown_weights
from jali.schedule import OneShot, Schedule
from jali.surgery import rewind
from jali.surgery.growth import gradients, lots
from jali.surgery.zeros import Zeros

_SCHEMA = 1


class Pruner:
    """Prunes ``model`` in place while a training loop of your own trains it.

    ::

        pruner = jali.Pruner(model, "magnitude", 0.9, jali.Cubic(end=1000, every=10), optimizer, granularity="weight")
        for x, y in loader:
            ...; loss.backward(); clip_grad_norm_(...); optimizer.step()
            pruner.step()         # after every optimizer step, before the gradients are cleared
        pruner.epoch()            # after every epoch
        plan = pruner.plan        # for jali.mask, jali.compact, and JSON

    Parameters stay the same ordinary tensors, zero where masked: flat weights, ``state_dict``, ``deepcopy``, export and
    ``torch.compile`` see nothing new, and a model that moves to another device takes its masks along. ``optimizer``: its
    momentum is kept at zero where the weights are; schedules that regrow or rewind need it. Masked weights get no gradient, so
    clipping counts the others only (but in the steps in which :class:`jali.RigL` changes the mask: it needs all gradients).
    ``budget``: where the schedule ends; 0.5 by default.
    ``schedule``: :class:`jali.OneShot` by default (at once), :class:`jali.Periodic`, :class:`jali.Cubic`, :class:`jali.Rewind`,
    :class:`jali.SET`, :class:`jali.RigL`. On the way, a gradual schedule passes through n', n'−1, …, n of m with an
    ``n:m`` pattern; with ``block-diagonal:k`` it finds the groups of units when it first cuts, and then ever more weights between
    them go. The other arguments are those of :func:`jali.plan`; criteria that need data measure it again at every change.

    AMP: call ``step()`` after ``scaler.step(optimizer)`` also when that skipped the step; a regrowth whose gradients overflowed
    is skipped with it. ``DistributedDataParallel`` and compiled models may be given; the masks depend on the weights, the
    (averaged) gradients, the seed and ``data`` only, so they are the same on every rank if ``data`` is.
    Raises what :func:`jali.plan` raises, and :class:`ScheduleError`.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: str = "lattice",
        budget: float | Budget | None = None,
        schedule: Schedule | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        data: Any = None,
        granularity: Granularity = "unit",
        pattern: str | None = None,
        weights: Weights = "all",
        sites: Sequence[str] | None = None,
        options: Mapping[str, Any] | None = None,
        loss: Loss | None = None,
        trajectory: Trajectory | None = None,
        seed: int = 0,
    ) -> None:
        self._model = unwrapped(model)
        self._planner = Planner.of(
            self._model, criterion, data, granularity, pattern, weights, sites, options, loss, seed, trajectory
        )
        self._budget = self._planner.budget(budget)
        self._is_default = budget is None and self._planner.pattern.sparsity is None
        self._schedule = OneShot() if schedule is None else schedule
        self._check(optimizer)
        self._optimizer: Any = optimizer
        self._zeros = Zeros(self._model, self._planner.sites, optimizer)
        self._steps = self._epochs = self._in_epoch = self._skipped = 0
        self._plan: Plan | None = None
        self._moment: dict[str, Any] | None = None
        self._rehearse()
        self._zeros.remember()
        self._change()
        self._zeros.seal()
        self._zeros.dense = self._needs_dense_next()

    def _rehearse(self) -> None:
        """What would fail in the middle of the training fails before it, and before anything has changed."""
        made = self._planner.decide(self._model, self._budget)
        if made.sparsity == 0.0 and self._budget.threshold is None:
            raise BudgetError(nothing_goes(self._budget, made))

    def _check(self, optimizer: Any) -> None:
        schedule, name = self._schedule, type(self._schedule).__name__
        if not isinstance(schedule, Schedule):
            raise ScheduleError(f"schedule is {an(name)}; give one of jali's, e.g. jali.Cubic(end=1000, every=10)")
        if self._budget.sparsity is None and (schedule.gradual or schedule.growth):
            what = "a threshold" if self._budget.ramanujan is None else "a bound"
            raise BudgetError(f"{name} needs the sparsity to reach, and the budget is {what}; give a sparsity")
        if self._budget.sparsity is not None:
            schedule.sparsity(schedule.begin, self._budget.sparsity)
        if self._planner.pattern.diagonal is not None and schedule.growth:
            raise BudgetError(
                f"pattern {self._planner.pattern.name!r} separates groups of units for good, and {name} regrows weights; "
                "choose jali.Cubic, Periodic, Rewind or OneShot"
            )
        if schedule.growth and self._planner.granularity == "unit":
            raise BudgetError(f"{name} regrows weights, and the granularity is 'unit'; choose granularity='weight'")
        if optimizer is None and (schedule.growth or schedule.rewind_to is not None):
            raise ScheduleError(f"{name} changes what the optimizer remembers; pass optimizer=...")

    def step(self) -> bool:
        """Call after every optimizer step (one before the first is harmless). True if the masks or weights were changed."""
        self._zeros.drop()
        self._steps += 1
        self._in_epoch += 1
        self._zeros.hold()
        changed = self._schedule.clock == "step" and self._change()
        self._zeros.dense = self._needs_dense_next()
        return changed

    def epoch(self) -> bool:
        """Call at the end of every epoch. True if masks or weights were changed: after a rewind, restart your lr scheduler.

        Raises :class:`ScheduleError` if there was no ``step()`` in this epoch.
        """
        if self._in_epoch == 0:
            raise ScheduleError(
                f"epoch() without a step() since epoch {self._epochs}; call pruner.step() after every optimizer.step()"
            )
        self._epochs += 1
        self._in_epoch = 0
        self._zeros.hold()
        return self._schedule.clock == "epoch" and self._change()

    @property
    def time(self) -> int:
        """Where the schedule stands, in its own clock: steps or epochs done."""
        return self._steps if self._schedule.clock == "step" else self._epochs

    @property
    def finished(self) -> bool:
        """Whether the schedule has nothing more to change."""
        return self._schedule.next(self.time) is None

    @property
    def sparsity(self) -> float:
        """The fraction that is removed now, counted as the plan counts it."""
        return 0.0 if self._plan is None else self._plan.sparsity

    @property
    def plan(self) -> Plan:
        """The plan in force. Raises :class:`ScheduleError` while nothing has been removed."""
        if self._plan is None:
            following = self._schedule.next(self.time)
            raise ScheduleError(
                f"nothing is removed at {self._schedule.clock} {self.time}; the first change comes at "
                f"{self._schedule.clock} {following}"
            )
        return self._plan

    def _change(self) -> bool:
        time, schedule = self.time, self._schedule
        if schedule.rewind_to == time:
            self._moment = rewind.taken(self._model, self._optimizer)
        new = self._next_plan(time) if schedule.due(time) else None
        if new is None:
            return False
        changed, self._plan = new != self._plan, new
        self._zeros.set(new)
        if self._moment is not None:
            rewind.restore(self._moment, self._model, self._optimizer)
            self._zeros.hold()
        return changed or self._moment is not None

    def _next_plan(self, time: int) -> Plan | None:
        if self._budget.sparsity is None:
            return self._planner.decide(self._model, self._budget, self._plan)
        sparsity = self._schedule.sparsity(time, self._budget.sparsity)
        planner, limit = self._at(sparsity)
        if limit is None:
            return None
        if self._schedule.growth is None:
            return planner.decide(self._model, limit, self._plan)
        if self._plan is None:
            first = get("random", seed=planner.seed) if getattr(self._schedule, "start", "") == "random" else None
            return planner.decide_weights(planner.weight_scores(self._model, first), limit)
        return self._regrown(planner, limit, self._schedule.regrow(time), self._plan)

    def _at(self, sparsity: float) -> tuple[Planner, Budget | None]:
        """What decides, and the budget, at a sparsity on the way; no budget where nothing goes."""
        planner, per_row = self._planner, self._planner.pattern.per_row
        if per_row is not None:
            n, m = round((1 - sparsity) * per_row[1]), per_row[1]
            if n == m:
                return planner, None
            planner, sparsity = planner.with_pattern(Pattern.parse(f"{n}:{m}")), 1 - n / m
        return planner, dataclasses.replace(self._budget, sparsity=sparsity) if sparsity > 0 else None

    def _regrown(self, planner: Planner, limit: Budget, fraction: float, now: Plan) -> Plan | None:
        if fraction == 0.0:
            return None
        if self._schedule.growth == "gradient" and not self._zeros.gradients_are_finite():
            self._skipped += 1  # a GradScaler has skipped this step too
            return None
        growing = (
            gradients(self._model, planner.sites)
            if self._schedule.growth == "gradient"
            else lots(now, planner.sites, planner.seed, self.time)
        )
        keep = {site: now.site(site.name).keep for site in planner.sites}
        scores = planner.weight_scores(self._model)
        return planner.weight_plan(regrown_weights(keep, scores, growing, limit, planner.pattern, fraction), limit)

    def _needs_dense_next(self) -> bool:
        schedule = self._schedule
        return schedule.growth == "gradient" and schedule.due(self.time + 1) and schedule.regrow(self.time + 1) > 0

    def _made_with(self) -> dict[str, Any]:
        planner = self._planner
        return {
            "criterion": planner.criterion.name,
            "options": dict(planner.criterion.options),
            "budget": dataclasses.asdict(self._budget),
            "schedule": self._schedule.to_dict(),
            "granularity": planner.granularity,
            "pattern": planner.pattern.name,
            "weights": planner.weights,
            "sites": [site.name for site in planner.sites],
            "seed": planner.seed,
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything that resuming needs beside the model's and the optimizer's; ``torch.load(weights_only=True)`` reads it."""
        return {
            "schema": _SCHEMA,
            "made_with": self._made_with(),
            "steps": self._steps,
            "epochs": self._epochs,
            "in_epoch": self._in_epoch,
            "skipped": self._skipped,
            "plan": None if self._plan is None else self._plan.to_json(),
            "rewind": self._moment,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume, bit for bit, with the model and the optimizer of the same moment; load the three in any order.

        Raises :class:`PlanError` for a state of a pruner made with other arguments, or that is none.
        """
        counters = ("steps", "epochs", "in_epoch", "skipped")
        wanted = {"schema", "made_with", "plan", "rewind", *counters}
        if not isinstance(state, Mapping) or set(state) != wanted or state["schema"] != _SCHEMA:
            raise PlanError(
                f"this is not the state_dict of a Pruner of schema {_SCHEMA}; give what state_dict() returned"
            )
        mine = self._made_with()
        other = [key for key in mine if state["made_with"].get(key) != mine[key]]
        if other:
            differ = "; ".join(f"{key} {state['made_with'].get(key)!r} there, {mine[key]!r} here" for key in other)
            raise PlanError(f"the state is of a Pruner made otherwise: {differ}; make this one with the same arguments")
        plan = None if state["plan"] is None else Plan.from_json(state["plan"])
        if plan is not None:
            plan.check(self._planner.sites)
        if state["rewind"] is not None:
            rewind.check(state["rewind"], self._model)
        self._steps, self._epochs, self._in_epoch, self._skipped = (int(state[name]) for name in counters)
        self._plan, self._moment = plan, state["rewind"]
        self._zeros.clear()
        if plan is not None:
            self._zeros.set(plan)
        self._zeros.dense = self._needs_dense_next()

    def __str__(self) -> str:
        clock, following, budget = self._schedule.clock, self._schedule.next(self.time), self._budget
        if budget.ramanujan is not None:
            goal = f"Δ_{budget.ramanujan} ≥ {budget.margin:g}"
        else:
            goal = f"sparsity {budget.sparsity:.4f}" if budget.threshold is None else f"threshold {budget.threshold:g}"
        after = "the schedule is finished" if following is None else f"the next change is at {clock} {following}"
        lines = [
            f"Pruner by {self._planner.criterion.name!r}, {self._schedule}",
            f"  {self._steps} steps and {self._epochs} epochs done; {after} (last: {clock} {self._schedule.last})",
            f"  sparsity {self.sparsity:.4f} now, {goal} is the budget"
            + (" (the default)" if self._is_default else ""),
        ]
        if self._skipped:
            lines.append(f"  {self._skipped} regrowths skipped, as their gradients were not finite")
        if self._plan is not None:
            lines += [f"  {line}" for line in str(self._plan).splitlines()]
        return "\n".join(lines)

    __repr__ = __str__


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside ``DistributedDataParallel``, ``DataParallel`` and ``torch.compile``."""
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod  # type: ignore[assignment]
        else:
            return model
