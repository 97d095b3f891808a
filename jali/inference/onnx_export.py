"""Export a model to ONNX, with batch and time left open, and prove the file against PyTorch before it is kept."""

from __future__ import annotations

import contextlib
import copy
import inspect
import io
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from jali.batches import Batch, example, run, tensors_in
from jali.errors import DataError, ModelError
from jali.files import atomic_write
from jali.inference.fast_layers import with_plain_layers
from jali.inference.onnx_layers import OnnxLayers
from jali.site import kind_of
from jali.widths import UnevenLayers

TOLERANCE = 1e-5


@dataclass(frozen=True)
class OnnxExport:
    """What was written: the file, its inputs with sizes (text where open), and how well it agrees with PyTorch.

    ``error``: largest absolute difference over all outputs and over ``calls`` calls of different sizes, relative to the
    largest output where that is above 1.
    """

    path: Path
    inputs: Mapping[str, tuple[int | str, ...]]
    error: float
    calls: int

    def __str__(self) -> str:
        sizes = "; ".join(f"{name} ({', '.join(map(str, size))})" for name, size in self.inputs.items())
        return f"{self.path}: {sizes}; differs from PyTorch by {self.error:.1e} at most, in {self.calls} calls"


def export_onnx(model: nn.Module, path: str | os.PathLike[str], example_inputs: Any) -> OnnxExport:
    """Write ``model`` in evaluation mode as ONNX and verify the file in ONNX Runtime against PyTorch.

    ``example_inputs``: what ``model`` is called with: a tensor, a tuple of arguments, or a dict. The sizes of every
    input stay open (batch, and time wherever it stands), unless the model fixes or loops over them; the result says which.
    Every recurrent layer, also bidirectional, stacked, projected, compacted, or of unequal widths, becomes single ONNX
    operators; networks of :mod:`jali.models` are written out step by step, for as many steps as the example has. The file
    is run on the example and on inputs of other sizes, and is only written if it agrees to 1e-5 of the largest output (or
    absolutely, below 1).

    Raises :class:`ModelError` for packed input, parameters that are not float32, or a model that ``torch.export`` cannot
    trace or that does not agree; :class:`DataError` for inputs that do not fit; :class:`FileError` if the file cannot be
    written. Needs the extra ``jali[onnx]``.
    """
    _require_runtime()
    batch, original = example(example_inputs), with_plain_layers(copy.deepcopy(model)).cpu().eval()
    if any(isinstance(value, PackedSequence) for value in (*batch.args, *batch.kwargs.values())):
        raise ModelError("ONNX has no packed sequences; export the model with padded input")
    others = {str(p.dtype) for p in original.parameters() if p.is_floating_point()} - {"torch.float32"}
    if others:
        raise ModelError(
            f"the model has parameters of {', '.join(sorted(others))}, and ONNX Runtime's recurrent operators take float32 "
            "only; export model.float()"
        )
    batch = batch.to(torch.device("cpu"))
    with torch.no_grad():
        run(original, batch)  # inputs that do not fit are the caller's mistake, and said so
    content, inputs = _exported(original, batch)
    error, calls = _verified(original, content, inputs, batch)
    return OnnxExport(atomic_write(path, content), inputs, error, calls)


def _require_runtime() -> None:
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ModelError(f"exporting needs {error.name}; install jali[onnx]") from None


def with_onnx_layers(model: nn.Module) -> nn.Module:
    """A copy of ``model`` in which every recurrent layer is a single ONNX operator per layer and direction."""
    if _recurrent(model):
        return OnnxLayers(model)  # type: ignore[arg-type]
    replaced = copy.deepcopy(model)
    for name, module in list(model.named_modules(remove_duplicate=False)):
        inside = any(name.startswith(f"{other}.") for other, m in model.named_modules() if other and _recurrent(m))
        if _recurrent(module) and not inside:
            parent, _, leaf = name.rpartition(".")
            setattr(replaced.get_submodule(parent), leaf, OnnxLayers(module))
    return replaced.eval()


def _recurrent(module: nn.Module) -> bool:
    return isinstance(module, UnevenLayers) or (isinstance(module, nn.RNNBase) and kind_of(module) is not None)


def _exported(model: nn.Module, batch: Batch) -> tuple[bytes, dict[str, tuple[int | str, ...]]]:
    """The ONNX file and the sizes of its inputs."""

    def sizes(leaf: Any) -> Any:
        return dict.fromkeys(range(leaf.dim()), torch.export.Dim.AUTO) if isinstance(leaf, Tensor) else None

    open_sizes = batch.map_inputs(sizes)
    shapes = {**dict(zip(_names(model, batch), open_sizes.args, strict=False)), **open_sizes.kwargs}
    try:
        with _quiet():
            program = torch.onnx.export(
                with_onnx_layers(model), batch.args, kwargs=dict(batch.kwargs), dynamo=True, dynamic_shapes=shapes,
                verbose=False,
            )  # fmt: skip
    except Exception as error:  # the exporter runs the user's forward: anything can come out of it
        raise ModelError(
            f"torch.onnx cannot export {type(model).__name__} ({_first_line(error.__cause__ or error)}); make its forward "
            "pass free of control flow that depends on the data"
        ) from error
    if program is None:
        raise ModelError(f"torch.onnx exported nothing for {type(model).__name__}")
    inputs = _sizes(program)
    for symbol in {size for shape in inputs.values() for size in shape if isinstance(size, str)}:
        if not _is_open(model, program, batch, symbol):
            _fix(program, symbol, batch)
    return _bytes(program), _sizes(program)


