"""Accelerated layers, step by step."""

import copy

import pytest
import torch
from torch import nn

import jali
from jali.batches import tensors_in
from jali.errors import DataError, ModelError
from jali.plans import Budget, Plan, SitePlan


def near(got, want):
    pairs = list(zip(tensors_in(got), tensors_in(want), strict=True))
    assert pairs
    for a, b in pairs:
        assert a.shape == b.shape
        assert torch.allclose(a, b.detach(), atol=2e-6)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("cls", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("batch", [None, 1, 3])
def test_a_stream_is_the_sequence(cls, batch, batch_first):
    """From the state of a call with a whole sequence, too; states are what PyTorch's are."""
    torch.manual_seed(0)
    layer = cls(5, 19, num_layers=2, batch_first=batch_first).eval()
    fast = jali.accelerate(layer, torch.randn(4, 1, 5), engine="kernels")
    x = torch.randn(9, 5) if batch is None else torch.randn(9, batch, 5)
    flip = batch_first and batch is not None
    whole = x.transpose(0, 1) if flip else x
    want, final = layer(whole)
    first, state = fast(whole[:, :3] if flip else whole[:3])
    outputs = list(first.transpose(0, 1) if flip else first)
    for step in x[3:]:
        before = copy.deepcopy(state)
        y, new = fast.step(step, state)
        assert all(torch.equal(a, b) for a, b in zip(tensors_in(before), tensors_in(state), strict=True))
        outputs.append(y)
        state = new
    near(torch.stack(outputs), want.transpose(0, 1) if flip else want)
    near(state, final)


@pytest.mark.parametrize("cls", [nn.LSTM, nn.GRU])
def test_inputs_and_states_may_lie_as_they_like(cls):
    torch.manual_seed(0)
    layer = cls(5, 19).eval()
    fast = jali.accelerate(layer, torch.randn(4, 1, 5), engine="kernels")
    x, h = torch.randn(3, 7, 5)[:, 2], torch.randn(1, 19, 3).transpose(1, 2)
    state = (h, 2 * h) if cls is nn.LSTM else h
    y, new = fast.step(x, state)
    want, final = layer(x[None].contiguous(), state)
    near(y, want[0])
    near(new, final)


def test_states_carry_no_gradient():
    fast = jali.accelerate(nn.GRU(5, 9).eval(), torch.randn(4, 2, 5), engine="kernels")
    h = torch.zeros(1, 2, 9, requires_grad=True)
    assert not fast(torch.randn(4, 2, 5), h)[1].requires_grad
    assert not fast.step(torch.randn(2, 5), h)[1].requires_grad


def test_a_layer_masked_by_units_drops_their_states_in_a_stream_too():
    torch.manual_seed(0)
    layer = nn.GRU(5, 12, batch_first=True).eval()
    site = SitePlan("l0", "GRU", 12, tuple(range(0, 12, 2)), (0.0,) * 12)
    masked = jali.mask(layer, Plan("unit", "x", Budget(0.5), (site,)))
    fast = jali.accelerate(masked, torch.randn(2, 4, 5), engine="kernels")
    x, h = torch.randn(3, 5), torch.randn(1, 3, 12)
    want, final = masked(x[:, None], h)
    near(fast.step(x, h), (want[:, 0], final))
    one, last = masked(x[:1], h[:, 0])
    near(fast.step(x[0], h[:, 0]), (one[0], last))


def test_weights_are_packed_once_for_all_numbers_of_sequences():
    fast = jali.accelerate(nn.GRU(5, 9).eval(), torch.randn(4, 2, 5), engine="kernels")
    for batch in range(1, 20):
        fast.step(torch.randn(batch, 5))
    assert list(fast.__dict__["_packed"].rows) == [2]


def test_steps_that_do_not_fit_are_named():
    layer, x = nn.LSTM(5, 9).eval(), torch.randn(4, 2, 5)
    fast, zeros = jali.accelerate(layer, x, engine="kernels"), torch.zeros(1, 2, 9)
    for step, state, message in [
        (x[0, 0, :4], None, r"\(5,\)"), (x, None, r"\(5,\)"), (x[0].double(), None, "float64"), (x[0, :0], None, "B ≥ 1"),
        (x[0].numpy(), None, "ndarray"), (x[0], (torch.zeros(1, 1, 9),) * 2, r"must be float32 \(1, 2, 9\)"),
        (x[0], (zeros.double(), zeros.double()), "float64"), (x[0], (zeros.bfloat16(), zeros), "bfloat16"),
        (x[0], zeros, "pair"), (x[0], (zeros, None), "NoneType"), (x[0, 0], (zeros[:, :1],) * 2, r"\(1, 9\)"),
    ]:  # fmt: skip
        with pytest.raises(DataError, match=message):
            fast.step(step, state)
    both = jali.accelerate(nn.LSTM(5, 9, bidirectional=True).eval(), x, engine="kernels")
    with pytest.raises(ModelError, match="bidirectional"):
        both.step(x[0])
    with pytest.raises(ModelError, match="training mode"):
        fast.train().step(x[0])
