"""A moment of a training to which it can go back: parameters, buffers, and the optimizer's state."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from jali.errors import PlanError


def taken(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """A copy of everything that training changes in ``model`` and ``optimizer``, but for the options of its groups."""
    return {
        "model": {name: value.detach().clone() for name, value in _tensors(model).items()},
        "optimizer": copy.deepcopy(optimizer.state_dict()["state"]),
    }


@torch.no_grad()
def restore(moment: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put ``moment`` back, in place. The groups' options (learning rate) stay as they are: they belong to the scheduler."""
    for name, value in check(moment, model).items():
        value.copy_(moment["model"][name])
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": copy.deepcopy(moment["optimizer"]), "param_groups": groups})


def check(moment: dict[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """The tensors of ``model``, or :class:`PlanError` where ``moment`` is of another model."""
    tensors = _tensors(model)
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    if shapes != {name: tuple(value.shape) for name, value in moment["model"].items()}:
        raise PlanError("the weights to rewind to are those of another model; resume with the model of the checkpoint")
    return tensors


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}
