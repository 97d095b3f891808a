"""The training companion: what is masked stays zero through everything that a training loop does to it."""

import copy
import io
import itertools
import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import jali
from jali.criterion import get
from jali.errors import (
    BudgetError,
    CriterionError,
    DataError,
    JaliError,
    ModelError,
    PlanError,
    ScheduleError,
    SeedError,
)
from jali.planning import Planner
from jali.plans import Budget, Pattern, Plan
from jali.site import sites
from jali.view import read

STEPS = 4  # per epoch
SCHEDULES = {
    "one-shot": jali.OneShot(1),
    "periodic": jali.Periodic(1, 3),
    "cubic": jali.Cubic(end=4 * STEPS, start=2, every=3),
    "rewind": jali.Rewind(2, 3, 1),
    "lottery": jali.Rewind(2, 2),
    "set": jali.SET(1, 6),
    "rigl": jali.RigL(3, 6 * STEPS),
}
PATTERNS = ("weight", "gate-aligned", "block:4x1", "2:8")


class Tagger(nn.Module):
    def __init__(self, layer="LSTM", hidden=8, layers=1):
        super().__init__()
        self.rnn = getattr(nn, layer)(4, hidden, layers, bidirectional=True, batch_first=True)
        self.norm = nn.BatchNorm1d(2 * hidden)
        self.head = nn.Linear(2 * hidden, 3)

    def forward(self, x, state=None):
        return self.head(self.norm(self.rnn(x, state)[0][:, -1]))


def tagger(seed=0, **options):
    torch.manual_seed(seed)
    return Tagger(**options)


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)


def adam(model):
    return torch.optim.AdamW(model.parameters(), lr=1e-2, amsgrad=True)


def batch(number):
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(6, 5, 4, generator=generator)
    return x, (x.sum((1, 2)) > 0).long() + (x[:, -1, 0] > 0.5).long()


def train_step(model, optimizer, pruner, number):
    x, y = batch(number)
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return pruner.step(), float(loss.detach())


def train(model, optimizer, pruner, epochs, first=0, after=lambda: None):
    for epoch in range(first, first + epochs):
        for number in range(STEPS):
            train_step(model, optimizer, pruner, epoch * STEPS + number)
            after()
        pruner.epoch()
        after()


def made(schedule, model=None, optimizer=adam, pattern="weight", budget=None, criterion="magnitude", **options):
    model = tagger() if model is None else model
    optimizer = optimizer(model)
    if budget is None and ":" not in pattern.replace("block:", ""):
        budget = 0.75
    return model, optimizer, jali.Pruner(model, criterion, budget, schedule, optimizer, pattern=pattern, **options)


def masks(pruner):
    """(site name, field) → keep mask, all true while nothing is planned."""
    return {(s.name, f): m for s in pruner.plan.sites for f, m in s.keep.items()} if pruner.sparsity else {}


def assert_zero(model, optimizer, pruner):
    """Weights are exactly zero where the plan says so, and so is all that the optimizer remembers of them."""
    if not pruner.sparsity:
        return
    plan = pruner.plan
    for site in sites(model):
        view, planned = read(model, site), plan.site(site.name)
        for field, keep in planned.keep.items():
            assert not getattr(view, field)[~keep].any()
            parameter = getattr(model.get_submodule(site.module), site.parameter_names()[field])
            for value in optimizer.state.get(parameter, {}).values():
                if value is not None and value.shape == parameter.shape:
                    assert not value.detach().numpy().reshape(keep.shape)[~keep].any()


