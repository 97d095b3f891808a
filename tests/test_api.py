"""The public verbs on a user's module: plan, mask, compact, prune, save and load."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

import jali
from jali.criterion import get
from jali.errors import BudgetError, CriterionError, DataError, FileError, ModelError, PlanError
from tests.strategies_models import made_up_trajectory


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.norm = nn.LSTM(4, 8, num_layers=2, batch_first=True, bidirectional=True), nn.LayerNorm(16)
        self.gru, self.head = nn.GRU(16, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x, h=None):
        y, _ = self.rnn(x, h)
        return self.head(self.gru(self.norm(y))[1][-1]).relu()


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture
def data():
    torch.manual_seed(1)
    return [(torch.randn(16, 5, 4), torch.randint(0, 3, (16,))) for _ in range(2)]


@pytest.mark.parametrize("criterion", [name for name in jali.criteria() if "unit" in get(name).granularities])
def test_every_criterion_of_units_prunes_saves_and_loads(criterion, model, data, tmp_path):
    result = jali.prune(model, criterion, 0.5, data)
    assert result.plan.sparsity == 0.5
    assert result.after.parameters < result.before.parameters
    assert "0.5000" in str(result)
    assert jali.save(result.model, tmp_path, plan=result.plan, example_inputs=data[0][0])
    loaded = jali.load(tmp_path)
    assert torch.equal(loaded(data[0][0]), result.model(data[0][0]))
    assert jali.Plan.load(tmp_path / "plan.json") == result.plan
    again = jali.plan(model, criterion, 0.5, data)
    assert again.to_json() == result.plan.to_json()


@pytest.mark.parametrize("criterion", [name for name in jali.criteria() if "weight" in get(name).granularities])
def test_every_criterion_of_weights_masks_saves_and_loads(criterion, model, data, tmp_path):
    seen = made_up_trajectory(model) if "trajectory" in get(criterion).needs else None
    plan = jali.plan(model, criterion, 0.9, data, granularity="weight", trajectory=seen)
    assert abs(plan.sparsity - 0.9) < 0.01
    masked = jali.mask(model, plan)
    zeros = sum(int((p == 0).sum()) for name, p in masked.named_parameters() if "weight_" in name)
    assert zeros >= sum(site.counts()[0] for site in plan.sites) > 0
    assert jali.Plan.from_json(plan.to_json()).to_json() == plan.to_json()
    again = jali.plan(model, criterion, 0.9, data, granularity="weight", trajectory=seen)
    assert again.to_json() == plan.to_json()
    assert jali.save(masked, tmp_path, plan=plan, example_inputs=data[0][0])
    assert torch.equal(jali.load(tmp_path)(data[0][0]), masked(data[0][0]))


@pytest.mark.parametrize("name", jali.criteria())
def test_a_criterion_asked_for_what_it_does_not_score_says_what_it_does(name, model, data):
    for granularity in {"unit", "weight"} - set(get(name).granularities):
        (has,) = get(name).granularities
        with pytest.raises(CriterionError, match=f"no scores of {granularity} granularity; give granularity='{has}'"):
            jali.plan(model, name, 0.5, data, granularity=granularity)


def test_a_projection_that_stops_the_budget_is_named():
    model = nn.LSTM(3, 16, proj_size=8).eval()
    made = jali.plan(model, "random", 0.75)
    note = "'l0' can have no fewer units than 9, one more than its projection gives"
    assert len(made.site("l0").kept) == 9
    assert made.notes == (note,)
    assert f"note: {note}" in str(made)
    assert jali.plan(model, "random", 0.25).notes == ()
    with pytest.raises(BudgetError, match=r"removes nothing .*can have no fewer units than 9"):
        jali.plan(jali.compact(model, made), "random", 0.2)


def test_a_budget_that_was_not_given_is_said(model, data):
    (note,) = jali.plan(model, "random").notes
    assert note == "no budget was given, so it is the default, 0.5: the fraction removed"
    assert jali.plan(model, "random").budget == jali.Budget(0.5)
    assert note in str(jali.prune(model, "random", data=data))
    assert jali.plan(model, "random", 0.5).notes == ()
    assert jali.plan(model, "magnitude", pattern="1:2").notes == ()
    assert "0.5000 is the budget (the default)" in str(jali.Pruner(copy.deepcopy(model), "magnitude"))
    assert "0.5000 is the budget\n" in str(jali.Pruner(copy.deepcopy(model), "magnitude", 0.5))
    assert "0.5000 is the budget\n" in str(jali.Pruner(copy.deepcopy(model), "magnitude", pattern="1:2"))


def test_a_layer_that_is_all_zero_is_named():
    zero = nn.Sequential(nn.LSTM(3, 8), nn.LSTM(8, 4))
    for parameter in zero[1].parameters():
        nn.init.zeros_(parameter)
    (note,) = jali.plan(zero, "magnitude", 0.5).notes
    assert note.startswith("every unit of '1.l0' scores 0: nothing tells them apart")
    assert jali.plan(zero, "magnitude", 0.5, sites=["0.*"]).notes == ()
    assert jali.plan(zero, "magnitude", 0.5).site("1.l0").removed == (2, 3)


def test_zero_weights_are_named_too_and_a_pruner_says_so_at_every_change():
    layer = nn.GRU(2, 4)
    assert jali.plan(layer, "magnitude", 0.5, granularity="weight").notes == ()
    nn.init.zeros_(layer.weight_hh_l0)
    assert jali.plan(layer, "magnitude", 0.5, granularity="weight").notes == ()
    (note,) = jali.plan(layer, "magnitude", 0.5, granularity="weight", weights="recurrent").notes
    assert note.startswith("every weight of 'l0' scores 0: nothing tells them apart")
    pruner = jali.Pruner(layer, "magnitude", 0.5, granularity="weight", weights="recurrent")
    assert pruner.plan.notes == (note,)


def test_mistakes_get_one_clear_error(model, data, tmp_path):
    with pytest.raises(CriterionError, match="lattice"):
        jali.plan(model, "latice")
    with pytest.raises(BudgetError, match=r"1\.2"):
        jali.plan(model, "random", 1.2)
    with pytest.raises(DataError, match="calibration data"):
        jali.plan(model, "reconstruction")
    with pytest.raises(DataError, match="no batch"):
        jali.prune(model, "random", 0.5, [])
    with pytest.raises(DataError, match="shape"):
        jali.prune(model, "random", 0.5, torch.randn(3, 5, 7))
    with pytest.raises(
        ModelError, match=r"no prunable site: .* nn\.GRU, recurrent cell or network of jali\.models with"
    ):
        jali.plan(nn.Linear(3, 3), "random")
    with pytest.raises(PlanError, match="truncated"):
        jali.Plan.from_json('{"schema": 1,')
    with pytest.raises(FileError):
        jali.load(tmp_path)
    with torch.no_grad():
        model.gru.weight_hh_l0[0, 0] = float("nan")
    with pytest.raises(ModelError, match="1 NaN or infinite"):
        jali.plan(model, "random")


def test_importing_jali_imports_nothing_heavy():
    code = (
        "import sys, jali; print([m for m in ('torch', 'numba', 'scipy', 'matplotlib', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
