"""The LEGCNet paper's networks, choices and studies, on Fisher's irises as scikit-learn carries them."""

from __future__ import annotations

import io
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from jali.data import Dataset, Split
from jali.errors import DataError
from jali.evidence import Perturbation, Trajectory
from jali.report.plots import draw
from jali.report.tables import markdown
from jali.runs.store import RecordStore
from jali.site import sites
from jali.studies import (
    legcnet_figure5,
    legcnet_figure6,
    legcnet_rates,
    legcnet_recurrent,
    legcnet_recurrent_training,
    legcnet_runs,
    legcnet_sensitivity,
    legcnet_settings,
    legcnet_table1,
    legcnet_table2,
    legcnet_table3,
    legcnet_table4,
    legcnet_tables,
    legcnet_training,
    legcnet_verdict,
)
from jali.studies.base import Settings
from jali.studies.legcnet_networks import Bank, Descent, Examples, classes_of, descend, initial, logits_loss, widths
from jali.studies.legcnet_recurrent_training import RecurrentRecipe
from jali.studies.legcnet_runs import matched, runs
from jali.studies.legcnet_settings import SETTINGS, WEIGHTS, setting_of, tasks_of
from jali.studies.legcnet_tables import NAMES, PAPERS
from jali.studies.legcnet_training import until_converged
from jali.studies.runner import run_study
from jali.tabular import TABLES
from jali.view import read

STUDIES = (
    legcnet_table1, legcnet_table2, legcnet_table3, legcnet_table4, legcnet_figure5, legcnet_figure6, legcnet_sensitivity,
    legcnet_verdict, legcnet_recurrent, legcnet_rates,
)  # fmt: skip


def irises(name: str, seed: int = 0) -> Dataset:
    """Two classes for the sets that have two; the columns of irises, repeated to the number of features, MNIST's many times."""
    from sklearn.datasets import load_iris

    raw = load_iris()
    two = name in ("cancer", "banknote", "titanic")
    features, times = {"cancer": 9, "titanic": 6, "mnist": 784}.get(name, 4), 60 if name == "mnist" else 1
    x = (raw.data - raw.data.mean(0)) / raw.data.std(0)
    x = np.resize(x.T, (features, 150)).T.astype(np.float32)[:, None]
    y = np.minimum(raw.target, 1) if two else raw.target
    order = np.random.default_rng(seed).permutation(150)
    parts = {
        part: Split(*(torch.from_numpy(np.repeat(v[rows], times, 0)) for v in (x, y.astype(np.int64))))
        for part, rows in zip(("train", "validation", "test"), np.split(order, (90, 120)), strict=True)
    }
    return Dataset(name, **parts, classes=2 if two else 3, steps=1, features=features)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(legcnet_training, "load", irises)


