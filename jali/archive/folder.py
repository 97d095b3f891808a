"""Save a model to a folder and load it again: safetensors and JSON, never code.

``model.safetensors``  parameters and buffers (those with many zeros by their nonzero values, those with several names
                       once), and in its metadata, as JSON, the forward pass as a graph of known operations, or, where it
                       cannot be stored as data, the description of the cut layers (then the caller's own code builds the
                       rest). One file, so that weights and shapes cannot come apart.
``plan.json``          the plan, if one was given
"""

from __future__ import annotations

import json
import logging
import os
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from jali.archive import checksum
from jali.archive.graph import StoredModel, replaced_modules, to_data
from jali.archive.sparse import packed, unpacked
from jali.archive.specs import NotStorable, construct, describe
from jali.archive.ties import tie, ties_of, with_missing_ties, with_tied
from jali.batches import Batch, example, run, tensors_in
from jali.copies import copy_of
from jali.errors import FileError, ModelError
from jali.files import atomic_write
from jali.flow.trace import symbolic_graph
from jali.inference.fast_layers import FastLayers
from jali.inference.fast_linear import FastLinear
from jali.plain import parse_json
from jali.plans import Plan
from jali.site import kind_of
from jali.surgery.replace import OPAQUE

SCHEMA, FILE, KEY = 1, "model.safetensors", "jali"
_log = logging.getLogger("jali")
LEAVES = (*OPAQUE, FastLayers, FastLinear)  # stored whole: tracing does not look into them


def save(
    model: nn.Module, folder: str | os.PathLike[str], *, plan: Plan | None = None, example_inputs: Any = None
) -> bool:
    """Write ``model`` to ``folder``, or to one file ``….safetensors``, so that :func:`load` can rebuild it.

    Returns whether it can be rebuilt from what is written alone, which needs ``example_inputs`` and a forward pass that
    torch.fx can trace, that uses known operations only and that, rebuilt, gives the same outputs on ``example_inputs``;
    otherwise ``load`` needs ``build``, and a warning says why. Raises :class:`DataError` for ``example_inputs`` that the model
    cannot run on, :class:`FileError` if the folder cannot be written, and :class:`ModelError`
    for modules with forward hooks, which no file can hold (those of :func:`jali.mask` too: save the compacted model).
    """
    path = _file(folder)
    if isinstance(model, StoredModel):
        raise ModelError("a loaded model is saved already; copy its folder, or save the model it was made from")
    tensors = {name: t.detach().cpu().contiguous().clone() for name, t in model.state_dict().items()}
    body = _body(model, tensors, example_inputs)
    used = list(tensors if body["kind"] == "modules" else _stored(body, tensors).state_dict())
    ties = ties_of(model, used)
    small, shapes = packed({name: tensors[name] for name in used if name not in ties})
    head = {"schema": SCHEMA, **body, "sparse": shapes, "ties": ties}
    text = json.dumps(head, allow_nan=False)
    atomic_write(path, save_tensors(small, {KEY: text, checksum.KEY: checksum.checksum(text, small)}))
    if plan is not None:
        plan.save(path.with_name("plan.json"))
    if body["kind"] == "modules":
        _log.warning("%s can be loaded with build= only: %s", path, body["reason"])
    return body["kind"] != "modules"


@torch.inference_mode(False)  # what is loaded may be changed in it, and accelerated layers must see that
def load(folder: str | os.PathLike[str], build: Callable[[], nn.Module] | None = None) -> nn.Module:
    """Rebuild what :func:`save` wrote to a folder or file, on the CPU and in evaluation mode. No code from it is run.

    ``build``: a callable that returns the *original*, unpruned model; only needed where ``save`` returned False.
    Parameters that were tied (one parameter under several names) are tied again.
    Raises :class:`FileError` for a missing, truncated, altered or foreign file.
    """
    path = _file(folder)
    stored, metadata = _read_tensors(path)
    body = _read_body(path, metadata)
    try:
        tensors = unpacked(stored, body.get("sparse", {}))
        ties = body.get("ties", {})
        named = with_tied(tensors, ties)
        # What is stored, and not under how many names, limits what the description may allocate.
        model = _rebuilt(body, build, tensors) if body.get("kind") == "modules" else _stored(body, tensors)
        _filled(model, named)
        tie(model, ties)
        return model
    except FileError as error:
        raise FileError(f"{str(path)!r}: {error}") from None


