"""A compacted LSTM layer beside the dense one on a GPU, both on cuDNN: what removed units save there.

Run with ``python -m benchmarks.gpu [--device cuda]``. At every size (hidden, batch) the dense layer and the layers that keep a
half and a quarter of the units take turns, round after round; medians of the time between two synchronisations are compared.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import jali
from benchmarks import ROOT, environment, write_json
from benchmarks.inference_cases import KEPT, STEPS, Network, network
from jali.studies.peers import Contestant, interleaved, max_error, quartiles, torch_call
from jali.surgery.compact import operate

HIDDEN, BATCH = (256, 512, 1024, 2048), (1, 64, 256)
ROUNDS = (7, 300)  # at least, at most
SECONDS = 10.0  # for the rounds of one size, but for the least number of them

Row = dict[str, Any]


def waiting(module: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    """A call of ``module`` that returns when the device has finished it."""
    call = torch_call(module, x)

    def finished() -> Tensor:
        out: Tensor = call()
        if x.is_cuda:
            torch.cuda.synchronize(x.device)
        return out

    return finished


def compacted(model: Network, kept: float, x: Tensor) -> tuple[nn.Module, nn.Module, np.ndarray]:
    """(compacted layer, masked layer, the units that are left), with the units of the largest weights."""
    plan = jali.plan(model, "magnitude", 1 - kept)
    surgery = operate(model, plan, x)
    return surgery.compact.get_submodule("rnn"), jali.mask(model, plan).rnn, surgery.keep[plan.sites[0].name]


def measure(hidden: int, batch: int, device: str) -> Row:
    """One size: the dense layer, and each compacted one with its largest difference from the masked layer."""
    model = network(hidden).to(device)
    x = torch.randn(STEPS, batch, hidden, generator=torch.Generator().manual_seed(0)).to(device)
    runs = [Contestant("dense", waiting(model.rnn, x), 0.0)]
    for kept in KEPT:
        small, masked, units = compacted(model, kept, x)
        call = waiting(small, x)
        want = waiting(masked, x)()[..., torch.from_numpy(units).to(device)]
        runs.append(Contestant(f"kept {kept:g}", call, max_error(call().cpu(), want.cpu())))
    times = interleaved(runs, SECONDS, ROUNDS)
    row: Row = {"hidden": hidden, "batch": batch}
    return row | {one.name: {**quartiles(times[one.name]), "error": one.error} for one in runs}


def shown(row: Row) -> str:
    """One line of a row."""
    dense = row["dense"]["median"]
    each = [f"{name} {dense / row[name]['median']:.2f}x" for name in row if name.startswith("kept")]
    worst = max(row[name]["error"] for name in row if name.startswith("kept"))
    return (
        f"H={row['hidden']:<5} B={row['batch']:<4} dense {1e6 * dense:>9,.0f} us  {'  '.join(each)}  error {worst:.0e}"
    )


def run(out: Path, device: str, hidden: Sequence[int], batches: Sequence[int]) -> list[Row]:
    """Measure every size and write it; SystemExit where PyTorch has no such device."""
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SystemExit(
            f"PyTorch cannot use device {device!r} here ({error}); run this where there is a GPU"
        ) from error
    on_gpu = torch.device(device).type == "cuda"
    about = {
        **environment("jali", "torch", "numpy"),
        "device": torch.cuda.get_device_name(device) if on_gpu else device,
        "cudnn": torch.backends.cudnn.version() if on_gpu else None,
        "tf32": torch.backends.cudnn.allow_tf32 if on_gpu else None,
        "steps": STEPS,
        "unit": "seconds",
    }
    rows: list[Row] = []
    for width, batch in product(hidden, batches):
        rows.append(measure(width, batch, device))
        write_json(out, {**about, "rows": rows})
        print(shown(rows[-1]), flush=True)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="of PyTorch")
    parser.add_argument("--hidden", type=int, nargs="+", default=HIDDEN)
    parser.add_argument("--batch", type=int, nargs="+", default=BATCH)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "gpu.json")
    chosen = parser.parse_args(arguments)
    run(chosen.out, chosen.device, chosen.hidden, chosen.batch)


if __name__ == "__main__":
    main()
