"""Trace a model with torch.fx and follow the hidden units of its sites to their readers."""

from __future__ import annotations

import inspect
import logging
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.nn.utils import rnn

from jali.errors import ModelError
from jali.flow.layout import Escaped, Features, Port, States, Units, has_escaped, ports_in
from jali.flow.rules import RULES, UNSAFE, ZERO_PRESERVING_MODULES
from jali.view import Site, is_cell, kind_of, module_sites

_log = logging.getLogger("jali")


@dataclass(frozen=True, eq=False)
class Reader:
    """A module that reads hidden units: ``labels[j]`` is the unit at its input feature j, or -1."""

    module: str
    labels: np.ndarray


@dataclass(frozen=True, eq=False)
class Flow:
    """Where the units go.

    ``readers``: modules whose input features may be cut with the units. ``escapes``: ports that must keep their full
    width, with the reason. ``initial``: recurrent modules that are called with a given initial state. ``reason``: why
    the model could not be traced, or None; then nothing is proved and every port escapes.
    """

    units: Units
    readers: tuple[Reader, ...] = ()
    escapes: Mapping[Port, str] = field(default_factory=dict)
    initial: frozenset[str] = frozenset()
    reason: str | None = None


class _Tracer(fx.Tracer):
    def __init__(self, opaque: tuple[type, ...]) -> None:
        super().__init__(
            autowrap_modules=(math,), autowrap_functions=(rnn.pack_padded_sequence, rnn.pad_packed_sequence)
        )
        # The packing functions branch on their arguments; they stay single calls also when reached as nn.utils.rnn.…
        self._autowrap_search.append(rnn)
        self._opaque = opaque

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return kind_of(m) is not None or isinstance(m, self._opaque) or super().is_leaf_module(m, module_qualified_name)


def trace(
    model: nn.Module,
    sites: Sequence[Site],
    args: tuple[Any, ...] | None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    opaque: tuple[type, ...] = (),
    full_states: frozenset[str] = frozenset(),
) -> Flow:
    """Follow the units of ``sites`` through ``model`` called as ``model(*args, **kwargs)``.

    ``opaque`` module types are not looked into; the states of the modules ``full_states`` (layers of unequal width,
    which no single tensor can hold) keep their full width if they are used at all.
    ``args=None`` proves nothing. Raises :class:`ModelError` if sites share parameters with other modules.
    """
    units = Units(sites)
    _refuse_shared(model, sites)
    if args is None:
        return _nothing(units, "no example inputs were given")
    if kind_of(model) is not None:
        return _nothing(units, "the model is the layer itself, and its outputs keep their width")
    try:
        graph = _graph(model, args, dict(kwargs or {}), opaque)
    except Exception as error:  # torch.fx runs the user's forward on proxies: any exception can come out of it
        first = str(error).strip().splitlines()
        return _nothing(units, f"torch.fx cannot trace the model ({first[0] if first else type(error).__name__})")
    escapes: dict[Port, str] = {}
    called = {str(node.target) for node in graph.nodes if node.op == "call_module"}
    for site in sites:
        if site.module not in called:
            escapes.update(dict.fromkeys(_ports(site.module), "the traced graph does not call it as a module"))
    while True:  # every round can only add escapes, of which there are finitely many
        walk = _Walk(model, graph, units, dict(escapes), full_states)
        walk.run()
        if walk.escapes == escapes:
            initial = walk.initial | {site.module for site in sites if site.module not in called}
            return Flow(units, tuple(walk.readers.values()), escapes, frozenset(initial))
        escapes = walk.escapes


def _ports(path: str) -> tuple[Port, Port, Port]:
    return Port(path, "output"), Port(path, "h"), Port(path, "c")


def _nothing(units: Units, reason: str) -> Flow:
    escapes = {port: reason for site in units.sites for port in _ports(site.module)}
    return Flow(units, (), escapes, frozenset(site.module for site in units.sites), reason)


def _refuse_shared(model: nn.Module, sites: Sequence[Site]) -> None:
    owners: dict[int, set[int]] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                owners.setdefault(id(parameter), set()).add(id(module))
    for site in sites:
        for name, parameter in model.get_submodule(site.module)._parameters.items():
            if parameter is not None and len(owners[id(parameter)]) > 1:
                raise ModelError(
                    f"parameter {name!r} of site {site.name!r} is shared with another module, so it cannot be cut; "
                    "untie it, or leave the site out with sites=[...]"
                )


