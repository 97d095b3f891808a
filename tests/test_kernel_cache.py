"""Kernels on disk: processes that compile at once, files that were cut short, other processors and other sources."""

import ast
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jali.inference import vector

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


PATTERNS = """
import torch
from torch import nn
import jali
from jali.inference.vector import default_width

torch.manual_seed(0)
for cell in (nn.LSTM, nn.GRU):
    layer = cell(21, 37).eval()
    for pattern in ("weight", "gate-aligned", "block:16x1"):
        sparse = jali.mask(layer, jali.plan(layer, "magnitude", 0.8, pattern=pattern))
        for batch in (1, 20):
            x = torch.randn(5, batch, 21)
            got = jali.accelerate(sparse, x, engine="kernels")(x)[0]
            assert float((got - sparse(x)[0]).abs().max()) < 1e-6
print(default_width())
"""


@pytest.mark.parametrize(("name", "features", "width"), [("generic", "", 4), ("haswell", "+avx2,+fma", 8)])
def test_processors_with_narrower_vectors_compute_the_same(name, features, width, tmp_path):
    if width == 8 and not vector.cpu_has("avx2"):
        pytest.skip("this processor has no AVX2")
    env = {
        "NUMBA_CPU_NAME": name,
        "NUMBA_CPU_FEATURES": features,
        "NUMBA_CACHE_DIR": str(tmp_path),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", PATTERNS],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(width)]


def test_kernels_of_other_sources_are_other_kernels(tmp_path, monkeypatch):
    """The digest in a kernel's signature covers every module of ours that compiled code comes from."""
    folder = Path(vector.__file__).parent
    whole = hashlib.sha256(b"".join((folder / name).read_bytes() for name in vector._SOURCES)).hexdigest()
    assert vector.sources_digest() == whole[:12]
    assert vector.sources_digest() in str(vector.width_type(16))
    needed, waiting = set(), ["by_unit", "by_sequence", "products", "cells", "transposition"]
    while waiting:
        module = waiting.pop()
        if module not in needed:
            needed.add(module)
            nodes = ast.walk(ast.parse((folder / f"{module}.py").read_text()))
            imports = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
            waiting += [name.rpartition(".")[2] for name in imports if name.startswith("jali.inference.")]
    assert {f"{module}.py" for module in needed} <= {*vector._SOURCES, "schedule.py"}, "schedule makes tables, not code"


NOWHERE = """
import logging
from numba.core import caching

caching.CacheImpl._locator_classes = []  # as where neither the package nor the home can be written
logging.basicConfig(format="%(message)s")
import torch
import jali

torch.manual_seed(0)
layer = torch.nn.GRU(3, 8).eval()
print(len(jali.criteria()), jali.plan(layer, "lattice", 0.5).sites[0].removed)
"""


def test_without_a_folder_for_the_cache_functions_are_compiled_anew_and_it_says_so():
    done = subprocess.run([sys.executable, "-c", NOWHERE], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("compiled anew in every process") == 1
    assert "set NUMBA_CACHE_DIR to a new folder" in done.stderr
    normal = subprocess.run(
        [sys.executable, "-c", NOWHERE.replace("caching.CacheImpl", "#")], capture_output=True, text=True, check=True
    )
    assert done.stdout == normal.stdout
    assert not normal.stderr
