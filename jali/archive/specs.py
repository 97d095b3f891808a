"""Modules as data: a type from a fixed list and its constructor's options. Nothing is imported by name from a file."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from jali.block_layers import BlockLayer
from jali.errors import FileError, ModelError
from jali.inference.choice import Choice
from jali.inference.fast_layers import FastLayers
from jali.inference.fast_linear import FastLinear
from jali.models import CohenGrossberg, TopDownRNN
from jali.plain import an
from jali.widths import FullWidth, FullWidthCell, FullWidthLinear, FullWidthWired, UnevenLayers, Widen
from jali.wired import WiredLayers

PLAIN: dict[str, type[nn.Module]] = {
    cls.__name__: cls
    for cls in (
        nn.Linear, nn.RNN, nn.LSTM, nn.GRU, nn.RNNCell, nn.LSTMCell, nn.GRUCell, nn.Embedding, nn.Conv1d, nn.Conv2d,
        nn.LayerNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm, nn.Dropout, nn.Identity, nn.Flatten, nn.ReLU,
        nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh, nn.Sigmoid, nn.Softplus,
        nn.Softsign, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.LogSigmoid, nn.Softmax, nn.LogSoftmax, nn.MaxPool1d,
        nn.AvgPool1d, nn.AdaptiveMaxPool1d, nn.AdaptiveAvgPool1d, nn.MaxPool2d, nn.AvgPool2d, CohenGrossberg, TopDownRNN,
    )
}  # fmt: skip
_NOT_OPTIONS = {"self", "device", "dtype", "inplace", "args", "kwargs"}
MAX_LAYERS = 1000  # every layer is a Python object, also of a hostile file
# Constructor parameters of layers that take *args, and options under another attribute name.
_RECURRENT = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional")


class NotStorable(ModelError):
    """A part of the model has no place on the list of what can be stored as data."""


def describe(module: nn.Module) -> dict[str, Any]:
    """Type and options of ``module`` as JSON; :class:`NotStorable` if it is not on the list or has forward hooks."""
    if module._forward_hooks or module._forward_pre_hooks:
        raise NotStorable(
            f"{an(type(module).__name__)} has forward hooks, which cannot be stored as data; remove them, or save what "
            "jali.compact makes instead of a masked model"
        )
    if isinstance(module, UnevenLayers):
        layers = [[describe(one) for one in row] for row in module.rows()]
        return {"type": "UnevenLayers", "layers": layers, "dropout": module.dropout}
    if isinstance(module, FullWidth | FullWidthCell | FullWidthLinear | FullWidthWired):
        return _wide(module)
    if isinstance(module, BlockLayer):
        return {"type": "BlockLayer", "options": {**module.options, "sizes": list(module.sizes)}}
    if isinstance(module, FastLayers):
        chosen = [dataclasses.asdict(choice) for choice in module.choices]
        return {"type": "FastLayers", "layer": describe(module.plain()), "choices": chosen}
    if type(module) is FastLinear:
        return {"type": "FastLinear", "options": _options(module)}
    name = type(module).__name__
    if PLAIN.get(name) is not type(module):
        raise NotStorable(f"a {type(module).__module__}.{name} cannot be stored as data")
    return {"type": name, "options": _options(module)}


def _wide(module: FullWidth | FullWidthCell | FullWidthLinear | FullWidthWired) -> dict[str, Any]:
    if isinstance(module, FullWidth):
        return {
            "type": "FullWidth",
            "inner": describe(module.inner),
            "keep": [getattr(module, f"keep_{slot}").tolist() for slot in range(module.slots)],
            "hidden_size": module.hidden_size,
            "output": _widened(module.output),
            "h": [_widened(widen) for widen in module.h or ()],  # type: ignore[arg-type]
            "c": [_widened(widen) for widen in module.c or ()],  # type: ignore[arg-type]
        }
    if isinstance(module, FullWidthCell):
        return {
            "type": "FullWidthCell",
            "inner": describe(module.inner),
            "keep": module.keep.tolist(),
            "hidden_size": module.hidden_size,
            "h": _widened(module.h),
            "c": _widened(module.c),
        }
    if isinstance(module, FullWidthWired):
        return {
            "type": "FullWidthWired",
            "inner": describe(module.inner),
            "keep": [units.tolist() for units in module.kept()],
            "sizes": list(module.sizes),
            "output": _widened(module.output),
            "h": _widened(module.h),
        }
    return {
        "type": "FullWidthLinear",
        "inner": describe(module.inner),
        "keep": module.output.order.argsort()[: module.output.kept].tolist(),
        "out_features": module.out_features,
        "output": _widened(module.output),
    }


def construct(spec: Mapping[str, Any], limit: int) -> nn.Module:
    """The module that ``describe`` described; :class:`FileError` if it makes no sense.

    Parameters are on the meta device and take no memory, whatever their stored size. Buffers that widen an output are
    real, and refused if they are longer than ``limit``, the number of elements in the stored tensors.
    """
    try:
        kind = spec["type"]
        with torch.device("meta"):
            if kind in _BUILDERS:
                return _BUILDERS[kind](spec, limit)
            return PLAIN[kind](**_checked(spec["options"]))
    except (
        KeyError,
        TypeError,
        ValueError,
        RuntimeError,
        IndexError,
        AttributeError,
        OverflowError,
        ModelError,
    ) as error:
        raise FileError(f"the stored module {_brief(spec)} cannot be built ({_brief(error)})") from None


def _brief(value: object) -> str:
    return repr(value)[:160]


def _options(module: nn.Module) -> dict[str, Any]:
    if isinstance(module, nn.RNNBase):
        options = {name: getattr(module, name) for name in _RECURRENT}
        if isinstance(module, nn.RNN):
            options["nonlinearity"] = module.nonlinearity
        if module.proj_size:
            options["proj_size"] = module.proj_size
        return options
    names = [name for name in inspect.signature(type(module).__init__).parameters if name not in _NOT_OPTIONS]
    options = {}
    for name in names:
        if not hasattr(module, name):
            continue  # options that only steer the initialisation
        value = getattr(module, name)
        if name == "bias":
            value = isinstance(value, torch.Tensor) or value is True
        if isinstance(value, torch.Tensor) or not _json(value):
            continue  # likewise: Embedding's _weight
        options[name] = list(value) if isinstance(value, tuple) else value
    return options


def _json(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(_json(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)


def _checked(options: Mapping[str, Any]) -> dict[str, Any]:
    if not all(isinstance(name, str) and name not in _NOT_OPTIONS and _json(v) for name, v in options.items()):
        raise ValueError("an option is not a plain value")
    layers = options.get("num_layers", len(options.get("hidden_sizes", "1")))
    if not 1 <= layers <= MAX_LAYERS:
        raise ValueError(f"{layers} layers are not in 1..{MAX_LAYERS}")
    return {name: tuple(v) if isinstance(v, list) else v for name, v in options.items()}


def _widened(widen: Widen | None) -> str:
    """How an output is widened: not at all, with zeros, or with a repair."""
    return "no" if widen is None else "zeros" if widen.repair is None else "repair"


def _repaired(widen: Widen | None, how: str) -> None:
    if how not in ("no", "zeros", "repair"):
        raise ValueError(f"{how!r} is no way of widening")
    if widen is not None and how == "repair":
        widen.repair = nn.Linear(widen.kept, widen.size - widen.kept)


def _keep(values: Any, size: int) -> np.ndarray:
    keep = np.asarray([int(value) for value in values], dtype=np.int64)
    if len(keep) == 0 or len(keep) > size or keep.min() < 0 or keep.max() >= size or len(np.unique(keep)) != len(keep):
        raise ValueError(f"kept units must be distinct and in 0..{size - 1}")
    return keep


def _size(value: Any, limit: int) -> int:
    if not 1 <= int(value) <= limit:
        raise ValueError(f"a width of {value} is not in 1..{limit}, the number of elements in the stored tensors")
    return int(value)


def _uneven(spec: Mapping[str, Any], limit: int) -> nn.Module:
    rows = [[construct(one, limit) for one in row] for row in spec["layers"]]
    return UnevenLayers(rows, float(spec["dropout"]))  # type: ignore[arg-type]


def _full_width(spec: Mapping[str, Any], limit: int) -> nn.Module:
    widened = spec["output"] != "no" or spec["h"] or spec["c"]
    size = _size(spec["hidden_size"], limit) if widened else int(spec["hidden_size"])
    inner = construct(spec["inner"], limit)
    slots = int(inner.num_layers) * (2 if inner.bidirectional else 1)  # type: ignore[arg-type]
    if len(spec["keep"]) != slots:
        raise ValueError(f"kept units of {len(spec['keep'])} layers and directions, the layer has {slots}")
    module = FullWidth(
        inner,  # type: ignore[arg-type]
        [_keep(values, size) for values in spec["keep"]],
        size,
        output=spec["output"] != "no",
        h=bool(spec["h"]),
        c=bool(spec["c"]),
    )
    _repaired(module.output, spec["output"])
    for states, how in ((module.h, spec["h"]), (module.c, spec["c"])):
        for widen, way in zip(states or (), how, strict=True):
            _repaired(widen, way)  # type: ignore[arg-type]
    return module


def _full_width_cell(spec: Mapping[str, Any], limit: int) -> nn.Module:
    size = _size(spec["hidden_size"], limit)
    module = FullWidthCell(construct(spec["inner"], limit), _keep(spec["keep"], size), size)  # type: ignore[arg-type]
    _repaired(module.h, spec["h"])
    _repaired(module.c, spec["c"])
    return module


def _full_width_linear(spec: Mapping[str, Any], limit: int) -> nn.Module:
    size = _size(spec["out_features"], limit)
    module = FullWidthLinear(construct(spec["inner"], limit), _keep(spec["keep"], size), size)  # type: ignore[arg-type]
    _repaired(module.output, spec["output"])
    return module


def _full_width_wired(spec: Mapping[str, Any], limit: int) -> nn.Module:
    sizes = [_size(size, limit) for size in spec["sizes"]]
    inner, keep = construct(spec["inner"], limit), [_keep(k, size) for k, size in zip(spec["keep"], sizes, strict=True)]
    if not isinstance(inner, WiredLayers) or [len(units) for units in keep] != list(inner.sizes):
        raise ValueError("the kept units are not those of the layers inside")
    module = FullWidthWired(inner, keep, sizes, output=spec["output"] != "no", h=spec["h"] != "no")
    _repaired(module.output, spec["output"])
    _repaired(module.h, spec["h"])
    return module


def _block_layer(spec: Mapping[str, Any], limit: int) -> nn.Module:
    options = _checked(spec["options"])
    sizes = options["sizes"]
    # Padding is as long as the longest block, and so is what is stored of it.
    _size(len(sizes) * max(sizes), limit)
    return BlockLayer(**{**options, "sizes": [_size(size, limit) for size in sizes]})


def _fast_layers(spec: Mapping[str, Any], limit: int) -> nn.Module:
    return FastLayers.of(construct(spec["layer"], limit), [Choice(**choice) for choice in spec["choices"]])  # type: ignore[arg-type]


def _fast_linear(spec: Mapping[str, Any], limit: int) -> nn.Module:
    return FastLinear(**_checked(spec["options"]))


_BUILDERS: dict[str, Callable[[Mapping[str, Any], int], nn.Module]] = {
    "UnevenLayers": _uneven,
    "FullWidth": _full_width,
    "FullWidthCell": _full_width_cell,
    "FullWidthLinear": _full_width_linear,
    "FullWidthWired": _full_width_wired,
    "FastLayers": _fast_layers,
    "FastLinear": _fast_linear,
    "BlockLayer": _block_layer,
}
