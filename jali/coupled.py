"""Layers that act on each other as one dynamical system: a top-down RNN whole, with the exact Jacobian of its step.

Without feedback the Jacobian of a stack is block triangular and its spectrum is that of its layers. Feedback fills the other
half: the spectrum of the network is its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from jali.dynamics import Floats, Recurrence, recurrence_of
from jali.errors import DynamicsError, ModelError
from jali.plain import an
from jali.site import module_sites
from jali.wired import Wire, WiredLayers


@dataclass(frozen=True, eq=False)
class Coupled:
    """The step of all layers together. ``layers``: of each, the step from what it reads; ``wires``: who reads whom.

    The state is that of the layers side by side, ``(B, size)``.
    """

    layers: tuple[Recurrence, ...]
    wires: tuple[Wire, ...]
    inputs: int

    @property
    def size(self) -> int:
        """ΣH."""
        return sum(layer.size for layer in self.layers)

    def states(self, x: Floats, start: Floats | None = None) -> Floats:
        """The states before and after every step, ``(B, T + 1, size)``, on ``x (B, T, I)``; ``start (B, size)``, or zero.

        Raises :class:`DynamicsError` for an input of another width and where a state leaves the finite numbers.
        """
        x = np.asarray(x, dtype=np.float64)
        if x.ndim != 3 or x.shape[2] != self.inputs:
            raise DynamicsError(f"the input has shape {x.shape}; (B, T, {self.inputs}) is wanted")
        states = np.zeros((len(x), x.shape[1] + 1, self.size))
        states[:, 0] = 0.0 if start is None else start
        for t in range(x.shape[1]):
            states[:, t + 1] = np.concatenate(self._after(x[:, t], states[:, t]), axis=1)
            if not np.isfinite(states[:, t + 1]).all():
                raise DynamicsError(
                    f"the state left the finite numbers at step {t}; the network diverges on this input: check its scale "
                    "and the weights"
                )
        return states

    def jacobian(self, x: Floats, state: Floats) -> Floats:
        """∂(next state)/∂(state), ``(B, size, size)`` as ``[to, from]``; where a relu has its kink the derivative is 0."""
        after, before = self._after(x, state), _blocks(self.layers, self.size)
        moved: list[Floats] = []
        for k, layer in enumerate(self.layers):
            through = np.broadcast_to(layer.weights[0] @ before[k], (len(x), layer.size, self.size))
            for wire in self._inside(k):
                weight = layer.view.w_in[0][:, wire.first : wire.first + self.layers[wire.source].size]
                through = through + weight @ (before[wire.source] if wire.delayed else moved[wire.source])
            slope = 1 - after[k] ** 2 if layer.nonlinearity == "tanh" else (after[k] > 0).astype(float)
            moved.append(slope[:, :, None] * through)
        return np.concatenate(moved, axis=1)

    def _after(self, x: Floats, state: Floats) -> list[Floats]:
        before: list[Floats] = np.split(state, np.cumsum([layer.size for layer in self.layers])[:-1], axis=1)
        after: list[Floats] = []
        for k, layer in enumerate(self.layers):
            read = [before[wire.source] if wire.delayed else after[wire.source] for wire in self._inside(k)]
            after.append(layer.step(np.concatenate(read if k else [x, *read], axis=1), before[k]))
        return after

    def _inside(self, reader: int) -> list[Wire]:
        """The wires to the input weights of a layer, in the order of their columns."""
        found = [wire for wire in self.wires if (wire.reader, wire.field) == (reader, "w_in")]
        return sorted(found, key=lambda wire: wire.first)


def coupled(model: nn.Module, path: str = "") -> Coupled:
    """The layers of the :class:`jali.models.TopDownRNN` at ``path``. Raises :class:`ModelError` for another module."""
    module = model.get_submodule(path)
    found = module_sites(module, path)
    if not isinstance(module, WiredLayers) or any(site.kind != "TopDownRNN" for site in found):
        raise ModelError(f"{path or 'the model'!r} is {an(type(module).__name__)}; choose the path of a TopDownRNN")
    return Coupled(tuple(recurrence_of(model, site) for site in found), module.wires(), module.input_size)


def _blocks(layers: Sequence[Recurrence], size: int) -> list[Floats]:
    """The rows of the identity that are each layer's."""
    return np.split(np.eye(size), np.cumsum([layer.size for layer in layers])[:-1])
