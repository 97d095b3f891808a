"""Budgets, the choice that they make of scores, and plans as data: JSON in and out, and nothing else."""

import copy
import json
import math
import os
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

import jali
from jali.errors import BudgetError, CriterionError, DataError, FileError, ModelError, PlanError, SeedError
from jali.plain import LARGEST_SEED
from jali.plans import Budget, Plan, SitePlan, decide_units, decide_weights
from jali.site import GATES, Site

SPARSITIES = st.floats(0.01, 0.99)


@st.composite
def unit_scores(draw, ties=True):
    """Scores of one to three sites, with ``ties`` of few values, else all different."""
    sizes = draw(st.lists(st.integers(1, 10), min_size=1, max_size=3))
    if ties:
        values = np.array(draw(st.tuples(*[st.sampled_from([0.0, 0.5, 1.0, -2.0])] * sum(sizes))))
    else:
        values = np.array(draw(st.permutations(range(sum(sizes)))), dtype=float)
    parts = np.split(values, np.cumsum(sizes)[:-1])
    return {
        Site(f"m{k}", "RNN", size, minimum=draw(st.integers(1, size))): part
        for k, (size, part) in enumerate(zip(sizes, parts, strict=True))
    }


@st.composite
def weight_scores(draw):
    out = {}
    for k in range(draw(st.integers(1, 2))):
        kind = draw(st.sampled_from(["RNN", "GRU", "LSTM"]))
        size, inputs = draw(st.integers(1, 3)), draw(st.integers(1, 3))
        values = st.sampled_from([0.0, 0.5, 1.0, 3.0])
        out[Site(f"m{k}", kind, size)] = {
            "w_in": draw(hnp.arrays(np.float64, (GATES[kind], size, inputs), elements=values)),
            "w_rec": draw(hnp.arrays(np.float64, (GATES[kind], size, size), elements=values)),
        }
    return out


budgets = st.builds(
    Budget,
    sparsity=SPARSITIES,
    scope=st.sampled_from(["site", "global"]),
    multiple_of=st.integers(1, 5),
    min_width=st.integers(1, 5),
) | st.builds(Budget, threshold=st.floats(-3, 3), multiple_of=st.integers(1, 5), min_width=st.integers(1, 5))


def kept(site, removed):
    return np.setdiff1d(np.arange(site.size), removed)


# --- budgets ---------------------------------------------------------------------------------------------------------

NO_BUDGET = [0, 0.0, 1, 1.0, 1.2, -0.1, math.nan, math.inf, -math.inf, 10**400, True, False, "half", "0.5", 0.5j, [0.5]]


@pytest.mark.parametrize("value", NO_BUDGET, ids=lambda value: str(value)[:8])
def test_what_is_no_sparsity_is_refused_with_its_value_the_limit_and_a_remedy(value):
    for refused in (
        lambda: Budget.of(value),
        lambda: Budget(sparsity=value),
        lambda: jali.plan(rnn(), "random", value),
    ):
        with pytest.raises(BudgetError) as caught:
            refused()
        assert repr(value) in str(caught.value) or repr(float(value)) in str(caught.value)
        assert "(0, 1)" in str(caught.value)
        assert "0.5" in str(caught.value)


@pytest.mark.parametrize("value", [None, torch.tensor(0.5), np.array([0.5, 0.6])])
def test_what_is_no_number_is_no_budget(value):
    with pytest.raises(BudgetError, match=r"not a number inside \(0, 1\)"):
        Budget.of(value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "exactly one"),
        ({"sparsity": 0.5, "threshold": 0.5}, "exactly one"),
        ({"threshold": math.nan}, "threshold nan"),
        ({"threshold": math.inf}, "threshold inf"),
        ({"threshold": "1"}, "threshold '1'"),
        ({"threshold": True}, "threshold True"),
        ({"sparsity": 0.5, "scope": "layer"}, "'layer'.*'site' or 'global'"),
        ({"sparsity": 0.5, "multiple_of": 0}, "multiple_of=0"),
        ({"sparsity": 0.5, "multiple_of": 8.0}, r"multiple_of=8\.0"),
        ({"sparsity": 0.5, "multiple_of": True}, "multiple_of=True"),
        ({"sparsity": 0.5, "min_width": -1}, "min_width=-1"),
        ({"sparsity": 0.5, "min_width": "2"}, "min_width='2'"),
    ],
)
def test_a_budget_out_of_range_is_refused(fields, message):
    with pytest.raises(BudgetError, match=message):
        Budget(**fields)


