"""Calibration data in the forms that people have it: a tensor, an iterable of batches, a DataLoader."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from jali.errors import DataError, JaliError
from jali.plain import an

_log = logging.getLogger("jali")


@dataclass(frozen=True)
class Batch:
    """One call of the model: positional and keyword arguments, and the target if the data has one."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    target: Any = None

    def to(self, device: torch.device) -> Batch:
        """The batch with every tensor on ``device``."""

        def moved(leaf: Any) -> Any:
            return leaf.to(device) if isinstance(leaf, Tensor | PackedSequence) else leaf  # type: ignore[arg-type]

        return Batch(*(map_leaves(moved, part) for part in (self.args, dict(self.kwargs), self.target)))

    def map_inputs(self, function: Callable[[Any], Any]) -> Batch:
        """The batch with every leaf of its inputs replaced (:func:`map_leaves`), and no target."""
        return Batch(map_leaves(function, self.args), map_leaves(function, dict(self.kwargs)))


def batches(data: Any) -> list[Batch]:
    """Read ``data`` once and return its batches; all of them are held in memory, so pass as many as calibration needs.

    A tensor (or PackedSequence) is one batch. An iterable gives batches, each of which is a tensor, a dict of keyword
    arguments, or a pair ``(inputs, target)`` whose inputs are a tensor, a tuple of arguments or a dict.
    Raises :class:`DataError` if there is none, for anything else, and for a bare tuple of two tensors, which may be meant
    as one pair or as two batches; also if reading an iterable raises, with the cause.
    """
    if isinstance(data, Tensor | PackedSequence):
        items: list[Any] = [(data, None)]
    elif isinstance(data, Batch):
        items = [data]
    elif isinstance(data, str | bytes | Mapping) or not isinstance(data, Iterable):
        raise DataError(f"data is {an(type(data).__name__)}; give a tensor, an iterable of batches or a DataLoader")
    elif isinstance(data, tuple) and len(data) == 2 and all(isinstance(part, Tensor | PackedSequence) for part in data):
        raise DataError(
            "data is a tuple of two tensors; give [(x, y)] for one batch with its target, [a, b] for two batches"
        )
    else:
        items = _read(data)
    if not items:
        raise DataError("data has no batch; give at least one (a generator that was used before is empty)")
    result = [item if isinstance(item, Batch) else _batch(item) for item in items]
    for k, batch in enumerate(result):
        for tensor in tensors_in((batch.args, dict(batch.kwargs))):
            if tensor.numel() == 0:
                raise DataError(
                    f"batch {k} has an empty tensor of shape {tuple(tensor.shape)}; give at least one sample"
                )
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise DataError(f"batch {k} has NaN or infinite values; clean the data before calibrating")
    _warn_of_constants(result)
    return result


def _warn_of_constants(items: Sequence[Batch]) -> None:
    tensors = [t for batch in items for t in tensors_in((batch.args, dict(batch.kwargs))) if t.is_floating_point()]
    if any(t.numel() > 1 for t in tensors) and min(t.min() for t in tensors) == max(t.max() for t in tensors):
        _log.warning(
            "every number of the calibration data is %g: what is measured or repaired on them holds for no other inputs; give "
            "typical ones",
            float(tensors[0].min()),
        )


def example(inputs: Any) -> Batch:
    """``example_inputs``: a tensor, a tuple of arguments or a dict of keyword arguments; else :class:`DataError`."""
    if isinstance(inputs, Batch):
        return inputs
    if not isinstance(inputs, Tensor | PackedSequence | Mapping | tuple | list):
        raise DataError(
            f"the example inputs are {an(type(inputs).__name__)}; give a tensor, a tuple of arguments, or a dict of them by name"
        )
    return _batch((inputs, None))


def run(model: nn.Module, batch: Batch) -> Any:
    """``model`` on one batch, on the model's device; a shape that does not fit is a :class:`DataError`."""
    moved = batch.to(device_of(model))
    try:
        return model(*moved.args, **moved.kwargs)
    except Exception as error:  # the forward pass is the caller's: anything can come out of it
        shapes = [tuple(tensor.shape) for tensor in tensors_in((batch.args, dict(batch.kwargs)))]
        message = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        hint = ""
        if isinstance(error, TypeError) and batch.target is not None and len(batch.args) == 1:
            hint = "; of a batch (a, b) the second is the target: give ((a, b), target) if the model takes both"
        raise DataError(f"{type(model).__name__} cannot run on inputs of shape {shapes}: {message}{hint}") from error


def device_of(model: nn.Module) -> torch.device:
    """Where the parameters of ``model`` are; the CPU if it has none."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def tensors_in(value: Any) -> list[Tensor]:
    """Every tensor inside nested tuples, lists, dicts, dataclasses and packed sequences."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, PackedSequence):
        return [value.data]
    if isinstance(value, Mapping):
        value = list(value.values())
    elif is_dataclass(value):
        value = [getattr(value, part.name) for part in fields(value)]
    if isinstance(value, tuple | list):
        return [tensor for item in value for tensor in tensors_in(item)]
    return []


def _read(data: Iterable[Any]) -> list[Any]:
    items: list[Any] = []
    try:
        for item in data:  # not by list(): the message counts those that came
            items.append(item)  # noqa: PERF402
    except JaliError:
        raise
    except Exception as error:  # the iterable is the caller's, and runs the caller's code
        raise DataError(
            f"reading the {type(data).__name__} raised {_cause(error)} at batch {len(items)}; mend what it reads"
        ) from error
    return items


def _cause(error: BaseException) -> str:
    """One line: the type and the message of an error; of a traceback that a DataLoader's worker sent, its last line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and any(line.startswith("Original Traceback") for line in lines):
        return f"{lines[-1]} (in a worker process)"
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _batch(item: Any) -> Batch:
    if isinstance(item, Tensor | PackedSequence):
        return Batch((item,))
    if isinstance(item, Mapping):
        return Batch((), dict(item))
    if isinstance(item, tuple | list) and len(item) == 2:
        inputs, target = item
        if isinstance(inputs, Tensor | PackedSequence):
            return Batch((inputs,), target=target)
        if isinstance(inputs, Mapping):
            return Batch((), dict(inputs), target)
        if isinstance(inputs, tuple | list):
            return Batch(tuple(inputs), target=target)
    if isinstance(item, tuple | list) and len(item) == 1:
        return _batch(item[0])
    raise DataError(
        f"a batch is {an(type(item).__name__)}"
        + (f" of {len(item)} items" if isinstance(item, tuple | list) else "")
        + "; give a tensor, a dict of keyword arguments, or (inputs, target) with inputs a tensor, tuple or dict"
    )


def map_leaves(function: Callable[[Any], Any], value: Any) -> Any:
    """``value`` with every leaf of its nested tuples, lists and mappings replaced by ``function(leaf)``.

    A leaf is whatever is none of these: a tensor, a PackedSequence, a number, None. Named tuples keep their type, mappings
    become dicts.
    """
    if isinstance(value, Mapping):
        return {key: map_leaves(function, item) for key, item in value.items()}
    if isinstance(value, tuple | list) and not isinstance(value, PackedSequence):
        items = [map_leaves(function, item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return function(value)
