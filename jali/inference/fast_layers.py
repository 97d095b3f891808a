"""Recurrent layers for inference: PyTorch's own, called in the same way, on the fastest kernel that was measured for them."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.compiler import is_compiling
from torch.jit import is_tracing  # type: ignore[attr-defined]
from torch.nn.utils.rnn import PackedSequence

from jali.errors import DataError, ModelError
from jali.inference.choice import Choice
from jali.inference.fast_linear import slow_down
from jali.inference.repeated import Call, repeated_call
from jali.inference.running import given_states, run, run_packed, through
from jali.plain import an
from jali.site import kind_of
from jali.surgery.replace import replaced
from jali.view import layer_views

_HOOKS = ("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs")


class FastLayers:
    """What the fast layers share. Parameters and state_dict are those of the PyTorch layer; nothing is trained here.

    The packed weights are made when they are first needed and again when a parameter has changed; copies share none. A change
    through ``.data``, or in place of a tensor made in inference mode, cannot be seen, as PyTorch does not count it: change
    weights under ``torch.no_grad()``.
    """

    choices: tuple[Choice, ...]

    @staticmethod
    def of(layer: nn.RNNBase, choices: Sequence[Choice]) -> nn.RNNBase:
        """``layer`` (a plain ``nn.LSTM``, ``nn.GRU`` or ``nn.RNN``) with a choice for one or more batch sizes.

        Shares the parameters of ``layer``. :class:`ModelError` for anything else.
        """
        kind = kind_of(layer)
        if kind not in FAST or not isinstance(layer, nn.RNNBase):
            raise ModelError(f"{an(type(layer).__name__)} is no nn.LSTM, nn.GRU or nn.RNN with PyTorch's own forward")
        if not choices:
            raise ModelError("no choice of an engine was given; give one for at least one batch size")
        fast = _like(layer, FAST[kind])
        fast.choices = tuple(sorted(choices, key=lambda choice: choice.batch))
        return fast.requires_grad_(False).eval()

    def plain(self) -> nn.RNNBase:
        """The PyTorch layer with the same parameters."""
        return _like(self, PLAIN[type(self)])  # type: ignore[arg-type]

    def choice(self, batch: int) -> Choice:
        """The choice whose batch size is nearest, by ratio."""
        return min(self.choices, key=lambda c: abs(math.log(c.batch / max(batch, 1))))

    def packed(self, batch: int) -> list[list[Any]]:
        """``[layer][direction]``: the weights packed for about ``batch`` sequences."""
        weights = list(cast(nn.Module, self)._parameters.values())
        marks = _marks(weights)
        kept: _Packed | None = self.__dict__.get("_packed")
        rows = kept.rows.get(batch) if kept is not None and kept.marks == marks else None
        if rows is not None:
            return rows
        with _LOCK:
            kept = self.__dict__.get("_packed")
            if kept is None or kept.marks != marks:
                self.__dict__["_packed"] = kept = _Packed(marks, [w.detach() for w in weights if w is not None])
            if batch not in kept.rows:
                kept.rows[batch] = self._pack(batch)
            return kept.rows[batch]

    def _pack(self, batch: int) -> list[list[Any]]:
        from jali.inference.direction import Direction, cell_of  # numba is imported when the first layer is packed

        plain = self.plain()
        nonlinearity = getattr(plain, "nonlinearity", "tanh")
        return [
            [Direction(view, cell_of(view, nonlinearity), batch=batch) for view in row] for row in layer_views(plain)
        ]

    def __getstate__(self) -> dict[str, Any]:
        """Without the packed weights, which hold addresses."""
        state: dict[str, Any] = cast(Any, super()).__getstate__()
        return {name: value for name, value in state.items() if name != "_packed"}

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, Any]:
        """As the PyTorch layer's, without gradients; :class:`ModelError` in training mode, :class:`DataError` for bad shapes."""
        module = cast(nn.RNNBase, self)
        if module.training:
            raise ModelError(
                "an accelerated layer cannot train; call model.eval(), or train the model it was made from"
            )
        if is_compiling() or is_tracing():  # a call of _traced would take longer
            with torch.no_grad():
                return super().forward(input, hx)  # type: ignore[misc]
        if hx is None and type(input) is Tensor:
            known = self._known(input)
            if known is not None:
                return known(input)
        data = input.data if isinstance(input, PackedSequence) else input
        if not isinstance(data, Tensor):
            raise DataError(f"the input is {an(type(data).__name__)}; give a tensor or a PackedSequence")
        choice = self.choice(_batch_of(input, module.batch_first)) if len(self.choices) > 1 else self.choices[0]
        if choice.engine == "torch" or not _readable(data) or 0 in data.shape or not self._fits():
            with torch.no_grad():
                return super().forward(input, hx)  # type: ignore[misc]
        rows = self.packed(choice.batch)
        if isinstance(input, PackedSequence):
            return run_packed(module, rows, input, hx)
        if input.dim() == 3:
            self._know(choice.batch, rows, input.shape)
        return run(module, rows, input, hx)

    def _fits(self) -> bool:
        """Whether the weights are still what the kernels read; the module may have been moved or converted."""
        weight = cast(nn.Module, self)._parameters["weight_ih_l0"]
        return weight is not None and weight.dtype is torch.float32 and weight.is_cpu

    def _know(self, batch: int, rows: list[list[Any]], shape: torch.Size) -> None:
        """Remembers how inputs of this shape are run from now on: by what, and whether always on one thread."""
        module = cast(nn.RNNBase, self)
        with _LOCK:
            kept: _Packed = self.__dict__["_packed"]
            if kept.rows.get(batch) is not rows:  # another thread has seen newer weights
                return
            if len(kept.calls) >= SHAPES:
                kept.calls.clear()
            kept.calls[shape] = repeated_call(module, rows, shape), shape[0 if module.batch_first else 1] < MANY

    def _known(self, x: Tensor) -> Call | None:
        """What runs x, if all is as it was when its shape was first seen and one thread is enough; else None."""
        kept: _Packed | None = self.__dict__.get("_packed")
        known = None if kept is None else kept.calls.get(x.shape)
        if (
            kept is None
            or known is None
            or x.dtype is not torch.float32
            or not x.is_cpu
            or not x.is_contiguous()
            or x.is_neg()
        ):
            return None
        try:
            weights: Any = cast(nn.Module, self)._parameters.values()
            for weight, (address, version) in zip(weights, kept.marks, strict=False):
                if weight.data_ptr() != address or weight._version != version:
                    return None
        except RuntimeError:  # inference tensors have no version: packed() knows what to do
            return None
        call, alone = known
        return call if alone or torch.get_num_threads() == 1 else None

    def step(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """One step of a stream: x (I,) or (B, I) → the last layer's output (H,) or (B, H), and the next state.

        ``state`` is None for zeros, or what the step before, or a call with a whole sequence, returned: h (layers, B, H),
        for x (I,) without B, with an LSTM ``(h, c)``; it is not changed. Always on the kernels, unless the call is traced or
        the layer has hooks, as one that is masked by units. :class:`ModelError` for a layer that is bidirectional, projected
        or in training mode, :class:`DataError` for what does not fit.
        """
        module = cast(nn.RNNBase, self)
        reasons = {
            "in training mode": module.training,
            "bidirectional": module.bidirectional,
            "projected": module.proj_size,
        }
        for why, true in reasons.items():
            if true:
                raise ModelError(f"a layer that is {why} has no step(); call it with the whole sequence")
        traced = _traced()
        if (
            not isinstance(x, Tensor)
            or not (traced or _readable(x))
            or x.dim() not in (1, 2)
            or x.shape[-1] != module.input_size
            or not x.numel()
        ):
            got = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else an(type(x).__name__)
            raise DataError(
                f"a step of {got}; give float32 of shape ({module.input_size},) or (B, {module.input_size}), B ≥ 1, on the CPU"
            )
        unbatched = x.dim() == 1
        batch = 1 if unbatched else len(x)
        if traced or any(getattr(module, hooks) for hooks in _HOOKS):
            out, new = module(x.unsqueeze(0 if unbatched or not module.batch_first else 1), state)
            return out.reshape(*x.shape[:-1], -1), new
        h, c = given_states(module, state, batch, unbatched, None)
        out = through(module, self.packed(self.choice(batch).batch), x.reshape(1, batch, -1), 0, (h, c))[0]
        if unbatched:
            out, h, c = out[0], h.squeeze(1), None if c is None else c.squeeze(1)
        return out, (h if c is None else (h, c))

    def extra_repr(self) -> str:
        lines = [super().extra_repr()]  # type: ignore[misc]
        for choice in self.choices:
            lines.append(str(choice))
            if choice.engine != "torch" and self._fits():
                for depth, row in enumerate(self.packed(choice.batch)):
                    for reverse, one in enumerate(row):
                        name = f"l{depth}" + (".reverse" if reverse else "")
                        lines.append(f"  {name}: {one}, reads {one.bytes:,} bytes per step")
        return "\n".join(lines)


@dataclass
class _Packed:
    """What is kept of a layer's weights as long as they are as ``marks`` says.

    ``aliases`` keep the memory: no other weights can come to lie at the same address. ``rows``: by number of sequences.
    ``calls``: by shape of the input what runs it, and whether that is always on one thread.
    """

    marks: list[tuple[int, int]]
    aliases: list[Tensor]
    rows: dict[int, list[list[Any]]] = field(default_factory=dict)
    calls: dict[torch.Size, tuple[Call, bool]] = field(default_factory=dict)


def _marks(weights: Iterable[Tensor | None]) -> list[tuple[int, int]]:
    """Address and version of each weight: what tells new weights from old ones. Inference tensors have no version."""
    return [(w.data_ptr(), 0 if w.is_inference() else w._version) for w in weights if w is not None]


def _traced() -> bool:
    """Whether the call is recorded by torch.jit.trace, torch.compile or torch.export: what is has no addresses."""
    return is_compiling() or is_tracing()


def _readable(x: Tensor) -> bool:
    """Whether the kernels may read x at its address: a float32 tensor of the CPU, of no class that may have none."""
    return (type(x) is Tensor or type(x) is nn.Parameter) and x.dtype is torch.float32 and x.is_cpu


class FastRNN(FastLayers, nn.RNN):
    """An ``nn.RNN`` for inference; made by :func:`jali.accelerate`."""


class FastGRU(FastLayers, nn.GRU):
    """An ``nn.GRU`` for inference; made by :func:`jali.accelerate`."""


class FastLSTM(FastLayers, nn.LSTM):
    """An ``nn.LSTM`` for inference; made by :func:`jali.accelerate`."""


FAST: dict[str | None, type[nn.RNNBase]] = {"RNN": FastRNN, "GRU": FastGRU, "LSTM": FastLSTM}
PLAIN: dict[type, type[nn.RNNBase]] = {FastRNN: nn.RNN, FastGRU: nn.GRU, FastLSTM: nn.LSTM}
SHAPES, MANY = 64, 8  # shapes of inputs that are remembered; sequences from which on threads share them
_LOCK = threading.Lock()  # packing and the first compilation are done once


def with_plain_layers(model: nn.Module) -> nn.Module:
    """``model``, changed in place, with PyTorch's own layers for fast ones, which it shares its parameters with."""
    for path, module in list(model.named_modules()):
        if isinstance(module, FastLayers):
            model = replaced(model, model, path, module.plain())
    slow_down(model)
    return model


def _like(layer: nn.RNNBase, cls: type[nn.RNNBase]) -> nn.RNNBase:
    """A ``cls`` with the options, the hooks and the very parameters of ``layer``."""
    options: dict[str, Any] = {
        name: getattr(layer, name) for name in ("num_layers", "bias", "batch_first", "dropout", "bidirectional")
    }
    if isinstance(layer, nn.RNN):
        options["nonlinearity"] = layer.nonlinearity
    elif layer.proj_size:
        options["proj_size"] = layer.proj_size
    with torch.device("meta"):
        made = cls(layer.input_size, layer.hidden_size, **options)  # type: ignore[arg-type]
    for name, parameter in layer._parameters.items():
        made.register_parameter(name, parameter)
    made._init_flat_weights()
    for name in _HOOKS:
        getattr(made, name).update(getattr(layer, name))
    return made.train(layer.training)


def _batch_of(input: Any, batch_first: bool) -> int:
    if isinstance(input, PackedSequence):
        return int(input.batch_sizes[0])
    return 1 if input.dim() == 2 else int(input.shape[0 if batch_first else 1])
