"""Masked ≡ compacted (DESIGN §5): every cell type, depth, direction, bias, projection, layout and dtype."""

import copy
import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import jali
from jali.batches import tensors_in
from jali.errors import DataError, ModelError, PlanError
from jali.plans import Budget, Plan, SitePlan
from jali.site import sites
from jali.surgery.compact import operate
from jali.widths import UnevenLayers
from tests.strategies_models import forms, layers, plans

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}


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


def size(value: object) -> float:
    """What a tolerance is relative to: a relu network has no bounded states."""
    return max(1.0, *(float(tensor.detach().abs().max()) for tensor in tensors_in(value)))


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@settings(max_examples=300)
@given(data=st.data(), layer=layers(), form=forms)
def test_masked_is_compacted(data, layer, form):
    """Outputs and final states, whatever the cell, depth, direction, bias, projection, layout, states and dtype."""
    plan, args = data.draw(plans(layer)), form.arguments(layer)
    masked, small = jali.mask(layer, plan), jali.compact(layer, plan, args)
    assert largest_difference(masked(*args), small(*args)) <= TOLERANCE[layer.weight_ih_l0.dtype] * size(masked(*args))


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@settings(max_examples=100)
@given(data=st.data(), layer=layers(), form=forms)
def test_one_compacted_layer_serves_every_kind_of_call(data, layer, form):
    plan = data.draw(plans(layer))
    masked, small = jali.mask(layer, plan), jali.compact(layer, plan)
    args = form.arguments(layer)
    assert largest_difference(masked(*args), small(*args)) <= TOLERANCE[layer.weight_ih_l0.dtype] * size(masked(*args))


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@settings(max_examples=60)
@given(data=st.data(), layer=layers(), form=forms)
def test_removed_units_stay_zero_from_the_first_step(data, layer, form):
    plan, args = data.draw(plans(layer)), form.arguments(layer)
    _, states = jali.mask(layer, plan)(*args)
    directions = 2 if layer.bidirectional else 1
    for site in sites(layer):
        slot, removed = site.layer * directions + site.reverse, list(plan.site(site.name).removed)
        for what, state in zip("hc", states if isinstance(states, tuple) else (states,), strict=False):
            if what == "c" or not layer.proj_size:
                assert not state[slot][..., removed].any()


class Stack(nn.Module):
    """Two recurrent layers, dropout between them, a head on the last step."""

    def __init__(self, low, high):
        super().__init__()
        self.low, self.high = low, high
        self.head = nn.Linear(high.hidden_size * (2 if high.bidirectional else 1), 3, dtype=high.weight_ih_l0.dtype)

    def forward(self, x):
        y = torch.nn.functional.dropout(self.low(x)[0], 0.5, self.training)
        y = self.high(y)[0]
        return self.head(y[:, -1] if self.high.batch_first else y[-1])


@settings(max_examples=80)
@given(data=st.data(), low=layers(max_layers=2, dtypes=(torch.float64,), projections=False), seed=st.integers(0, 999))
def test_stacks_of_layers_shrink_through_and_through(data, low, seed):
    torch.manual_seed(seed)
    width = low.hidden_size * (2 if low.bidirectional else 1)
    high = nn.LSTM(width, 5, batch_first=low.batch_first, dtype=torch.float64)
    model = Stack(low, high).eval()
    plan, x = data.draw(plans(model)), torch.randn(3, 4, low.input_size, dtype=torch.float64)
    masked, small = jali.mask(model, plan), jali.compact(model, plan, x)
    assert largest_difference(masked(x), small(x)) <= 1e-12 * size(masked(x))
    kept = sum(len(plan.site(f"low.{site.name}").kept) for site in sites(low) if site.layer == low.num_layers - 1)
    assert small.high.input_size == kept
    assert small.head.in_features == len(plan.site("high.l0").kept)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("cls", [nn.RNN, nn.LSTM, nn.GRU])
def test_low_precision_runs_and_agrees_to_its_precision(cls, dtype):
    torch.manual_seed(0)
    layer = cls(4, 8, 2, dtype=dtype).eval()
    plan, x = random_plan(layer, (0.5,)), torch.randn(5, 3, 4, dtype=dtype)
    small = jali.compact(layer, plan, x)
    assert all(parameter.dtype == dtype for parameter in small.parameters())
    assert largest_difference(jali.mask(layer, plan)(x), small(x)) < 0.05


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


def test_a_cell_keeps_the_width_of_its_states_and_a_note_says_so():
    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.head = nn.LSTMCell(3, 6), nn.Linear(6, 2)

        def forward(self, x):
            h, c = self.cell(x[:, 0])
            return self.head(self.cell(x[:, 1], (h, c))[0])

    model = Steps()
    (note,) = operate(model, random_plan(model, (0.5,)), torch.randn(4, 2, 3)).notes
    assert note == "the states of 'cell' keep their full width: it is a cell"


