"""The studies of the asynchronous network on a few inputs: what they record, and what their tables say of it."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from jali.errors import DataError
from jali.models.truth_tables import GATES
from jali.report.networks import stepper
from jali.runs.record import Metric, Record
from jali.studies import argnn_gates
from jali.studies.argnn_eigen import PRUNING, ArgnnEigen
from jali.studies.argnn_gates import CONTROLLED, PAPER_ERROR, PAPER_REMOVED, RANDOM, ArgnnGates
from jali.studies.argnn_growth import ArgnnGrowth
from jali.studies.argnn_lstm import CHOICES, LAPLACIANS, ArgnnLstm, best_laplacian
from jali.studies.argnn_runs import MODES, cut_at_random, new_network, train
from jali.studies.argnn_timing import CHANNELS, CONTROLS, WHEN, ArgnnTiming
from jali.studies.argnn_xor import SHOWN, ArgnnXor
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
    modes = (*MODES, RANDOM)
    assert {(r.task["mode"], r.task["hidden"]) for r in records} == {(m, h) for m in modes for h in (0, 2, 3)}
    lost = {r.task["hidden"]: r.data["runs"]["removed"] for r in records if r.task["mode"] == CONTROLLED}
    assert sum(lost[3]) > 0
    for record in records:
        assert record.config["seeds"] == [0, 1, 2]
        assert record.metrics["processor time"].value > 0
        runs, hidden = record.data["runs"], record.task["hidden"]
        gone = lost[hidden] if record.task["mode"] == RANDOM else [0, 0, 0]
        assert runs["edges"] == [(hidden + 1) * (hidden + 2) - count for count in gone]
        assert record.metrics["removed"].value == pytest.approx(np.mean(runs["removed"]))
        assert record.task["mode"] not in ("none", RANDOM) or runs["removed"] == [0, 0, 0]
        assert all(few <= all_ for few, all_ in zip(runs["of rounding"], runs["removed"], strict=True))
        assert "eigenvector" not in record.task["mode"] or sum(runs["of rounding"]) == 0
    untouched = [r.data["runs"]["error"] for r in records if r.task["hidden"] == 0]
    assert all(errors == untouched[0] for errors in untouched)  # the same seeds, and nothing to prune


def test_the_tables_pair_the_modes_by_seed_and_the_page_has_the_figures(quick: tuple[Path, tuple]) -> None:
    folder, records = quick
    errors, removed, agree, claims, _, time = ArgnnGates().summary(records)
    assert [row[0] for row in errors.rows] == [f"XOR, {mode}" for mode in (*MODES, RANDOM)]
    assert len(removed.rows) == 4
    assert [row[1] for row in agree.rows] == [9, 6]
    of = {(r.task["mode"], r.task["hidden"]): r.data["runs"] for r in records}
    cell = dict(zip(errors.columns, next(row for row in errors.rows if row[0] == "XOR, D"), strict=True))["3 hidden"]
    assert str(cell).startswith(f"{np.mean(of['D', 3]['error']):.4f} ± ")
    assert str(cell).endswith(f"({PAPER_ERROR['XOR', 'D'][3]:.4f})")
    row = dict(zip(claims.columns, next(row for row in claims.rows if row[0] == "XOR, 3 hidden"), strict=True))
    more = np.subtract(of["D_W", 3]["removed"], of["D", 3]["removed"])
    assert str(row["edges removed: D_W − D"]).startswith(f"{more.mean():.2f}")
    chance = np.subtract(of["D_W", 3]["error"], of[RANDOM, 3]["error"])
    assert str(row["error: D_W − random"]).startswith(f"{chance.mean() + 0.0:.3f} ± ")
    worse = np.subtract(of["D_W", 3]["error"], of["none", 3]["error"])
    assert str(row["error: D_W − none"]).startswith(f"{worse.mean() + 0.0:.3f}"[:5])
    assert [row[1] for row in time.rows] == [3 * 3 * 3, 2 * 3 * 3]
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count("<picture>") == 3
    assert "share of the edges removed" in page


def test_more_runs_of_xor_are_those_of_the_gates_and_more(
    quick: tuple[Path, tuple], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run_study(ArgnnXor(), tmp_path, seeds=4, quick=True, console=Console(file=io.StringIO()))
    of = {(r.task["mode"], r.task["hidden"]): r.data["runs"] for r in quick[1]}
    assert {(r.task["mode"], r.task["hidden"]) for r in found.records} == {(m, h) for m in SHOWN for h in (2, 3)}
    for record in found.records:
        assert record.data["runs"]["error"][:3] == of[record.task["mode"], record.task["hidden"]]["error"]
    (table,) = ArgnnXor().summary(found.records)
    removed = [r.data["runs"]["removed"] for r in found.records if r.task["hidden"] == 2 and r.task["mode"] != "none"]
    assert table.rows[0][:2] == ("2 hidden", 4)
    more = np.subtract(removed[1], removed[0])
    assert str(table.rows[0][4]).startswith(f"{more.mean():.2f} ± ")
    assert table.columns[6] == "D_W − D, new runs"
    assert table.rows[0][6] == "–"  # all four are among those of the gates
    monkeypatch.setattr("jali.studies.argnn_xor.KNOWN", 3)
    (table,) = ArgnnXor().summary(found.records)
    assert table.rows[0][6] == f"{more[3]:.2f}"


def test_the_papers_numbers_keep_the_bound_of_its_node_rule() -> None:
    """One edge per hidden node at most: the paper's own results say so."""
    assert set(PAPER_REMOVED) == {(gate, mode) for gate in GATES for mode in ("D", "D_W")}
    assert set(PAPER_ERROR) == {(gate, mode) for gate in GATES for mode in ("none", "D", "D_W")}
    for means in PAPER_REMOVED.values():
        assert all(mean <= hidden for hidden, mean in enumerate(means))


