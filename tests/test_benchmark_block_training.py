"""The comparison of ways to blocks: every network ends in k independent blocks, and all else is equal."""

import json

import pytest
import torch

import jali
from benchmarks import ROOT, block_training
from jali.report.tables import markdown


@pytest.fixture
def tiny(monkeypatch):
    for name, value in {"HIDDEN": 8, "EPOCHS": 2, "TRAIN": 128, "BATCH": 8}.items():
        monkeypatch.setattr(block_training, name, value)


def test_a_row_has_every_way_and_the_shares_are_those_of_the_blocks(tiny):
    row = block_training.measure(0, (2,))[0]  # decompose refuses networks that do not fall into two blocks
    assert {"dense", "at once", "gradual", "by index", "from the start"} < row.keys()
    assert row["share"] >= row["share by index"] > 0
    assert row["evenly"] == 0.5
    assert row == block_training.measure(0, (2,))[0]


def test_contiguous_blocks_are_held(tiny):
    model, optimizer = block_training.started(0)
    held = block_training.Index(model, 4)
    block_training.train(model, optimizer, block_training.digits(0)[0], 0, held)
    assert jali.decompose(model).sites[0].labels == (0, 0, 1, 1, 2, 2, 3, 3)
    weights = model.rnn.weight_hh_l0.reshape(4, 8, 8)
    assert int((weights != 0).sum()) == 4 * 4 * 4


def test_copies_train_on_independently(tiny):
    model, optimizer = block_training.started(0)
    data = block_training.digits(0)[0]
    block_training.train(model, optimizer, data, 0)
    before = model.head.weight.clone()
    pairs = [block_training.again(model, optimizer) for _ in range(2)]
    for other, fresh in pairs:
        block_training.train(other, fresh, data, 1)
    assert torch.equal(model.head.weight, before)
    assert torch.equal(pairs[0][0].head.weight, pairs[1][0].head.weight)


def test_the_run_writes_and_goes_on(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(block_training, "environment", lambda *packages: {"git": "a commit"})
    monkeypatch.setattr(block_training, "measure", lambda seed: [dict.fromkeys(KEYS, 0.5) | {"seed": seed, "k": 4}])
    out = tmp_path / "rows.json"
    block_training.main(["--seeds", "1", "--out", str(out)])
    block_training.main(["--seeds", "2", "--out", str(out)])
    assert [row["seed"] for row in json.loads(out.read_text())["rows"]] == [0, 1]
    assert "| 4 | 50.0 | 50.0 | 50.0 ± 0.0 |" in capsys.readouterr().out


def test_the_table_in_the_docs_is_that_of_the_results():
    rows = json.loads((ROOT / "benchmarks" / "results" / "block_training.json").read_text())["rows"]
    assert len(rows) == 5 * len(block_training.BLOCKS)
    assert markdown(block_training.table(rows)) in (ROOT / "docs" / "blocks.md").read_text(encoding="utf-8")


KEYS = ("share", "share by index", "evenly", "dense", "at once", "gradual", "by index", "from the start")
