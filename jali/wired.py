"""Recurrent layers that PyTorch lacks, described by data: which weights read which units.

A cell type is a subclass of :class:`WiredLayers`: its equations (:meth:`~WiredLayers.trajectory`) and its wires. Views,
masks, compaction, folding and evidence follow the wires and know no cell type.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from jali.errors import DataError, DynamicsError, ModelError
from jali.plain import an

_APPEARANCE = {"extra_repr", "remedy", "reset_parameters"}  # methods that no output depends on


@dataclass(frozen=True)
class Wire:
    """The units of layer ``source`` are what columns ``first`` … ``first + H_source`` of a weight of ``reader`` read.

    ``field``: "w_in" or "w_rec" of the reader's view. ``delayed``: read as they were before the step, not after it.
    """

    source: int
    reader: int
    field: Literal["w_in", "w_rec"]
    first: int
    delayed: bool


class WiredLayers(nn.Module):
    """One or more layers of units, stepped through time; batch first.

    The parameters of layer k are ``weight_ih_l{k}`` (H_k, I_k), ``weight_hh_l{k}`` (H_k, H_k), with ``bias``
    ``bias_l{k}`` (H_k,), and with TERMS > 0 ``terms_l{k}`` (TERMS, H_k), which belong to the units themselves. The first
    ``input_size`` columns of ``weight_ih_l0`` read the input; a wire says what reads the rest. The layer's output is what
    wires read of its last layer. A unit without weights that starts at zero must stay at zero.
    """

    KIND: ClassVar[str]
    TERMS: ClassVar[int] = 0

    def __init__(self, input_size: int, sizes: tuple[int, ...], bias: bool) -> None:
        super().__init__()
        if not sizes or min(input_size, *sizes) < 1:
            raise ModelError(
                f"{type(self).__name__} of {input_size} inputs and {list(sizes)} units: all must be at least 1"
            )
        self.input_size, self.sizes, self.bias = input_size, sizes, bias
        for layer, size in enumerate(sizes):
            columns = sum(sizes[wire.source] for wire in self.wires() if (wire.reader, wire.field) == (layer, "w_in"))
            self._add(f"weight_ih_l{layer}", size, columns + (0 if layer else input_size))
            self._add(f"weight_hh_l{layer}", size, size)
            if bias:
                self._add(f"bias_l{layer}", size)
            if self.TERMS:
                self._add(f"terms_l{layer}", self.TERMS, size)
        self.reset_parameters()

    @classmethod
    def is_known(cls) -> bool:
        """Whether the equations are those of the class that names the kind: a subclass may add to them, not change them."""
        owner = next(c for c in cls.__mro__ if "KIND" in vars(c))
        known = (c for c in owner.__mro__ if issubclass(c, WiredLayers))
        equations = {name for c in known for name in vars(c) if not name.startswith("__")} - _APPEARANCE
        return not any(equations & vars(c).keys() for c in cls.__mro__[: cls.__mro__.index(owner)])

    def _add(self, name: str, *shape: int) -> None:
        self.register_parameter(name, nn.Parameter(torch.empty(*shape)))

    def reset_parameters(self) -> None:
        """Weights uniform in ±1/√H of their layer, as PyTorch's recurrent layers."""
        for layer, size in enumerate(self.sizes):
            for name in ("weight_ih", "weight_hh", "bias"):
                if (parameter := self._parameters.get(f"{name}_l{layer}")) is not None:
                    nn.init.uniform_(parameter, -(size**-0.5), size**-0.5)

    def weight(self, name: str, layer: int) -> Any:
        """Parameter ``name`` of a layer; None where there is none."""
        return getattr(self, f"{name}_l{layer}", None)

    @abstractmethod
    def wires(self) -> tuple[Wire, ...]:
        """Who reads whose units inside; the recurrent weights of a layer read all of its units."""

    @abstractmethod
    def resized(self, input_size: int, sizes: tuple[int, ...]) -> WiredLayers:
        """A new module of the same options with other widths."""

    @abstractmethod
    def steps(self, x: Tensor, state: Tensor) -> tuple[list[list[Tensor]], list[Tensor]]:
        """On ``x`` (B, T, I) from ``state`` (B, ΣH): what wires read of each layer before the first and after every
        step, ``[layer][t]`` (B, H), and the states (B, ΣH) after every step."""

    def trajectory(self, x: Tensor, hx: Tensor | None = None) -> list[Tensor]:
        """What wires read of each layer before the first step and after every step, each (B, T + 1, H)."""
        return [torch.stack(rows, dim=1) for rows in self._run(x, hx)[0]]

    def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``input`` (B, T, I), T ≥ 1 → what can be read of the last layer (B, T, H), and the final state (B, ΣH).

        ``hx`` (B, ΣH): the first state, the layers side by side; zero if None. Raises :class:`DataError` for other shapes
        and :class:`DynamicsError` where the state leaves the finite numbers.
        """
        seen, states = self._run(input, hx)
        return torch.stack(seen[-1][1:], dim=1), states[-1]

    def _run(self, x: Tensor, hx: Tensor | None) -> tuple[list[list[Tensor]], list[Tensor]]:
        if not isinstance(x, Tensor) or x.dim() != 3 or x.shape[1] == 0 or x.shape[2] != self.input_size:
            have = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise DataError(
                f"the input is {have}; {an(type(self).__name__)} takes (B, T, {self.input_size}) with T >= 1"
            )
        wanted = (x.shape[0], sum(self.sizes))  # len() would fix an exported model to the example's sequences
        if hx is not None and tuple(hx.shape) != wanted:
            raise DataError(f"the initial state is {tuple(hx.shape)}; {wanted} is wanted")
        seen, states = self.steps(x, x.new_zeros(wanted) if hx is None else hx)
        if not torch.compiler.is_compiling() and not torch.isfinite(torch.stack(states)).all():
            self._diverged(x, states)
        return seen, states

    def _diverged(self, x: Tensor, states: list[Tensor]) -> None:
        """Raise, naming the first step that was not finite."""
        step = next(t for t, state in enumerate(states) if not torch.isfinite(state).all())
        where = (~torch.isfinite(states[step])).nonzero()[0]
        row, unit = int(where[0]), int(where[1])
        value, fed = float(states[step][row, unit].detach()), float(x[row, step].detach().abs().max())
        raise DynamicsError(
            f"{type(self).__name__}: the state of unit {unit} in sequence {row} is {value} after "
            f"step {step}, where the largest input is {fed:.4g}; {self.remedy()}"
        )

    def remedy(self) -> str:
        """What to do about a state that left the finite numbers."""
        return "check the input and the weights for NaN, infinity and their scale"

    def extra_repr(self) -> str:
        return f"{self.input_size}, {', '.join(map(str, self.sizes))}, bias={self.bias}"
