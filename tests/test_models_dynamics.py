"""Networks of jali.models as dynamical systems: against autograd, an independent integrator, and their own bounds."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from torch import nn
from torch.func import jacrev

import jali
from jali.analysis.observe import observe
from jali.batches import batches
from jali.contraction import contraction_bound, sampled_norm
from jali.coupled import coupled
from jali.dynamics import Recurrence, decay_terms, recurrence_of, site_spectrum
from jali.errors import DynamicsError, ModelError
from jali.maths.feedback import feedback_operator, layer_lattice, operator_preserves
from jali.models import CohenGrossberg, TopDownRNN
from jali.site import sites
from jali.theorems.feedback import feedbacks, preserved
from jali.view import read
from tests.test_models import networks


def cohen_grossberg(seed, size=4, scale=1.0, step=0.1, spread=0.5):
    torch.manual_seed(seed)
    core = CohenGrossberg(3, size, step=step).double()
    with torch.no_grad():
        core.weight_hh_l0.mul_(scale)
        core.terms_l0.normal_(std=spread)
    return core


# The differential equation --------------------------------------------------------------------------------------------
def solution(core, x, start, interval):
    """tanh of the solution of the printed equation after every input, by an adaptive Runge–Kutta pair of order 8."""
    w, u, c = (core.weight(name, 0).detach().numpy() for name in ("weight_hh", "weight_ih", "bias"))
    log_a, log_gamma, root_s, root_kappa = core.terms_l0.detach().numpy()

    def rate(_, state, given_input):
        alpha = np.exp(log_a) / (1 + root_s**2 * state**2)
        beta = np.exp(log_gamma) * state + root_kappa**2 * state**3
        return alpha * (-beta + w @ np.tanh(state) + u @ given_input + c)

    seen, state = [np.tanh(start)], start
    for row in x:
        state = solve_ivp(rate, (0, interval), state, "DOP853", args=(row,), rtol=1e-11, atol=1e-12).y[:, -1]
        seen.append(np.tanh(state))
    return np.array(seen)


@given(st.integers(0, 10**6), st.sampled_from([0.5, 2.0, 6.0]))
@settings(max_examples=12, deadline=None)
def test_it_is_the_solution_up_to_what_the_check_says(seed, scale):
    core = cohen_grossberg(seed, scale=scale)
    rng = np.random.default_rng(seed)
    x, start, parts = rng.normal(size=(6, 3)), rng.normal(size=4), 64
    exact = solution(core, x, start, 0.5)
    core.step = 0.5 / parts
    fine, first = torch.from_numpy(np.repeat(x, parts, axis=0))[None], torch.from_numpy(start)[None]
    error = np.abs(core.trajectory(fine, first)[0][0, ::parts].detach().numpy() - exact).max()
    estimate = core.check_step(fine, first, tolerance=1.0)
    assert error <= 1.25 * estimate  # Richardson's is right up to a term of the next order
    assert estimate < 0.1


def test_a_step_that_is_too_long_is_refused_with_one_that_would_do():
    core = cohen_grossberg(0, scale=4.0, step=2.0)
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 8, 3)))
    with pytest.raises(
        DynamicsError, match=r"step of 2 the activations are off by about .* over 0\.01; a step of"
    ) as no:
        core.check_step(x, tolerance=1e-2)
    core.step = float(str(no.value).split("a step of about ")[1].split()[0])
    assert core.check_step(x.repeat_interleave(int(2 / core.step), dim=1), tolerance=1e-2) <= 1e-2
    assert core(x)[0].shape == (2, 8, 4)  # it changes nothing
    for bad in (0.0, float("nan")):
        with pytest.raises(DynamicsError, match="can never be met"):
            core.check_step(x, tolerance=bad)
    for bad in (0.0, -1.0, float("nan"), "short", None):
        with pytest.raises(ModelError, match="not a positive length of time"):
            core.step = bad


@given(st.integers(0, 10**6), st.floats(1e-3, 1e6), st.sampled_from([0.1, 1.0, 30.0]))
@settings(max_examples=40, deadline=None)
def test_no_step_is_too_long_to_stay_bounded(seed, step, scale):
    core = cohen_grossberg(seed, scale=scale, step=step, spread=1.0)
    x, start = torch.randn(3, 40, 3).double() * scale, torch.randn(3, 4).double() * scale
    gamma = core.terms_l0[1].exp()
    most = (core.weight_hh_l0.abs().sum(1) + core.current(x).abs().amax((0, 1))) / gamma
    states = torch.stack([core(x[:, :t], start)[1] for t in (1, 5, 40)])
    assert (states.abs() <= torch.maximum(most, start.abs().amax(0)) * (1 + 1e-12)).all()


# Steps and Jacobians --------------------------------------------------------------------------------------------------
@given(networks(dtypes=(torch.float64,)), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_steps_and_jacobians_of_every_layer_and_of_all_together(core, seed):
    """A layer's own Jacobian is the block of it; all others, and the whole, are autograd's."""
    rng = np.random.default_rng(seed)
    x, state = rng.normal(size=(3, core.input_size)), rng.normal(size=(3, sum(core.sizes)))
    state = np.abs(state) if getattr(core, "nonlinearity", "") == "relu" else state

    def step(start, given_input):
        return core(given_input[None, None], start[None])[1][0]

    rows = [(torch.from_numpy(a), torch.from_numpy(b)) for a, b in zip(state, x, strict=True)]
    want = np.array([step(*row).detach().numpy() for row in rows])
    moved = np.array([jacrev(step)(*row).detach().numpy() for row in rows])
    if isinstance(core, CohenGrossberg):
        system = recurrence_of(core, sites(core)[0])
        np.testing.assert_allclose(system.step(x, state), want, rtol=0, atol=1e-12)
    else:
        system = coupled(core)
    np.testing.assert_allclose(system.states(x[:, None], state)[:, 1], want, rtol=0, atol=1e-12)
    np.testing.assert_allclose(system.jacobian(x, state), moved, rtol=0, atol=1e-11)


@given(networks(dtypes=(torch.float64,)), st.booleans())
@settings(max_examples=25, deadline=None)
def test_what_a_layer_is_seen_to_read_moves_it_as_it_moved(core, started):
    x = torch.randn(3, 6, core.input_size).double()
    start = torch.randn(3, sum(core.sizes)).double() * started

    class Given(nn.Module):
        def __init__(self):
            super().__init__()
            self.core = core

        def forward(self, x, hx=None):
            return self.core(x, hx)[0]

    model = Given()
    runs = observe(model, batches([{"x": x, "hx": start}]) if started else batches(x), sites(model))
    seen = core.trajectory(x, start if started else None)
    for layer, site in enumerate(sites(model)):
        (run,) = runs[site.name]
        first = run.start if run.start.shape[1] else None
        assert (first is not None) == started
        states = recurrence_of(model, site).states(run.x, first)[:, 1:]
        np.testing.assert_allclose(run.h, seen[layer][:, 1:].detach().numpy(), atol=1e-14)
        np.testing.assert_allclose(np.tanh(states) if site.kind == "CohenGrossberg" else states, run.h, atol=1e-12)


@given(st.integers(0, 10**6), st.sampled_from([0.1, 1.0, 4.0]), st.floats(0.05, 5.0), st.booleans(), st.booleans())
@settings(max_examples=40, deadline=None)
def test_no_jacobian_stretches_more_than_the_bound(seed, scale, step, linear, started):
    core = cohen_grossberg(seed, scale=scale, step=step, spread=0.7)
    if linear:
        core.terms_l0.data[2:] = 0
    own, rng = recurrence_of(core, sites(core)[0]), np.random.default_rng(seed)
    low = rng.normal(size=3)
    high = low + rng.exponential(size=3)
    x = rng.choice([0.0, 0.5, 1.0], size=(8, 12, 3)) * (high - low) + low
    start = rng.normal(scale=2, size=(8, 4)) * started
    states = own.states(x, start)
    norms = [np.linalg.norm(own.jacobian(x[:, t], states[:, t]), 2, axis=(1, 2)).max() for t in range(12)]
    bound = contraction_bound(own, (low, high), start)
    assert max(norms) <= bound * (1 + 1e-12)
    anything = contraction_bound(own, None, start)
    assert bound <= anything * (1 + 1e-12)
    assert np.isinf(anything) != linear  # the slope of a linear decay knows no state


@given(
    st.tuples(*[st.floats(-1.0, 1.0)] * 2, *[st.sampled_from([0.0, 0.3, 1.0, 2.5])] * 2),
    st.sampled_from([0.1, 1.0, 10.0, 50.0]),
    st.sampled_from([0.0, 1.0, 30.0]),
    st.sampled_from([0.5, 2.0, 10.0]),
)
@settings(max_examples=80, deadline=None)
def test_the_bound_holds_at_every_state_of_a_unit_alone(terms, step, drive, most):
    core = CohenGrossberg(1, 1, bias=False, step=step).double()
    with torch.no_grad():
        core.terms_l0.copy_(torch.tensor(terms, dtype=torch.float64)[:, None])
        core.weight_hh_l0.zero_()
        core.weight_ih_l0.fill_(drive)
    own, states = recurrence_of(core, sites(core)[0]), np.linspace(-most, most, 401)[:, None]
    moved = np.abs(own.jacobian(np.ones((401, 1)), states)).max()
    # A Jacobian is a difference of numbers of the order of 1: what is left of them is rounded as they are.
    rounding = np.finfo(float).eps
    assert moved <= contraction_bound(own, (np.ones(1), np.ones(1)), states) * (1 + 1e-12) + rounding


def test_the_bound_is_reached_without_recurrence_and_near_the_origin():
    core = cohen_grossberg(1, step=0.4)
    with torch.no_grad():
        core.terms_l0[2:] = 0
        core.weight_hh_l0.zero_()
    own = recurrence_of(core, sites(core)[0])
    a, gamma = core.terms_l0[:2].exp().detach().numpy()
    assert contraction_bound(own) == pytest.approx(np.exp(-0.4 * a * gamma).max(), rel=1e-12)
    with torch.no_grad():
        core.bias_l0.zero_()
        core.weight_hh_l0.copy_(torch.rand(4, 4))  # all of one sign: entry by entry nothing is lost
    own, x = recurrence_of(core, sites(core)[0]), np.zeros((1, 3, 3))
    assert contraction_bound(own) == pytest.approx(sampled_norm(own, x, own.states(x)), rel=1e-12)


def test_the_exponents_of_a_settled_network_are_those_of_its_linearization():
    """Weak weights: one fixed point. There the exponents are the logarithms of the moduli of one Jacobian's eigenvalues."""
    core = cohen_grossberg(2, scale=0.3, step=0.2)
    own = recurrence_of(core, sites(core)[0])
    x = np.ones((1, 1, 3)).repeat(3000, axis=1)
    states = own.states(x)
    np.testing.assert_allclose(states[:, -1], states[:, -2], atol=1e-13)
    want = np.sort(np.log(np.abs(np.linalg.eigvals(own.jacobian(x[:, 0], states[:, -1])[0]))))[::-1]
    found = site_spectrum(own, x[:, 1000:], states[:, 1000], transient=200).mean
    np.testing.assert_allclose(found, want, atol=1e-9)