@pytest.mark.parametrize("value", [np.float32(0.25), np.float64(0.25), Fraction(1, 4)])
def test_any_real_number_is_a_sparsity_and_becomes_plain(value):
    budget = Budget(sparsity=value, multiple_of=np.int64(2))
    assert budget == Budget.of(value).__class__(0.25, multiple_of=2)
    assert type(budget.sparsity) is float
    assert type(budget.multiple_of) is int


def test_a_budget_is_itself():
    budget = Budget(threshold=0.0, min_width=3)
    assert Budget.of(budget) is budget


# --- from scores to units --------------------------------------------------------------------------------------------


@given(unit_scores(), budgets)
def test_kept_and_removed_are_all_units_and_widths_are_as_asked(scores, budget):
    removed = decide_units(scores, budget)
    assert list(removed) == list(scores)
    for site, units in removed.items():
        assert (np.diff(units) > 0).all()
        assert units.size == 0 or (units[0] >= 0 and units[-1] < site.size)
        width = site.size - len(units)
        assert width >= min(site.size, max(site.minimum, budget.min_width))
        assert width == site.size or width % budget.multiple_of == 0


@given(unit_scores(), budgets)
def test_every_kept_unit_scores_at_least_as_much_as_every_removed_one(scores, budget):
    for site, units in decide_units(scores, budget).items():
        if len(units):
            assert scores[site][kept(site, units)].min() >= scores[site][units].max()


@given(unit_scores(), budgets)
def test_of_equal_scores_the_first_units_stay(scores, budget):
    for site, units in decide_units(scores, budget).items():
        for value in set(scores[site][units].tolist()):
            equal = np.flatnonzero(scores[site] == value)
            gone = np.intersect1d(equal, units)
            assert gone.tolist() == equal[len(equal) - len(gone) :].tolist()


@given(unit_scores(), SPARSITIES)
def test_without_rounding_every_site_loses_the_nearest_number_of_units(scores, sparsity):
    for site, units in decide_units(scores, Budget(sparsity)).items():
        wanted = sparsity * site.size
        assert len(units) == site.size - site.minimum or abs(len(units) - wanted) <= 0.5
        assert len(units) <= wanted + 0.5


@given(unit_scores(), SPARSITIES, st.integers(1, 4))
def test_a_global_sparsity_is_reached_over_all_sites_as_far_as_widths_allow(scores, sparsity, min_width):
    removed = decide_units(scores, Budget(sparsity, scope="global", min_width=min_width))
    spare = sum(max(0, site.size - max(site.minimum, min_width)) for site in scores)
    wanted = sparsity * sum(site.size for site in scores)
    total = sum(map(len, removed.values()))
    assert total <= wanted + 0.5
    assert total == spare or abs(total - wanted) <= 0.5


@given(unit_scores(ties=False), SPARSITIES)
def test_a_global_budget_takes_the_lowest_scores_of_all_that_may_go(scores, sparsity):
    removed = decide_units(scores, Budget(sparsity, scope="global"))
    gone = [scores[site][unit] for site in scores for unit in removed[site]]
    spared = [s for s in scores if s.size - len(removed[s]) > s.minimum]
    stays = [scores[site][unit] for site in spared for unit in kept(site, removed[site])]
    assert max(gone, default=-math.inf) < min(stays, default=math.inf)


@given(unit_scores(), SPARSITIES, st.integers(2, 5), st.integers(1, 4))
def test_rounding_widths_never_removes_more(scores, sparsity, multiple_of, min_width):
    for scope in ("site", "global"):
        plain = decide_units(scores, Budget(sparsity, scope=scope, min_width=min_width))
        rounded = decide_units(scores, Budget(sparsity, scope=scope, min_width=min_width, multiple_of=multiple_of))
        for site in scores:
            assert set(rounded[site]) <= set(plain[site])
            assert len(plain[site]) - len(rounded[site]) < multiple_of


@given(unit_scores(), SPARSITIES, SPARSITIES, st.sampled_from(["site", "global"]))
def test_a_larger_sparsity_removes_all_that_a_smaller_one_does(scores, one, other, scope):
    small, large = (decide_units(scores, Budget(s, scope=scope)) for s in sorted((one, other)))
    assert all(set(small[site]) <= set(large[site]) for site in scores)


@given(unit_scores(), st.floats(-3, 3))
def test_a_threshold_removes_exactly_what_is_below_it(scores, threshold):
    for site, units in decide_units(scores, Budget(threshold=threshold)).items():
        below = np.flatnonzero(scores[site] < threshold)
        if len(below) <= site.size - site.minimum:
            assert units.tolist() == below.tolist()
        else:
            assert len(units) == site.size - site.minimum
            assert set(units) < set(below)


