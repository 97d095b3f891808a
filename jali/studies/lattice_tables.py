"""What the studies of Tables I and II of the lattice pruning paper share: recipes, one pruned training, its record, tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import nn

from jali.data import Dataset, load
from jali.report.tables import NONE, Cell
from jali.runs.record import canonical
from jali.schedule import Cubic, RigL, Schedule
from jali.studies.base import Figure, Metric, Progress, Record, RecordStore, Settings, Table, Task, over_seeds
from jali.studies.lattice_printed import Every
from jali.studies.training import Companion, Recipe, SequenceClassifier, accuracy, settings_of, train
from jali.surgery.pruner import Pruner

PAPER = "R. Sengupta, Lattice-based pruning in recurrent neural networks via poset modeling"
PAPER_DATA = "mnist"
THRESHOLDS = (0.2, 0.5, 0.7)  # τ
Rate = Literal["constant", "one-cycle"]


@dataclass(frozen=True)
class ConstantRate(Recipe):
    """Adam as the paper prints it: a constant learning rate, no clipping; ``warmup`` has no part in it."""

    clip: ClassVar[float] = math.inf

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(model.parameters(), lr=self.lr)

    def rates(self, optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)


@dataclass(frozen=True)
class TableRecipe:
    """All that a result depends on but for what the tables compare.

    ``constant``: the paper's Adam; it prints neither the epochs nor the rate nor the batch. ``one_cycle``: the recipe of the
    other studies, ``tuning`` a short one. ``interval``: epochs between the printed prunings. ``calibration``: sequences that
    choose units and repair.
    """

    constant: ConstantRate
    one_cycle: Recipe
    tuning: Recipe
    data: str = "mnist"
    hidden: int = 128
    interval: int = 3
    calibration: int = 4000
    calibration_batch: int = 500

    def training(self, rate: str) -> Recipe:
        return {"constant": self.constant, "one-cycle": self.one_cycle}[rate]

    @staticmethod
    def of(config: dict[str, Any]) -> TableRecipe:
        """The recipe of a task's settings: what is recorded is what is run."""
        own = {each.name: config[each.name] for each in fields(TableRecipe)}
        own |= {name: Recipe(**own[name]) for name in ("one_cycle", "tuning")}
        own["constant"] = ConstantRate(**own["constant"])
        return TableRecipe(**own)


FULL = TableRecipe(
    constant=ConstantRate(epochs=9, batch=128, lr=2e-3),
    one_cycle=Recipe(epochs=12, batch=128, lr=5e-3, shift=1),
    tuning=Recipe(epochs=1, batch=128, lr=5e-3, shift=1, warmup=0.1),
)
QUICK = TableRecipe(
    constant=ConstantRate(epochs=12, batch=64, lr=1e-2),
    one_cycle=Recipe(epochs=12, batch=64, lr=1e-2),
    tuning=Recipe(epochs=3, batch=64, lr=5e-3, warmup=0.1),
    data="digits",
    hidden=32,
)


def tasks_of(settings: Settings, keys: Iterable[tuple[dict[str, Any], str]]) -> list[Task]:
    """A task for each key, which its title follows, and seed."""
    recipe = QUICK if settings.quick else FULL
    config = settings_of(recipe, load(recipe.data), "validation")
    return [
        Task({**key, "seed": seed}, f"seed {seed}: {title}", seed, config)
        for key, title in keys
        for seed in settings.seeds
    ]


Made = Callable[[nn.Module, torch.optim.Optimizer], Companion]


class Watched:
    """A companion that also writes down the validation accuracy and the sparsity after every epoch.

    The printed algorithms evaluate on the test set there; here the test part is read once, at the end.
    """

    def __init__(self, inner: Companion, model: nn.Module, data: Dataset) -> None:
        self.inner, self.model, self.data = inner, model, data
        self.validation: list[float] = []
        self.sparsity: list[float] = []

    def step(self) -> None:
        self.inner.step()

    def epoch(self) -> None:
        self.inner.epoch()
        self.validation.append(accuracy(self.model, self.data.validation))
        self.sparsity.append(recurrent_sparsity(self.model))


def recurrent_sparsity(model: nn.Module) -> float:
    """The share of zeros among the weights of ``weight_hh``, in [0, 1]."""
    found = [parameter.detach() == 0 for name, parameter in model.named_parameters() if "weight_hh" in name]
    return sum(int(zero.sum()) for zero in found) / sum(zero.numel() for zero in found)


def classifier(recipe: TableRecipe, data: Dataset, seed: int) -> SequenceClassifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SequenceClassifier(data.features, recipe.hidden, data.classes)


def scores(model: nn.Module, data: Dataset, prefix: str = "") -> dict[str, Metric]:
    parts = {"validation": data.validation, "test": data.test}
    return {f"{prefix}{name}": Metric(accuracy(model, split), len(split.x)) for name, split in parts.items()}


def trained(
    study: str, task: Task, data: Dataset, made: Made, progress: Progress, extra: dict[str, Any] | None = None
) -> tuple[nn.Module, Record]:
    """A network trained by the task's recipe with a companion, and its record with the data ``extra``."""
    recipe = TableRecipe.of(task.config)
    model = classifier(recipe, data, task.seed)
    watched: list[Watched] = []

    def companion(optimizer: torch.optim.Optimizer) -> Companion:
        watched.append(Watched(made(model, optimizer), model, data))
        return watched[0]

    train(model, data.train, recipe.training(task.key["rate"]), task.seed, progress, companion)
    metrics = scores(model, data) | {"sparsity": Metric(recurrent_sparsity(model), 1)}
    history = {"validation": watched[0].validation, "sparsity": watched[0].sparsity}
    return model, task.record(study, metrics, data={"history": history, **(extra or {})})


