"""Sites: the prunable places of a model. A site is a recurrent layer and direction, a recurrent cell, or a ``Linear``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from jali.errors import ModelError
from jali.plain import an
from jali.wired import WiredLayers

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4, "Linear": 1, "CohenGrossberg": 1, "TopDownRNN": 1}
_RECURRENT = {"w_in": "weight_ih", "w_rec": "weight_hh", "b_in": "bias_ih", "b_rec": "bias_hh"}
_WIRED = {"w_in": "weight_ih", "w_rec": "weight_hh", "b_in": "bias", "terms": "terms"}
# Kind → view field → how the parameter's name begins, of layers.
FIELDS = {
    "RNN": _RECURRENT,
    "GRU": _RECURRENT,
    "LSTM": _RECURRENT | {"w_proj": "weight_hr"},
    "CohenGrossberg": _WIRED,
    "TopDownRNN": _WIRED,
}
LAYERS = {nn.RNN: "RNN", nn.GRU: "GRU", nn.LSTM: "LSTM"}
CELLS = {nn.RNNCell: "RNN", nn.GRUCell: "GRU", nn.LSTMCell: "LSTM"}


@dataclass(frozen=True)
class Site:
    """One prunable place of a model.

    ``module`` is the path of the PyTorch module ("" for the model itself), ``kind`` one of :data:`GATES`,
    ``size`` the number of units H, ``minimum`` the smallest width that PyTorch allows (``proj_size + 1`` with a
    projection, else 1).
    """

    module: str
    kind: str
    size: int
    layer: int = 0
    reverse: bool = False
    cell: bool = False
    minimum: int = 1

    @property
    def name(self) -> str:
        """``module.l0``, ``module.l0.reverse``; just the module's path for a cell or a Linear."""
        if self.cell or self.kind == "Linear":
            return self.module or self.kind.lower()
        tail = f"l{self.layer}" + (".reverse" if self.reverse else "")
        return f"{self.module}.{tail}" if self.module else tail

    @property
    def recurrent(self) -> bool:
        """Whether the site is no ``Linear``."""
        return self.kind != "Linear"

    def parameter_names(self) -> dict[str, str]:
        """View field → name of the parameter in the PyTorch module (those that may exist)."""
        if self.kind == "Linear":
            return {"w_in": "weight", "b_in": "bias"}
        if self.cell:
            return dict(_RECURRENT)
        tail = f"_l{self.layer}" + ("_reverse" if self.reverse else "")
        return {field: name + tail for field, name in FIELDS[self.kind].items()}


def kind_of(module: nn.Module) -> str | None:
    """The kind (of :data:`GATES`) of a module that jali can prune, else None, as for one whose class has its own forward."""
    if isinstance(module, WiredLayers):
        return module.KIND if module.is_known() else None
    for cls, kind in (*LAYERS.items(), *CELLS.items(), (nn.Linear, "Linear")):
        if isinstance(module, cls) and type(module).forward is cls.forward:  # type: ignore[attr-defined]
            return kind
    return None


def is_cell(module: nn.Module) -> bool:
    """Whether ``module`` is one step of a recurrent layer."""
    return isinstance(module, nn.RNNCellBase)


def module_sites(module: nn.Module, path: str = "") -> list[Site]:
    """The sites of one PyTorch module: one per layer and direction, forward before reverse."""
    kind = kind_of(module)
    if kind is None:
        return []
    if isinstance(module, nn.Linear):
        return [Site(path, kind, module.out_features)]
    if isinstance(module, nn.RNNCellBase):
        return [Site(path, kind, module.hidden_size, cell=True)]
    if isinstance(module, WiredLayers):
        return [Site(path, kind, size, layer) for layer, size in enumerate(module.sizes)]
    if not isinstance(module, nn.RNNBase):
        return []
    minimum = module.proj_size + 1 if module.proj_size else 1
    return [
        Site(path, kind, module.hidden_size, layer, reverse, minimum=minimum)
        for layer in range(module.num_layers)
        for reverse in ((False, True) if module.bidirectional else (False,))
    ]


def sites(model: nn.Module, *, linear: bool = False) -> tuple[Site, ...]:
    """Every prunable site of ``model``, in the order of its modules.

    ``linear=True`` adds the ``Linear`` layers. Raises :class:`ModelError` if there is none.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"the model is {an(type(model).__name__)}; give the torch.nn.Module that holds the recurrent layers"
        )
    found = [site for path, module in model.named_modules() for site in module_sites(module, path)]
    found = [site for site in found if linear or site.recurrent]
    if not found:
        wanted = "an nn.RNN, nn.LSTM, nn.GRU, recurrent cell" + (
            ", network of jali.models or nn.Linear" if linear else " or network of jali.models"
        )
        own = [
            f"{path or 'itself'!r} is {an(type(m).__name__)}"
            for path, m in model.named_modules()
            if _has_own_forward(m)
        ]
        remedy = (
            f"{', '.join(own)}, with a forward of its own; give the model with plain layers (for an accelerated one, the "
            "model that it was made from)"
            if own
            else "pass the model that holds the recurrent layer"
            + ("" if linear else ", or ask for Linear sites by name")
        )
        raise ModelError(
            f"{type(model).__name__} has no prunable site: no submodule is {wanted} with PyTorch's own forward; {remedy}"
        )
    return tuple(found)


def _has_own_forward(module: nn.Module) -> bool:
    """A recurrent layer, cell or network of the caller's own class."""
    return isinstance(module, nn.RNNBase | nn.RNNCellBase | WiredLayers) and kind_of(module) is None


def refuse_shared(model: nn.Module, sites: Sequence[Site]) -> None:
    """Raises :class:`ModelError` if a parameter of ``sites`` also serves another module, layer or direction.

    What goes at the one place would go at the other, too.
    """
    owners: dict[int, set[str]] = {}
    for path, module in model.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                owners.setdefault(id(parameter), set()).add(f"{path}.{name}".lstrip("."))
    for site in sites:
        parameters = model.get_submodule(site.module)._parameters
        for name in site.parameter_names().values():
            parameter, own = parameters.get(name), f"{site.module}.{name}".lstrip(".")
            others = set() if parameter is None else owners[id(parameter)] - {own}
            if others:
                raise ModelError(
                    f"parameter {name!r} of site {site.name!r} is shared with {', '.join(sorted(others))}, so it cannot be "
                    "cut; untie it, or leave the site out with sites=[...]"
                )
