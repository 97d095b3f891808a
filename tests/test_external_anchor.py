"""The external anchor study: what it prunes, what it chooses by, that it resumes bit for bit, and what its tables claim."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from jali.data import Dataset, Split, load
from jali.runs.record import Metric, Record
from jali.runs.store import RecordStore
from jali.studies import anchor_tables, anchor_training, external_anchor
from jali.studies.anchor_tables import PUBLISHED, against_published, reduced
from jali.studies.anchor_training import METHODS, network
from jali.studies.base import Settings, Task, find_study
from jali.studies.external_anchor import ORDER, QUICK, REDUCED, WHOLE
from jali.studies.runner import run_study

SMALL = replace(QUICK, hidden=8, epochs=5, batch=20, pilot_epochs=1, every=2, shift=1, calibration=30)
STUDY = find_study("external-anchor")


def few(name: str) -> Dataset:
    """The first digits, in place of a larger set."""
    digits = load("digits")
    train, validation, test = (
        Split(*(t[:60] for t in part)) for part in (digits.train, digits.validation, digits.test)
    )
    return replace(digits, name=name, train=train, validation=validation, test=test)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(external_anchor, "load", few)
    monkeypatch.setattr(external_anchor, "_device", lambda: "cpu")
    monkeypatch.setattr(external_anchor, "REDUCED", SMALL)
    external_anchor._loaded.cache_clear()
    yield
    external_anchor._loaded.cache_clear()


def silent(message: str, fraction: float | None = None) -> None:
    pass


def task_of(cell: str, method: str, lr: float | None = None) -> Task:
    """One of the study's tasks."""
    return next(
        task for task in STUDY.tasks(Settings())
        if (task.key["cell"], task.key["method"], task.key.get("lr")) == (cell, method, lr)
    )  # fmt: skip


def with_pilots(folder: Path, cell: str) -> RecordStore:
    store = RecordStore(folder)
    for lr in SMALL.lrs:
        store.append(STUDY.run(task_of(cell, "cubic", lr), store, silent))
    return store


def results(record: Record) -> dict[str, Any]:
    return {"metrics": {name: asdict(metric) for name, metric in record.metrics.items()}, "data": record.data}


# --- networks and tasks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cell", "gates"), [("RNN", 1), ("LSTM", 4), ("GRU", 3)])
def test_every_gate_starts_from_glorot_and_the_seed_is_all_there_is(cell: str, gates: int) -> None:
    data, hidden = load("digits"), 64
    model = network(cell, data, hidden, 0)
    assert model.rnn.weight_hh_l0.shape == (gates * hidden, hidden)
    for name, weight in (("weight_ih_l0", model.rnn.weight_ih_l0), ("weight_hh_l0", model.rnn.weight_hh_l0)):
        bound = math.sqrt(6 / (hidden + weight.shape[1]))
        for gate in weight.split(hidden):
            assert 0.95 * bound < gate.abs().max() <= bound, name
    assert all(bool((p == 0).all()) == ("bias" in name) for name, p in model.named_parameters())
    again, other = network(cell, data, hidden, 0).state_dict(), network(cell, data, hidden, 1).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())
    assert not torch.equal(model.rnn.weight_hh_l0, other["rnn.weight_hh_l0"])


def test_the_tasks_are_every_cell_by_every_method_and_the_pilots_come_first_and_once(small: None) -> None:
    assert sorted(ORDER) == sorted((cell, method) for cell in PUBLISHED for method in METHODS)
    tasks = STUDY.tasks(Settings(seeds=(0, 1)))
    pilots = [task.key for task in tasks if "lr" in task.key]
    assert len(pilots) == len(PUBLISHED) * len(SMALL.lrs)
    assert len(tasks) == len(pilots) + 2 * len(ORDER)
    for number, task in enumerate(tasks):
        before = {earlier.key.get("lr") for earlier in tasks[:number] if earlier.key["cell"] == task.key["cell"]}
        assert "lr" in task.key or before >= set(SMALL.lrs)


