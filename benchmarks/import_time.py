"""Import time of jali beyond torch's: pairs of fresh interpreters, one after the other, that differ in one import."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from typing import Any

from benchmarks import ROOT

WITHOUT = "import torch"
WITH = {
    "import jali": "import torch, jali",
    "import jali, and every public name": "import torch, jali; [getattr(jali, name) for name in jali.__all__]",
}
LIMIT = 0.5  # seconds, of the first


def import_times(pairs: int = 9) -> list[dict[str, Any]]:
    """Per statement the median of the differences, in seconds, and their spread."""
    results = []
    for name, code in WITH.items():
        _seconds(WITHOUT), _seconds(code)  # compiles to bytecode, fills the cache of the disk
        differences = [-_seconds(WITHOUT) + _seconds(code) for _ in range(pairs)]
        results.append(
            {"statement": name, "pairs": pairs, "median": statistics.median(differences), "differences": differences}
        )
    return results


def _seconds(code: str) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)  # noqa: S603  (fixed code)
    return time.perf_counter() - begin