def load_weights(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Load a safetensors ``state_dict`` into ``model``, in place; :class:`FileError` if it is damaged or does not fit.

    Of parameters that are tied in ``model`` the file may hold one only.
    """
    tensors, _ = _read_tensors(Path(path))
    try:
        model.load_state_dict(with_missing_ties(model, tensors))
    except RuntimeError as error:
        lines = textwrap.shorten(str(error), 300, placeholder=" …")  # on one line, cut between words
        raise FileError(f"the weights in {str(path)!r} do not fit {type(model).__name__}: {lines}") from None


def _file(place: str | os.PathLike[str]) -> Path:
    return Path(place) if Path(place).suffix == ".safetensors" else Path(place) / FILE


def _stored(body: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
    """The model that ``body`` describes, its parameters still on the meta device."""
    limit = sum(tensor.numel() for tensor in tensors.values())
    if body.get("kind") == "graph":
        return StoredModel(_section(body, "graph"), limit)
    if body.get("kind") == "layer":
        return construct(_section(body, "layer"), limit)
    raise FileError(f"it holds a model of kind {body.get('kind')!r}, which is unknown")


def _filled(model: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """``model`` with the stored ``tensors`` as its parameters and buffers, in evaluation mode."""
    for name, buffer in model.named_buffers():
        given = tensors.get(name)
        if given is not None and not buffer.is_meta and not buffer.is_floating_point() and not _equal(buffer, given):
            raise FileError(f"the stored buffer {name!r} contradicts the stored shapes; save the model again")
    try:
        model.load_state_dict(tensors, strict=True, assign=True)
    except RuntimeError as error:
        lines = " ".join(str(error).split())
        raise FileError(f"the weights do not fit the stored model: {lines[:300]}") from None
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            module.flatten_parameters()
    return model.eval()


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a.cpu(), b)


def _body(model: nn.Module, tensors: Mapping[str, Tensor], example_inputs: Any) -> dict[str, Any]:
    reason, batch = "no example inputs were given", None
    if example_inputs is not None:
        batch = example(example_inputs)
        with torch.no_grad():  # what does not fit is the caller's to know now, and not that of who loads
            run(copy_of(model).eval(), batch)
    if kind_of(model) is not None or isinstance(model, LEAVES):
        return {"kind": "layer", "layer": describe(model)}
    if batch is not None:
        try:
            graph = symbolic_graph(copy_of(model), batch.args, dict(batch.kwargs), LEAVES)
            body = {"kind": "graph", "graph": to_data(model, graph)}
            if _same_outputs(model, _stored(body, tensors), tensors, batch):
                return body
            reason = (
                "rebuilt from the folder it gives other outputs than the model: its class does more than its modules"
            )
        except NotStorable as error:
            reason = str(error)
        except Exception as error:  # torch.fx runs the user's forward on proxies: anything can come out of it
            reason = f"torch.fx cannot trace it ({type(error).__name__}: {error})"
    paths = [path for path, module in model.named_modules() if isinstance(module, LEAVES) or kind_of(module)]
    outer = [path for path in paths if not any(path.startswith(f"{other}.") for other in paths)]
    return {"kind": "modules", "modules": replaced_modules(outer, model), "reason": reason}


def _same_outputs(model: nn.Module, stored: nn.Module, tensors: Mapping[str, Tensor], batch: Batch) -> bool:
    """Whether the rebuilt model computes what ``model`` computes in evaluation mode, bit for bit, on the CPU."""
    own = {name: tensors[name] for name in stored.state_dict()}
    rebuilt, original = _filled(stored, own), copy_of(model).cpu().eval()
    with torch.no_grad():
        want, got = run(original, batch), run(rebuilt, batch)
    pairs = list(zip(tensors_in(want), tensors_in(got), strict=True))
    return all(a.shape == b.shape and torch.equal(a, b) for a, b in pairs)


def _rebuilt(
    body: Mapping[str, Any], build: Callable[[], nn.Module] | None, tensors: Mapping[str, Tensor]
) -> nn.Module:
    if build is None:
        raise FileError(
            f"the forward pass is not stored ({body.get('reason')}); pass build=, a callable that returns the original model"
        )
    model = build()
    limit = sum(tensor.numel() for tensor in tensors.values())
    for path, spec in _section(body, "modules").items():
        try:
            old = model.get_submodule(path)
        except AttributeError:
            raise FileError(f"the built model has no module {path!r}; build= must return the original model") from None
        new = construct(spec, limit)
        for name, module in list(model.named_modules(remove_duplicate=False)):
            if module is old:  # under every name that it has
                parent, _, leaf = name.rpartition(".")
                setattr(model.get_submodule(parent), leaf, new)
    return model


def _section(body: Mapping[str, Any], name: str) -> Any:
    if not isinstance(body.get(name), dict):
        raise FileError(f"it has no {name!r}; save the model again")
    return body[name]


def _read_body(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    if KEY not in metadata:
        raise FileError(
            f"{str(path)!r} holds weights only, no model that jali saved; use your own class and its weights"
        )
    try:
        body = parse_json(metadata[KEY])
    except ValueError as error:
        raise FileError(f"{str(path)!r} has damaged metadata ({error}); save the model again") from None
    if not isinstance(body, dict) or body.get("schema") != SCHEMA:
        found = body.get("schema") if isinstance(body, dict) else None
        raise FileError(f"{str(path)!r} has schema {found!r}, this version of jali reads schema {SCHEMA}")
    return body


def _read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            # Copies: the file's own memory is not aligned, and kernels round differently on unaligned weights.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except OSError as error:
        reason = error.strerror or "no such file"
        if path.parent.is_file():  # a folder was wanted, and the system would call this "no such file"
            raise FileError(
                f"{str(path.parent)!r} is a file that jali.save did not name; "
                "give a .safetensors file, or the folder that holds one"
            ) from None
        raise FileError(f"cannot read {str(path)!r} ({reason}); give a folder or file that exists") from None
    except SafetensorError as error:
        raise FileError(
            f"{str(path)!r} is not a whole safetensors file ({error}); write it again, a state_dict with "
            "safetensors.torch.save_file and a model with jali.save"
        ) from None
    if KEY in metadata:  # a model, and no mere weights
        checksum.check(path, metadata[KEY], tensors, metadata)
    return tensors, metadata