def test_units_by_hand():
    a, b = Site("a", "LSTM", 6), Site("b", "GRU", 4)
    scores = {a: np.array([5.0, 1, 4, 1, 3, 9]), b: np.array([0.5, 2, 2, 8])}
    chosen = {site.name: units.tolist() for site, units in decide_units(scores, Budget(0.5)).items()}
    assert chosen == {"a.l0": [1, 3, 4], "b.l0": [0, 2]}
    chosen = {site.name: units.tolist() for site, units in decide_units(scores, Budget(0.3, scope="global")).items()}
    assert chosen == {"a.l0": [1, 3], "b.l0": [0]}
    chosen = {site.name: units.tolist() for site, units in decide_units(scores, Budget(0.5, multiple_of=4)).items()}
    assert chosen == {"a.l0": [1, 3], "b.l0": []}
    chosen = {site.name: units.tolist() for site, units in decide_units(scores, Budget(threshold=3)).items()}
    assert chosen == {"a.l0": [1, 3], "b.l0": [0, 1, 2]}


def test_of_equal_scores_at_several_sites_the_largest_indices_go_first():
    a, b = Site("a", "RNN", 3), Site("b", "RNN", 5)
    chosen = decide_units({a: np.zeros(3), b: np.zeros(5)}, Budget(0.5, scope="global"))
    assert {site.name: units.tolist() for site, units in chosen.items()} == {"a.l0": [2], "b.l0": [2, 3, 4]}


@pytest.mark.parametrize("budget", [Budget(0.5, min_width=6), Budget(threshold=9, min_width=6)])
def test_a_site_narrower_than_the_smallest_width_stays_whole(budget):
    chosen = decide_units({Site("a", "RNN", 4): np.arange(4.0), Site("b", "RNN", 8): np.arange(8.0)}, budget)
    assert [units.tolist() for units in chosen.values()] == [[], [0, 1]]


def test_half_of_a_wide_layer_in_multiples_of_eight():
    (units,) = decide_units({Site("a", "LSTM", 100): np.arange(100.0)}, Budget(0.5, multiple_of=8)).values()
    assert units.tolist() == list(range(44))


# --- from scores to weights ------------------------------------------------------------------------------------------


@given(weight_scores(), SPARSITIES, st.sampled_from(["site", "global"]))
def test_weights_go_by_the_lowest_scores_and_reach_the_sparsity(scores, sparsity, scope):
    keep = decide_weights(scores, Budget(sparsity, scope=scope))
    sites = list(scores)
    for group in [sites] if scope == "global" else [[site] for site in sites]:
        values = np.concatenate([scores[site][field].ravel() for site in group for field in scores[site]])
        stays = np.concatenate([keep[site][field].ravel() for site in group for field in scores[site]])
        assert abs((~stays).sum() - sparsity * values.size) <= 0.5
        assert values[stays].min(initial=math.inf) >= values[~stays].max(initial=-math.inf)
    for site in sites:
        assert {f: m.shape for f, m in keep[site].items()} == {f: s.shape for f, s in scores[site].items()}


@given(weight_scores(), SPARSITIES, SPARSITIES, st.sampled_from(["site", "global"]))
def test_a_larger_sparsity_keeps_only_weights_that_a_smaller_one_keeps(scores, one, other, scope):
    small, large = (decide_weights(scores, Budget(s, scope=scope)) for s in sorted((one, other)))
    assert all((large[site][f] <= small[site][f]).all() for site in scores for f in scores[site])


@given(weight_scores(), st.floats(-1, 4))
def test_a_threshold_keeps_exactly_the_weights_at_or_above_it(scores, threshold):
    keep = decide_weights(scores, Budget(threshold=threshold))
    assert all((keep[site][f] == (scores[site][f] >= threshold)).all() for site in scores for f in scores[site])


@pytest.mark.parametrize("budget", [Budget(0.5, multiple_of=8), Budget(0.5, min_width=2)])
def test_widths_mean_nothing_for_weights(budget):
    with pytest.raises(BudgetError, match="weights"):
        decide_weights({}, budget)


# --- plans as data ---------------------------------------------------------------------------------------------------

texts = st.text(st.characters(codec="utf-8"), max_size=6)
plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts


@st.composite
def any_plans(draw):
    """Plans of either granularity, with any names, options and notes."""
    granularity = draw(st.sampled_from(["unit", "weight"]))
    sites = []
    for name in draw(st.lists(texts, min_size=1, max_size=3, unique=True)):
        kind, size = draw(st.sampled_from(sorted(GATES))), draw(st.integers(1, 6))
        if granularity == "unit":
            removed = tuple(draw(st.lists(st.integers(0, size - 1), unique=True)))
            values = st.floats(allow_nan=False, allow_infinity=False)
            sites.append(SitePlan(name, kind, size, removed, tuple(draw(st.tuples(*[values] * size)))))
        else:
            shapes = {"w_in": (GATES[kind], size, draw(st.integers(1, 4))), "w_rec": (GATES[kind], size, size)}
            fields = draw(st.sets(st.sampled_from(sorted(shapes)), min_size=1))
            keep = {field: draw(hnp.arrays(np.bool_, shapes[field])) for field in sorted(fields)}
            sites.append(SitePlan(name, kind, size, keep=keep))
    options, notes = draw(st.dictionaries(texts, plain, max_size=3)), tuple(draw(st.lists(texts, max_size=2)))
    return Plan(
        granularity, draw(texts), draw(budgets), tuple(sites), options, draw(st.integers(0, LARGEST_SEED)), notes
    )


@given(any_plans())
def test_json_gives_the_same_plan_back(plan):
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert again.to_json() == plan.to_json()
    assert again.sparsity == plan.sparsity
    for one, other in zip(plan.sites, again.sites, strict=True):
        assert one.kept.tolist() == other.kept.tolist()
        assert list(one.keep) == list(other.keep)
        assert all((one.keep[field] == other.keep[field]).all() for field in one.keep)


@given(any_plans(), st.data())
def test_plans_that_decide_otherwise_are_unequal(plan, data):
    k = data.draw(st.integers(0, len(plan.sites) - 1))
    site = plan.sites[k]
    if plan.granularity == "weight":
        field = sorted(site.keep)[0]
        flipped = site.keep[field].copy()
        flipped.flat[data.draw(st.integers(0, flipped.size - 1))] ^= True
        other = SitePlan(site.name, site.kind, site.size, keep={**site.keep, field: flipped})
    else:
        unit = data.draw(st.integers(0, site.size - 1))
        removed = tuple(set(site.removed) ^ {unit})
        other = SitePlan(site.name, site.kind, site.size, removed, site.scores)
    sites = (*plan.sites[:k], other, *plan.sites[k + 1 :])
    assert Plan(plan.granularity, plan.criterion, plan.budget, sites, plan.options, plan.seed, plan.notes) != plan


@given(any_plans(), st.data())
def test_a_truncated_plan_is_refused(plan, data):
    text = plan.to_json()
    with pytest.raises(PlanError):
        Plan.from_json(text[: data.draw(st.integers(0, len(text) - 1))])


@st.composite
def paths(draw, value):
    """A path to something inside nested dicts and lists."""
    path = []
    while True:
        inside = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
        if not inside or (path and draw(st.booleans())):
            return path
        path.append(draw(st.sampled_from(inside)))
        value = value[path[-1]]


def at(body, path):
    for step in path:
        body = body[step]
    return body


FREE = {"options", "notes", "criterion"}  # what these say is not for a plan to judge, but for their types


@given(any_plans(), st.data())
@settings(max_examples=300)
def test_a_field_that_is_missing_unknown_or_of_another_type_is_refused(plan, data):
    body = json.loads(plan.to_json())
    path = data.draw(paths(body))
    assume(path and path[0] != "options")
    parent, value = at(body, path[:-1]), at(body, path)
    change = data.draw(st.sampled_from(["drop", "add", "retype"]))
    if change == "drop":
        assume(isinstance(parent, dict) and parent is not body.get("options") and path[-2:-1] != ["keep"])
        del parent[path[-1]]
    elif change == "add":
        assume(isinstance(parent, dict))
        parent["colour"] = value
    else:
        wrong = [None, True, "1", 1, 1.5, [], {}, [None], {"a": 1}, [[]], [True], ["0"]]
        kind = {bool, type(value)} if isinstance(value, bool) else {type(value)}
        if isinstance(value, float):
            kind.add(int)  # 1 is the number 1.0
        if path[0] == "budget" and path[-1] in ("sparsity", "threshold"):
            kind |= {type(None), int, float}
        parent[path[-1]] = data.draw(st.sampled_from([w for w in wrong if type(w) not in kind]))
    with pytest.raises(PlanError):
        Plan.from_json(json.dumps(body))


