"""Modules put in the place of others, and what the caller must know of it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from jali.batches import Batch
from jali.plain import an
from jali.widths import FullWidth, FullWidthCell, FullWidthLinear, FullWidthWired, UnevenLayers

OPAQUE = (FullWidth, FullWidthCell, FullWidthLinear, FullWidthWired, UnevenLayers)  # one call each in a traced graph


def replaced(compacted: nn.Module, model: nn.Module, path: str, new: nn.Module) -> nn.Module:
    """``compacted`` with the module at ``path``, under every name that it has in ``model``, replaced in place.

    ``model`` may be ``compacted`` itself; with an empty path the answer is ``new``.
    """
    old = model.get_submodule(path)
    if not path:
        return new
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if module is old:
            parent, _, leaf = name.rpartition(".")
            setattr(compacted.get_submodule(parent), leaf, new)
    return compacted


def dropped_hooks(model: nn.Module, replaced: Mapping[str, str]) -> list[str]:
    """A new module has no hooks; those of a mask are not needed any more."""
    modules = {path: model.get_submodule(path) for path in replaced}
    hooks = {path: [*m._forward_hooks.values(), *m._forward_pre_hooks.values()] for path, m in modules.items()}
    return [
        f"the forward hooks of {path!r} are not on its replacement; register them again if they are wanted"
        for path, found in hooks.items()
        if any(not getattr(hook, "only_initial_state", False) for hook in found)
    ]


def plain_classes(model: nn.Module, replaced: Mapping[str, str]) -> list[str]:
    """A new module is PyTorch's own; what a subclass adds to it is not there any more."""
    modules = {path: type(model.get_submodule(path)) for path in replaced}
    return [
        f"{path!r} was {an(cls.__name__)}; its replacement is plain and has no methods or attributes of that class"
        for path, cls in modules.items()
        if not cls.__module__.startswith(("torch.", "jali."))
    ]


def proved_for(model: nn.Module, batch: Batch | None, shrunk: Mapping[str, Any]) -> list[str]:
    """Which arguments were traced at their defaults; with other values the forward code may read other features."""
    if batch is None or not shrunk:
        return []
    signature = inspect.signature(model.forward)
    given = signature.bind(*batch.args, **batch.kwargs).arguments
    left = [p for name, p in signature.parameters.items() if name not in given and p.default is not p.empty]
    if not left:
        return []
    defaults = ", ".join(f"{p.name}={p.default!r}" for p in left)
    return [
        f"proved for calls with {defaults}, as the example inputs leave it; give example inputs that set what you set"
    ]