# --- what holds after every step -------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [sgd, adam])
@pytest.mark.parametrize("name", sorted(SCHEDULES))
@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_is_masked_is_zero_after_every_step_in_its_pattern_and_as_much_as_the_schedule_says(
    name, pattern, optimizer
):
    schedule = SCHEDULES[name]
    model, optimizer, pruner = made(schedule, optimizer=optimizer, pattern=pattern)
    before = {}

    def check():
        nonlocal before
        assert_zero(model, optimizer, pruner)
        wanted = schedule.sparsity(pruner.time, 0.75)
        per_row = Pattern.parse(pattern).per_row
        if per_row is None:
            for planned in pruner.plan.sites if wanted else ():
                gone, total = planned.counts()
                assert abs(gone - wanted * total) <= {"weight": 0.5, "gate-aligned": 2.5, "block:4x1": 2.5}[pattern]
        now = masks(pruner)
        for key, keep in now.items():
            if pruner.plan.pattern is not None and ":" in pruner.plan.pattern and per_row:
                n = int(pruner.plan.pattern.split(":")[0])
                assert n == round((1 - wanted) * 8)
                assert (keep[..., : keep.shape[-1] // 8 * 8].reshape(-1, 8).sum(-1) == n).all() or keep.shape[-1] < 8
            else:
                groups = Pattern.parse(pattern).groups(keep.shape)
                mean = np.bincount(groups.ravel(), weights=keep.ravel()) / np.bincount(groups.ravel())
                assert set(mean) <= {0.0, 1.0}
            if schedule.growth is None and key in before:
                assert not (keep & ~before[key]).any()
        before = now

    check()
    train(model, optimizer, pruner, 7, after=check)
    assert pruner.finished
    assert before


@given(
    granularity=st.sampled_from(["unit", "weight"]),
    scope=st.sampled_from(["site", "global", "erk"]),
    sparsity=st.floats(0.1, 0.95),
    layer=st.sampled_from(["RNN", "GRU", "LSTM"]),
    criterion=st.sampled_from(["magnitude", "random"]),
)
@settings(max_examples=25)
def test_masks_only_grow_under_every_budget(granularity, scope, sparsity, layer, criterion):
    scope = "global" if granularity == "unit" and scope == "erk" else scope
    model = tagger(layer=layer)
    optimizer = sgd(model)
    schedule = jali.Cubic(end=6)
    pruner = jali.Pruner(model, criterion, Budget(sparsity, scope=scope), schedule, optimizer, granularity=granularity)
    gone = set()
    for number in range(7):
        train_step(model, optimizer, pruner, number)
        if not pruner.sparsity:
            continue
        now = {(s.name, unit) for s in pruner.plan.sites for unit in s.removed} | {
            (*key, *index) for key, keep in masks(pruner).items() for index in np.argwhere(~keep).tolist()
        }
        assert gone <= now
        gone = now
        assert_zero(model, optimizer, pruner)
        total = sum(s.counts()[1] for s in pruner.plan.sites)
        wanted = schedule.sparsity(pruner.time, sparsity)
        # Each of the 4 sites × 2 matrices is rounded on its own where it is ranked on its own; one unit always stays.
        slack = 0.5 * (1 if scope == "global" else 4) + (4 if granularity == "unit" or scope == "erk" else 0)
        assert abs(pruner.sparsity - wanted) * total <= slack + 1e-9


@given(
    pattern=st.sampled_from(["weight", "gate-aligned", "block:3x1", "block:5x3"]),
    scope=st.sampled_from(["site", "global", "erk"]),
    sparsities=st.lists(st.floats(0.05, 0.95), min_size=2, max_size=5),
)
@settings(max_examples=40)
def test_what_has_gone_stays_gone_whatever_the_scores_say_later(pattern, scope, sparsities):
    model, plan = tagger(), None
    planner = Planner.of(model, "magnitude", None, "weight", pattern, "all", None, None, None, 0)
    for number, sparsity in enumerate(sorted(sparsities)):
        scores = planner.weight_scores(model, get("random", seed=number))
        before, plan = plan, planner.decide_weights(scores, Budget(sparsity, scope=scope), plan)
        total = sum(site.counts()[1] for site in plan.sites)
        matrices = {"site": 2, "global": 1, "erk": 4}[scope]
        assert abs(plan.sparsity - sparsity) * total <= matrices * (15 if "block" in pattern else 4)
        if before is not None:
            for site in plan.sites:
                assert not any((keep & ~before.site(site.name).keep[f]).any() for f, keep in site.keep.items())


def test_the_plan_is_the_mask_and_units_can_be_compacted():
    for layer in ("RNN", "GRU", "LSTM"):
        model, optimizer, pruner = made(
            SCHEDULES["cubic"], tagger(layer=layer, layers=2), pattern="unit", criterion="lattice"
        )
        train(model, optimizer, pruner, 4)
        model.eval()
        x, plan = batch(99)[0], Plan.from_json(pruner.plan.to_json())
        assert plan == pruner.plan
        assert plan.sparsity == 0.75
        h = torch.randn(4, 6, 8)
        state = (h, torch.randn(4, 6, 8)) if layer == "LSTM" else h
        with torch.no_grad():
            torch.testing.assert_close(model(x, state), jali.mask(model, plan)(x, state), rtol=0, atol=0)
            small = jali.compact(model, plan, (x, state))
            assert small.rnn.hidden_size == 2 if isinstance(small.rnn, nn.RNNBase) else small.rnn is not None
            torch.testing.assert_close(model(x, state), small(x, state))


def test_one_shot_at_once_is_plan_and_mask():
    model = tagger()
    dense = copy.deepcopy(model)
    pruner = jali.Pruner(model, "magnitude", 0.9, granularity="weight")
    plan = jali.plan(dense, "magnitude", 0.9, granularity="weight")
    assert pruner.plan == plan
    for got, want in zip(model.parameters(), jali.mask(dense, plan).parameters(), strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize(("weights", "field", "other"), [("recurrent", "w_rec", "w_in"), ("input", "w_in", "w_rec")])
@pytest.mark.parametrize("schedule", ["cubic", "set", "rigl"])
def test_weights_of_one_matrix_go_and_the_others_stay_whole(weights, field, other, schedule):
    model = tagger()
    optimizer = adam(model)
    pruner = jali.Pruner(model, "magnitude", 0.75, SCHEDULES[schedule], optimizer, pattern="weight", weights=weights)
    train(model, optimizer, pruner, 5)
    assert pruner.sparsity == pytest.approx(0.75, abs=0.01)
    assert {f for site in pruner.plan.sites for f in site.keep} == {field}
    for site in sites(model):
        names = site.parameter_names()
        parameters = {f: getattr(model.rnn, names[f]) for f in (field, other)}
        keep = torch.from_numpy(pruner.plan.site(site.name).keep[field]).reshape(parameters[field].shape)
        assert not parameters[field][~keep].any()
        assert (parameters[other] != 0).all() or site.reverse  # the reverse direction is read at its first step only
    assert jali.plan(model, "magnitude", 0.5, pattern="weight", weights=weights).counted.startswith(
        f"weights of {field} "
    )
    state = pruner.state_dict()
    with pytest.raises(PlanError, match="weights '" + weights):
        jali.Pruner(model, "magnitude", 0.75, SCHEDULES[schedule], optimizer, pattern="weight").load_state_dict(state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"weights": "hidden", "pattern": "weight"},
            "weights='hidden' is unknown; it is 'all', 'recurrent' or 'input'",
        ),
        ({"weights": "recurrent"}, "weights='recurrent' names matrices, and whole units go"),
        ({"weights": "input", "pattern": "block-diagonal:2"}, "goes by recurrent weights; leave weights='input' out"),
        ({"weights": "recurrent", "pattern": "weight", "sites": ["*"]}, "site 'head' has no recurrent weights"),
    ],
)
def test_weights_that_cannot_be_had_are_refused(options, message):
    with pytest.raises(BudgetError, match=re.escape(message)):
        jali.plan(tagger(), "magnitude", 0.5, **options)


