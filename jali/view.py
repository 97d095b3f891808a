"""Views: the only file that knows how PyTorch packs the gates of a recurrent layer.

A *view* is a frozen, unpacked copy of the parameters of a site, as float64 numpy arrays:

=========  =============  ==========================================================
``w_in``   ``(G, H, I)``  input weights, ``[gate, to, from]``
``w_rec``  ``(G, H, R)``  recurrent weights; ``R = H``, or the projection size ``P``
``b_in``   ``(G, H)``     input bias, or ``None``
``b_rec``  ``(G, H)``     recurrent bias, or ``None``
``w_proj`` ``(P, H)``     projection of an LSTM with ``proj_size``, or ``None``
``terms``  ``(K, H)``     what a unit has of its own, as a Cohen–Grossberg unit its decay, or ``None``
=========  =============  ==========================================================

``G`` is 1 for RNN, Linear and the networks of :mod:`jali.models`, 3 for GRU (r, z, n), 4 for LSTM (i, f, g, o). Reading,
changing the view and writing it back is exact for float16, bfloat16, float32 and float64 parameters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from jali.errors import ModelError
from jali.site import CELLS, GATES, LAYERS, Site, module_sites
from jali.wired import WiredLayers

_NOT_PACKED = ("w_proj", "terms")  # without a gate axis


@dataclass(frozen=True, eq=False)
class View:
    """The unpacked parameters of one site; see the module's docstring for the shapes."""

    site: Site
    w_in: np.ndarray
    w_rec: np.ndarray | None = None
    b_in: np.ndarray | None = None
    b_rec: np.ndarray | None = None
    w_proj: np.ndarray | None = None
    terms: np.ndarray | None = None

    @property
    def gates(self) -> int:
        """G: 1 for RNN and Linear, 3 for GRU, 4 for LSTM."""
        return self.w_in.shape[0]

    @property
    def hidden(self) -> int:
        """H, the number of units."""
        return self.w_in.shape[1]

    @property
    def inputs(self) -> int:
        """I, the number of input features."""
        return self.w_in.shape[2]

    def arrays(self) -> Iterator[tuple[str, np.ndarray]]:
        """The fields that exist, in a fixed order."""
        for field in ("w_in", "w_rec", "b_in", "b_rec", "w_proj", "terms"):
            value = getattr(self, field)
            if value is not None:
                yield field, value

    def replace(self, **changes: np.ndarray | None) -> View:
        """A copy with other arrays in some fields."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

    def recurrence(self) -> np.ndarray:
        """Unit-to-unit recurrent weights ``(G, H, H)``: ``w_rec``, through the projection where there is one.

        Raises :class:`ModelError` for a Linear, which has no recurrence.
        """
        if self.w_rec is None:
            raise ModelError(
                f"site {self.site.name!r} is a Linear and has no recurrent weights; choose recurrent sites"
            )
        return self.w_rec if self.w_proj is None else self.w_rec @ self.w_proj

    def influence(self) -> np.ndarray:
        """Influence graph ``A[to, from] = ‖w_rec[:, to, from]‖₂`` over the gates, ``(H, H)``, nonnegative."""
        return np.sqrt((self.recurrence() ** 2).sum(axis=0))

    def without(self, removed: np.ndarray) -> View:
        """The same shapes with every parameter of the units ``removed`` (indices) set to zero."""
        out = {field: value.copy() for field, value in self.arrays()}
        for field in ("w_in", "w_rec", "b_in", "b_rec", "terms"):
            if field in out:
                out[field][:, removed] = 0.0
        if "w_proj" in out:
            out["w_proj"][:, removed] = 0.0
        elif "w_rec" in out:
            out["w_rec"][:, :, removed] = 0.0
        return self.replace(**out)

    def cut(self, keep: np.ndarray, inputs: np.ndarray | None = None) -> View:
        """Only the units ``keep`` (indices) and, if given, only the input features ``inputs``: physically smaller."""
        out = {field: value[:, keep] for field, value in self.arrays() if field != "w_proj"}
        if inputs is not None:
            out["w_in"] = out["w_in"][:, :, inputs]
        if self.w_proj is not None:
            out["w_proj"] = self.w_proj[:, keep]
        elif self.w_rec is not None:
            out["w_rec"] = out["w_rec"][:, :, keep]
        return dataclasses.replace(self, site=dataclasses.replace(self.site, size=len(keep)), **out)


def is_computed(module: nn.Module, name: str) -> bool:
    """Whether parameter ``name`` is computed from others (``torch.nn.utils.prune``, a parametrization, a norm hook)."""
    held = name in module.__dict__ or name in getattr(module, "parametrizations", ())
    return held and module._parameters.get(name) is None


def read(model: nn.Module, site: Site) -> View:
    """The view of one site of ``model``. Raises :class:`ModelError` for NaN or infinite values, or parametrized weights."""
    module = model.get_submodule(site.module)
    arrays: dict[str, np.ndarray] = {}
    for field, name in site.parameter_names().items():
        parameter = module._parameters.get(name)
        if parameter is None:
            if is_computed(module, name):
                raise ModelError(
                    f"parameter {name!r} of {site.name!r} is computed from others (torch.nn.utils.prune or a "
                    "parametrization); make it permanent first (prune.remove / remove_parametrizations)"
                )
            continue
        _refuse_not_finite(f"{site.module}.{name}".lstrip("."), parameter)
        arrays[field] = _unpack(field, parameter.detach().to("cpu", torch.float64, copy=True).numpy(), site)
    return View(site, **arrays)


def check_parameters(model: nn.Module, but: Iterable[Site] = ()) -> None:
    """Raises :class:`ModelError` for NaN, infinite or uninitialised values in any parameter of ``model``.

    The parameters of the sites ``but`` are left out: :func:`read` has checked them.
    """
    known = {id(p) for site in but for p in _parameters(model, site)}
    for name, parameter in model.named_parameters():
        if id(parameter) not in known:
            _refuse_not_finite(name, parameter)


def _parameters(model: nn.Module, site: Site) -> list[nn.Parameter]:
    found = model.get_submodule(site.module)._parameters
    return [p for p in map(found.get, site.parameter_names().values()) if p is not None]


def _refuse_not_finite(name: str, parameter: nn.Parameter) -> None:
    if nn.parameter.is_lazy(parameter):
        raise ModelError(f"parameter {name!r} has no values yet; run the model once before pruning")
    finite = torch.isfinite(parameter.detach())
    if not finite.all():
        count = finite.numel() - int(finite.sum())
        raise ModelError(
            f"parameter {name!r} has {count} NaN or infinite values of {finite.numel()}; retrain or restore a good "
            "checkpoint"
        )


def write(model: nn.Module, view: View) -> None:
    """Write ``view`` into the parameters of its site in ``model``, in place, in the parameters' own dtype and device.

    Raises :class:`ModelError` if a shape does not fit; then nothing has been written.
    """
    module, packed_view = model.get_submodule(view.site.module), packed(view)
    for name, value in packed_view.items():
        have = tuple(getattr(module, name).shape)
        if have != value.shape:
            raise ModelError(
                f"cannot write {name!r} of site {view.site.name!r}: it is {have}, the view is {value.shape}"
            )
    with torch.no_grad():
        for name, value in packed_view.items():
            parameter = getattr(module, name)
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(value)).to(parameter.dtype))


def packed(view: View) -> dict[str, np.ndarray]:
    """Name of the parameter in the PyTorch module → the array in PyTorch's own layout, for every field of ``view``."""
    names = view.site.parameter_names()
    return {names[field]: _pack(field, value) for field, value in view.arrays()}


