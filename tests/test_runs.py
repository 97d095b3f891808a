"""Records are strict JSON that round-trips; the store loses nothing to kills, full disks or other processes."""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jali.errors import FileError
from jali.files import atomic_write, writable_folder
from jali.runs.record import Metric, Record, canonical
from jali.runs.store import RecordStore
from jali.runs.versions import PACKAGE, source_commit, versions

finite = st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | st.integers(-(2**62), 2**62) | finite | st.text(max_size=8)
payloads = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
objects = st.dictionaries(st.text(max_size=6), payloads, max_size=3)
metrics = st.dictionaries(
    st.text(max_size=6), st.builds(Metric, st.floats(), st.integers(0, 10**6), st.text(max_size=4)), max_size=3
)
records = st.builds(
    Record,
    study=st.text(max_size=6),
    task=st.dictionaries(st.text(max_size=6), scalars, max_size=3),
    seed=st.integers(0, 2**31),
    config=objects,
    metrics=metrics,
    timings=st.dictionaries(st.text(max_size=6), finite, max_size=2),
    data=objects,
    notes=st.lists(st.text(max_size=9), max_size=2).map(tuple),
    versions=st.just({"python": "3"}),
)


def record(i: int = 0, study: str = "s", value: float = 0.5, **config: object) -> Record:
    return Record(study, {"i": i}, i, config, {"accuracy": Metric(value, 100, "%")}, versions={"python": "3"})


# --- record -----------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(records)
def test_round_trip(original: Record) -> None:
    text = original.to_json()
    assert "\n" not in text
    again = Record.from_json(text)
    assert again.to_json() == text
    assert (again.task, again.config, again.data) == (original.task, original.config, original.data)
    for name, metric in original.metrics.items():
        read = again.metrics[name]
        assert (read.n, read.unit) == (metric.n, metric.unit)
        assert read.value == metric.value or (math.isnan(read.value) and not math.isfinite(metric.value))


@settings(deadline=None, max_examples=30)
@given(records, st.data())
def test_a_changed_record_is_refused(original: Record, draw: st.DataObject) -> None:
    value = json.loads(original.to_json())
    name = draw.draw(st.sampled_from(sorted(value)))
    with pytest.raises(FileError, match="not a valid record"):
        Record.from_json(json.dumps({key: each for key, each in value.items() if key != name}))
    with pytest.raises(FileError, match="unknown field extra"):
        Record.from_json(json.dumps({**value, "extra": 1}))
    with pytest.raises(FileError, match=r"schema is 'jali\.record/2', this version reads 'jali\.record/1'"):
        Record.from_json(json.dumps({**value, "schema": "jali.record/2"}))
    with pytest.raises(FileError, match="not a valid record"):
        Record.from_json(json.dumps({**value, name: 1.5}))
    text = original.to_json()
    with pytest.raises(FileError, match="not a valid record"):
        Record.from_json(text[: draw.draw(st.integers(0, len(text) - 1))])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_not_finite_becomes_null_with_a_note(value: float) -> None:
    diverged = record(value=value)
    assert diverged.notes == (f"metric accuracy is not finite ({value})",)
    assert json.loads(diverged.to_json())["metrics"]["accuracy"]["value"] is None
    again = Record.from_json(diverged.to_json())
    assert math.isnan(again.metrics["accuracy"].value)
    assert again.notes == diverged.notes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {"curve": {"y": [0.0, math.nan]}}}, r"data\.curve\.y\[1\] = nan is not finite"),
        ({"config": {"lr": math.inf}}, r"config\.lr = inf"),
        ({"timings": {"train": math.inf}}, r"timings\.train = inf"),
        ({"data": {"x": torch.zeros(2)}}, r"data\.x is a Tensor; convert"),
        ({"data": {"x": {1: 2}}}, r"data\.x has a key that is not a string"),
        ({"seed": "0"}, "seed '0' is not a whole number"),
        ({"seed": True}, "seed True is not a whole number"),
        ({"metrics": {"a": 0.5}}, r"metrics\.a is not a Metric"),
        ({"metrics": {"a": Metric("0.5", 3)}}, r"metrics\.a = '0.5' is not a number"),
        ({"metrics": {"a": Metric(10**400, 3)}}, r"metrics\.a = 1.* is not a number"),
        ({"metrics": {"a": Metric(0.5, -1)}}, r"n = -1 is not a count"),
        ({"created": "yesterday"}, "created 'yesterday' is not an ISO 8601 time"),
        ({"notes": (3,)}, "notes is not a list of strings"),
        ({"versions": {"torch": 2}}, "versions is not an object of strings"),
    ],
)
def test_what_json_cannot_hold_is_refused_at_once(change: dict[str, object], message: str) -> None:
    parts = {"study": "s", "task": {}, "seed": 0, "config": {}, "metrics": {}, **change}
    with pytest.raises(FileError, match=message):
        Record(**parts)