def test_blocks_on_the_diagonal_stay_apart():
    model, optimizer, pruner = made(jali.OneShot(1), optimizer=sgd, pattern="block-diagonal:2", budget=0.5)
    train(model, optimizer, pruner, 3, after=lambda: assert_zero(model, optimizer, pruner))
    assert {site.counts() for site in pruner.plan.sites} == {(128, 256)}


@pytest.mark.parametrize(
    "schedule",
    [jali.Cubic(end=6, start=2), jali.Periodic(1, 3), jali.Rewind(1, 2), jali.Cubic(end=4, start=1, clock="epoch")],
    ids=lambda schedule: type(schedule).__name__,
)
@pytest.mark.parametrize("k", [2, 3])
def test_a_schedule_trains_towards_independent_blocks(schedule, k):
    """The groups are those of the first cut; what lies inside them stays whole, and at the end nothing lies between."""
    pattern = f"block-diagonal:{k}"
    model, optimizer, pruner = made(schedule, optimizer=sgd, pattern=pattern, budget=1 - 1 / k)
    first, seen = None, []

    def after():
        nonlocal first
        assert_zero(model, optimizer, pruner)
        if not pruner.sparsity:
            return
        if first is None:
            first = {site.name: site.groups for site in pruner.plan.sites}
        for site in pruner.plan.sites:
            assert site.groups == first[site.name]
            labels = np.array(site.groups)
            assert site.keep["w_rec"][:, labels[:, None] == labels[None, :]].all()
        seen.append(pruner.plan)
        assert jali.Plan.from_json(pruner.plan.to_json()) == pruner.plan

    while not pruner.finished:
        train(model, optimizer, pruner, 2, after=after)
    assert len({plan.sparsity for plan in seen}) >= 2
    for before, then in itertools.pairwise(seen):
        for old, new in zip(before.sites, then.sites, strict=True):
            assert not (new.keep["w_rec"] & ~old.keep["w_rec"]).any()  # what went stays away
    assert "still has" in str(seen[0])
    assert pruner.plan.notes == ()
    found = jali.decompose(model, k)
    assert all(site.independent and max(site.sizes) - min(site.sizes) <= 1 for site in found.sites)


