"""Sparse patterns: what goes together, goes together; the budget is met as nearly as the groups allow."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import jali
from jali.errors import BudgetError, PlanError
from jali.plans import Budget, Pattern, decide_weights
from jali.site import Site, sites
from jali.view import read

SITE = Site("rnn", "LSTM", 6)
PATTERNS = ("weight", "gate-aligned", "block:16x1", "block:4x1", "block:2x3", "1:4", "3:32")


def random_scores(seed, gates=4, units=6, columns=7):
    rng = np.random.default_rng(seed)
    return {"w_in": rng.random((gates, units, columns)), "w_rec": rng.random((gates, units, units))}


@pytest.mark.parametrize("name", [name for name in PATTERNS if "x" in name or "-" in name])
@given(seed=st.integers(0, 99), sparsity=st.floats(0.05, 0.95), units=st.integers(1, 19), columns=st.integers(1, 9))
def test_every_group_goes_or_stays_as_a_whole(name, seed, sparsity, units, columns):
    pattern = Pattern.parse(name)
    keep = decide_weights({SITE: random_scores(seed, units=units, columns=columns)}, Budget(sparsity), pattern)[SITE]
    for mask in keep.values():
        groups = pattern.groups(mask.shape)
        for group in range(groups.max() + 1):
            assert len(set(mask[groups == group].tolist())) == 1


@given(
    seed=st.integers(0, 99),
    sparsity=st.floats(0.05, 0.95),
    name=st.sampled_from(["weight", "gate-aligned", "block:4x1"]),
)
def test_the_budget_is_met_to_half_a_group(seed, sparsity, name):
    keep = decide_weights({SITE: random_scores(seed)}, Budget(sparsity), Pattern.parse(name))[SITE]
    gone, total = sum(int((~m).sum()) for m in keep.values()), sum(m.size for m in keep.values())
    largest = 1 if name == "weight" else 4
    assert abs(gone - round(sparsity * total)) <= largest / 2


@given(seed=st.integers(0, 99), name=st.sampled_from(["gate-aligned", "block:4x1", "block:2x3"]))
def test_no_group_that_went_scores_above_one_that_stayed(seed, name):
    scores, pattern = random_scores(seed), Pattern.parse(name)
    keep = decide_weights({SITE: scores}, Budget(0.5), pattern)[SITE]
    stayed, went = [], []
    for field, mask in keep.items():
        groups = pattern.groups(mask.shape)
        for group in range(groups.max() + 1):
            (stayed if mask[groups == group][0] else went).append(scores[field][groups == group].mean())
    assert max(went) <= min(stayed)


def test_groups_by_hand():
    aligned = Pattern.parse("gate-aligned").groups((2, 2, 2))
    np.testing.assert_array_equal(aligned, [[[0, 1], [2, 3]], [[0, 1], [2, 3]]])
    blocks = Pattern.parse("block:2x1").groups((2, 3, 2))  # the third unit is a smaller block of its own
    np.testing.assert_array_equal(blocks, [[[0, 1], [0, 1], [2, 3]], [[4, 5], [4, 5], [6, 7]]])
    wide = Pattern.parse("block:1x2").groups((1, 2, 3))
    np.testing.assert_array_equal(wide, [[[0, 0, 1], [2, 2, 3]]])


@given(seed=st.integers(0, 99), n=st.integers(1, 3), columns=st.integers(1, 20))
def test_of_every_m_columns_of_a_row_the_n_best_stay(seed, n, columns):
    m, scores = 4, np.random.default_rng(seed).random((2, 3, columns))
    keep = Pattern.parse(f"{n}:{m}").keep_per_row(scores)
    for start in range(0, columns, m):
        part, chosen = scores[..., start : start + m], keep[..., start : start + m]
        wanted = -(-n * part.shape[-1] // m)
        assert (chosen.sum(-1) == wanted).all()
        for row, kept in zip(part.reshape(-1, part.shape[-1]), chosen.reshape(-1, part.shape[-1]), strict=True):
            assert row[kept].min() >= row[~kept].max(initial=-1)


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("criterion", ["magnitude", "random"])
def test_plans_with_a_pattern_mask_the_model_and_survive_json(criterion, name, tmp_path):
    torch.manual_seed(0)
    model = nn.LSTM(5, 32, 2, bidirectional=True)
    plan = jali.plan(model, criterion, None if ":" in name and "x" not in name else 0.9, pattern=name)
    plan.save(tmp_path / "plan.json")
    assert jali.Plan.load(tmp_path / "plan.json") == plan
    assert f"in pattern {name}" in str(plan)
    masked, pattern = jali.mask(model, plan), Pattern.parse(name)
    for site in sites(masked):
        weights = read(masked, site).w_rec
        if pattern.per_row is None:
            groups = pattern.groups(weights.shape)
            zero = np.bincount(groups.ravel(), weights=(weights == 0).ravel()) / np.bincount(groups.ravel())
            assert set(zero) <= {0.0, 1.0}
        else:
            n, m = pattern.per_row
            assert ((weights != 0).reshape(4, 32, -1, m).sum(-1) == n).all()


@pytest.mark.parametrize("name", ["diagonal", "block:0x1", "block:4", "4:4", "0:4", "5:4", "", "block:1x-1", 7])
def test_unknown_patterns_are_refused(name):
    with pytest.raises(BudgetError, match="is unknown; it is 'unit', 'weight'"):
        Pattern.parse(name)


def test_budgets_and_patterns_that_contradict_each_other_are_refused():
    model = nn.GRU(4, 8)
    with pytest.raises(BudgetError, match=r"'1:4' removes 0\.75"):
        jali.plan(model, "magnitude", 0.5, pattern="1:4")
    with pytest.raises(BudgetError, match=r"'1:4' removes 0\.75"):
        jali.plan(model, "magnitude", jali.Budget(threshold=0.1), pattern="1:4")
    assert jali.plan(model, "magnitude", 0.75, pattern="1:4").sparsity == 0.75
    text = jali.plan(model, "magnitude", 0.5, pattern="gate-aligned").to_json()
    with pytest.raises(PlanError, match="pattern"):
        jali.Plan.from_json(text.replace('"gate-aligned"', '"spiral"'))
    with pytest.raises(PlanError, match="plan is of units"):
        jali.Plan.from_json(jali.plan(model, "magnitude").to_json().replace('"pattern": null', '"pattern": "weight"'))


def test_whole_units_are_a_pattern_too():
    model = nn.GRU(4, 8)
    assert jali.plan(model, "magnitude", pattern="unit") == jali.plan(model, "magnitude")
