"""Who of the LEGCNet studies is pruned how, and the trained networks, made once per folder."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jali.evidence import Trajectory
from jali.files import atomic_write
from jali.maths.granger import GrangerTests, granger
from jali.plain import parse_json
from jali.runs.record import canonical
from jali.runs.store import RecordStore
from jali.studies.base import Progress
from jali.studies.legcnet_networks import Bank, initial, widths
from jali.studies.legcnet_settings import PAPERS_OWN, P, Setting, setting_of
from jali.studies.legcnet_training import datasets, examples_of, recorded, until_converged


@dataclass(frozen=True, eq=False)
class Runs:
    """N trained networks of one data set. ``what`` (N,): which variant; ``seed`` (N,): an index into the config's seeds.

    ``bank``: at convergence; ``keep``: masks; ``epochs`` (N,): until then; ``p``: choice → (seeds, weights), NaN where a
    weight could not be tested; ``windows``: choice → how many each seed has; ``examples``: trained on; ``problems``: choice →
    why weights could not be tested → how many, of all seeds.
    """

    bank: Bank
    keep: tuple[Tensor, ...]
    epochs: tuple[int, ...]
    what: tuple[str, ...]
    seed: tuple[int, ...]
    p: dict[str, np.ndarray]
    windows: dict[str, list[int]]
    examples: int
    problems: dict[str, dict[str, int]]

    def where(self, what: str) -> list[int]:
        return [n for n, name in enumerate(self.what) if name == what]

    def kept(self, n: int) -> int:
        """Weights that network ``n`` has: the paper's FLOPs."""
        return sum(int(mask[n].sum()) for mask in self.keep)


# --- choosing -----------------------------------------------------------------------------------------------------------


def tested(seen: Trajectory, n: int, setting: Setting) -> GrangerTests:
    """The tests of all weights of network ``n``, layer after layer."""
    series = np.concatenate([values[:, n].reshape(len(seen), -1) for values in seen.exponents.values()], axis=1).T
    return granger(series, seen.performance[:, n], max_lag=setting.max_lag)


def chosen(p: np.ndarray, choice: str) -> np.ndarray:
    """Which weights stay; those that could not be tested do."""
    judged = np.isfinite(p)
    return ~judged | (np.nan_to_num(p) >= P if "causal go" in choice else np.nan_to_num(p) <= P)


def split(flat: np.ndarray, bank: Bank) -> list[np.ndarray]:
    """Values of all weights of one network as its layers."""
    sizes = np.cumsum([weight[0].numel() for weight in bank.weights])[:-1]
    return [part.reshape(weight.shape[1:]) for part, weight in zip(np.split(flat, sizes), bank.weights, strict=True)]


