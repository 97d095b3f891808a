"""Studies on small data: their records say what was done, and a changed recipe never passes for an old one."""

from __future__ import annotations

import io
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from rich.console import Console

from jali.data import Dataset, Split, load
from jali.report.tables import markdown, percent
from jali.runs.store import RecordStore
from jali.studies import fold_mnist
from jali.studies.base import Settings
from jali.studies.demo import RECIPES, Demo
from jali.studies.fold_mnist import CRITERIA, FoldMnist
from jali.studies.runner import run_study
from jali.studies.training import Recipe
from jali.surgery.closed_loop import ROUNDS


def few(name: str) -> Dataset:
    """The first digits, in place of a larger set."""
    digits = load("digits")
    parts = {
        part: Split(*(tensor[:60] for tensor in getattr(digits, part))) for part in ("train", "validation", "test")
    }
    return replace(digits, name=name, **parts)


SMALL = replace(
    fold_mnist.FULL, hidden=8, training=Recipe(epochs=1, batch=20, lr=1e-2), tuning=Recipe(epochs=1, batch=30, lr=1e-3),
    calibration=100, calibration_batch=25, draws=2,
)  # fmt: skip


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold_mnist, "load", few)
    monkeypatch.setattr(fold_mnist, "FULL", SMALL)
    monkeypatch.setattr(fold_mnist, "SPARSITIES", (0.5,))


def run(folder: Path) -> str:
    shown = io.StringIO()
    run_study(FoldMnist(), folder, seeds=1, console=Console(file=shown, width=200))
    return shown.getvalue()


def test_the_demo_records_its_whole_recipe_and_the_real_counts() -> None:
    tasks = Demo("digits").tasks(Settings())
    config = tasks[0].config
    assert all(task.config == config for task in tasks)
    assert {name: config[name] for name in asdict(RECIPES["digits"])} == asdict(RECIPES["digits"])
    assert config["training"]["lr"] == 1e-2
    assert RECIPES["digits"].calibration == 2000
    assert config["examples"] == {"train": 1077, "test": 360, "calibration, first of train": 1077}
    assert config["fold"]["rounds"] == ROUNDS


def test_a_study_resumes_and_a_changed_recipe_runs_again_and_says_so(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = run(tmp_path)
    assert "other settings" not in shown
    records = RecordStore(tmp_path).records()
    assert len(records) == 1 + len(CRITERIA) + 1 + 1  # dense, the choices, a second random draw, small dense
    for record in records:
        assert fold_mnist._recipe(record.config) == SMALL, "what is recorded is what was run"
        assert record.config["examples"] == {
            "train": 60, "validation": 60, "test": 60, "calibration, first of train": 60,
        }  # fmt: skip
        assert {metric.n for name, metric in record.metrics.items() if name != "parameters"} == {60}
    assert f"{len(records)} of {len(records)} tasks are already recorded" in run(tmp_path)
    assert len(RecordStore(tmp_path).history()) == len(records)

    changed = replace(SMALL, tuning=replace(SMALL.tuning, lr=2e-3))
    monkeypatch.setattr(fold_mnist, "FULL", changed)
    shown = " ".join(run(tmp_path).split())
    assert f"{len(records)} of {len(records)} tasks are recorded in" in shown
    assert "with other settings (tuning) and run again" in shown
    store = RecordStore(tmp_path)
    assert len(store.history()) == 2 * len(records)
    assert {record.config["tuning"]["lr"] for record in store.records()} == {2e-3}


def test_records_of_before_the_recipes_were_recorded_are_shown_and_run_again(small: None, tmp_path: Path) -> None:
    run(tmp_path)
    records = RecordStore(tmp_path).records()
    old = RecordStore(tmp_path / "old")
    for record in records:
        old.append(replace(record, config={"calibration": 100, "epochs": 1, "hidden": 8, "quick": False}))
    tables = FoldMnist().summary(old.records())
    assert tables == FoldMnist().summary(records)
    assert "an LSTM of 8 units" in tables[0].caption
    shown = " ".join(run(tmp_path / "old").split())
    assert "with other settings (epochs, quick, training, tuning, data," in shown
    assert len(RecordStore(tmp_path / "old").history()) == 2 * len(records)


def test_fractions_are_written_in_one_way(small: None, tmp_path: Path) -> None:
    assert [percent(value) for value in (0.0, 0.25, 0.5, 1 / 3, 1.0)] == ["0 %", "25 %", "50 %", "33.33 %", "100 %"]
    text = run(tmp_path) + "".join(markdown(table) for table in FoldMnist().summary(RecordStore(tmp_path).records()))
    assert "50 %" in text
    assert not re.search(r"\d%", text)