def read_gradient(model: nn.Module, site: Site) -> View:
    """The view of what ``.grad`` holds at one site. Raises :class:`ModelError` where a parameter has none."""
    module = model.get_submodule(site.module)
    arrays: dict[str, np.ndarray] = {}
    for field, name in site.parameter_names().items():
        parameter = module._parameters.get(name)
        if parameter is None:
            continue
        if parameter.grad is None:
            raise ModelError(
                f"parameter {name!r} of site {site.name!r} has no gradient; it must require one, and the gradients must "
                "not be cleared before they are read"
            )
        arrays[field] = _unpack(field, parameter.grad.to("cpu", torch.float64, copy=True).numpy(), site)
    return View(site, **arrays)


def unpacked(site: Site, parameters: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """View field → (D, *its shape), of D values of every parameter of the PyTorch module: name in it → (D, *shape)."""
    names = {field: name for field, name in site.parameter_names().items() if name in parameters}
    return {
        field: np.stack([_unpack(field, value, site) for value in parameters[name]]) for field, name in names.items()
    }


def _unpack(field: str, value: np.ndarray, site: Site) -> np.ndarray:
    if field in _NOT_PACKED:
        return value
    return value.reshape(GATES[site.kind], site.size, *value.shape[1:])


def _pack(field: str, value: np.ndarray) -> np.ndarray:
    if field in _NOT_PACKED:
        return value
    return value.reshape(value.shape[0] * value.shape[1], *value.shape[2:])


def layer_views(module: nn.RNNBase, path: str = "") -> list[list[View]]:
    """All views of a recurrent module, ``[layer][direction]``."""
    per_layer = 2 if module.bidirectional else 1
    root = AtPath(module, path)
    views = [read(root, site) for site in module_sites(module, path)]
    return [views[i : i + per_layer] for i in range(0, len(views), per_layer)]


class AtPath(nn.Module):
    """Lets ``read`` and ``write`` address one module by the path that it has in a model."""

    def __init__(self, module: nn.Module, path: str) -> None:
        super().__init__()
        self._module, self._path = [module], path

    def get_submodule(self, target: str) -> nn.Module:
        if target != self._path:
            raise ModelError(f"site of module {target!r} asked of module {self._path!r}")
        return self._module[0]


def build(views: list[list[View]], like: nn.RNNBase) -> nn.RNNBase:
    """A plain PyTorch layer of ``like``'s type, options, dtype and device that holds ``views[layer][direction]``.

    All views must have the same number of units; their input widths must fit.
    """
    first = views[0][0]
    options: dict[str, object] = {
        "num_layers": len(views),
        "bias": like.bias,
        "batch_first": like.batch_first,
        "dropout": like.dropout if len(views) > 1 else 0.0,
        "bidirectional": len(views[0]) == 2,
    }
    if isinstance(like, nn.RNN):
        options["nonlinearity"] = like.nonlinearity
    if first.w_proj is not None:
        options["proj_size"] = first.w_proj.shape[0]
    weight = like.weight_ih_l0
    base = next(cls for cls in LAYERS if isinstance(like, cls))
    # Created empty on the meta device: the random initialisation would move the global random state.
    with torch.device("meta"):
        module = base(first.inputs, first.hidden, **options)
    module = module.to_empty(device=weight.device).to(weight.dtype)
    holder = AtPath(module, "")
    for layer, pair in enumerate(views):
        for reverse, view in enumerate(pair):
            site = dataclasses.replace(view.site, module="", layer=layer, reverse=bool(reverse))
            write(holder, dataclasses.replace(view, site=site))
    _copy_flags(like, module)
    if isinstance(module, nn.RNNBase):
        module.flatten_parameters()
    return module


def build_cell(view: View, like: nn.RNNCellBase) -> nn.RNNCellBase:
    """A plain PyTorch cell of ``like``'s type that holds ``view``."""
    base = next(cls for cls in CELLS if isinstance(like, cls))
    options: dict[str, object] = {"bias": like.bias}
    if isinstance(like, nn.RNNCell):
        options["nonlinearity"] = like.nonlinearity
    with torch.device("meta"):
        cell = base(view.inputs, view.hidden, **options)
    return _filled(cell, view, like, like.weight_ih)


def build_linear(view: View, like: nn.Linear) -> nn.Linear:
    """A plain ``nn.Linear`` that holds ``view``."""
    with torch.device("meta"):
        linear = nn.Linear(view.inputs, view.hidden, bias=view.b_in is not None)
    return _filled(linear, view, like, like.weight)


def build_wired(views: list[View], inputs: int, like: WiredLayers) -> WiredLayers:
    """A layer of ``like``'s type, options, dtype and device with ``inputs`` input features that holds one view per layer."""
    with torch.device("meta"):
        module = like.resized(inputs, tuple(view.hidden for view in views))
    weight = like.weight("weight_ih", 0)
    module = module.to_empty(device=weight.device).to(weight.dtype)
    for view in views:
        write(AtPath(module, ""), dataclasses.replace(view, site=dataclasses.replace(view.site, module="")))
    _copy_flags(like, module)
    return module


def _filled(module, view: View, like: nn.Module, weight: torch.Tensor):  # type: ignore[no-untyped-def]
    module = module.to_empty(device=weight.device).to(weight.dtype)
    write(AtPath(module, ""), dataclasses.replace(view, site=dataclasses.replace(view.site, module="")))
    _copy_flags(like, module)
    return module


def _copy_flags(like: nn.Module, module: nn.Module) -> None:
    """Training mode and ``requires_grad`` of the old module hold for the new one."""
    module.train(like.training)
    frozen = {name for name, parameter in like.named_parameters() if not parameter.requires_grad}
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name not in frozen)