def test_without_feedback_the_network_has_the_exponents_of_its_layers_and_with_it_others():
    torch.manual_seed(0)
    core = TopDownRNN(2, (4, 3)).double()
    x = np.random.default_rng(0).normal(size=(2, 400, 2))

    def exponents():
        runs = observe(core, batches(torch.from_numpy(x)), sites(core))
        alone = [site_spectrum(recurrence_of(core, site), runs[site.name][0].x).mean for site in sites(core)]
        return site_spectrum(coupled(core), x).mean, np.sort(np.concatenate(alone))[::-1]

    whole, alone = exponents()
    assert np.abs(whole - alone).max() > 0.05
    with torch.no_grad():
        core.feedback(0).zero_()
    whole, alone = exponents()
    np.testing.assert_allclose(whole, alone, atol=0.02)


# Analysis and theorems ------------------------------------------------------------------------------------------------
def test_analyze_measures_them():
    torch.manual_seed(0)
    data = torch.randn(60, 12, 2)
    found = jali.analyze(CohenGrossberg(2, 6), data).sites[0]
    assert len(found.dynamics["exponents"]) == 6
    assert found.dynamics["largest exponent"] < 0
    assert found.dynamics["sampled sup |Df|"] <= found.dynamics["bound of sup |Df|"]
    assert found.information["I(X; h_T) ksg"] > 0
    core = TopDownRNN(2, (5, 4))
    result = jali.analyze(core, data, plan=jali.plan(core, "magnitude", 0.4))
    low, high = result.sites
    want = site_spectrum(coupled(core), data[:16].numpy())
    assert low.dynamics["largest exponent of the network"] == pytest.approx(want.largest)
    assert len(low.dynamics["exponents of the network"]) == 9
    assert "largest exponent of the network" not in high.dynamics
    for site in result.sites:
        assert any("driven by the layers beside it" in note for note in site.notes)
        assert site.pruning["distortion"] > 0
    dead = TopDownRNN(2, (3, 2), nonlinearity="relu")
    with torch.no_grad():
        dead.weight_ih_l1.zero_()
        dead.bias_l1.fill_(-1.0)  # the upper layer is silent, and its directions are lost at once
    lost = jali.analyze(dead, data)
    assert lost.sites[0].dynamics["exponents of the network"][-1] == -np.inf
    assert any(note.startswith("the network: 16 of 16 sequences") for note in lost.sites[0].notes)
    assert jali.Analysis.from_json(lost.to_json()) == lost