def _bytes(program: Any) -> bytes:
    buffer = io.BytesIO()
    program.save(buffer)
    return buffer.getvalue()


def _is_open(model: nn.Module, program: Any, batch: Batch, symbol: str) -> bool:
    """Whether model and file agree when one size changes; not so for the number of layers of an initial state, or for the
    number of steps where the model's own code loops over them."""
    resized = _resized(batch, list(_sizes(program).values()), {symbol: 3})
    try:
        with torch.no_grad():
            want = tensors_in(run(model, resized))
        _difference(_session(_bytes(program)), resized, want)
    except (DataError, ModelError):
        return False
    return True


def _sizes(program: Any) -> dict[str, tuple[int | str, ...]]:
    inputs = program.model.graph.inputs
    return {value.name: tuple(size if isinstance(size, int) else str(size) for size in value.shape) for value in inputs}


def _fix(program: Any, symbol: str, batch: Batch) -> None:
    """Replace an open size of the inputs by that of the example."""
    tensors = tensors_in((batch.args, dict(batch.kwargs)))
    for value, tensor in zip(program.model.graph.inputs, tensors, strict=True):
        for axis, size in enumerate(value.shape):
            if str(size) == symbol:
                value.shape[axis] = tensor.shape[axis]


def _names(model: nn.Module, batch: Batch) -> Sequence[str]:
    return list(inspect.signature(model.forward).parameters)[: len(batch.args)]


def _verified(
    model: nn.Module, content: bytes, inputs: Mapping[str, tuple[int | str, ...]], batch: Batch
) -> tuple[float, int]:
    """Largest relative difference to ``model``, and the number of calls: the example, larger sizes, and sizes of one."""
    session = _session(content)
    symbols = {size for shape in inputs.values() for size in shape if isinstance(size, str)}
    smallest = {symbol: 1 - size for symbol, size in _current(inputs, batch).items()}
    worst, calls = 0.0, 0
    for change in ({}, dict.fromkeys(symbols, 3), smallest) if symbols else ({},):
        resized = _resized(batch, list(inputs.values()), change)
        try:
            with torch.no_grad():
                want = tensors_in(run(model, resized))
        except DataError:  # the model itself does not take these sizes
            continue
        worst, calls = max(worst, _difference(session, resized, want)), calls + 1
    return worst, calls


def _session(content: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base class
        raise ModelError(f"ONNX Runtime cannot load the exported model ({_first_line(error)})") from error


def _current(inputs: Mapping[str, tuple[int | str, ...]], batch: Batch) -> dict[str, int]:
    """Open size → its value in the example."""
    tensors = tensors_in((batch.args, dict(batch.kwargs)))
    pairs = zip(inputs.values(), tensors, strict=True)
    return {size: tensor.shape[k] for shape, tensor in pairs for k, size in enumerate(shape) if isinstance(size, str)}


def _resized(batch: Batch, shapes: Sequence[tuple[int | str, ...]], change: Mapping[str, int]) -> Batch:
    """The example with ``change`` added to its open sizes; rows are repeated, in another order."""
    waiting = iter(shapes)

    def resized(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            for dim, size in enumerate(next(waiting)):
                if size in change:
                    order = torch.arange(leaf.shape[dim] + change[size]).flip(0) % leaf.shape[dim]  # type: ignore[index]
                    leaf = leaf.index_select(dim, order)
        return leaf

    return batch.map_inputs(resized)


def _difference(session: Any, batch: Batch, want: Sequence[Tensor]) -> float:
    given = tensors_in((batch.args, dict(batch.kwargs)))
    feed = {slot.name: tensor.numpy() for slot, tensor in zip(session.get_inputs(), given, strict=True)}
    try:
        got = session.run(None, feed)
    except Exception as error:
        shapes = [tuple(tensor.shape) for tensor in given]
        raise ModelError(f"ONNX Runtime cannot run the exported model on {shapes} ({_first_line(error)})") from error
    if len(got) != len(want):
        raise ModelError(f"the exported model gives {len(got)} outputs, the model {len(want)}; return tensors only")
    worst = 0.0
    for value, tensor in zip(got, want, strict=True):
        reference = tensor.numpy()
        if value.shape != reference.shape:
            raise ModelError(f"the exported model gives an output of shape {value.shape}, the model {reference.shape}")
        scale = max(1.0, float(np.abs(reference).max(initial=0.0)))
        apart = float(np.abs(value.astype(np.float64) - reference).max(initial=0.0)) / scale
        if not apart <= TOLERANCE:
            raise ModelError(
                f"the exported model differs from PyTorch by {apart:.2g}, over {TOLERANCE:g}; nothing was written"
            )
        worst = max(worst, apart)
    return worst


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on parts that are not there (torchvision) or not ours to change."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
