"""The command line: what it hands over, how it stops and resumes, and one clear line for every mistake."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import pytest
from typer.testing import CliRunner

import jali
import jali.studies
from jali.cli import _key_values, app
from jali.errors import CriterionError, DataError, JaliError
from jali.runs.record import Metric, Record
from jali.runs.store import RecordStore
from jali.studies.base import Settings, find_study, studies
from jali.studies.runner import run_study

TOY = '''
"""A study that measures nothing and takes as long as it is told."""
import os, time
from jali.errors import DataError
from jali.studies.base import *

class Toy(Study):
    name, title, paper, default_seeds = "toy-study", "A toy", "Nobody 2025", 2

    def tasks(self, settings):
        config = {"quick": settings.quick}
        return [Task({"half": h, "seed": s}, f"half {h} seed {s}", s, config) for s in settings.seeds for h in (1, 2)]

    def run(self, task, workspace, progress):
        progress("working", 0.5)
        time.sleep(float(os.environ.get("TOY_SECONDS", "0")))
        if os.environ.get("TOY_FAILS") == str(task.seed):
            raise DataError("the toy is broken")
        value = task.key["half"] + task.seed / 10
        return task.record(self.name, {"value": Metric(value, 1)}, timings={"run": 0.25}, data={"x": [value]})

    def summary(self, records):
        value = lambda half: over_seeds(records, "value", lambda record: record.task["half"] == half)
        lines = [Comparison(f"half {half}", 1.0, value(half)) for half in (1, 2)]
        return [comparison_table("Toy table", lines)]

    def figures(self, records):
        y = [record.data["x"][0] for record in records]
        series = [{"label": "value", "x": list(range(len(y))), "y": y}]
        return [Figure("lines", "Values", {"x_label": "run", "y_label": "value", "series": series})]

STUDY = Toy()
'''

MODELS = """
import pathlib
pathlib.Path("imported").touch()
not_callable = 3
def build(): return "a model"
def data(): return ["batch"]
def broken(): raise ZeroDivisionError("by the user")
def leaves(): raise SystemExit(0)
"""


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of study modules beside the library's own, and the working directory with a user's module."""
    folder = tmp_path / "studies"
    folder.mkdir()
    (folder / "toy_study.py").write_text(TOY)
    (folder / "helper.py").write_text("")
    monkeypatch.setattr(jali.studies, "__path__", [*jali.studies.__path__, str(folder)])
    monkeypatch.delitem(sys.modules, "jali.studies.toy_study", raising=False)
    monkeypatch.delitem(sys.modules, "usermodels", raising=False)
    (tmp_path / "usermodels.py").write_text(MODELS)
    (tmp_path / "exits.py").write_text("raise SystemExit(0)")
    (tmp_path / "w.safetensors").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return folder


def invoke(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


def command(*arguments: str, cwd: Path, **environment: str) -> subprocess.Popen[str]:
    """The real command in a process of its own, with the toy study in reach."""
    # A shell's background job inherits "ignore SIGINT"; the default is restored, as in a terminal.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += f"import jali.studies as s; s.__path__.append({str(cwd / 'studies')!r}); from jali.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "COLUMNS": "200", **environment},
    )  # fmt: skip


# --- studies ----------------------------------------------------------------------------------------------------------


def test_studies_are_the_modules_that_export_one(toys: Path) -> None:
    names = [study.name for study in studies()]
    assert "toy-study" in names
    assert set(names).isdisjoint({"base", "runner", "helper"})
    for name in names:
        assert find_study(name).name == name, "a study is found under its file's name"
    status, out, _ = invoke("study")
    assert status == 0
    assert "toy-study" in out
    assert "A toy (Nobody 2025)" in out


def test_a_study_runs_resumes_and_reports(toys: Path, tmp_path: Path) -> None:
    status, out, _ = invoke("study", "toy-study")
    assert status == 0
    assert "[4/4] half 2 seed 1" in out
    assert "Toy table" in out
    assert "2.05 ± 0.64" in out
    folder = tmp_path / "out" / "toy-study"
    content = (folder / "records.jsonl").read_bytes()
    page = (folder / "report.html").read_bytes()
    assert content.count(b"\n") == 4

    status, out, _ = invoke("study", "toy-study")
    assert status == 0
    assert "4 of 4 tasks are already recorded" in out
    assert "[1/" not in out
    assert (folder / "records.jsonl").read_bytes() == content

    status, out, _ = invoke("study", "toy-study", "--seeds", "3")
    assert "4 of 6 tasks are already recorded" in out
    assert "[2/2] half 2 seed 2" in out
    assert (folder / "records.jsonl").read_bytes().startswith(content)

    (folder / "records.jsonl").write_bytes(content)
    (folder / "report.html").unlink()
    status, out, _ = invoke("report", str(folder))
    assert status == 0
    assert "2.05 ± 0.64" in out
    assert (folder / "report.html").read_bytes() == page, "the report needs nothing but the records"