def test_the_exponents_of_networks_are_those_of_the_shortest_batches_first_sequences():
    torch.manual_seed(0)
    core = TopDownRNN(2, (3, 2))
    parts = [torch.randn(10, 9, 2), torch.randn(10, 7, 2)]
    found = jali.analyze(core, parts).sites[0].dynamics["exponents of the network"]
    x = torch.cat([part[:, :7] for part in parts])[:16].numpy()
    np.testing.assert_allclose(found, site_spectrum(coupled(core), x).mean, atol=1e-12)


def test_verify_answers_for_them():
    torch.manual_seed(0)
    core = CohenGrossberg(2, 6, step=0.5)
    with torch.no_grad():
        core.weight_hh_l0.mul_(0.3)
        core.terms_l0[2:] = 0
    answers = {each.theorem: each for each in jali.verify(core)}
    assert answers["III.7"].answer == "holds"
    assert answers["III.7"].numbers["L"][0] == pytest.approx(contraction_bound(recurrence_of(core, sites(core)[0])))
    blocks = CohenGrossberg(2, 6)
    with torch.no_grad():
        blocks.weight_hh_l0[:3, 3:] = 0
        blocks.weight_hh_l0[3:, :3] = 0
    found = {each.theorem: each for each in jali.verify(blocks)}
    assert found["Corollary III.1"].answer == "holds"
    several = jali.verify(TopDownRNN(2, (5, 4)), torch.randn(20, 6, 2))
    assert {each.site for each in several if each.theorem == "III.7"} == {"l0", "l1"}
    assert all(each.numbers["inputs"] == "data" for each in several if each.theorem == "III.7")