def symbolic_graph(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], opaque: tuple[type, ...] = ()
) -> fx.Graph:
    """The torch.fx graph of ``model(*args, **kwargs)`` in evaluation mode; arguments left out keep their defaults.

    Recurrent layers, Linear layers and ``opaque`` modules are single calls. Raises whatever torch.fx raises.
    """
    signature = inspect.signature(model.forward)
    given = signature.bind(*args, **kwargs).arguments
    concrete = {
        name: parameter.default
        for name, parameter in signature.parameters.items()
        if name not in given and parameter.default is not inspect.Parameter.empty
    }
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        graph = _Tracer(opaque).trace(model, concrete or None)
    finally:
        for module, mode in training.items():
            module.training = mode
    for node in list(graph.nodes):
        # torch.fx calls the placeholder of a fixed argument NAME_1, NAME_2, …
        if node.op == "placeholder" and node.target not in given and str(node.target).rpartition("_")[0] in concrete:
            _erase(graph, node)
    return graph


def _erase(graph: fx.Graph, node: fx.Node) -> None:
    """Remove an argument that keeps its default, and the checks of it, which are all that uses it."""
    for user in list(node.users):
        _erase(graph, user)
    graph.erase_node(node)


class _Shapes(fx.Interpreter):
    """Runs a graph and notes the shape of every tensor and number in it.

    Not a ``GraphModule`` with ``ShapeProp``: a GraphModule registers wrapped functions for the rest of the process and
    so breaks later traces, and ShapeProp cannot take a PackedSequence apart.
    """

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, torch.Tensor):
            n.meta["shape"] = tuple(value.shape)
        elif isinstance(value, int | float):
            n.meta["shape"] = ()
        return value


def _graph(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], opaque: tuple[type, ...]) -> fx.Graph:
    """The traced model with the shape of every tensor in ``node.meta["shape"]``."""
    graph = symbolic_graph(model, args, kwargs, opaque)
    given = inspect.signature(model.forward).bind(*args, **kwargs).arguments
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            _Shapes(model, graph=graph).run(*given.values())
    finally:
        for module, mode in training.items():
            module.training = mode
    return graph


