"""The studies of expansion on few digits: their masks, bounds and records are what they say."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console

from jali.data import load
from jali.maths.spectral import expansion, random_crossing
from jali.runs.store import RecordStore
from jali.studies import expander_controls, expander_runs
from jali.studies.base import Settings, find_study
from jali.studies.expander_control_tables import STRENGTHS
from jali.studies.expander_controls import ExpanderControls
from jali.studies.expander_layers import ExpanderLayers
from jali.studies.expander_mnist import ExpanderMnist
from jali.studies.expander_tables import interpolated
from jali.studies.runner import run_study

SMALL = expander_runs.ExpanderRecipe(
    "digits", "LSTM", hidden=12, epochs=(1, 1), batch=32, remaining=(0.5, 0.2), layers=("W_hh", "both"), widths=(8,),
    noise=(0.0, 0.3), examples=64,
)  # fmt: skip


def run(study, folder):
    shown = io.StringIO()
    run_study(study, folder, seeds=2, console=Console(file=shown, width=220))
    return shown.getvalue(), RecordStore(folder).records()


def test_the_curves_study_records_what_it_did_and_resumes(tmp_path, monkeypatch):
    monkeypatch.setattr(expander_runs, "DRAWS", 1)
    monkeypatch.setattr(ExpanderMnist, "full", SMALL)
    shown, records = run(ExpanderMnist(), tmp_path)
    assert len(records) == 2 * (3 + 2 * 2)
    for record in records:
        assert expander_runs.ExpanderRecipe.of(record.config) == SMALL
        assert record.config["used"]["train"] == 64
        assert {"validation", "test σ=0", "test σ=0.3"} <= set(record.metrics)
    dense = [r for r in records if r.task["what"] == "dense"]
    assert {r.task["width"] for r in dense} == {12, 8}
    for record in dense:
        for layer in ("W_xh", "W_hh"):
            for bound in "SR":
                assert 0 < record.metrics[f"crossing {layer} {bound}"].value <= 1
                assert 0 < record.metrics[f"crossing {layer} per gate {bound}"].value <= 1
                assert record.metrics[f"crossing {layer} per gate {bound} weighted"].n == 4
        assert record.data["processor seconds"] > 0
    for words in (
        "W_hh per gate, 12 units",
        "W_hh, 12 units, narrow start",
        "LSTM on 64 of digits: where the bounds are lost",
        "LSTM on 64 of digits: crossings by width",
        "LSTM on 64 of digits: which width fits the paper",
        "LSTM on 64 of digits: accuracy, both layers cut",
        "Δ_S, random cut",
    ):
        assert words in shown
    assert "tasks are already recorded" in run(ExpanderMnist(), tmp_path)[0]


def test_each_layer_is_cut_alone_and_a_cut_of_nothing_is_trained_once(tmp_path, monkeypatch):
    recipe = replace(SMALL, layers=("both", "W_xh", "W_hh"), remaining=(1.0, 0.2), widths=())
    monkeypatch.setattr(expander_runs, "DRAWS", 1)
    monkeypatch.setattr(ExpanderLayers, "full", recipe)
    _, records = run(ExpanderLayers(), tmp_path)
    assert len(records) == 2 * (1 + 1 + 3)
    for layer, whole in (("W_xh", "W_hh"), ("W_hh", "W_xh")):
        for record in records:
            if record.task.get("layer") == layer:
                assert f"{layer} Δ_R" in record.metrics
                assert f"{whole} Δ_R" not in record.metrics  # full: infinite
    tables = ExpanderLayers().summary(records)
    assert [table.title.split(": ")[1] for table in tables] == [
        "accuracy, both layers cut", "accuracy, W_xh cut", "accuracy, W_hh cut",
    ]  # fmt: skip
    assert {tuple(row[0] for row in table.rows) for table in tables} == {("before the cut", "100 %", "20 %")}
    assert len({table.rows[1] for table in tables}) == 1
    for figure, layer in zip(ExpanderLayers().figures(records), ("W_xh", "W_xh", "W_hh", "W_hh"), strict=True):
        assert f"with {layer} cut" in figure.caption
        mean = np.mean([r.metrics["test σ=0"].value for r in records
                        if (r.task.get("layer"), r.task.get("remaining")) == (layer, 0.2)])  # fmt: skip
        assert figure.payload["series"][0]["y"][1] == pytest.approx(mean)
        crossing = {"W_xh": 50, "W_hh": 12}[layer]
        assert figure.payload["marks"] == [{"x": pytest.approx(crossing), "label": "paper: Δ_S, Δ_R"}]


def test_networks_start_as_their_slope_says():
    for slope, gain in ((0.0, 6), (math.sqrt(5), 1)):
        model = expander_runs.network(SMALL, 0, slope=slope)
        for weight, fan_in in ((model.rnn.weight_ih_l0, 8), (model.rnn.weight_hh_l0, 12), (model.head.weight, 12)):
            assert 0.8 < float(weight.detach().abs().max()) / math.sqrt(gain / fan_in) <= 1


def test_a_width_lies_between_those_that_were_trained_or_is_not_told():
    assert interpolated([64, 128, 256], [0.2, 0.4, 0.6], 0.5) == "181"  # half way in the logarithm
    assert interpolated([64, 128], [0.2, 0.4], 0.4) == "128"
    assert interpolated([64, 128], [0.2, 0.4], 0.5) == "none from 64 to 128 (20 % at 64, 40 % at 128)"


def test_an_unfinished_run_shows_what_it_has(tmp_path, monkeypatch):
    monkeypatch.setattr(expander_runs, "DRAWS", 1)
    monkeypatch.setattr(ExpanderMnist, "full", SMALL)
    study = ExpanderMnist()
    store = RecordStore(tmp_path)
    tasks = study.tasks(Settings())
    assert [task.key["what"] for task in tasks] == ["dense", "dense", "narrow start"] + ["cut"] * 4
    records = [study.run(task, store, lambda *_: None) for task in (*tasks[:2], tasks[-1])]
    titles = [table.title for table in study.summary(records)]
    assert "LSTM on 64 of digits: accuracy, both layers cut" in titles
    assert not any("W_hh cut" in title for title in titles)
    (table,) = (table for table in study.summary(records) if table.title.endswith("both layers cut"))
    assert [row[0] for row in table.rows] == ["before the cut", "20 %"]
    assert [figure.title for figure in study.figures(records)]


def test_the_controls_study_tells_ranks_of_every_family(tmp_path, monkeypatch):
    monkeypatch.setattr(expander_controls, "FULL", replace(SMALL, kind="RNN", remaining=(0.3,)))
    shown, records = run(ExpanderControls(), tmp_path)
    assert len(records) == 2 * (1 + 3 * len(STRENGTHS) + 2 * (len(STRENGTHS) - 1) + 2)
    (table,) = (table for table in ExpanderControls().summary(records) if table.title == "Corrected minus broken")
    (row,) = (row for row in table.rows if row[:2] == ("random, 30 %", "+0.1"))
    pairs = [
        [
            r.metrics["Δ_R"].value
            for r in records
            if (r.task["what"], r.seed, r.task.get("strength")) == ("random", seed, s)
        ]
        for seed in (0, 1)
        for s in (0.1, -0.3)
    ]
    (a,), (b,), (c,), (d,) = pairs
    assert row[5].startswith(f"{(a - b + c - d) / 2:.3f} ± ")
    for words in ("Expansion and accuracy at fixed density", "magnitude", "initial, α2", "all", "ρ(α2)"):
        assert words in shown
    (table,) = (
        table for table in ExpanderControls().summary(records) if table.title.startswith("Expansion and accuracy")
    )
    assert f"{len(STRENGTHS)} masks each. All: among the {sum(r.seed == 0 for r in records) - 3} masks" in table.caption
    (table,) = (table for table in ExpanderControls().summary(records) if table.title == "Who wins at one density")
    row = next(row for row in table.rows if row[:3] == ("30 %", "expander", "largest weights"))
    ours, theirs = (
        {r.seed: r.metrics["test σ=0"].value for r in records if (r.task["what"], r.task.get("strength")) == wanted}
        for wanted in (("magnitude, α2", 0.1), ("largest", 0.0))
    )
    assert row[3].startswith(f"{100 * np.mean([ours[seed] - theirs[seed] for seed in (0, 1)]):.2f} ± ")
    by_strength = [
        np.mean([r.metrics["Δ_R"].value for r in records if (r.task["what"], r.task.get("strength")) == ("random", s)])
        for s in (-0.3, 0.0, 0.1)
    ]
    assert by_strength == sorted(by_strength)


def test_the_masks_of_the_controls_are_what_their_names_say():
    model = expander_runs.network(replace(SMALL, kind="RNN", hidden=20), 0)
    largest, regular, chance = (
        expander_controls.masks(model, {"what": what, "strength": 0.0, "remaining": 0.3}, 0)
        for what in ("largest", "regular", "initial")
    )
    for field, sizes in ((field, np.abs(getattr(expander_runs.view_of(model), field))) for field in ("w_in", "w_rec")):
        assert largest[field].sum() == regular[field].sum() == chance[field].sum() == round(0.3 * sizes.size)
        assert sizes[largest[field]].min() >= sizes[~largest[field]].max()
        spread = [mask[field][0].sum(axis=1).std() for mask in (regular, chance)]
        assert spread[0] < 0.7 * spread[1]  # degrees more equal than by chance


@pytest.mark.parametrize("name", ["expander-mnist", "expander-speech", "expander-layers", "expander-controls"])
def test_the_studies_are_found_and_the_quick_ones_are_smaller(name, monkeypatch):
    monkeypatch.setattr(expander_runs, "loaded", lambda _: load("digits"))
    study = find_study(name)
    assert 0 < len(study.tasks(Settings(quick=True))) < len(study.tasks(Settings()))


def test_what_was_cut_stays_zero_in_training_and_all_else_moves():
    model = expander_runs.network(SMALL, 0)
    keep = {"w_rec": expander_runs.strongest(expander_runs.view_of(model).w_rec, 0.25)}
    expander_runs.cut(model, keep)
    before = expander_runs.view_of(model)
    expander_runs.fit(model, SMALL, 1, 0)
    after = expander_runs.view_of(model)
    assert (after.w_rec[~keep["w_rec"]] == 0).all()
    assert (after.w_rec[keep["w_rec"]] != before.w_rec[keep["w_rec"]]).all()
    assert keep["w_rec"].sum() == round(0.25 * keep["w_rec"].size)


def test_crossings_are_where_the_bound_is_lost():
    values = np.random.default_rng(0).normal(size=(40, 24))
    for bound in "SR":
        where = expander_runs.crossing(values, bound)
        for edges, holds in ((round(where * values.size), True), (round(where * values.size) - 1, False)):
            mask = expander_runs.strongest(values, edges / values.size)
            assert mask.sum() == edges
            assert (expansion(mask).delta(bound) >= 0) is holds
    assert expander_runs.crossing(0.001 * values, "S", weighted=True) == 1.0  # λ1 of the weights is below 1
    found = expander_runs.curve(values)
    assert found["remaining"][0] == 1.0
    assert found["Δ_S"][0] is None  # complete: infinite
    assert len(found["Δ_R weighted"]) == len(found["remaining"])


def test_random_cuts_cross_where_random_orders_do():
    for bound in "SR":
        once = expander_runs.crossing_by_chance((60, 20), bound, 0)
        assert (
            once
            == expander_runs.crossing_by_chance((60, 20), bound, 0)
            != expander_runs.crossing_by_chance((60, 20), bound, 1)
        )
        assert once == pytest.approx(random_crossing(60, 20, bound), abs=0.15)


def test_a_layer_of_zeros_or_of_few_edges_has_its_bounds():
    model = expander_runs.network(SMALL, 0)
    expander_runs.cut(
        model, {"w_rec": np.zeros((4, 12, 12), bool), "w_in": np.arange(4 * 12 * 8).reshape(4, 12, 8) < 1}
    )
    assert expander_runs.bounds(model) == {}  # W_xh: one edge, of degree 2/56; λ2 = 0, so Δ_S is infinite
    assert expander_runs.crossing(np.zeros((12, 8)), "S") <= 1.0
    assert expander_runs.crossing(np.zeros((12, 8)), "S", weighted=True) == 1.0
    assert set(expander_runs.curve(np.zeros((12, 8)))["Δ_R weighted"]) == {None}


def test_noise_is_on_the_fraction_asked_and_always_the_same():
    x = torch.zeros(50, 28, 28)
    once = expander_runs.noisy(x, 0.3, 0.2)
    assert torch.equal(once, expander_runs.noisy(x, 0.3, 0.2))
    assert (once != 0).float().mean() == pytest.approx(0.2, abs=0.01)
    assert once[once != 0].std() == pytest.approx(0.3, abs=0.01)
    assert torch.equal(expander_runs.noisy(x, 0.0, 0.2), x)
