"""The peers of a fast network: the same network as PyTorch, ONNX Runtime and OpenVINO run it, and how they are compared.

Dense float32: ``torch``, ``onnxruntime``, ``openvino``. Lossy, shown beside with their error: ``openvino-bf16`` and
``onnxruntime-int8`` (dynamic quantization). All of them get what :func:`jali.export_onnx` wrote, or the PyTorch module
itself, the settings for latency that they document, and the same number of threads.
"""

from __future__ import annotations

import gc
import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from jali.inference.accelerate import SPIN
from jali.inference.onnx_export import export_onnx

DENSE = ("torch", "onnxruntime", "openvino")
LOSSY = ("openvino-bf16", "onnxruntime-int8")
LONG = 0.02  # seconds; a longer call needs no untimed one before it to warm the caches


@dataclass(frozen=True)
class Contestant:
    """``call`` runs a network once on the input of the comparison and returns its (first) output."""

    name: str
    call: Callable[[], Any]
    error: float  # largest absolute difference from PyTorch


def installed() -> tuple[str, ...]:
    """The peers that this machine can run, of :data:`DENSE` and :data:`LOSSY`; the extra ``jali[bench]`` has all."""
    exports = all(find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))
    there = {"torch": True, "onnxruntime": exports, "openvino": exports and find_spec("openvino") is not None}
    return tuple(name for name in (*DENSE, *LOSSY) if there[name.split("-")[0]])


def peers(model: nn.Module, x: Tensor, threads: int, names: Sequence[str] = (*DENSE, *LOSSY)) -> list[Contestant]:
    """The peers of these names, ready to be called on ``x``, the one argument of ``model``; "torch" is always there.

    The number of threads of torch is the caller's to set. A peer that cannot run the model is an error, not left out.
    """
    calls = {"torch": torch_call(model, x)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        if set(names) != {"torch"}:
            export_onnx(model, path, x)
        for name in names:
            if name == "onnxruntime":
                calls[name] = onnxruntime_call(path, x, threads)
            elif name == "onnxruntime-int8":
                calls[name] = onnxruntime_call(_quantized(path), x, threads)
            elif name != "torch":
                calls[name] = openvino_call(path, x, threads, "bf16" if name == "openvino-bf16" else "f32")
    want = calls["torch"]()
    return [Contestant(name, call, max_error(call(), want)) for name, call in calls.items()]


def max_error(got: Any, want: Any) -> float:
    """Largest absolute difference of two outputs, tensors or arrays."""
    return float(np.abs(np.asarray(got, dtype=np.float64) - np.asarray(want, dtype=np.float64)).max())


def torch_call(model: nn.Module, x: Tensor) -> Callable[[], Any]:
    """A call of the model in evaluation mode; of several outputs the first."""
    model.eval()

    def call() -> Any:
        if not torch.is_inference_mode_enabled():
            with torch.inference_mode():
                return call()
        out = model(x)
        return out if isinstance(out, Tensor) else out[0]

    return call


def onnxruntime_call(path: Path, x: Tensor, threads: int) -> Callable[[], Any]:
    """A call of the exported model in ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # The pool may spin while it works, and must not while the next contestant does.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed, wanted = {session.get_inputs()[0].name: x.numpy()}, [session.get_outputs()[0].name]
    return lambda: session.run(wanted, feed)[0]


def openvino_call(path: Path, x: Tensor, threads: int, precision: str) -> Callable[[], Any]:
    """A call of the exported model in OpenVINO; ``precision``: "f32" or "bf16"."""
    import openvino

    model = openvino.Core().read_model(str(path))
    model.reshape({model.inputs[0]: openvino.PartialShape(list(x.shape))})  # fixed sizes are its faster case
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
    }
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    request.set_input_tensor(openvino.Tensor(x.numpy(), shared_memory=True))

    def call() -> np.ndarray:
        request.infer()
        return request.get_output_tensor(0).data

    return call


def _quantized(path: Path) -> Path:
    """The model with int8 weights, activations quantized at every call."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model, target = onnx.load(path), path.with_suffix(".int8.onnx")
    del model.graph.value_info[:]  # the quantizer transposes weights and would trip over the shapes noted before
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it recommends a preparation that does nothing for recurrent operators
    try:
        quantize_dynamic(model, str(target), weight_type=QuantType.QInt8)
    finally:
        logging.disable(disabled)
    return target


def interleaved(contestants: Sequence[Contestant], seconds: float, rounds: tuple[int, int]) -> dict[str, list[float]]:
    """Seconds of every call of each contestant; they take turns, and each round begins with another one.

    ``rounds``: at least and at most so many; in between, until ``seconds`` have passed. All is done in PyTorch's inference
    mode, which a server enters once and not for every call. On several threads each waits until those of the one before, which
    spin a while after their work, have stopped.
    """
    times: dict[str, list[float]] = {each.name: [] for each in contestants}
    begin, done = time.perf_counter(), 0
    gc.collect()
    gc.disable()
    try:
        with torch.inference_mode():
            while done < rounds[0] or (done < rounds[1] and time.perf_counter() - begin < seconds):
                for k in range(len(contestants)):
                    each = contestants[(k + done) % len(contestants)]
                    if torch.get_num_threads() > 1:
                        time.sleep(SPIN)
                    if not times[each.name] or times[each.name][-1] < LONG:
                        each.call()  # the ones before have filled the caches with their weights
                    start = time.perf_counter()
                    each.call()
                    times[each.name].append(time.perf_counter() - start)
                done += 1
    finally:
        gc.enable()
    return times


def quartiles(times: Sequence[float]) -> dict[str, float]:
    """``median``, ``low`` and ``high`` quartile of the seconds, and the number of ``calls``."""
    low, median, high = np.percentile(times, (25, 50, 75))
    return {"median": float(median), "low": float(low), "high": float(high), "calls": len(times)}
