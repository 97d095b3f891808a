"""The forward pass as data: the traced graph as JSON, and a module that interprets it.

Only operations from a fixed list are stored and run; nothing in a file is ever imported, evaluated or executed.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.nn.utils import rnn

from jali.archive.specs import NotStorable, construct, describe
from jali.errors import FileError
from jali.plain import an

FUNCTIONS: dict[str, Any] = {
    **{f"operator.{f.__name__}": f for f in (
        operator.getitem, operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod,
        operator.neg, operator.matmul, operator.pow, operator.eq, operator.ne, operator.lt, operator.le, operator.gt,
        operator.ge, operator.invert, operator.and_, operator.or_,
    )},
    **{f"torch.{f.__name__}": f for f in (
        torch.cat, torch.stack, torch.add, torch.sub, torch.mul, torch.div, torch.matmul, torch.bmm, torch.mm, torch.sum,
        torch.mean, torch.amax, torch.amin, torch.max, torch.min, torch.abs, torch.exp, torch.log, torch.sqrt, torch.square,
        torch.tanh, torch.sigmoid, torch.relu, torch.softmax, torch.log_softmax, torch.transpose, torch.permute,
        torch.reshape, torch.flatten, torch.squeeze, torch.unsqueeze, torch.chunk, torch.split, torch.flip, torch.clamp,
        torch.where, torch.zeros, torch.ones, torch.zeros_like, torch.ones_like, torch.arange, torch.gather, torch.clone,
        torch.neg, torch.einsum, torch.argmax, torch.index_select, torch.masked_fill, torch.hstack, torch.vstack,
        torch.dstack, torch.select, torch.unbind, torch.narrow, torch.swapaxes, torch.maximum, torch.minimum, torch.cumsum,
        torch.take_along_dim, torch.detach, torch.logical_not,
    )},
    **{f"functional.{f.__name__}": f for f in (
        F.relu, F.leaky_relu, F.elu, F.gelu, F.silu, F.mish, F.tanh, F.sigmoid, F.softmax, F.log_softmax, F.dropout, F.pad,
        F.linear, F.layer_norm, F.normalize, F.softplus, F.hardtanh, F.hardswish, F.adaptive_avg_pool1d,
        F.adaptive_max_pool1d, F.avg_pool1d, F.max_pool1d, F.conv1d, F.embedding, F.one_hot,
    )},
    "rnn.pack_padded_sequence": rnn.pack_padded_sequence,
    "rnn.pad_packed_sequence": rnn.pad_packed_sequence,
    "math.sqrt": math.sqrt,
    "len": len,
}  # fmt: skip
_NAMES: dict[Any, str] = {}
for _name, _function in FUNCTIONS.items():
    _NAMES.setdefault(_function, _name)
ATTRIBUTES = {"shape", "device", "dtype", "data", "T", "mT", "ndim", "values", "indices"}
METHODS = {
    "abs", "add", "amax", "amin", "argmax", "bmm", "chunk", "clamp", "clone", "contiguous", "cpu", "cumsum", "detach",
    "dim", "div", "double", "eq", "exp", "expand", "expand_as", "flatten", "flip", "float", "gather", "ge", "gt", "half",
    "index_select", "le", "log", "log_softmax", "long", "lt", "masked_fill", "matmul", "max", "mean", "min", "mul", "ne",
    "neg", "new_zeros", "permute", "pow", "relu", "repeat", "reshape", "select", "sigmoid", "size", "softmax", "split",
    "sqrt", "square", "squeeze", "stack", "sub", "sum", "swapaxes", "t", "tanh", "to", "transpose", "type_as", "unbind",
    "unsqueeze", "view", "view_as", "narrow", "take_along_dim", "maximum", "minimum", "bool", "int",
}  # fmt: skip
_DTYPES = {str(d): d for d in (
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool,
)}  # fmt: skip
MAX_DEPTH = 20  # of nested arguments


def to_data(model: nn.Module, graph: fx.Graph) -> dict[str, Any]:
    """``graph`` of ``model`` as JSON: ``nodes`` and the ``modules`` they call. :class:`NotStorable` if it has no place."""
    modules: dict[str, Any] = {}
    tensors: dict[str, Any] = {}
    nodes = []
    for node in graph.nodes:
        target = str(node.target)
        if node.op == "call_module" and target not in modules:
            modules[target] = describe(model.get_submodule(target))
        elif node.op == "get_attr":
            path, _, leaf = target.rpartition(".")
            owner = model.get_submodule(path)
            value = {**owner._parameters, **owner._buffers}.get(leaf)
            if value is None:
                raise NotStorable(f"the forward pass reads {target!r}, which is neither a parameter nor a buffer")
            tensors[target] = {"parameter": leaf in owner._parameters, "shape": list(value.shape)}
        elif node.op == "call_function":
            target = _function_name(node)
        elif node.op == "call_method" and target not in METHODS:
            raise NotStorable(f"the tensor method {target!r} cannot be stored as data")
        arguments = {"args": [_encode(a) for a in node.args], "kwargs": {k: _encode(a) for k, a in node.kwargs.items()}}
        nodes.append({"name": node.name, "op": node.op, "target": target, **arguments})
    return {"nodes": nodes, "modules": modules, "tensors": tensors}


def _function_name(node: fx.Node) -> str:
    if node.target is getattr:
        if len(node.args) == 2 and node.args[1] in ATTRIBUTES:
            return "getattr"
        raise NotStorable(f"the attribute {node.args[1]!r} of a value cannot be stored as data")
    name = _NAMES.get(node.target)
    if name is None:
        raise NotStorable(f"the function {getattr(node.target, '__name__', node.target)!r} cannot be stored as data")
    return name


def _encode(value: Any) -> Any:
    if isinstance(value, fx.Node):
        return {"node": value.name}
    if isinstance(value, tuple):
        return {"tuple": [_encode(item) for item in value]}
    if isinstance(value, list):
        return [_encode(item) for item in value]
    if isinstance(value, slice):
        return {"slice": [_encode(item) for item in (value.start, value.stop, value.step)]}
    if value is Ellipsis:
        return {"ellipsis": True}
    if isinstance(value, torch.dtype) and str(value) in _DTYPES:
        return {"dtype": str(value)}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise NotStorable(f"{an(type(value).__name__)} among the arguments cannot be stored as data")


class StoredModel(nn.Module):
    """A model rebuilt from data: it interprets its graph, operation by operation.

    Parameters and buffers have the names that they had in the original model. Made by :func:`jali.load`.
    """

    def __init__(self, data: Mapping[str, Any], limit: int) -> None:
        """Parameters are on the meta device; ``limit``: see :func:`jali.archive.specs.construct`.

        Raises :class:`FileError` if ``data`` is not a graph of known operations.
        """
        super().__init__()
        try:
            for path, spec in data["modules"].items():
                self._put(path, construct(spec, limit))
            for path, kind in data["tensors"].items():
                empty = torch.empty([int(n) for n in kind["shape"]], device="meta")
                self._put(path, empty, parameter=kind["parameter"] is True)
            self._graph_nodes = _checked_nodes(data["nodes"], set(data["modules"]), set(data["tensors"]))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError, OverflowError) as error:
            raise FileError(f"the stored graph is malformed ({type(error).__name__}: {error})") from None

    def _put(self, path: str, value: nn.Module | torch.Tensor, parameter: bool = False) -> None:
        *parents, leaf = path.split(".")
        owner: nn.Module = self
        for name in parents:
            if name not in owner._modules:
                owner.add_module(name, nn.Module())
            owner = owner._modules[name]  # type: ignore[assignment]
        if isinstance(value, nn.Module):
            owner.add_module(leaf, value)
        elif parameter:
            owner.register_parameter(leaf, nn.Parameter(value))
        else:
            owner.register_buffer(leaf, value)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        values: dict[str, Any] = {}
        given, known = list(args), [node["target"] for node in self._graph_nodes if node["op"] == "placeholder"]
        if len(given) > len(known) or not set(kwargs) <= set(known[len(given) :]):
            raise TypeError(f"the stored model takes {', '.join(known)}; it was traced with no other arguments")
        for node in self._graph_nodes:
            op, name = node["op"], node["name"]
            if op == "placeholder":
                values[name] = self._argument(node, given, kwargs)
                continue
            arguments = [_decode(item, values) for item in node["args"]]
            named = {key: _decode(item, values) for key, item in node["kwargs"].items()}
            if op == "output":
                return arguments[0]
            values[name] = self._run(op, node["target"], arguments, named)
        raise FileError("the stored graph has no output")  # the constructor makes sure that it has

    def _argument(self, node: Mapping[str, Any], given: list[Any], kwargs: Mapping[str, Any]) -> Any:
        if given:
            return given.pop(0)
        if node["target"] in kwargs:
            return kwargs[node["target"]]
        if node["args"]:
            return _decode(node["args"][0], {})
        raise TypeError(f"missing argument {node['target']!r}")

    def _run(self, op: str, target: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        if op == "call_module":
            return self.get_submodule(target)(*args, **kwargs)
        if op == "call_method":
            return getattr(args[0], target)(*args[1:], **kwargs)
        if op == "get_attr":
            path, _, leaf = target.rpartition(".")
            return getattr(self.get_submodule(path), leaf)
        return getattr(*args) if target == "getattr" else FUNCTIONS[target](*args, **kwargs)

    def extra_repr(self) -> str:
        return f"{len(self._graph_nodes)} operations"


def _checked_nodes(nodes: Sequence[Mapping[str, Any]], modules: set[str], tensors: set[str]) -> tuple[Any, ...]:
    """The nodes, if every operation is known and reads only what came before it; else a ValueError or the like."""
    seen: dict[str, Any] = {}
    for node in nodes:
        op, target, name = node["op"], node["target"], str(node["name"])
        known = {
            "placeholder": True,
            "output": len(node["args"]) == 1,
            "call_module": target in modules,
            "get_attr": target in tensors,
            "call_method": target in METHODS and len(node["args"]) > 0,
            "call_function": target in FUNCTIONS
            or (target == "getattr" and len(node["args"]) == 2 and node["args"][1] in ATTRIBUTES),
        }
        if not known.get(op, False):
            raise ValueError(f"{op} {target!r} is not a known operation")
        for item in [*node["args"], *node["kwargs"].values()]:
            _decode(item, dict.fromkeys(seen))  # refuses an unknown kind, and a value that is not computed yet
        if name in seen:
            raise ValueError(f"two operations are named {name!r}")
        kwargs = dict(node["kwargs"])
        seen[name] = {"name": name, "op": op, "target": target, "args": list(node["args"]), "kwargs": kwargs}
    checked = tuple(seen.values())
    if not checked or [node["op"] for node in checked].index("output") != len(checked) - 1:
        raise ValueError("it does not end with its one output; it may be truncated")
    return checked


def _decode(value: Any, values: Mapping[str, Any], depth: int = 0) -> Any:
    if depth > MAX_DEPTH:
        raise FileError(f"a stored argument is nested more than {MAX_DEPTH} deep")
    if isinstance(value, list):
        return [_decode(item, values, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    (kind, inside), *rest = value.items()
    if rest:
        raise FileError(f"a stored argument has {len(value)} kinds, it must have one")
    if kind == "node":
        return values[inside]
    if kind == "tuple":
        return tuple(_decode(item, values, depth + 1) for item in inside)
    if kind == "slice":
        return slice(*(_decode(item, values, depth + 1) for item in inside))
    simple: dict[str, Any] = {
        "ellipsis": lambda: Ellipsis,
        "dtype": lambda: _DTYPES[inside],
        "device": lambda: torch.device(inside),
        "float": lambda: float(inside),
    }
    if kind not in simple:
        raise FileError(f"a stored argument is of unknown kind {kind!r}")
    return simple[kind]()


def replaced_modules(paths: Sequence[str], model: nn.Module) -> dict[str, Any]:
    """Path → description of the modules at ``paths``, for a model whose forward pass cannot be stored."""
    return {path: describe(model.get_submodule(path)) for path in paths}
