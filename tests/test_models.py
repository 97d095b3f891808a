"""Networks that PyTorch lacks: their equations, their energy, and that surgery on them is exact."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import jali
from jali.errors import DataError, DynamicsError, ModelError
from jali.models import CohenGrossberg, TopDownRNN
from jali.plans import Budget, Plan, SitePlan
from jali.site import sites
from jali.view import read
from jali.widths import FullWidthWired
from tests.strategies_models import plans

DTYPES = {torch.float32: 1e-6, torch.float64: 1e-12}


@st.composite
def networks(draw, dtypes=tuple(DTYPES)):
    """A Cohen–Grossberg network, or a top-down RNN of one to three layers, with terms of all sizes."""
    torch.manual_seed(draw(st.integers(0, 10**6)))
    inputs, bias = draw(st.integers(1, 3)), draw(st.booleans())
    if draw(st.booleans()):
        core = CohenGrossberg(inputs, draw(st.integers(2, 6)), bias, draw(st.floats(0.01, 3.0)))
        nn.init.normal_(core.terms_l0, std=0.5)
    else:
        widths = draw(st.lists(st.integers(2, 5), min_size=1, max_size=3))
        core = TopDownRNN(inputs, widths, bias, draw(st.sampled_from(["tanh", "relu"])))
    return core.to(draw(st.sampled_from(dtypes))).eval()


class Reader(nn.Module):
    """A linear reader in front, a head behind; ``what`` the head reads, and whether states are given."""

    def __init__(self, core, what, given=False):
        super().__init__()
        dtype = next(core.parameters()).dtype
        width = sum(core.sizes) if what == "state" else core.sizes[-1]
        self.core, self.what, self.given = core, what, given
        self.embed = nn.Linear(2, core.input_size, dtype=dtype)
        self.head = nn.Linear(width, 3, dtype=dtype)

    def forward(self, x, hx=None):
        y, h = self.core(self.embed(x), hx) if self.given else self.core(self.embed(x))
        if self.what == "raw":
            return y, h
        return self.head(h if self.what == "state" else y[:, -1] if self.what == "last" else y)


@given(st.data(), networks(), st.sampled_from(["last", "all", "state", "raw"]), st.booleans())
@settings(max_examples=40, deadline=None)
def test_masked_is_compacted(data, core, what, states):
    dtype = next(core.parameters()).dtype
    model, plan = Reader(core, what, states).eval(), None
    plan = data.draw(plans(model))
    x = torch.randn(3, 5, 2, dtype=dtype)
    inputs = (x, torch.randn(3, sum(core.sizes), dtype=dtype)) if states else (x,)
    masked, compacted = jali.mask(model, plan), jali.compact(model, plan, inputs)
    got, want = compacted(*inputs), masked(*inputs)
    for a, b in zip(got, want, strict=True) if what == "raw" else [(got, want)]:
        assert a.shape == b.shape
        assert (a - b).abs().max() <= DTYPES[dtype] * max(1.0, float(b.detach().abs().max()))
    removed = {site.name: site.removed for site in plan.sites}
    _, h = masked.core(masked.embed(x), *inputs[1:])
    for site, part in zip(sites(model), h.split(core.sizes, -1), strict=True):
        assert not part[:, list(removed[site.name])].any()  # zero from the first step on, also from a given state
    wide = what == "raw" or states
    assert isinstance(compacted.core, FullWidthWired) or not wide
    small = compacted.core.inner if wide and isinstance(compacted.core, FullWidthWired) else compacted.core
    assert list(small.sizes) == [len(site.kept) for site in plan.sites]
    assert sum(p.numel() for p in compacted.parameters()) < sum(p.numel() for p in model.parameters())


@given(st.data(), networks(dtypes=(torch.float64,)))
@settings(max_examples=25, deadline=None)
def test_stacked_networks_shrink_in_each_other_and_in_front(data, core):
    """The input of wired layers is cut, too, where what feeds them is."""
    torch.manual_seed(1)
    first = nn.GRU(2, core.input_size + 2, batch_first=True, dtype=torch.float64)
    core = core.resized(core.input_size + 2, core.sizes).double()

    class Stack(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.core, self.head = first, core, nn.Linear(core.sizes[-1], 2, dtype=torch.float64)

        def forward(self, x):
            return self.head(self.core(self.first(x)[0])[0])

    model = Stack().eval()
    plan = data.draw(plans(model))
    x = torch.randn(4, 5, 2, dtype=torch.float64)
    compacted = jali.compact(model, plan, x)
    assert (compacted(x) - jali.mask(model, plan)(x)).abs().max() <= 1e-12
    assert compacted.core.input_size == len(plan.site("first.l0").kept)


def with_copies(core):
    """Unit k + H/2 of every layer computes what unit k computes; the weights that read them stay as they are."""
    core = copy.deepcopy(core)
    with torch.no_grad():
        for name, parameter in core.named_parameters():
            rows = parameter if not name.startswith("terms") else parameter.T
            half = len(rows) // 2
            rows[half:] = rows[:half].clone()
    return core


@pytest.mark.parametrize("what", ["last", "raw"])
@pytest.mark.parametrize(
    "core", [CohenGrossberg(2, 8, step=0.5), TopDownRNN(2, (8, 6, 4)), TopDownRNN(2, (6, 4), False, "relu")], ids=str
)
def test_copies_are_folded(core, what):
    """Cutting copies loses nothing that a fold cannot restore, up to its ridge."""
    torch.manual_seed(0)
    core.reset_parameters()  # parameters made at collection depend on what was collected before
    model = Reader(with_copies(core), what).double().eval()
    planned = [
        SitePlan(s.name, s.kind, s.size, tuple(range(s.size // 2, s.size)), (0.0,) * s.size) for s in sites(model)
    ]
    plan, x = Plan("unit", "x", Budget(0.5), tuple(planned)), torch.randn(60, 8, 2, dtype=torch.float64)
    cut, folded = jali.compact(model, plan, x), jali.compact(model, plan, x, fold=x)
    lost, left = (
        max(
            float((a - b).detach().norm() / b.detach().norm())
            for a, b in zip(*map(parts, (m(x), model(x))), strict=True)
        )
        for m in (cut, folded)
    )
    assert lost > 0.02
    assert left < min(0.02, 0.1 * lost)
    assert all(torch.isfinite(p).all() for p in folded.parameters())


def parts(output):
    return output if isinstance(output, tuple) else (output,)


@given(networks(dtypes=(torch.float64,)))
@settings(max_examples=20, deadline=None)
def test_views_are_read_whole_and_criteria_see_all_that_reads_a_unit(core):
    for site in sites(core):
        view = read(core, site)
        assert view.w_rec.shape == (1, site.size, site.size)
        assert (view.terms is not None) == isinstance(core, CohenGrossberg)
        if view.terms is not None:
            assert np.array_equal(view.terms, core.terms_l0.detach().numpy())
    data = torch.randn(6, 4, core.input_size, dtype=torch.float64)
    for criterion in ("lattice", "magnitude", "reconstruction"):
        made = jali.plan(core, criterion, 0.5, data)
        assert sum(len(site.removed) for site in made.sites) > 0


# Equations ------------------------------------------------------------------------------------------------------------
def test_a_step_by_hand_of_two_layers():
    core = TopDownRNN(1, (1, 1), bias=True)
    with torch.no_grad():
        core.weight_ih_l0.copy_(torch.tensor([[2.0, 3.0]]))  # U, T
        core.weight_hh_l0.fill_(0.5)
        core.bias_l0.fill_(0.1)
        core.weight_ih_l1.fill_(-1.0)
        core.weight_hh_l1.fill_(0.25)
        core.bias_l1.fill_(0.2)
    y, h = core(torch.tensor([[[0.3]]]), torch.tensor([[0.4, -0.6]]))
    low = np.tanh(2 * 0.3 + 3 * -0.6 + 0.5 * 0.4 + 0.1)
    high = np.tanh(-low + 0.25 * -0.6 + 0.2)
    assert torch.allclose(h, torch.tensor([[low, high]], dtype=torch.float32))
    assert torch.allclose(y, torch.tensor([[[high]]], dtype=torch.float32))
    assert core.feedback(0).tolist() == [[3.0]]


@given(st.integers(0, 10**6), st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_without_feedback_a_top_down_rnn_is_a_stacked_rnn(seed, layers):
    torch.manual_seed(seed)
    core, plain = TopDownRNN(2, (3,) * layers).double(), nn.RNN(2, 3, layers, batch_first=True).double()
    with torch.no_grad():
        for layer in range(layers):
            width = 3 if layer else 2
            getattr(core, f"weight_ih_l{layer}").zero_()[:, :width] = getattr(plain, f"weight_ih_l{layer}")
            getattr(core, f"weight_hh_l{layer}").copy_(getattr(plain, f"weight_hh_l{layer}"))
            getattr(core, f"bias_l{layer}").copy_(
                getattr(plain, f"bias_ih_l{layer}") + getattr(plain, f"bias_hh_l{layer}")
            )
    x, h = torch.randn(4, 6, 2).double(), torch.randn(layers, 4, 3).double()
    (y, end), (want, last) = core(x, h.transpose(0, 1).reshape(4, -1)), plain(x, h)
    assert torch.allclose(y, want, atol=1e-14)
    assert torch.allclose(end, last.transpose(0, 1).reshape(4, -1), atol=1e-14)


def test_one_number_for_the_sizes_of_a_stack_is_refused() -> None:
    with pytest.raises(ModelError, match=r"hidden_sizes=4 is one number; give the units of every layer"):
        TopDownRNN(3, 4)


def test_the_integration_is_exact_for_linear_decay_and_of_first_order_else():
    torch.manual_seed(0)
    core = CohenGrossberg(1, 3, step=0.7).double()
    with torch.no_grad():
        core.weight_hh_l0.zero_()
        core.terms_l0[2:].zero_()
        core.terms_l0[:2].normal_()
    x, start = torch.ones(1, 5, 1).double(), torch.randn(1, 3).double()
    rate, drive = core.terms_l0[1].exp(), core.current(x[:, 0])
    exact = drive / rate + torch.exp(-core.terms_l0[0].exp() * rate * 5 * 0.7) * (start - drive / rate)
    assert torch.allclose(core(x, start)[1], exact, atol=1e-14)
    torch.manual_seed(1)
    core = CohenGrossberg(1, 3).double()
    nn.init.normal_(core.terms_l0, std=0.7)
    ends = []
    for steps in (100, 200, 400, 800):
        core.step = 2.0 / steps
        ends.append(core(torch.ones(1, steps, 1).double(), start)[1])
    errors = [float((a - b).detach().norm()) for a, b in pairwise(ends)]
    assert all(1.9 < coarse / fine < 2.1 for coarse, fine in pairwise(errors))


@given(st.integers(0, 10**6), st.integers(1, 6), st.floats(0.1, 5.0), st.floats(0.05, 1.0))
@settings(max_examples=30, deadline=None)
def test_the_energy_never_rises_up_to_the_step_limit(seed, size, scale, fraction):
    torch.manual_seed(seed)
    core = CohenGrossberg(2, size).double().symmetrize()
    with torch.no_grad():
        core.weight_hh_l0.mul_(scale)
        core.terms_l0.normal_(std=0.5)
    x, start = torch.randn(4, 2).double(), 2 * torch.randn(4, size).double()
    core.step = min(fraction * core.step_limit(x, start), 50.0)
    state, energies = start, [core.energy(start, x)]
    with torch.no_grad():
        for _ in range(30):
            state = core(x[:, None], state)[1]
            energies.append(core.energy(state, x))
    rise = torch.stack(energies).diff(dim=0).max()
    assert rise <= 1e-11 * max(1.0, float(torch.stack(energies).abs().max()))


def test_beyond_the_limit_the_energy_can_rise_and_the_state_still_stays_bounded():
    core = CohenGrossberg(1, 1, bias=False, step=40.0).double()
    with torch.no_grad():
        core.weight_hh_l0.fill_(-4.0)  # one step jumps to the mirror image of where it should settle
        core.terms_l0.zero_()
    x, start = torch.zeros(1, 1).double(), torch.full((1, 1), 0.1).double()
    assert core.step > 10 * core.step_limit(x, start)
    end = core(x[:, None].expand(1, 50, 1), start)[1]
    assert core.energy(end, x) > core.energy(start, x)
    assert end.abs().max() <= 4.0


def test_they_train():
    torch.manual_seed(0)
    x = torch.randn(64, 6, 2)
    target = x.sum(dim=(1, 2), keepdim=False)[:, None].tanh().expand(-1, 3)
    for core in (CohenGrossberg(2, 8, step=0.5), TopDownRNN(2, (8, 4))):
        model = Reader(core, "last")
        optimizer = torch.optim.Adam(model.parameters(), 0.02)
        losses = []
        for _ in range(60):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x), target)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < 0.3 * losses[0]
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in core.parameters())


# Bad input ------------------------------------------------------------------------------------------------------------
def test_a_state_that_leaves_the_finite_numbers_is_one_clear_error():
    core = TopDownRNN(1, (2,), nonlinearity="relu")
    with torch.no_grad():
        core.weight_hh_l0.fill_(1e30)
        core.weight_ih_l0.fill_(1.0)
    with pytest.raises(DynamicsError, match=r"unit 0 in sequence 0 is inf after step 2, .* input is 1; .*use tanh"):
        core(torch.ones(1, 5, 1))
    x = torch.ones(2, 5, 1)
    x[1, 3] = torch.nan
    with pytest.raises(DynamicsError, match=r"in sequence 1 is nan after step 3, .*step of 0.1 is stable"):
        CohenGrossberg(1, 2)(x)
    with torch.no_grad():
        core.weight_hh_l0.fill_(-1.0)
        core.weight_ih_l0.fill_(1e30)
    with pytest.raises(DynamicsError, match="is inf after step 0"):  # and zero again after the last
        core(torch.tensor([[[1e30], [0.0], [-1.0]]]))


def test_what_does_not_fit_is_named():
    for step in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ModelError, match="not a positive length of time"):
            CohenGrossberg(1, 1, step=step)
    for bad in ((), (3, 0)):
        with pytest.raises(ModelError, match="must be at least 1"):
            TopDownRNN(1, bad)
    with pytest.raises(ModelError, match="'gelu' is neither"):
        TopDownRNN(1, (2,), nonlinearity="gelu")
    core = TopDownRNN(2, (3, 2))
    with pytest.raises(ModelError, match="layer 1 has no feedback"):
        core.feedback(1)
    for x in (torch.zeros(3, 2), torch.zeros(1, 0, 2), torch.zeros(1, 3, 4)):
        with pytest.raises(DataError, match=r"takes \(B, T, 2\)"):
            core(x)
    with pytest.raises(DataError, match=r"the initial state is \(1, 3\); \(1, 5\) is wanted"):
        core(torch.zeros(1, 3, 2), torch.zeros(1, 3))
    torch.manual_seed(0)
    with pytest.raises(DynamicsError, match=r"call symmetrize\(\) first"):
        CohenGrossberg(1, 3).energy(torch.zeros(1, 3), torch.zeros(1, 1))