def matched(layers: Sequence[np.ndarray], scores: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Masks that keep as many weights of each layer as ``layers`` do, those of the highest scores."""
    out = []
    for mask, score in zip(layers, scores, strict=True):
        keep = np.zeros(mask.size, dtype=bool)
        keep[np.argsort(-score, axis=None, kind="stable")[: int(mask.sum())]] = True
        out.append(keep.reshape(mask.shape))
    return out


Masks = list[np.ndarray]


def candidates(
    p: dict[str, np.ndarray], n: int, seed: int, dense: Bank, setting: Setting
) -> Iterator[tuple[str, Masks]]:
    """Every pruned variant of network ``n`` and its masks: the choices, and random and magnitude at the same sparsities."""
    size = [np.abs(weight[n].detach().double().numpy()) for weight in dense.weights]
    draw = np.random.default_rng([seed, 5])
    plans = {choice: split(chosen(p[choice][n], choice), dense) for choice in setting.choices}
    for choice, layers in plans.items():
        yield choice, layers
        yield f"magnitude as {choice}", matched(layers, size)
        for _ in range(setting.draws):
            yield f"random as {choice}", matched(layers, [draw.random(each.shape) for each in size])
    for what, sparsity in PAPERS_OWN.items():
        layers = [np.arange(each.size).reshape(each.shape) >= round(sparsity * each.size) for each in size]
        yield what, matched(layers, size if "magnitude" in what else [draw.random(each.shape) for each in size])


# --- all of it ----------------------------------------------------------------------------------------------------------


def runs(config: dict[str, Any], workspace: RecordStore, progress: Progress) -> Runs:
    """The trained networks: those that an earlier study left in the folder, or made and left there."""
    key = hashlib.sha256(canonical(config).encode()).hexdigest()[:16]
    name = f"legcnet-{config['data']}-{key}"
    if (workspace.artifacts / f"{name}.safetensors").is_file() and (workspace.artifacts / f"{name}.json").is_file():
        tensors = workspace.read_tensors(f"{name}.safetensors")
        return _restored(tensors, parse_json((workspace.artifacts / f"{name}.json").read_text(encoding="utf-8")))
    made = _made(config, progress)
    tensors, plain = _saved(made)
    workspace.write_tensors(f"{name}.safetensors", tensors)
    atomic_write(workspace.artifacts / f"{name}.json", json.dumps(plain).encode())
    return made


def _made(config: dict[str, Any], progress: Progress) -> Runs:
    setting, seeds, sets = setting_of(config), config["seeds"], datasets(config)
    examples = examples_of(sets, seeds)
    start = initial(widths(sets[0], setting.hidden), seeds).to(getattr(torch, setting.dtype))
    dense, epochs = until_converged(start, examples, setting, None, progress)
    seen = recorded(start, examples, setting, max(epochs), progress)
    per_epoch = -(-examples.x.shape[1] // setting.descent.batch)
    p: dict[str, np.ndarray] = {}
    windows: dict[str, list[int]] = {}
    problems: dict[str, dict[str, int]] = {}
    for choice in setting.choices:
        early = "PT" in choice
        parts_seen = [seen.until(per_epoch * (min(setting.early, each) if early else each)) for each in epochs]
        tests = [tested(part, n, setting) for n, part in enumerate(parts_seen)]
        p[choice] = np.stack([test.p for test in tests])
        windows[choice] = [len(part) for part in parts_seen]
        problems[choice] = dict(Counter(word for test in tests for word in test.words if word))
    variants = [
        (what, n, masks) for n, seed in enumerate(seeds) for what, masks in candidates(p, n, seed, dense, setting)
    ]
    keep = [torch.from_numpy(np.stack(layer)) for layer in zip(*(masks for *_, masks in variants), strict=True)]
    index = [n for _, n, _ in variants]
    tickets = start.pick(index)
    with torch.no_grad():
        for weight, mask in zip(tickets.weights, keep, strict=True):
            weight *= mask
    pruned, own = until_converged(tickets, examples.of(index), setting, keep, progress)
    whole = [torch.ones_like(weight, dtype=torch.bool) for weight in dense.weights]
    return Runs(
        Bank.joined([dense, pruned]), tuple(torch.cat(pair) for pair in zip(whole, keep, strict=True)), (*epochs, *own),
        ("dense",) * len(seeds) + tuple(what for what, *_ in variants), (*range(len(seeds)), *index), p, windows,
        examples.x.shape[1], problems,
    )  # fmt: skip


def _saved(made: Runs) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors = {f"weight {k}": weight.detach() for k, weight in enumerate(made.bank.weights)}
    tensors |= {f"keep {k}": mask for k, mask in enumerate(made.keep)}
    tensors |= {f"p {choice}": torch.from_numpy(p) for choice, p in made.p.items()}
    names = ("epochs", "what", "seed", "windows", "examples", "problems")
    return tensors, {name: getattr(made, name) for name in names}


def _restored(tensors: dict[str, Tensor], plain: dict[str, Any]) -> Runs:
    def layers(of: str) -> list[Tensor]:
        return [tensors[f"{of} {k}"] for k in range(sum(name.startswith(f"{of} ") for name in tensors))]

    p = {name.removeprefix("p "): value.numpy() for name, value in tensors.items() if name.startswith("p ")}
    plain |= {name: tuple(plain[name]) for name in ("epochs", "what", "seed")}
    return Runs(Bank(layers("weight")), tuple(layers("keep")), p=p, **plain)
