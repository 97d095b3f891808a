"""Order and lattice algorithms against plain Python sets, the ``concepts`` library and numpy.

Run with ``python -m benchmarks.maths``. One thread; each time is the fastest of several calls after a first one that
compiles or loads the kernel; both sides start from the same boolean or real matrix and must agree. The same run measures
the difference of masked and compacted networks, and the import time.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import concepts as library  # noqa: E402  (threads are set before numpy loads)
import numpy as np  # noqa: E402

from benchmarks import best_seconds, environment, write_json  # noqa: E402
from benchmarks.agreement import agreement, combinations  # noqa: E402
from benchmarks.import_time import import_times  # noqa: E402
from benchmarks.readme import MATHS, contracts, speeds  # noqa: E402
from benchmarks.spectrum import spectrum_time  # noqa: E402
from jali.maths.concepts import enumerate_concepts  # noqa: E402
from jali.maths.context import irreducible_columns  # noqa: E402
from jali.maths.graded import graded_irreducibility  # noqa: E402
from jali.maths.persistence import filtration, logit_grid, strongest  # noqa: E402
from jali.maths.spectral import expansion  # noqa: E402
from jali.report.tables import markdown  # noqa: E402


@dataclass(frozen=True)
class Row:
    task: str
    peer: str
    seconds: float
    peer_seconds: float
    ratio: float


def irreducible_by_sets(incidence: np.ndarray) -> np.ndarray:
    """The definition on Python sets; ``<`` on sets compares sizes first and leaves at the first miss."""
    columns = [set(np.flatnonzero(column).tolist()) for column in incidence.T]
    everything = set(range(incidence.shape[0]))
    verdicts = []
    for column in columns:
        meet = everything
        for other in columns:
            if column < other:
                meet = meet & other
        verdicts.append(meet != column)
    return np.array(verdicts)


def library_context(incidence: np.ndarray) -> library.Context:
    objects, properties = ([f"{kind}{i}" for i in range(n)] for kind, n in zip("op", incidence.shape, strict=True))
    return library.Context(objects, properties, [tuple(row) for row in incidence.tolist()])


def graded_by_numpy(weights: np.ndarray) -> np.ndarray:
    """Łukasiewicz degrees by whole-array operations, one column at a time."""
    a = weights / weights.max()
    degrees = []
    for j in range(a.shape[1]):
        others = np.delete(a, j, axis=1)
        contains = np.minimum(1, 1 - a[:, j, None] + others).min(axis=0)
        meet = np.minimum(1, 1 - contains + others).min(axis=1)
        degrees.append((meet - a[:, j]).max())
    return np.array(degrees)


def measure(task: str, peer: str, ours: Callable[[], Any], theirs: Callable[[], Any], repeats: tuple[int, int]) -> Row:
    ours()  # compiles, or loads from the cache on disk
    seconds, peer_seconds = best_seconds(ours, repeats[0]), best_seconds(theirs, repeats[1])
    return Row(task, peer, seconds, peer_seconds, peer_seconds / seconds)


def irreducibles(rng: np.random.Generator) -> Row:
    context = rng.random((1024, 1024)) < 0.05
    assert (irreducible_columns(context) == irreducible_by_sets(context)).all()
    return measure(
        "irreducible columns, 1024 x 1024, density 0.05",
        "Python sets",
        lambda: irreducible_columns(context),
        lambda: irreducible_by_sets(context),
        (200, 5),
    )


def all_concepts(rng: np.random.Generator) -> list[Row]:
    """The library has one algorithm, neighbours, which finds covers too; it runs in the faster of both orientations."""
    incidence = rng.random((60, 30)) < 0.5
    context, turned = library_context(incidence), library_context(incidence.T)
    lattice = enumerate_concepts(incidence)
    found = {(e.tobytes(), i.tobytes()) for e, i in zip(lattice.extents, lattice.intents, strict=True)}
    theirs = {
        (np.array(extent.bools()).tobytes(), np.array(intent.bools()).tobytes())
        for extent, intent, *_ in context._lattice()
    }
    assert found == theirs
    upright = best_seconds(lambda: list(context._lattice()), 1)
    peer = turned if best_seconds(lambda: list(turned._lattice()), 1) < upright else context
    task = f"all {len(lattice)} concepts, 60 x 30, density 0.5"
    return [
        measure(task, "concepts", lambda: enumerate_concepts(incidence), lambda: list(peer._lattice()), (20, 2)),
        measure(
            task + ", with covers",
            "concepts",
            lambda: enumerate_concepts(incidence).covers(),
            lambda: list(peer._lattice()),
            (10, 2),
        ),
    ]


def filtrations(rng: np.random.Generator) -> list[Row]:
    rows = []
    for n, levels, repeats in ((128, 256, (10, 1)), (512, 16, (5, 1))):
        weights = np.exp(0.5 * rng.normal(size=(n, n)) + 0.3 * rng.normal(size=n))
        grid = logit_grid(n, n, levels)

        def by_sets(weights: np.ndarray = weights, grid: np.ndarray = grid) -> tuple[np.ndarray, np.ndarray]:
            contexts = [strongest(weights, p) for p in grid]
            columns = np.array([irreducible_by_sets(c) for c in contexts])
            return columns, np.array([irreducible_by_sets(c.T) for c in contexts])

        def ours(weights: np.ndarray = weights, grid: np.ndarray = grid) -> Any:
            return filtration(weights, grid)

        rows.append(measure(f"filtration, {n} x {n}, {levels} levels", "Python sets", ours, by_sets, repeats))
    return rows


def graded(rng: np.random.Generator) -> Row:
    weights = rng.random((256, 256))
    np.testing.assert_allclose(graded_irreducibility(weights).degree, graded_by_numpy(weights), atol=1e-12)
    return measure(
        "graded (Lukasiewicz), 256 x 256",
        "numpy",
        lambda: graded_irreducibility(weights),
        lambda: graded_by_numpy(weights),
        (10, 3),
    )


def bounds(rng: np.random.Generator) -> list[Row]:
    """Δ of a sparse block beside numpy's full decomposition, and its singular values alone; all read the same CSR matrix."""
    from scipy.sparse import random_array

    block = random_array((4096, 1024), density=0.1, format="csr", rng=rng)

    def graph() -> np.ndarray:
        return (block.toarray() != 0).astype(np.float64)

    def full() -> np.ndarray:
        return np.linalg.svd(graph(), full_matrices=False)[1]

    def values() -> np.ndarray:
        return np.linalg.svd(graph(), compute_uv=False)

    found = expansion(block)
    np.testing.assert_allclose((found.lambda1, found.lambda2), values()[:2], rtol=1e-6)
    task = "spectral bounds, 4096 x 1024, density 0.1"
    return [
        measure(task, peer, lambda: expansion(block), other, (10, 2))
        for peer, other in (("numpy, full SVD", full), ("numpy, all singular values", values))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=MATHS)
    arguments = parser.parse_args()
    where = environment("jali", "torch", "numpy", "numba", "concepts")  # before the file below changes the tree
    times = import_times()
    rng = np.random.default_rng(0)
    rows = [irreducibles(rng), *all_concepts(rng), *filtrations(rng), graded(rng), *bounds(rng)]
    content = {
        **where,
        "rows": [asdict(row) for row in rows],
        "agreement": agreement(combinations()),
        "import": times,
        "spectrum": spectrum_time(),
    }
    print(markdown(speeds(content)), markdown(contracts(content)), sep="\n")
    write_json(arguments.out, content)
    print(f"written to {arguments.out}; python -m benchmarks.readme puts the tables into the README")


if __name__ == "__main__":
    main()
