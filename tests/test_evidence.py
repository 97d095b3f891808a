"""Evidence: who reads what, and the moments of exactly the states that are read."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from jali.errors import DataError
from jali.evidence import collect
from jali.models import TopDownRNN
from jali.site import sites


class Classifier(nn.Module):
    """An LSTM whose head reads the last step of every sequence."""

    def __init__(self, **options):
        super().__init__()
        self.rnn = nn.LSTM(3, 6, batch_first=True, **options)
        self.head = nn.Linear(options.get("proj_size") or 6, 2)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


def measured(model, data, site=0, needs=("states",)):
    return collect(model, data, sites(model), needs).sites[sites(model)[site].name]


def moments(rows):
    rows = rows.detach().double().reshape(-1, rows.shape[-1]).numpy()
    return rows.mean(0), rows.T @ rows / len(rows)


def check(use, reader, weight, rows):
    assert use.reader == reader
    np.testing.assert_allclose(use.weight, weight.detach().double().numpy())
    mean, second = moments(rows)
    np.testing.assert_allclose(use.mean, mean, atol=1e-12)
    np.testing.assert_allclose(use.second, second, atol=1e-12)
    assert use.samples == rows.numel() // rows.shape[-1]


def test_a_layer_is_read_by_its_recurrence_and_by_the_head_at_the_last_step():
    torch.manual_seed(0)
    model, x = Classifier().double(), torch.randn(5, 4, 3, dtype=torch.float64)
    recurrence, head = measured(model, x).uses
    states = model.rnn(x)[0]
    before = torch.cat([torch.zeros(5, 1, 6), states[:, :-1]], 1)
    check(recurrence, "recurrence", model.rnn.weight_hh_l0, before)
    check(head, "head", model.head.weight, states[:, -1])
    np.testing.assert_allclose(head.covariance, np.cov(states[:, -1].detach().numpy().T, bias=True))


def test_batches_add_up():
    torch.manual_seed(1)
    model, x = Classifier().double(), torch.randn(6, 4, 3, dtype=torch.float64)
    for whole, split in zip(measured(model, x).uses, measured(model, [x[:2], x[2:]]).uses, strict=True):
        np.testing.assert_allclose(whole.second, split.second, atol=1e-14)
        assert whole.samples == split.samples


def test_padding_is_not_measured():
    class Tagger(Classifier):
        def forward(self, x):
            return self.head(pad_packed_sequence(self.rnn(x)[0], batch_first=True)[0])

    torch.manual_seed(2)
    model, lengths = Tagger().double(), torch.tensor([4, 1, 3])
    x = torch.randn(3, 4, 3, dtype=torch.float64)
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    recurrence = measured(model, [packed]).uses[0]
    states = model.rnn(x)[0]
    before = torch.cat([torch.zeros(3, 1, 6), states[:, :-1]], 1)
    check(recurrence, "recurrence", model.rnn.weight_hh_l0, before[torch.arange(4)[None] < lengths[:, None]])


def test_a_layer_is_read_by_both_directions_of_the_next():
    torch.manual_seed(3)
    model = nn.GRU(3, 4, num_layers=2, bidirectional=True, batch_first=True, dtype=torch.float64)
    x = torch.randn(5, 6, 3, dtype=torch.float64)
    below = nn.GRU(3, 4, bidirectional=True, batch_first=True, dtype=torch.float64)
    below.load_state_dict({name: value for name, value in model.state_dict().items() if "l0" in name})
    states, both = below(x)[0], torch.cat([model.weight_ih_l1, model.weight_ih_l1_reverse])
    for direction, columns in enumerate((slice(0, 4), slice(4, 8))):
        _, above = measured(model, x, direction).uses
        check(above, "layer 1", both[:, columns], states[..., columns])
    last = measured(model, x, 2).uses[1]
    check(last, "output", torch.eye(4), model(x)[0][..., :4])


def test_a_projected_layer_is_read_by_its_projection_only():
    torch.manual_seed(4)
    model, x = Classifier(proj_size=2).double(), torch.randn(5, 4, 3, dtype=torch.float64)
    (use,) = measured(model, x).uses
    assert use.reader == "projection"
    projected = use.weight @ use.mean
    np.testing.assert_allclose(projected, model.rnn(x)[0].mean((0, 1)).detach().numpy(), atol=1e-12)


def test_a_recurrent_reader_reads_with_both_directions():
    class Stack(nn.Module):
        def __init__(self):
            super().__init__()
            self.low = nn.RNN(3, 4, batch_first=True)
            self.high = nn.LSTM(4, 5, batch_first=True, bidirectional=True)

        def forward(self, x):
            return self.high(self.low(x)[0])[0]

    torch.manual_seed(5)
    model, x = Stack().double(), torch.randn(5, 6, 3, dtype=torch.float64)
    _, above = measured(model, x).uses
    weight = torch.cat([model.high.weight_ih_l0, model.high.weight_ih_l0_reverse])
    check(above, "high", weight, model.low(x)[0])


def test_a_reader_with_feedback_inside_reads_with_the_columns_of_its_input():
    """Five of its thirteen: the others read the layer above."""

    class Stack(nn.Module):
        def __init__(self, widths):
            super().__init__()
            self.low, self.high = nn.RNN(3, 5, batch_first=True), TopDownRNN(5, widths)

        def forward(self, x):
            return self.high(self.low(x)[0])[0]

    torch.manual_seed(5)
    x = torch.randn(5, 6, 3, dtype=torch.float64)
    for widths in ((12, 8), (10, 5)):
        model = Stack(widths).double()
        _, above = measured(model, x).uses
        check(above, "high", model.high.weight_ih_l0[:, :5], model.low(x)[0])


@pytest.mark.parametrize("cls", [nn.RNNCell, nn.GRUCell, nn.LSTMCell])
def test_a_cell_is_measured_at_every_call(cls):
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = cls(3, 4)

        def forward(self, x):
            state = None
            for step in x.unbind(1):
                state = self.cell(step, state)
            return state[0] if isinstance(state, tuple) else state

    torch.manual_seed(6)
    model, x = Loop().double(), torch.randn(5, 6, 3, dtype=torch.float64)
    recurrence, output = measured(model, x).uses
    assert recurrence.samples == output.samples == 5 * 5


def test_gradients_are_those_of_the_default_loss():
    torch.manual_seed(7)
    model, x, y = Classifier().double(), torch.randn(5, 4, 3, dtype=torch.float64), torch.tensor([0, 1, 1, 0, 1])
    (gradient,) = measured(model, [(x, y)], needs=("gradients",)).gradients
    nn.functional.cross_entropy(model(x), y).backward()
    np.testing.assert_allclose(gradient.w_rec.reshape(24, 6), model.rnn.weight_hh_l0.grad.numpy(), atol=1e-12)
    np.testing.assert_allclose(gradient.b_in.reshape(24), model.rnn.bias_ih_l0.grad.numpy(), atol=1e-12)


def test_gradients_need_targets():
    with pytest.raises(DataError, match="target"):
        measured(Classifier(), torch.randn(5, 4, 3), needs=("gradients",))


def test_a_module_that_is_never_run_is_named():
    class Idle(Classifier):
        def __init__(self):
            super().__init__()
            self.idle = nn.GRU(3, 4)

    with pytest.raises(DataError, match=r"idle\.l0"):
        measured(Idle(), torch.randn(5, 4, 3))


def test_measuring_leaves_the_model_as_it_was():
    model = Classifier().train()
    model.rnn.weight_hh_l0.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    measured(model, [(torch.randn(5, 4, 3), torch.tensor([0, 1, 1, 0, 1]))], needs=("states", "gradients"))
    assert model.training
    assert model.rnn.training
    assert not model.rnn.weight_hh_l0.requires_grad
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.rnn._forward_pre_hooks


def test_targets_and_losses_that_do_not_fit_are_named():
    model, x = Classifier(), torch.randn(5, 4, 3)
    with pytest.raises(DataError, match=r"targets lie in 0\.\.9, the model has 2 classes"):
        measured(model, [(x, torch.tensor([0, 1, 9, 0, 1]))], needs=("gradients",))
    with pytest.raises(DataError, match="return a scalar tensor"):
        collect(model, [(x, torch.zeros(5))], sites(model), ("gradients",), lambda output, target: output)
    with pytest.raises(DataError, match="does not depend on the output"):
        collect(model, [(x, torch.zeros(5))], sites(model), ("gradients",), lambda output, target: target.sum())


def test_states_that_run_away_are_refused_where_they_are_measured():
    torch.manual_seed(0)
    layer = nn.RNN(3, 4, nonlinearity="relu")
    with torch.no_grad():
        layer.weight_hh_l0.fill_(1e6)
        layer.bias_hh_l0.fill_(1.0)
    with pytest.raises(DataError, match="NaN or infinite on the calibration data"):
        collect(layer, torch.ones(20, 4, 3), sites(layer), ["states"])
