"""Costs against closed formulas: parameters, bytes, and multiply-accumulates of one call."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils.rnn import pack_padded_sequence

import jali
from jali.errors import DataError
from jali.plans import Budget, Plan, SitePlan

GATES = {nn.RNN: 1, nn.GRU: 3, nn.LSTM: 4, nn.RNNCell: 1, nn.GRUCell: 3, nn.LSTMCell: 4}
DTYPES = {torch.float16: 2, torch.bfloat16: 2, torch.float32: 4, torch.float64: 8}


@st.composite
def layers(draw):
    """A layer with its sizes: ``(layer, cls, inputs, hidden, layers, directions, projection)``."""
    cls = draw(st.sampled_from([nn.RNN, nn.GRU, nn.LSTM]))
    inputs, hidden, depth = draw(st.integers(1, 6)), draw(st.integers(2, 7)), draw(st.integers(1, 3))
    directions, projection = draw(st.integers(1, 2)), 0
    options = {"num_layers": depth, "bidirectional": directions == 2, "batch_first": draw(st.booleans())}
    if cls is nn.LSTM and draw(st.booleans()):
        projection = options["proj_size"] = draw(st.integers(1, hidden - 1))
    return cls(inputs, hidden, bias=draw(st.booleans()), **options), cls, inputs, hidden, depth, directions, projection


def macs_per_step(cls, inputs, hidden, depth, directions, projection):
    """G·H·(I + R) for each layer and direction, and P·H where it projects; R = P with a projection, else H."""
    read = projection or hidden
    widths = [inputs] + [directions * read] * (depth - 1)
    return sum(directions * (GATES[cls] * hidden * (width + read) + projection * hidden) for width in widths)


@given(layers(), st.integers(1, 4), st.integers(1, 5))
@settings(max_examples=60)
def test_multiply_accumulates_of_a_layer_are_the_closed_formula(made, batch, steps):
    layer, cls, inputs, *sizes = made
    shape = (batch, steps) if layer.batch_first else (steps, batch)
    want = batch * steps * macs_per_step(cls, inputs, *sizes)
    assert jali.cost(layer, torch.zeros(*shape, inputs)).macs == want
    assert jali.cost(layer, torch.zeros(steps, inputs)).macs == want // batch  # unbatched


@given(layers(), st.sampled_from(sorted(DTYPES, key=str)))
@settings(max_examples=40)
def test_parameters_are_all_elements_and_bytes_their_size(made, dtype):
    layer = made[0].to(dtype)
    found = jali.cost(layer)
    assert found.parameters == sum(p.numel() for p in layer.parameters())
    assert found.bytes == sum(p.numel() for p in layer.parameters()) * DTYPES[dtype]
    assert found.macs is None


def test_an_lstm_by_hand():
    # per step 4·128·(28 + 128) in the layer; the head 128·10 once per sequence
    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.LSTM(28, 128, batch_first=True), nn.Linear(128, 10)

        def forward(self, x):
            return self.head(self.rnn(x)[0][:, -1])

    found = jali.cost(Classifier(), torch.zeros(1, 28, 28))
    assert found.parameters == 4 * 128 * (28 + 128 + 2) + 128 * 10 + 10 == 82_186
    assert found.bytes == 4 * 82_186
    assert found.macs == 28 * 4 * 128 * (28 + 128) + 128 * 10 == 2_237_696


@pytest.mark.parametrize("cls", [nn.RNNCell, nn.GRUCell, nn.LSTMCell])
def test_a_cell_costs_its_matrices_at_every_call(cls):
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = cls(3, 5)

        def forward(self, x):
            state = None
            for step in x.unbind(1):
                state = self.cell(step, state)
            return state

    assert jali.cost(Loop(), torch.zeros(2, 7, 3)).macs == 2 * 7 * GATES[cls] * 5 * (3 + 5)


def test_a_linear_costs_its_matrix_per_row():
    assert jali.cost(nn.Linear(3, 5), torch.zeros(2, 7, 3)).macs == 2 * 7 * 15
    assert jali.cost(nn.Linear(3, 5, bias=False), torch.zeros(3)).macs == 15


def test_padding_costs_nothing_in_a_packed_sequence():
    packed = pack_padded_sequence(torch.zeros(3, 6, 2), torch.tensor([6, 3, 1]), batch_first=True)
    assert jali.cost(nn.GRU(2, 4), packed).macs == (6 + 3 + 1) * 3 * 4 * (2 + 4)


def test_inputs_by_position_and_by_name_cost_the_same():
    layer, x, h = nn.GRU(2, 4), torch.zeros(5, 3, 2), torch.zeros(1, 3, 4)
    want = jali.cost(layer, x).macs
    assert [jali.cost(layer, inputs).macs for inputs in ((x, h), {"input": x}, {"input": x, "hx": h})] == [want] * 3


def test_shared_parameters_count_once_and_their_work_every_time():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(4, 4)
            self.same, self.tied = self.one, nn.Linear(4, 4, bias=False)
            self.tied.weight = self.one.weight

        def forward(self, x):
            return self.tied(self.same(self.one(x)))

    found = jali.cost(Twice(), torch.zeros(2, 4))
    assert found.parameters == 16 + 4
    assert found.macs == 3 * 2 * 16


def test_modules_that_are_not_called_cost_parameters_and_no_work():
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.Linear(2, 3), nn.LSTM(2, 3)

        def forward(self, x):
            return self.used(x)

    found = jali.cost(Idle(), torch.zeros(1, 2))
    assert found.parameters == 6 + 3 + 4 * 3 * (2 + 3 + 2)
    assert found.macs == 6


def test_parametrized_weights_are_counted():
    head = parametrizations.weight_norm(nn.Linear(3, 5))
    assert jali.cost(head, torch.zeros(2, 3)).macs == 2 * 15
    layer = nn.GRU(3, 5)
    parametrize.register_parametrization(layer, "weight_hh_l0", nn.Identity())
    assert jali.cost(layer, torch.zeros(4, 2, 3)).macs == 4 * 2 * 3 * 5 * (3 + 5)


@pytest.mark.parametrize(("first", "second"), [(4, 4), (2, 5)])
def test_a_compacted_model_costs_what_its_widths_say(first, second):
    """Also where the layers differ in width and so are no plain PyTorch layer."""
    torch.manual_seed(0)
    model, x = nn.LSTM(3, 6, num_layers=2, batch_first=True), torch.randn(2, 7, 3)
    parts = tuple(
        SitePlan(f"l{k}", "LSTM", 6, tuple(range(width, 6)), (0.0,) * 6) for k, width in enumerate((first, second))
    )
    small = jali.compact(model, Plan("unit", "x", Budget(0.5), parts), example_inputs=x)
    per_step = 4 * first * (3 + first) + 4 * second * (first + second)
    assert jali.cost(small, x).macs == 2 * 7 * per_step
    assert jali.cost(small).parameters == per_step + 2 * 4 * (first + second)


def test_counting_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 2)).train()
    model[0].eval()
    jali.cost(model, torch.zeros(1, 2))
    assert [module.training for module in model.modules()] == [True, False, True]
    assert not model[1]._forward_pre_hooks


@pytest.mark.parametrize("inputs", [torch.zeros(2, 4, 7), "x", 3])
def test_inputs_that_do_not_fit_are_refused(inputs):
    with pytest.raises(DataError):
        jali.cost(nn.LSTM(3, 5), inputs)
