"""What the LEGCNet studies share: the seven data sets, who is pruned how, and the trained networks, made once per folder."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from jali.data import Dataset, load
from jali.evidence import Perturbation, Trajectory, trajectory
from jali.evidence.windows import Method
from jali.files import atomic_write
from jali.maths.granger import GrangerTests, granger
from jali.plain import parse_json
from jali.runs.record import canonical
from jali.runs.store import RecordStore
from jali.studies.base import Progress, Settings, Task
from jali.studies.legcnet_networks import Bank, Descent, Examples, classes_of, descend, initial, logits_loss, widths

PAPER = (
    "R. Sahu, S. Chadha, A. Mathur, N. Nagaraj, S. Saha, A chaos-causality approach to principled pruning of dense neural "
    "networks, Chaos Theory and Applications 7 (2025) 154-165"
)
CHOICES = ("FT", "PT", "FT, causal go", "PT, causal go")
PAPERS_OWN = {"random 40 %": 0.4, "magnitude 25 %": 0.25}
P = 0.05


@dataclass(frozen=True)
class Setting:
    """One data set of the paper: ``hidden`` units, ``early`` epochs that LEGCNet-PT looks at (its Table 2), and the training."""

    data: str
    hidden: tuple[int, ...]
    early: int
    descent: Descent
    choices: tuple[str, ...] = CHOICES
    draws: int = 4
    watched: int = 5000  # training examples on which loss and accuracy are watched, at most
    window: int = 200
    delta: float = 1e-4
    place: int = 0  # δ₀ is added to the weight of the first unit from this input
    method: Method = "direct"
    max_lag: int = 2
    dtype: str = "float64"  # of the networks but for the twins, which are float64
    apart: bool = False  # one seed at a time, as a task of its own


SMALL = Descent(rate=0.03, epochs=200)
SETTINGS = {
    "cancer": Setting("cancer", (6,), 12, SMALL),
    "titanic": Setting("titanic", (8,), 3, SMALL),
    "banknote": Setting("banknote", (8,), 2, SMALL),
    "iris": Setting("iris", (6,), 20, SMALL),
    "iris-3": Setting("iris-3", (6,), 20, SMALL),
    "vowel": Setting("vowel", (4,), 5, SMALL),
    "mnist": Setting("mnist", (50, 30), 5, Descent(rate=0.3, epochs=27, batch=128), draws=1, dtype="float32",
                     apart=True, place=14 * 28 + 14),
}  # fmt: skip
WEIGHTS = {
    "cancer": 60,
    "titanic": 56,
    "banknote": 40,
    "iris": 42,
    "iris-3": 36,
    "vowel": 36,
    "mnist": 41000,
}  # Table 1


def quick(setting: Setting) -> Setting:
    """The same in seconds."""
    descent = Descent(setting.descent.rate, min(setting.descent.epochs, 6), min(setting.descent.batch, 8), patience=2)
    return Setting(setting.data, setting.hidden, 3, descent, setting.choices[:2], draws=1, watched=500, window=20)


def tasks_of(settings: Settings, names: Sequence[str]) -> list[Task]:
    """One task per data set: all seeds, which are also those of the networks' initial weights."""
    if settings.quick:
        names = [name for name in names if name == "iris"] or list(names[:1])
    out = []
    for name in names:
        setting = quick(SETTINGS[name]) if settings.quick else SETTINGS[name]
        for seeds in [[seed] for seed in settings.seeds] if setting.apart else [list(settings.seeds)]:
            key = {"data": name, "seed": seeds[0]} if setting.apart else {"data": name}
            title = f"{name}, seed {seeds[0]}" if setting.apart else name
            out.append(Task(key, title, seeds[0], {**asdict(setting), "seeds": seeds}))
    return out


def setting_of(config: dict[str, Any]) -> Setting:
    """The setting of a task's config: what is recorded is what is run."""
    own = {key: value for key, value in config.items() if key not in ("seeds", "splits")}
    own |= {"hidden": tuple(own["hidden"]), "choices": tuple(own["choices"]), "descent": Descent(**own["descent"])}
    return Setting(**own)


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


def parts(data: Dataset) -> tuple[Tensor, Tensor]:
    """What is trained on: train and validation together, (n, features) and (n,)."""
    both = [data.train, data.validation]
    return torch.cat([part.x for part in both]).flatten(1), torch.cat([part.y for part in both])


def datasets(config: dict[str, Any]) -> list[Dataset]:
    """The data of every seed: the same split for all, or one split each where the config says so."""
    if config.get("splits") == "own":
        return [load(config["data"], seed=seed) for seed in config["seeds"]]
    return [load(config["data"])] * len(config["seeds"])