def test_whole_numbers_of_numpy_are_kept_as_pythons() -> None:
    made = Record("s", {}, np.int64(3), {}, {"accuracy": Metric(np.float64(0.5), np.int64(100))})
    assert Record.from_json(made.to_json()) == made
    with pytest.raises(FileError, match="is not a number"):
        Record("s", {}, 0, {}, {"accuracy": Metric(np.int64(1), 100)})


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_bare_nan_is_not_json(constant: str) -> None:
    text = record().to_json().replace('"value": 0.5', f'"value": {constant}')
    assert constant in text
    with pytest.raises(FileError, match=f"{constant} is not a JSON number"):
        Record.from_json(text)


def test_canonical_ignores_order_and_tuples() -> None:
    assert canonical({"a": 1, "b": (1, 2)}) == canonical({"b": [1, 2], "a": 1})
    assert canonical({"a": 1}) != canonical({"a": 2})


def test_versions_name_what_a_result_depends_on() -> None:
    found = versions()
    assert {"python", "torch", "numpy", "jali", "platform", "cpu"} <= set(found)
    assert found["torch"] == str(torch.__version__)
    assert found.get("jali commit") == source_commit(PACKAGE)


def test_the_commit_is_that_of_the_packages_own_work_tree(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")

    def commit() -> str | None:
        source_commit.cache_clear()
        return source_commit(package)

    assert commit() is None
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "first")
    assert commit() is None, "somebody else's work tree: git does not know the package"
    git("add", ".")
    git("commit", "-q", "-m", "second")
    assert commit() == git("rev-parse", "HEAD")
    (tmp_path / "notes.txt").write_text("not part of the package")
    assert commit() == git("rev-parse", "HEAD")
    (package / "__init__.py").write_text("changed = True")
    assert commit() == git("rev-parse", "HEAD") + " + changes"


