"""The spectral pruning idea on LSTMs: criterion ``laplacian`` beside magnitude, Taylor and random choice of recurrent weights.

The networks read rows of digits (8 × 8) and of MNIST (28 × 28). Single weights of ``W_hh`` are removed at once after training;
on the small set, what is left is fine-tuned. The variants of the criterion differ in the degree matrix and in the parts of the
eigenvalues; which of them stands for all in the paired table, the validation split decides.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

from torch import nn

from jali.data import Dataset, load
from jali.planning import plan
from jali.report.tables import NONE, Cell, percent
from jali.studies.base import (
    Figure,
    Interval,
    Metric,
    Progress,
    Record,
    RecordStore,
    Settings,
    Study,
    Table,
    Task,
    mean_interval,
    over_seeds,
    tasks_on,
)
from jali.studies.iso_accuracy import train_masked
from jali.studies.training import Recipe, SequenceClassifier, accuracy, dense_classifier
from jali.surgery.mask import mask

PER_GATE = "magnitude, gate by gate"  # a control: as many weights of each gate, as gates differ in size
CHOICES: dict[str, tuple[str, dict[str, str]]] = {  # name → criterion and its options
    "laplacian, D_W, imaginary": ("laplacian", {"degree": "weighted", "part": "imaginary"}),
    "laplacian, D_W, real": ("laplacian", {"degree": "weighted", "part": "real"}),
    "laplacian, D_W, both": ("laplacian", {"degree": "weighted", "part": "both"}),
    "laplacian, D, imaginary": ("laplacian", {"degree": "directed", "part": "imaginary"}),
    "laplacian, D, real": ("laplacian", {"degree": "directed", "part": "real"}),
    "laplacian, D, both": ("laplacian", {"degree": "directed", "part": "both"}),
    "magnitude": ("magnitude", {}),
    PER_GATE: ("magnitude", {}),
    "taylor": ("taylor", {}),
    "random": ("random", {}),
}
SHOWN = tuple(name for name in CHOICES if not name.startswith("laplacian, D,"))
LAPLACIANS = tuple(name for name, (criterion, _) in CHOICES.items() if criterion == "laplacian")


@dataclass(frozen=True)
class LstmRecipe:
    """All that a result depends on but for choice, sparsity and seed. ``tuning`` None: what is left is not trained."""

    data: str
    hidden: int
    training: Recipe
    tuning: Recipe | None
    sparsities: tuple[float, ...] = (0.5, 0.75, 0.9, 0.95)
    calibration: int = 1000

    def config(self, data: Dataset) -> dict[str, Any]:
        counts = {split: len(getattr(data, split).x) for split in ("train", "validation", "test")}
        return asdict(self) | {
            "examples": {**counts, "calibration, first of train": min(self.calibration, counts["train"])}
        }

    @classmethod
    def of(cls, config: dict[str, Any]) -> LstmRecipe:
        """The recipe of a task's settings: what is recorded is what is run."""
        own = {name: value for name, value in config.items() if name != "examples"}
        tuning = None if own["tuning"] is None else Recipe(**own["tuning"])
        return cls(
            **own | {"training": Recipe(**own["training"]), "tuning": tuning, "sparsities": tuple(own["sparsities"])}
        )


DIGITS = LstmRecipe("digits", 64, Recipe(epochs=40, batch=64, lr=1e-2), Recipe(epochs=5, batch=64, lr=5e-3, warmup=0.1))
MNIST = LstmRecipe("mnist", 64, Recipe(epochs=3, batch=128, lr=5e-3), None, (0.75, 0.9))
QUICK = replace(DIGITS, training=replace(DIGITS.training, epochs=10), sparsities=(0.75,))