def printed(
    study: str, task: Task, data: Dataset, keep: np.ndarray, workspace: RecordStore, progress: Progress,
    extra: dict[str, Any] | None = None,
) -> Record:  # fmt: skip
    """Algorithm 2 or 3 with the units ``keep``; thresholds that keep the same are one training."""
    kept = np.flatnonzero(keep).tolist()
    for other in workspace.records():
        alike = {**other.task, "tau": task.key["tau"]} == task.key and canonical(other.config) == canonical(task.config)
        if other.study == study and alike and other.data["kept"] == kept:
            note = f"keeps what τ = {other.task['tau']:g} keeps: the same training"
            return task.record(study, dict(other.metrics), data=dict(other.data), notes=[note])
    interval = TableRecipe.of(task.config).interval
    made: Made = lambda model, optimizer: Every(model, keep, interval)  # noqa: E731
    return trained(study, task, data, made, progress, {"kept": kept, **(extra or {})})[1]


def by_pruner(study: str, task: Task, data: Dataset, progress: Progress) -> Record:
    """A :class:`jali.Pruner` of the recurrent weights goes along: the task's criterion, schedule and sparsity."""
    key = task.key
    training = TableRecipe.of(task.config).training(key["rate"])
    schedule = schedule_of(key["schedule"], training, -(-len(data.train.x) // training.batch))
    made: Made = lambda model, optimizer: Pruner(  # noqa: E731
        model, key["what"], key["sparsity"], schedule, optimizer, pattern="weight", weights="recurrent", seed=task.seed
    )  # fmt: skip
    return trained(study, task, data, made, progress, {"schedule": schedule.to_dict()})[1]


def schedule_of(name: str, training: Recipe, steps: int) -> Schedule:
    """``steps``: of an epoch. The last quarter of the training changes no mask."""
    end = max(2, training.epochs * 3 // 4) * steps
    return (
        RigL(every=min(100, end // 2), end=end)
        if name == "rigl"
        else Cubic(end=end, start=steps, every=max(1, steps // 8))
    )


# --- tables and figures -------------------------------------------------------------------------------------------------


def is_one(record: Record, **key: Any) -> bool:
    return all(record.task.get(part) == value for part, value in key.items())


def minus_paper(records: Sequence[Record], paper: float) -> str:
    """Points of test accuracy above the paper's; nothing where the data are others, as in a quick run."""
    if not records or TableRecipe.of(records[-1].config).data != PAPER_DATA:
        return NONE
    return f"{100 * (over_seeds(records, 'test').mean - paper):+.2f}"


def other_data(records: Sequence[Record]) -> str:
    """What to say where the paper's figures are of other data, to follow a caption."""
    found = {TableRecipe.of(record.config).data for record in records} - {PAPER_DATA}
    return f" Ours are {', '.join(sorted(found))}, the paper's MNIST: no difference is given." if found else ""


def against_paper(
    title: str, records: Sequence[Record], paper: dict[float, tuple[float, float]], caption: str
) -> Table:
    """``paper``: τ → (sparsity, accuracy). Sparsity and accuracy, paper and ours."""
    rows: list[tuple[Cell, ...]] = []
    for tau, (sparsity, test) in paper.items():
        own = [r for r in records if is_one(r, what="printed", tau=tau, rate="constant")]
        ours, zeros = over_seeds(own, "test"), over_seeds(own, "sparsity")
        cells = (f"{100 * test:.2f}", ours.text(2, 100), ours.n, minus_paper(own, test))
        rows.append((f"{tau:g}", f"{100 * sparsity:.2f}", zeros.text(2, 100), *cells))
    if records:
        config = TableRecipe.of(records[-1].config)
        caption = f"{caption} Ours: {config.data}, {config.hidden} units, {config.constant.epochs} epochs."
        caption += other_data(records)
    columns = (
        "τ", "sparsity, paper (%)", "sparsity, ours (%)", "accuracy, paper (%)", "accuracy, ours (%)", "runs",
        "difference (points)",
    )  # fmt: skip
    return Table(title, columns, tuple(rows), caption)


Label = Callable[[Record], str | None]


def epochs_table(title: str, records: Sequence[Record], label: Label) -> Table:
    """Validation accuracy after every epoch, mean over seeds, of the records that ``label`` names."""
    curves = _curves(records, label)
    rows: list[tuple[Cell, ...]] = []
    for k in range(max((len(curve) for curve in curves.values()), default=0)):
        cells = (f"{curve[k]:.2f}" if k < len(curve) else "–" for curve in curves.values())
        rows.append((k + 1, *cells))
    caption = "Validation accuracy (%), mean over seeds, after every epoch, once its pruning is done."
    return Table(title, ("epoch", *curves), tuple(rows), caption)


def epochs_figure(title: str, records: Sequence[Record], label: Label) -> Figure:
    """The curves of :func:`epochs_table`."""
    series = [
        {"label": name, "x": list(range(1, len(curve) + 1)), "y": curve}
        for name, curve in _curves(records, label).items()
    ]
    payload = {"x_label": "epoch", "y_label": "validation accuracy (%)", "series": series}
    return Figure("lines", title, payload, "After every epoch, once its pruning is done; means over seeds.")


def _curves(records: Sequence[Record], label: Label) -> dict[str, list[float]]:
    """Label → accuracy after epoch 1, 2, … in %, mean over the seeds."""
    groups: dict[str, list[list[float]]] = {}
    for record in records:
        name = label(record)
        if name is not None:
            groups.setdefault(name, []).append(record.data["history"]["validation"])
    return {
        name: [100 * sum(values) / len(values) for values in zip(*curves, strict=True)]
        for name, curves in groups.items()
    }