UNIT_PLAN = Plan(
    "unit", "random", Budget(0.5), (SitePlan("rnn.l0", "LSTM", 4, (1, 3), (0.9, 0.1, 0.5, 0.2)),), {"seed": 1}, 1
)
WEIGHT_PLAN = Plan(
    "weight", "random", Budget(0.5), (SitePlan("rnn.l0", "RNN", 2, keep={"w_rec": np.eye(2, dtype=bool)[None]}),)
)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["schema"], 2, "schema 2, this version of jali reads schema 1"),
        (["schema"], None, "schema None"),
        (["schema"], True, "schema True"),
        (["schema"], 1.0, r"schema 1\.0"),
        (["granularity"], "edge", "'edge' is neither 'unit' nor 'weight'"),
        (["granularity"], "weight", "not planned in weight granularity"),
        (["sites"], [], "no site"),
        (["sites"], "rnn", "sites is 'rnn', not a list"),
        (["sites", 0], "rnn", "a site is 'rnn', not an object"),
        (["sites", 0, "name"], 3, "site name 3"),
        (["sites", 0, "kind"], "CNN", "kind 'CNN' is none of RNN, GRU, LSTM, Linear"),
        (["sites", 0, "kind"], ["LSTM"], "kind"),
        (["sites", 0, "size"], 0, "size 0"),
        (["sites", 0, "size"], 4.0, r"size 4\.0"),
        (["sites", 0, "size"], True, "size True"),
        (["sites", 0, "size"], 5, "4 scores, 5 wanted"),
        (["sites", 0, "removed"], [1, 4], r"removed unit 4 is outside 0\.\.3"),
        (["sites", 0, "removed"], [1, -1], "removed unit -1 is outside"),
        (["sites", 0, "removed"], [1, 1], "listed twice"),
        (["sites", 0, "removed"], [1, 3.0], r"removed unit 3\.0 is not an integer"),
        (["sites", 0, "removed"], [True, 3], "removed unit True is not an integer"),
        (["sites", 0, "removed"], ["1", 3], "removed unit '1' is not an integer"),
        (["sites", 0, "removed"], 1, "removed is 1, not a list"),
        (["sites", 0, "removed"], [1], r"sparsity says 0\.5, but what it removes gives 0\.25"),
        (["sites", 0, "scores", 0], math.nan, "NaN is not a JSON number"),
        (["sites", 0, "scores", 0], math.inf, "Infinity is not a JSON number"),
        (["sites", 0, "scores", 0], True, "score True"),
        (["sites", 0, "scores", 0], 10**400, "not a finite number"),
        (["sites", 0, "scores"], [], "0 scores, 4 wanted"),
        (["sites", 0, "colour"], 1, "a site has unknown fields colour"),
        (["colour"], 1, "the plan has unknown fields colour"),
        (["budget", "colour"], 1, "budget has unknown fields colour"),
        (["budget"], None, "budget is None, not an object"),
        (["budget", "sparsity"], 1.5, r"sparsity 1\.5"),
        (["budget", "sparsity"], True, "sparsity True"),
        (["budget", "sparsity"], "half", "sparsity 'half'"),
        (["budget", "multiple_of"], 0, "multiple_of=0"),
        (["options"], [], r"options \[\] is not an object"),
        (["seed"], True, "seed True"),
        (["seed"], 1.5, r"seed 1\.5"),
        (["notes"], "note", "notes is 'note', not a list"),
        (["notes"], [1], "a note is not a string"),
        (["criterion"], None, "criterion None"),
        (["sparsity"], 0.7, r"sparsity says 0\.7"),
        (["counted"], "weights", "counted says 'weights'"),
    ],
)
def test_each_mistake_in_a_plan_is_named(path, value, message, tmp_path):
    body = json.loads(UNIT_PLAN.to_json())
    at(body, path[:-1])[path[-1]] = value
    (tmp_path / "plan.json").write_text(json.dumps(body), encoding="utf-8")
    with pytest.raises(PlanError, match=message):
        Plan.load(tmp_path / "plan.json")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["granularity"], "unit", "not planned in unit granularity"),
        (["sites", 0, "keep"], {}, "keep is {}, not masks"),
        (["sites", 0, "keep"], ["w_rec"], "not masks"),
        (["sites", 0, "keep", "gates"], {"shape": [1, 2, 2], "bits": "8A=="}, "mask 'gates' is none of w_in, w_rec"),
        (["sites", 0, "keep", "w_rec", "shape"], [1, 2, 3], "shape .* does not fit|sparsity says"),
        (["sites", 0, "keep", "w_rec", "shape"], [1, 3, 2], r"\(1, 3, 2\) does not fit 1 gates of 2 units"),
        (["sites", 0, "keep", "w_rec", "shape"], [2, 2, 1], r"\(2, 2, 1\) does not fit 1 gates of 2 units"),
        (["sites", 0, "keep", "w_rec", "shape"], [2, 2], "does not fit"),
        (["sites", 0, "keep", "w_rec", "shape"], [], "does not fit"),
        (["sites", 0, "keep", "w_rec", "shape"], [1, 2, 2, 1], r"\(1, 2, 2, 1\) does not fit"),
        (["sites", 0, "keep", "w_rec", "shape"], [1, 2, 0], "shape"),
        (["sites", 0, "keep", "w_rec", "shape"], [1, 2, -2], "shape"),
        (["sites", 0, "keep", "w_rec", "shape"], [True, 2, 2], "shape"),
        (["sites", 0, "keep", "w_rec", "shape"], [1, 2, 10**15], "bytes"),
        (["sites", 0, "keep", "w_rec", "bits"], "8A", "not base64"),
        (["sites", 0, "keep", "w_rec", "bits"], "8A==8A==8A==", "not base64|bytes"),
        (["sites", 0, "keep", "w_rec", "bits"], "8PDw", "3 bytes, not 1"),
        (["sites", 0, "keep", "w_rec", "bits"], "é", "not base64"),
        (["sites", 0, "keep", "w_rec", "bits"], 7, "not base64"),
        (["sites", 0, "removed"], [0], "unknown fields removed"),
    ],
)
def test_each_mistake_in_a_mask_is_named(path, value, message):
    body = json.loads(WEIGHT_PLAN.to_json())
    at(body, path[:-1])[path[-1]] = value
    with pytest.raises(PlanError, match=message):
        Plan.from_json(json.dumps(body))