# --- optimizers ------------------------------------------------------------------------------------------------------


def test_clipping_counts_the_weights_that_are_there():
    model, _, _pruner = made(jali.OneShot(), budget=0.95)
    other = copy.deepcopy(model)  # not pruned any more: its gradients are whole
    for network in (model, other):
        x, y = batch(0)
        F.cross_entropy(network(x), y).backward()
    norm, whole = (float(nn.utils.clip_grad_norm_(network.parameters(), 1e9)) for network in (model, other))
    masked = [p.grad * (p != 0) if n.startswith("rnn.weight") else p.grad for n, p in other.named_parameters()]
    assert norm == pytest.approx(math.sqrt(sum(float((g**2).sum()) for g in masked)), rel=1e-5)
    assert norm < whole


def test_what_grows_again_starts_at_zero_with_no_momentum():
    model, optimizer, pruner = made(jali.RigL(every=2, end=100, fraction=0.5), optimizer=adam)
    train_step(model, optimizer, pruner, 0)
    before = masks(pruner)
    changed, _ = train_step(model, optimizer, pruner, 1)
    assert changed
    grown = 0
    for site in sites(model):
        for field in ("w_in", "w_rec"):
            new = masks(pruner)[site.name, field] & ~before[site.name, field]
            parameter = getattr(model.rnn, site.parameter_names()[field])
            held = [parameter, *(v for v in optimizer.state[parameter].values() if v.shape == parameter.shape)]
            assert len(held) == 4
            for value in held:
                assert not value.detach().numpy().reshape(new.shape)[new].any()
                # The reverse direction is read at its first step only, where its recurrent weights see a zero state.
                others = value.detach().numpy().reshape(new.shape)[masks(pruner)[site.name, field] & ~new]
                assert others.any() or (site.reverse and field == "w_rec")
            grown += int(new.sum())
    assert grown > 50


def test_rigl_grows_where_the_gradient_is_largest():
    model, optimizer, pruner = made(jali.RigL(every=1, end=10**6, fraction=0.3), optimizer=sgd, budget=0.5)
    before = masks(pruner)
    x, y = batch(0)
    F.cross_entropy(model(x), y).backward()
    gradient = {
        (site.name, field): np.abs(getattr(model.rnn, site.parameter_names()[field]).grad.numpy()).reshape(mask.shape)
        for site in sites(model)
        for field, mask in ((f, before[site.name, f]) for f in ("w_in", "w_rec"))
    }
    optimizer.step()
    pruner.step()
    for site in sites(model):
        joined = [
            np.concatenate([part[site.name, f].ravel() for f in ("w_in", "w_rec")])
            for part in (before, masks(pruner), gradient)
        ]
        old, new, grad = joined
        assert grad[new & ~old].min() > grad[~new & ~old].max()


def test_without_an_optimizer_momentum_cannot_move_what_is_masked():
    model = tagger()
    optimizer = sgd(model)
    pruner = jali.Pruner(model, "magnitude", 0.75, SCHEDULES["cubic"], pattern="gate-aligned")
    train(model, optimizer, pruner, 5, after=lambda: assert_zero(model, torch.optim.SGD([torch.ones(1)]), pruner))
    assert pruner.sparsity == pytest.approx(0.75, abs=0.01)


def test_a_rewind_brings_back_every_parameter_buffer_and_momentum():
    model, optimizer, pruner = made(jali.Rewind(epochs=3, rounds=1, to=1), optimizer=sgd)
    train(model, optimizer, pruner, 1)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    momentum = {name: optimizer.state[p]["momentum_buffer"].clone() for name, p in model.named_parameters()}
    optimizer.param_groups[0]["lr"] = 0.05
    train(model, optimizer, pruner, 2, first=1)
    keep = masks(pruner)
    for name, value in model.state_dict().items():
        expected, moved = weights[name].clone(), momentum.get(name)
        for site in sites(model):
            for field, attribute in site.parameter_names().items():
                if name == f"rnn.{attribute}" and (site.name, field) in keep:
                    alive = torch.from_numpy(keep[site.name, field]).reshape(value.shape)
                    expected, moved = expected * alive, moved * alive
        assert torch.equal(value, expected), name
        if moved is not None:
            assert torch.equal(optimizer.state[dict(model.named_parameters())[name]]["momentum_buffer"], moved)
    assert optimizer.param_groups[0]["lr"] == 0.05


