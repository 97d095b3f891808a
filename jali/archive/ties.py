"""Tied tensors: one parameter or buffer under several names, as where an embedding is also the output layer's weight.

A file holds such a tensor once; *ties* say which other names it has: name → the name it is stored under.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from jali.errors import FileError
from jali.plain import an


def ties_of(model: nn.Module, names: Iterable[str]) -> dict[str, str]:
    """The ties among the entries ``names`` of ``model``'s ``state_dict``; of each tensor the first name stores it."""
    tensors = model.state_dict(keep_vars=True)  # the parameters themselves: tied ones are one object
    first: dict[int, str] = {}
    stored_as = {name: first.setdefault(id(tensors[name]), name) for name in names}
    return {name: stored for name, stored in stored_as.items() if name != stored}


def with_tied(tensors: Mapping[str, Tensor], ties: Any) -> dict[str, Tensor]:
    """``tensors`` under all their names. No copies are made.

    Raises :class:`FileError` if ``ties`` is no mapping of names, or a tie does not lead from a name that is not stored
    to one that is, which leaves no room for a chain or a cycle.
    """
    if not isinstance(ties, dict):
        raise FileError(f"its ties are {an(type(ties).__name__)}, not an object; save the model again")
    for name, stored in ties.items():
        if name in tensors or not isinstance(stored, str) or stored not in tensors:
            raise FileError(
                f"{name[:80]!r} is tied to {str(stored)[:80]!r}; a tie must lead from a name that is not stored to one that "
                "is; save the model again"
            )
    return {**tensors, **{name: tensors[stored] for name, stored in ties.items()}}


def tie(model: nn.Module, ties: Mapping[str, str]) -> None:
    """Make the tied names of ``model`` one tensor again, in place.

    Raises :class:`FileError` if a tie leads from a parameter to a buffer or back.
    """
    for name, stored in ties.items():
        (owner, leaf), (source, other) = _place(model, name), _place(model, stored)
        if (leaf in owner._parameters) != (other in source._parameters):
            raise FileError(f"{name!r} is tied to {stored!r}, and one is a parameter, the other a buffer")
        setattr(owner, leaf, getattr(source, other))  # not into _parameters: recurrent layers keep a list of their own


def _place(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return model.get_submodule(path), leaf


def with_missing_ties(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``tensors`` and, under the names that they lack, those tied to them in ``model``: a tool may write either name."""
    names = list(model.state_dict())
    ties = ties_of(model, [name for name in names if name in tensors] + [name for name in names if name not in tensors])
    return {**tensors, **{name: tensors[one] for name, one in ties.items() if name not in tensors and one in tensors}}
