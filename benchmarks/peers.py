"""The peers of the inference benchmark: one recurrent layer as PyTorch, ONNX Runtime and OpenVINO run it.

Dense float32: ``torch``, ``onnxruntime``, ``openvino``. Lossy, shown beside with their error: ``openvino-bf16`` and
``onnxruntime-int8`` (dynamic quantization). All of them get the layer that :func:`jali.export_onnx` wrote, or the PyTorch
module itself, the best settings for latency that they document, and the same number of threads.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import jali

DENSE = ("torch", "onnxruntime", "openvino")
LOSSY = ("openvino-bf16", "onnxruntime-int8")


@dataclass(frozen=True)
class Contestant:
    """``call`` runs the layer once on the input of the benchmark and returns its output, (T, B, H)."""

    name: str
    call: Callable[[], Any]
    error: float  # largest absolute difference from PyTorch


def peers(layer: nn.Module, x: Tensor, threads: int) -> list[Contestant]:
    """Every peer of :data:`DENSE` and :data:`LOSSY`, ready to be called on ``x`` (T, B, I).

    The number of threads of torch is the caller's to set. A peer that cannot run the layer is an error, not left out.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layer.onnx"
        jali.export_onnx(layer, path, x)
        calls = {
            "torch": torch_call(layer, x),
            "onnxruntime": onnxruntime_call(path, x, threads),
            "openvino": openvino_call(path, x, threads, "f32"),
            "openvino-bf16": openvino_call(path, x, threads, "bf16"),
            "onnxruntime-int8": onnxruntime_call(_quantized(path), x, threads),
        }
    want = calls["torch"]()
    return [Contestant(name, call, max_error(call(), want)) for name, call in calls.items()]


def max_error(got: Any, want: Any) -> float:
    """Largest absolute difference of two outputs, tensors or arrays."""
    return float(np.abs(np.asarray(got, dtype=np.float64) - np.asarray(want, dtype=np.float64)).max())


def torch_call(layer: nn.Module, x: Tensor) -> Callable[[], Any]:
    layer.eval()

    def call() -> Tensor:
        with torch.inference_mode():
            return layer(x)[0]

    return call


def onnxruntime_call(path: Path, x: Tensor, threads: int) -> Callable[[], Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # The pool may spin while it works, and must not while the next contestant does.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed, wanted = {session.get_inputs()[0].name: x.numpy()}, [session.get_outputs()[0].name]
    return lambda: session.run(wanted, feed)[0]


def openvino_call(path: Path, x: Tensor, threads: int, precision: str) -> Callable[[], Any]:
    import openvino

    core = openvino.Core()
    model = core.read_model(str(path))
    model.reshape({model.inputs[0]: openvino.PartialShape(list(x.shape))})  # fixed sizes are its faster case
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    request.set_input_tensor(openvino.Tensor(x.numpy(), shared_memory=True))

    def call() -> np.ndarray:
        request.infer()
        return request.get_output_tensor(0).data

    return call


def _quantized(path: Path) -> Path:
    """The layer with int8 weights, activations quantized at every call."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    target = path.with_suffix(".int8.onnx")
    logging.disable(logging.WARNING)  # it recommends a preparation that does nothing for one recurrent operator
    try:
        quantize_dynamic(str(path), str(target), weight_type=QuantType.QInt8)
    finally:
        logging.disable(logging.NOTSET)
    return target