@pytest.fixture(scope="module")
def timing(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, str], Record]:
    folder = tmp_path_factory.mktemp("timing")
    found = run_study(ArgnnTiming(), folder, seeds=2, quick=True, console=Console(file=io.StringIO()))
    assert (folder / "report.html").read_text(encoding="utf-8").count("<picture>") == 7
    return {(r.task["mode"], r.task["messages"], r.task["when"]): r for r in found.records}


def test_the_timing_study_prunes_by_every_mode_under_every_channel(timing: dict[tuple[str, str, str], Record]) -> None:
    assert {key for key in timing if key[2] == "during" and key[0] in MODES} == {
        (mode, channel, "during") for mode in MODES for channel in CHANNELS
    }
    for (mode, _, when), record in timing.items():
        removed, edges = record.data["runs"]["removed"], record.data["runs"]["edges"]
        assert edges == [12, 12]
        assert mode != "none" or removed == [0, 0]
        assert ("curves" in record.data) == ("first removal" in record.data) == (when == "during")
        if when == "during" and mode in MODES:
            curve = record.data["curves"]["removed"]
            assert (np.diff(curve["y"]) >= -1e-9).all()  # edges only ever go
            assert curve["y"][-1] <= 100 * np.mean(np.divide(removed, edges)) + 1e-9
            assert len(record.data["first removal"]) == sum(count > 0 for count in removed)
    removed, first, learning, by_time, by_messages = ArgnnTiming().summary(list(timing.values()))
    assert [row[0] for row in learning.rows] == list(MODES)
    assert [row[0] for row in removed.rows] == [row[0] for row in first.rows] == [m for m in MODES if m != "none"]
    assert len(by_messages.rows) == len(MODES) * len(CHANNELS)
    assert len(by_time.rows) == 1 + len(WHEN) * 6


def test_before_during_and_after_are_three_times_and_controls_lose_as_much(
    timing: dict[tuple[str, str, str], Record],
) -> None:
    def runs(mode: str, when: str, number: str) -> list[float]:
        return timing[mode, "perfect", when].data["runs"][number]

    for when in WHEN:
        for mode, control in CONTROLS.items():
            assert runs(control, when, "removed") == runs(mode, when, "removed")
    # What is pruned after training has learned as the network that is not pruned; what is pruned before it has not.
    assert runs("D_W", "after", "learning error") == runs("none", "during", "learning error")
    assert runs(CONTROLS["D_W"], "after", "learning error") == runs("none", "during", "learning error")
    assert sum(runs("D_W", "after", "removed")) > 0
    kept = [k for k, count in enumerate(runs("D", "before", "removed")) if not count]
    assert kept
    assert all(runs("D", "before", "error")[k] == runs("none", "during", "error")[k] for k in kept)
    assert runs("D_W", "after", "error") != runs("none", "during", "error")
    assert sum(runs("D_W by eigenvector", "before", "removed")) > 0
    assert runs("D_W by eigenvector", "before", "learning error") != runs("none", "during", "learning error")


def test_rows_under_bad_messages_are_paired_with_none_under_the_same_and_with_perfect_ones(
    timing: dict[tuple[str, str, str], Record],
) -> None:
    table = ArgnnTiming().summary(list(timing.values()))[4]
    row = dict(zip(table.columns, next(r for r in table.rows if r[0] == "loss 30 %: D_W"), strict=True))
    errors = {key: np.array(record.data["runs"]["error"]) for key, record in timing.items()}
    ours = errors["D_W", "loss 30 %", "during"]
    for column, theirs in (
        ("error − none, same messages", errors["none", "loss 30 %", "during"]),
        ("error − same mode, perfect messages", errors["D_W", "perfect", "during"]),
    ):
        assert str(row[column]).startswith(f"{(ours - theirs).mean() + 0.0:.3f} ± ")


