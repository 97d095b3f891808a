"""Granger tests and exponents of series against statsmodels and nolds, and on systems whose exponents are known.

Run with ``python -m benchmarks.series``. CPU time on one thread. The peers take one series at a time, so they are timed on a
sample and given per series. Both take turns in one run; the fastest turn of each counts, after a first call that compiles.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)  # nolds

import nolds  # noqa: E402  (threads are set before numpy loads)
import numpy as np  # noqa: E402
from statsmodels.tsa.stattools import adfuller, grangercausalitytests  # noqa: E402
from statsmodels.tsa.vector_ar.var_model import VAR  # noqa: E402

from benchmarks import environment, write_json  # noqa: E402
from benchmarks.readme import SERIES, exponents, series  # noqa: E402
from benchmarks.systems import KNOWN, Floats, henon, logistic, lorenz  # noqa: E402
from jali.maths.granger import granger  # noqa: E402
from jali.maths.series_exponents import direct, rosenstein  # noqa: E402
from jali.report.tables import markdown  # noqa: E402

COUNT, ROUNDS = 10_000, 5
LAGS, ALPHA = 4, 0.05


@dataclass(frozen=True)
class Row:
    """Microseconds per series; ``largest``: the largest difference from the peer on the sample, over the peer where relative."""

    task: str
    peer: str
    sample: int
    micros: float
    peer_micros: float
    ratio: float
    largest: float
    limit: float
    relative: bool


def measure(
    task: str,
    peer: str,
    ours: Callable[[], Floats],
    theirs: Callable[[int], float],
    sample: int,
    *,
    relative: bool,
    limit: float,
) -> Row:
    """``theirs`` is the peer's result of one series; each turn takes another part of the sample."""
    found = ours()
    mine, peers, wanted = [], [], []
    for turn in np.array_split(np.arange(sample), ROUNDS):
        begin = time.process_time()  # neither waits for anything, and both run on one thread
        ours()
        middle = time.process_time()
        wanted += [theirs(int(index)) for index in turn]
        peers.append((time.process_time() - middle) / len(turn))
        mine.append((middle - begin) / len(found))
    differences = np.abs(found[:sample] - wanted) / (np.abs(wanted) if relative else 1)
    np.testing.assert_array_equal(np.isnan(found[:sample]), np.isnan(wanted))
    micros, peer_micros, largest = 1e6 * min(mine), 1e6 * min(peers), float(np.nanmax(differences))
    return Row(task, peer, sample, micros, peer_micros, peer_micros / micros, largest, limit, relative)


