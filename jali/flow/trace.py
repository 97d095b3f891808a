"""Trace a model with torch.fx and follow the hidden units of its sites to their readers."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils import rnn

from jali.copies import copy_of
from jali.flow.layout import Port, Units
from jali.flow.walk import Reader, Walk, ports_of
from jali.modes import evaluation_mode
from jali.site import Site, kind_of, refuse_shared

# Initial states are often made with these; torch.fx cannot hand them a size that it traces unless it wraps them.
_FACTORIES = (torch.zeros, torch.ones, torch.full, torch.empty, torch.rand, torch.randn, torch.arange)


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
            autowrap_modules=(math,),
            autowrap_functions=(rnn.pack_padded_sequence, rnn.pad_packed_sequence, *_FACTORIES),
        )
        # The packing functions branch on their arguments; they stay single calls also when reached as nn.utils.rnn.…
        self._autowrap_search += [rnn, torch]
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
    ``args=None`` proves nothing. Raises :class:`ModelError` if sites share parameters with other places.
    """
    units = Units(sites)
    refuse_shared(model, sites)
    if args is None:
        return _nothing(units, "no example inputs were given")
    if kind_of(model) is not None:
        return _nothing(units, "the model is the layer itself, and its outputs keep their width")
    model = copy_of(model)  # tracing leaves constants and, in models that remember results, proxies behind
    try:
        graph = _graph(model, args, dict(kwargs or {}), opaque)
    except Exception as error:  # torch.fx runs the user's forward on proxies: any exception can come out of it
        return _nothing(units, f"torch.fx cannot trace the model ({_brief(error)})")
    escapes: dict[Port, str] = {}
    called = {str(node.target) for node in graph.nodes if node.op == "call_module"}
    for site in sites:
        if site.module not in called:
            escapes.update(dict.fromkeys(ports_of(site.module), "the traced graph does not call it as a module"))
    while True:  # every round can only add escapes, of which there are finitely many
        walk = Walk(model, graph, units, dict(escapes), full_states)
        walk.run()
        if walk.escapes == escapes:
            initial = walk.initial | {site.module for site in sites if site.module not in called}
            return Flow(units, tuple(walk.readers.values()), escapes, frozenset(initial))
        escapes = walk.escapes


def _nothing(units: Units, reason: str) -> Flow:
    escapes = {port: reason for site in units.sites for port in ports_of(site.module)}
    return Flow(units, (), escapes, frozenset(site.module for site in units.sites), reason)


def _brief(error: Exception) -> str:
    if "'Proxy' object cannot be interpreted as an integer" in str(error):
        # A graph of the example's own length would prove nothing about others.
        return "its forward code loops over a size of its input, and only the steps of one length could be seen"
    first = str(error).strip().splitlines()
    return first[0] if first else type(error).__name__


def symbolic_graph(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], opaque: tuple[type, ...] = ()
) -> fx.Graph:
    """The torch.fx graph of ``model(*args, **kwargs)`` in evaluation mode; arguments left out keep their defaults.

    Recurrent layers, Linear layers and ``opaque`` modules are single calls. Raises whatever torch.fx raises.
    """
    signature = inspect.signature(model.forward)
    given = signature.bind(*args, **kwargs).arguments
    for name, parameter in signature.parameters.items():
        if name in given and parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise TypeError(
                f"its forward takes {str(parameter).partition(':')[0]}; give its arguments names, each its own"
            )
    concrete = {
        name: parameter.default
        for name, parameter in signature.parameters.items()
        if name not in given and parameter.default is not inspect.Parameter.empty
    }
    with evaluation_mode(model):
        graph = _Tracer(opaque).trace(model, concrete or None)
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
    """Runs a graph and notes the shape of every tensor and number in it, and the axes it takes up as an index.

    Not a ``GraphModule`` with ``ShapeProp``: a GraphModule registers wrapped functions for the rest of the process and
    so breaks later traces, and ShapeProp cannot take a PackedSequence apart.
    """

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, torch.Tensor):
            n.meta["shape"] = tuple(value.shape)
            n.meta["axes"] = value.dim() if value.dtype in (torch.bool, torch.uint8) else 1
        elif isinstance(value, int | float):
            n.meta["shape"] = ()
            n.meta["axes"] = 0 if isinstance(value, bool) else 1
        return value


def _graph(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], opaque: tuple[type, ...]) -> fx.Graph:
    """The traced model with the shape of every tensor in ``node.meta["shape"]``."""
    graph = symbolic_graph(model, args, kwargs, opaque)
    given = inspect.signature(model.forward).bind(*args, **kwargs).arguments
    with evaluation_mode(model), torch.no_grad():
        _Shapes(model, graph=graph).run(*given.values())
    return graph
