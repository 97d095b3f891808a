"""Imports go down only (ARCHITECTURE.md): a module imports from its own layer's package or from a lower layer."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent / "jali"
LAYERS = (
    "errors", "files", "plain", "jit", "modes", "moments", "maths", "wired", "site", "view", "blocks", "block_layers", "dynamics",
    "coupled", "contraction", "widths", "models", "batches", "copies", "flow", "capture", "evidence", "criterion", "plans",
    "planning", "schedule", "surgery", "legcnet", "costs", "inference", "archive", "api", "analysis", "theorems", "speech",
    "tabular", "kept", "sources", "data", "runs", "report", "studies", "cli", "__main__",
)  # fmt: skip


def imported(file: Path) -> set[str]:
    """Top-level parts of jali that a file imports, late imports included."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import hides its layer"
            names = [f"jali.{alias.name}" for alias in node.names] if node.module == "jali" else [node.module or ""]
        found |= {name.split(".")[1] for name in names if name.startswith("jali.")}
    return found


def test_imports_go_down_only():
    wrong = []
    files = [file for file in ROOT.rglob("*.py") if file != ROOT / "__init__.py"]
    assert len(files) > 40
    for file in files:
        own = file.relative_to(ROOT).parts[0].removesuffix(".py")
        above = [name for name in imported(file) if LAYERS.index(name) > LAYERS.index(own)]
        wrong += [f"{file.relative_to(ROOT)} imports jali.{name}" for name in above]
    assert wrong == []


def test_the_mathematics_knows_no_torch():
    for file in (ROOT / "maths").glob("*.py"):
        assert "import torch" not in file.read_text(encoding="utf-8"), file.name
        assert imported(file) <= {"errors", "plain", "jit", "maths"}, file.name
    assert "torch" not in (ROOT / "plain.py").read_text(encoding="utf-8")
