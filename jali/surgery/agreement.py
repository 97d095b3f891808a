"""Whether a cut model does what the masked one does: both are run on the example inputs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from jali.batches import Batch, run, tensors_in
from jali.copies import copy_of
from jali.errors import DataError
from jali.plain import an

UNCHECKED = "the model returns no tensor on the example inputs, so that nothing shows whether the shrunk model agrees"
# Of float32 outputs, in units of what rounding does to them (see _noise). RNNs, LSTMs and GRUs of 32 to 512 units on 20 to
# 200 steps, with weights up to 8 times their usual size, differed by 0.15 units at most.
MARGIN = 8.0


@torch.no_grad()
def disagreement(masked: nn.Module, compacted: nn.Module, batch: Batch) -> str | None:
    """Why the outputs on the example inputs do not show that both models agree; None if they agree.

    Also at other numbers of sequences and steps, as far as the masked model takes them: where two sizes of the example are
    equal, or one is 1, forward code that mixes them up gives no sign of it. In float64 where the model can run in it.
    Raises :class:`DataError` if the masked model cannot run on the inputs.
    """
    state = torch.random.get_rng_state()
    try:
        why = _difference(state, masked, compacted, batch)
        return why or next(
            filter(None, (_resized_difference(state, masked, compacted, b) for b in _resized(batch))), None
        )
    finally:
        torch.random.set_rng_state(state)


def _resized_difference(state: Tensor, masked: nn.Module, compacted: nn.Module, batch: Batch) -> str | None:
    try:
        why = _difference(state, masked, compacted, batch)
    except DataError:  # the masked model does not take these sizes
        return None
    return None if why in (None, UNCHECKED) else f"{why} at other numbers of sequences or steps"


def _resized(batch: Batch) -> Iterator[Batch]:
    """``batch`` with two (or three, where it has two) entries along what may be its axes of sequences and steps.

    Axes of one size change together: an input has as many sequences as its initial state. A packed sequence has its sizes
    inside, and PyTorch does not notice a state that does not fit it: then nothing is changed.
    """
    if any(isinstance(value, PackedSequence) for value in (*batch.args, *batch.kwargs.values())):
        return
    shapes = [tuple(leaf.shape[:2]) for leaf in tensors_in((batch.args, dict(batch.kwargs)))]
    for size in sorted({n for shape in shapes for n in shape if n}):
        yield batch.map_inputs(partial(_with_size, size, (0, 1)))
        if (size, size) in shapes:
            yield from (batch.map_inputs(partial(_with_size, size, (axis,))) for axis in (0, 1))


def _with_size(size: int, axes: Sequence[int], leaf: Any) -> Any:
    """``leaf`` with another number of entries along those of ``axes`` that have ``size``; new entries are no copies."""
    if not isinstance(leaf, Tensor):
        return leaf
    for axis in axes:
        if axis < leaf.dim() and leaf.shape[axis] == size:
            first = leaf.narrow(axis, 0, min(size, 2))
            more = first.roll(1, 1 - axis) if leaf.dim() > 1 else first
            leaf = torch.cat((first, more), axis).narrow(axis, 0, 3 if size == 2 else 2)
    return leaf


def _difference(state: Tensor, masked: nn.Module, compacted: nn.Module, batch: Batch) -> str | None:
    pair, noise = [copy_of(m).double().eval() for m in (masked, compacted)], None
    try:
        outputs = [_run_from(state, m, _double(batch)) for m in pair]
    except DataError:
        pair = [copy_of(m).eval() for m in (masked, compacted)]
        first = _run_from(state, pair[0], batch)  # the inputs themselves must fit, or the error is the caller's
        try:
            outputs = [first, _run_from(state, pair[1], batch)]
        except DataError as error:
            return _why_it_fails(error, *pair)
        noise = _noise(state, pair[0], batch)
    a, b = (tensors_in(output) for output in outputs)
    if not a and not b:
        return UNCHECKED
    bounds = noise or [0.0] * len(a)
    if len(a) == len(b) == len(bounds) and all(map(_close, a, b, bounds)):
        return None
    return "the shrunk model did not do what the masked one does on the example inputs"


def _why_it_fails(error: DataError, masked: nn.Module, compacted: nn.Module) -> str:
    """The message of a cut model that cannot run; names what the class of a replaced layer had added to it."""
    cause = error.__cause__
    if isinstance(cause, AttributeError) and isinstance(cause.obj, nn.Module):
        path = next((name for name, module in compacted.named_modules() if module is cause.obj), None)
        old = dict(masked.named_modules()).get(path or "")
        if path is not None and type(old) is not type(cause.obj) and hasattr(old, str(cause.name)):
            return (
                f"the forward code uses {cause.name!r} of {path!r}, {an(type(old).__name__)}; its replacement is "
                "made of PyTorch's own layers and has only what they have; move it out of the layer"
            )
    return f"the shrunk model fails on the example inputs ({cause or error})"


def _noise(state: Tensor, model: nn.Module, batch: Batch) -> list[float]:
    """For every output tensor, how far rounding errors move it: the largest change under perturbed weights.

    A sum of n products is off by about eps √n of their size (Higham, Accuracy and Stability of Numerical Algorithms,
    2nd ed., §2.8 and §3.1), as if each weight were off by that. Cut or not, a layer sums the same products in another order.
    """
    perturbed, generator = copy_of(model), torch.Generator().manual_seed(0)
    for parameter in perturbed.parameters():
        if parameter.is_floating_point() and parameter.dim():
            signs = torch.randint(0, 2, parameter.shape, generator=generator).to(parameter) * 2 - 1
            parameter.addcmul_(parameter, signs, value=_eps(parameter) * math.sqrt(parameter.shape[-1]))
    pairs = zip(tensors_in(_run_from(state, model, batch)), tensors_in(_run_from(state, perturbed, batch)), strict=True)
    return [float((a - b).abs().nan_to_num(0.0, 0.0, 0.0).max()) if _measurable(a) else 0.0 for a, b in pairs]


def _eps(a: Tensor) -> float:
    """Distance from 1 to the next number; on a GPU that of TF32, in which PyTorch may multiply float32 there."""
    return 2.0**-10 if a.is_cuda and a.dtype == torch.float32 else torch.finfo(a.dtype).eps


def _measurable(a: Tensor) -> bool:
    return a.is_floating_point() and a.numel() > 0


@torch.no_grad()
def trains(masked: nn.Module, compacted: nn.Module, batch: Batch) -> bool:
    """Whether the cut model also runs in training mode, where the masked one does: tracing saw evaluation mode only.

    It must return tensors of the same shapes and, where without dropout layers no chance is left, of the same values.
    """
    state = torch.random.get_rng_state()
    try:
        want = tensors_in(run(copy_of(masked).train(), batch))
        try:
            got = tensors_in(run(copy_of(compacted).train(), batch))
        except DataError:
            return False
        return [a.shape for a in want] == [b.shape for b in got] and _agree_in_training(masked, compacted, batch)
    except DataError:  # the model itself needs other inputs in training mode, as BatchNorm does
        return True
    finally:
        torch.random.set_rng_state(state)


def _agree_in_training(masked: nn.Module, compacted: nn.Module, batch: Batch) -> bool:
    """Whether the values agree, in float64; True where nothing can be said, as they differ from call to call."""
    twice, cut = [_undropped(masked) for _ in range(2)], _undropped(compacted)
    try:
        want, again, got = (tensors_in(run(model, _double(batch))) for model in (*twice, cut))
    except DataError:  # not in float64
        return True
    return not all(map(torch.equal, want, again)) or all(map(_close, want, got))


def _undropped(model: nn.Module) -> nn.Module:
    """A copy in training mode and float64 whose dropout layers drop nothing."""
    copy = copy_of(model).double().train()
    for module in copy.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):  # of stacked recurrent layers
            module.dropout = 0.0  # type: ignore[assignment]
    return copy


def _run_from(state: Tensor, model: nn.Module, batch: Batch) -> Any:
    """A forward pass that draws random numbers draws the same ones in both models."""
    torch.random.set_rng_state(state)
    return run(model, batch)


def _close(a: Tensor, b: Tensor, noise: float = 0.0) -> bool:
    """Whether two outputs are the same but for rounding; ``noise``: what rounding does to them, see :func:`_noise`."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not a.is_floating_point():
        return bool(torch.equal(a, b))
    if not torch.isfinite(a).all():  # masked logits; NaN where the model itself gives NaN
        finite = torch.isfinite(a)
        same = torch.equal(finite, torch.isfinite(b)) and torch.equal(a[~finite].nan_to_num(), b[~finite].nan_to_num())
        return same and _close(a[finite], b[finite], noise)
    if not a.numel():
        return True
    scale = max(float(a.abs().max()), 1.0)
    double = a.dtype == torch.float64
    tolerance = 1e-9 * scale if double else MARGIN * (noise + _eps(a) * scale)
    return bool((a - b).abs().max() <= tolerance)


def _double(batch: Batch) -> Batch:
    def convert(leaf: Any) -> Any:
        if isinstance(leaf, PackedSequence) or (isinstance(leaf, Tensor) and leaf.is_floating_point()):
            return leaf.double()
        return leaf

    return batch.map_inputs(convert)