def test_quick_has_its_own_folder_and_other_settings_run_again(toys: Path, tmp_path: Path) -> None:
    invoke("study", "toy-study", "--quick")
    assert len(RecordStore(tmp_path / "out" / "toy-study-quick").records()) == 2
    status, out, _ = invoke("study", "toy-study", "--out", "out/toy-study-quick")
    assert status == 0
    assert "already recorded" not in out
    store = RecordStore(tmp_path / "out" / "toy-study-quick")
    assert len(store.history()) == 6
    assert [record.config["quick"] for record in store.records()] == [False] * 4
    _, out, _ = invoke("study", "toy-study", "--quick")
    assert "note: 2 of the records come from other settings" in out


def test_ctrl_c_keeps_what_is_finished_and_the_same_command_goes_on(toys: Path, tmp_path: Path) -> None:
    process = command("study", "toy-study", "--out", "o", cwd=tmp_path, TOY_SECONDS="0.3")
    assert process.stdout.readline().startswith("[1/4] half 1 seed 0")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130
    assert "stopped; run the same command to resume" in out
    assert "Traceback" not in err
    assert "unfinished: 3 of 4 tasks" in out
    assert "unfinished: 3 of 4 tasks" in (tmp_path / "o" / "report.html").read_text()
    process = command("study", "toy-study", "--out", "o", cwd=tmp_path)
    out, _ = process.communicate()
    assert process.returncode == 0
    assert "1 of 4 tasks are already recorded" in out
    assert "[3/3]" in out
    assert len(RecordStore(tmp_path / "o").history()) == 4


def test_a_failing_task_keeps_the_report_of_the_others(toys: Path, tmp_path: Path) -> None:
    process = command("study", "toy-study", "--out", "o", cwd=tmp_path, TOY_FAILS="1")
    _, err = process.communicate()
    assert process.returncode == 2
    assert err == "jali: the toy is broken\n"
    assert len(RecordStore(tmp_path / "o").records()) == 2
    assert (tmp_path / "o" / "report.html").exists()


def test_the_frame_refuses_wrong_records_and_repeated_keys(toys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = find_study("toy-study")
    tasks = toy.tasks(Settings(seeds=(0,)))
    monkeypatch.setattr(toy, "tasks", lambda settings: [tasks[0], tasks[0]])
    with pytest.raises(JaliError, match=r"two tasks with the key .*half"):
        run_study(toy, "o")
    monkeypatch.setattr(toy, "tasks", lambda settings: tasks)
    monkeypatch.setattr(toy, "run", lambda task, *_: tasks[1].record("toy-study", {}))
    with pytest.raises(JaliError, match="the record of task 'half 1 seed 0' has another key or config"):
        run_study(toy, "o")
    with pytest.raises(DataError, match="--seeds 0 is below 1"):
        run_study(toy, "o", seeds=0)
    assert not (Path("o") / "records.jsonl").exists()


def test_an_empty_line_follows_each_table(toys: Path) -> None:
    invoke("study", "toy-study", "--out", "o")
    Path("o/records.jsonl").write_text(
        Path("o/records.jsonl").read_text() + Path("o/records.jsonl").read_text().replace("toy-study", "another")
    )
    _, out, _ = invoke("report", "o")
    first, second = out.index("Toy table"), out.index("Metrics of another")
    assert "\n\n" in out[first:second]
    assert "\n\nreport: " in out


def test_studies_that_share_a_folder_share_its_page(toys: Path) -> None:
    for name in ("another-toy", "broken-toy"):
        (toys / f"{name.replace('-', '_')}.py").write_text(
            TOY.replace("toy-study", name).replace("A toy", f"The {name}").replace("Toy table", f"Table of {name}")
        )
        invoke("study", name, "--out", "o")
    records = Path("o/records.jsonl")
    lines = [line.replace('"half"', '"halves"') if "broken-toy" in line else line for line in records.open()]
    records.write_text("".join(lines))
    status, out, _ = invoke("study", "toy-study", "--out", "o")
    page = Path("o/report.html").read_text()
    assert status == 0
    assert "<title>A toy; The another-toy</title>" in page, "the study that ran comes first"
    assert "Table of another-toy" in page
    assert "Table of" not in out, "the terminal shows the study that ran"
    assert "records that are not those of study 'broken-toy' (KeyError" in " ".join(out.split())


def test_a_torn_line_is_told_in_the_terminal(toys: Path) -> None:
    invoke("study", "toy-study", "--out", "o")
    with Path("o/records.jsonl").open("a") as file:
        file.write('{"schema": "jali')
    _, out, _ = invoke("report", "o")
    assert "note: " in out
    assert "the last line is torn (16 bytes)" in " ".join(out.split())
    _, out, _ = invoke("report", "o", "--markdown")
    assert "torn" not in out, "tables for a page are nothing but tables"


def test_a_file_instead_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "analysis.json").write_text("{}")
    status, _, err = invoke("report", str(tmp_path / "analysis.json"))
    assert status == 2
    assert f"analysis.json is a file; give the folder that it is in, {tmp_path}" in err


