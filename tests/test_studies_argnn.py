"""The studies of the asynchronous network on a few inputs: what they record, and what their tables say of it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from jali.models.truth_tables import GATES
from jali.studies import argnn_gates
from jali.studies.argnn_gates import MODES, PAPER_ERROR, PAPER_REMOVED, ArgnnGates
from jali.studies.argnn_timing import CHANNELS, ArgnnTiming
from jali.studies.runner import run_study


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple]:
    folder = tmp_path_factory.mktemp("gates")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argnn_gates, "GATES", {"XOR": GATES["XOR"]})
        found = run_study(ArgnnGates(), folder, seeds=3, quick=True, console=Console(file=io.StringIO()))
    assert found.finished
    return folder, found.records


def test_every_mode_meets_the_same_runs(quick: tuple[Path, tuple]) -> None:
    _, records = quick
    assert {(r.task["mode"], r.task["hidden"]) for r in records} == {(m, h) for m in MODES for h in (0, 2, 3)}
    for record in records:
        assert record.config["seeds"] == [0, 1, 2]
        runs = record.data["runs"]
        assert runs["edges"] == [(record.task["hidden"] + 1) * (record.task["hidden"] + 2)] * 3
        assert record.metrics["removed"].value == pytest.approx(np.mean(runs["removed"]))
        assert record.task["mode"] != "none" or runs["removed"] == [0, 0, 0]
        assert all(few <= all_ for few, all_ in zip(runs["of rounding"], runs["removed"], strict=True))
        assert "eigenvector" not in record.task["mode"] or sum(runs["of rounding"]) == 0
    untouched = [r.data["runs"]["error"] for r in records if r.task["hidden"] == 0]
    assert all(errors == untouched[0] for errors in untouched)  # the same seeds, and nothing to prune


def test_the_tables_pair_the_modes_by_seed_and_the_page_has_the_figures(quick: tuple[Path, tuple]) -> None:
    folder, records = quick
    errors, removed, claims, _ = ArgnnGates().summary(records)
    assert len(errors.rows) == 15
    assert len(removed.rows) == 12
    of = {(r.task["mode"], r.task["hidden"]): np.array(r.data["runs"]["removed"]) for r in records}
    row = next(row for row in claims.rows if row[0] == "XOR, 3 hidden")
    assert str(row[1]).startswith(f"{np.mean(of['D_W', 3] - of['D', 3]):.2f}")
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count("<picture>") == 3
    assert "share of the edges removed" in page


def test_the_papers_numbers_keep_the_bound_of_its_node_rule() -> None:
    """One edge per hidden node at most: the paper's own results say so."""
    assert set(PAPER_REMOVED) == {(gate, mode) for gate in GATES for mode in ("D", "D_W")}
    assert set(PAPER_ERROR) == {(gate, mode) for gate in GATES for mode in ("none", "D", "D_W")}
    for means in PAPER_REMOVED.values():
        assert all(mean <= hidden for hidden, mean in enumerate(means))


def test_the_timing_study_has_curves_of_every_mode_and_channel(tmp_path: Path) -> None:
    found = run_study(ArgnnTiming(), tmp_path, seeds=2, quick=True, console=Console(file=io.StringIO()))
    assert {r.task["mode"] for r in found.records} == set(MODES) - {"none"}
    assert {r.task["messages"] for r in found.records} == set(CHANNELS)
    for record in found.records:
        curve = record.data["curves"]["removed"]
        assert (np.diff(curve["y"]) >= -1e-9).all()  # edges only ever go
        removed, edges = record.data["runs"]["removed"], record.data["runs"]["edges"]
        assert curve["y"][-1] <= 100 * np.mean(np.divide(removed, edges)) + 1e-9
        assert len(record.data["first removal"]) == 2
        assert all(
            (first is None) == (count == 0) for first, count in zip(record.data["first removal"], removed, strict=True)
        )
    assert [len(table.rows) for table in ArgnnTiming().summary(found.records)] == [10, 10, 10]
