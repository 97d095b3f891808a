"""``jali prune`` from a shell: a user's own package in the current directory, and every mistake as one clear line."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import jali
from jali.runs.store import RecordStore
from jali.theorems import from_json
from tests.test_cli import invoke

PACKAGE = {
    "__init__.py": "",
    "models.py": """
from torch import nn


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.LSTM(4, 12, batch_first=True), nn.Linear(12, 3)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


def build():
    return Tagger()


def broken():
    raise RuntimeError("no such checkpoint")


def number():
    return 7


def no_layer():
    return nn.Linear(4, 3)


constant = 7
""",
    "data.py": """
import torch


def calibration():
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(20, 6, 4, generator=generator), torch.zeros(20, dtype=torch.long)) for _ in range(3)]


def empty():
    return []


def nan():
    return torch.full((2, 6, 4), float("nan"))


def generator():
    yield torch.randn(2, 6, 4)
    raise OSError("the disk with the data is gone")


class Loader:
    def __iter__(self):
        yield torch.randn(2, 6, 4)
        raise KeyError("clip 7")


def wide():
    return torch.randn(2, 6, 9)
""",
}


class Tagger(nn.Module):
    """The model of the package, for this process."""

    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.LSTM(4, 12, batch_first=True), nn.Linear(12, 3)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    (root / "mypkg").mkdir()
    for name, text in PACKAGE.items():
        (root / "mypkg" / name).write_text(text)
    torch.manual_seed(0)
    model = Tagger()
    save_file(model.state_dict(), root / "w.safetensors")
    save_file(nn.GRU(2, 3).state_dict(), root / "other.safetensors")
    (root / "cut.safetensors").write_bytes((root / "w.safetensors").read_bytes()[:300])
    torch.save(model.state_dict(), root / "w.pt")
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    weights["rnn.weight_hh_l0"][0, 0] = float("nan")
    save_file(weights, root / "nan.safetensors")
    save_file(model.state_dict() | {"head.bias": torch.full((3,), float("inf"))}, root / "inf.safetensors")
    (root / "file").write_text("x")
    return root


def jali_command(*arguments, cwd):
    command = [sys.executable, "-m", "jali.cli", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "80", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment, check=False)


def prune(
    project, *options, out="out", model="mypkg.models:build", weights="w.safetensors", data="mypkg.data:calibration"
):
    return jali_command("prune", model, "--weights", weights, "--data", data, "--out", out, *options, cwd=project)


def test_a_package_in_the_current_directory_is_pruned_and_comes_back_without_it(project, tmp_path):
    done = prune(project, "--budget", "0.5", out=tmp_path / "pruned")
    assert done.returncode == 0, done.stderr
    assert "sparsity 0.5000" in done.stdout
    names = {path.name for path in (tmp_path / "pruned").iterdir()}
    assert names == {"model.safetensors", "plan.json", "records.jsonl", "report.html"}
    torch.manual_seed(0)
    model = Tagger().eval()
    generator = torch.Generator().manual_seed(0)
    data = [(torch.randn(20, 6, 4, generator=generator), torch.zeros(20, dtype=torch.long)) for _ in range(3)]
    want, x = jali.prune(model, "lattice", 0.5, data), torch.randn(5, 6, 4)
    assert torch.allclose(jali.load(tmp_path / "pruned")(x), want.model(x), atol=1e-5)
    assert jali.Plan.load(tmp_path / "pruned" / "plan.json").sites[0].removed == want.plan.sites[0].removed
    page = tmp_path / "pruned" / "report.html"
    whole = page.read_text()
    assert "http" not in whole.replace("http-equiv", "")
    page.unlink()
    again = jali_command("report", tmp_path / "pruned", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert page.read_text() == whole


def test_two_models_in_one_folder_are_two_records(project, tmp_path, monkeypatch):
    monkeypatch.chdir(project)
    monkeypatch.syspath_prepend(project)
    torch.manual_seed(1)
    save_file(Tagger().state_dict(), project / "second.safetensors")
    out, runs = tmp_path / "p", [("w.safetensors", "0.5"), ("second.safetensors", "0.5"), ("w.safetensors", "0.25")]
    for weights, budget in [*runs, runs[0]]:
        arguments = ("--weights", weights, "--data", "mypkg.data:calibration", "--out", str(out), "--budget", budget)
        status, _, errors = invoke("prune", "mypkg.models:build", *arguments)
        assert status == 0, errors
    records = RecordStore(out).records()
    assert len({record.task["weights"] for record in records}) == 2
    assert [record.metrics["sparsity"].value for record in records] == [0.5, 0.5, 0.25]
    assert len(RecordStore(out).history()) == 4, "the same run again supersedes its record"
    assert [record.config["calibration batches"] for record in records] == [3, 3, 3]
    page = (out / "report.html").read_text()
    for record in records:
        weights = hashlib.sha256((project / runs[records.index(record)][0]).read_bytes()).hexdigest()
        assert weights.startswith(record.task["weights"])
        assert f"Tagger (weights {record.task['weights']})" in page


MISTAKES = {
    "no such module": ({"model": "nope:build"}, "No module named 'nope'"),
    "no such function": ({"model": "mypkg.models:nope"}, "module 'mypkg.models' has no 'nope'"),
    "no function": ({"model": "mypkg.models"}, "pkg.module:callable"),
    "not callable": ({"model": "mypkg.models:constant"}, "not a callable"),
    "a builder that raises": ({"model": "mypkg.models:broken"}, "no such checkpoint"),
    "a builder of a number": ({"model": "mypkg.models:number"}, "int"),
    "nothing to prune": ({"model": "mypkg.models:no_layer", "weights": "other.safetensors"}, "do not fit"),
    "weights of another model": ({"weights": "other.safetensors"}, "do not fit Tagger"),
    "truncated weights": ({"weights": "cut.safetensors"}, "not a whole safetensors file"),
    "a pickle": ({"weights": "w.pt"}, "safetensors.torch.save_file"),
    "no weights": ({"weights": "none.safetensors"}, "no file none.safetensors"),
    "NaN weights": ({"weights": "nan.safetensors"}, "parameter 'rnn.weight_hh_l0' has 1 NaN or infinite"),
    "infinite weights that are not pruned": ({"weights": "inf.safetensors"}, "parameter 'head.bias' has 3 NaN or infinite"),
    "no data": ({"data": "mypkg.data:empty"}, "no batch"),
    "a generator that raises": ({"data": "mypkg.data:generator"}, "the disk with the data is gone"),
    "a loader that raises": ({"data": "mypkg.data:Loader"}, "reading the Loader raised KeyError: 'clip 7' at batch 1"),
    "NaN data": ({"data": "mypkg.data:nan"}, "NaN or infinite"),
    "data of another width": ({"data": "mypkg.data:wide"}, "(2, 6, 9)"),
    "an output folder that is a file": ({"out": "file"}, "choose another one"),
}  # fmt: skip
OPTIONS = {
    "budget 0": (("--budget", "0"), "0.0"),
    "budget 1.2": (("--budget", "1.2"), "1.2"),
    "budget nan": (("--budget", "nan"), "nan"),
    "budget and threshold": (("--budget", "0.5", "--threshold", "1"), "not both"),
    "an unknown criterion": (("--budget", "0.5", "--criterion", "latice"), "did you mean lattice"),
    "an unknown option": (("--budget", "0.5", "--option", "form_=exact"), "has no option 'form_'"),
    "a budget that removes nothing": (("--budget", "0.01"), "removes nothing"),
}


def check_one_line(project, monkeypatch, message, *options, **arguments):
    """In this process, which is faster; one subprocess below shows that it is the same there."""
    monkeypatch.chdir(project)
    monkeypatch.syspath_prepend(project)
    before = sorted(path.name for path in project.iterdir())
    chosen = {"out": "out", "model": "mypkg.models:build", "weights": "w.safetensors", "data": "mypkg.data:calibration"}
    chosen |= arguments
    status, _, errors = invoke(
        "prune",
        chosen["model"],
        "--weights",
        chosen["weights"],
        "--data",
        chosen["data"],
        "--out",
        chosen["out"],
        *options,
    )
    assert status == 2, errors
    assert message in errors
    assert errors.startswith("jali: ")
    assert errors.count("\n") == 1
    assert sorted(path.name for path in project.iterdir()) == before


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_the_inputs_is_one_line_and_leaves_nothing(name, project, monkeypatch):
    arguments, message = MISTAKES[name]
    check_one_line(project, monkeypatch, message, "--budget", "0.5", **arguments)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_mistake_in_the_options_is_one_line_and_leaves_nothing(name, project, monkeypatch):
    options, message = OPTIONS[name]
    check_one_line(project, monkeypatch, message, *options)


def test_a_process_ends_with_status_2_and_no_traceback(project):
    done = prune(project, "--budget", "1.2")
    assert done.returncode == 2
    assert done.stderr.startswith("jali: sparsity 1.2")
    assert "Traceback" not in done.stderr
    assert not (project / "out").exists()


def test_debug_shows_the_traceback(project):
    done = jali_command(
        "--debug", "prune", "nope:build", "--weights", "w.safetensors", "--data", "mypkg.data:calibration", "--out", "out",
        "--budget", "0.5", cwd=project,
    )  # fmt: skip
    assert done.returncode != 0
    assert "Traceback" in done.stderr


def test_a_model_that_cannot_be_stored_is_still_written_and_says_how_to_load_it(project, tmp_path):
    (project / "mypkg" / "branching.py").write_text(
        "from mypkg.models import Tagger\n\n\nclass Branching(Tagger):\n    def forward(self, x):\n"
        "        return super().forward(x) if x.sum() < 1e9 else super().forward(-x)\n"
    )
    done = prune(project, "--budget", "0.5", out=tmp_path / "p", model="mypkg.branching:Branching")
    assert done.returncode == 0, done.stderr
    assert "jali.load needs build=" in done.stdout
    assert Path(tmp_path / "p" / "model.safetensors").is_file()


def test_analyze_prints_and_writes(project):
    arguments = ["mypkg.models:build", "--weights", "w.safetensors", "--data", "mypkg.data:calibration"]
    done = jali_command("analyze", *arguments, "--out", "analysis.json", cwd=project)
    assert done.returncode == 0, done.stderr
    assert "Analysis of Tagger" in done.stdout
    found = jali.Analysis.load(project / "analysis.json")
    assert str(found) in done.stdout
    assert found.site("rnn.l0").dynamics["sequences"] == 16
    wrong = jali_command("analyze", *arguments, "--plan", "none.json", cwd=project)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("jali: cannot read the plan 'none.json'")


def test_verify_prints_a_line_per_theorem_and_writes(project):
    arguments = ["mypkg.models:build", "--weights", "w.safetensors", "--data", "mypkg.data:calibration"]
    done = jali_command("verify", *arguments, "--out", "verdicts.json", cwd=project)
    assert done.returncode == 0, done.stderr
    found = from_json((project / "verdicts.json").read_bytes())
    assert done.stdout.splitlines() == [*map(str, found), "written: verdicts.json"]
    assert {each.answer for each in found} >= {"fails", "premise not met"}  # no error: an answer
    assert len(found) == 8
    for wrong, message in (
        (["mypkg.models:build"], "jali: give MODEL and --weights together"),
        (["--data", "mypkg.data:calibration"], "jali: --data is for a MODEL of your own"),
    ):
        refused = jali_command("verify", *wrong, cwd=project)
        assert refused.returncode == 2
        assert refused.stderr.startswith(message)