class ArgnnLstm(Study):
    name = "argnn-lstm"
    title = "Laplacian eigenvalues on LSTMs: is it a criterion?"
    paper = "N. Bessone, Spectral theory for edge pruning in asynchronous recurrent graph neural networks, section 5"
    default_seeds = 5

    def tasks(self, settings: Settings) -> list[Task]:
        tasks: list[Task] = []
        for recipe in (QUICK,) if settings.quick else (DIGITS, MNIST):
            config = recipe.config(_loaded(recipe.data))
            tasks += tasks_on(recipe.data, config, settings.seeds, list(_keys(recipe)))
        return tasks

    def run(self, task: Task, workspace: RecordStore, progress: Progress) -> Record:
        recipe = LstmRecipe.of(task.config)
        data = _loaded(recipe.data)
        file = f"{recipe.data}-seed{task.seed}.safetensors"
        if task.key["what"] == "dense":
            model = dense_classifier(data, recipe.hidden, recipe.training, task.seed, progress)
            workspace.write_tensors(file, model.state_dict())
            return task.record(self.name, _scores("cut", model, data))
        model = SequenceClassifier(data.features, recipe.hidden, data.classes)
        model.load_state_dict(workspace.read_tensors(file))
        pruned = _pruned(model.eval(), data, recipe, task)
        metrics = _scores("cut", pruned, data)
        if recipe.tuning is not None:
            train_masked(pruned, data, recipe.tuning, task.seed, progress)
            metrics |= _scores("tuned", pruned, data)
        return task.record(self.name, metrics)

    def summary(self, records: Sequence[Record]) -> list[Table]:
        return [_accuracies(records), _variants(records), _paired(records)] if records else []

    def figures(self, records: Sequence[Record]) -> list[Figure]:
        return [_figure(records, data) for data in dict.fromkeys(record.task["data"] for record in records)]


def _pruned(model: nn.Module, data: Dataset, recipe: LstmRecipe, task: Task) -> nn.Module:
    """A copy without this share of its recurrent weights."""
    if task.key["what"] == PER_GATE:
        pruned = copy.deepcopy(model)
        weight = pruned.get_parameter("rnn.weight_hh_l0").detach()  # (4 H, H)
        for gate in weight.chunk(4):
            gate[gate.abs() <= gate.abs().flatten().kthvalue(round(task.key["sparsity"] * gate.numel())).values] = 0.0
        return pruned
    criterion, options = CHOICES[task.key["what"]]
    x, y = (part[: recipe.calibration].split(250) for part in data.train)
    decided = plan(
        model, criterion, task.key["sparsity"], list(zip(x, y, strict=True)), granularity="weight", weights="recurrent",
        options=options, seed=task.seed,
    )  # fmt: skip
    return mask(model, decided)


@lru_cache(maxsize=2)
def _loaded(name: str) -> Dataset:
    """Tasks of one set follow each other."""
    return load(name)


def _keys(recipe: LstmRecipe) -> Iterator[tuple[dict[str, Any], str]]:
    yield {"what": "dense"}, "train"
    for sparsity in recipe.sparsities:
        for choice in CHOICES:
            yield {"what": choice, "sparsity": sparsity}, f"{choice}, {percent(sparsity)}"


def _scores(stage: str, model: Any, data: Dataset) -> dict[str, Metric]:
    parts = {"validation": data.validation, "test": data.test}
    return {f"{stage} {name}": Metric(accuracy(model, split), len(split.x)) for name, split in parts.items()}


# --- tables and figure -------------------------------------------------------------------------------------------------


def _of(data: str, what: str, sparsity: float | None = None) -> Callable[[Record], bool]:
    wanted = (data, what, sparsity)
    return lambda record: (record.task["data"], record.task["what"], record.task.get("sparsity")) == wanted


def _cells(records: Sequence[Record]) -> list[tuple[str, float]]:
    return list(dict.fromkeys((r.task["data"], r.task["sparsity"]) for r in records if "sparsity" in r.task))