@given(st.integers(1, 60), st.sampled_from(["mnist", "digits"]), st.sampled_from([32, 400]))
def test_less_than_the_paper_is_called_reduced(epochs: int, data: str, hidden: int) -> None:
    label = reduced(asdict(replace(WHOLE, epochs=epochs, data=data, hidden=hidden)))
    assert bool(label) == (epochs < 50 or data != "mnist" or hidden != 400)
    assert (f"{epochs} of the paper's 50 epochs" in label) == (epochs < 50)


def test_what_runs_on_a_cpu_is_reduced_and_on_a_gpu_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external_anchor, "_loaded", lambda name, device: few(name))
    for device, recipe, label in (("cpu", REDUCED, "reduced: 20 of the paper's 50 epochs"), ("cuda", WHOLE, "")):
        monkeypatch.setattr(external_anchor, "_device", lambda device=device: device)
        configs = [task.config for task in STUDY.tasks(Settings())]
        assert all((each["reduced"], each["device"]) == (label, device) for each in configs)
        assert all(external_anchor._recipe(each) == recipe for each in configs)


# --- choosing ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 5), min_size=2, max_size=2), st.integers(0, 5))
def test_the_learning_rate_is_the_best_of_the_cells_own_pilots(errors: list[int], foreign: int) -> None:
    class Workspace:
        path = Path("records.jsonl")

        def records(self) -> list[Record]:
            def made(cell: str, lr: float, error: float, config: dict[str, Any]) -> Record:
                key = {"cell": cell, "method": "cubic", "lr": lr, "seed": 0}
                return Record("external-anchor", key, 0, config, {"validation error": Metric(error, 10)}, versions={})

            own = [made("GRU", lr, error / 10, {"a": 1}) for lr, error in zip((1e-3, 3e-3), errors, strict=True)]
            return [*own, made("LSTM", 1e-2, foreign / 10, {"a": 1}), made("GRU", 1e-2, -1.0, {"a": 2})]

    task = Task({"cell": "GRU", "method": "dense", "seed": 0}, "", 0, {"a": 1})
    chosen = external_anchor._chosen_lr(task, Workspace())  # type: ignore[arg-type]
    assert chosen == (1e-3 if errors[0] <= errors[1] else 3e-3)