def test_the_package_runs_as_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "jali", "--version"], capture_output=True, text=True, check=True)
    assert jali.__version__ in done.stdout


def test_a_file_that_holds_a_torn_line_only_says_so(tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_text('{"schema": "jali')
    status, _, err = invoke("report", str(tmp_path))
    assert status == 2
    assert "records.jsonl: the last line is torn (16 bytes) and was passed over; no other record is there: run" in err
    assert err.count("\n") == 1


def test_records_of_an_unknown_study_get_plain_tables(toys: Path, tmp_path: Path) -> None:
    invoke("study", "toy-study", "--out", "o")
    path = tmp_path / "o" / "records.jsonl"
    path.write_text(path.read_text().replace("toy-study", "os.path"))
    status, out, _ = invoke("report", "o")
    assert status == 0
    assert "Metrics of os.path" in out
    assert "2.05 ± 0.64" in out


# --- prune ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def handed_over(toys: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """What the command hands to the library, which is replaced."""
    calls: list[dict[str, object]] = []
    fake = types.ModuleType("jali.studies.pruned")
    fake.prune_to_folder = lambda **arguments: calls.append(arguments) or "the summary"
    monkeypatch.setitem(sys.modules, "jali.studies.pruned", fake)
    return calls


PRUNE = ("prune", "usermodels:build", "--weights", "w.safetensors", "--data", "usermodels:data", "--out", "p")


def test_prune_hands_over_what_was_asked(handed_over: list[dict[str, object]]) -> None:
    status, out, _ = invoke(*PRUNE, "--budget", "0.5")
    assert status == 0
    assert out.splitlines()[0] == "the summary"
    assert "p/model.safetensors" in out
    status, _, _ = invoke(
        *PRUNE, "--threshold", "0.2", "--criterion", "random", "--multiple-of", "8", "--min-width", "4", "--scope",
        "global", "--option", "a=0.5", "--option", "b=text", "--no-fold", "--seed", "7",
    )  # fmt: skip
    assert status == 0
    first, second = handed_over
    assert first.pop("build")() == second.pop("build")() == "a model"
    common = {"weights": Path("w.safetensors"), "data": ["batch"], "out": Path("p")}
    assert first == common | {
        "criterion": "lattice", "budget": 0.5, "threshold": None, "multiple_of": 1, "min_width": 1, "scope": "site",
        "options": {}, "fold": True, "seed": 0,
    }  # fmt: skip
    assert second == common | {
        "criterion": "random", "budget": None, "threshold": 0.2, "multiple_of": 8, "min_width": 4, "scope": "global",
        "options": {"a": 0.5, "b": "text"}, "fold": False, "seed": 7,
    }  # fmt: skip


def changed(**changes: str) -> tuple[str, ...]:
    arguments = dict(zip(("model", "weights", "data", "out"), (PRUNE[1], *PRUNE[3::2]), strict=True)) | changes
    return ("prune", arguments.pop("model"), *(f"--{key}={value}" for key, value in arguments.items()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (changed(), "give either --budget"),
        (changed(budget="0.5", threshold="1"), "give either --budget"),
        (changed(budget="0.5", weights="none.safetensors"), "no file none.safetensors; --weights takes"),
        (changed(budget="0.5", option="a"), "--option 'a' is not of the form KEY=VALUE"),
        (changed(budget="0.5", model="usermodels"), "'usermodels' is not of the form pkg.module:callable"),
        (changed(budget="0.5", model="usermodels:none"), "module 'usermodels' has no 'none'; it is the file"),
        (changed(budget="0.5", model="usermodels:biuld"), "module 'usermodels' has no 'biuld'; did you mean build?"),
        (changed(budget="0.5", model="exits:build"), "'exits:build' cannot be imported: SystemExit: 0"),
        (changed(budget="0.5", data="usermodels:leaves"), "usermodels:leaves raised SystemExit: 0"),
        (changed(budget="0.5", out="studies"), "folder studies holds 'helper.py', not written by jali prune"),
        (changed(budget="0.5", out=""), "not written by jali prune; choose a new or empty folder"),
        (changed(budget="0.5", model="nothere:build"), "'nothere:build' cannot be imported: ModuleNotFoundError"),
        (changed(budget="0.5", model="usermodels:not_callable"), "is an int, not a callable"),
        (changed(budget="0.5", data="usermodels:broken"), "usermodels:broken raised ZeroDivisionError: by the user"),
        (changed(budget="0.5", out="w.safetensors/below"), "folder w.safetensors/below cannot be written"),
        (("study", "toy-stduy"), "unknown study 'toy-stduy'; known:"),
        (("study", "toy-study", "--out", "w.safetensors/below"), "folder w.safetensors/below cannot be written"),
        (
            ("study", "toy-study", "--seeds", "0"),
            "--seeds 0 is below 1; give how many seeds to run, for example --seeds 2",
        ),
        (("demo", "--out", "w.safetensors/below"), "folder w.safetensors/below cannot be written"),
        (("report", "nowhere"), "nowhere/records.jsonl holds no records; give the folder"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    handed_over: list[dict[str, object]], arguments: tuple[str, ...], message: str
) -> None:
    status, _, err = invoke(*arguments)
    assert status == 2
    assert err.startswith("jali: ")
    assert message in err
    assert err.count("\n") == 1
    assert handed_over == []


def test_an_unwritable_folder_is_found_before_any_work(handed_over: list[dict[str, object]]) -> None:
    invoke(*changed(budget="0.5", out="w.safetensors/below"))
    assert not Path("imported").exists()
    invoke(*changed(budget="0.5"))
    assert Path("imported").exists()


def test_folders_made_for_nothing_are_removed_again(handed_over: list[dict[str, object]]) -> None:
    Path("kept").mkdir()
    before = sorted(Path.cwd().rglob("*"))
    assert invoke(*changed(budget="0.5", data="usermodels:broken", out="kept/a/b"))[0] == 2
    assert {path.name for path in set(Path.cwd().rglob("*")) - set(before)} <= {"imported", "__pycache__"}


def test_a_folder_of_an_older_run_is_written_again_and_hidden_files_do_not_matter(
    handed_over: list[dict[str, object]],
) -> None:
    Path("p").mkdir()
    (Path("p") / ".gitignore").touch()
    assert invoke(*changed(budget="0.5"))[0] == 0
    (Path("p") / "plan.json").touch()
    assert invoke(*changed(budget="0.5"))[0] == 2, "a plan alone may be anybody's"
    (Path("p") / "model.safetensors").touch()
    assert invoke(*changed(budget="0.5"))[0] == 0
    assert len(handed_over) == 2


@pytest.mark.parametrize("arguments", [("demo", "--seed", "-1"), (*changed(budget="0.5"), "--seed", "-1")])
def test_a_negative_seed_is_refused_before_any_work(
    handed_over: list[dict[str, object]], arguments: tuple[str, ...]
) -> None:
    status, _, err = invoke(*arguments)
    assert status == 2
    assert "--seed" in err
    assert not Path("out").exists()
    assert handed_over == []


def test_real_commands_show_a_traceback_only_with_debug(toys: Path, tmp_path: Path) -> None:
    process = command("report", "nowhere", cwd=tmp_path)
    out, err = process.communicate()
    assert (process.returncode, out) == (2, "")
    assert err.startswith("jali: nowhere/records.jsonl holds no records")
    process = command("--debug", "report", "nowhere", cwd=tmp_path)
    _, err = process.communicate()
    assert process.returncode == 2
    assert "Traceback" in err
    assert "jali.errors.DataError: nowhere/records.jsonl holds no records" in err


def test_usage_errors_and_version() -> None:
    assert invoke("prune")[0] == 2
    assert invoke("nonsense")[0] == 2
    assert invoke("--version")[:2] == (0, "jali 0.1.0\n")


def test_criteria_are_listed_with_their_line() -> None:
    from jali.criterion import criteria

    status, out, _ = invoke("criteria")
    assert status == 0
    assert [line.split(maxsplit=1) for line in out.splitlines()] == [[name, line] for name, line in criteria().items()]
    assert "lattice" in criteria()


def test_options_are_json_where_they_are_json() -> None:
    assert _key_values(["a=1", "b=true", "c=x=y", "d=[1, 2]", "e=1e-3", "f="]) == {
        "a": 1, "b": True, "c": "x=y", "d": [1, 2], "e": 1e-3, "f": "",
    }  # fmt: skip
    with pytest.raises(CriterionError, match="--option a is given twice"):
        _key_values(["a=1", "a=2"])


def test_help_does_not_import_torch() -> None:
    code = "import sys, jali.cli; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False).returncode == 0


def test_records_that_lack_what_their_study_shows_are_one_clear_line(tmp_path: Path) -> None:
    record = Record("demo", {"what": "lattice"}, 0, {}, {"accuracy cut": Metric(0.5, 1)})
    RecordStore(tmp_path).append(record)
    status, _, errors = invoke("report", str(tmp_path))
    assert status == 2
    assert "are not those of study 'demo'" in errors
    assert errors.count("\n") == 1