def _made_up(more: list[float], error: list[float]) -> list[Record]:
    """Records of XOR with two hidden nodes where D removes nothing and neither D nor none has an error."""
    task = {"gate": "XOR", "hidden": 2}
    count = len(more)
    runs = {mode: {"removed": [0.0] * count, "error": [0.0] * count} for mode in (*MODES, RANDOM)}
    runs["D_W"] = {"removed": more, "error": error}
    return [
        Record("argnn-gates", {**task, "mode": mode}, 0, {"inputs": 9}, {"processor time": Metric(1.0, 3)},
               data={"runs": {**own, "edges": [12] * count, "of rounding": [0] * count}})
        for mode, own in runs.items()
    ]  # fmt: skip


def _claimed(more: list[float], error: list[float]) -> list[str]:
    """The verdicts of the table of claims for D_W."""
    return [str(cell) for cell in ArgnnGates().summary(_made_up(more, error))[3].rows[0][2:4]]


def test_the_verdicts_on_the_claims() -> None:
    assert _claimed([2.0, 2.0, 2.0], [0.0, 0.01, 0.02]) == ["yes", "yes"]
    assert _claimed([1.0, 0.0, 1.0], [0.03, 0.03, 0.04]) == ["no", "no"], "an interval over 0; 0.0333 is beyond 0.03"
    assert _claimed([1.0, 1.0, 1.1], [-0.04, -0.03, -0.03]) == ["yes", "no"]
    assert _claimed([1.0], [0.01]) == ["–", "yes"], "one run has no interval"


def test_the_papers_means_are_compared_with_intervals_only() -> None:
    assert [row[1:] for row in ArgnnGates().summary(_made_up([2.0], [0.08]))[2].rows] == [(0, 0, "–")] * 2
    errors, edges = ArgnnGates().summary(_made_up([1.0, 3.0], [0.08, 0.0843]))[2].rows
    assert errors[1:] == (3, 1, "XOR, none, 2 hidden: 0.0615 beside 0.0000 ± 0.0000")
    assert edges[1:] == (2, 1, "XOR, D, 2 hidden: 1.8 beside 0.0 ± 0.0")


def test_the_control_lacks_edges_between_nodes_that_act_and_is_else_the_same_network() -> None:
    whole, less, alone = (new_network(GATES["XOR"], 3, seeds) for seeds in ([7, 8], [7, 8], [8]))
    cut_at_random(less, [5, 4])
    gone = whole.adjacency & ~less.adjacency
    assert gone.sum(axis=(1, 2)).tolist() == [5, 4]
    assert not gone[:, :, :2].any()
    assert (less.weights == np.where(gone, 0, whole.weights)).all()
    cut_at_random(alone, [4])
    assert (alone.adjacency[0] == less.adjacency[1]).all()  # the draw is the seed's
    with pytest.raises(ValueError, match="larger"):
        cut_at_random(new_network(GATES["XOR"], 1, [7]), [3])


def test_rows_and_evaluations_of_a_run_are_those_of_its_seed() -> None:
    table, config = GATES["XOR"], {"inputs": 30, "updates": 4}
    together = train(new_network(table, 2, [3, 9]), table, None, config).errors
    for k, seed in enumerate((3, 9)):
        alone = train(new_network(table, 2, [seed]), table, None, config).errors[0]
        assert alone.tobytes() == together[k].tobytes()
    first, second = (table.draw(30, seed)[0] for seed in (3, 9))
    assert (first != second).any()


@pytest.fixture(scope="module")
def eigen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple]:
    folder = tmp_path_factory.mktemp("eigen")
    found = run_study(ArgnnEigen(), folder, seeds=2, quick=True, console=Console(file=io.StringIO()))
    return folder, found.records


def test_a_run_in_parts_is_the_run_at_once_and_agrees_with_lapack(eigen: tuple[Path, tuple]) -> None:
    folder, records = eigen
    assert [r.task["mode"] for r in records] == list(PRUNING)
    for record in records:
        assert 0 < record.metrics["difference from LAPACK"].value < 1e-9
        shown = next(run for run in record.data["runs"] if run["seed"] == record.data["shown"])
        frames, at, edges = (record.data[name] for name in ("frames", "at", "edges"))
        assert len(shown["removed"]) == max(len(run["removed"]) for run in record.data["runs"])
        assert at == sorted(set(at))
        assert (at[0], at[-1]) == (0, 600)
        # Replayed in parts, the same edges go in the same order, each between its frame and the one before.
        names = [f"{source}→{target}" for source, target in edges]
        gone = []
        for before, after in itertools.pairwise(frames):
            here = {
                name
                for name, a, b in zip(names, before["weights"], after["weights"], strict=True)
                if a is not None and b is None
            }
            assert here == {name for _, name in after["removed"]}
            gone += [name for _, name in after["removed"]]
        assert gone == shown["removed"]
        assert len(stepper({**record.data})["frames"]) == len(at)
    assert any(run["removed"] for record in records for run in record.data["runs"])
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count('class="stepper card"') == 4
    assert page.count("<picture>") == 8


