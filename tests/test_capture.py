"""Capture: the states of every layer and direction are those of the layer itself, however it is called."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from jali.batches import Batch
from jali.capture import Call, inputs_of, layer_call, layer_states, reverse_within, run_direction, unit_states
from jali.errors import DataError
from jali.view import layer_views
from jali.widths import UnevenLayers
from tests.strategies_models import forms, layers

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")
DOUBLE = (torch.float64,)


def padded(output, batch_first):
    """A layer's output as (B, T, ·); padding is zero."""
    if isinstance(output, PackedSequence):
        return pad_packed_sequence(output, batch_first=True)[0]
    if output.dim() == 2:
        return output.unsqueeze(0)
    return output if batch_first else output.transpose(0, 1)


def per_slot(state):
    """Final or initial states as one (B, ·) tensor for every layer and direction."""
    return [part.reshape(-1, state.shape[-1]) for part in state]


def initial_of(args, layer):
    """The given ``h`` per slot, or None."""
    if len(args) == 1:
        return None
    return per_slot(args[1][0] if isinstance(layer, nn.LSTM) else args[1])


def slots_of(rows):
    return [(pair, bool(direction)) for row in rows for direction, pair in enumerate(row)]


@settings(max_examples=100)
@given(layer=layers(dtypes=DOUBLE), form=forms)
def test_states_are_the_outputs_and_the_final_states_of_the_layer(layer, form):
    args = form.arguments(layer)
    output, final = layer(*args)
    call = layer_call(layer, args, {})
    rows = layer_states(layer_views(layer), call, layer)
    torch.testing.assert_close(torch.cat([after for _, after in rows[-1]], -1), padded(output, layer.batch_first))
    last, everyone = call.lengths - 1, torch.arange(len(call.lengths))
    h = per_slot(final[0] if isinstance(layer, nn.LSTM) else final)
    for ((_, after), reverse), want in zip(slots_of(rows), h, strict=True):
        torch.testing.assert_close(after[:, 0] if reverse else after[everyone, last], want)


@settings(max_examples=100)
@given(layer=layers(dtypes=DOUBLE), form=forms)
def test_before_is_after_shifted_by_one_step_from_the_given_state(layer, form):
    args = form.arguments(layer)
    call, given_h = layer_call(layer, args, {}), initial_of(args, layer)
    rows = layer_states(layer_views(layer), call, layer)
    for slot, ((before, after), reverse) in enumerate(slots_of(rows)):
        for b, length in enumerate(call.lengths.tolist()):
            start = torch.zeros_like(after[b, 0]) if given_h is None else given_h[slot][b]
            steps = list(after[b, :length].detach())
            want = [*steps[1:], start] if reverse else [start, *steps[:-1]]
            torch.testing.assert_close(before[b, :length], torch.stack(want), rtol=0, atol=0)
            assert not before[b, length:].any()
            assert not after[b, length:].any()


