"""Hypothesis strategies: recurrent layers of every shape, calls of them, and plans that cut them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from jali.evidence import Perturbation, Trajectory
from jali.plans import Budget, Plan, SitePlan
from jali.site import sites


@st.composite
def layers(draw, max_layers=3, dtypes=(torch.float32, torch.float64), projections=True, **fixed):
    """``nn.RNN`` (tanh, relu), ``nn.LSTM`` or ``nn.GRU``; ``fixed``: options that are not drawn."""
    torch.manual_seed(draw(st.integers(0, 10**6)))
    cls = draw(st.sampled_from([nn.RNN, nn.LSTM, nn.GRU]))
    options = {
        "num_layers": draw(st.integers(1, max_layers)),
        "bidirectional": draw(st.booleans()),
        "bias": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "dtype": draw(st.sampled_from(dtypes)),
    } | fixed
    hidden = draw(st.integers(3, 7))
    if cls is nn.RNN:
        options["nonlinearity"] = draw(st.sampled_from(["tanh", "relu"]))
    if cls is nn.LSTM and projections and draw(st.booleans()):
        options["proj_size"] = draw(st.integers(1, hidden - 2))
    return cls(draw(st.integers(1, 4)), hidden, **options).eval()


@st.composite
def plans(draw, model):
    """A plan that removes some units somewhere, other numbers at every site."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    everything = sites(model)
    equal = draw(st.booleans())
    spare = min(site.size - site.minimum for site in everything)
    counts = [draw(st.integers(0, site.size - site.minimum)) for site in everything]
    counts = [draw(st.integers(min(1, spare), spare))] * len(everything) if equal else counts
    if sum(counts) == 0:
        counts[0] = everything[0].size - everything[0].minimum
    planned = tuple(
        SitePlan(s.name, s.kind, s.size, tuple(sorted(rng.permutation(s.size)[:n].tolist())), (0.0,) * s.size)
        for s, n in zip(everything, counts, strict=True)
    )
    return Plan("unit", "random", Budget(0.5), planned)


@dataclass(frozen=True)
class Form:
    """How a layer is called: batched, unbatched or packed, with or without initial states."""

    kind: str
    states: bool
    batch: int
    steps: int

    def arguments(self, layer: nn.RNNBase) -> tuple[Any, ...]:
        dtype, slots = layer.weight_ih_l0.dtype, layer.num_layers * (2 if layer.bidirectional else 1)
        shape = (self.batch, self.steps) if layer.batch_first else (self.steps, self.batch)
        x: Any = torch.randn(*shape, layer.input_size, dtype=dtype)
        middle: tuple[int, ...] = (self.batch,)
        if self.kind == "unbatched":
            x, middle = torch.randn(self.steps, layer.input_size, dtype=dtype), ()
        elif self.kind != "batched":
            lengths = torch.randint(1, self.steps + 1, (self.batch,))
            lengths[0] = self.steps
            ordered = self.kind == "packed, sorted"
            lengths = lengths.sort(descending=True).values if ordered else lengths.flip(0)
            x = pack_padded_sequence(x, lengths, layer.batch_first, enforce_sorted=ordered)
        if not self.states:
            return (x,)
        h = torch.randn(slots, *middle, layer.proj_size or layer.hidden_size, dtype=dtype)
        return (x, (h, torch.randn(slots, *middle, layer.hidden_size, dtype=dtype)) if layer.mode == "LSTM" else h)


forms = st.builds(
    Form,
    kind=st.sampled_from(["batched", "unbatched", "packed, sorted", "packed, unsorted"]),
    states=st.booleans(),
    batch=st.integers(1, 4),
    steps=st.integers(1, 6),
)


def made_up_trajectory(model):
    """Exponents of forty windows, some of which lead the performance by one; those of one weight cannot be tested."""
    rng = np.random.default_rng(2)
    performance = rng.normal(size=40)
    exponents = {
        name: rng.normal(size=(40, *p.shape))
        + rng.random(p.shape) * np.roll(performance, -1).reshape(40, *[1] * p.dim())
        for name, p in model.named_parameters()
    }
    next(iter(exponents.values())).reshape(40, -1)[:, 0] = np.nan
    ends = np.arange(200, 8200, 200)
    return Trajectory(
        exponents, performance, np.ones(40), ends, 8000, 200, 200, "direct", Perturbation.first(model)
    )  # fmt: skip
