"""README and docs are executed: every ```python block of a file, in order, in one namespace."""

import re
from pathlib import Path

import pytest

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
