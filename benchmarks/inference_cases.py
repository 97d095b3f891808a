"""The grid of the inference benchmark: sizes, patterns, and the pruned layers that go with them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import jali
from jali.studies.variants import PATTERNS, Variant
from jali.surgery.compact import operate
from jali.view import layer_views

STEPS = 100
HIDDEN, BATCH, THREADS, SPARSITY = (128, 256, 512, 1024), (1, 8, 64), (1, 2), (0.8, 0.9, 0.95, 0.98)
KEPT = (0.5, 0.25)
BREAK_EVEN = 0.5  # unstructured: too few zeros to pay; here dense weights must not be slower than a dense engine
FEW_INPUTS, WITH_FEW = 64, 512  # one width also with few inputs: removed units save nothing of the layer before
QUICK: dict[str, Any] = {"hidden": (128, 512), "batch": (1, 8), "threads": (1,), "sparsity": (0.9,), "kept": (0.25,)}


@dataclass(frozen=True)
class Size:
    """One LSTM layer on ``batch`` sequences of :data:`STEPS` steps."""

    hidden: int
    batch: int
    threads: int
    inputs: int

    def __str__(self) -> str:
        return f"H={self.hidden} I={self.inputs} B={self.batch} threads={self.threads}"


def grid(quick: bool) -> list[tuple[Size, list[Variant]]]:
    """Sizes, small ones first, with the variants to run at each."""
    chosen = {"hidden": HIDDEN, "batch": BATCH, "threads": THREADS, "sparsity": SPARSITY, "kept": KEPT}
    chosen |= QUICK if quick else {}
    variants = [Variant(family, s) for s, family in product(chosen["sparsity"], PATTERNS)]
    variants += [Variant("unit", 1 - kept) for kept in chosen["kept"]]
    variants += [] if quick else [Variant("weight", BREAK_EVEN)]
    sizes = product(chosen["threads"], chosen["hidden"], chosen["batch"])
    found = [Size(hidden, batch, threads, hidden) for threads, hidden, batch in sizes]
    found += [] if quick else [Size(WITH_FEW, batch, 1, FEW_INPUTS) for batch in chosen["batch"]]
    return [(size, variants) for size in found]


class Network(nn.Module):
    """A recurrent layer with a reader, so that compaction may narrow the layer's output, too."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(inputs, hidden)
        self.head = nn.Linear(hidden, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0])


def network(hidden: int, inputs: int | None = None, seed: int = 0) -> Network:
    """Random weights about as uneven as trained ones: normal, with log-normal factors per row and column.

    Kernels for unstructured sparsity depend on how uneven the rows are; independent weights would flatter them. Of the
    largest tenth of the recurrent weights, how many lie in a row varies by 0.62 of the mean (standard deviation) in an
    LSTM of 128 units trained on Speech Commands, and by 0.45 in a column; here it is 0.61–0.64 and 0.44–0.45.
    """
    rng, model = np.random.default_rng(seed), Network(inputs or hidden, hidden)
    with torch.no_grad():
        for weight in (model.rnn.weight_ih_l0, model.rnn.weight_hh_l0):
            spreads = zip((0.2, 0.15), weight.shape, strict=True)
            rows, columns = (np.exp(spread * rng.standard_normal(n)) for spread, n in spreads)
            value = rng.standard_normal(tuple(weight.shape)) * rows[:, None] * columns / np.sqrt(hidden)
            weight.copy_(torch.from_numpy(value.astype(np.float32)))
    return model.eval()


@dataclass(frozen=True)
class Pruned:
    """A pruned recurrent layer. ``reference`` in PyTorch gives what it must give, at the features ``kept``."""

    variant: Variant
    layer: nn.Module
    reference: nn.Module
    kept: np.ndarray
    removed: float  # share of the weights of the dense layer
    recurrent_bytes: float  # read at every step
    input_bytes: float  # read once per call at least
    multiply_adds: int  # per sequence and step


def prune(model: Network, variant: Variant, x: Tensor) -> Pruned:
    """``model.rnn`` pruned by magnitude: masked, or with whole units gone, compacted."""
    decided = variant.plan(model, "magnitude")
    reference = jali.mask(model, decided).rnn
    kept, layer = np.arange(model.rnn.hidden_size), reference
    if variant.family == "unit":
        surgery = operate(model, decided, x)
        layer, kept = surgery.compact.get_submodule("rnn"), surgery.keep[decided.sites[0].name]
    view = layer_views(layer)[0][0]
    recurrent, inputs = (
        weight.size if variant.family == "unit" else np.count_nonzero(weight)
        for weight in (view.recurrence(), view.w_in)
    )
    each, gone = (
        bytes_per_weight(variant),
        1 - (recurrent + inputs) / (model.rnn.weight_ih_l0.numel() + model.rnn.weight_hh_l0.numel()),
    )
    return Pruned(variant, layer, reference, kept, gone, recurrent * each, inputs * each, recurrent + inputs)


def bytes_per_weight(variant: Variant) -> float:
    """Four for its value, and its share of the smallest index that can address it."""
    if variant.family == "n:m":
        return 4 + 1.0  # which of 32 columns, in one byte
    return 4 + {"weight": 2.0, "gate-aligned": 2 / 4, "block:16x1": 2 / 16}.get(variant.family, 0.0)