# --- training -----------------------------------------------------------------------------------------------------------


def examples_of(sets: Sequence[Dataset], seeds: Sequence[int]) -> Examples:
    if all(data is sets[0] for data in sets):
        x, y = parts(sets[0])
        x, y = x.expand(len(sets), *x.shape), y.expand(len(sets), *y.shape)
    else:
        x, y = (torch.stack(each) for each in zip(*map(parts, sets), strict=True))
    return Examples(x, y, torch.arange(len(seeds)), tuple(seeds))


def watched_loss(bank: Bank, examples: Examples, setting: Setting) -> np.ndarray:
    """Training loss of each network, (N,)."""
    return _by_network(bank, examples, setting, lambda logits, y: logits_loss(logits, y))


def watched_accuracy(bank: Bank, examples: Examples, setting: Setting) -> np.ndarray:
    """Training accuracy of each network, (N,)."""
    return _by_network(bank, examples, setting, lambda logits, y: (classes_of(logits) == y).double().mean(1))


@torch.no_grad()
def _by_network(bank: Bank, examples: Examples, setting: Setting, measure: Any) -> np.ndarray:
    """The networks of one seed at a time: the rows of all would not fit."""
    out = np.empty(bank.count)
    for seed in torch.unique(examples.seed):
        own = torch.nonzero(examples.seed == seed)[:, 0]
        x = examples.x[seed, : setting.watched].to(bank.weights[0].dtype)
        y = examples.y[seed, : setting.watched].expand(len(own), -1)
        out[own.numpy()] = measure(bank.pick(own.tolist())(x.expand(len(own), *x.shape)), y).double().numpy()
    return out


def until_converged(
    bank: Bank, examples: Examples, setting: Setting, keep: Sequence[Tensor] | None, progress: Progress
) -> tuple[Bank, tuple[int, ...]]:
    """Every network as it was when it converged, and after how many epochs; ``keep``: masks of the weights that stay."""
    descent, bank, done = setting.descent, bank.pick(range(bank.count)), bank.pick(range(bank.count))
    losses = watched_loss(bank, examples, setting)[:, None]  # (N, epochs so far)
    epochs, active = np.zeros(bank.count, dtype=int), np.arange(bank.count)
    masks = None if keep is None else [mask.to(weight.dtype) for mask, weight in zip(keep, bank.weights, strict=True)]
    while len(active):
        epoch = losses.shape[1] - 1
        for x, y in examples.batches(epoch, descent.batch):
            descend(bank, x, y, descent.rate, masks)
        losses = np.concatenate([losses, watched_loss(bank, examples, setting)[:, None]], axis=1)
        stopped = np.array([descent.stops(row) for row in losses])
        with torch.no_grad():
            for final, weight in zip(done.weights, bank.weights, strict=True):
                final[torch.from_numpy(active[stopped])] = weight[torch.from_numpy(stopped)]
        epochs[active[stopped]] = epoch + 1
        if stopped.any():  # the others go on alone
            left = np.flatnonzero(~stopped).tolist()
            bank, examples, active, losses = bank.pick(left), examples.of(left), active[left], losses[left]
            masks = None if masks is None else [mask[left] for mask in masks]
        progress(f"epoch {epoch + 1}: {len(active)} of {done.count} networks go on")
    return done, tuple(int(each) for each in epochs)


def recorded(bank: Bank, examples: Examples, setting: Setting, epochs: int, progress: Progress) -> Trajectory:
    """The twins of all networks: in each one weight of the first unit starts δ₀ elsewhere.

    The paper's w₁₁, but for MNIST: its first pixel is never lit, so that w₁₁ changes nothing; there it is one of the middle.
    """
    per_epoch = -(-examples.x.shape[1] // setting.descent.batch)

    closed = 0

    def train(network: nn.Module) -> Iterator[None]:
        for epoch in range(epochs):
            for x, y in examples.batches(epoch, setting.descent.batch):
                descend(cast("Bank", network), x, y, setting.descent.rate)
                yield

    def watch(network: nn.Module) -> np.ndarray:
        nonlocal closed
        closed += 1
        progress(f"twins: {closed} windows", closed * setting.window / (epochs * per_epoch))
        return watched_accuracy(cast("Bank", network), examples, setting)

    places = tuple((n, 0, setting.place) for n in range(bank.count))
    moved = Perturbation("weights.0", places, setting.delta)
    return trajectory(
        bank.pick(range(bank.count)).double(), train, watch, perturbation=moved, window=setting.window, method=setting.method
    )[0]  # fmt: skip


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