def test_a_site_named_twice_is_refused():
    body = json.loads(UNIT_PLAN.to_json())
    body["sites"] *= 2
    with pytest.raises(PlanError, match=r"named twice among rnn\.l0, rnn\.l0"):
        Plan.from_json(json.dumps(body))


@pytest.mark.parametrize("text", ["", "{}", "[]", "3", "null", '"plan"', "[" * 100_000, "\x00", '{"schema": 1}'])
def test_what_is_no_plan_is_refused(text):
    with pytest.raises(PlanError):
        Plan.from_json(text)


def test_a_plan_made_by_hand_is_checked_as_a_plan_read():
    with pytest.raises(PlanError, match="outside"):
        SitePlan("a", "LSTM", 4, (4,), (0.0,) * 4)
    with pytest.raises(PlanError, match="units and weights"):
        SitePlan("a", "RNN", 2, (1,), (), {"w_rec": np.ones((1, 2, 2), dtype=bool)})
    with pytest.raises(PlanError, match="does not fit"):
        SitePlan("a", "RNN", 2, keep={"w_rec": np.ones((1, 2, 2))})
    with pytest.raises(PlanError, match="no site"):
        Plan("unit", "random", Budget(0.5), ())


def test_numbers_of_numpy_become_plain_json():
    site = SitePlan("a", "RNN", np.int64(2), (np.int64(1),), (np.float32(0.5), np.float64(1)))
    plan = Plan("unit", "random", Budget(0.5), (site,), seed=np.int64(3))
    assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize("value", [math.nan, object(), {1, 2}, np.ones(2)])
def test_options_that_json_cannot_hold_are_refused_and_nothing_is_written(value, tmp_path):
    plan = Plan("unit", "random", Budget(0.5), UNIT_PLAN.sites, {"x": value})
    with pytest.raises(PlanError, match="options"):
        plan.save(tmp_path / "plan.json")
    assert list(tmp_path.iterdir()) == []


# --- plans as files --------------------------------------------------------------------------------------------------


def test_a_saved_plan_loads_and_replaces_the_one_before(tmp_path):
    path = tmp_path / "deep" / "plan.json"
    for plan in (UNIT_PLAN, WEIGHT_PLAN):
        plan.save(path)
        assert Plan.load(path) == plan
        assert [file.name for file in path.parent.iterdir()] == ["plan.json"]


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_save_that_fails_leaves_the_old_plan_and_nothing_else(call, tmp_path, monkeypatch):
    path = tmp_path / "plan.json"
    UNIT_PLAN.save(path)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(FileError, match="No space left"):
        WEIGHT_PLAN.save(path)
    monkeypatch.undo()
    assert Plan.load(path) == UNIT_PLAN
    assert [file.name for file in tmp_path.iterdir()] == ["plan.json"]


