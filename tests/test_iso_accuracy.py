"""The iso-accuracy study: what was pruned stays pruned, the choice reads the validation split only, the run is whole."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import jali
from jali.data import load
from jali.runs.record import Metric, Record
from jali.studies import iso_accuracy as iso
from jali.studies import iso_tables
from jali.studies.base import Settings, find_study
from jali.studies.runner import run_study
from jali.studies.training import Recipe, SequenceClassifier
from jali.studies.variants import Variant
from jali.surgery.mask import mask

FAMILIES = ("weight", "gate-aligned", "block:16x1", "n:m", "unit")


def record(family: str, sparsity: float, criterion: str, validation: float, test: float = 0.5) -> Record:
    key = {"what": "pruned", "family": family, "sparsity": sparsity, "criterion": criterion, "data": "d", "seed": 0}
    return Record("iso-accuracy", key, 0, {}, {"validation": Metric(validation, 1000), "test": Metric(test, 1000)})


DENSE = Record("iso-accuracy", {"what": "dense", "data": "d", "seed": 0}, 0, {}, {"validation": Metric(0.9, 1000)})


# --- training with a mask ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["weight", "block:16x1", "n:m"])
def test_what_was_pruned_stays_pruned_and_the_rest_learns(family: str) -> None:
    data = load("digits")
    torch.manual_seed(0)
    model = SequenceClassifier(data.features, 32, data.classes)
    masked = mask(model, Variant(family, 0.75).plan(model, "magnitude"))
    before = copy.deepcopy(masked)
    iso.train_masked(masked, data, Recipe(epochs=1, batch=64, lr=1e-2), seed=0)
    for (name, old), new in zip(before.named_parameters(), masked.parameters(), strict=True):
        if name.startswith("rnn.weight"):
            assert torch.equal(old == 0, new == 0)
        assert not torch.equal(old, new)
    assert not any(p._backward_hooks for p in masked.parameters())


# --- choosing ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from([0.8, 0.9]), st.sampled_from("abc"), st.integers(0, 9), st.floats(0, 1))))
def test_the_criterion_is_chosen_by_validation_alone(drawn: list[tuple[float, str, int, float]]) -> None:
    records = [record("weight", s, c, v / 10, test) for s, c, v, test in drawn]
    chosen = {each.task["sparsity"]: each for each in iso_tables.chosen(records)}
    assert set(chosen) == {s for s, *_ in drawn}
    for sparsity, each in chosen.items():
        best = max(v / 10 for s, _, v, _ in drawn if s == sparsity)
        assert each.metrics["validation"].value == best
        assert each is next(
            r for r in records if (r.task["sparsity"], r.metrics["validation"].value) == (sparsity, best)
        )


@pytest.mark.parametrize(("validation", "within"), [(0.95, True), (0.9, True), (0.895, True), (0.894, False)])
def test_half_a_point_is_half_a_point(validation: float, within: bool) -> None:
    row = iso_tables.row_of(record("n:m", 0.9, "magnitude", validation), DENSE)
    assert row["within"] is within
    assert row["lost on validation"] == pytest.approx(0.9 - validation)
    assert row["pattern"] == "3:32"


@given(st.lists(st.tuples(st.sampled_from(FAMILIES), st.integers(1, 9), st.booleans())))
def test_the_fastest_of_those_without_loss_wins(drawn: list[tuple[str, int, bool]]) -> None:
    rows = [{"family": f, "seconds": {"median": float(t)}, "within": w} for f, t, w in drawn]
    won = {row["family"]: row for row in iso_tables.winners(rows)}
    assert set(won) == {f for f, _, within in drawn if within}
    for family, row in won.items():
        assert row["within"]
        assert row["seconds"]["median"] == min(t for f, t, within in drawn if within and f == family)


def test_lossy_engines_are_no_yardstick() -> None:
    times = {"torch": 5.0, "onnxruntime": 3.0, "openvino-bf16": 1.0, "onnxruntime-int8": 0.5}
    engines = [{"name": name, "seconds": {"median": t}} for name, t in times.items()]
    assert iso_tables.best_engine(engines)["name"] == "onnxruntime"
    assert iso_tables.ratio({"seconds": {"median": 0.5}}, engines) == 6.0


def test_what_is_lost_on_the_test_split_is_shown_beside_the_choice_on_validation() -> None:
    dense = replace(DENSE, metrics={"validation": Metric(0.9, 1000), "test": Metric(0.95, 2000)})
    row = iso_tables.row_of(record("n:m", 0.9, "magnitude", 0.9, test=0.91), dense)
    row |= {"removed": 0.9, "seconds": {"median": 1e-4}, "test, accelerated": 0.91}
    engines = [{"name": "torch", "seconds": {"median": 2e-4}}]
    key = {"what": "time", "data": "d", "seed": 0}
    timed = Record("iso-accuracy", key, 0, {}, {}, data={"rows": [row], "engines": engines})
    table = iso_tables.fastest("d", [dense, timed])
    cells = next(dict(zip(table.columns, row, strict=True)) for row in table.rows if row[0] == "n:m")
    assert (cells["test (%)"], cells["lost on test"], cells["times as fast"]) == ("91.00", "4.00", "2.0")
    assert "dense: 95.00 % of 2,000 sequences" in table.caption


# --- the study --------------------------------------------------------------------------------------------------------


def test_tasks_are_unique_and_the_timing_comes_last(monkeypatch) -> None:
    monkeypatch.setattr(iso, "_loaded", lambda name: load("digits"))  # the sets themselves play no part
    study = find_study("iso-accuracy")
    tasks = study.tasks(Settings(seeds=(0, 1)))
    for name in ("mnist", "speech-commands"):
        for seed in (0, 1):
            own = [task.key["what"] for task in tasks if (task.key["data"], task.seed) == (name, seed)]
            assert (own[0], own[-1]) == ("dense", "time")
            assert set(own[1:-1]) == {"pruned"}
    names = [iso._weights(task.key) for task in tasks]
    assert len(set(names)) == len(names)
    assert not any("/" in name for name in names)


def test_the_quick_study_trains_prunes_times_and_reports(tmp_path, monkeypatch, capsys) -> None:
    calls: list[Any] = []

    def accelerate(model: torch.nn.Module, example: torch.Tensor) -> torch.nn.Module:
        calls.append(example.shape)
        return copy.deepcopy(model)

    monkeypatch.setattr(jali, "accelerate", accelerate, raising=False)
    monkeypatch.setattr(iso, "FAMILIES", FAMILIES)
    monkeypatch.setattr(iso, "installed", lambda: ("torch",))
    run = run_study(find_study("iso-accuracy"), tmp_path, quick=True)
    assert run.finished
    assert calls == [torch.Size([1, 8, 8])] * len(FAMILIES)
    timed = next(each for each in run.records if each.task["what"] == "time")
    assert timed.notes == ("onnxruntime, openvino, openvino-bf16, onnxruntime-int8: not installed (extra jali[bench])",)
    rows = {row["family"]: row for row in timed.data["rows"]}
    assert set(rows) == set(FAMILIES)
    for family, row in rows.items():
        assert row["error"] == 0.0
        assert row["removed"] == pytest.approx(0.42 if family == "unit" else 0.5, abs=0.01)
        if row["within"]:
            assert row["test, accelerated"] == row["test"]
    assert set(timed.metrics) == {f"ratio {family}" for family, row in rows.items() if row["within"]}
    printed = capsys.readouterr().out
    assert all(title in printed for title in ("the fastest without loss", "all sparsities", "in other engines"))
    before = run.report.read_bytes()
    assert run_study(find_study("iso-accuracy"), tmp_path, quick=True).finished
    assert len(calls) == len(FAMILIES)
    assert before.count(b"data:image/png;base64,") == 2  # the figure, light and dark
