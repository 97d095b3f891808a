"""Steps and Jacobians against PyTorch's own cells and autograd; spectra and contraction bounds of networks."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call, jacrev

from jali.contraction import Contraction, contraction_bound, sampled_norm
from jali.dynamics import Recurrence, exponent_curve, jacobians, site_spectrum
from jali.errors import DynamicsError, ModelError
from jali.maths.lyapunov import lyapunov_spectrum
from jali.site import sites
from jali.view import read

KINDS = [(nn.LSTM, {}), (nn.LSTM, {"proj_size": 3}), (nn.GRU, {}), (nn.RNN, {}), (nn.RNN, {"nonlinearity": "relu"})]
every_kind = pytest.mark.parametrize(
    ("cls", "options"), KINDS, ids=["lstm", "lstm-proj", "gru", "rnn-tanh", "rnn-relu"]
)


def layer(cls, options, seed, hidden=5, bias=True, scale=1.0):
    torch.manual_seed(seed)
    module = cls(4, hidden, batch_first=True, bias=bias, dtype=torch.float64, **options)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(scale)
    return module


def recurrence(module):
    return Recurrence(read(module, sites(module)[0]), getattr(module, "nonlinearity", "tanh"))


def torch_step(module):
    """The layer's own step of one sequence, state vector to state vector."""
    width = module.proj_size or module.hidden_size
    weights = {name: value.detach() for name, value in module.named_parameters()}

    def step(state, x):
        h, c = state[None, :width], state[None, width:]
        hx = (h, c) if isinstance(module, nn.LSTM) else h
        after = functional_call(module, weights, (x[None], hx))[1]
        return torch.cat([part[0] for part in after]) if isinstance(module, nn.LSTM) else after[0]

    return step


@every_kind
@given(seed=st.integers(0, 10**6), bias=st.booleans(), scale=st.sampled_from([0.3, 1.0, 3.0]))
@settings(max_examples=10)
def test_steps_and_jacobians_are_those_of_pytorch(cls, options, seed, bias, scale):
    module = layer(cls, options, seed, bias=bias, scale=scale)
    own = recurrence(module)
    x, state = torch.randn(6, 4, dtype=torch.float64), torch.randn(6, own.size, dtype=torch.float64)
    step = torch_step(module)
    want = torch.stack([step(s, row) for s, row in zip(state, x, strict=True)])
    np.testing.assert_allclose(own.step(x.numpy(), state.numpy()), want.numpy(), rtol=0, atol=1e-12)
    jacobian = torch.stack([jacrev(step)(s, row) for s, row in zip(state, x, strict=True)])
    np.testing.assert_allclose(own.jacobian(x.numpy(), state.numpy()), jacobian.numpy(), rtol=0, atol=1e-12)


@every_kind
def test_the_trajectory_is_that_of_the_layer(cls, options):
    module = layer(cls, options, 0)
    own, x = recurrence(module), torch.randn(3, 7, 4, dtype=torch.float64)
    states = own.states(x.numpy())
    with torch.no_grad():
        np.testing.assert_allclose(states[:, 1:, : own.outputs], module(x)[0].numpy(), atol=1e-12)
    assert (states[:, 0] == 0).all()
    given_start = own.states(x[:, 4:].numpy(), states[:, 4])
    np.testing.assert_allclose(given_start, states[:, 4:])


@every_kind
def test_the_spectrum_is_that_of_the_jacobians_of_each_sequence(cls, options):
    own, x = recurrence(layer(cls, options, 1, scale=2.0)), np.random.default_rng(0).normal(size=(3, 9, 4))
    found, states = site_spectrum(own, x, lengths=[9, 4, 6]), own.states(x)
    assert found.exponents.shape == (3, own.size)
    assert found.steps == 4
    for b, length in enumerate([9, 4, 6]):
        moved = [own.jacobian(x[b : b + 1, t], states[b : b + 1, t])[0] for t in range(length)]
        np.testing.assert_array_equal(found.exponents[b], lyapunov_spectrum(moved).exponents)


def test_a_relu_network_with_dead_units_says_that_its_jacobian_is_singular():
    own = recurrence(layer(nn.RNN, {"nonlinearity": "relu"}, 0))
    found = site_spectrum(own, np.random.default_rng(0).normal(size=(2, 20, 4)))
    assert found.singular
    assert found.notes[0].startswith("2 of 2 sequences: ")
    assert not np.isnan(found.exponents).any()