def test_a_plan_that_cannot_be_read_is_a_file_error(tmp_path):
    (tmp_path / "latin.json").write_bytes(b"\xff\xfe\xfa")
    for path in (tmp_path / "none.json", tmp_path, tmp_path / "latin.json"):
        with pytest.raises(FileError, match="cannot read the plan"):
            Plan.load(path)


# --- plans and models ------------------------------------------------------------------------------------------------


def rnn(hidden=6, **options):
    torch.manual_seed(0)
    return nn.LSTM(3, hidden, batch_first=True, **options)


APPLIED = {
    "mask": jali.mask,
    "compact": lambda model, plan: jali.compact(model, plan, example_inputs=torch.zeros(2, 3, 3)),
}


@pytest.mark.parametrize("apply", sorted(APPLIED))
@pytest.mark.parametrize(
    ("site", "message"),
    [
        (SitePlan("l1", "LSTM", 6, (0,), (0.0,) * 6), "has site 'l1', the model has l0"),
        (SitePlan("l0", "LSTM", 8, (0,), (0.0,) * 8), "LSTM of 8 units in the plan but an LSTM of 6"),
        (SitePlan("l0", "GRU", 6, (0,), (0.0,) * 6), "GRU of 6 units in the plan but an LSTM of 6"),
        (SitePlan("l0", "LSTM", 6, tuple(range(6)), (0.0,) * 6), "keeps 0 units at 'l0', but at least 1"),
    ],
)
def test_a_plan_of_another_model_is_refused(apply, site, message):
    plan = Plan("unit", "random", Budget(0.5), (site,))
    with pytest.raises(PlanError, match=message):
        APPLIED[apply](rnn(), plan)


def test_a_projection_needs_one_unit_more_than_it_is_wide():
    plan = Plan("unit", "random", Budget(0.5), (SitePlan("l0", "LSTM", 6, (0, 1, 2, 3), (0.0,) * 6),))
    with pytest.raises(PlanError, match="keeps 2 units at 'l0', but at least 3"):
        jali.mask(rnn(proj_size=2), plan)


def test_masks_of_another_width_are_refused():
    plan = jali.plan(rnn(), "magnitude", 0.5, granularity="weight")
    torch.manual_seed(0)
    with pytest.raises(PlanError, match=r"mask 'w_in' is \(4, 6, 3\), the model's \(4, 6, 5\)"):
        jali.mask(nn.LSTM(5, 6), plan)


def test_the_plan_names_sites_and_says_what_it_has():
    assert UNIT_PLAN.site("rnn.l0").removed == (1, 3)
    with pytest.raises(PlanError, match=r"no site 'l7'; it has rnn\.l0"):
        UNIT_PLAN.site("l7")


@pytest.mark.parametrize(("multiple_of", "reached"), [(1, 0.5), (4, 0.2), (5, 0.5), (8, 0.2)])
def test_a_plan_says_the_sparsity_that_it_reached(multiple_of, reached):
    plan = jali.plan(rnn(10), "random", Budget(0.5, multiple_of=multiple_of))
    assert plan.sparsity == reached
    assert f"sparsity {reached:.4f} reached, counted over units" in str(plan)


@given(
    st.integers(2, 9), st.integers(2, 9), st.floats(0.01, 0.6), st.sampled_from(["site", "global"]), st.integers(0, 99)
)
@settings(max_examples=30)
def test_a_plan_is_what_the_scores_and_the_budget_say(first, second, sparsity, scope, seed):
    model = nn.ModuleDict({"a": nn.RNN(2, first), "b": nn.GRU(2, second)})
    budget = Budget(sparsity, scope=scope)
    sites = jali.sites(model)
    expected = round(sparsity * (first + second)) if scope == "global" else sum(round(sparsity * s.size) for s in sites)
    if expected == 0:
        with pytest.raises(BudgetError, match="removes nothing"):
            jali.plan(model, "random", budget, seed=seed)
        return
    plan = jali.plan(model, "random", budget, seed=seed)
    removed = decide_units({site: np.array(plan.site(site.name).scores) for site in sites}, budget)
    assert all(plan.site(site.name).removed == tuple(units) for site, units in removed.items())
    assert plan == Plan.from_json(plan.to_json())
    assert plan.sparsity == sum(map(len, removed.values())) / (first + second)


# --- mistakes in jali.plan and jali.prune, end to end ----------------------------------------------------------------

X = torch.zeros(2, 4, 3)