@settings(max_examples=40)
@given(layer=layers(dtypes=DOUBLE), form=forms)
def test_a_call_is_read_the_same_by_position_and_by_name(layer, form):
    args = form.arguments(layer)
    named = layer_call(layer, (), dict(zip(("input", "hx"), args, strict=False)))
    for a, b in zip(dataclasses.astuple(layer_call(layer, args, {})), dataclasses.astuple(named), strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@settings(max_examples=40)
@given(data=st.data(), layer=layers(dtypes=DOUBLE, batch_first=True), form=forms)
def test_layers_of_unequal_width_are_captured_like_any_other(data, layer, form):
    """Views cut to other widths at every site, as an uneven stack: its outputs are the states of the last layer."""
    keep = [
        [np.arange(data.draw(st.integers(view.site.minimum, view.hidden))) for view in row]
        for row in layer_views(layer)
    ]
    views, reads = [], None
    for row, kept in zip(layer_views(layer), keep, strict=True):
        views.append([view.cut(units, reads) for view, units in zip(row, kept, strict=True)])
        reads = None if layer.proj_size else np.concatenate([k + d * layer.hidden_size for d, k in enumerate(kept)])
    stack, args = UnevenLayers.of(views, layer).eval(), form.arguments(layer)
    if len(args) > 1:
        h, c = args[1] if isinstance(layer, nn.LSTM) else (args[1], args[1])
        units = [k for row in keep for k in row]
        narrow_h = [part[None] if layer.proj_size else part[None][..., k] for part, k in zip(h, units, strict=True)]
        narrow_c = [part[None][..., k] for part, k in zip(c, units, strict=True)]
        args = (args[0], list(zip(narrow_h, narrow_c, strict=True)) if isinstance(layer, nn.LSTM) else narrow_h)
    rows = layer_states(views, layer_call(stack, args, {}), layer)
    torch.testing.assert_close(torch.cat([after for _, after in rows[-1]], -1), padded(stack(*args)[0], True))


@settings(max_examples=40)
@given(layer=layers(dtypes=DOUBLE, projections=False), form=forms)
def test_units_without_a_projection_are_the_states(layer, form):
    call = layer_call(layer, form.arguments(layer), {})
    view = layer_views(layer)[0][0]
    for got, want in zip(unit_states(view, call, layer, 0), run_direction(view, call, layer, 0), strict=True):
        assert torch.equal(got, want)


@settings(max_examples=40)
@given(
    hidden=st.integers(3, 7),
    projection=st.integers(1, 2),
    bias=st.booleans(),
    bidirectional=st.booleans(),
    form=forms,
)
def test_units_behind_a_projection_are_projected_to_the_states(hidden, projection, bias, bidirectional, form):
    torch.manual_seed(hidden)
    layer = nn.LSTM(3, hidden, proj_size=projection, bias=bias, bidirectional=bidirectional, dtype=torch.float64)
    args = form.arguments(layer)
    call = layer_call(layer, args, {})
    for slot, view in enumerate(layer_views(layer)[0]):
        project = torch.from_numpy(view.w_proj).T
        units, states = unit_states(view, call, layer, slot), run_direction(view, call, layer, slot)
        for behind, want in zip(units, states, strict=True):
            assert behind.shape[-1] == hidden
            torch.testing.assert_close(behind @ project, want, atol=1e-10, rtol=1e-8)


ragged = st.lists(st.integers(1, 6), min_size=1, max_size=5)


@given(lengths=ragged, width=st.integers(1, 3))
def test_reversing_within_the_lengths(lengths, width):
    """An involution that reverses every sequence and leaves its padding where it is."""
    torch.manual_seed(0)
    x, sizes = torch.randn(len(lengths), max(lengths), width), torch.tensor(lengths)
    once = reverse_within(x, sizes)
    assert torch.equal(reverse_within(once, sizes), x)
    for b, length in enumerate(lengths):
        assert torch.equal(once[b, :length], x[b, :length].flip(0))
        assert torch.equal(once[b, length:], x[b, length:])
    full = torch.full_like(sizes, max(lengths))
    assert torch.equal(reverse_within(x, full), x.flip(1))


@given(lengths=ragged)
def test_valid_steps_are_counted_by_the_lengths(lengths):
    valid = Call(torch.zeros(len(lengths), 6, 1), torch.tensor(lengths)).valid
    assert valid.sum(1).tolist() == lengths
    assert not (valid[:, 1:] & ~valid[:, :-1]).any()  # no valid step behind the padding


class Twice(nn.Module):
    """Calls ``b`` before ``a``, ``b`` twice, and never ``idle``."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.idle = nn.GRU(4, 3), nn.GRU(4, 4), nn.GRU(4, 4)
        self.b.eval()

    def forward(self, x, h=None):
        y, h = self.b(x, h)
        return self.a(input=self.b(y)[0])


def test_inputs_are_seen_in_the_order_of_the_calls_and_the_model_is_left_alone():
    torch.manual_seed(0)
    model = Twice()
    batches = [torch.randn(5, 2, 4), torch.randn(3, 1, 4)]
    h = torch.randn(1, 2, 4)
    modes = [module.training for module in model.modules()]
    calls = inputs_of(model, ["a", "idle", "b"], [Batch((batches[0],), {"h": h}), Batch((batches[1],))])
    assert list(calls) == ["b", "a", "idle"]
    assert [len(found) for found in calls.values()] == [4, 2, 0]
    (args, kwargs), (second, _) = calls["b"][:2]
    assert torch.equal(args[0], batches[0])
    assert torch.equal(args[1], h)
    assert kwargs == {}
    assert torch.equal(second[0], model.b(batches[0], h)[0])
    assert not second[0].requires_grad
    args, kwargs = calls["a"][1]
    assert args == ()
    assert torch.equal(kwargs["input"], model.b(model.b(batches[1])[0])[0])
    assert [module.training for module in model.modules()] == modes
    assert not model.a._forward_pre_hooks
    assert not model.b._forward_pre_hooks


def test_a_model_that_fails_is_left_alone_too():
    model = Twice()
    with pytest.raises(DataError, match="cannot run on inputs of shape"):
        inputs_of(model, ["a", "b"], [Batch((torch.randn(5, 2, 3),))])
    assert model.training
    assert not model.b.training
    assert not model.b._forward_pre_hooks