def test_a_lottery_ticket_starts_with_a_new_optimizer():
    model, optimizer, pruner = made(jali.Rewind(epochs=1, rounds=1))
    start = model.head.weight.detach().clone()
    train(model, optimizer, pruner, 1)
    assert torch.equal(model.head.weight, start)
    assert not optimizer.state


# --- mixed precision, compilation, copies, processes -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["cubic", "rigl"])
def test_bfloat16_autocast_and_a_scaler_that_skips_a_step(name):
    model, optimizer, pruner = made(SCHEDULES[name])
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for number in range(5 * STEPS):
        x, y = batch(number)
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = F.cross_entropy(model(x).float(), y)
        overflow = number in (5, 6, 7)
        scaler.scale(loss * (math.inf if overflow else 1.0)).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        before = masks(pruner)
        scaler.step(optimizer)
        pruner.step()
        scaler.update()
        assert_zero(model, optimizer, pruner)
        assert all(torch.isfinite(p).all() for p in model.parameters())
        if overflow and name == "rigl":
            assert all((before[key] == keep).all() for key, keep in masks(pruner).items())
    assert scaler.get_scale() == 2.0**7
    assert pruner.sparsity == pytest.approx(0.75, abs=0.01)
    assert ("1 regrowths skipped" in str(pruner)) == (name == "rigl")  # of steps 6, 7, 8 one was due


def test_a_compiled_model_trains_to_the_same_weights():
    pytest.importorskip("torch._dynamo")
    found = []
    for compiled in (False, True):
        model = tagger(layers=1)
        network = torch.compile(model, backend="aot_eager") if compiled else model
        optimizer = sgd(model)
        pruner = jali.Pruner(
            network, "magnitude", 0.75, jali.Cubic(end=6), optimizer, pattern="weight", sites=["rnn.*", "head"]
        )
        for number in range(8):
            train_step(network, optimizer, pruner, number)
        assert pruner.plan.site("head").counts() == (36, 48)
        assert not model.head.weight[~torch.from_numpy(pruner.plan.site("head").keep["w_in"][0])].any()
        found.append((pruner.plan, copy.deepcopy(model.state_dict())))
    assert found[0][0] == found[1][0]
    for name, value in found[0][1].items():
        torch.testing.assert_close(value, found[1][1][name])


@pytest.mark.parametrize("name", ["cubic", "rigl", "rewind"])
def test_copies_go_on_as_the_original(name):
    triple = made(SCHEDULES[name])
    train(*triple, 2)
    other = copy.deepcopy(triple)
    x, y = batch(0)
    F.cross_entropy(other[0](x), y).backward()  # its gradients are masked from the first step on
    assert not other[0].rnn.weight_hh_l0.grad[other[0].rnn.weight_hh_l0 == 0].any() or name == "rigl"
    other[0].norm.load_state_dict(triple[0].norm.state_dict())
    plain = copy.deepcopy(triple[0])
    assert type(plain.rnn.weight_hh_l0) is nn.Parameter
    assert plain.state_dict().keys() == tagger().state_dict().keys()
    for three in (triple, other):
        train(*three, 3, first=2)
    assert triple[2].plan == other[2].plan
    assert triple[0].rnn.weight_hh_l0 is not other[0].rnn.weight_hh_l0
    for one, two in zip(triple[0].parameters(), other[0].parameters(), strict=True):
        assert torch.equal(one, two)


def test_units_are_copied_with_their_states():
    model, optimizer, pruner = made(jali.OneShot(), tagger(layer="GRU"), pattern="unit")
    twin, _, _ = copy.deepcopy((model.eval(), optimizer, pruner))
    x, h = batch(0)[0], torch.ones(2, 6, 8)
    assert torch.equal(model(x, h), twin(x, h))
    jali.Pruner(model, "magnitude", 0.5, jali.OneShot(3))  # a new pruner: nothing is removed yet
    assert not torch.equal(model(x, h), twin(x, h))