# --- the networks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outputs", [1, 3])
@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 5))
def test_a_step_is_that_of_the_gradient_and_networks_do_not_know_each_other(outputs, seed, batch):
    generator = torch.Generator().manual_seed(seed)
    bank = initial((4, 5, 3, outputs), (seed, seed + 1, seed + 2))
    x = torch.randn(3, batch, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(0, max(outputs, 2), (3, batch), generator=generator)
    alone = [bank.pick([n]) for n in range(3)]
    logits_loss(bank(x), y).sum().backward()
    want = [weight.detach() - 0.3 * weight.grad for weight in bank.weights]
    descend(bank, x, y, 0.3)
    for weight, expected in zip(bank.weights, want, strict=True):
        torch.testing.assert_close(weight.detach(), expected, atol=1e-13, rtol=0)
    for n, one in enumerate(alone):
        descend(one, x[n : n + 1], y[n : n + 1], 0.3)
        for weight, all_of_them in zip(one.weights, bank.weights, strict=True):
            torch.testing.assert_close(weight[0], all_of_them[n], atol=1e-14, rtol=0)


def test_the_sizes_are_those_of_table_1():
    shapes = {
        "cancer": (9, 2),
        "titanic": (6, 2),
        "banknote": (4, 2),
        "iris": (4, 3),
        "iris-3": (3, 3),
        "vowel": (3, 6),
    }
    shapes["mnist"] = (784, 10)
    for name, (features, classes) in shapes.items():
        data = replace(irises("iris"), features=features, classes=classes)
        sizes = widths(data, SETTINGS[name].hidden)
        assert sum(a * b for a, b in itertools.pairwise(sizes)) == WEIGHTS[name] == PAPERS["dense", "kept"][name]


@pytest.mark.parametrize(
    ("losses", "stops"),
    [
        ([1.0, 0.5, 0.4, 0.399], False),  # an epoch of little gain, but less than two before
        ([1.0, 0.5, 0.4, 0.399, 0.398], True),
        ([1.0, 0.5], False),
        ([1.0, 0.2, 0.5, 0.6], True),  # the smallest of before counts
        ([1.0] * 3, True),
        ([2.0**-k for k in range(11)], True),  # the last epoch
        ([2.0**-k for k in range(10)], False),
    ],
)
def test_the_rule_of_convergence(losses, stops):
    assert Descent(rate=1.0, epochs=10, gain=0.01, patience=2).stops(np.array(losses)) is stops


def test_networks_stop_alone_and_are_kept_as_they_were_then():
    data = irises("iris")
    setting = replace(SETTINGS["iris"], descent=Descent(rate=0.1, epochs=8, gain=0.2, patience=2))
    start = initial(widths(data, (6,)), (0, 1, 2))
    before = [weight.detach().clone() for weight in start.weights]
    examples = legcnet_training.examples_of([data] * 3, [0, 1, 2])
    done, epochs = until_converged(start, examples, setting, None, lambda *given: None)
    assert all(torch.equal(a, b) for a, b in zip(before, start.weights, strict=True)), (
        "the initial weights are left alone"
    )
    assert len(set(epochs)) > 1, "the data do not stop all networks at once"
    for n, count in enumerate(epochs):
        one, own = start.pick([n]), examples.of([n])
        for epoch in range(count):
            for x, y in own.batches(epoch, 1):
                descend(one, x, y, 0.1)
        for weight, found in zip(one.weights, done.weights, strict=True):
            torch.testing.assert_close(weight[0], found[n], atol=1e-12, rtol=0)


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_controls_keep_as_many_of_every_layer(seed):
    rng = np.random.default_rng(seed)
    layers = [rng.random(shape) < 0.4 for shape in ((5, 4), (1, 5))]
    scores = [rng.random(layer.shape) for layer in layers]
    for layer, score, keep in zip(layers, scores, matched(layers, scores), strict=True):
        assert keep.sum() == layer.sum()
        assert not keep.any() or keep.all() or score[keep].min() > score[~keep].max()


def test_what_goes_and_what_stays():
    p = np.array([0.01, 0.049, 0.051, 1.0, np.nan])
    assert legcnet_runs.chosen(p, "FT").tolist() == [True, True, False, False, True]
    assert legcnet_runs.chosen(p, "PT, causal go").tolist() == [False, False, True, True, True]


# --- the runs -------------------------------------------------------------------------------------------------------------


def test_runs_are_made_once_and_their_networks_are_what_they_are_said_to_be(small, tmp_path):
    (task,) = tasks_of(Settings(quick=True, seeds=(0, 1)), ["iris"])
    made = runs(task.config, RecordStore(tmp_path), lambda *given: None)

    def refuse(*given):
        raise AssertionError("trained again")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(legcnet_runs, "_made", refuse)
        again = runs(task.config, RecordStore(tmp_path), lambda *given: None)
        with pytest.raises(AssertionError, match="trained again"):
            runs({**task.config, "max_lag": 1}, RecordStore(tmp_path), lambda *given: None)
    assert (made.what, made.seed, made.epochs, made.windows, made.problems) == (
        again.what, again.seed, again.epochs, again.windows, again.problems,
    )  # fmt: skip
    for one, other in zip((*made.bank.weights, *made.keep), (*again.bank.weights, *again.keep), strict=True):
        assert torch.equal(one, other)
    assert all(made.p[choice].tobytes() == again.p[choice].tobytes() for choice in made.p)
    for n, what in enumerate(made.what):
        for weight, keep in zip(made.bank.weights, made.keep, strict=True):
            assert (weight[n][~keep[n]] == 0).all(), what
        choice = what.removeprefix("random as ").removeprefix("magnitude as ")
        if choice in made.p:
            (same,) = [m for m in made.where(choice) if made.seed[m] == made.seed[n]]
            assert [int(k[n].sum()) for k in made.keep] == [int(k[same].sum()) for k in made.keep]
            flat = np.concatenate([k[same].numpy().ravel() for k in made.keep])
            assert (flat == legcnet_runs.chosen(made.p[choice][made.seed[n]], choice)).all()
    assert set(made.windows["PT"]) == {3 * 120 // 20}


def test_a_network_that_loses_nothing_is_trained_as_the_dense_one(small, monkeypatch):
    monkeypatch.setattr(legcnet_runs, "chosen", lambda p, choice: np.ones(len(p), dtype=bool))
    (task,) = tasks_of(Settings(quick=True, seeds=(0, 1)), ["iris"])
    made = legcnet_runs._made(task.config, lambda *given: None)
    for n, what in enumerate(made.what):
        if what in ("FT", "random as PT"):
            assert made.epochs[n] == made.epochs[made.seed[n]]
            for weight in made.bank.weights:
                torch.testing.assert_close(weight[n], weight[made.seed[n]], atol=1e-12, rtol=0)


def test_the_recorded_setting_is_the_setting():
    for seeds in ((0,), (0, 1, 2)):
        for task in tasks_of(Settings(seeds=seeds), list(NAMES)):
            assert setting_of(task.config) == SETTINGS[task.key["data"]]
    assert len(tasks_of(Settings(seeds=(0, 1, 2)), ["mnist"])) == 3


# --- the studies ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", STUDIES, ids=lambda module: module.__name__.rsplit("_", 1)[-1])
def test_a_study_runs_resumes_and_shows_its_records(module, small, tmp_path, monkeypatch):
    study, shown = module.STUDY, Console(file=io.StringIO(), width=200)
    assert study.summary([]) == []
    assert list(study.figures([])) == []
    assert run_study(study, tmp_path, seeds=2, quick=True, console=shown).finished
    records = RecordStore(tmp_path).records()
    assert records
    assert all(markdown(table).count("\n") > 4 for table in study.summary(records))
    assert all(draw(figure) for figure in study.figures(records))

    def refuse(*given: object) -> None:
        raise AssertionError("a recorded task was run again")

    monkeypatch.setattr(type(study), "run", refuse)
    assert run_study(study, tmp_path, seeds=2, quick=True, console=shown).finished
    for part in (records[:1], records[-1:]):
        assert all(markdown(table) for table in study.summary(part))


def recurrent_task():
    return legcnet_recurrent.STUDY.tasks(Settings(quick=True))[0]


def test_the_controls_of_a_recurrent_network_remove_as_much_of_every_matrix():
    recipe = RecurrentRecipe.of({**recurrent_task().config, "draws": 2, "epochs": 3})
    data = legcnet_recurrent_training.doubles(recipe)
    start = legcnet_recurrent_training.initial_network(data, recipe, "LSTM", 0)
    train = legcnet_recurrent_training.descending(data, recipe, 0)
    seen, dense = legcnet_recurrent_training.recorded(start, data, train, recipe, 1e-4)
    made = legcnet_recurrent_training.chosen(start, seen, "non-causal")
    assert made is not None
    assert 0 < made.sparsity < 1
    found = dict(legcnet_recurrent_training.controls(made, "FT", dense, recipe, 0))
    everyone = list(legcnet_recurrent_training.controls(made, "FT", dense, recipe, 0))
    assert [what for what, _ in everyone] == ["magnitude as FT", "random as FT", "random as FT"]
    for what, control in everyone:
        for site, own in zip(made.sites, control.sites, strict=True):
            for field, keep in site.keep.items():
                assert own.keep[field].sum() == keep.sum(), what
    for site in found["magnitude as FT"].sites:
        view = read(dense, next(s for s in sites(dense, linear=True) if s.name == site.name))
        for field, keep in site.keep.items():
            size = np.abs(getattr(view, field))
            assert not keep.any() or keep.all() or size[keep].min() >= size[~keep].max()
    one, other = (control for what, control in everyone if "random" in what)
    assert any((a.keep[f] != b.keep[f]).any() for a, b in zip(one.sites, other.sites, strict=True) for f in a.keep)

    again = legcnet_recurrent_training.retrained(start, made, dense, train)
    for site in sites(start, linear=True):
        for field, keep in made.site(site.name).keep.items():
            assert (getattr(read(again, site), field)[~keep] == 0).all()
            assert (getattr(read(again, site), field)[keep] != getattr(read(start, site), field)[keep]).any()


def test_each_reading_removes_what_its_tests_say(tmp_path, monkeypatch):
    real = legcnet_recurrent_training.load("digits")
    nobodys = real.test._replace(y=torch.full_like(real.test.y, -1))  # a part on which no network is right
    monkeypatch.setattr(legcnet_recurrent_training, "load", lambda name: replace(real, test=nobodys))
    task = recurrent_task()
    found = legcnet_recurrent.STUDY.run(task, RecordStore(tmp_path), lambda *given: None).data
    gone = {row["what"]: round(row["removed"] * found["weights"]) for row in found["runs"]}
    for what in ("FT", "PT"):
        tests = found["tests"][what]
        assert gone[what] == found["weights"] - tests["below p"] - sum(tests["problems"].values())
        assert gone[f"random as {what}"] == gone[f"magnitude as {what}"] == gone[what]
    assert gone["FT, causal go"] == found["tests"]["FT"]["below p"]
    assert found["windows"]["PT"] < found["windows"]["FT"] == len(found["ends"])
    assert gone["dense"] == 0
    assert all(row["accuracy"] == 0 < row["train"] for row in found["runs"])
    first, *others = ([0.0, *each["ln"]] for each in found["growth"])  # from δ₀ on, and in proportion to it
    assert np.abs(np.diff(first)).max() < 0.5
    for other in others:
        np.testing.assert_allclose(other, first, atol=0.05)


def test_where_nothing_goes_the_dense_network_stands_for_it():
    recipe = RecurrentRecipe.of(recurrent_task().config)
    start, silent = torch.nn.Linear(2, 2), np.full(30, 0.5)  # the accuracy never changes
    moved = Perturbation.first(start)
    ends, noise = 40 * np.arange(1, 31), np.random.default_rng(0).normal(size=(30, 2, 2))
    seen = Trajectory({"weight": noise}, silent, silent, ends, 1200, 40, 40, "direct", moved)
    assert legcnet_recurrent_training.chosen(start, seen, "non-causal") is None
    dense = torch.nn.Linear(2, 2)
    assert legcnet_recurrent_training.retrained(torch.nn.Linear(2, 2), None, dense, None) is dense
    assert all(made is None for _, made in legcnet_recurrent_training.controls(None, "PT", dense, recipe, 0))


def test_the_recorded_recipe_is_the_recipe_and_its_rate_was_tried():
    for task in legcnet_recurrent.STUDY.tasks(Settings(seeds=(0,))):
        assert RecurrentRecipe.of(task.config) == RecurrentRecipe(legcnet_recurrent.RATES[task.key["cell"]])
        assert task.config["rate"] in legcnet_rates.CELLS
    assert {SETTINGS[name].descent.rate for name in NAMES if name != "mnist"} <= set(legcnet_rates.SMALL)
    assert SETTINGS["mnist"].descent.rate in legcnet_rates.LARGE


def test_every_rate_is_tried_on_the_train_part(small, tmp_path, monkeypatch):
    (task,) = [t for t in legcnet_rates.STUDY.tasks(Settings(quick=True, seeds=(0, 1))) if "cell" not in t.key]
    tried = []

    def converged(start, examples, setting, keep, progress):
        assert torch.equal(examples.x[1], irises("iris").train.x.flatten(1))
        tried.append(setting.descent.rate)
        return start, (1, 2)

    monkeypatch.setattr(legcnet_rates, "until_converged", converged)
    legcnet_rates.STUDY.run(task, RecordStore(tmp_path), lambda *given: None)
    assert tried == list(legcnet_rates.SMALL) == task.config["rates"]


def test_rates_are_judged_on_the_validation_part(small, tmp_path, monkeypatch):
    """Neither the test part nor the seeds' own data count: a set without a test part does as well."""
    (task,) = [t for t in legcnet_rates.STUDY.tasks(Settings(quick=True, seeds=(0, 1))) if "cell" not in t.key]
    store = RecordStore(tmp_path)
    before = legcnet_rates.STUDY.run(task, store, lambda *given: None).data["runs"]
    gone = Split(torch.full((30, 1, 4), torch.nan), torch.zeros(30, dtype=torch.int64))
    monkeypatch.setattr(legcnet_training, "load", lambda name: replace(irises(name), test=gone))
    assert legcnet_rates.STUDY.run(task, store, lambda *given: None).data["runs"] == before
    monkeypatch.setattr(legcnet_training, "load", lambda name: replace(irises(name), validation=gone))
    assert legcnet_rates.STUDY.run(task, store, lambda *given: None).data["runs"] != before


@pytest.mark.parametrize("name", list(NAMES))
def test_a_quick_run_perturbs_the_same_weight_of_the_same_network(name):
    setting = SETTINGS[name]
    small = legcnet_settings.quick(setting)
    for kept in ("data", "hidden", "place", "dtype", "apart", "delta", "method", "max_lag"):
        assert getattr(small, kept) == getattr(setting, kept)
    assert small.descent.rate == setting.descent.rate
    assert small.descent.epochs < setting.descent.epochs
    assert small.early < small.descent.epochs


def test_equal_networks_are_neither_better_nor_worse(tmp_path):
    """Three draws of 0.7 have a mean of 0.7 but for rounding, which is no win."""
    seeds, third = range(4), 0.7 + 1e-16
    rows = [{"seed": s, "what": "FT", "accuracy": 0.7} for s in seeds]
    rows += [{"seed": s, "what": "random as FT", "accuracy": third + d} for s in seeds for d in (0, 2e-16, 1e-16)]
    record = legcnet_rates.STUDY.tasks(Settings(quick=True))[0].record("x", {}, data={"runs": rows})
    found = legcnet_verdict.paired([record], "iris", "FT", "random as {}", "accuracy")
    assert found == [0.0] * 4
    assert legcnet_verdict.wilcoxon(np.array(found)) == 1.0


def test_holms_correction_stands_beside_the_p_value():
    rows = legcnet_verdict.with_holm([("a", 0.01), ("b", 0.04), ("c", 0.5)])
    assert [row[-1] for row in rows] == pytest.approx([0.03, 0.08, 0.5])


def test_points_of_several_labels_stand_side_by_side():
    found = legcnet_tables.apart({"a": [[1.0, 2.0], []], "b": [[3.0], [4.0]]})["series"]
    assert [each["label"] for each in found] == ["a", "b"]
    assert found[0]["y"] == [1.0, 2.0]
    assert [round(x) for x in found[1]["x"]] == [1, 2]
    assert found[0]["x"][0] < 1 < found[1]["x"][0]


def test_the_difference_is_ours_minus_the_papers(small, tmp_path):
    run_study(legcnet_table1.STUDY, tmp_path, seeds=2, quick=True, console=Console(file=io.StringIO()))
    (record,) = RecordStore(tmp_path).records()
    table = next(t for t in legcnet_table1.STUDY.summary([record]) if t.title == "Table 1: accuracy")
    cells = dict(zip(table.columns, table.rows[0], strict=True))
    ours = [100 * row["accuracy"] for row in record.data["runs"] if row["what"] == "FT"]
    assert len(ours) == 2
    assert cells["FT, paper"] == "90.00"
    assert cells["FT, best of ours"] == f"{max(ours):.2f}"
    assert cells["FT, difference"] == f"{sum(ours) / 2 - 90:+.2f}"


def test_accuracies_tell_the_size_of_the_test_part():
    assert legcnet_table1.implied([0.5]) == 2
    assert legcnet_table1.implied([0.9, 0.9333]) == 30
    assert legcnet_table1.fits([0.8759, 0.8905], 137)
    assert not legcnet_table1.fits([0.7225, 0.7249], 209)
    assert legcnet_table1.implied([0.5001], 100) is None


def test_series_without_chaos_have_positive_slopes():
    found = legcnet_sensitivity.controls(200, 200)
    assert found["noise"] > 0.5
    assert found["damped"] > 0.5


def test_growth_is_that_of_the_distance(small):
    data, setting = irises("iris"), legcnet_settings.quick(SETTINGS["iris"])
    examples = legcnet_training.examples_of([data], [0])
    seen = legcnet_training.recorded(initial(widths(data, (6,)), [0]), examples, setting, 3, lambda *given: None)
    np.testing.assert_allclose(
        legcnet_sensitivity.growth(seen, 0, setting.delta), np.log(seen.distance / setting.delta), rtol=1e-9
    )


# --- the tables of data -------------------------------------------------------------------------------------------------------


def test_rows_with_gaps_are_left_out_and_classes_are_numbered():
    x, y = TABLES["cancer"]("1,5,1,1,1,2,1,3,1,1,2\n2,5,1,1,1,2,?,3,1,1,2\n3,8,1,1,1,2,1,3,1,9,4\n")
    assert x.tolist() == [[5, 1, 1, 1, 2, 1, 3, 1, 1], [8, 1, 1, 1, 2, 1, 3, 1, 9]]
    assert y.tolist() == [0, 1]
    head = "survived,pclass,name,sex,age,sibsp,parch,fare\n"
    x, y = TABLES["titanic"](f'{head}1,1,"A, B",female,29,0,0,211.3\n0,3,C,male,,0,0,7.0\n0,2,D,male,4,1,2,8.5\n')
    assert x.tolist() == [[1, 1, 29, 0, 0, 211.3], [2, 0, 4, 1, 2, 8.5]]
    assert y.tolist() == [1, 0]
    x, y = TABLES["iris-3"]("5.1,3.5,1.4,0.2,Iris-setosa\n4.9,3.0,1.4,0.2,Iris-virginica")
    assert x.shape == (2, 3)
    assert TABLES["vowel"]("1  700 1500 2600\n6 1 2 3\n")[1].tolist() == [0, 1]


def test_a_table_that_is_none_says_so():
    with pytest.raises(DataError, match=r"no number \(could not convert string to float: 'x'\)"):
        TABLES["banknote"]("1,2,3,x,0\n")
    with pytest.raises(DataError, match="no whole row"):
        TABLES["titanic"]("survived,pclass\n")


def test_examples_come_once_each_in_an_order_of_their_seed():
    x = torch.arange(24.0).reshape(2, 12, 1)
    examples = Examples(x, x[..., 0].long(), torch.tensor([0, 1, 0]), (7, 8))
    seen = torch.cat([batch for batch, _ in examples.batches(3, 5)], dim=1)[..., 0]
    assert torch.equal(seen[0], seen[2])
    assert torch.equal(seen[0].sort().values, x[0, :, 0])
    assert torch.equal(seen[1].sort().values, x[1, :, 0])
    assert not torch.equal(seen[1] - 12, seen[0]), "another seed, another order"
    assert not torch.equal(examples.order(3), examples.order(4))


def test_one_output_is_the_logit_of_class_1():
    bank = Bank([torch.tensor([[[2.0]]]), torch.tensor([[[4.0]]])]).double()
    logits = bank(torch.tensor([[[0.5], [-3.0]]], dtype=torch.float64))
    assert classes_of(logits).tolist() == [[1, 1]]
    assert classes_of(-logits).tolist() == [[0, 0]]


@pytest.mark.data
def test_the_canonical_tables_have_their_sizes():
    import os

    from jali.data import load

    folder = Path(os.environ.get("JALI_DATA") or "/nonexistent") / "tabular"
    if not folder.is_dir():
        pytest.skip("JALI_DATA has no tabular")
    rows = {
        "cancer": (137, 9, 2),
        "titanic": (209, 6, 2),
        "banknote": (275, 4, 2),
        "iris": (30, 4, 3),
        "vowel": (175, 3, 6),
    }
    for name, (test, features, classes) in rows.items():
        data = load(name)
        assert (len(data.test.x), data.features, data.classes) == (test, features, classes)
        both = torch.cat([data.train.x, data.validation.x])
        torch.testing.assert_close(both.mean((0, 1)), torch.zeros(features), atol=1e-5, rtol=0)
        assert len(set(map(int, data.test.y))) == classes
