"""Recurrent layers for inference: PyTorch's own, called in the same way, on the fastest kernel that was measured for them."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from jali.errors import DataError, ModelError
from jali.inference.choice import Choice
from jali.inference.fast_linear import slow_down
from jali.inference.repeated import Call, repeated_call
from jali.inference.running import fresh_states, run, run_packed, through
from jali.plain import an
from jali.site import kind_of
from jali.surgery.replace import replaced
from jali.view import layer_views

_HOOKS = ("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs")


class FastLayers:
    """What the fast layers share. Parameters and state_dict are those of the PyTorch layer; nothing is trained here.

    The packed weights are made when they are first needed and again when a parameter has changed; copies share none.
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

    def packed(self, engine: str, batch: int) -> list[list[Any]]:
        """``[layer][direction]``: the packed weights of an engine other than "torch", for about ``batch`` sequences."""
        kept: dict[Any, Any] = self.__dict__.setdefault("_packed", {})
        weights: list[Tensor] = self._flat_weights  # type: ignore[attr-defined]
        state = [(w.data_ptr(), w._version) for w in weights]
        rows: list[list[Any]] | None = kept.get((engine, batch)) if kept.get("state") == state else None
        if rows is not None:
            return rows
        with _LOCK:
            if kept.get("state") != state:
                kept.clear()
                # The aliases keep the memory: no other weights can come to lie at the same address.
                kept.update(state=state, aliases=[w.detach() for w in weights])
            if (engine, batch) not in kept:
                kept[engine, batch] = self._pack(engine, batch)
            found: list[list[Any]] = kept[engine, batch]
            return found

    def _pack(self, engine: str, batch: int) -> list[list[Any]]:
        from jali.inference.direction import Direction, cell_of  # numba is imported when the first layer is packed

        plain = self.plain()
        nonlinearity = getattr(plain, "nonlinearity", "tanh")
        return [
            [Direction(view, cell_of(view, nonlinearity), dense=engine == "gemm", batch=batch) for view in row]
            for row in layer_views(plain)
        ]

    def __getstate__(self) -> dict[str, Any]:
        """Without the packed weights, which hold addresses."""
        return {name: value for name, value in self.__dict__.items() if name != "_packed"}

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, Any]:
        """As the PyTorch layer's, without gradients; :class:`ModelError` in training mode, :class:`DataError` for bad shapes."""
        if hx is None and type(input) is Tensor:
            known = self._known(input)
            if known is not None:
                return known(input)
        module = cast(nn.RNNBase, self)
        if module.training:
            raise ModelError(
                "an accelerated layer cannot train; call model.eval(), or train the model it was made from"
            )
        data = input.data if isinstance(input, PackedSequence) else input
        choice = self.choice(_batch_of(input, module.batch_first)) if len(self.choices) > 1 else self.choices[0]
        usual = data.dtype == torch.float32 and data.is_cpu and 0 not in data.shape
        weights = cast(list[Tensor], module._flat_weights)  # a module's own parameters take longer to look up
        if choice.engine == "torch" or not usual or not weights[0].is_cpu:
            with torch.no_grad():
                return super().forward(input, hx)  # type: ignore[misc]
        rows = self.packed(choice.engine, choice.batch)
        if isinstance(input, PackedSequence):
            return run_packed(module, rows, input, hx)
        if choice.engine == "kernels" and input.dim() == 3:
            self._know(choice, rows, input.shape)
        return run(module, rows, input, hx)

    def _know(self, choice: Choice, rows: list[list[Any]], shape: torch.Size) -> None:
        """Remembers how inputs of this shape are run from now on: by what, whether always on one thread, for which weights."""
        kept, module = self.__dict__["_packed"], cast(nn.RNNBase, self)
        with _LOCK:
            if kept.get((choice.engine, choice.batch)) is not rows:  # another thread has seen newer weights
                return
            if len(kept) > SHAPES:
                for old in [key for key in kept if isinstance(key, torch.Size)]:
                    del kept[old]
            alone = shape[0 if module.batch_first else 1] < MANY
            kept[shape] = repeated_call(module, rows, shape), alone, kept["state"]

    def _known(self, x: Tensor) -> Call | None:
        """What runs x, if all is as it was when its shape was first seen and one thread is enough; else None."""
        known: tuple[Call, bool, list[Any]] | None = self.__dict__.get("_packed", _NOTHING).get(x.shape)
        if known is None or self.training or x.dtype is not torch.float32 or not x.is_cpu or not x.is_contiguous():  # type: ignore[attr-defined]
            return None
        call, alone, state = known
        for weight, (address, version) in zip(self._flat_weights, state, strict=True):  # type: ignore[attr-defined]
            if weight.data_ptr() != address or weight._version != version:
                return None
        return call if alone or torch.get_num_threads() == 1 else None

    def step(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """One step of a stream: x (I,) or (B, I) → the last layer's output (H,) or (B, H), and the next state.

        ``state`` is None or what the step before returned: h (layers, B, H), with an LSTM ``(h, c)``; it is not changed.
        Always on the kernels, but for projections. :class:`ModelError` for a bidirectional layer or one in training mode.
        """
        module = cast(nn.RNNBase, self)
        if module.training or module.bidirectional or module.proj_size:
            why = (
                "is in training mode"
                if module.training
                else "is bidirectional"
                if module.bidirectional
                else "is projected"
            )
            raise ModelError(f"a layer that {why} has no step(); call it with the whole sequence")
        if x.shape[-1] != module.input_size or x.dtype != torch.float32 or x.dim() > 2 or not x.is_contiguous():
            raise DataError(
                f"a step of {x.dtype} {tuple(x.shape)}; give contiguous float32 of shape ({module.input_size},) or "
                f"(B, {module.input_size})"
            )
        batch, lstm = (len(x) if x.dim() == 2 else 1), isinstance(module, nn.LSTM)
        shape = (module.num_layers, batch, module.hidden_size)
        h, c = (state if lstm else (state, None)) if state is not None else (None, None)
        for given in (h, c):
            if given is not None and tuple(given.shape) != shape:
                raise DataError(f"a state of shape {tuple(given.shape)}; it must be {shape}, as step() returned it")
        h, c = fresh_states(h, c, shape, lstm)
        out = through(module, self.packed("kernels", batch), x.reshape(1, batch, -1), 0, (h, c))
        return (out[0] if x.dim() == 2 else out[0, 0]), (h if c is None else (h, c))

    def extra_repr(self) -> str:
        lines = [super().extra_repr()]  # type: ignore[misc]
        for choice in self.choices:
            lines.append(str(choice))
            if choice.engine != "torch":
                for depth, row in enumerate(self.packed(choice.engine, choice.batch)):
                    for reverse, one in enumerate(row):
                        name = f"l{depth}" + (".reverse" if reverse else "")
                        lines.append(f"  {name}: {one}, reads {one.bytes:,} bytes per step")
        return "\n".join(lines)


class FastRNN(FastLayers, nn.RNN):
    """An ``nn.RNN`` for inference; made by :func:`jali.accelerate`."""


class FastGRU(FastLayers, nn.GRU):
    """An ``nn.GRU`` for inference; made by :func:`jali.accelerate`."""


class FastLSTM(FastLayers, nn.LSTM):
    """An ``nn.LSTM`` for inference; made by :func:`jali.accelerate`."""


FAST: dict[str | None, type[nn.RNNBase]] = {"RNN": FastRNN, "GRU": FastGRU, "LSTM": FastLSTM}
PLAIN: dict[type, type[nn.RNNBase]] = {FastRNN: nn.RNN, FastGRU: nn.GRU, FastLSTM: nn.LSTM}
SHAPES, MANY = 64, 8  # shapes of inputs that are remembered; sequences from which on threads share them
_NOTHING: dict[Any, Any] = {}
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
