"""Watching a model run: the states of every layer and direction are those that PyTorch's fused layer passes through."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from jali.batches import batches
from jali.capture import inputs_of, layer_call, layer_states, reverse_within, unit_states
from jali.view import layer_views
from tests.strategies_models import forms, layers


def padded(layer, output):
    """The output of a call, (B, T, ·), whatever form the call had."""
    if isinstance(output, PackedSequence):
        return pad_packed_sequence(output, batch_first=True)[0]
    if output.dim() == 2:
        return output.unsqueeze(0)
    return output if layer.batch_first else output.transpose(0, 1)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@settings(max_examples=150)
@given(layer=layers(dtypes=(torch.float64,)), form=forms)
def test_the_states_of_the_last_layer_are_its_output(layer, form):
    args = form.arguments(layer)
    call = layer_call(layer, args, {})
    states = layer_states(layer_views(layer), call, layer)
    output, final = layer(*args)
    got = torch.cat([after for _, after in states[-1]], dim=-1)
    torch.testing.assert_close(got, padded(layer, output), rtol=0, atol=1e-12)
    h = (final[0] if isinstance(final, tuple) else final).reshape(
        len(states) * len(states[0]), -1, got.shape[-1] // len(states[0])
    )
    rows = torch.arange(len(call.lengths))
    for slot, (_, after) in enumerate(pair for row in states for pair in row):
        last = torch.zeros_like(call.lengths) if layer.bidirectional and slot % 2 else call.lengths - 1
        torch.testing.assert_close(after[rows, last], h[slot], rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@settings(max_examples=80)
@given(layer=layers(dtypes=(torch.float64,)), form=forms)
def test_before_is_after_one_step_earlier_and_starts_from_the_given_state(layer, form):
    args = form.arguments(layer)
    call = layer_call(layer, args, {})
    states = layer_states(layer_views(layer), call, layer)
    rows = torch.arange(len(call.lengths))
    for slot, (before, after) in enumerate(pair for row in states for pair in row):
        reverse = layer.bidirectional and slot % 2
        first = call.lengths - 1 if reverse else torch.zeros_like(call.lengths)
        start = torch.zeros_like(before[:, 0]) if call.h is None else call.h[slot].reshape(before[:, 0].shape)
        torch.testing.assert_close(before[rows, first], start)
        both = call.valid[:, 1:]
        earlier, later = (after[:, 1:], before[:, :-1]) if reverse else (after[:, :-1], before[:, 1:])
        assert torch.equal(earlier[both], later[both])
        assert not before[~call.valid].any()
        assert not after[~call.valid].any()


@given(st.integers(0, 999), st.integers(1, 5), st.integers(1, 7))
def test_reversing_within_lengths_is_its_own_inverse(seed, batch, steps):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, steps, 2, generator=generator)
    lengths = torch.randint(1, steps + 1, (batch,), generator=generator)
    once = reverse_within(x, lengths)
    assert torch.equal(reverse_within(once, lengths), x)
    for row, length in enumerate(lengths.tolist()):
        assert torch.equal(once[row, :length], x[row, :length].flip(0))
        assert torch.equal(once[row, length:], x[row, length:])


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("given_state", [False, True])
def test_units_behind_a_projection_project_to_the_states(given_state):
    torch.manual_seed(0)
    layer = nn.LSTM(3, 6, proj_size=2, batch_first=True, dtype=torch.float64)
    x, h, c = torch.randn(4, 5, 3).double(), torch.randn(1, 4, 2).double(), torch.randn(1, 4, 6).double()
    call = layer_call(layer, (x, (h, c)) if given_state else (x,), {})
    (view,) = layer_views(layer)[0]
    _, units = unit_states(view, call, layer, 0)
    output = layer(x, (h, c))[0] if given_state else layer(x)[0]
    torch.testing.assert_close(units @ torch.from_numpy(view.w_proj).T, output, rtol=0, atol=1e-12)


def test_inputs_are_recorded_in_the_order_of_the_calls_and_the_model_is_left_alone():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.idle = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            return self.first(self.second(x)) + self.second(2 * x)

    model = Two().train()
    x = torch.randn(3, 2)
    calls = inputs_of(model, ["first", "second", "idle"], batches([x, x + 1]))
    assert list(calls) == ["second", "first", "idle"]
    assert [len(found) for found in calls.values()] == [4, 2, 0]
    assert torch.equal(calls["second"][1][0][0], 2 * x)
    assert torch.equal(calls["second"][2][0][0], x + 1)
    assert model.training
    assert not model.first._forward_pre_hooks