def _rank(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    model = tagger(layers=1)
    network = nn.parallel.DistributedDataParallel(model)
    optimizer = sgd(model)
    pruner = jali.Pruner(network, "magnitude", 0.75, jali.RigL(2, 20), optimizer, pattern="gate-aligned")
    for number in range(6):
        train_step(network, optimizer, pruner, 100 * rank + number)
    torch.save((pruner.plan.to_json(), model.state_dict()), f"{folder}/rank{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this build of torch has no torch.distributed")
def test_every_process_of_a_distributed_training_has_the_same_masks(tmp_path):
    # Not forked: what threads of the tests before hold would be held for ever in the children.
    torch.multiprocessing.start_processes(_rank, (str(tmp_path),), nprocs=2, start_method="spawn")
    (one, first), (two, second) = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert one == two
    assert Plan.from_json(one).sites[0].name == "rnn.l0"
    for name in ("rnn.weight_hh_l0", "rnn.weight_ih_l0_reverse", "head.weight"):
        assert torch.equal(first[name], second[name])


# --- resuming --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "optimizer", "order"),
    [
        ("gate-aligned", adam, "model first"),
        ("2:8", sgd, "pruner first"),
        ("unit", adam, "model first"),
        ("block-diagonal:2", adam, "pruner first"),
    ],
)
@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_three_epochs_and_three_more_are_six_bit_for_bit(name, pattern, optimizer, order):
    schedule = SCHEDULES[name]
    if pattern in ("unit", "block-diagonal:2") and schedule.growth:
        with pytest.raises(BudgetError, match="regrows weights"):
            made(schedule, pattern=pattern)
        return
    whole = made(schedule, optimizer=optimizer, pattern=pattern)
    train(*whole, 6)
    half = made(schedule, optimizer=optimizer, pattern=pattern)
    train(*half, 3)
    file = io.BytesIO()
    torch.save([part.state_dict() for part in half], file)
    file.seek(0)
    states = torch.load(file, weights_only=True)
    model = tagger(seed=5)
    if order == "model first":  # the Pruner is made on the loaded weights, and prunes them at once in some schedules
        model.load_state_dict(states[0])
        model, restored, pruner = made(
            schedule, model, optimizer=lambda m: _loaded(optimizer(m), states[1]), pattern=pattern
        )
        pruner.load_state_dict(states[2])
    else:
        model, restored, pruner = made(schedule, model, optimizer=optimizer, pattern=pattern)
        pruner.load_state_dict(states[2])
        restored.load_state_dict(states[1])
        model.load_state_dict(states[0])
    train(model, restored, pruner, 3, first=3)
    for (label, one), two in zip(whole[0].state_dict().items(), model.state_dict().values(), strict=True):
        assert torch.equal(one, two), label
    assert whole[2].plan == pruner.plan
    assert str(whole[2]) == str(pruner)
    for one, two in zip(whole[1].state.values(), restored.state.values(), strict=True):
        assert all(torch.equal(one[key], two[key]) for key in one if one[key] is not None)


def _loaded(optimizer, state):
    optimizer.load_state_dict(state)
    return optimizer


