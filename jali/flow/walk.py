"""The walk over a traced graph: abstract values through every node, readers and escapes out of it."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import fx, nn

from jali.flow.layout import Data, Escaped, Family, Features, Port, States, Units, has_escaped, ports_in, settled
from jali.flow.rules import RULES, TAKES_WIDTHS, UNSAFE
from jali.flow.rules.elementwise import ZERO_PRESERVING_MODULES
from jali.flow.rules.reductions import Extremum
from jali.site import Site, is_cell, kind_of, module_sites
from jali.view import is_computed
from jali.wired import WiredLayers


@dataclass(frozen=True, eq=False)
class Reader:
    """A module that reads hidden units: ``labels[j]`` is the unit at its input feature j, or -1."""

    module: str
    labels: np.ndarray


_ORDER: tuple[Literal["output", "h", "c"], ...] = ("output", "h", "c")


def ports_of(path: str) -> tuple[Port, ...]:
    """The ports of one module."""
    return tuple(Port(path, what) for what in _ORDER)


class Walk:
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
        """Give every node its abstract value, in order; readers and escapes are noted on the way."""
        for node in self.graph.nodes:
            args = [fx.node.map_arg(argument, self.values.__getitem__) for argument in node.args]
            kwargs = {key: fx.node.map_arg(argument, self.values.__getitem__) for key, argument in node.kwargs.items()}
            value = self._apply(node, args, kwargs)
            self.values[node] = Data(node.meta.get("axes")) if value is None else value

    def _apply(self, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """The abstract value of a node; None where it depends on no labelled feature."""
        if node.op == "output":
            return self._escape(args, "it is an output of the model")
        if node.op in ("placeholder", "get_attr"):
            return None
        if node.op == "call_module":
            return self._module(node, str(node.target), args, kwargs)
        ports = ports_in(args) | ports_in(kwargs)
        if not ports:
            return None
        taken = isinstance(args[0], Extremum if node.target is getattr else tuple | list) if args else False
        contained = node.target in (operator.getitem, getattr) and taken and not has_escaped(args[1:])
        rule = RULES.get(node.target)
        # A rule reads its tensor from the first position, and knows nothing of a result that is written elsewhere.
        judged = contained or node.target in TAKES_WIDTHS
        escaped = (has_escaped(args) or has_escaped(kwargs)) and not judged
        if rule is None or not args or "out" in kwargs or escaped:
            return self._escape((args, kwargs), f"it is used by {_name(node)}")
        result = rule(args[0], args[1:], kwargs, self._shape_of(node))
        return self._escape((args, kwargs), f"it is used by {_name(node)}") if result is UNSAFE else result

    def _escape(self, values: Any, reason: str) -> None:
        for port in sorted(ports_in(values), key=lambda port: (port.module, _ORDER.index(port.what))):
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
        if has_escaped(args) or has_escaped(kwargs):
            self._escape((args, kwargs), f"it is used by {path!r}")
            args, kwargs = [None] * len(args), dict.fromkeys(kwargs)
        value = args[0] if args else kwargs.get("input")
        if _is_hooked(module):
            self._escape((args, kwargs), f"it is used by {path!r}, which has hooks")
            for port in ports_of(path) if path in self.sites else ():
                self.escapes.setdefault(port, "the module has hooks")
            args, kwargs, value = [None] * len(args), dict.fromkeys(kwargs), None
        if isinstance(module, nn.RNNBase | nn.RNNCellBase | WiredLayers) and kind_of(module):
            self._read(module, path, value)
            state = args[1] if len(args) > 1 else kwargs.get("hx")
            self._escape(state, f"it is an initial state of {path!r}")
            if (node.args[1] if len(node.args) > 1 else node.kwargs.get("hx")) is not None:
                self.initial.add(path)
            if isinstance(module, WiredLayers):
                return self._of_wired(module, path)
            source = node.args[0] if node.args else node.kwargs.get("input")
            unbatched = isinstance(source, fx.Node) and len(_shape(source) or ()) == 2
            return None if is_cell(module) else self._produced(module, path, unbatched)  # type: ignore[arg-type]
        if isinstance(module, nn.Linear) and kind_of(module):
            self._read(module, path, value)
            labels = [self.units.labels(s) for s in self.sites.get(path, [])]
            return self._output(path, labels, module.out_features)
        if not (ports_in(args) | ports_in(kwargs)):
            return None
        if isinstance(module, ZERO_PRESERVING_MODULES) and isinstance(value, Features | States):
            return value
        if type(module) in RULES and not getattr(module, "return_indices", False):
            options = [module.start_dim, module.end_dim] if isinstance(module, nn.Flatten) else []
            result = RULES[type(module)](value, options, {}, self._shape_of(node))
            if result is not UNSAFE:
                return result
        return self._escape((args, kwargs), f"it is used by {type(module).__name__} {path!r}")

    def _read(self, module: nn.Module, path: str, value: Any) -> None:
        """``module`` reads ``value`` with its input weights."""
        width = module.in_features if isinstance(module, nn.Linear) else module.input_size
        labels = value.labels if isinstance(value, Features) else np.full(int(width), -1)  # type: ignore[arg-type]
        known = self.readers.get(path)
        fixed = self._fixed_weights(module, path)
        follows = isinstance(value, Features) and value.axis == -1 and not fixed
        if ports_in(value) and not follows:
            self._escape(value, f"it is read by {path!r} {fixed or 'on another axis'}")
        elif known is not None and not np.array_equal(known.labels, labels):
            self._escape(value, f"{path!r} reads different features in different calls")
            everything = {int(label) for label in known.labels if label >= 0}
            for site in self.units.sites:
                if everything & set(self.units.labels(site).tolist()):
                    for port in ports_of(site.module):
                        self.escapes.setdefault(port, f"{path!r} reads different features in different calls")
        else:
            self.readers[path] = Reader(path, labels)

    def _fixed_weights(self, module: nn.Module, path: str) -> str:
        """Why the input weights of a reader cannot be cut; empty if they can."""
        if any(
            is_computed(module, name) for site in module_sites(module, path) for name in site.parameter_names().values()
        ):
            return "with weights that are computed from others"
        return "with shared weights" if self._is_shared(module) else ""

    def _is_shared(self, module: nn.Module) -> bool:
        own = [id(p) for p in module._parameters.values() if p is not None]
        mine = set(own)
        others = (m for m in self.model.modules() if m is not module)
        read_directly = {
            id(_attribute(self.model, str(node.target))) for node in self.graph.nodes if node.op == "get_attr"
        }
        return (
            len(mine) < len(own)
            or bool(mine & read_directly)
            or any(mine & {id(p) for p in m._parameters.values()} for m in others)
        )

    def _family(self, path: str, size: int) -> Family | None:
        return None if path in self.full_states else Family(path, size)

    def _output(self, path: str, labels: list[np.ndarray], size: int) -> Any:
        port = Port(path, "output")
        if not labels or port in self.escapes:
            return None
        return Features(np.concatenate(labels), -1, frozenset({port}), self._family(path, size))

    def _produced(self, module: nn.RNNBase, path: str, unbatched: bool) -> Any:
        """The value of a recurrent module's result: ``(output, h)`` or ``(output, (h, c))``."""
        pruned = {(site.layer, site.reverse): site for site in self.sites.get(path, [])}
        slots = [
            self.units.labels(pruned[place]) if (place := (s.layer, s.reverse)) in pruned else np.full(s.size, -1)
            for s in module_sites(module, path)
        ]
        directions = 2 if module.bidirectional else 1
        projected = bool(module.proj_size)
        output = None if projected or not pruned else self._output(path, slots[-directions:], module.hidden_size)
        labels = np.stack(slots) if unbatched else np.stack(slots)[:, None]  # (slots, [1], H)
        h = None if projected else self._state(path, "h", labels)
        return (output, (h, self._state(path, "c", labels))) if isinstance(module, nn.LSTM) else (output, h)

    def _of_wired(self, module: WiredLayers, path: str) -> Any:
        """The value of ``(output, h)``: the last layer's units, and all layers' side by side."""
        pruned = {site.layer: site for site in self.sites.get(path, [])}
        slots = [
            self.units.labels(pruned[s.layer]) if s.layer in pruned else np.full(s.size, -1)
            for s in module_sites(module, path)
        ]
        port = Port(path, "h")
        known = pruned and port not in self.escapes
        h = Features(np.concatenate(slots), -1, frozenset({port})) if known else None
        return self._output(path, slots[-1:] if pruned else [], module.sizes[-1]), h

    def _state(self, path: str, what: str, labels: np.ndarray) -> Any:
        port = Port(path, what)  # type: ignore[arg-type]
        if path not in self.sites or port in self.escapes:
            return None
        if path in self.full_states:
            return Escaped(frozenset({port}))
        return settled(labels, States(labels, frozenset({port}), self._family(path, labels.shape[-1])))


def _is_hooked(module: nn.Module) -> bool:
    """Whether a module that is not looked into has hooks, which may change what it reads or returns.

    A hook that says ``only_initial_state`` (that of a masked layer) touches no more than the initial state.
    """
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    return any(not getattr(hook, "only_initial_state", False) for hook in hooks)


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
