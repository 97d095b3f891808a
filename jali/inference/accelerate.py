"""``jali.accelerate``: the same model for inference, every recurrent layer on the kernel that is fastest for it."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from jali.batches import example, run, tensors_in
from jali.block_layers import BlockLayer
from jali.capture import inputs_of
from jali.errors import JaliError, ModelError
from jali.inference.choice import ENGINES, Choice
from jali.inference.fast_layers import FastLayers, with_plain_layers
from jali.inference.fast_linear import quicken
from jali.plain import an
from jali.site import kind_of
from jali.surgery.replace import replaced
from jali.view import check_parameters
from jali.wired import WiredLayers

ROUNDS = (3, 7, 15)  # of timing: at least; enough, if one engine is clearly the best; at most
PATIENCE = (0.5, 2.0)  # seconds after which rounds are enough, or at most, once there are the least
MARGIN = 0.95  # of PyTorch's time: a kernel that takes more is no clear gain, and noise may have made it the faster one
DOUBT = 0.1  # relative distance from the margin up to which more rounds are made
STEPS = 100  # of the sequences that are timed, at most
SPIN = 0.02  # seconds; PyTorch's threads spin for 10 ms after their work, and whoever runs beside them is slowed down
TOLERANCE = 1e-4  # relative; more than rounding can explain


def accelerate(
    model: nn.Module, example_inputs: Any, *, engine: str | None = None, batch_sizes: Sequence[int] | None = None
) -> nn.Module:
    """A copy of ``model`` for inference on the CPU in which every ``nn.LSTM``, ``nn.GRU`` and ``nn.RNN`` runs at its fastest.

    Each layer is timed on the spot, with PyTorch's own kernel ("torch") and with ours ("kernels"), at ``batch_sizes`` (by
    default that of ``example_inputs``) and with PyTorch's current number of threads. The faster is taken, but PyTorch's own
    if ours is not faster by 5 %; a run on another number of sequences takes the choice for the nearest size. ``engine``
    names one and skips the timing. ``print`` of the result says what was chosen, why, and how many bytes of weights a step
    reads: "tiles" reads blocks of units that share their columns and what is dense, "lanes" weights without a pattern and
    ``n:m``, "aligned" gates that share their columns, "rows" any of them for many sequences at once; the first word is for
    the input weights, the second for the recurrent ones.

    Zeros in the weights are skipped: for finite inputs the outputs differ from PyTorch's by rounding only, and a NaN or
    infinity at an input that no weight reads does not come through, as 0 · NaN is not computed. Our kernels share sequences
    out to threads from 8 sequences on and run fewer on one thread; PyTorch's use several then, too, and are in the
    comparison as they are. They are compiled when they are first needed (a few seconds) and kept in numba's cache
    (``NUMBA_CACHE_DIR``).

    Layers that no kernel fits (projections, other types than float32, weights on a GPU), cells and networks of
    :mod:`jali.models` stay with PyTorch: on a GPU a compacted layer runs on cuDNN. Inputs of other types, and calls that
    are traced (``torch.jit.trace``, ``torch.compile``, ``torch.export``), run on PyTorch's layer as well. An ``nn.Linear``
    computes what it did, with a cheaper call. The parameters keep their names, so ``state_dict`` fits the model and the
    copy; the copy cannot be trained. Weights may be changed under ``torch.no_grad()``; PyTorch does not count changes
    through ``.data``, so that they cannot be seen.

    Raises :class:`ModelError` for a model in training mode, without recurrent layers, or with weights that are computed
    from others, :class:`DataError` for inputs that do not fit.
    """
    if engine is not None and engine not in ENGINES:
        raise ModelError(f"engine {engine!r} is unknown; it is one of {', '.join(ENGINES)}, or None to measure")
    if batch_sizes is not None and not _whole_numbers(batch_sizes):
        raise ModelError(f"batch_sizes={batch_sizes!r} is not a list of whole numbers from 1; give e.g. [1, 64]")
    if model.training:
        raise ModelError("the model is in training mode; call model.eval() first")
    with torch.inference_mode(False):  # of tensors that are made in it no one sees that they have changed
        fast = with_plain_layers(copy.deepcopy(model))
    paths = [path for path, module in fast.named_modules() if isinstance(module, nn.RNNBase) and kind_of(module)]
    if not paths:
        raise ModelError(
            f"{type(model).__name__} has no nn.LSTM, nn.GRU or nn.RNN with PyTorch's own forward, and only these have kernels"
            + _remedy(fast)
        )
    check_parameters(fast)
    batch = example(example_inputs)
    calls = inputs_of(fast, paths, [batch])
    with torch.no_grad():
        want = run(fast, batch)
    for path in paths:
        layer = fast.get_submodule(path)
        choices = _choices(layer, calls[path], engine, batch_sizes)  # type: ignore[arg-type]
        fast = replaced(fast, fast, path, FastLayers.of(layer, choices))  # type: ignore[arg-type]
    quicken(fast)
    with torch.no_grad():
        _check(want, run(fast, batch))
    return fast


def _whole_numbers(sizes: Any) -> bool:
    """Whether ``sizes`` is a sequence of numbers of sequences."""
    whole = isinstance(sizes, Sequence) and all(
        isinstance(b, int) and not isinstance(b, bool) and b >= 1 for b in sizes
    )
    return whole and len(sizes) > 0


def _remedy(model: nn.Module) -> str:
    """What can be done with the layers that it has."""
    modules = list(model.modules())
    if any(isinstance(module, BlockLayer) for module in modules):
        return "; of a BlockLayer accelerate what it was made from: jali.reorder(..., batched=False), whose zeros are skipped"
    names = sorted({type(module).__name__ for module in modules if isinstance(module, WiredLayers)})
    remedy = f"; make {' and '.join(map(an, names))} smaller with jali.prune, or export it with jali.export_onnx"
    return remedy if names else ""


def _choices(
    layer: nn.RNNBase, calls: Sequence[tuple[Any, ...]], engine: str | None, batch_sizes: Sequence[int] | None
) -> list[Choice]:
    sizes = (
        sorted({_size(layer, call)[0] for call in calls} or {1}) if batch_sizes is None else sorted(set(batch_sizes))
    )
    reason = _unfit(layer)
    if reason:
        return [Choice(sizes[0], "torch", {}, reason)]
    if engine is not None:
        return [Choice(size, engine, {}) for size in sizes]
    steps = min(max((_size(layer, call)[1] for call in calls), default=STEPS), STEPS)
    return [_measured(layer, size, steps) for size in sizes]


def _unfit(layer: nn.RNNBase) -> str:
    """Why no kernel of ours can run the layer; empty if one can."""
    if layer.proj_size:
        return "projections have no kernel"
    if not layer.weight_ih_l0.is_cpu:
        return f"the kernels run on a CPU, the weights are on {layer.weight_ih_l0.device}"
    if layer.weight_ih_l0.dtype != torch.float32:
        return f"the kernels take float32, the weights are {str(layer.weight_ih_l0.dtype).removeprefix('torch.')}"
    return ""


def _size(layer: nn.RNNBase, call: tuple[Any, ...]) -> tuple[int, int]:
    """Sequences and steps of a captured call."""
    args, kwargs = call
    x = args[0] if args else kwargs["input"]
    if isinstance(x, PackedSequence):
        return int(x.batch_sizes[0]), len(x.batch_sizes)
    if x.dim() == 2:
        return 1, len(x)
    return (x.shape[0], x.shape[1]) if layer.batch_first else (x.shape[1], x.shape[0])


def _measured(layer: nn.RNNBase, size: int, steps: int) -> Choice:
    """Both engines on the same random sequences, in turn.

    On one thread each by its least time: other work on the machine only adds to it. On several by the median: how they meet
    differs from call to call, and the call in which they met at once is not what a user sees.
    """
    shape = (size, steps) if layer.batch_first else (steps, size)
    x = torch.randn(
        *shape, layer.input_size, generator=torch.Generator().manual_seed(0), dtype=torch.float32, device="cpu"
    )
    ours = FastLayers.of(layer, [Choice(size, "kernels", {})])
    candidates: dict[str, Callable[[Tensor], Any]] = {"torch": layer, "kernels": ours}
    names, times = list(candidates), {name: list[float]() for name in candidates}
    typical, seconds = (statistics.median if torch.get_num_threads() > 1 else min), dict[str, float]()
    with torch.no_grad():
        for candidate in candidates.values():
            candidate(x)  # packs, compiles, and warms the caches
        began, done = time.perf_counter(), 0
        while not _enough(done, time.perf_counter() - began, seconds):
            for k in range(len(names)):
                name = names[(done + k) % len(names)]
                times[name].append(_seconds(candidates[name], x))
            seconds = {name: typical(times[name]) for name in names}
            done += 1
    return Choice(size, _best(seconds), seconds)


def _seconds(candidate: Callable[[Tensor], Any], x: Tensor) -> float:
    """The time of one call that nobody else's threads disturb."""
    if torch.get_num_threads() > 1:
        time.sleep(SPIN)
        candidate(x)  # its own threads are awake again
    start = time.perf_counter()
    candidate(x)
    return time.perf_counter() - start