def test_resuming_in_the_middle_of_an_epoch():
    whole, half = made(SCHEDULES["rigl"]), made(SCHEDULES["rigl"])
    for number in range(10):
        train_step(*whole, number)
    for number in range(5):  # the next step changes the mask: its gradients must be whole
        train_step(*half, number)
    again = made(SCHEDULES["rigl"], tagger(3))
    for part, saved in zip(again, half, strict=True):
        part.load_state_dict(copy.deepcopy(saved.state_dict()))
    assert again[2].state_dict() == half[2].state_dict()
    for number in range(5, 10):
        train_step(*again, number)
    for one, two in zip(whole[0].parameters(), again[0].parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_state_of_another_pruner_is_refused():
    pruner = made(SCHEDULES["cubic"])[2]
    state = pruner.state_dict()
    with pytest.raises(PlanError, match=r"schedule .*'end': 16.* there, .*'end': 17.* here; make this one"):
        made(jali.Cubic(end=17, start=2, every=3))[2].load_state_dict(state)
    with pytest.raises(PlanError, match=r"budget .*pattern 'weight' there, 'gate-aligned' here"):
        made(SCHEDULES["cubic"], pattern="gate-aligned", budget=0.5)[2].load_state_dict(state)
    for damaged in ({}, [], {**state, "schema": 9}, {k: v for k, v in state.items() if k != "plan"}):
        with pytest.raises(PlanError, match="not the state_dict of a Pruner of schema 1"):
            pruner.load_state_dict(damaged)
    rewinding = made(SCHEDULES["lottery"], tagger(hidden=16))[2].state_dict()
    with pytest.raises(PlanError, match="another model"):
        made(SCHEDULES["lottery"])[2].load_state_dict(rewinding)
    wide = made(jali.OneShot(), tagger(hidden=16))[2].state_dict()
    with pytest.raises(PlanError, match="16 units in the plan"):
        made(jali.OneShot())[2].load_state_dict(wide)


# --- where it stands, and what goes wrong ----------------------------------------------------------------------------


def test_it_says_where_it_stands():
    model, optimizer, pruner = made(SCHEDULES["cubic"])
    assert "the next change is at step 2 (last: step 16)" in str(pruner)
    assert "sparsity 0.0000 now, sparsity 0.7500 is the budget" in repr(pruner)
    with pytest.raises(ScheduleError, match="nothing is removed at step 0; the first change comes at step 2"):
        _ = pruner.plan
    changes = [train_step(model, optimizer, pruner, number)[0] for number in range(20)]
    assert [number + 1 for number, changed in enumerate(changes) if changed] == [5, 8, 11, 14, 16]
    assert pruner.finished
    assert "20 steps and 0 epochs done; the schedule is finished (last: step 16)" in str(pruner)
    assert "Plan by 'magnitude'" in str(pruner)


def test_thresholds_are_applied_anew_in_every_round():
    model = tagger()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=1.0)
    pruner = jali.Pruner(
        model, "magnitude", Budget(threshold=0.1), jali.Periodic(1, 3), optimizer, granularity="weight"
    )
    reached = []
    for epoch in range(4):
        train(model, optimizer, pruner, 1, first=epoch)
        reached.append(pruner.sparsity)
    assert 0 < reached[0] < reached[1] < reached[2] == reached[3]
    assert pruner.plan.budget == Budget(threshold=0.1)
    assert "threshold 0.1 is the budget" in str(pruner)


def test_a_step_before_any_optimizer_step_is_harmless():
    model, optimizer, pruner = made(jali.Cubic(end=4))
    assert pruner.step()
    train(model, optimizer, pruner, 2)
    assert_zero(model, optimizer, pruner)


def test_criteria_that_need_data_measure_it_again():
    x, y = batch(0)
    model = tagger()
    optimizer = adam(model)
    pruner = jali.Pruner(model, "taylor", 0.5, jali.Cubic(end=6, every=3), optimizer, data=[(x, y)])
    model.train()
    train(model, optimizer, pruner, 2)
    assert pruner.sparsity == 0.5
    assert model.training
    with pytest.raises(DataError, match="needs calibration data"):
        jali.Pruner(model, "taylor", 0.5)


def test_a_parameter_that_was_replaced_is_noticed():
    model, _, pruner = made(jali.OneShot())
    model.rnn.weight_hh_l0 = nn.Parameter(model.rnn.weight_hh_l0.detach().clone())
    with pytest.raises(ModelError, match=r"'weight_hh_l0' of 'rnn' was replaced.*make the optimizer"):
        pruner.step()
    model, _, pruner = made(jali.OneShot())
    model.load_state_dict(tagger(1).state_dict(), assign=True)
    with pytest.raises(ModelError, match="was replaced"):
        pruner.epoch() if pruner.step() else None
    model, _, pruner = made(jali.OneShot())
    model.rnn.weight_hh_l0.data = torch.zeros(3, 3)
    with pytest.raises(ModelError, match=r"now has shape \(3, 3\)"):
        pruner.step()


def test_a_model_that_moves_takes_its_masks_along():
    model, optimizer, pruner = made(jali.OneShot(), optimizer=sgd)
    model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    pruner.step()
    assert_zero(model, optimizer, pruner)
    assert model.rnn.weight_hh_l0.dtype == torch.float64
    assert model.rnn.weight_hh_l0.any()


def test_gradients_are_whole_again_when_the_pruner_is_gone():
    model, _, pruner = made(jali.OneShot(), budget=0.9)
    del pruner
    x, y = batch(0)
    F.cross_entropy(model(x), y).backward()
    zero = model.rnn.weight_hh_l0 == 0
    assert zero.float().mean() > 0.5
    assert model.rnn.weight_hh_l0.grad[zero].any()


