"""``block-diagonal:k``: k groups of units that do not read each other, and what they keep."""

import copy
import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components
from torch import nn

import jali
from jali.errors import BudgetError, PlanError
from jali.maths.partition import balanced_partition, inside
from jali.plans import Budget, Pattern, decide_weights
from jali.site import Site, sites
from jali.view import build, read


def contiguous(size, groups):
    return np.sort(np.arange(size) % groups)


def random_scores(seed, gates, units):
    rng = np.random.default_rng(seed)
    return {"w_in": rng.normal(size=(gates, units, 3)), "w_rec": rng.normal(size=(gates, units, units))}


@settings(max_examples=50)
@given(seed=st.integers(0, 999), kind=st.sampled_from(["RNN", "GRU", "LSTM"]), units=st.integers(2, 24), data=st.data())
def test_what_stays_are_k_blocks_of_nearly_equal_size_in_all_gates(seed, kind, units, data):
    k = data.draw(st.integers(2, units))
    site, scores = Site("rnn", kind, units), random_scores(seed, {"RNN": 1, "GRU": 3, "LSTM": 4}[kind], units)
    keep = decide_weights({site: scores}, Budget(1 - 1 / k), Pattern.parse(f"block-diagonal:{k}"))[site]
    assert list(keep) == ["w_rec"]
    mask = keep["w_rec"]
    assert mask.shape == scores["w_rec"].shape
    assert (mask == mask[0]).all()
    count, labels = connected_components(mask[0])
    sizes = np.bincount(labels)
    assert count == k
    assert max(sizes) - min(sizes) <= 1
    assert int(mask[0].sum()) == int((sizes**2).sum())  # every block is whole
    plain = contiguous(units, k)
    kept = float(scores["w_rec"][mask].sum())
    assert kept >= inside(scores["w_rec"].sum(0), plain) - 1e-9


@given(seed=st.integers(0, 99), units=st.integers(1, 9), data=st.data())
def test_no_exchange_of_two_units_keeps_more(seed, units, data):
    k = data.draw(st.integers(1, units))
    weights = np.random.default_rng(seed).normal(size=(units, units))
    labels = balanced_partition(weights, k)
    best = inside(weights, labels)
    for i, j in itertools.combinations(range(units), 2):
        other = labels.copy()
        other[[i, j]] = labels[[j, i]]
        assert inside(weights, other) <= best + 1e-7


def test_small_partitions_are_the_best_of_all():
    rng = np.random.default_rng(0)
    for _ in range(10):
        weights = rng.random((6, 6)) ** 4
        best = max(inside(weights, np.array(each)) for each in set(itertools.permutations([0, 0, 0, 1, 1, 1])))
        assert inside(weights, balanced_partition(weights, 2)) == pytest.approx(best)


@given(seed=st.integers(0, 99), k=st.integers(2, 5), size=st.integers(2, 6))
def test_blocks_that_are_there_are_found(seed, k, size):
    rng = np.random.default_rng(seed)
    true = rng.permutation(np.repeat(np.arange(k), size))
    weights = (true[:, None] == true[None, :]) * (1 + rng.random((k * size, k * size)))
    labels = balanced_partition(weights, k)
    assert ((labels[:, None] == labels[None, :]) == (true[:, None] == true[None, :])).all()


@pytest.mark.parametrize("cls", [nn.RNN, nn.GRU, nn.LSTM])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_masked_layer_is_its_blocks_side_by_side(cls, bidirectional):
    torch.manual_seed(0)
    layer = cls(5, 11, batch_first=True, bidirectional=bidirectional, dtype=torch.float64)
    masked = jali.mask(layer, jali.plan(layer, "magnitude", pattern="block-diagonal:3"))
    x = torch.randn(2, 7, 5, dtype=torch.float64)
    want = masked(x)[0].chunk(2 if bidirectional else 1, dim=-1)
    for site, both in zip(sites(masked), want, strict=True):
        view = read(masked, site)
        count, labels = connected_components(view.influence() > 0)
        assert count == 3
        for label in range(count):
            units = np.flatnonzero(labels == label)
            alone = build([[view.cut(units)]], cls(5, 11, batch_first=True, dtype=torch.float64))
            y = alone(x.flip(1))[0].flip(1) if site.reverse else alone(x)[0]
            torch.testing.assert_close(y, both[..., units], atol=1e-12, rtol=0)