class _Walk:
    """One pass over the graph, with the ports in ``escapes`` taken as plain data."""

    def __init__(
        self,
        model: nn.Module,
        graph: fx.Graph,
        units: Units,
        escapes: dict[Port, str],
        full_states: frozenset[str],
    ) -> None:
        self.model, self.graph, self.units, self.escapes = model, graph, units, escapes
        self.full_states = full_states
        self.sites: dict[str, list[Site]] = {}
        for site in units.sites:
            self.sites.setdefault(site.module, []).append(site)
        self.values: dict[fx.Node, Any] = {}
        self.readers: dict[str, Reader] = {}
        self.initial: set[str] = set()

    def run(self) -> None:
        for node in self.graph.nodes:
            args = [self._value(argument) for argument in node.args]
            kwargs = {key: self._value(argument) for key, argument in node.kwargs.items()}
            self.values[node] = self._apply(node, args, kwargs)

    def _value(self, argument: Any) -> Any:
        if isinstance(argument, fx.Node):
            return self.values[argument]
        if isinstance(argument, tuple | list):
            return type(argument)([self._value(item) for item in argument])
        if isinstance(argument, slice):
            return slice(*(self._value(item) for item in (argument.start, argument.stop, argument.step)))
        return argument

    def _apply(self, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Any:
        if node.op == "output":
            return self._escape(args, "it is an output of the model")
        if node.op in ("placeholder", "get_attr"):
            return None
        if node.op == "call_module":
            return self._module(node, str(node.target), args, kwargs)
        ports = ports_in(args) | ports_in(kwargs)
        if not ports:
            return None
        contained = node.target is operator.getitem and isinstance(args[0], tuple | list)
        rule = RULES.get(node.target)
        if rule is None or ((has_escaped(args) or has_escaped(list(kwargs.values()))) and not contained):
            return self._escape((args, kwargs), f"it is used by {_name(node)}")
        result = rule(args[0], args[1:], kwargs, self._shape_of(node))
        return self._escape((args, kwargs), f"it is used by {_name(node)}") if result is UNSAFE else result

    def _escape(self, values: Any, reason: str) -> None:
        for port in ports_in(values):
            uneven = port.what != "output" and port.module in self.full_states
            self.escapes.setdefault(port, "the widths of its layers or directions differ" if uneven else reason)

    def _shape_of(self, node: fx.Node):  # type: ignore[no-untyped-def]
        """Shape of argument k (an item of the first argument for a list of tensors), or of the result for -1."""

        def shape(k: int) -> tuple[int, ...] | None:
            if k == -1:
                return _shape(node)
            source = node.args[0] if node.args else None
            items = source if isinstance(source, tuple | list) else node.args
            item = items[k] if k < len(items) else None
            return _shape(item) if isinstance(item, fx.Node) else None

        return shape

    def _module(self, node: fx.Node, path: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        module = self.model.get_submodule(path)
        if has_escaped(args) or has_escaped(list(kwargs.values())):
            self._escape((args, kwargs), f"it is used by {path!r}")
            args, kwargs = [None] * len(args), dict.fromkeys(kwargs)
        value = args[0] if args else kwargs.get("input")
        if isinstance(module, nn.RNNBase | nn.RNNCellBase) and kind_of(module):
            self._read(module, path, value)
            state = args[1] if len(args) > 1 else kwargs.get("hx")
            self._escape(state, f"it is an initial state of {path!r}")
            if (node.args[1] if len(node.args) > 1 else node.kwargs.get("hx")) is not None:
                self.initial.add(path)
            return None if is_cell(module) else self._produced(module, path)  # type: ignore[arg-type]
        if isinstance(module, nn.Linear) and kind_of(module):
            self._read(module, path, value)
            return self._output(path, [self.units.labels(s) for s in self.sites.get(path, [])])
        if not (ports_in(args) | ports_in(kwargs)):
            return None
        if isinstance(module, ZERO_PRESERVING_MODULES) and isinstance(value, Features | States):
            return value
        if type(module) is nn.Flatten:
            result = RULES[nn.Flatten](value, [module.start_dim, module.end_dim], {}, self._shape_of(node))
            if result is not UNSAFE:
                return result
        return self._escape((args, kwargs), f"it is used by {type(module).__name__} {path!r}")

    def _read(self, module: nn.Module, path: str, value: Any) -> None:
        """``module`` reads ``value`` with its input weights."""
        width = module.in_features if isinstance(module, nn.Linear) else module.input_size
        labels = value.labels if isinstance(value, Features) else np.full(int(width), -1)  # type: ignore[arg-type]
        known = self.readers.get(path)
        shared = self._is_shared(module)
        if isinstance(value, States) or (isinstance(value, Features) and (value.axis != -1 or shared)):
            self._escape(value, f"it is read by {path!r}" + (" with shared weights" if shared else " on another axis"))
        elif known is not None and not np.array_equal(known.labels, labels):
            self._escape(value, f"{path!r} reads different features in different calls")
            everything = {int(label) for label in known.labels if label >= 0}
            for site in self.units.sites:
                if everything & set(self.units.labels(site).tolist()):
                    for port in _ports(site.module):
                        self.escapes.setdefault(port, f"{path!r} reads different features in different calls")
        else:
            self.readers[path] = Reader(path, labels)

    def _is_shared(self, module: nn.Module) -> bool:
        mine = {id(p) for p in module._parameters.values() if p is not None}
        others = (m for m in self.model.modules() if m is not module)
        read_directly = {
            id(_attribute(self.model, str(node.target))) for node in self.graph.nodes if node.op == "get_attr"
        }
        return bool(mine & read_directly) or any(mine & {id(p) for p in m._parameters.values()} for m in others)

    def _output(self, path: str, labels: list[np.ndarray]) -> Any:
        port = Port(path, "output")
        if not labels or port in self.escapes:
            return None
        return Features(np.concatenate(labels), -1, frozenset({port}))

    def _produced(self, module: nn.RNNBase, path: str) -> Any:
        """The value of a recurrent module's result: ``(output, h)`` or ``(output, (h, c))``."""
        pruned = {(site.layer, site.reverse): site for site in self.sites.get(path, [])}
        slots = [
            self.units.labels(pruned[place]) if (place := (s.layer, s.reverse)) in pruned else np.full(s.size, -1)
            for s in module_sites(module, path)
        ]
        directions = 2 if module.bidirectional else 1
        projected = bool(module.proj_size)
        output = None if projected or not pruned else self._output(path, slots[-directions:])
        h = None if projected else self._state(path, "h", slots)
        return (output, (h, self._state(path, "c", slots))) if isinstance(module, nn.LSTM) else (output, h)

    def _state(self, path: str, what: str, slots: list[np.ndarray]) -> Any:
        port = Port(path, what)  # type: ignore[arg-type]
        if path not in self.sites or port in self.escapes:
            return None
        if path in self.full_states:
            return Escaped(frozenset({port}))
        if len(slots) == 1:
            return Features(slots[0], -1, frozenset({port}))
        return States(tuple(slots), frozenset({port}))


def _shape(node: fx.Node) -> tuple[int, ...] | None:
    shape: tuple[int, ...] | None = node.meta.get("shape")
    return shape


def _attribute(model: nn.Module, target: str) -> Any:
    value: Any = model
    for part in target.split("."):
        value = getattr(value, part, None)
    return value


def _name(node: fx.Node) -> str:
    target = node.target
    return str(target) if isinstance(target, str) else getattr(target, "__name__", str(target))
