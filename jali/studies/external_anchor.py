"""Sparse recurrent networks beside another group's published ones: MNIST by rows, 400 units, 95 % of the weights removed.

M. S. Zhang and B. Stadie prune at initialisation, by the sensitivity of the recurrent Jacobian's spectrum, and print the
validation error of that, of random pruning and of the dense network. Their parameter counts (171k for the basic cell, which is
400 · (28 + 400)) say what they prune: input and recurrent weights together, no biases, the head stays dense. The same goes
here, in two ways that the tables keep apart: at initialisation, and during training.

Theirs: Adam, learning rate 1e-3, batches of 64, 50 epochs, Glorot initialisation, initial state zero. Ours is like it in the
initialisation (Glorot for every gate's matrix, biases zero), and differs in the rest
(:class:`~jali.studies.anchor_training.AnchorRecipe`): AdamW with one cycle of the learning rate, batches of 128, images shifted
by up to a pixel, gradients clipped, a tenth of the training set held out. On that tenth the learning rate of each cell and the
epoch of each network are chosen; the test set, which we take their "validation" to be, is read once per network, after that.
On a CPU the run has fewer epochs than theirs, with the forward pass in bfloat16: records and tables call it reduced.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields, replace
from functools import lru_cache
from typing import Any

import torch

from jali.data import Dataset, Split, load
from jali.errors import JaliError
from jali.runs.record import canonical
from jali.studies.anchor_tables import PUBLISHED, SECTIONS, against_published, curves, details, learning_rates, reduced
from jali.studies.anchor_training import METHODS, AnchorRecipe, Training
from jali.studies.base import Figure, Metric, Progress, Record, RecordStore, Settings, Study, Table, Task

# What is worth most comes first, as the whole takes hours: a run that is stopped has it already.
ORDER = (
    ("LSTM", "cubic"), ("GRU", "cubic"), ("RNN", "cubic"), ("RNN", "random"), ("LSTM", "random"), ("LSTM", "taylor"),
    ("GRU", "taylor"), ("RNN", "taylor"), ("GRU", "random"), ("LSTM", "dense"), ("GRU", "dense"), ("RNN", "dense"),
    ("LSTM", "rigl"), ("GRU", "rigl"), ("RNN", "rigl"), ("LSTM", "magnitude"), ("GRU", "magnitude"), ("RNN", "magnitude"),
)  # fmt: skip


WHOLE = AnchorRecipe()
REDUCED = replace(WHOLE, epochs=20, precision="bfloat16")
QUICK = replace(
    WHOLE, data="digits", hidden=32, epochs=10, batch=64, lrs=(5e-3, 1e-2), pilot_epochs=2, every=5, shift=0
)


class ExternalAnchor(Study):
    name = "external-anchor"
    title = "Beside published sparse recurrent networks: MNIST by rows, 400 units, 95 % removed"
    paper = "M. S. Zhang, B. Stadie, One-shot pruning of recurrent neural networks by Jacobian spectrum evaluation, ICLR 2020"
    default_seeds = 3

    def tasks(self, settings: Settings) -> list[Task]:
        device = _device()
        recipe = QUICK if settings.quick else REDUCED if device == "cpu" else WHOLE
        data = _loaded(recipe.data, device)
        examples = {part: len(getattr(data, part).x) for part in ("train", "validation", "test")}
        config = {**asdict(recipe), "device": device, "examples": examples}
        config["reduced"] = reduced(config)
        keys = dict.fromkeys((key, title) for seed in settings.seeds for key, title in _keys(recipe, seed))
        return [Task(dict(key), title, dict(key)["seed"], config) for key, title in keys]

    def run(self, task: Task, workspace: RecordStore, progress: Progress) -> Record:
        recipe = _recipe(task.config)
        data = _loaded(recipe.data, task.config["device"])
        notes = [task.config["reduced"]] if task.config["reduced"] else []
        pilot = "lr" in task.key
        lr = task.key["lr"] if pilot else _chosen_lr(task, workspace)
        recipe = replace(recipe, epochs=recipe.pilot_epochs) if pilot else recipe
        training = Training(recipe, lr, task, data, workspace)
        training.run(progress)
        curve = {"validation error": training.curve}
        if pilot:
            metrics = {"validation error": Metric(training.curve[-1], len(data.validation.x))}
            return task.record(self.name, metrics, data=curve, notes=notes)
        return task.record(self.name, training.scores(), data={**curve, "lr": lr}, notes=notes)

    def summary(self, records: Sequence[Record]) -> list[Table]:
        made = [record for record in records if "lr" not in record.task]
        compared = [against_published(made, when) for when in SECTIONS if made]
        tables = [*(table for table in compared if table.rows), details(made)] if made else []
        return [*tables, learning_rates(records)] if records else []

    def figures(self, records: Sequence[Record]) -> list[Figure]:
        made = [record for record in records if "lr" not in record.task]
        return [curves(made, cell) for cell in PUBLISHED if any(r.task["cell"] == cell for r in made)]


def _keys(recipe: AnchorRecipe, seed: int) -> Iterator[tuple[tuple[tuple[str, Any], ...], str]]:
    """Keys (as items, so that the pilots, which seeds share, come once) and titles, in order."""
    for cell, method in ORDER:
        for lr in recipe.lrs:
            yield (("cell", cell), ("method", "cubic"), ("lr", lr), ("seed", 0)), f"{cell}: learning rate {lr:g}"
        yield (("cell", cell), ("method", method), ("seed", seed)), f"{cell}, {METHODS[method].label}, seed {seed}"


def _recipe(config: dict[str, Any]) -> AnchorRecipe:
    """The recipe of a task's settings: what is recorded is what is run."""
    own: dict[str, Any] = {each.name: config[each.name] for each in fields(AnchorRecipe)}
    own |= {name: tuple(value) for name, value in own.items() if isinstance(value, list)}
    return AnchorRecipe(**own)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@lru_cache(maxsize=1)
def _loaded(name: str, device: str) -> Dataset:
    data = load(name)
    train, validation, test = (
        Split(*(tensor.to(device) for tensor in part)) for part in (data.train, data.validation, data.test)
    )
    return replace(data, train=train, validation=validation, test=test)


def _chosen_lr(task: Task, workspace: RecordStore) -> float:
    """The learning rate with the smallest validation error of the cell's pilots; of equal ones, the smallest."""
    pilots = [
        (record.metrics["validation error"].value, record.task["lr"])
        for record in workspace.records()
        if (record.study, record.task.get("cell")) == (ExternalAnchor.name, task.key["cell"])
        and "lr" in record.task
        and canonical(record.config) == canonical(task.config)
    ]
    if not pilots:
        raise JaliError(f"no learning rate of {task.key['cell']} is recorded in {workspace.path}; run the study again")
    return float(min(pilots)[1])


STUDY = ExternalAnchor()
