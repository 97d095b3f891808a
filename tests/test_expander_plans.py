"""Plans by expansion: the criteria keep their graphs expanders, the budget stops where the bound is lost."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import jali
from jali.errors import BudgetError, CriterionError, SeedError
from jali.maths.spectral import cheeger, expansion
from jali.plans.ramanujan import edges_at_loss, in_pieces
from jali.site import sites
from jali.view import read


def network(kind=nn.LSTM, hidden=24, inputs=8):
    torch.manual_seed(0)
    model = nn.Sequential(kind(inputs, hidden))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "weight" in name:  # rows and columns of unequal size, as after training
                weight *= torch.exp(0.5 * torch.randn(len(weight), 1) + 0.5 * torch.randn(weight.shape[1]))
    return model


def gates(plan):
    return [(field, gate) for site in plan.sites for field, mask in site.keep.items() for gate in mask]


@pytest.mark.parametrize("criterion", ["expander", "random-regular"])
def test_every_matrix_gets_the_density_of_the_budget_and_no_vertex_is_lost(criterion):
    plan = jali.plan(network(), criterion, 0.7, granularity="weight")
    assert plan.sparsity == pytest.approx(0.7, abs=1e-3)
    for _, gate in gates(plan):
        assert gate.mean() == pytest.approx(0.3, abs=0.02)
        assert expansion(gate).isolated == (0, 0)


def means(model, criterion, sparsity=0.8, **options):
    """α2 and Δ_R, means over the recurrent matrices of a plan."""
    plan = jali.plan(model, criterion, sparsity, granularity="weight", options=options)
    found = [(cheeger(gate).alpha2, expansion(gate).delta_r) for field, gate in gates(plan) if field == "w_rec"]
    return np.mean(found, axis=0)


def test_the_strength_moves_the_connection_at_one_density():
    broken, chance, corrected = (means(network(hidden=48), "expander", strength=s) for s in (-0.3, 0.0, 0.1))
    assert (broken < chance).all()
    assert (chance < corrected).all()
    plain = jali.plan(network(), "expander", Budget(0.8), granularity="weight", options={"strength": 0, "floor": 0})
    weights = dict(network().named_parameters())["0.weight_hh_l0"].detach().abs().reshape(4, 24, 24).numpy()
    for size, gate in zip(weights, plain.sites[0].keep["w_rec"], strict=True):
        assert size[gate].min() >= size[~gate].max()


@pytest.mark.parametrize("sparsity", [0.8, 0.9, 0.95])
def test_the_criterion_connects_more_than_magnitude_and_than_chance(sparsity):
    torch.manual_seed(0)
    model = nn.LSTM(28, 64)
    corrected = means(model, "expander", sparsity)
    for other in ("magnitude", "random"):
        assert (corrected > means(model, other, sparsity)).all()


Budget = jali.Budget


def test_random_regular_knows_no_weights_but_the_seed():
    one, same, other = (
        jali.plan(model, "random-regular", 0.8, granularity="weight", seed=seed)
        for model, seed in ((network(), 0), (network(), 0), (network(), 1))
    )
    assert one == same
    assert one != other
    with torch.no_grad():
        changed = network()
        next(changed.parameters()).mul_(3)
    assert jali.plan(changed, "random-regular", 0.8, granularity="weight").sites == one.sites
    with pytest.raises(SeedError, match="seed -1 is not a whole number"):
        jali.plan(network(), "random-regular", 0.8, granularity="weight", seed=-1)
    for name, option in (("strength", 1e400), ("floor", 2.0)):
        with pytest.raises(CriterionError, match=name):
            jali.plan(network(), "expander", 0.8, granularity="weight", options={name: option})


@pytest.mark.parametrize("bound", ["S", "R"])
@pytest.mark.parametrize("margin", [0.0, 0.3])
def test_the_budget_is_the_sparsest_mask_that_keeps_the_bound(bound, margin):
    plan = jali.plan(network(), "magnitude", Budget(ramanujan=bound, margin=margin), granularity="weight")
    assert 0 < plan.sparsity < 1
    model = dict(network().named_parameters())
    for field, name in (("w_in", "0.weight_ih_l0"), ("w_rec", "0.weight_hh_l0")):
        sizes = model[name].detach().abs().double().reshape(4, 24, -1).numpy()
        for size, gate in zip(sizes, plan.sites[0].keep[field], strict=True):
            assert expansion(gate).delta(bound) >= margin
            assert size[gate].min() >= size[~gate].max()  # magnitude decides who stays
            least = math.ceil(1.5 * sum(gate.shape))
            assert gate.sum() >= least
            if gate.sum() == least:
                continue
            worst = np.where(gate, size, np.inf)
            less = gate & (worst > worst.min())
            delta = expansion(less).delta(bound)
            assert delta is None or delta < margin
    assert jali.Plan.from_json(plan.to_json()) == plan


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 10**6), st.sampled_from("SR"), st.floats(-0.9, 3))
def test_the_loss_is_at_an_edge(m, n, seed, bound, margin):
    order = np.random.default_rng(seed).permutation(m * n).reshape(m, n)

    def delta(edges):
        mask = np.zeros(m * n, dtype=bool)
        mask[order.ravel()[:edges]] = True
        found = expansion(mask.reshape(m, n)).delta(bound)
        return -np.inf if found is None else found

    stays = edges_at_loss(order, bound, margin)
    assert 1 <= stays <= m * n
    if stays < m * n:
        assert delta(stays) >= margin
    assert stays == 1 or delta(stays - 1) < margin
    least = min(max(stays + 3, 1), m * n)
    assert edges_at_loss(order, bound, margin, least) >= least


@pytest.mark.parametrize(("seed", "first"), [(1, 62), (2, 82)])
def test_no_loss_is_passed_over_where_the_bound_hardly_holds(seed, first):
    order = np.random.default_rng(seed).permutation(40 * 40).reshape(40, 40)
    ranks = np.argsort(order.ravel()).reshape(40, 40)
    holds = [(expansion(ranks < edges).delta_s or 0) >= 0 for edges in range(first, 1600, 3)]
    assert all(holds)
    assert expansion(ranks < first - 1).delta_s < 0
    assert edges_at_loss(order, "S") == first


def test_a_plan_by_a_bound_says_which_graphs_fall_into_pieces():
    model = network(nn.RNN, 8, 8)
    with torch.no_grad():
        model[0].weight_hh_l0.fill_(0.001)
        model[0].weight_hh_l0[:4, :4] = model[0].weight_hh_l0[4:, 4:] = 1.0  # two complete graphs
        model[0].weight_ih_l0.fill_(0.001)
        model[0].weight_ih_l0[:, :6] = 1.0
    plan = jali.plan(model, "magnitude", Budget(ramanujan="S", margin=-0.2), granularity="weight")
    assert not plan.sites[0].keep["w_rec"][0][np.kron(np.eye(2), np.ones((4, 4))) == 0].any()
    assert plan.notes[0].startswith("2 of the 2 matrices of '0.l0' fall into pieces; ")
    assert not jali.plan(network(), "expander", Budget(ramanujan="S", margin=0.3), granularity="weight").notes
    assert not jali.plan(model, "magnitude", 0.9, granularity="weight").notes


def test_the_note_counts_what_has_no_weight_at_all():
    masks = np.ones((2, 3, 3), dtype=bool)
    assert in_pieces("a", [masks]) is None
    masks[0] = np.kron(np.eye(2), np.ones((2, 2)))[:3, :3] > 0
    assert str(in_pieces("a", [masks])).startswith("1 of the 2 matrices of 'a' fall into pieces; a larger")
    masks[0], masks[1, 0], masks[1, :, 0] = True, False, False
    wanted = "1 of the 2 matrices of 'a' fall into pieces; units and inputs in them without any weight: 2; a larger"
    assert str(in_pieces("a", [masks])).startswith(wanted)


def test_a_harder_bound_leaves_more():
    sparsity = [
        jali.plan(network(), "magnitude", Budget(ramanujan="R", margin=margin), granularity="weight").sparsity
        for margin in (-0.3, 0.0, 0.5)
    ]
    assert sparsity == sorted(sparsity, reverse=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ramanujan": "S", "sparsity": 0.5}, "give exactly one"),
        ({"ramanujan": "T"}, "'T' is no bound"),
        ({"ramanujan": "S", "margin": float("nan")}, "margin nan"),
        ({"ramanujan": "S", "margin": -1}, "margin -1"),
        ({"sparsity": 0.5, "margin": 0.1}, "margin 0.1 is one of a bound"),
        ({"ramanujan": "S", "scope": "global"}, "every matrix by itself"),
        ({"ramanujan": "S", "scope": "erk"}, "every matrix by itself"),
    ],
)
def test_budgets_that_contradict_themselves_are_refused(arguments, message):
    with pytest.raises(BudgetError, match=message):
        Budget(**arguments)


def test_what_cannot_meet_a_bound_is_refused_by_name():
    bound, model = Budget(ramanujan="S"), network()
    with pytest.raises(BudgetError, match="one of weights, not units"):
        jali.plan(model, "magnitude", bound)
    with pytest.raises(BudgetError, match="not in pattern 'gate-aligned'"):
        jali.plan(model, "magnitude", bound, pattern="gate-aligned")
    with pytest.raises(BudgetError, match="the budget is a bound"):
        jali.Pruner(model, "magnitude", bound, jali.Cubic(end=4), granularity="weight")
    with pytest.raises(BudgetError, match=r"no weight can go.*lower the margin"):
        jali.plan(network(nn.RNN, 3, 2), "magnitude", Budget(ramanujan="R", margin=1e6), granularity="weight")
    zero = network(nn.RNN)
    nn.init.zeros_(zero[0].weight_hh_l0)
    assert 0 < jali.plan(zero, "magnitude", bound, granularity="weight").sparsity < 1
    assert "Δ_S ≥ 0" in str(jali.Pruner(model, "magnitude", bound, granularity="weight"))


@pytest.mark.parametrize("criterion", ["expander", "random-regular", "magnitude"])
@pytest.mark.parametrize("budget", [0.5, Budget(ramanujan="S"), Budget(ramanujan="R")])
@pytest.mark.parametrize("zero", ["weight_hh_l0", "both", "a row"])
def test_layers_of_zeros_and_lost_units_are_planned(criterion, budget, zero):
    model = network(nn.LSTM, 12, 6)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if zero in name or (zero == "both" and "weight" in name):
                weight.zero_()
            elif zero == "a row":
                weight[3] = 0
    plan = jali.plan(model, criterion, budget, granularity="weight")
    if budget == 0.5:
        assert plan.sparsity == pytest.approx(0.5, abs=0.02)
    else:
        assert plan.sparsity > 0
        for field, gate in gates(plan):
            if zero == "both" or (zero == "weight_hh_l0" and field == "w_rec"):
                assert not gate.any(), "a matrix of zeros has no edges"
                continue
            found = expansion(gate)
            assert found.delta(str(budget.ramanujan)) >= 0
            assert found.degree >= 3
    masked = jali.mask(model, plan)
    assert all(torch.isfinite(p).all() for p in masked.parameters())


@pytest.mark.parametrize("criterion", ["expander", "magnitude"])
def test_zeros_of_a_pruned_layer_are_no_edges(criterion):
    torch.manual_seed(0)
    layer = nn.LSTM(28, 64)
    masked = jali.mask(layer, jali.plan(layer, "magnitude", 0.7, granularity="weight"))
    plan = jali.plan(masked, criterion, jali.Budget(ramanujan="R"), granularity="weight")
    for field, keep in plan.sites[0].keep.items():
        weights = dict(read(masked, sites(masked)[0]).arrays())[field]
        for gate, mask in zip(weights, keep, strict=True):
            assert not (mask & (gate == 0)).any()
            if mask.sum() < (gate != 0).sum():
                assert expansion(mask).delta_r >= 0
            else:
                assert expansion(gate != 0).delta_r < 0 or mask.sum() <= 3 * sum(gate.shape) / 2
    later = jali.plan(masked, criterion, 0.9, granularity="weight").sites[0].keep
    for field, weights in read(masked, sites(masked)[0]).arrays():
        if field in later:
            assert not (later[field] & (weights == 0)).any()
