"""Kernels on disk: processes that compile at once, and files that were cut short, change nothing but the time."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import logging
import torch
from torch import nn
import jali

logging.basicConfig(format="%(message)s")
torch.manual_seed(0)
layer, x = nn.RNN(3, 4).eval(), torch.randn(5, 1, 3)
fast = jali.accelerate(layer, x, engine="kernels")
assert float((fast(x)[0] - layer(x)[0]).abs().max()) < 1e-6
"""


def start(folder: Path) -> subprocess.Popen[str]:
    env = {**os.environ, "NUMBA_CACHE_DIR": str(folder), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", SCRIPT], env=env, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> str:
    _, message = process.communicate(timeout=300)
    assert process.returncode == 0, message
    return message


def test_processes_compile_at_once_and_damaged_files_are_passed_over(tmp_path):
    first, second = start(tmp_path), start(tmp_path)
    assert "compiled anew" not in finish(first) + finish(second)
    code, index = (sorted(tmp_path.rglob(f"*.{kind}")) for kind in ("nbc", "nbi"))
    assert code
    assert index
    for files in (code, index):
        whole = [file.read_bytes() for file in files]
        for file in files:
            file.write_bytes(file.read_bytes()[:40])
        assert "compiled anew in every process" in finish(start(tmp_path))
        for file, content in zip(files, whole, strict=True):
            file.write_bytes(content)
    assert "compiled anew" not in finish(start(tmp_path))
