"""README and docs are executed: every ```python block of a file, in order, in one namespace."""

import re
from pathlib import Path

import pytest

from benchmarks.readme import README, STUDIES, _where, replaced, tables
from jali.report.tables import markdown

ROOT = Path(__file__).parent.parent
FILES = [README, *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_examples_run(file, tmp_path, monkeypatch):
    blocks = re.findall(r"^```python\n(.*?)^```", file.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert blocks, f"{file.name} has no example"
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "example"}
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"{file.name}, block {number}", "exec"), namespace)  # noqa: S102


@pytest.mark.parametrize("page", STUDIES, ids=lambda page: page.name)
def test_the_results_on_a_page_are_those_of_the_records(page):
    """No figure is typed in: the tables are made from committed records and JSON by ``python -m benchmarks.readme``."""
    text = page.read_text(encoding="utf-8")
    made = tables(page)
    assert made, f"{page} has no generated table"
    for table in made:
        assert markdown(table) in text, f"{page} lacks {table.title!r} as it is made; run python -m benchmarks.readme"
    assert replaced(text, page) == text


def test_a_table_in_the_readme_is_replaced_whole_and_a_missing_one_is_told():
    text = README.read_text(encoding="utf-8")
    for table in tables():
        first = markdown(table).splitlines()[4]
        assert replaced(text.replace(first, first + "\n| old |", 1)) == text
        with pytest.raises(ValueError, match=re.escape(f"0 tables in README.md have the title {table.title!r}")):
            replaced(text.replace(f"**{table.title}**", "**another**"))


def test_a_table_names_every_commit_that_its_rows_are_of():
    content = {"cpu": "a processor", "versions": {"jali": "0", "torch": "2"}, "git": "b" * 40, "git_dirty": False}
    assert _where(content) == f"a processor; torch 2; commit {'b' * 12}."
    rows = ["a" * 40, "b" * 40, "a" * 40]
    assert _where(content, rows) == f"a processor; torch 2; commits {'a' * 12}, {'b' * 12}."