def test_a_plan_says_what_it_reached_and_survives_json(tmp_path):
    torch.manual_seed(0)
    model = nn.LSTM(5, 10, 2)
    plan = jali.plan(model, "magnitude", pattern="block-diagonal:3")
    assert plan.sparsity == 0.66  # blocks of 4, 3 and 3 of 10 units
    assert plan.counted == "weights of w_rec (no biases; w_in stays whole)"
    plan.save(tmp_path / "plan.json")
    assert jali.Plan.load(tmp_path / "plan.json") == plan
    assert jali.plan(model, "magnitude", pattern="block-diagonal:3") == plan
    masked = jali.mask(model, plan)
    for name, weight in masked.named_parameters():
        zeros = float((weight == 0).double().mean())
        assert zeros == pytest.approx(plan.sparsity if "weight_hh" in name else 0.0)
    with pytest.raises(PlanError, match="counted says"):
        jali.Plan.from_json(plan.to_json().replace(plan.counted, "weights of w_in and w_rec (no biases)"))


@given(seed=st.integers(0, 99), units=st.integers(4, 12), part=st.floats(0.05, 0.95))
def test_half_way_the_worst_weights_between_the_groups_are_gone(seed, units, part):
    site, scores = Site("rnn", "GRU", units), random_scores(seed, 3, units)
    pattern = Pattern.parse("block-diagonal:2")
    keep = decide_weights({site: scores}, Budget(part / 2), pattern)[site]["w_rec"]
    labels = balanced_partition(scores["w_rec"].sum(axis=0), 2)
    between = np.broadcast_to(labels[:, None] != labels[None, :], keep.shape)
    assert keep[~between].all()
    assert int((~keep).sum()) == round(part * between.sum())
    values, stays = scores["w_rec"][between], keep[between]
    assert values[~stays].max(initial=-np.inf) <= values[stays].min(initial=np.inf)


def test_plans_whose_groups_do_not_fit_are_refused():
    plan = jali.plan(nn.LSTM(5, 6), "magnitude", pattern="block-diagonal:2")
    body = json.loads(plan.to_json())
    for change, message in (
        (lambda site: site.pop("groups"), "has no groups of units, and the pattern is 'block-diagonal:2'"),
        (lambda site: site.update(groups=[0, 1]), "2 groups named for 6 units"),
        (lambda site: site.update(groups=[0, 1, 0, 1, 0, -1]), "group -1 is not a whole number"),
        (lambda site: site.update(groups="abc"), "groups is 'abc', not a list"),
    ):
        changed = copy.deepcopy(body)
        change(changed["sites"][0])
        with pytest.raises(PlanError, match=message):
            jali.Plan.from_json(json.dumps(changed))


@pytest.mark.parametrize(
    ("pattern", "options", "message"),
    [
        ("block-diagonal:1", {}, "k ≥ 2"),
        ("block-diagonal:0", {}, "k ≥ 2"),
        ("block-diagonal:-2", {}, "k ≥ 2"),
        ("block-diagonal:" + "9" * 5000, {}, "k ≥ 2"),
        ("block-diagonal:11", {}, "more groups than the 10 units of site 'l0'; give block-diagonal:10 or less"),
        ("block-diagonal:4", {"budget": 0.5}, r"'block-diagonal:4' removes 0\.75 of the weights; leave the budget out"),
        ("block-diagonal:4", {"budget": Budget(0.75, multiple_of=4)}, "changes none; leave them out"),
    ],
)
def test_blocks_that_cannot_be_had_are_one_clear_error(pattern, options, message):
    with pytest.raises(BudgetError, match=message) as caught:
        jali.plan(nn.GRU(4, 10), "magnitude", pattern=pattern, **options)
    assert len(str(caught.value)) < 400


def test_sites_without_a_square_recurrence_are_named():
    with pytest.raises(BudgetError, match="site 'l0', which has a projection"):
        jali.plan(nn.LSTM(4, 10, proj_size=3), "magnitude", pattern="block-diagonal:2")
    model = nn.Sequential(nn.GRU(4, 10), nn.Linear(10, 10))
    with pytest.raises(BudgetError, match="site '1', which has no recurrent weights"):
        jali.plan(model, "magnitude", pattern="block-diagonal:2", sites=["0*", "1"])
    with pytest.raises(BudgetError, match="5 groups of 4 elements"):
        balanced_partition(np.ones((4, 4)), 5)