@pytest.mark.parametrize("cls", [nn.GRU, nn.LSTM, nn.GRUCell, nn.LSTMCell])
def test_an_initial_state_of_another_width_is_refused_as_by_the_layer_it_replaces(cls):
    layer, cell = cls(3, 6), issubclass(cls, nn.RNNCellBase)
    small = jali.compact(layer, random_plan(layer, (0.5,)), torch.randn(5, 2, 3)[0 if cell else ...])
    for width in (5, 7):
        state = torch.zeros(2, width) if cell else torch.zeros(1, 2, width)
        hx = (state, state) if cls in (nn.LSTM, nn.LSTMCell) else state
        with pytest.raises(DataError, match=f"has {width} units, the layer has 6"):
            small(torch.randn(2, 3) if cell else torch.randn(5, 2, 3), hx)


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


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@settings(max_examples=60)
@given(data=st.data(), layer=layers())
def test_equal_widths_give_pytorchs_own_layer(data, layer):
    plan = data.draw(plans(layer))
    small = jali.compact(layer, plan)
    inner = small.inner
    even = len({len(planned.kept) for planned in plan.sites}) == 1
    assert type(inner) is (type(layer) if even else UnevenLayers)
    if even:
        assert inner.hidden_size == len(plan.sites[0].kept)


def small_stack():
    torch.manual_seed(0)
    model = Stack(nn.GRU(4, 6, 2, batch_first=True, bidirectional=True), nn.LSTM(12, 6, batch_first=True))
    plan, x = random_plan(model, (0.5, 0.3)), torch.randn(3, 5, 4)
    return jali.compact(model.eval(), plan, x), x


def test_compacted_modules_stay_ordinary_modules():
    """deepcopy, state_dict, saving, training and export keep working (DESIGN §5)."""
    small, x = small_stack()
    want = small(x)
    twin = copy.deepcopy(small)
    assert torch.equal(twin(x), want)
    file = io.BytesIO()
    torch.save(small.state_dict(), file)
    file.seek(0)
    other, _ = small_stack()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(x), want)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    twin.train()(x).square().sum().backward()
    assert all(parameter.grad is not None for parameter in twin.parameters())
    optimizer.step()
    assert not torch.equal(twin.eval()(x), want)


def test_compacted_modules_export():
    small, x = small_stack()
    exported = torch.export.export(small, (x,)).module()
    torch.testing.assert_close(exported(x), small(x))


def test_a_layer_called_twice_is_cut_once():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.GRU(6, 6, batch_first=True), nn.Linear(6, 2)

        def forward(self, x):
            return self.head(self.rnn(self.rnn(x)[0])[0][:, -1])

    torch.manual_seed(0)
    model, x = Twice().double(), torch.randn(3, 5, 6, dtype=torch.float64)
    plan = random_plan(model, (0.5,))
    small = jali.compact(model, plan, x)
    assert largest_difference(jali.mask(model, plan)(x), small(x)) <= 1e-12
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("fractions", [(0.5,), (0.5, 0.25)], ids=["equal", "unequal"])
@pytest.mark.parametrize("cls", [nn.RNN, nn.LSTM, nn.GRU])
def test_given_states_keep_their_width_though_nothing_reads_the_outputs_wide(cls, fractions):
    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = cls(4, 8, 2, batch_first=True), nn.Linear(8, 3)

        def forward(self, x, state):
            return self.head(self.rnn(x, state)[0])

    torch.manual_seed(0)
    model, x, h = Decoder().double(), torch.randn(3, 5, 4).double(), torch.randn(2, 3, 8).double()
    plan, state = random_plan(model, fractions), (h, h.flip(0)) if cls is nn.LSTM else h
    small = jali.compact(model, plan, (x, state))
    assert largest_difference(jali.mask(model, plan)(x, state), small(x, state)) <= 1e-12
    assert small.head.in_features == len(plan.sites[1].kept)


@pytest.mark.parametrize("fractions", [(0.5,), (0.5, 0.25)], ids=["equal", "unequal"])
def test_dropout_between_layers_is_kept(fractions):
    torch.manual_seed(0)
    layer = nn.LSTM(4, 8, 2, dropout=0.5)
    small = jali.compact(layer, random_plan(layer, fractions))
    x = torch.ones(6, 3, 4)
    assert small.inner.dropout == 0.5
    assert not torch.equal(small(x)[0], small(x)[0])
    assert torch.equal(small.eval()(x)[0], small(x)[0])


@pytest.mark.parametrize("what", ["masked logits", "noise", "named tuple", "list of states"])
def test_forward_passes_that_are_awkward_to_compare(what):
    from typing import NamedTuple

    class Pair(NamedTuple):
        x: torch.Tensor
        y: torch.Tensor

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 3)

        def forward(self, x):
            if what == "list of states":
                h = torch.zeros(1, x.shape[0], 6, dtype=x.dtype)
                return self.head(self.rnn(x, [h, h])[0])
            y = self.head(self.rnn(x.x if what == "named tuple" else x)[0])
            if what == "noise":
                return y + torch.randn(3, dtype=y.dtype)
            return torch.cat((y, torch.full_like(y, -torch.inf)), -1) if what == "masked logits" else y

    torch.manual_seed(0)
    model, x = Model().double().eval(), torch.randn(3, 5, 4, dtype=torch.float64)
    inputs = (Pair(x, x),) if what == "named tuple" else (x,)
    plan = random_plan(model, (0.5,))
    small, masked = jali.compact(model, plan, inputs), jali.mask(model, plan)
    outputs = []
    for each in (masked, small):
        torch.manual_seed(1)
        outputs.append(each(*inputs))
    assert torch.equal(outputs[0].isfinite(), outputs[1].isfinite())
    torch.testing.assert_close(*(output.nan_to_num() for output in outputs), rtol=0, atol=1e-12)


