"""LEGCNet: find the weights whose training causes the accuracy, remove the others, train again from the same initial weights.

R. Sahu, S. Chadha, A. Mathur, N. Nagaraj, S. Saha, "A chaos-causality approach to principled pruning of dense neural
networks", Chaos Theory and Applications 7 (2025) 154-165. LEGCNet-FT looks at the whole training, LEGCNet-PT at its beginning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from jali.errors import BudgetError
from jali.evidence import Trajectory, trajectory
from jali.evidence.twins import Method, Perturbation, Training, Watch
from jali.planning import plan
from jali.plans import Budget, Plan
from jali.surgery.mask import mask

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
    seen, dense = trajectory(
        model, train, watch, perturbation=perturbation, window=window, stride=stride, method=method, most=iterations
    )
    made = plan(
        model, "causal", natural_budget(p, goes), granularity="weight", sites=list(sites),
        options={"goes": goes, **(options or {})}, trajectory=seen,
    )  # fmt: skip
    ticket = mask(model, made)
    done = sum(1 for _ in held(ticket, train))
    return Ticket(ticket, dense, made, seen, done)


def natural_budget(p: float = 0.05, goes: Goes = "non-causal") -> Budget:
    """The budget of criterion ``causal`` whose weights go with a p-value above (non-causal) or below (causal) ``p``."""
    if not 0.0 < p < 1.0:
        raise BudgetError(f"p = {p} is outside (0, 1); the paper takes 0.05")
    return Budget(threshold=-p if goes == "non-causal" else p - 1.0)


def held(model: nn.Module, train: Training) -> Iterator[object]:
    """``train(model)``, with every weight that is zero now zero again after each iteration."""
    gone: list[tuple[Tensor, Tensor]] = []
    for parameter in model.parameters():
        weight = parameter.detach()
        if weight.dim() > 1 and (weight == 0).any():
            gone.append((weight, weight == 0))
    for step in train(model):
        for weight, zero in gone:
            weight[zero] = 0.0
        yield step
