"""Erdős–Rényi densities, and budgets that use them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import jali
from jali.errors import BudgetError
from jali.plans import Budget, Pattern, decide_weights, regrown_weights
from jali.plans.distribution import apportion, erdos_renyi
from jali.site import Site

shapes = st.lists(st.tuples(st.sampled_from([1, 3, 4]), st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=6)


def sizes_of(shapes):
    return np.array([gates * out * inputs for gates, out, inputs in shapes])


@given(shapes=shapes, density=st.floats(0.0, 1.0))
def test_the_densities_weigh_up_to_the_budgets(shapes, density):
    found, sizes = erdos_renyi(shapes, density), sizes_of(shapes)
    assert (found * sizes).sum() == pytest.approx(density * sizes.sum(), rel=1e-12, abs=1e-12)
    assert found.min() >= -1e-15
    assert found.max() <= 1.0


@given(shapes=shapes, density=st.floats(0.01, 0.99))
def test_what_is_not_full_has_one_scale_and_what_is_full_would_have_more(shapes, density):
    found = erdos_renyi(shapes, density)
    ratio = np.array([(out + inputs) / (out * inputs) for _, out, inputs in shapes])
    scale = (found / ratio)[found < 1.0]
    if scale.size:
        np.testing.assert_allclose(scale, scale[0], rtol=1e-9)
        assert (scale[0] * ratio[found == 1.0] >= 1.0 - 1e-9).all()


@given(shapes=shapes, one=st.floats(0.0, 1.0), other=st.floats(0.0, 1.0))
def test_a_larger_budget_leaves_no_matrix_sparser(shapes, one, other):
    low, high = sorted((one, other))
    assert (erdos_renyi(shapes, low) <= erdos_renyi(shapes, high) + 1e-12).all()


def test_densities_by_hand():
    # 10×10: ratio 1/5; 2×2: ratio 1. At a mean of 1/2 the small one is full, and the rest of 52 is 48 of 100.
    np.testing.assert_allclose(erdos_renyi([(1, 10, 10), (1, 2, 2)], 0.5), [0.48, 1.0])
    # At 1/10: ε (100/5 + 4·1) = 10.4.
    np.testing.assert_allclose(erdos_renyi([(1, 10, 10), (1, 2, 2)], 0.1), [10.4 / 24 / 5, 10.4 / 24])
    with pytest.raises(BudgetError, match=r"1\.5 is outside \[0, 1\]"):
        erdos_renyi([(1, 2, 2)], 1.5)


@given(shares=st.lists(st.floats(0, 50), min_size=1, max_size=8))
def test_whole_numbers_are_next_to_their_shares(shares):
    values, total = np.array(shares), round(sum(shares))
    found = apportion(values, total)
    assert found.sum() == total
    assert (np.abs(found - values) < 1 + 1e-9).all()


@given(seed=st.integers(0, 99), sparsity=st.floats(0.05, 0.95))
def test_an_erk_budget_is_met_to_the_weight_and_ranks_within_each_matrix(seed, sparsity):
    rng = np.random.default_rng(seed)
    scores = {
        Site("a", "LSTM", 7): {"w_in": rng.random((4, 7, 3)), "w_rec": rng.random((4, 7, 7))},
        Site("b", "RNN", 4): {"w_in": 100 + rng.random((1, 4, 7)), "w_rec": 100 + rng.random((1, 4, 4))},
    }
    keep = decide_weights(scores, Budget(sparsity, scope="erk"))
    arrays = [(scores[site][field], mask) for site, fields in keep.items() for field, mask in fields.items()]
    total = sum(mask.size for _, mask in arrays)
    assert sum(int((~mask).sum()) for _, mask in arrays) == round(sparsity * total)
    densities = erdos_renyi([mask.shape for _, mask in arrays], 1 - sparsity)
    for (values, mask), density in zip(arrays, densities, strict=True):
        assert abs(mask.sum() - density * mask.size) < 2
        assert values[mask].min(initial=np.inf) >= values[~mask].max(initial=-np.inf)


def test_erk_budgets_of_units_and_of_thresholds_are_refused():
    model = nn.LSTM(3, 8)
    with pytest.raises(BudgetError, match="not units; choose 'site' or 'global'"):
        jali.plan(model, "magnitude", Budget(0.5, scope="erk"))
    with pytest.raises(BudgetError, match="the budget is a threshold"):
        Budget(threshold=0.5, scope="erk")
    plan = jali.plan(model, "magnitude", Budget(0.5, scope="erk"), granularity="weight")
    assert jali.Plan.from_json(plan.to_json()) == plan
    assert plan.sparsity == 0.5


@given(
    seed=st.integers(0, 99),
    fraction=st.floats(0.05, 0.9),
    scope=st.sampled_from(["site", "global", "erk"]),
    name=st.sampled_from(["weight", "gate-aligned", "block:4x1", "2:4"]),
)
def test_regrowth_swaps_the_worst_of_the_kept_for_the_best_of_the_rest(seed, fraction, scope, name):
    rng, site, pattern = np.random.default_rng(seed), Site("a", "LSTM", 8), Pattern.parse(name)
    shapes = {"w_in": (4, 8, 4), "w_rec": (4, 8, 8)}
    scores, growth = ({site: {f: rng.random(s) for f, s in shapes.items()}} for _ in range(2))
    budget = Budget(pattern.sparsity or 0.75, scope=scope)
    before = decide_weights({site: {f: rng.random(s) for f, s in shapes.items()}}, budget, pattern)
    after = regrown_weights(before, scores, growth, budget, pattern, fraction)
    kept = sum(int(mask.sum()) for mask in before[site].values())
    assert sum(int(mask.sum()) for mask in after[site].values()) == kept
    if name != "weight" or scope != "global":
        return
    old, new, values, grow = (
        np.concatenate([part[site][f].ravel() for f in shapes]) for part in (before, after, scores, growth)
    )
    drop = round(fraction * kept)
    worst = np.flatnonzero(old)[np.argsort(values[old])[:drop]]
    out = ~old
    out[worst] = True
    best = np.flatnonzero(out)[np.argsort(-grow[out])[:drop]]
    expected = ~out
    expected[best] = True
    np.testing.assert_array_equal(new, expected)
