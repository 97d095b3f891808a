"""Cold start: a fresh process loads an accelerated layer and calls it for the first time; its kernels are in numba's cache.

Run with ``python -m benchmarks.cold_start``. Two readings: with everything imported before (torch, jali and what numba imports
when it first loads a kernel), and with torch and jali imported only, so that numba's start is part of it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

import jali
from benchmarks import ROOT, environment, write_json

RESULT = ROOT / "benchmarks" / "results" / "cold_start.json"
HIDDEN, STEPS, SPARSITY, PATTERNS, PROCESSES = 512, 100, 0.9, ("block:16x1", "weight"), 3
LIMIT = 0.5  # seconds, everything imported
IMPORTS = {
    "all": (
        "import jali.inference.direction\n"
        "from numba.core.registry import cpu_target\n"
        "cpu_target.target_context.refresh()\n"  # numba's own implementations, which it imports with the first kernel
    ),
    "torch and jali": "",
}
SCRIPT = """
import sys, time
import torch
import jali
{imports}
x = torch.randn({steps}, 1, {hidden})
begin = time.perf_counter()
model = jali.load(sys.argv[1])
with torch.inference_mode():
    model(x)
print(time.perf_counter() - begin)
"""


def cold_starts(processes: int = PROCESSES) -> list[dict[str, Any]]:
    """Per pattern and kind of imports: the seconds of each process, and their median."""
    rows = []
    x = torch.randn(STEPS, 1, HIDDEN)
    for pattern in PATTERNS:
        layer = nn.LSTM(HIDDEN, HIDDEN).eval()
        sparse = jali.mask(layer, jali.plan(layer, "magnitude", SPARSITY, pattern=pattern))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.safetensors"
            jali.save(jali.accelerate(sparse, x, engine="kernels"), path, example_inputs=x)
            for name, imports in IMPORTS.items():
                code = SCRIPT.format(imports=imports, steps=STEPS, hidden=HIDDEN)
                seconds = [_seconds(code, path) for _ in range(processes + 1)][1:]  # the first one fills the caches
                rows.append(
                    {"pattern": pattern, "imported": name, "median": statistics.median(seconds), "seconds": seconds}
                )
    return rows


def _seconds(code: str, path: Path) -> float:
    command = [sys.executable, "-c", code, str(path)]
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, cwd=ROOT, env=environ, capture_output=True, text=True)  # noqa: S603  (fixed code)
    return float(done.stdout)


def main() -> None:
    where = environment("jali", "torch", "numpy", "numba")  # before the file below changes the tree
    torch.manual_seed(0)
    torch.set_num_threads(1)
    sizes = {"hidden": HIDDEN, "steps": STEPS, "sparsity": SPARSITY, "processes": PROCESSES, "limit": LIMIT}
    content = {**where, **sizes, "rows": cold_starts()}
    write_json(RESULT, content)
    print(json.dumps(content["rows"], indent=1))


if __name__ == "__main__":
    main()
