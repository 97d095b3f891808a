"""Plans, masks, compaction, repair, companion and fast layers give on a GPU what they give on the CPU; the GPU benchmark."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import Tensor, nn

import jali
from benchmarks import gpu
from jali.inference.accelerate import _unfit

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU here")
CELLS = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}
TOLERANCE = 1e-5


class Tagger(nn.Module):
    def __init__(self, cell: type[nn.RNNBase], bidirectional: bool = False) -> None:
        super().__init__()
        self.rnn = cell(6, 24, num_layers=2, bidirectional=bidirectional)
        self.head = nn.Linear(48 if bidirectional else 24, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0])


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=on_gpu)])
def device(request):
    """Both devices run the same tests; TF32, which rounds products to ten bits, is off."""
    with torch.backends.cudnn.flags(allow_tf32=False):
        yield request.param


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_a_plan_cuts_the_same_on_every_device(cell, bidirectional, device):
    torch.manual_seed(0)
    model, x = Tagger(CELLS[cell], bidirectional).eval(), torch.randn(9, 5, 6)
    there = copy.deepcopy(model).to(device)
    plan = jali.plan(there, "magnitude", 0.5)
    assert plan == jali.plan(model, "magnitude", 0.5)
    masked, small = jali.mask(there, plan), jali.compact(there, plan, x)
    assert sum(p.numel() for p in small.parameters()) < 0.6 * sum(p.numel() for p in model.parameters())
    assert all(p.device.type == device for p in small.parameters())
    want = jali.mask(model, plan)(x)
    for one in (masked, small, jali.accelerate(small.eval(), x.to(device))):
        assert (one(x.to(device)).cpu() - want).abs().max() < TOLERANCE
    folded = jali.compact(there, plan, x, fold=torch.randn(9, 64, 6))
    assert all(p.device.type == device and p.isfinite().all() for p in folded.parameters())


def test_a_pruner_keeps_its_zeros_on_every_device(device):
    torch.manual_seed(0)
    model, x, y = Tagger(nn.LSTM).to(device), torch.randn(9, 5, 6).to(device), torch.randint(4, (9, 5)).to(device)
    optimizer = torch.optim.Adam(model.parameters())
    pruner = jali.Pruner(model, "magnitude", 0.8, jali.Cubic(start=2, end=10, every=2), optimizer, granularity="weight")
    while not pruner.finished:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten()).backward()
        optimizer.step()
        pruner.step()
    zeros = sum(int((p == 0).sum()) for name, p in model.named_parameters() if "weight" in name and "rnn" in name)
    assert zeros >= 0.75 * sum(p.numel() for name, p in model.named_parameters() if "weight_hh" in name)


def test_weights_elsewhere_than_on_the_cpu_stay_with_pytorch_and_say_why():
    assert _unfit(nn.LSTM(3, 4)) == ""
    assert _unfit(nn.LSTM(3, 4, device="meta")) == "the kernels run on a CPU, the weights are on meta"


def test_the_benchmark_compares_compacted_layers_with_what_they_must_give(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gpu, "ROUNDS", (1, 2))
    out = tmp_path / "gpu.json"
    rows = gpu.run(out, "cpu", (8, 16), (1, 3))
    assert [(row["hidden"], row["batch"]) for row in rows] == [(8, 1), (8, 3), (16, 1), (16, 3)]
    for row in rows:
        assert set(row) == {"hidden", "batch", "dense", "kept 0.5", "kept 0.25"}
        assert all(row[name]["median"] > 0 for name in ("dense", "kept 0.5", "kept 0.25"))
        assert max(row[name]["error"] for name in ("kept 0.5", "kept 0.25")) < TOLERANCE
    assert json.loads(out.read_text())["rows"] == rows
    assert len(capsys.readouterr().out.splitlines()) == len(rows)


@pytest.mark.skipif(torch.cuda.is_available(), reason="PyTorch sees a GPU here")
def test_the_benchmark_without_a_gpu_says_so_and_writes_nothing(tmp_path):
    with pytest.raises(SystemExit, match=r"cannot use device 'cuda' here .* run this where there is a GPU"):
        gpu.main(["--out", str(tmp_path / "gpu.json")])
    assert not list(tmp_path.iterdir())