def test_the_table_counts_the_papers_example(eigen: tuple[Path, tuple]) -> None:
    _, records = eigen
    went, agree = ArgnnEigen().summary(records)
    for record, row in zip(records, went.rows, strict=True):
        same = sum(run["removed"] == ["3→2", "4→3"] for run in record.data["runs"])
        assert row[2] == f"{same} of 2"
        others = "0 of" if "eigenvector" in record.task["mode"] else ""
        assert str(row[4]).startswith(others)
    assert [row[3] for row in agree.rows] == ["1e-09"] * 4


def test_growth_counts_what_can_go_at_all_and_its_control_loses_as_much(tmp_path: Path) -> None:
    found = run_study(ArgnnGrowth(), tmp_path, seeds=2, quick=True, console=Console(file=io.StringIO()))
    of = {(r.task["task"], r.task["hidden"], r.task["mode"]): r.data["runs"] for r in found.records}
    assert {task for task, _, _ in of} == {"parity of 3", "digits"}
    for (task, hidden, mode), runs in of.items():
        inputs, outputs = (3, 1) if task == "parity of 3" else (64, 10)
        acting = hidden + outputs
        edges = acting * (inputs + acting - 1)
        control = of[task, hidden, "D_W by eigenvector"]["removed"]
        assert runs["edges"] == [edges - count for count in (control if mode.startswith("random") else (0, 0))]
        assert all(count <= acting * (acting - 1) / 2 for count in runs["opposed"])
        assert ("accuracy" in runs) == (task == "digits")
        assert mode != "D_W" or all(count <= hidden + outputs - 1 for count in runs["removed"])
    assert all(0.2 < accuracy <= 1 for accuracy in of["digits", 2, "none"]["accuracy"])
    shares, _, times = ArgnnGrowth().summary(found.records)
    first = of["parity of 3", 2, "D_W by eigenvector"]
    share = dict(zip(shares.columns, shares.rows[0], strict=True))["D_W by eigenvector (%)"]
    assert str(share).startswith(f"{100 * np.mean(np.divide(first['removed'], first['edges'])):.1f}")
    assert len(times.rows) == 3


def test_lstms_are_pruned_by_every_choice_and_validation_chooses_the_variant(tmp_path: Path) -> None:
    found = run_study(ArgnnLstm(), tmp_path, quick=True, console=Console(file=io.StringIO()))
    scores = {r.task["what"]: r.metrics for r in found.records}
    assert set(scores) == {"dense", *CHOICES}
    assert scores["dense"]["cut test"].value > 0.8
    best = best_laplacian(found.records, "digits", 0.75, "cut")
    assert best in LAPLACIANS
    assert scores[best]["cut validation"].value == max(scores[name]["cut validation"].value for name in LAPLACIANS)
    assert len({scores[name]["cut validation"].value for name in CHOICES}) > len(CHOICES) / 2, "choices differ"
    _, variants, paired = ArgnnLstm().summary(found.records)
    every = dict(zip(variants.columns, variants.rows[0], strict=True))
    assert every[""] == "digits, 75 %, cut"
    ours, random = scores[best]["cut test"].value, scores["random"]["cut test"].value
    assert paired.rows[0][:3] == ("digits, 75 %, cut", best, f"{100 * (ours - random):.1f}")
    assert every[best.removeprefix("laplacian, ")] == paired.rows[0][2]
    assert len(every) == 1 + len(LAPLACIANS)


def test_gate_by_gate_every_gate_loses_the_same_share_and_its_smallest_weights() -> None:
    import torch

    from jali.data import load
    from jali.studies.argnn_lstm import PER_GATE, QUICK, _pruned
    from jali.studies.base import Task
    from jali.studies.training import SequenceClassifier

    torch.manual_seed(0)
    model = SequenceClassifier(8, 64, 10)
    pruned = _pruned(model, load("digits"), QUICK, Task({"what": PER_GATE, "sparsity": 0.75}, ""))
    before, after = (each.get_parameter("rnn.weight_hh_l0").detach() for each in (model, pruned))
    assert before.all()
    for whole, left in zip(before.chunk(4), after.chunk(4), strict=True):
        assert (left != 0).sum() == 64 * 16
        assert whole[left == 0].abs().max() < whole[left != 0].abs().min()
        assert (left[left != 0] == whole[left != 0]).all()


def test_a_study_of_unknown_parity_is_refused() -> None:
    from jali.studies.argnn_growth import _examples

    with pytest.raises(DataError, match="parity of 99 bits; give 1 to 16"):
        _examples("parity of 99")