def _enough(rounds: int, passed: float, seconds: Mapping[str, float]) -> bool:
    """Whether so many rounds, in so much time, have told which engine is the faster."""
    if rounds < ROUNDS[0] or rounds >= ROUNDS[2] or passed > PATIENCE[1]:
        return rounds >= ROUNDS[0]
    clear = abs(seconds["kernels"] / seconds["torch"] / MARGIN - 1) > DOUBT
    return clear and (rounds >= ROUNDS[1] or passed > PATIENCE[0])


def _best(seconds: Mapping[str, float]) -> str:
    """The faster engine; "torch" if ours is not faster by the margin."""
    return "kernels" if seconds["kernels"] < MARGIN * seconds["torch"] else "torch"


def _check(want: Any, got: Any) -> None:
    """A last look: outputs on the example inputs are the model's own, up to rounding, and finite where they are."""
    for a, b in zip(tensors_in(want), tensors_in(got), strict=True):
        if a.shape == b.shape and (_near(a, b) if a.is_floating_point() or a.is_complex() else torch.equal(a, b)):
            continue
        raise JaliError(
            "the accelerated model does not give the model's outputs on the example inputs; it may depend on chance. "
            "Use engine='torch' for this model"
        )


def _near(want: Tensor, got: Tensor) -> bool:
    """Whether ``got`` is ``want`` up to rounding, where that is finite."""
    finite = want.isfinite()
    if not finite.any():
        return True
    error = (want[finite] - got[finite]).abs().max()  # NaN or infinite if got is
    return float(error) <= TOLERANCE * max(1.0, float(want[finite].abs().max()))