@pytest.mark.parametrize("method", METHODS)
def test_the_epoch_is_chosen_among_those_that_are_pruned_and_the_test_part_is_read_once(
    method: str, small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = with_pilots(tmp_path, "GRU")
    test, measured, read = external_anchor._loaded("digits", "cpu").test, anchor_training.accuracy, []

    def accuracy(model: torch.nn.Module, split: Split) -> float:
        read.append(split is test)
        return measured(model, split)

    monkeypatch.setattr(anchor_training, "accuracy", accuracy)
    record = STUDY.run(task_of("GRU", method), store, silent)
    assert read == [False] * (SMALL.epochs + 1) + [True]
    curve, steps = record.data["validation error"], 3  # of an epoch
    over = {"cubic": SMALL.cubic[1], "rigl": SMALL.rigl[0]}.get(method, 0.0)
    first = math.ceil(round(over * steps * SMALL.epochs) / steps - 1e-9)
    epoch = int(record.metrics["epoch"].value)
    assert epoch == min(range(max(first, 1), SMALL.epochs + 1), key=lambda each: curve[each - 1])
    assert record.metrics["validation error"].value == curve[epoch - 1]
    total = 3 * 8 * (8 + 8)
    left = total if method == "dense" else total - round(0.95 * total)
    assert record.metrics["weights left"].value == left
    assert record.metrics["removed"].value == pytest.approx(1 - left / total)
    assert record.metrics["test error"].n == 60


# --- resuming ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cell", "method"), [("LSTM", "cubic"), ("GRU", "rigl"), ("RNN", "random"), ("RNN", "dense")])
def test_a_training_that_is_stopped_goes_on_bit_for_bit(cell: str, method: str, small: None, tmp_path: Path) -> None:
    store, task = with_pilots(tmp_path, cell), task_of(cell, method)
    whole = STUDY.run(task, store, silent)
    seen: list[str] = []

    def stop(message: str, fraction: float | None = None) -> None:
        seen.append(message)
        if len(seen) in (3, 5):
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            STUDY.run(task, store, stop)
    assert results(STUDY.run(task, store, stop)) == results(whole)
    assert [message.split(",")[0] for message in seen] == [f"epoch {n} of 5" for n in (1, 2, 3, 3, 4, 4, 5)]
    assert not list(store.artifacts.iterdir())


def test_what_was_stopped_under_other_settings_starts_anew(small: None, tmp_path: Path) -> None:
    store, task = with_pilots(tmp_path, "RNN"), task_of("RNN", "cubic", SMALL.lrs[0])

    def stop(message: str, fraction: float | None = None) -> None:
        if message.startswith("epoch 2"):
            raise KeyboardInterrupt

    seen: list[str] = []
    longer = replace(task, config={**task.config, "pilot_epochs": 3})
    with pytest.raises(KeyboardInterrupt):
        STUDY.run(longer, store, stop)
    assert list(store.artifacts.iterdir())
    STUDY.run(task, store, lambda message, fraction=None: seen.append(message))
    assert seen == ["epoch 1 of 1"]


# --- the study --------------------------------------------------------------------------------------------------------


def test_a_stopped_study_shows_what_it_has_goes_on_and_says_that_it_is_reduced(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = anchor_training.Training.run
    monkeypatch.setattr(external_anchor, "ORDER", (("LSTM", "cubic"), ("LSTM", "random"), ("LSTM", "dense")))

    def interrupted(self: anchor_training.Training, progress: Any) -> None:
        if "random" in self.name:
            raise KeyboardInterrupt
        made(self, progress)

    monkeypatch.setattr(anchor_training.Training, "run", interrupted)
    first = run_study(STUDY, tmp_path, seeds=1, console=Console(file=io.StringIO(), width=200))
    assert not first.finished
    assert len(first.records) == len(SMALL.lrs) + 1
    titles = [table.title.split(":")[0].split(" (")[0] for table in STUDY.summary(first.records)]
    assert titles == ["Pruned during training", "What was run", "Choice of the learning rate"]
    monkeypatch.setattr(anchor_training.Training, "run", made)
    shown = io.StringIO()
    second = run_study(STUDY, tmp_path, seeds=1, console=Console(file=shown, width=200))
    assert second.finished
    assert second.records[: len(first.records)] == first.records
    assert len(RecordStore(tmp_path).history()) == len(second.records) == len(SMALL.lrs) + 3
    label = "reduced: digits, 8 units, 5 of the paper's 50 epochs"
    assert all(record.notes == (label,) and record.config["reduced"] == label for record in second.records)
    tables = STUDY.summary(second.records)
    assert [f"({label})" in table.title for table in tables] == [True] * 4 + [False]
    assert all(row[1] == "–" for table in tables[:3] for row in table.rows), "another task has no published figure"
    assert label in " ".join(shown.getvalue().split())


def test_the_tables_put_ours_beside_what_was_published() -> None:
    def made(method: str, error: float, seed: int, epochs: int = 20) -> Record:
        config = asdict(replace(REDUCED, epochs=epochs))
        metrics = {"test error": Metric(error, 10_000)}
        return Record("external-anchor", {"cell": "LSTM", "method": method, "seed": seed}, seed, config, metrics)

    records = [made("cubic", 0.0100, 0), made("cubic", 0.0120, 1), made("random", 0.0250, 0), made("dense", 0.0070, 0)]
    rows = {when: against_published(records, when).rows for when in anchor_tables.SECTIONS}
    assert rows["training"] == (("LSTM, cubic schedule, magnitude", "1.66", "1.10 ± 1.27", 2, "-0.56"),)
    assert rows["initialisation"] == (("LSTM, at initialisation, random", "2.17", "2.50", 1, "+0.33"),)
    assert rows["never"] == (("LSTM, dense", "0.80", "0.70", 1, "-0.10"),)
    assert "(reduced: 20 of the paper's 50 epochs)" in against_published(records, "never").title
    assert "reduced" not in against_published([made("dense", 0.0070, 0, 50)], "never").title
