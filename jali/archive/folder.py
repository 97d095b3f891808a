"""Save a model to a folder and load it again: safetensors and JSON, never code.

``weights.safetensors``  the parameters and buffers
``model.json``           the forward pass as a graph of known operations, or, where it cannot be stored as data, the
                         description of the cut layers (then the caller's own code builds the rest)
``plan.json``            the plan, if one was given
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from jali.archive.graph import StoredModel, replaced_modules, to_data
from jali.archive.specs import NotStorable, construct, describe
from jali.batches import example
from jali.errors import FileError, ModelError
from jali.files import atomic_write, writable_folder
from jali.flow.trace import symbolic_graph
from jali.plans import Plan
from jali.surgery.compact import OPAQUE
from jali.view import kind_of

SCHEMA = 1


def save(
    model: nn.Module, folder: str | os.PathLike[str], *, plan: Plan | None = None, example_inputs: Any = None
) -> bool:
    """Write ``model`` to ``folder``, so that :func:`load` can rebuild it.

    Returns whether it can be rebuilt from the folder alone, which needs ``example_inputs`` and a forward pass that
    torch.fx can trace and that uses known operations only; otherwise ``load`` needs ``build``.
    Raises :class:`FileError` if the folder cannot be written.
    """
    target = writable_folder(folder)
    body, whole = _describe_model(model, example_inputs)
    tensors = {name: t.detach().cpu().contiguous().clone() for name, t in model.state_dict().items()}
    atomic_write(target / "weights.safetensors", save_tensors(tensors))
    if plan is not None:
        plan.save(target / "plan.json")
    atomic_write(target / "model.json", (json.dumps(body, indent=1, allow_nan=False) + "\n").encode())
    return whole


def load(folder: str | os.PathLike[str], build: Callable[[], nn.Module] | None = None) -> nn.Module:
    """Rebuild what :func:`save` wrote, on the CPU and in evaluation mode. No code from the folder is run.

    ``build``: a callable that returns the *original*, unpruned model; only needed where ``save`` returned False.
    Raises :class:`FileError` for a missing, truncated or foreign file.
    """
    source = Path(folder)
    body = _read_json(source / "model.json")
    tensors = _read_tensors(source / "weights.safetensors")
    if body.get("kind") == "graph":
        model: nn.Module = StoredModel(_section(body, "graph"))
    elif body.get("kind") == "layer":
        model = construct(_section(body, "layer"))
    elif body.get("kind") == "modules":
        model = _rebuilt(_section(body, "modules"), build, str(body.get("reason")))
    else:
        raise FileError(f"{source / 'model.json'} describes a model of kind {body.get('kind')!r}, which is unknown")
    try:
        model.load_state_dict(tensors, strict=True, assign=True)
    except RuntimeError as error:
        lines = " ".join(str(error).split())
        raise FileError(f"the weights in {str(source)!r} do not fit the stored model: {lines[:300]}") from None
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            module.flatten_parameters()
    return model.eval()


def load_weights(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Load a safetensors ``state_dict`` into ``model``, in place; :class:`FileError` if it is damaged or does not fit."""
    tensors = _read_tensors(Path(path))
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        lines = " ".join(str(error).split())
        raise FileError(f"the weights in {str(path)!r} do not fit {type(model).__name__}: {lines[:300]}") from None


def _describe_model(model: nn.Module, example_inputs: Any) -> tuple[dict[str, Any], bool]:
    if kind_of(model) is not None or isinstance(model, OPAQUE):
        return {"schema": SCHEMA, "kind": "layer", "layer": describe(model)}, True
    if isinstance(model, StoredModel):
        raise ModelError("a loaded model is saved already; copy its folder, or save the model it was made from")
    reason = "no example inputs were given"
    if example_inputs is not None:
        batch = example(example_inputs)
        try:
            graph = symbolic_graph(model, batch.args, dict(batch.kwargs), OPAQUE)
            return {"schema": SCHEMA, "kind": "graph", "graph": to_data(model, graph)}, True
        except NotStorable as error:
            reason = str(error)
        except Exception as error:  # torch.fx runs the user's forward on proxies: anything can come out of it
            reason = f"torch.fx cannot trace it ({type(error).__name__}: {error})"
    paths = [path for path, module in model.named_modules() if isinstance(module, OPAQUE) or kind_of(module)]
    outer = [path for path in paths if not any(path.startswith(f"{other}.") for other in paths)]
    modules = replaced_modules(outer, model)
    return {"schema": SCHEMA, "kind": "modules", "modules": modules, "reason": reason}, False


def _rebuilt(modules: Mapping[str, Any], build: Callable[[], nn.Module] | None, reason: str) -> nn.Module:
    if build is None:
        raise FileError(
            f"the forward pass is not in the folder ({reason}); pass build=, a callable that returns the original model"
        )
    model = build()
    for path, spec in modules.items():
        parent, _, leaf = path.rpartition(".")
        try:
            model.get_submodule(path)
            setattr(model.get_submodule(parent), leaf, construct(spec))
        except AttributeError:
            raise FileError(f"the built model has no module {path!r}; build= must return the original model") from None
    return model


def _section(body: Mapping[str, Any], name: str) -> Any:
    if not isinstance(body.get(name), dict):
        raise FileError(f"model.json has no {name!r}; save the model again")
    return body[name]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(f"cannot read {str(path)!r} ({error.strerror}); is this a folder that jali wrote?") from None
    except (ValueError, RecursionError) as error:
        raise FileError(
            f"{str(path)!r} is not valid JSON ({error}); it may be truncated: save the model again"
        ) from None
    if not isinstance(body, dict) or body.get("schema") != SCHEMA:
        found = body.get("schema") if isinstance(body, dict) else None
        raise FileError(f"{str(path)!r} has schema {found!r}, this version of jali reads schema {SCHEMA}")
    return body


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_tensors(path.read_bytes())
    except OSError as error:
        raise FileError(f"cannot read {str(path)!r} ({error.strerror})") from None
    except SafetensorError as error:
        raise FileError(f"{str(path)!r} is not a whole safetensors file ({error}); save the model again") from None
