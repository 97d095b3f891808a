"""Mask: the same architecture with zeros in place of what the plan removes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from jali.copies import copy_of
from jali.errors import PlanError
from jali.plain import an
from jali.plans import Plan, SitePlan
from jali.site import Site, refuse_shared, sites
from jali.view import View, read, write
from jali.wired import WiredLayers


def mask(model: nn.Module, plan: Plan) -> nn.Module:
    """A copy of ``model`` in which everything that ``plan`` removes is zero.

    The state of a removed unit is zero from the first step on, also when an initial state is given (a forward pre-hook
    zeroes that entry). Shapes and ``state_dict`` keys stay as they are.
    Raises :class:`PlanError` if the plan does not fit the model, and :class:`ModelError` for parameters that also serve
    another place, where the same entries would go.
    """
    found = planned_sites(model, plan)
    refuse_shared(model, [found[planned.name] for planned in plan.sites if planned.removed or planned.keep])
    masked = copy_of(model)
    removed_states: dict[str, dict[int, list[int]]] = {}
    for planned in plan.sites:
        site = found[planned.name]
        write(masked, masked_view(read(masked, site), planned))
        if site.recurrent and planned.removed:
            slot, first = place_of(model, site)
            known = removed_states.setdefault(site.module, {}).setdefault(slot, [])
            known += [first + unit for unit in planned.removed]
    for path, slots in removed_states.items():
        masked.get_submodule(path).register_forward_pre_hook(ZeroInitialState(slots), with_kwargs=True)
    return masked


def masked_view(view: View, planned: SitePlan) -> View:
    """``view`` with zeros where ``planned`` removes. Raises :class:`PlanError` for masks of another shape."""
    if not planned.keep:
        return view.without(np.asarray(planned.removed, dtype=int))
    kept = {}
    for field, keep in planned.keep.items():
        value = getattr(view, field, None)
        if value is None or value.shape != keep.shape:
            have = None if value is None else value.shape
            raise PlanError(
                f"site {view.site.name!r}: the plan's mask {field!r} is {keep.shape}, the model's {have}; "
                "make the plan from this model"
            )
        kept[field] = value * keep
    return view.replace(**kept)


def planned_sites(model: nn.Module, plan: Plan) -> dict[str, Site]:
    """Site name → site of ``model``. Raises :class:`PlanError` for what is no plan, or does not fit the model."""
    if not isinstance(plan, Plan):
        raise PlanError(
            f"the plan is {an(type(plan).__name__)}; make one with jali.plan, or read one with jali.Plan.load"
        )
    return plan.check(sites(model, linear=True))


def place_of(model: nn.Module, site: Site) -> tuple[int, int]:
    """Where a site's state is in its module's ``h``: the index along the first axis, and the first of its features.

    PyTorch's layers have a row for each layer and direction; wired layers have their units side by side.
    """
    module = model.get_submodule(site.module)
    if isinstance(module, WiredLayers):
        return 0, sum(module.sizes[: site.layer])
    return site.layer * (2 if getattr(module, "bidirectional", False) else 1) + int(site.reverse), 0


class ZeroInitialState:
    """Forward pre-hook that zeroes the initial state of removed units; ``slots``: slot → unit indices.

    With a projection ``h`` holds projected features, not units: then only ``c`` is touched.
    """

    only_initial_state = True  # tracing need not mistrust a layer for this hook

    def __init__(self, slots: Mapping[int, list[int]]) -> None:
        self.slots = dict(slots)

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if len(args) > 1:
            return (args[0], self._zeroed(args[1], module), *args[2:]), kwargs
        if kwargs.get("hx") is not None:
            return args, {**kwargs, "hx": self._zeroed(kwargs["hx"], module)}
        return None

    def _zeroed(self, state: Any, module: nn.Module) -> Any:
        if state is None:
            return None
        if isinstance(state, tuple | list):
            h, c = state
            return (h if getattr(module, "proj_size", 0) else self._zero(h, module), self._zero(c, module))
        return self._zero(state, module)

    def _zero(self, state: Tensor, module: nn.Module) -> Tensor:
        gate = torch.ones_like(state)
        for slot, units in self.slots.items():
            where = gate if isinstance(module, nn.RNNCellBase | WiredLayers) else gate[slot]
            where[..., units] = 0
        return torch.where(gate.bool(), state, torch.zeros_like(state))
