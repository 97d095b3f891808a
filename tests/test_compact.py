"""Masked ≡ compacted (DESIGN §5): every cell type, depth, direction, bias, projection, layout and dtype."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import jali
from jali.batches import tensors_in
from jali.errors import PlanError
from jali.plans import Budget, Plan, SitePlan
from jali.view import sites

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
GRID = [
    (cls, *rest)
    for cls in (nn.RNN, nn.LSTM, nn.GRU)
    for rest in itertools.product((1, 2), (False, True), (False, True), (False, True), (0, 3), tuple(TOLERANCE))
    if cls is nn.LSTM or not rest[4]
]


def random_plan(model: nn.Module, fractions: tuple[float, ...]) -> Plan:
    rng, planned = np.random.default_rng(0), []
    for k, site in enumerate(sites(model)):
        count = min(int(site.size * fractions[k % len(fractions)]), site.size - site.minimum)
        removed = tuple(sorted(rng.permutation(site.size)[:count].tolist()))
        planned.append(SitePlan(site.name, site.kind, site.size, removed, (0.0,) * site.size))
    return Plan("unit", "random", Budget(0.5), tuple(planned))


def largest_difference(a: object, b: object) -> float:
    pairs = list(zip(tensors_in(a), tensors_in(b), strict=True))
    assert pairs
    return max(float((x - y).detach().abs().max()) for x, y in pairs)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("fractions", [(0.5,), (0.5, 0.25, 0.3)], ids=["equal", "unequal"])
@pytest.mark.parametrize(("cls", "layers", "both", "bias", "first", "proj", "dtype"), GRID)
def test_masked_is_compacted(cls, layers, both, bias, first, proj, dtype, fractions):
    torch.manual_seed(0)
    extra = {"proj_size": proj} if proj else {}
    layer = cls(4, 8, layers, bidirectional=both, bias=bias, batch_first=first, dtype=dtype, **extra)
    plan = random_plan(layer, fractions)
    x = torch.randn(5, 6, 4, dtype=dtype)
    batch, slots = (5 if first else 6), layers * (2 if both else 1)
    h = torch.randn(slots, batch, proj or 8, dtype=dtype)
    hx = (h, torch.randn(slots, batch, 8, dtype=dtype)) if cls is nn.LSTM else h
    masked, small = jali.mask(layer, plan), jali.compact(layer, plan, (x, hx))
    calls = [(x,), (x, hx), (x[0],)]
    padded = torch.randn(6, batch, 4, dtype=dtype) if not first else torch.randn(batch, 6, 4, dtype=dtype)
    lengths = torch.arange(1, batch + 1).roll(2)
    packed = pack_padded_sequence(padded, lengths, batch_first=first, enforce_sorted=False)
    for args in [*calls, (packed,), (packed, hx)]:
        assert largest_difference(masked(*args), small(*args)) <= TOLERANCE[dtype]


@pytest.mark.parametrize("cls", [nn.RNNCell, nn.LSTMCell, nn.GRUCell])
def test_cells_in_a_loop(cls):
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.head = cls(3, 6), nn.Linear(6, 2)

        def forward(self, x):
            state = None
            for t in range(x.shape[1]):
                state = self.cell(x[:, t], state)
            return self.head(state[0] if isinstance(state, tuple) else state)

    torch.manual_seed(0)
    model, x = Loop().double(), torch.randn(4, 5, 3, dtype=torch.float64)
    plan = random_plan(model, (0.5,))
    assert largest_difference(jali.mask(model, plan)(x), jali.compact(model, plan, x)(x)) <= 1e-12


HEADS = {
    "last step": (lambda m, y, h: m.head(y[:, -1]), 1, True),
    "final states": (lambda m, y, h: m.head(torch.cat((h[-2], h[-1]), dim=1)), 1, True),
    "dropout and relu": (
        lambda m, y, h: m.head(torch.relu(nn.functional.dropout(y, 0.5, m.training))).mean(1),
        1,
        True,
    ),
    "flattened time": (lambda m, y, h: m.head(y.reshape(y.shape[0], -1)), 5, True),
    "mean over time": (lambda m, y, h: m.head(y.mean(dim=1)), 1, True),
    "layer norm": (lambda m, y, h: m.head(nn.functional.layer_norm(y[:, -1], (16,))), 1, False),
    "softmax": (lambda m, y, h: m.head(torch.softmax(y[:, -1], -1)), 1, False),
    "hard-coded halves": (lambda m, y, h: m.head(torch.cat((y[:, -1, :8], y[:, 0, 8:]), 1)), 1, False),
    "addition of a constant": (lambda m, y, h: m.head(y[:, -1] + 1), 1, False),
    "control flow": (lambda m, y, h: m.head(y[:, -1]) if y.sum() > 1e9 else m.head(y[:, 0]), 1, False),
}


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("fractions", [(0.5,), (0.5, 0.25)], ids=["equal", "unequal"])
def test_consumers_shrink_only_where_proved(name, fractions):
    forward, steps, shrinks = HEADS[name]

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.LSTM(4, 8, batch_first=True, bidirectional=True)
            self.head = nn.Linear(16 * steps, 3)

        def forward(self, x):
            y, (h, _) = self.rnn(x)
            return forward(self, y, h)

    torch.manual_seed(0)
    model, x = Model().double().eval(), torch.randn(3, 5, 4, dtype=torch.float64)
    plan = random_plan(model, fractions)
    small = jali.compact(model, plan, x)
    assert largest_difference(jali.mask(model, plan)(x), small(x)) <= 1e-12
    # States of unequal width have no common tensor and keep their full width.
    expected = shrinks and not (name == "final states" and len(fractions) == 2)
    assert (small.head.in_features < model.head.in_features) == expected


def test_equal_widths_give_the_plain_layer_and_leave_the_model_alone():
    torch.manual_seed(0)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.GRU(4, 8, num_layers=2), nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.rnn(x)[0])

    model = Model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    small = jali.compact(model, random_plan(model, (0.5,)), torch.randn(5, 2, 4))
    assert type(small.rnn) is nn.GRU
    assert (small.rnn.hidden_size, small.head.in_features) == (4, 4)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    torch.random.set_rng_state(state)
    torch.randn(5, 2, 4)
    after = torch.random.get_rng_state()
    torch.random.set_rng_state(state)
    jali.compact(model, random_plan(model, (0.5,)), torch.randn(5, 2, 4))
    assert torch.equal(torch.random.get_rng_state(), after)


def test_a_removed_unit_is_zero_also_from_a_given_state():
    torch.manual_seed(0)
    layer = nn.LSTM(3, 6)
    plan = random_plan(layer, (0.5,))
    y, (h, c) = jali.mask(layer, plan)(torch.randn(4, 2, 3), (torch.randn(1, 2, 6), torch.randn(1, 2, 6)))
    removed = list(plan.sites[0].removed)
    assert all(float(value[..., removed].abs().max()) == 0.0 for value in (y, h, c))
    assert float(y.abs().max()) > 0.0


def test_plans_that_do_not_fit_are_refused():
    layer = nn.LSTM(3, 6)
    with pytest.raises(PlanError, match="of 6 units in the plan"):
        jali.compact(nn.LSTM(3, 8), random_plan(layer, (0.5,)))
    with pytest.raises(PlanError, match=r"jali\.mask"):
        jali.compact(layer, jali.plan(layer, "magnitude", 0.5, granularity="weight"))