def test_regrowth_says_what_it_lacks():
    model, optimizer, pruner = made(jali.RigL(1, 10))
    with pytest.raises(ModelError, match=r"has no gradient.*not be cleared"):
        pruner.step()
    model.rnn.weight_ih_l0.requires_grad_(False)
    with pytest.raises(ModelError, match=r"'weight_ih_l0'.*has no gradient"):
        train_step(model, optimizer, pruner, 0)


def shared():
    model = nn.Sequential(nn.RNNCell(4, 4), nn.RNNCell(4, 4))
    model[1].weight_hh = model[0].weight_hh
    return model


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"schedule": "cubic"}, ScheduleError, "schedule is a str; .* jali.Cubic"),
        ({"schedule": jali.SET(1, 5), "optimizer": None}, ScheduleError, "SET changes what the optimizer remembers"),
        ({"schedule": jali.Rewind(2, 2), "optimizer": None}, ScheduleError, "Rewind .* pass optimizer="),
        ({"schedule": jali.RigL(1, 5), "granularity": "unit"}, BudgetError, "RigL regrows weights"),
        ({"schedule": jali.RigL(1, 5), "seed": -1}, SeedError, "seed -1 is not a whole number"),
        ({"schedule": jali.Cubic(end=5), "budget": Budget(threshold=1.0)}, BudgetError, "Cubic needs the sparsity"),
        ({"schedule": jali.Cubic(end=5, initial=0.9), "budget": 0.5}, ScheduleError, r"0\.9 is above .* 0\.5"),
        ({"optimizer": "adam"}, ModelError, "optimizer is a str"),
        ({"optimizer": torch.optim.SGD([torch.ones(1)])}, ModelError, "holds no parameter of the pruned sites"),
        ({"criterion": "lattice"}, CriterionError, "no scores of weight granularity"),
        ({"criterion": "lattice", "schedule": jali.SET(1, 5)}, CriterionError, "no scores of weight granularity"),
        ({"budget": Budget(0.5, min_width=4)}, BudgetError, "min_width round widths"),
        (
            {"budget": None, "pattern": "block-diagonal:2", "schedule": jali.SET(1, 5)},
            BudgetError,
            "'block-diagonal:2' separates groups of units for good, and SET regrows weights; choose",
        ),
        ({"budget": 1e-5}, BudgetError, "removes nothing"),
        ({"budget": 1e-5, "schedule": None}, BudgetError, "removes nothing"),
        ({"sites": ["encoder"]}, ModelError, "no site matches 'encoder'"),
        ({"model": "lstm", "optimizer": None}, ModelError, "the model is a str"),
        ({"model": shared(), "optimizer": None}, ModelError, "shared by two sites"),
    ],
)
def test_bad_arguments_are_refused_before_the_training(arguments, error, message):
    model = arguments.get("model", tagger())
    options = {"criterion": "magnitude", "budget": 0.75, "schedule": jali.Cubic(end=9), "granularity": "weight"}
    if "optimizer" not in arguments:
        options["optimizer"] = sgd(model)
    with pytest.raises(error, match=message) as caught:
        jali.Pruner(**{"model": model} | options | arguments)
    assert isinstance(caught.value, JaliError)
    if isinstance(model, Tagger):
        assert all(torch.equal(p, q) for p, q in zip(model.parameters(), tagger().parameters(), strict=True))


def test_an_epoch_without_a_step_is_an_error():
    model, optimizer, pruner = made(jali.Periodic(1, 2))
    with pytest.raises(ScheduleError, match=r"without a step\(\) since epoch 0; call pruner.step"):
        pruner.epoch()
    train(model, optimizer, pruner, 1)
    with pytest.raises(ScheduleError, match="since epoch 1"):
        pruner.epoch()


def test_lots_are_drawn_anew_at_every_change_and_the_same_again():
    from jali.surgery.growth import lots

    model = tagger()
    plan, found = jali.plan(model, "magnitude", 0.5, pattern="weight"), sites(model)
    first, again, later, other = (lots(plan, found, seed, time) for seed, time in ((0, 1), (0, 1), (0, 2), (1, 1)))
    for site in found:
        for field, drawn in first[site].items():
            assert np.array_equal(drawn, again[site][field])
            assert not np.array_equal(drawn, later[site][field])
            assert not np.array_equal(drawn, other[site][field])