def _accuracies(records: Sequence[Record]) -> Table:
    places = [(data, sparsity, stage) for data, sparsity in _cells(records) for stage in ("cut", "tuned")]
    places = [
        (d, s, stage)
        for d, s, stage in places
        if any(f"{stage} test" in r.metrics for r in records if _of(d, "random", s)(r))
    ]
    rows: list[tuple[Cell, ...]] = []
    for what in ("dense", *CHOICES):
        cells = []
        for data, sparsity, stage in places:
            found = over_seeds(records, f"{stage} test", _of(data, what, None if what == "dense" else sparsity))
            cells.append(found.text(1, 100))
        rows.append((what, *cells))
    columns = (
        "",
        *(f"{data}, {percent(sparsity)}{', tuned' if stage == 'tuned' else ''}" for data, sparsity, stage in places),
    )
    caption = (
        "Test accuracy (%) of LSTMs of 64 units with this share of the recurrent weights removed at once after training, mean ± "
        "95 % interval over seeds; tuned: then trained for a few epochs more."
    )
    return Table("Choice of recurrent weights", columns, tuple(rows), caption)


def best_laplacian(records: Sequence[Record], data: str, sparsity: float, stage: str) -> str | None:
    """The variant of the best mean accuracy on the validation split."""
    means = {name: over_seeds(records, f"{stage} validation", _of(data, name, sparsity)).mean for name in LAPLACIANS}
    known = {name: mean for name, mean in means.items() if mean == mean}
    return max(known, key=lambda name: known[name]) if known else None


def _minus(records: Sequence[Record], metric: str, data: str, sparsity: float, ours: str, theirs: str) -> Interval:
    def by_seed(what: str) -> dict[int, float]:
        own = [r for r in records if _of(data, what, sparsity)(r) and metric in r.metrics]
        return {r.seed: r.metrics[metric].value for r in own}

    first, second = by_seed(ours), by_seed(theirs)
    return mean_interval([first[seed] - second[seed] for seed in sorted(set(first) & set(second))])


def _variants(records: Sequence[Record]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for data, sparsity in _cells(records):
        for stage in ("cut", "tuned"):
            metric = f"{stage} test"
            cells = [_minus(records, metric, data, sparsity, name, "random").text(1, 100) for name in LAPLACIANS]
            if set(cells) != {NONE}:
                rows.append((f"{data}, {percent(sparsity)}, {stage}", *cells))
    columns = ("", *(name.removeprefix("laplacian, ") for name in LAPLACIANS))
    caption = "Points of test accuracy, paired by seed, mean ± 95 % interval."
    return Table("Every variant of the Laplacian minus random", columns, tuple(rows), caption)


def _paired(records: Sequence[Record]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for data, sparsity in _cells(records):
        for stage in ("cut", "tuned"):
            best = best_laplacian(records, data, sparsity, stage)
            if best is not None:
                others = ("random", "magnitude", PER_GATE, "taylor")
                cells = [_minus(records, f"{stage} test", data, sparsity, best, other).text(1, 100) for other in others]
                rows.append((f"{data}, {percent(sparsity)}, {stage}", best, *cells))
    caption = (
        "Points of test accuracy, paired by seed, mean ± 95 % interval; the variant was chosen on the validation split, for "
        "every row anew."
    )
    columns = ("", "best variant", "minus random", "minus magnitude", "minus magnitude, gate by gate", "minus taylor")
    return Table("Is it worth it on an LSTM?", columns, tuple(rows), caption)


def _figure(records: Sequence[Record], data: str) -> Figure:
    sparsities, series = [s for name, s in _cells(records) if name == data], []
    for what in SHOWN:
        points = [over_seeds(records, "cut test", _of(data, what, s)) for s in sparsities]
        y = [100 * p.mean if p.mean == p.mean else None for p in points]
        series.append({"label": what, "x": [100 * s for s in sparsities], "y": y})
    payload = {"x_label": "recurrent weights removed (%)", "y_label": "test accuracy (%)", "series": series}
    return Figure(
        "lines", f"{data}: recurrent weights removed at once", payload, "Means over seeds, before any fine-tuning."
    )


STUDY = ArgnnLstm()
