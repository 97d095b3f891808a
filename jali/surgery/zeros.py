"""Zeros held in the ordinary parameters of a model while it trains."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from jali.errors import ModelError
from jali.plain import an
from jali.plans import Plan
from jali.site import Site
from jali.surgery.mask import ZeroInitialState, masked_view, place_of
from jali.view import packed, read


class Zeros:
    """Keeps what a plan removes at zero: in the parameters, their gradients, and the optimizer's state.

    The parameters stay the same tensors, changed in place. Gradients are masked by a hook as they arrive, so that a norm
    that clips them counts the weights that are there; ``dense`` lets them through whole, for who grows by them. Every entry of
    the optimizer's state that has the shape of its parameter is zero where the parameter is: no momentum moves a masked
    weight, and none is left over when it grows again.
    """

    def __init__(self, model: nn.Module, sites: Sequence[Site], optimizer: Any) -> None:
        self.model, self.sites, self.optimizer, self.dense = model, sites, optimizer, False
        self._parameters: dict[tuple[str, str], nn.Parameter] = {}
        self._dead: dict[tuple[str, str], Tensor] = {}
        self._hooked: set[tuple[str, str]] = set()
        self._undo: list[tuple[Tensor, int, Tensor]] = []
        for site in sites:
            for name in packed(read(model, site)):
                self._add((site.module, name))
        self._check_optimizer()
        for path in {site.module for site in sites}:
            set_removed_states(model.get_submodule(path), {})  # an earlier pruner of the same model may have left some

    def _add(self, key: tuple[str, str]) -> None:
        path, name = key
        parameter: Any = self.model.get_submodule(path)._parameters[name]
        if any(parameter is other for other in self._parameters.values()):
            raise ModelError(f"parameter {name!r} of {path!r} is shared by two sites; leave one out with sites=[...]")
        self._parameters[key] = parameter

    def _check_optimizer(self) -> None:
        if self.optimizer is None:
            return
        groups = getattr(self.optimizer, "param_groups", None)
        if groups is None or not hasattr(self.optimizer, "state"):
            raise ModelError(f"optimizer is {an(type(self.optimizer).__name__)}; give the torch.optim.Optimizer")
        held = {id(parameter) for group in groups for parameter in group["params"]}
        if not any(id(parameter) in held for parameter in self._parameters.values()):
            raise ModelError(
                "the optimizer holds no parameter of the pruned sites; make it from this model's parameters() before the Pruner"
            )

    def set(self, plan: Plan) -> None:
        """Remove what ``plan`` removes, and nothing else. What comes back is zero, as is its state, after a :meth:`hold`."""
        slots: dict[str, dict[int, list[int]]] = {}
        for site in self.sites:
            planned, view = plan.site(site.name), read(self.model, site)
            ones = view.replace(**{field: np.ones_like(value) for field, value in view.arrays()})
            for name, keep in packed(masked_view(ones, planned)).items():
                key = (site.module, name)
                self._dead.pop(key, None)
                if not keep.all():
                    self._dead[key] = torch.from_numpy(keep == 0).to(self._parameters[key].device)
            if site.recurrent and planned.removed:
                slot, first = place_of(self.model, site)
                slots.setdefault(site.module, {}).setdefault(slot, []).extend(first + u for u in planned.removed)
        for path in {site.module for site in self.sites}:
            set_removed_states(self.model.get_submodule(path), slots.get(path, {}))
        self.hold()

    @torch.no_grad()
    def hold(self) -> None:
        """Zero what is masked, wherever it has moved. Raises :class:`ModelError` for a parameter that was replaced."""
        self.check()
        for key, dead in self._dead.items():
            parameter = self._parameters[key]
            if dead.device != parameter.device:  # the model was moved
                dead = self._dead[key] = dead.to(parameter.device)
            self._hook(key, parameter)
            for tensor in self._held(parameter):
                tensor.masked_fill_(dead.to(tensor.device), 0)

    def _held(self, parameter: nn.Parameter) -> list[Tensor]:
        """The parameter, and every entry of the optimizer's state that has its shape."""
        if self.optimizer is None or parameter not in self.optimizer.state:
            return [parameter]
        states = self.optimizer.state[parameter].values()
        return [parameter, *(s for s in states if isinstance(s, Tensor) and s.shape == parameter.shape)]

    def check(self) -> None:
        """:class:`ModelError` for a parameter that is no longer the one that the pruner and the optimizer know."""
        for (path, name), parameter in self._parameters.items():
            now = self.model.get_submodule(path)._parameters.get(name)
            if now is not parameter:
                raise ModelError(
                    f"parameter {name!r} of {path!r} was replaced by another tensor after the Pruner was made, and the optimizer "
                    "does not train the new one; change parameters in place (copy_, load_state_dict), or make the optimizer "
                    "and the Pruner again"
                )
            dead = self._dead.get((path, name))
            if dead is not None and dead.shape != now.shape:
                raise ModelError(
                    f"parameter {name!r} of {path!r} now has shape {tuple(now.shape)}; make the Pruner again"
                )

    def gradients_are_finite(self) -> bool:
        """Whether no gradient is NaN or infinite; one that is missing is not asked."""
        found = [p.grad for p in self._parameters.values() if p.grad is not None]
        return all(bool(torch.isfinite(grad).all()) for grad in found)

    def remember(self) -> None:
        """Keep the present values of everything that :meth:`hold` writes to, for :meth:`clear`."""
        self._undo = [
            (tensor, 0, tensor.detach().clone()) for p in self._parameters.values() for tensor in self._held(p)
        ]

    def seal(self) -> None:
        """From here on any write to a tensor makes its remembered values void."""
        self._undo = [(tensor, tensor._version, value) for tensor, _, value in self._undo]

    def drop(self) -> None:
        """Forget the remembered values."""
        self._undo = []

    @torch.no_grad()
    def clear(self) -> None:
        """No masks; tensors that nobody wrote to since :meth:`seal` get their remembered values back."""
        for tensor, version, value in self._undo:
            if tensor._version == version:
                tensor.copy_(value)
        self._undo, self._dead = [], {}

    def dead(self, path: str, name: str) -> Tensor | None:
        """Where the parameter ``name`` of module ``path`` is masked."""
        return self._dead.get((path, name))

    def _hook(self, key: tuple[str, str], parameter: nn.Parameter) -> None:
        if key not in self._hooked and parameter.requires_grad:
            parameter.register_hook(_GradientMask(self, key))
            self._hooked.add(key)

    def __getstate__(self) -> dict[str, Any]:
        # Copies of parameters carry no hooks, and count their versions anew.
        return self.__dict__ | {"_hooked": set(), "_undo": []}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for key in self._dead:
            self._hook(key, self._parameters[key])


class _GradientMask:
    """Tensor hook. It knows the masks weakly: when their owner goes, gradients are whole again."""

    def __init__(self, zeros: Zeros, key: tuple[str, str]) -> None:
        self._zeros, self._key = weakref.ref(zeros), key

    def __call__(self, gradient: Tensor) -> Tensor | None:
        zeros = self._zeros()
        dead = None if zeros is None or zeros.dense else zeros.dead(*self._key)
        return None if dead is None else gradient.masked_fill(dead.to(gradient.device), 0)


class PrunedStates(ZeroInitialState):
    """The hook of a layer that is pruned while it trains: its removed units change."""


def set_removed_states(module: nn.Module, slots: dict[int, list[int]]) -> None:
    """Let the initial states of the units ``slots`` (slot → units), and of no others, be zero."""
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, PrunedStates):
            hook.slots = slots
            return
    if slots:
        module.register_forward_pre_hook(PrunedStates(slots), with_kwargs=True)
