"""The inference benchmark measures what it says: its grid, its pruned layers, its limits, its turns and its resuming."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import jali
from benchmarks import inference
from benchmarks.inference_cases import KEPT, SPARSITY, Size, bytes_per_weight, grid, network, prune
from benchmarks.inference_limits import SIZES, Machine
from jali.errors import BudgetError
from jali.plans.pattern import Pattern
from jali.studies import peers
from jali.studies.peers import Contestant
from jali.studies.variants import PATTERNS, Variant

MACHINE = Machine(1, SIZES, tuple(1e11 / (1 + k) for k in range(len(SIZES))), 2e11)


def fake_peers(layer: torch.nn.Module, x: torch.Tensor, threads: int) -> list[Contestant]:
    return [Contestant(name, peers.torch_call(layer, x), 0.0) for name in (*peers.DENSE, *peers.LOSSY)]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> list[Size]:
    """Two tiny sizes, PyTorch in place of every engine; the list collects which sizes were measured."""
    measured: list[Size] = []
    real = inference.measure

    def measure(size: Size, variants: list[Variant], machine: Machine) -> list[dict]:
        measured.append(size)
        return real(size, variants, machine)

    variants = [Variant("weight", 0.9), Variant("unit", 0.5)]
    monkeypatch.setattr(inference, "measure", measure)
    monkeypatch.setattr(inference, "grid", lambda quick: [(Size(8, b, 1, 8), variants) for b in (1, 2)])
    monkeypatch.setattr(inference, "peers", fake_peers)
    monkeypatch.setattr(inference, "measure_machine", lambda threads: MACHINE)
    monkeypatch.setattr(inference, "environment", lambda *packages: {"git": "a commit"})
    monkeypatch.setattr(inference, "SECONDS", 0.0)
    monkeypatch.setattr(jali, "accelerate", lambda model, x: model, raising=False)
    return measured


# --- the grid ---------------------------------------------------------------------------------------------------------


def test_the_grid_is_the_whole_product() -> None:
    cells = grid(quick=False)
    assert len(cells) == len({size for size, _ in cells}) == 4 * 3 * 2 + 3
    assert [size.batch for size, _ in cells if size.inputs != size.hidden] == [1, 8, 64]  # few inputs, one width
    for _, variants in cells:
        assert len(variants) == len(set(variants)) == len(SPARSITY) * len(PATTERNS) + len(KEPT) + 1  # the break-even
    assert {size for size, _ in grid(quick=True)} < {size for size, _ in cells}


@given(st.sampled_from(SPARSITY))
def test_n_of_m_is_the_nearest_of_32(sparsity: float) -> None:
    reached = Pattern.parse(Variant("n:m", sparsity).pattern).sparsity
    assert abs(reached - sparsity) == pytest.approx(min(abs(1 - n / 32 - sparsity) for n in range(1, 32)))


def test_the_nearest_block_diagonals() -> None:
    names = [Variant("block-diagonal", s).pattern for s in SPARSITY]
    assert names == ["block-diagonal:4", "block-diagonal:8", "block-diagonal:16", "block-diagonal:64"]


def test_only_keeps_what_has_one_of_the_values() -> None:
    wanted = inference._filters(["hidden=512,1024", "family=weight,unit", "sparsity=0.9,0.75", "threads=2"])
    found = inference._chosen(grid(quick=False), wanted)
    assert {(size.hidden, size.threads) for size, _ in found} == {(512, 2), (1024, 2)}
    assert {variant for _, variants in found for variant in variants} == {Variant("weight", 0.9), Variant("unit", 0.75)}
    with pytest.raises(SystemExit, match="'width=3' is not KEY=VALUE"):
        inference._filters(["width=3"])


# --- the layers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["weight", "gate-aligned", "block:16x1", "n:m", "unit"])
def test_a_pruned_layer_is_what_its_row_says(family: str) -> None:
    model, x = network(32), torch.randn(5, 2, 32)
    pruned = prune(model, Variant(family, 0.75), x)
    want = pruned.reference(x)[0][..., pruned.kept]
    torch.testing.assert_close(pruned.layer(x)[0], want)
    weights = [p for name, p in pruned.layer.named_parameters() if name.startswith("weight")]
    left = sum(p.numel() if family == "unit" else int((p != 0).sum()) for p in weights)
    assert pruned.multiply_adds == left
    assert pruned.removed == pytest.approx(1 - left / (2 * 4 * 32 * 32))
    assert pruned.recurrent_bytes + pruned.input_bytes == pytest.approx(left * bytes_per_weight(pruned.variant))
    if family == "unit":
        assert (pruned.layer.hidden_size, pruned.recurrent_bytes) == (8, 4 * 8 * 8 * 4)
    else:
        assert pruned.removed == pytest.approx(0.75, abs=0.01)


# --- limits -----------------------------------------------------------------------------------------------------------


@given(st.floats(1.0, 1e10), st.floats(1.0, 1e10), st.integers(1, 200))
def test_reading_takes_longer_the_more_there_is(one: float, other: float, times: int) -> None:
    small, large = sorted((one, other))
    assert 0 < MACHINE.read_seconds(small, times) <= MACHINE.read_seconds(large, times)
    assert MACHINE.read_seconds(large, 2 * times) == pytest.approx(2 * MACHINE.read_seconds(large, times))


def test_a_measured_size_has_its_measured_bandwidth() -> None:
    for size, bandwidth in zip(MACHINE.sizes, MACHINE.bandwidth, strict=True):
        assert MACHINE.read_seconds(size, 3) == pytest.approx(3 * size / bandwidth)
    assert MACHINE.read_seconds(0, 5) == 0


# --- turns ------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 5))
def test_everybody_has_one_timed_turn_in_every_round(count: int) -> None:
    calls: list[int] = []
    contestants = [Contestant(str(k), lambda k=k: calls.append(k), 0.0) for k in range(count)]
    times = peers.interleaved(contestants, 0.0, (4, 9))
    assert {name: len(seconds) for name, seconds in times.items()} == {str(k): 4 for k in range(count)}
    turns = calls[::2]  # every timed call has an untimed one before it
    assert calls[1::2] == turns
    rounds = [turns[i : i + count] for i in range(0, len(turns), count)]
    assert all(sorted(each) == list(range(count)) for each in rounds)
    assert [each[0] for each in rounds] == [k % count for k in range(4)]


@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=20))
def test_quartiles_are_in_order_and_within_the_times(times: list[float]) -> None:
    found = peers.quartiles(times)
    assert min(times) <= found["low"] <= found["median"] <= found["high"] <= max(times)
    assert found["calls"] == len(times)


# --- the run ----------------------------------------------------------------------------------------------------------


def test_the_run_writes_rows_ratios_and_a_plot_and_goes_on_where_it_was(tmp_path, small, capsys, monkeypatch) -> None:
    out = tmp_path / "inference.json"
    inference.main(["--out", str(out), "--only", "batch=1"])
    assert small == [Size(8, 1, 1, 8)]
    lines = out.with_suffix(".jsonl")
    lines.write_text(lines.read_text() + '{"hidden": 8, "ba')  # the power failed here
    inference.main(["--out", str(out)])
    assert small == [Size(8, 1, 1, 8), Size(8, 2, 1, 8)]
    printed, content = capsys.readouterr().out, json.loads(out.read_text())
    assert content["limits"][0]["flops"] == MACHINE.flops
    assert [(row["batch"], row["family"]) for row in content["rows"]] == [
        (1, "weight"), (1, "unit"), (2, "weight"), (2, "unit")
    ]  # fmt: skip
    for row in content["rows"]:
        assert row["jali"]["error"] < 1e-6
        name, seconds = inference.best_peer(row)
        assert seconds == min(row["peers"][each]["median"] for each in peers.DENSE)
        assert f"{seconds / row['jali']['median']:.1f}x {name}" in printed
        assert row["flop_limit"] == pytest.approx(
            2 * (1 - row["removed"]) * 512 * row["batch"] * inference.STEPS / MACHINE.flops
        )
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(inference, "environment", lambda *packages: {"git": "another commit"})
    inference.main(["--out", str(out)])
    assert len(small) == 4
    assert {row["git"] for row in json.loads(out.read_text())["rows"]} == {"another commit"}


def test_an_interruption_keeps_the_sizes_before_it(tmp_path, small, capsys, monkeypatch) -> None:
    recorded = inference.measure

    def stopped_in_the_second(size, variants, machine):
        if size.batch == 2:
            raise KeyboardInterrupt
        return recorded(size, variants, machine)

    monkeypatch.setattr(inference, "measure", stopped_in_the_second)
    out = tmp_path / "inference.json"
    inference.main(["--out", str(out)])
    assert "stopped" in capsys.readouterr().out
    assert [row["batch"] for row in json.loads(out.read_text())["rows"]] == [1, 1]


def test_what_cannot_be_built_is_said_and_tried_again(tmp_path, small, capsys, monkeypatch) -> None:
    def refuse(model, x):
        raise BudgetError("no kernel for this")

    out = tmp_path / "inference.json"
    with monkeypatch.context() as broken:
        broken.setattr(jali, "accelerate", refuse, raising=False)
        inference.main(["--out", str(out), "--only", "batch=1"])
    assert capsys.readouterr().out.count("BudgetError: no kernel for this") == 2
    assert json.loads(out.read_text())["rows"] == []
    inference.main(["--out", str(out), "--only", "batch=1"])
    assert len(json.loads(out.read_text())["rows"]) == 2


# --- the peers --------------------------------------------------------------------------------------------------------


def test_the_peers_compute_the_same_layer() -> None:
    pytest.importorskip("openvino", reason="needs the extra jali[bench]")
    layer, x = network(16).rnn, torch.randn(7, 3, 16)
    found = {each.name: each for each in peers.peers(layer, x, threads=1)}
    assert set(found) == {*peers.DENSE, *peers.LOSSY}
    want = layer(x)[0].detach().numpy()
    for name in peers.DENSE:
        np.testing.assert_allclose(np.asarray(found[name].call()), want, atol=1e-5)
        assert found[name].error < 1e-5
    assert 1e-4 < found["onnxruntime-int8"].error < 0.2
    assert found["openvino-bf16"].error < 0.2
