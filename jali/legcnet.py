"""LEGCNet: find the weights whose training causes the accuracy, remove the others, train again from the same initial weights.

R. Sahu, S. Chadha, A. Mathur, N. Nagaraj, S. Saha, "A chaos-causality approach to principled pruning of dense neural
networks", Chaos Theory and Applications 7 (2025) 154-165. LEGCNet-FT looks at the whole training, LEGCNet-PT at its beginning.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import nn

from jali.criterion import get
from jali.errors import BudgetError
from jali.evidence import Trajectory, trajectory
from jali.evidence.twins import Perturbation, Training, Watch
from jali.evidence.windows import Method
from jali.maths.granger import check_max_lag
from jali.plain import is_finite
from jali.planning import chosen_sites, plan
from jali.plans import Budget, Plan
from jali.surgery.mask import mask, planned_sites
from jali.surgery.zeros import Zeros

Goes = Literal["non-causal", "causal"]


@dataclass(frozen=True, eq=False)
class Ticket:
    """What :func:`legcnet` returns: the sparse ``model``, trained again; the ``dense`` one as far as it was trained; the
    ``plan`` and the ``trajectory`` that decided it. ``iterations``: of the second training.
    """

    model: nn.Module
    dense: nn.Module
    plan: Plan
    trajectory: Trajectory
    iterations: int

    def __str__(self) -> str:
        looked = f"  looked at                {self.trajectory.iterations:,} of {self.iterations:,} iterations"
        return "\n".join([str(self.plan), looked, *str(self.trajectory).splitlines()[1:]])

    __repr__ = __str__

    @property
    def share(self) -> float:
        """How much of the training was looked at, as a fraction of the second one's iterations."""
        return self.trajectory.iterations / self.iterations


def legcnet(
    model: nn.Module,
    train: Training,
    watch: Watch,
    *,
    iterations: int | None = None,
    p: float = 0.05,
    goes: Goes = "non-causal",
    sites: Sequence[str] = ("*",),
    options: Mapping[str, Any] | None = None,
    perturbation: Perturbation | None = None,
    window: int = 200,
    stride: int | None = None,
    method: Method = "direct",
) -> Ticket:
    """LEGCNet-FT, or with ``iterations`` LEGCNet-PT, which looks at the first so many iterations only.

    ``model`` has the initial weights and is not changed. ``train`` and ``watch`` are those of :func:`jali.trajectory`, as are
    ``perturbation``, ``window``, ``stride`` and ``method``. The weights of ``sites`` whose p-value is above ``p`` (below it
    if ``goes`` is "causal") are set to zero in the initial network and held there while it trains again.
    ``options``: other ones of the criterion, e.g. ``{"correction": "holm"}``. Biases stay.

    Raises what :func:`jali.trajectory` and :func:`jali.plan` raise, :class:`BudgetError` also where no weight goes.
    """
    budget, chosen = natural_budget(p, goes), {**_checked(model, sites, options), "goes": goes}
    seen, dense = trajectory(
        model, train, watch, perturbation=perturbation, window=window, stride=stride, method=method, most=iterations
    )
    try:
        made = plan(model, "causal", budget, granularity="weight", sites=sites, options=chosen, trajectory=seen)
    except BudgetError as error:
        raise BudgetError(f"no weight goes by p = {p:g}; {_untested(seen, chosen)}") from error
    ticket = mask(model, made)
    done = sum(1 for _ in held(ticket, made, train))
    return Ticket(ticket, dense, made, seen, done)


def _checked(model: nn.Module, sites: Sequence[str], options: Mapping[str, Any] | None) -> dict[str, Any]:
    """The options of criterion ``causal``; mistakes in them and in the sites are refused here, before the training."""
    chosen = dict(get("causal", options).options)
    if "goes" in chosen:
        raise BudgetError(
            f"options give goes={chosen['goes']!r}, which the threshold would not know; give legcnet(goes=...)"
        )
    check_max_lag(chosen.get("max_lag", 1))
    Zeros(copy.deepcopy(model), chosen_sites(model, sites), None)  # refuses a parameter that two sites share
    return chosen


def _untested(seen: Trajectory, options: Mapping[str, Any]) -> str:
    """How many weights of a training cannot be tested, and why: what may have kept all of them."""
    tests = seen.tests(**{name: options[name] for name in ("max_lag", "select") if name in options})
    words = [word for found in tests.values() for word in found.words]
    counts = Counter(word for word in words if word)
    why = ", ".join(f"{count} {word}" for word, count in counts.most_common())
    return f"of {len(words)} weights and biases {counts.total()} cannot be tested{f' ({why})' if why else ''}"


def natural_budget(p: float = 0.05, goes: Goes = "non-causal") -> Budget:
    """The budget of criterion ``causal`` whose weights go with a p-value above (non-causal) or below (causal) ``p``."""
    if not (is_finite(p) and 0 < p < 1):
        raise BudgetError(f"p = {p!r} is not a number in (0, 1); the paper takes 0.05")
    if goes not in get_args(Goes):
        raise BudgetError(f"goes={goes!r} is unknown; it is 'non-causal' or 'causal'")
    return Budget(threshold=-p if goes == "non-causal" else p - 1.0)


def held(model: nn.Module, made: Plan, train: Training) -> Iterator[object]:
    """``train(model)``, with the weights that ``made`` removes zero before, and again after each iteration.

    Their gradients are zero while it runs, so that a norm that clips them counts what is there.
    """
    zeros = Zeros(model, list(planned_sites(model, made).values()), None)
    zeros.set(made)
    for step in train(model):
        zeros.hold()
        yield step