def pairs(length: int) -> tuple[Floats, Floats]:
    """Causes and effects: noise, autoregressions and random walks, a third each; every second pair coupled."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, COUNT, length))
    memory, coupling = np.resize([0, 0.6, 1], COUNT), np.resize([0, 0.3], COUNT)
    for t in range(1, length):
        x[:, t] += memory * x[:, t - 1]
        y[:, t] += memory * y[:, t - 1] + coupling * x[:, t - 1]
    return x, y


def f_test(x: Floats, y: Floats, lag: int) -> float:
    return grangercausalitytests(np.column_stack((y, x)), [lag])[lag][0]["ssr_ftest"][1]


def whole_test(x: Floats, y: Floats) -> float:
    """All that ``granger`` does by default: both series differenced until they pass, the lag by AIC, the F test."""
    orders = [next((d for d in range(3) if adfuller(np.diff(z, d))[1] < ALPHA), None) for z in (x, y)]
    if None in orders:
        return float("nan")
    x, y = (np.diff(z, max(orders)) for z in (x, y))
    model = VAR(np.column_stack((y, x)))
    return f_test(x, y, 1 + int(np.argmin(model.select_order(LAGS).ics["aic"][1:])))


def causes(sample: int) -> list[Row]:
    warnings.simplefilter("ignore", FutureWarning)  # of adfuller, about the type of its result
    x, y = pairs(60)
    task = f"{COUNT:,} series of 60"
    return [
        measure(
            f"Granger F test, lag 2, {task}", "statsmodels",
            lambda: granger(x, y, max_lag=2, select=None, difference=0).p, lambda s: f_test(x[s], y[s], 2),
            sample, relative=False, limit=1e-8,
        ),
        measure(
            f"the same with unit roots, differences and a lag up to {LAGS} by AIC, {task}", "statsmodels",
            lambda: granger(x, y, max_lag=LAGS, alpha=ALPHA).p, lambda s: whole_test(x[s], y[s]),
            sample // 4, relative=False, limit=1e-8,
        ),
    ]  # fmt: skip


def exponents_of_windows(sample: int) -> list[Row]:
    windows = logistic(np.random.default_rng(0).uniform(0.1, 0.9, COUNT), 300, 3.9)[:, 100:]
    rows = []
    for dimension, theiler, steps in ((3, 1, 10), (10, 10, 19)):
        sizes = {"emb_dim": dimension, "lag": 1, "min_tsep": theiler, "trajectory_len": steps + 1, "fit": "poly"}

        def ours(dimension: int = dimension, theiler: int = theiler, steps: int = steps) -> Floats:
            return rosenstein(windows, dimension, 1, theiler, steps)

        def theirs(index: int, sizes: dict[str, Any] = sizes) -> float:
            return nolds.lyap_r(windows[index], **sizes)

        task = f"Rosenstein exponent, dimension {dimension}, {steps} steps, {COUNT:,} windows of 200"
        rows.append(measure(task, "nolds", ours, theirs, sample, relative=True, limit=0.05))
    return rows


def known() -> list[dict[str, Any]]:
    """Each system by both methods: twins moved by 1e-10, and one long series."""
    rng, moved = np.random.default_rng(0), 1e-10
    found = {}

    start = rng.beta(0.5, 0.5, 20_000)  # the invariant density
    twins = logistic(start + moved, 15) - logistic(start, 15)
    found["logistic map"] = direct(twins, moved).mean(), rosenstein(logistic(np.array([0.3]), 3000), 2, steps=6)[0]

    x, y = rng.uniform(-0.1, 0.1, (2, 20_000))
    twins = henon(x + moved, y, 40) - henon(x, y, 40)  # the first 10 turn the difference into the direction that grows
    one = henon(*np.full((2, 1), 0.1), 5000)[:, 100:]
    found["Hénon map"] = direct(twins[:, 10:], twins[:, 9]).mean(), rosenstein(one, 2, steps=8)[0]

    start = rng.normal((0, 0, 25), 1, size=(1000, 3)).T
    other = start.copy()
    other[0] += moved
    twins = lorenz(other, 1500, 0.01) - lorenz(start, 1500, 0.01)
    one = lorenz(np.array([[1.0], [1], [20]]), 20_400, 0.025)[:, 400::2]
    slope = rosenstein(one, 3, delay=2, theiler=20, steps=50, skip=10)[0] / 0.05
    found["Lorenz flow"] = direct(twins[:, 300:], twins[:, 299]).mean() / 0.01, slope
    return [
        {"system": system, "known": KNOWN[system], "direct": float(a), "rosenstein": float(b)} for system, (a, b) in found.items()
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=SERIES)
    parser.add_argument("--sample", type=int, default=400, help="series that a peer is timed on")
    arguments = parser.parse_args()
    where = environment("jali", "numpy", "numba", "scipy", "statsmodels", "nolds")
    rows = [*causes(arguments.sample), *exponents_of_windows(arguments.sample)]
    content = {**where, "rounds": ROUNDS, "rows": [asdict(row) for row in rows], "known": known()}
    print(markdown(series(content)), markdown(exponents(content)), sep="\n")
    write_json(arguments.out, content)
    print(f"written to {arguments.out}; python -m benchmarks.readme puts the tables into docs/dynamics.md")


if __name__ == "__main__":
    main()
