"""Benchmarks: each module prints ratios against a named peer in one run and writes them as JSON."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jali.runs.versions import versions

ROOT = Path(__file__).resolve().parent.parent


def best_seconds(call: Callable[[], Any], repeats: int) -> float:
    """Wall time of the fastest of ``repeats`` calls; noise of a shared machine only ever adds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def environment(*packages: str) -> dict[str, Any]:
    """What a number depends on: versions, commit, processor count."""
    return {
        "git": _git("rev-parse", "HEAD"),
        "git_dirty": bool(_git("status", "--porcelain", "--", ".", ":!benchmarks/results")),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
        "machine": platform.machine(),
        "cpu": versions()["cpu"],
        "cpus": os.cpu_count(),
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _git(*arguments: str) -> str | None:
    """Output of git, None outside a checkout or without git."""
    try:
        done = subprocess.run(  # noqa: S603  (fixed arguments)
            ["git", "-C", str(ROOT), *arguments],  # noqa: S607
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
