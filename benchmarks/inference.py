"""Pruned LSTM layers against dense ones: PyTorch, ONNX Runtime and OpenVINO, in one run.

Run with ``make bench``, or ``python -m benchmarks.inference [--quick] [--only KEY=VALUE,…]``. At every size (hidden, batch,
threads) all contestants take turns, round after round, so that whatever else the machine does meets them alike; the
medians are compared. Stop it whenever you like: rows that this commit has measured are kept and skipped next time.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import jali
from benchmarks import ROOT, environment, write_json
from benchmarks.inference_cases import STEPS, Pruned, Size, grid, network, prune
from benchmarks.inference_limits import Machine, measure_machine
from jali.errors import JaliError
from jali.runs.record import versions
from jali.studies.peers import DENSE, Contestant, interleaved, max_error, peers, quartiles, torch_call
from jali.studies.variants import Variant

PACKAGES = ("jali", "torch", "onnxruntime", "openvino", "numpy", "numba")
ROUNDS = (7, 300)  # at least, at most
SECONDS = 20.0  # for the rounds of one size, but for the least number of them

Row = dict[str, Any]


def measure(size: Size, variants: Sequence[Variant], machine: Machine) -> list[Row]:
    """The rows of one size; what cannot be built gives a row with its error."""
    torch.set_num_threads(size.threads)
    torch.manual_seed(0)
    x = torch.randn(STEPS, size.batch, size.inputs)
    model = network(size.hidden, size.inputs)
    others = peers(model.rnn, x, size.threads)
    ours, rows = [], []
    for variant in variants:
        try:
            ours.append((*_fast(pruned := prune(model, variant, x), x), pruned))
        except JaliError as error:
            rows.append({**_key(size, variant), "error": f"{type(error).__name__}: {error}"})
    times = interleaved([*others, *(contestant for contestant, *_ in ours)], SECONDS, ROUNDS)
    dense = {each.name: quartiles(times[each.name]) for each in others}
    errors = {each.name: each.error for each in others}
    for contestant, explained, pruned in ours:
        own = {**quartiles(times[contestant.name]), "error": contestant.error, "explained": explained}
        limits = _limits(pruned, size, machine)
        rows.append({**_key(size, pruned.variant), "jali": own, "peers": dense, "peer_errors": errors, **limits})
    return rows


def _fast(pruned: Pruned, x: torch.Tensor) -> tuple[Contestant, str]:
    fast = jali.accelerate(pruned.layer, x)
    call = torch_call(fast, x)
    want = torch_call(pruned.reference, x)()[..., pruned.kept]
    name = f"jali {pruned.variant.pattern} {pruned.variant.sparsity:g}"
    return Contestant(name, call, max_error(call(), want)), str(fast)


def _limits(pruned: Pruned, size: Size, machine: Machine) -> Row:
    """Bytes moved, and how fast the machine could be at best if reading or computing were all."""
    reading = machine.read_seconds(pruned.recurrent_bytes, STEPS) + machine.read_seconds(pruned.input_bytes, 1)
    computing = 2 * pruned.multiply_adds * size.batch * STEPS / machine.flops
    return {
        "removed": pruned.removed,
        "bytes_per_step": pruned.recurrent_bytes,
        "input_bytes": pruned.input_bytes,
        "bandwidth_limit": reading,
        "flop_limit": computing,
    }


def best_peer(row: Row) -> tuple[str, float]:
    """Name and median seconds of the fastest dense float32 peer."""
    return min(((name, row["peers"][name]["median"]) for name in DENSE), key=lambda pair: pair[1])


# --- rows on disk -----------------------------------------------------------------------------------------------------


def _key(size: Size, variant: Variant) -> Row:
    return {**asdict(size), "family": variant.family, "sparsity": variant.sparsity, "pattern": variant.pattern}


def _identity(row: Row) -> str:
    return json.dumps([row[name] for name in ("hidden", "inputs", "batch", "threads", "family", "sparsity")])


def read_rows(path: Path) -> dict[str, Row]:
    """The last whole row of each identity; a line torn by an interruption is measured again."""
    rows: dict[str, Row] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        rows[_identity(row)] = row
    return rows


def append_rows(path: Path, rows: Sequence[Row], commit: str | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torn = path.exists() and not path.read_bytes().endswith(b"\n")
    with path.open("a", encoding="utf-8") as file:
        file.write("\n" if torn else "")
        file.writelines(json.dumps({**row, "git": commit}) + "\n" for row in rows)


def write_results(path: Path, machines: Sequence[Machine]) -> list[Row]:
    """``path`` with all rows and what they depend on, and the plot beside it."""
    from benchmarks.inference_plot import plot

    rows = [row for row in read_rows(_lines(path)).values() if "error" not in row]
    about = {**environment(*PACKAGES), "cpu": versions()["cpu"], "steps": STEPS}
    limits = {str(limit["threads"]): limit for limit in _old_limits(path)} | {
        str(m.threads): asdict(m) for m in machines
    }
    content = {**about, "unit": "seconds", "limits": list(limits.values()), "rows": rows}
    write_json(path, content)
    if rows:
        plot(rows, path.with_suffix(".png"))
    return rows


def _old_limits(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))["limits"] if path.exists() else []


def _lines(path: Path) -> Path:
    return path.with_suffix(".jsonl")


# --- the run ----------------------------------------------------------------------------------------------------------


def run(out: Path, quick: bool, only: dict[str, set[str]]) -> None:
    """Measure what ``out`` lacks, size by size, and write it; Ctrl-C keeps every size that was finished."""
    commit, sizes = environment()["git"], _chosen(grid(quick), only)
    machines: dict[int, Machine] = {}
    try:
        for number, (size, variants) in enumerate(sizes, 1):
            known = {key for key, row in read_rows(_lines(out)).items() if row["git"] == commit and "error" not in row}
            missing = [v for v in variants if _identity(_key(size, v)) not in known]
            print(f"[{number}/{len(sizes)}] {size}: {len(missing)} of {len(variants)} rows to measure", flush=True)
            if not missing:
                continue
            if size.threads not in machines:
                torch.set_num_threads(size.threads)
                machines[size.threads] = measure_machine(size.threads)
            rows = measure(size, missing, machines[size.threads])
            append_rows(_lines(out), rows, commit)
            for row in rows:
                print(shown(row), flush=True)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here")
    write_results(out, list(machines.values()))
    print(f"written to {out}")


def shown(row: Row) -> str:
    """One line of a row."""
    what = f"  {row['pattern']:<18} {row['sparsity']:>5.0%}"
    if "error" in row:
        return f"{what}  {row['error']}"
    name, dense = best_peer(row)
    own = row["jali"]
    limit = max(row["bandwidth_limit"], row["flop_limit"])
    return (
        f"{what} {1e6 * own['median']:>10.0f} us {dense / own['median']:>6.1f}x {name} ({1e6 * dense:.0f} us)"
        f"  limit {1e6 * limit:.0f} us  error {own['error']:.0e}"
    )


def _chosen(sizes: list[tuple[Size, list[Variant]]], only: dict[str, set[str]]) -> list[tuple[Size, list[Variant]]]:
    """The part of the grid whose fields have one of the wanted values."""

    def fits(value: object) -> bool:
        fields = {**asdict(value), **({"pattern": value.pattern} if isinstance(value, Variant) else {})}  # type: ignore
        return all(str(fields[name]) in wanted for name, wanted in only.items() if name in fields)

    parts = [(size, [variant for variant in variants if fits(variant)]) for size, variants in sizes if fits(size)]
    return [(size, variants) for size, variants in parts if variants]


FILTERS = ("hidden", "inputs", "batch", "threads", "family", "pattern", "sparsity")


def _filters(texts: Sequence[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for text in texts:
        name, _, values = text.partition("=")
        if name not in FILTERS or not values:
            raise SystemExit(f"--only {text!r} is not KEY=VALUE[,VALUE] with KEY one of {', '.join(FILTERS)}")
        found[name] = set(values.split(","))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two widths, two batches, one sparsity, one thread")
    parser.add_argument(
        "--only", action="append", default=[], metavar="KEY=VALUE,…", help=f"keys: {', '.join(FILTERS)}"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "inference.json")
    chosen = parser.parse_args(arguments)
    run(chosen.out, chosen.quick, _filters(chosen.only))


if __name__ == "__main__":
    main()