def test_what_runs_in_training_mode_only_keeps_running_there():
    """Tracing sees evaluation mode; a head that reads the layer while it is trained must still fit."""

    class Auxiliary(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head, self.other = nn.GRU(4, 8, batch_first=True), nn.Linear(8, 3), nn.Linear(8, 2)

        def forward(self, x):
            y = self.rnn(x)[0]
            return (self.head(y), self.other(y)) if self.training else self.head(y)

    torch.manual_seed(0)
    model, x = Auxiliary().double().eval(), torch.randn(3, 5, 4, dtype=torch.float64)
    plan = random_plan(model, (0.5,))
    small = jali.compact(model, plan, x)
    assert largest_difference(jali.mask(model, plan)(x), small(x)) <= 1e-12
    assert largest_difference(jali.mask(model, plan).train()(x), small.train()(x)) <= 1e-12


def test_tracing_leaves_no_constant_on_the_model():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.GRU(4, 8, batch_first=True), nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.rnn(x)[0]) * torch.tensor([1.0, 2.0, 3.0])

    torch.manual_seed(0)
    model, x = Scaled().eval(), torch.randn(3, 5, 4)
    before = set(model.__dict__)
    small = jali.compact(model, random_plan(model, (0.5,)), x)
    assert small.head.in_features == 4
    assert set(model.__dict__) == before


def test_hooks_of_a_replaced_layer_are_named():
    torch.manual_seed(0)
    model, seen = Stack(nn.GRU(4, 6, batch_first=True), nn.LSTM(6, 6, batch_first=True)).eval(), []
    model.low.register_forward_hook(lambda module, args, output: seen.append(output[0].shape))
    surgery = operate(model, random_plan(model, (0.5,)), torch.randn(3, 5, 4))
    assert [note for note in surgery.notes if "forward hooks of 'low'" in note]
    masked = jali.mask(model.high, random_plan(model.high, (0.5,)))
    assert not [note for note in operate(masked, random_plan(model.high, (0.5,))).notes if "hooks" in note]


def test_linear_sites_are_cut_with_their_readers():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2)).double()
    names = [site for site in sites(model, linear=True) if site.name != "4"]
    planned = tuple(SitePlan(s.name, s.kind, s.size, (0, 3), (0.0,) * s.size) for s in names)
    plan, x = Plan("unit", "random", Budget(0.3), planned), torch.randn(5, 4, dtype=torch.float64)
    small = jali.compact(model, plan, x)
    assert largest_difference(jali.mask(model, plan)(x), small(x)) <= 1e-12
    assert [(m.in_features, m.out_features) for m in small if isinstance(m, nn.Linear)] == [(4, 6), (6, 4), (4, 2)]


def test_plans_that_do_not_fit_are_refused():
    layer = nn.LSTM(3, 6)
    with pytest.raises(PlanError, match="of 6 units in the plan"):
        jali.compact(nn.LSTM(3, 8), random_plan(layer, (0.5,)))
    with pytest.raises(PlanError, match=r"jali\.mask"):
        jali.compact(layer, jali.plan(layer, "magnitude", 0.5, granularity="weight"))


@pytest.mark.parametrize("operation", [jali.compact, jali.mask])
def test_what_is_no_plan_or_no_model_is_named(operation):
    layer = nn.LSTM(3, 6)
    plan = random_plan(layer, (0.5,))
    with pytest.raises(PlanError, match=r"the plan is a str; make one with jali\.plan"):
        operation(layer, plan.to_json())
    with pytest.raises(ModelError, match=r"the model is an OrderedDict; give the torch\.nn\.Module"):
        operation(layer.state_dict(), plan)


def test_arguments_left_at_their_defaults_are_named():
    """With another value the forward code may read other features: nothing was proved for it."""

    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.GRU(3, 6, batch_first=True), nn.Linear(6, 2)

        def forward(self, x, last=True, scale=1.0):
            y = self.rnn(x)[0]
            return self.head(y[:, -1] if last else y) * scale

    torch.manual_seed(0)
    model, x = Tagger().eval(), torch.randn(4, 5, 3)
    plan = random_plan(model, (0.5,))
    (note,) = operate(model, plan, x).notes
    assert "proved for calls with last=True, scale=1.0" in note
    (note,) = operate(model, plan, (x, True)).notes
    assert "every pruned layer keeps its outer width" in note  # a traced value cannot decide a branch
