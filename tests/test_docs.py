"""README and docs are executed: every ```python block of a file, in order, in one namespace."""

import re
from pathlib import Path

import pytest

from jali.report.tables import markdown
from jali.runs.store import RecordStore
from jali.studies.base import find_study

ROOT = Path(__file__).parent.parent
FILES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_examples_run(file, tmp_path, monkeypatch):
    blocks = re.findall(r"^```python\n(.*?)^```", file.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert blocks, f"{file.name} has no example"
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "example"}
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"{file.name}, block {number}", "exec"), namespace)  # noqa: S102


def test_the_results_in_the_readme_are_those_of_the_records():
    """No figure is typed in: the tables are what ``jali report docs/results/fold-mnist --markdown`` prints."""
    records = RecordStore(ROOT / "docs" / "results" / "fold-mnist").records()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tables = find_study("fold-mnist").summary(records)
    assert len(tables) == 4
    for table in tables:
        assert markdown(table) in readme, f"README lacks the table {table.title!r} of the records"