# --- store ------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=20)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3), st.integers(0, 99)), max_size=8))
def test_the_latest_record_of_a_task_wins_and_nothing_is_lost(runs: list[tuple[str, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store, latest = RecordStore(folder), {}
        for study, i, value in runs:
            store.append(record(i, study, value))
            latest[study, i] = value
        again = RecordStore(folder)
        found = {(each.study, each.task["i"]): each.metrics["accuracy"].value for each in again.records()}
        assert found == latest
        assert list(found) == list(latest)
        assert len(again.history()) == len(runs)
        assert again.problems == []


def test_a_file_cut_at_any_byte_keeps_every_whole_record(tmp_path: Path) -> None:
    whole = RecordStore(tmp_path / "whole")
    for i in range(3):
        whole.append(record(i))
    content = whole.path.read_bytes()
    ends = [i for i, byte in enumerate(content) if byte == ord("\n")]
    for cut in sorted({*range(0, len(content), 23), *ends, *(end + 1 for end in ends), *(end - 1 for end in ends)}):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / "records.jsonl").write_bytes(content[:cut])
        kept = sum(end <= cut for end in ends)  # a line that lacks only its newline is whole
        torn = content[:cut].rpartition(b"\n")[2] if cut not in ends else b""
        store = RecordStore(folder)
        assert len(store.records()) == kept, cut
        assert bool(store.problems) == bool(torn), cut
        assert (folder / "records.jsonl").read_bytes() == content[:cut], "opening only reads"
        store.append(record(7))
        assert [each.task["i"] for each in RecordStore(folder).records()] == [*range(kept), 7], cut
        assert RecordStore(folder).problems == []
        aside = folder / "records.torn"
        assert (aside.read_bytes() if aside.exists() else b"") == (torn + b"\n" if torn else b"")


def test_a_bad_line_that_is_complete_is_named(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    store.append(record(0))
    with store.path.open("a") as file:
        file.write("{}\n")
    with pytest.raises(FileError, match=r"records\.jsonl, line 2: .*schema is None.*remove the line"):
        RecordStore(tmp_path)


WRITER = """
import sys
from jali.runs.record import Metric, Record
from jali.runs.store import RecordStore
store = RecordStore(sys.argv[1])
for i in range(int(sys.argv[3])):
    store.append(Record(sys.argv[2], {"i": i}, i, {}, {}, data={"x": "y" * 20000}, versions={}))
    print(i, flush=True)
"""


def writer(folder: Path, study: str, count: int) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", WRITER, str(folder), study, str(count)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def test_a_killed_process_loses_no_record_that_it_was_promised(tmp_path: Path) -> None:
    process = writer(tmp_path, "s", 10**6)
    for _ in range(15):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    promised = 15 + len(process.stdout.read().splitlines())
    process.wait()
    store = RecordStore(tmp_path)
    found = len(store.records())
    assert promised <= found <= promised + 1
    store.append(record(10**6, "after"))
    assert len(RecordStore(tmp_path).records()) == found + 1


def test_two_processes_do_not_interleave(tmp_path: Path) -> None:
    processes = [writer(tmp_path, study, 40) for study in "ab"]
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    store = RecordStore(tmp_path)
    assert len(store.records()) == 80
    assert store.problems == []


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="needs /proc/locks to see that someone waits")
@pytest.mark.parametrize("act", [lambda store: store.append(record(2)), RecordStore.records], ids=["append", "read"])
def test_everybody_waits_while_another_is_in_the_middle_of_a_line(tmp_path: Path, act: object) -> None:
    store, line = RecordStore(tmp_path), record(1).to_json().encode() + b"\n"
    store.append(record(0))
    with store.path.open("ab", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(line[:40])
        thread = threading.Thread(target=act, args=(store,))
        thread.start()
        while thread.is_alive() and not re.search(rf"-> FLOCK +ADVISORY +\w+ +{os.getpid()} ", locks()):
            time.sleep(0.01)
        waited = thread.is_alive()
        file.write(line[40:])
    thread.join()
    assert waited
    assert [each.task["i"] for each in store.records()][:2] == [0, 1]
    assert store.problems == []
    assert not (tmp_path / "records.torn").exists()


def locks() -> str:
    return Path("/proc/locks").read_text()


FULL = """
import resource, sys
import torch
from jali.errors import FileError
from jali.runs.record import Record
from jali.runs.store import RecordStore
store = RecordStore(sys.argv[1])
size = store.path.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, size + 100))  # the file cannot grow past this: a full disk
try:
    store.append(Record("s", {"i": 1}, 1, {}, {}, data={"x": "y" * 5000}, versions={}))
except FileError as error:
    print(error)
try:
    store.write_tensors("a.safetensors", {"new": torch.ones(5000)})
except FileError as error:
    print(error)
"""


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    store.append(record(0))
    store.write_tensors("a.safetensors", {"old": torch.ones(1)})
    before = store.path.read_bytes()
    result = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=True)
    assert result.stdout.count("too large") == 2, result.stdout
    assert "free space and run again" in result.stdout
    assert store.path.read_bytes() == before
    assert store.read_tensors("a.safetensors") == {"old": torch.ones(1)}
    assert sorted(file.name for file in tmp_path.rglob("*") if file.is_file()) == ["a.safetensors", "records.jsonl"]


def test_opening_writes_nothing_and_an_unwritable_folder_is_an_error(tmp_path: Path) -> None:
    assert RecordStore(tmp_path / "new").records() == []
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("")
    for act in (
        lambda folder: RecordStore(folder).append(record()),
        writable_folder,
        lambda folder: atomic_write(folder / "x", b""),
    ):
        with pytest.raises(FileError, match=r"file/below.*(cannot be|Not a directory)"):
            act(tmp_path / "file" / "below")


# --- artefacts --------------------------------------------------------------------------------------------------------


def test_artefacts_round_trip(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    tensors = {"w": torch.randn(3, 4), "t": torch.randn(3, 4).t(), "i": torch.arange(5)}
    store.write_tensors("deep/model.safetensors", tensors)
    read = store.read_tensors("deep/model.safetensors")
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[key], tensors[key]) for key in tensors)
    assert [file.name for file in tmp_path.rglob("*.tmp")] == []


def test_artefacts_refuse_bad_files_and_names(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    path = store.write_tensors("model.safetensors", {"w": torch.ones(9)})
    path.write_bytes(path.read_bytes()[:-3])
    for name in ("model.safetensors", "none"):
        with pytest.raises(FileError, match="missing, unreadable or truncated"):
            store.read_tensors(name)
    for name in ("../records.jsonl", "/etc/passwd", "", "a/../../x"):
        with pytest.raises(FileError, match="leads out of"):
            store.write_tensors(name, {})


def test_atomic_write_keeps_the_old_file_when_the_last_step_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = atomic_write(tmp_path / "page", b"old")

    def fail(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(FileError, match="No space left on device"):
        atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