@pytest.mark.parametrize("verb", [jali.plan, jali.prune])
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": nn.Linear(3, 3)}, ModelError, "no prunable site"),
        ({"model": "model.pt"}, ModelError, "the model is a str"),
        ({"sites": "l0"}, ModelError, r"sites='l0' is not a list"),
        ({"sites": []}, ModelError, r"sites=\[\] is not a list of names"),
        ({"sites": [0]}, ModelError, r"sites=\[0\] is not a list of names"),
        ({"sites": ["l0", "encoder.*"]}, ModelError, r"no site matches 'encoder\.\*'; the model has l0"),
        ({"criterion": "latice"}, CriterionError, "did you mean lattice"),
        ({"options": {"colour": 1}}, CriterionError, "no option 'colour'; it has"),
        ({"options": {"form": "fuzzy"}}, CriterionError, "form is 'fuzzy'"),
        ({"options": {"form": "exact", "density": 2.0}}, CriterionError, r"density 2\.0 is outside"),
        ({"seed": -1, "criterion": "random"}, SeedError, "seed -1"),
        ({"seed": True}, SeedError, "seed True"),
        ({"granularity": "edge"}, BudgetError, "'edge' is unknown; it is 'unit' or 'weight'"),
        ({"granularity": "weight"}, CriterionError, "no scores of weight granularity; give granularity='unit'"),
        ({"granularity": "weight", "criterion": "magnitude", "budget": Budget(0.5, multiple_of=8)}, BudgetError, "weights"),
        ({"budget": 0.01}, BudgetError, "removes nothing.*l0 has 6.*raise the sparsity"),
        ({"budget": Budget(0.5, min_width=6)}, BudgetError, "min_width=6 removes nothing"),
        ({"budget": Budget(threshold=-1.0)}, BudgetError, "threshold -1.0 removes nothing; the scores lie in"),
        ({"criterion": "reconstruction"}, DataError, "'reconstruction' needs calibration data; pass data="),
        ({"criterion": "taylor"}, DataError, "'taylor' needs calibration data"),
        ({"criterion": "taylor", "data": X}, DataError, "target"),
        ({"criterion": "taylor", "data": []}, DataError, "no batch"),
        ({"criterion": "reconstruction", "data": torch.zeros(2, 4, 7)}, DataError, r"shape \[\(2, 4, 7\)\]"),
        ({"criterion": "reconstruction", "data": X * math.nan}, DataError, "NaN"),
    ],
)  # fmt: skip
def test_a_mistake_gets_one_clear_error(verb, arguments, error, message):
    with pytest.raises(error, match=message):
        verb(**({"model": rnn()} | arguments))


@pytest.mark.parametrize("verb", [jali.plan, jali.prune])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused_by_name(verb, value):
    model = rnn()
    with torch.no_grad():
        model.weight_hh_l0[0, :2] = value
    with pytest.raises(ModelError, match="parameter 'weight_hh_l0' has 2 NaN or infinite values of 144; retrain"):
        verb(model, "magnitude")


@pytest.mark.parametrize("verb", [jali.plan, jali.prune])
def test_weights_outside_the_planned_sites_are_refused_in_the_same_words(verb):
    model = nn.ModuleDict({"a": rnn(), "b": rnn(), "head": nn.Linear(4, 2)})
    assert verb(model, "magnitude", sites=["a.*"])
    with torch.no_grad():
        model["head"].bias[1] = math.nan
    with pytest.raises(ModelError, match=r"parameter 'head\.bias' has 1 NaN or infinite values of 2; retrain"):
        verb(model, "magnitude", sites=["a.*"])
    with torch.no_grad():
        model["head"].bias.zero_()
        model["b"].weight_hh_l0[0, :2] = math.inf
    with pytest.raises(ModelError, match=r"parameter 'b\.weight_hh_l0' has 2 NaN or infinite values of 144; retrain"):
        verb(model, "magnitude", sites=["a.*"])
    with pytest.raises(ModelError, match=r"parameter '0\.weight' has no values yet"):
        verb(nn.Sequential(nn.LazyLinear(3), rnn()), "magnitude")


def test_a_reader_that_lost_its_weights_is_named_by_its_path():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = rnn(), nn.Linear(6, 2)

        def forward(self, x):
            return self.head(self.rnn(x)[0])

    model = Net()
    plan = jali.plan(model, "magnitude")
    with torch.no_grad():
        model.head.weight[0] = math.nan
    with pytest.raises(ModelError, match=r"parameter 'head\.weight' has 6 NaN"):
        jali.compact(model, plan, X)


def test_planning_leaves_the_model_as_it_was():
    model = rnn()
    before = copy.deepcopy(model.state_dict())
    jali.plan(model, "magnitude", 0.5)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