def test_a_stack_is_block_triangular():
    """The spectrum of a stack is that of its layers: its Jacobian has theirs on the diagonal and zeros above."""
    torch.manual_seed(0)
    stack = nn.GRU(4, 3, num_layers=2, batch_first=True, dtype=torch.float64)
    weights = {name: value.detach() for name, value in stack.named_parameters()}

    def step(state, x):
        return functional_call(stack, weights, (x[None], state.reshape(2, 3)))[1].reshape(-1)

    x, state = torch.randn(4, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    whole = jacrev(step)(state, x).numpy()
    views = [Recurrence(read(stack, site)) for site in sites(stack)]
    first = views[0].step(x.numpy()[None], state.numpy()[None, :3])
    np.testing.assert_allclose(
        whole[:3, :3], views[0].jacobian(x.numpy()[None], state.numpy()[None, :3])[0], atol=1e-12
    )
    np.testing.assert_allclose(whole[3:, 3:], views[1].jacobian(first, state.numpy()[None, 3:])[0], atol=1e-12)
    assert (whole[:3, 3:] == 0).all()


@every_kind
@given(seed=st.integers(0, 10**6), scale=st.sampled_from([0.1, 0.5, 1.0, 4.0]), started=st.booleans())
@settings(max_examples=15)
def test_no_jacobian_stretches_more_than_the_bound(cls, options, seed, scale, started):
    own = recurrence(layer(cls, options, seed, scale=scale))
    rng = np.random.default_rng(seed)
    low = rng.normal(size=4)
    high = low + rng.exponential(size=4)
    x = rng.choice([0.0, 0.5, 1.0], size=(8, 12, 4)) * (high - low) + low  # corners of the box are reached
    start = rng.normal(scale=2, size=(8, own.size)) * started
    states = own.states(x, start)
    norms = [np.linalg.norm(own.jacobian(x[:, t], states[:, t]), 2, axis=(1, 2)).max() for t in range(12)]
    bound = contraction_bound(own, (low, high), start)
    assert max(norms) <= bound * (1 + 1e-12)
    assert bound <= contraction_bound(own, None, start) * (1 + 1e-12)  # any input at all
    sampled = sampled_norm(own, x, states)
    assert sampled <= max(norms) * (1 + 1e-12)
    assert sampled >= 0.9 * max(norms)


@every_kind
def test_the_bound_is_reached_where_it_can_be(cls, options):
    """Without a recurrence only the gates are left: z of a GRU, f of an LSTM, and what they pass on to h."""
    module = layer(cls, options, 0)
    with torch.no_grad():
        module.weight_hh_l0.zero_()
        module.weight_ih_l0.zero_()
    own, x = recurrence(module), np.zeros((1, 3, 4))
    norm = sampled_norm(own, x, own.states(x))
    bound = contraction_bound(own, (np.zeros(4), np.zeros(4)))
    if cls is nn.LSTM:
        assert norm <= bound < 1.6 * norm
    else:
        assert bound == pytest.approx(norm)


def one_unit(cls, w_in, w_rec, bias):
    """A layer of one unit and one input; gate by gate its weights and bias."""
    module = cls(1, 1, batch_first=True, dtype=torch.float64)
    for name, values in {"weight_ih": w_in, "weight_hh": w_rec, "bias_ih": bias, "bias_hh": [0] * len(bias)}.items():
        getattr(module, f"{name}_l0").data.copy_(
            torch.tensor(values, dtype=torch.float64).reshape(-1, *[1] * name.startswith("w"))
        )
    return recurrence(module)


def bound_and_norm(own, x, start=None):
    low, high = x.min(axis=(0, 1)), x.max(axis=(0, 1))
    return contraction_bound(own, (low, high), start), sampled_norm(own, x, own.states(x, start))


def test_an_lstm_that_remembers_long_has_a_large_cell():
    """c grows to i g / (1 - f), here 19, and with it the slope of the forget gate."""
    own = one_unit(nn.LSTM, [0, 0, 9, 0], [0, 1, 0, 0], [3, 3, 0, -9])
    bound, norm = bound_and_norm(own, np.ones((1, 200, 1)))
    assert norm < bound
    assert norm > 1.2


def test_a_given_cell_state_counts():
    own = one_unit(nn.LSTM, [0] * 4, [0, 1, 0, 0], [-9, 0, 0, -9])
    bound, norm = bound_and_norm(own, np.ones((1, 3, 1)), np.array([[0.0, 50.0]]))
    assert 0.9 * bound < norm < bound
    assert norm > 12


def test_an_output_gate_that_reads_its_own_unit_stretches():
    own = one_unit(nn.LSTM, [0] * 4, [0, 0, 0, 8], [-9, -9, 0, -4])
    bound, norm = bound_and_norm(own, np.ones((1, 1, 1)), np.array([[0.5, 1e5]]))
    assert norm == pytest.approx(2, rel=1e-3)
    assert norm < bound < 1.1 * norm


def test_a_gru_whose_input_flips_is_far_from_its_candidate():
    """h is near 1 when n turns to -1: the update gate moves h by up to 2."""
    x = np.ones((1, 40, 1))
    x[:, -1] = -1
    bound, norm = bound_and_norm(one_unit(nn.GRU, [0, 0, 9], [0, 0.5, 0], [0, 0, 0]), x)
    assert 0.9 * bound < norm < bound


@every_kind
@given(seed=st.integers(0, 10**6), scale=st.sampled_from([0.01, 0.1, 0.3, 1.0]))
@settings(max_examples=10)
def test_theorem_iii_7(cls, options, seed, scale):
    """A bound below one forces a negative maximal exponent; log sampled norm bounds it always."""
    own = recurrence(layer(cls, options, seed, scale=scale))
    x = np.random.default_rng(seed).uniform(-1, 1, size=(2, 15, 4))
    exponent = site_spectrum(own, x).exponents.max()
    found = Contraction(contraction_bound(own, (-np.ones(4), np.ones(4))), 0.0, exponent)
    assert found.theorem == ("holds" if found.bound < 1 else "premise not met")
    states = own.states(x)
    norms = [np.linalg.norm(own.jacobian(x[:, t], states[:, t]), 2, axis=(1, 2)).max() for t in range(15)]
    assert exponent <= np.log(max(*norms, np.finfo(float).tiny)) + 1e-9


def test_theorem_iii_7_has_three_answers():
    assert Contraction(0.5, 0.4, -0.8).theorem == "holds"
    assert Contraction(0.5, 0.4, -0.6).theorem == "fails"
    assert Contraction(1.0, 0.4, -0.8).theorem == "premise not met"
    assert Contraction(float("inf"), 0.4, -0.8).theorem == "premise not met"


def test_small_networks_meet_the_premise():
    for cls, options in KINDS[2:]:
        own = recurrence(layer(cls, options, 0, scale=0.2))
        assert contraction_bound(own, (-np.ones(4), np.ones(4))) < 1


def test_a_forget_gate_that_may_stay_open_is_not_bounded():
    own = recurrence(layer(nn.LSTM, {}, 0))
    assert contraction_bound(own) == float("inf")  # any input at all may open it
    assert contraction_bound(own, (-np.ones(4), np.ones(4))) < float("inf")


def test_the_exponent_curve_ends_where_nothing_is_left():
    own = recurrence(layer(nn.RNN, {}, 3, hidden=6, scale=2.0))
    x = np.random.default_rng(0).normal(size=(4, 60, 4))
    curve = exponent_curve(own, x, [0.0, 0.3, 10.0])
    whole = site_spectrum(own, x).largest
    assert curve[0] == pytest.approx(whole, abs=0.05)  # one direction, turned by the first steps
    assert curve[2] == -np.inf
    cut = own.view.replace(w_rec=np.where(np.abs(own.view.w_rec) < 0.3, 0, own.view.w_rec))
    assert curve[1] == exponent_curve(Recurrence(cut), x, [0.0])[0]


def test_the_largest_exponent_is_found_beside_a_quiet_block_and_units_that_nothing_reads():
    own = recurrence(layer(nn.RNN, {}, 3, hidden=6))
    weights = np.zeros((1, 6, 6))
    weights[0, 1:3, 1:3], weights[0, 3:, 3:] = 0.1 * np.eye(2), 0.8 * np.eye(3)
    still = Recurrence(own.view.replace(w_rec=weights, b_in=None, b_rec=None))
    found = site_spectrum(still, np.zeros((1, 60, 4)), count=1)
    assert found.largest == pytest.approx(np.log(0.8), abs=0.05)
    assert found.notes == ()


def test_what_cannot_be_a_system_is_one_clear_error():
    linear = nn.Linear(3, 4)
    with pytest.raises(ModelError, match="has no state"):
        Recurrence(read(linear, sites(linear, linear=True)[0]))
    own = recurrence(layer(nn.RNN, {"nonlinearity": "relu"}, 0, scale=1e3))
    with pytest.raises(ModelError, match="nonlinearity 'sine'"):
        Recurrence(own.view, "sine")
    with pytest.raises(DynamicsError, match=r"\(B, T, 4\) is wanted"):
        own.states(np.zeros((2, 5, 3)))
    with pytest.raises(DynamicsError, match=r"left the finite numbers at step \d+"), np.errstate(over="ignore"):
        own.states(np.ones((1, 400, 4)))
    with pytest.raises(DynamicsError, match="do not fit 2 sequences of at most 5"):
        site_spectrum(own, np.zeros((2, 5, 4)), lengths=[6, 5])


def test_jacobians_walk_along_the_states():
    own, x = recurrence(layer(nn.GRU, {}, 0)), np.random.default_rng(0).normal(size=(1, 4, 4))
    states = own.states(x)
    found = list(jacobians(own, x[0], states[0]))
    assert len(found) == 4
    np.testing.assert_array_equal(found[3], own.jacobian(x[:, 3], states[:, 3])[0])
    assert found[3].flags.f_contiguous  # as LAPACK wants them
