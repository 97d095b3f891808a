"""Masked against compacted: the largest difference over every combination of cell, shape, call and precision.

A network whose removed units are held at zero and the physically smaller one must compute the same outputs and final
states. Sizes, weights, inputs and removed units are drawn by a seed, anew for every combination.
"""

from __future__ import annotations

import itertools
import logging
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

import jali
from jali.batches import tensors_in
from jali.plans import Budget, Plan, SitePlan
from jali.site import sites
from tests.strategies_models import Form

KINDS: dict[str, tuple[type[nn.RNNBase], dict[str, Any]]] = {
    "RNN tanh": (nn.RNN, {"nonlinearity": "tanh"}),
    "RNN relu": (nn.RNN, {"nonlinearity": "relu"}),
    "LSTM": (nn.LSTM, {}),
    "LSTM projected": (nn.LSTM, {"proj_size": 3}),
    "GRU": (nn.GRU, {}),
}
FORMS = ("batched", "unbatched", "packed, sorted", "packed, unsorted")
LIMITS = {"float32": 1e-6, "float64": 1e-12}


@dataclass(frozen=True)
class Combination:
    kind: str
    layers: int
    bidirectional: bool
    bias: bool
    batch_first: bool
    form: str
    states: bool
    dtype: str


def combinations() -> list[Combination]:
    """All of them: 5 kinds, 1 to 3 layers, directions, bias, layout, 4 forms of call, given states, precision."""
    both = (False, True)
    return [Combination(*each) for each in itertools.product(KINDS, (1, 2, 3), both, both, both, FORMS, both, LIMITS)]


def difference(combination: Combination, seed: int) -> float:
    """Largest absolute difference of outputs and final states."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    cls, options = KINDS[combination.kind]
    layer = cls(
        int(rng.integers(1, 7)), int(rng.integers(5, 17)), num_layers=combination.layers, bias=combination.bias,
        batch_first=combination.batch_first, bidirectional=combination.bidirectional,
        dtype=getattr(torch, combination.dtype), **options,
    ).eval()  # fmt: skip
    form = Form(combination.form, combination.states, int(rng.integers(1, 5)), int(rng.integers(1, 13)))
    plan, inputs = random_plan(layer, rng), form.arguments(layer)
    with torch.no_grad():
        masked, small = jali.mask(layer, plan)(*inputs), jali.compact(layer, plan, inputs)(*inputs)
    pairs = zip(tensors_in(masked), tensors_in(small), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


def random_plan(layer: nn.RNNBase, rng: np.random.Generator) -> Plan:
    """At least one unit goes somewhere; the widths that stay differ from layer to layer and direction to direction."""
    places = list(sites(layer))
    counts = [int(rng.integers(0, place.size - place.minimum + 1)) for place in places]
    counts[0] = max(1, counts[0])
    planned = [
        SitePlan(p.name, p.kind, p.size, tuple(sorted(rng.permutation(p.size)[:n].tolist())), (0.0,) * p.size)
        for p, n in zip(places, counts, strict=True)
    ]
    return Plan("unit", "random", Budget(0.5), tuple(planned))


def agreement(chosen: Sequence[Combination]) -> list[dict[str, Any]]:
    """Per precision: how many combinations, the largest difference, and where it was."""
    logger = logging.getLogger("jali")
    level = logger.level
    logger.setLevel(logging.ERROR)  # a bare layer keeps its outer width, which is known here
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="LSTM with projections")
            found = [(difference(each, seed), each) for seed, each in enumerate(chosen)]
    finally:
        logger.setLevel(level)
    results = []
    for dtype, limit in LIMITS.items():
        own = [(value, each) for value, each in found if each.dtype == dtype]
        largest, where = max(own, key=lambda pair: pair[0])
        results.append(
            {"dtype": dtype, "combinations": len(own), "largest": largest, "limit": limit, "where": asdict(where)}
        )
    return results
