"""The benchmark of blocks compares layers that compute the same, counts their work, and goes on where it was."""

import json

import numpy as np
import pytest
import torch

import jali
from benchmarks import blocks
from jali.studies.peers import quartiles
from jali.view import layer_views


@pytest.fixture
def small(monkeypatch):
    """Tiny sizes, PyTorch in place of the kernels; the list collects which sizes were measured."""
    measured, real = [], blocks.measure

    def measure(hidden, batch, threads, ks):
        measured.append((hidden, batch))
        return real(hidden, batch, threads, ks)

    monkeypatch.setattr(blocks, "measure", measure)
    monkeypatch.setattr(blocks, "QUICK", ((8,), (1, 2), (1, 3)))
    monkeypatch.setattr(blocks, "STEPS", 4)
    monkeypatch.setattr(blocks, "SECONDS", 0.0)
    monkeypatch.setattr(blocks, "environment", lambda *packages: {"git": "a commit"})
    monkeypatch.setattr(jali, "accelerate", lambda model, x: model, raising=False)
    return measured


@pytest.mark.parametrize("k", [2, 3, 5])
def test_scattered_blocks_are_k_components_of_nearly_equal_size(k):
    torch.manual_seed(0)
    model = blocks.Network(16)
    found = jali.decompose(blocks.scattered(model, k)).sites[0]
    assert found.count == k
    assert max(found.sizes) - min(found.sizes) <= 1
    assert (np.diff(found.labels) != 0).sum() > k  # scattered
    inside = np.equal.outer(found.labels, found.labels)
    masked, whole = (layer_views(m.get_submodule("rnn"))[0][0].w_rec for m in (blocks.scattered(model, k), model))
    np.testing.assert_array_equal(masked, whole * inside)


def test_all_contestants_compute_the_masked_layer(small):
    rows = blocks.measure(8, 2, 1, (1, 2, 3))
    assert [row["k"] for row in rows] == [1, 2, 3]
    for row in rows:
        kinds = [kind for kind in blocks.KINDS if kind in row]
        assert kinds == [kind for kind in blocks.KINDS if kind != "batched" or row["k"] > 1]
        assert all(row[kind]["error"] <= 1e-6 for kind in kinds)
        assert all(row[kind].keys() >= quartiles([1.0]).keys() for kind in (*kinds, "torch"))
        assert row["work"] == pytest.approx((64 + 8 / row["k"]) / (64 + 8))


def test_the_run_writes_rows_and_a_plot_and_goes_on_where_it_was(tmp_path, small, capsys, monkeypatch):
    out = tmp_path / "blocks.json"
    blocks.main(["--quick", "--out", str(out)])
    assert small == [(8, 1), (8, 2)]
    content = json.loads(out.read_text())
    assert [(row["batch"], row["k"]) for row in content["rows"]] == [(1, 1), (1, 3), (2, 1), (2, 3)]
    assert content["features"] == 64
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert "H=8 B=2 k=3" in capsys.readouterr().out
    blocks.main(["--quick", "--out", str(out)])
    assert len(small) == 2  # nothing was measured again
    monkeypatch.setattr(blocks, "environment", lambda *packages: {"git": "another commit"})
    blocks.main(["--quick", "--out", str(out)])
    assert len(small) == 4
