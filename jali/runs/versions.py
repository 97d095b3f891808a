"""What a result may depend on besides its settings: software, the commit of jali's own source, platform, processor."""

from __future__ import annotations

import functools
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent


def versions(*packages: str) -> dict[str, str]:
    """Versions by name, of jali, torch, numpy and other ``packages``.

    ``jali commit`` is there when jali runs from a git work tree, and says whether its files differ from the commit.
    """
    found = {"python": platform.python_version(), "platform": platform.platform(), "cpu": _cpu()}
    for package in ("jali", "torch", "numpy", *packages):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    # The metadata of some builds omits the local part ("+cpu"), the module knows it.
    if "torch" in sys.modules:
        found["torch"] = str(sys.modules["torch"].__version__)
    commit = source_commit(PACKAGE)
    return found if commit is None else {**found, "jali commit": commit}


@functools.cache  # what runs was imported once; records of one process name one commit
def source_commit(folder: Path) -> str | None:
    """The commit that ``folder`` is checked out from, with "+ changes" where its files differ from it.

    None where git does not know the folder's files: an installed package may lie inside somebody else's work tree.
    """
    if not _git(folder, "ls-files", "--", "__init__.py"):
        return None
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return None
    return f"{commit} + changes" if _git(folder, "status", "--porcelain", "--", ".") else commit


def _git(folder: Path, *arguments: str) -> str | None:
    """Output of git; None without git, outside a work tree, or in one that git does not trust."""
    try:
        done = subprocess.run(  # noqa: S603  (fixed arguments)
            ["git", "-C", str(folder), *arguments],  # noqa: S607
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
