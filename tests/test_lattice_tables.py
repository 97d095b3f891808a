"""Tables I and II of the lattice pruning paper: its algorithms against their definitions, and the studies on few digits."""

from __future__ import annotations

import io
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from torch import nn

import jali
from jali.data import Dataset, Split, batches, load
from jali.errors import DataError
from jali.maths.context import reducing_columns
from jali.report.tables import markdown
from jali.runs.store import RecordStore
from jali.studies import lattice_table1, lattice_table2, lattice_tables
from jali.studies.base import Study, Table
from jali.studies.lattice_printed import (
    Every,
    algorithm_1,
    algorithm_3,
    binary_adjacency,
    centrality,
    continuous_adjacency,
    expanded,
)
from jali.studies.lattice_tables import QUICK, THRESHOLDS, ConstantRate, TableRecipe, recurrent_sparsity, schedule_of
from jali.studies.runner import run_study
from jali.studies.training import Recipe, SequenceClassifier, settings_of, train
from tests.strategies_context import incidences

# --- the algorithms as printed ------------------------------------------------------------------------------------------


@given(st.integers(4, 16).map(lambda quarter: 4 * quarter))
@settings(max_examples=20)
def test_the_first_half_is_irreducible_and_the_second_is_the_meet_of_others(units):
    adjacency = binary_adjacency(units)
    assert adjacency.shape == (units, units)
    assert len(np.unique(adjacency, axis=1).T) == units, "no two units are the same element"
    for unit in range(units):
        found, column = reducing_columns(adjacency, unit), adjacency[:, unit]
        assert (found is None) == (unit < units // 2)
        above = [j for j in range(units // 2) if j != unit and adjacency[column, j].all()]
        assert (adjacency[:, above].all(axis=1) == column).all() == (unit >= units // 2)
    for tau in THRESHOLDS:
        assert algorithm_1(adjacency, tau).keep.tolist() == [True] * (units // 2) + [False] * (units // 2)
        by_sums = algorithm_1(adjacency, tau).irreducible | (centrality(adjacency) >= tau)
        assert by_sums.sum() == units // 2, "the other centrality of the paper gives the same table"


@pytest.mark.parametrize("units", [0, 12, 18])
def test_units_that_cannot_be_halved_into_chains_are_refused(units):
    with pytest.raises(DataError, match=f"{units} units cannot be halved into two chains; give a multiple of 4"):
        binary_adjacency(units)


@given(incidences(5), st.sampled_from([0.2, 0.7, 1.0, 1.5]))
@settings(max_examples=80)
def test_algorithm_1_is_its_definitions(incidence, tau):
    """Definition III.3 and Rota's recursion, word by word, in the lattice of all intersections of columns."""
    columns = [frozenset(np.flatnonzero(column)) for column in np.asarray(incidence).T]
    lattice = {frozenset(range(len(incidence)))} | set(columns)
    while (larger := lattice | {a & b for a, b in itertools.product(lattice, repeat=2)}) != lattice:
        lattice = larger
    bottom, mu = frozenset.intersection(*lattice), {}
    for y in sorted(lattice, key=len):
        mu[y] = 1 if y == bottom else -sum(value for z, value in mu.items() if z < y)
    choice = algorithm_1(incidence, tau)
    for unit, m in enumerate(columns):
        irreducible = all(m in (a, b) for a, b in itertools.product(lattice, repeat=2) if a & b == m)
        assert choice.irreducible[unit] == irreducible
        assert choice.centrality[unit] == abs(mu[m])
        assert choice.keep[unit] == (irreducible or abs(mu[m]) >= tau)


def test_a_reducible_unit_of_high_centrality_stays():
    #                      a  b  a∩b d
    incidence = np.array([[1, 0, 0, 0], [1, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]], dtype=bool)
    choice = algorithm_1(incidence, 0.5)
    assert choice.irreducible.tolist() == [True, True, False, True]
    assert choice.centrality.tolist() == [0, 0, 1, 1]  # a∩b and d are the atoms of the lattice
    assert choice.keep.tolist() == [True, True, True, True]
    assert algorithm_1(incidence, 1.0).keep.all(), "μ < τ goes, μ = τ stays"
    assert algorithm_1(incidence, 1.5).keep.tolist() == [True, True, False, True]


def test_centrality_is_one_over_the_sum_of_a_column():
    adjacency = np.array([[0.5, 2.0], [1.0, 1.5]])
    np.testing.assert_allclose(centrality(adjacency, epsilon=0.5), [1 / 2, 1 / 4], rtol=1e-15)
    assert algorithm_3(adjacency, 0.5, epsilon=0.5).tolist() == [True, False], "c = τ stays"
    assert algorithm_3(adjacency, 0.2, epsilon=0.5).tolist() == [True, True]


@given(st.integers(11, 200), st.integers(0, 2**32 - 1))
def test_of_more_than_ten_units_algorithm_3_keeps_none(units, seed):
    adjacency = continuous_adjacency(units, seed)
    assert adjacency.shape == (units, units)
    assert 0.5 <= adjacency.min() <= adjacency.max() <= 2.0
    assert centrality(adjacency).max() <= 2 / units
    assert not any(algorithm_3(adjacency, tau).any() for tau in THRESHOLDS)


def test_the_mask_is_repeated_along_the_first_dimension():
    assert expanded(np.array([True, False, True]), 4).tolist() == [[True, False, True]] * 4


@pytest.mark.parametrize("layer", ["RNN", "GRU", "LSTM"])
def test_the_mask_falls_every_third_epoch_and_is_held_between(layer):
    torch.manual_seed(0)
    model = getattr(nn, layer)(3, 4, num_layers=2)
    keep = np.array([True, False, True, False])
    companion, before = Every(model, keep, 3), {n: p.detach().clone() for n, p in model.named_parameters()}
    for epoch in range(1, 7):
        companion.epoch()
        after = recurrent_sparsity(model)
        assert after == (0.5 if epoch >= 3 else 0.0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1.0)  # the optimizer
        companion.step()
        assert recurrent_sparsity(model) == after
    for name, parameter in model.named_parameters():
        whole = before[name] + 6.0
        if "weight_hh" in name:
            whole[:, [1, 3]] = 0.0
        torch.testing.assert_close(parameter.detach(), whole)


# --- the recipes --------------------------------------------------------------------------------------------------------


def few(name: str) -> Dataset:
    """The first digits, in place of a larger set."""
    digits = load("digits")
    parts = {
        part: Split(*(tensor[:60] for tensor in getattr(digits, part))) for part in ("train", "validation", "test")
    }
    return replace(digits, name=name, **parts)


def test_a_constant_rate_is_plain_adam():
    data, recipe = few("digits"), ConstantRate(epochs=2, batch=25, lr=1e-2)
    torch.manual_seed(0)
    model = SequenceClassifier(data.features, 8, data.classes)
    other = SequenceClassifier(data.features, 8, data.classes)
    other.load_state_dict(model.state_dict())
    train(model, data.train, recipe, seed=5)
    generator, optimizer = torch.Generator().manual_seed(5), torch.optim.Adam(other.parameters(), lr=1e-2)
    for _ in range(2):
        for x, y in batches(*data.train, 25, generator, shuffle=True):
            optimizer.zero_grad()
            F.cross_entropy(other(x), y).backward()
            optimizer.step()
    for got, want in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(got, want)


def test_the_recorded_recipe_is_the_recipe():
    for recipe in (QUICK, lattice_tables.FULL):
        found = TableRecipe.of(settings_of(recipe, few("digits"), "validation"))
        assert found == recipe
        assert type(found.constant) is ConstantRate
        assert type(found.one_cycle) is Recipe


@given(st.integers(3, 20), st.integers(1, 500))
def test_the_last_quarter_of_a_training_changes_no_mask(epochs, steps):
    training = Recipe(epochs, 1, 1.0)
    cubic, rigl = (schedule_of(name, training, steps) for name in ("cubic", "rigl"))
    assert isinstance(cubic, jali.Cubic)
    assert isinstance(rigl, jali.RigL)
    for schedule in (cubic, rigl):
        assert schedule.last <= max(2, 0.75 * epochs) * steps


# --- the studies --------------------------------------------------------------------------------------------------------

SMALL = replace(  # few() has digits under every name
    QUICK, data="mnist", constant=ConstantRate(epochs=3, batch=20, lr=1e-2), one_cycle=Recipe(epochs=3, batch=20, lr=1e-2),
    tuning=Recipe(epochs=1, batch=30, lr=1e-3), hidden=16, calibration=50, calibration_batch=25,
)  # fmt: skip
STUDIES = {1: lattice_table1, 2: lattice_table2}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lattice_tables, "load", few)
    monkeypatch.setattr(lattice_tables, "FULL", SMALL)
    for module in STUDIES.values():
        monkeypatch.setattr(module, "load", few)


def run(study: Study, folder: Path) -> str:
    shown = io.StringIO()
    assert run_study(study, folder, seeds=2, console=Console(file=shown, width=200)).finished
    return shown.getvalue()


def cell(table: Table, row: str, column: str) -> str:
    found = [line for line in table.rows if line[0] == row]
    return str(found[0][table.columns.index(column)])


@pytest.mark.parametrize("number", [1, 2])
def test_a_table_is_run_once_resumed_and_shown_from_its_records(number, tmp_path, monkeypatch):
    study = STUDIES[number].STUDY
    assert study.name == f"lattice-table{number}"
    run(study, tmp_path)
    records = RecordStore(tmp_path).records()
    assert len(records) == 2 * {1: 3 + 1 + 3 + 1, 2: 3 + 7}[number]
    for record in records:
        own = record.task["what"] in lattice_table1.OWN
        assert {metric.n for name, metric in record.metrics.items() if name != "sparsity"} == {60}
        assert len(record.data.get("history", {"validation": []})["validation"]) == (0 if own else 3)
        assert TableRecipe.of(record.config) == SMALL
    trained, printed = [r for r in records if not r.notes], [r for r in records if r.task["what"] == "printed"]
    assert len(records) - len(trained) == 2 * 2, "two thresholds of each seed keep what the first keeps"
    for record in printed:
        assert record.metrics["sparsity"].value == {1: 0.5, 2: 1.0}[number]
        assert record.data["kept"] == {1: list(range(8)), 2: []}[number]
        first = next(
            r for r in printed if r.task == {**record.task, "tau": 0.2} and (not r.notes or r.task["tau"] != 0.2)
        )
        assert record.metrics == first.metrics
    tables = study.summary(records)
    tests = [100 * r.metrics["test"].value for r in printed if r.task["tau"] == 0.5]
    paper = STUDIES[number].TABLE[0.5][1]
    assert cell(tables[0], "0.5", "difference (points)") == f"{sum(tests) / 2 - 100 * paper:+.2f}"
    assert cell(tables[0], "0.5", "accuracy, paper (%)") == {1: "98.47", 2: "87.25"}[number]
    assert cell(tables[0], "0.7", "sparsity, paper (%)") == {1: "50.38", 2: "99.43"}[number]
    assert "mnist, 16 units, 3 epochs" in tables[0].caption
    assert len(study.figures(records)[0].payload["series"]) == {1: 3, 2: 8}[number]

    def refuse(*given: object) -> None:
        raise AssertionError("a recorded task was run again")

    monkeypatch.setattr(type(study), "run", refuse)
    assert f"{len(records)} of {len(records)} tasks are already recorded" in run(study, tmp_path)


def test_beside_table_2_the_sparsity_is_that_of_the_recurrent_weights(tmp_path):
    run(lattice_table2.STUDY, tmp_path)
    records = [r for r in RecordStore(tmp_path).records() if r.task["what"] != "printed"]
    size = 4 * 16 * 16
    for record in records:
        assert record.metrics["sparsity"].value == round(record.task["sparsity"] * size) / size
        assert record.data["schedule"]["name"].lower() == record.task["schedule"]
        assert record.data["history"]["sparsity"][0] < 0.5 or record.task["schedule"] == "rigl"
    shown = markdown(lattice_table2.STUDY.summary(records)[1])
    assert "| magnitude, moved by RigL | one-cycle | 98.54 ± 0.00 |" in shown
    sparsities = {record.task["sparsity"] for record in records}
    assert all(any(0 <= own - paper < 0.001 for own in sparsities) for paper, _ in lattice_table2.TABLE.values())


@pytest.mark.parametrize("number", [1, 2])
def test_digits_are_not_compared_with_mnist(number, tmp_path, monkeypatch):
    monkeypatch.setattr(lattice_tables, "QUICK", replace(SMALL, data="digits"))
    study, shown = STUDIES[number].STUDY, io.StringIO()
    assert run_study(study, tmp_path, quick=True, console=Console(file=shown, width=200)).finished
    tables = study.summary(RecordStore(tmp_path).records())
    assert {cell(tables[0], f"{tau:g}", "difference (points)") for tau in THRESHOLDS} == {"–"}
    assert tables[0].caption.endswith("Ours are digits, the paper's MNIST: no difference is given.")
    if number == 2:
        assert {str(row[-1]) for row in tables[1].rows} == {"–"}
        assert tables[1].caption.endswith("Ours are digits, the paper's MNIST: no difference is given.")


def test_beside_table_1_units_are_cut_out(tmp_path):
    run(lattice_table1.STUDY, tmp_path)
    for record in RecordStore(tmp_path).records():
        if record.task["what"] in lattice_table1.OWN:
            assert len(record.data["removed"]) == 8
            assert record.metrics["sparsity"].value == 0.75
            assert {"folded test", "tuned validation"} <= set(record.metrics)


def test_tables_of_an_unfinished_run(tmp_path):
    for module in STUDIES.values():
        assert module.STUDY.summary([]) == []
        run(module.STUDY, tmp_path)
    for module in STUDIES.values():
        records = [r for r in RecordStore(tmp_path).records() if r.study == module.STUDY.name]
        for count in (1, 3, len(records)):
            for part in (records[:count], records[-count:]):
                assert all(markdown(table) for table in module.STUDY.summary(part))