@given(st.integers(0, 10**6), st.integers(2, 6), st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_verify_says_whether_feedback_preserves_the_lattice(seed, low, high):
    torch.manual_seed(seed)
    core = TopDownRNN(2, (low, high, 2))
    answers = [preserved(each) for each in feedbacks(core)]
    assert [each.site for each in answers] == ["l0", "l1"]
    cut = core.relations(threshold=0.0)
    for layer, answer in enumerate(answers):
        lower, upper = layer_lattice(cut.within[layer]), layer_lattice(cut.within[layer + 1])
        whole = operator_preserves(lower.lattice, feedback_operator(upper, lower, cut.down[layer]))
        assert answer.numbers["lattices"][0]["preserved"] == bool(whole)
        broken = [row for row in answer.numbers["lattices"] if not row["preserved"]]
        assert (answer.answer == "fails") == bool(broken)
        assert ("T(x, a" in answer.witness) == bool(broken)


def test_a_lattice_too_large_for_the_question_is_said(monkeypatch):
    monkeypatch.setattr("jali.theorems.feedback.LIMIT", 1)
    core = TopDownRNN(1, (4, 4))
    with torch.no_grad():
        for weight in (core.weight_hh_l0, core.weight_hh_l1):
            weight.copy_(torch.eye(4))
    (answer,) = (each for each in jali.verify(core) if each.theorem == "Definition III.4")
    assert answer.answer == "premise not met"
    assert "no lattice of at most 1 elements" in answer.witness


# Bad input ------------------------------------------------------------------------------------------------------------
def test_what_is_no_such_system_is_one_clear_error():
    core = cohen_grossberg(0)
    own = recurrence_of(core, sites(core)[0])
    with pytest.raises(ModelError, match="an interval of -1 is no positive length of time"):
        Recurrence(own.view, interval=-1)
    with pytest.raises(ModelError, match="choose the path of a TopDownRNN"):
        coupled(core)
    with pytest.raises(DynamicsError, match=r"\(B, T, 3\) is wanted"):
        own.states(np.zeros((1, 2, 4)))
    plain = nn.RNN(1, 2)
    loud = TopDownRNN(1, (2, 2), nonlinearity="relu").double()
    with torch.no_grad():
        for parameter in loud.parameters():
            parameter.fill_(1e30)
    with pytest.raises(DynamicsError, match=r"\(B, T, 1\) is wanted"):
        coupled(loud).states(np.zeros((1, 2, 4)))
    with pytest.raises(DynamicsError, match="left the finite numbers at step"), np.errstate(all="ignore"):
        coupled(loud).states(np.ones((1, 30, 1)))
    with pytest.raises(ModelError, match="has no decay of its own"):
        decay_terms(read(plain, sites(plain)[0]))
