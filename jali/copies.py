"""Independent copies of models, also of those that hold results of earlier calls."""

from __future__ import annotations

import copy

from torch import nn

from jali.batches import tensors_in
from jali.errors import ModelError


def copy_of(model: nn.Module) -> nn.Module:
    """A deep copy of ``model``. What it holds of earlier calls (a state, attention weights) is copied as plain values.

    PyTorch itself refuses to copy tensors that carry the history of their computation, and a forward pass with gradients
    leaves such tensors in a model that remembers them. Raises :class:`ModelError` for what cannot be copied at all.
    """
    try:
        held = [tensor for module in model.modules() for tensor in tensors_in(list(module.__dict__.values()))]
        memo = {id(tensor): tensor.detach().clone() for tensor in held if not tensor.is_leaf}
        return copy.deepcopy(model, memo)
    except Exception as error:  # what a module holds is the caller's, and so is the code that copies it
        raise ModelError(
            f"{type(model).__name__} cannot be copied ({type(error).__name__}: {error}); remove what it holds besides "
            "modules and tensors, or let it define __deepcopy__"
        ) from error
