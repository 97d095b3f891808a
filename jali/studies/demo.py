"""The demo: train an LSTM, remove half of its units by the lattice criterion, fold, compact, fine-tune, and compare.

One run is one seed. Beside the lattice choice stand reconstruction, magnitude, random choice, and a small dense LSTM of
the same width trained from scratch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from jali.costs import cost
from jali.data import Dataset, load
from jali.planning import plan
from jali.report.tables import Cell, percent
from jali.runs.store import RecordStore
from jali.site import sites
from jali.studies.base import Figure, Metric, Progress, Record, Settings, Study, Table, Task
from jali.studies.structure import hasse_caption, hasse_payload, persistence_caption, persistence_payload
from jali.studies.timing import latencies
from jali.studies.training import Recipe, SequenceClassifier, accuracy, dense_classifier, fine_tuned, settings_of
from jali.surgery.compact import operate
from jali.surgery.fold import fold
from jali.view import read

CRITERIA = ("lattice", "reconstruction", "magnitude", "random")
STAGES = ("cut", "folded", "tuned")


@dataclass(frozen=True)
class DemoRecipe:
    """All that one demo's result depends on but for the criterion and the seed.

    ``hidden``: units before; ``sparsity``: fraction removed; ``calibration``: sequences that choose and repair;
    ``calls``: timed calls per latency.
    """

    data: str
    hidden: int
    training: Recipe
    tuning: Recipe
    sparsity: float = 0.5
    calibration: int = 2000
    calls: int = 200

    @property
    def left(self) -> int:
        """Units after."""
        return self.hidden - round(self.sparsity * self.hidden)


RECIPES = {
    "digits": DemoRecipe(
        data="digits",
        hidden=64,
        training=Recipe(epochs=30, batch=64, lr=1e-2),
        tuning=Recipe(epochs=3, batch=64, lr=5e-3, warmup=0.1),
    ),
    "mnist": DemoRecipe(
        data="mnist",
        hidden=128,
        training=Recipe(epochs=4, batch=256, lr=5e-3, shift=1),
        tuning=Recipe(epochs=1, batch=64, lr=1e-2, shift=1, warmup=0.1),
    ),
}


class Demo(Study):
    name = "demo"
    title = "jali demo: half of an LSTM's units, removed by their lattice"
    paper = "R. Sengupta, Lattice-based pruning in recurrent neural networks via poset modeling, Algorithm 1"
    default_seeds = 1

    def __init__(self, task: str = "digits", seed: int | None = None) -> None:
        """``task``: "digits" or "mnist"; ``seed``: the one seed to run, or those of the settings."""
        self.recipe, self.seed = RECIPES[task], seed

    def tasks(self, settings: Settings) -> list[Task]:
        seeds = settings.seeds if self.seed is None else (self.seed,)
        config = settings_of(self.recipe, load(self.recipe.data))
        titles = {"dense": "train the dense LSTM", **{c: f"prune by {c}, fold, fine-tune" for c in CRITERIA}}
        titles["small"] = f"train a dense LSTM of {self.recipe.left} units from scratch"
        return [
            Task({"data": self.recipe.data, "what": what, "seed": seed}, title, seed, config)
            for seed in seeds
            for what, title in titles.items()
        ]

    def run(self, task: Task, workspace: RecordStore, progress: Progress) -> Record:
        data = load(self.recipe.data)
        if task.key["what"] in ("dense", "small"):
            return _dense(self.recipe, task, data, workspace, progress)
        return _pruned(self.recipe, task, data, workspace, progress)

    def summary(self, records: Sequence[Record]) -> list[Table]:
        return [table(run) for run in _runs(records) for table in (_accuracies, _sizes)]

    def figures(self, records: Sequence[Record]) -> list[Figure]:
        figures = []
        for run in _runs(records):
            figures += _structure_figures(run)
            figures.append(_accuracy_against_size(run))
        return figures


def run_demo(task: str, out: Path, seed: int) -> None:
    """Run the demo into the folder ``out`` (resuming what is there), print its table and write its report."""
    from jali.studies.runner import run_study

    if not run_study(Demo(task, seed), out).finished:
        raise KeyboardInterrupt


def _dense(recipe: DemoRecipe, task: Task, data: Dataset, workspace: RecordStore, progress: Progress) -> Record:
    small = task.key["what"] == "small"
    width = recipe.left if small else recipe.hidden
    model = dense_classifier(data, width, recipe.training, task.seed, progress)
    if not small:
        workspace.write_tensors(_weights(recipe, task), model.state_dict())
    metrics = {"accuracy tuned": _accuracy(model, data)}
    # Its own latency, and beside it that of the dense network, in the same run.
    original = _original(recipe, task, data, workspace) if small else model
    return task.record(Demo.name, metrics | _costs(model, original, data, recipe.calls))


def _pruned(recipe: DemoRecipe, task: Task, data: Dataset, workspace: RecordStore, progress: Progress) -> Record:
    model = _original(recipe, task, data, workspace)
    x, y = (part[: recipe.calibration] for part in data.train)
    decided = plan(model, task.key["what"], recipe.sparsity, [(x, y)], seed=task.seed)
    surgery = operate(model, decided, x[:8])
    metrics = {"accuracy cut": _accuracy(surgery.compact, data)}
    progress("fold")
    fold(surgery, x)
    metrics["accuracy folded"] = _accuracy(surgery.compact, data)
    progress("fine-tune")
    tuned = fine_tuned(surgery.compact, data.train, recipe.tuning, task.seed)
    metrics["accuracy tuned"] = _accuracy(tuned, data)
    payloads: dict[str, Any] = {}
    if task.key["what"] == "lattice":
        view = read(model, sites(model)[0])
        payloads = {
            "persistence": persistence_payload(view, decided.sites[0], decided.criterion, decided.options),
            "hasse": hasse_payload(view),
        }
    costs = _costs(tuned, model, data, recipe.calls)
    return task.record(Demo.name, metrics | costs, data=payloads, notes=surgery.notes)


def _weights(recipe: DemoRecipe, task: Task) -> str:
    return f"{recipe.data}-dense-seed{task.seed}.safetensors"


def _original(recipe: DemoRecipe, task: Task, data: Dataset, workspace: RecordStore) -> nn.Module:
    model = SequenceClassifier(data.features, recipe.hidden, data.classes)
    model.load_state_dict(workspace.read_tensors(_weights(recipe, task)))
    return model.eval()


def _accuracy(model: nn.Module, data: Dataset) -> Metric:
    return Metric(accuracy(model, data.test), len(data.test.x))


def _costs(model: nn.Module, original: nn.Module, data: Dataset, calls: int) -> dict[str, Metric]:
    x = data.test.x[:1]
    found, dense = cost(model, x), cost(original, x)
    own, before = latencies([model, original], x, calls)
    return {
        "units": Metric(float(model.rnn.hidden_size), 1),  # type: ignore[union-attr, arg-type]
        "parameters": Metric(found.parameters, 1),
        "size": Metric(found.bytes / 1024, 1, "KiB"),
        "macs": Metric(float(found.macs or 0), 1),
        "macs of dense": Metric(float(dense.macs or 0), 1),
        "latency": Metric(1e3 * own, calls, "ms"),
        "latency of dense": Metric(1e3 * before, calls, "ms"),
    }


def _runs(records: Sequence[Record]) -> list[list[Record]]:
    """The records of each (data, seed), in the order of the rows of the table."""
    order = ("dense", *CRITERIA, "small")
    keys = dict.fromkeys((r.task["data"], r.seed) for r in records)
    runs = [[r for r in records if (r.task["data"], r.seed) == key] for key in keys]
    return [sorted(run, key=lambda r: order.index(r.task["what"])) for run in runs]


NAMES = {"dense": "none (dense)", "small": "small dense"}


def _accuracies(run: Sequence[Record]) -> Table:
    first, rows = run[0], []
    for record in run:
        stages = [record.metrics.get(f"accuracy {stage}") for stage in STAGES]
        cells = ["–" if metric is None else f"{100 * metric.value:.2f}" for metric in stages]
        rows.append((NAMES.get(record.task["what"], record.task["what"]), *cells))
    last = first.metrics["accuracy tuned"]
    half = 196 * (last.value * (1 - last.value) / last.n) ** 0.5
    caption = (
        f"Test accuracy on {first.task['data']} after each step, seed {first.seed}; "
        f"{percent(first.config['sparsity'])} of the units removed. Cut: the units are gone; folded: the others are "
        "repaired without training. Small dense: as wide as the pruned networks, trained from scratch. "
        f"{last.n:,} test sequences: chance alone moves each figure by ± {half:.1f} points "
        "(95 %)."
    )
    columns = ("choice of units", "cut (%)", "folded (%)", "fine-tuned (%)")
    return Table(f"Half of an LSTM on {first.task['data']}: accuracy", columns, tuple(rows), caption)


def _sizes(run: Sequence[Record]) -> Table:
    rows = []
    for record in run:
        value = {name: metric.value for name, metric in record.metrics.items()}
        row: tuple[Cell, ...] = (
            NAMES.get(record.task["what"], record.task["what"]),
            int(value["parameters"]),
            f"{value['size']:.1f}",
            f"{2e-6 * value['macs']:.3f}",
            f"{value['latency']:.3f}",
            f"{value['latency of dense']:.3f}",
            f"{value['latency of dense'] / value['latency']:.2f}",
        )
        rows.append(row)
    units = " or ".join(str(n) for n in dict.fromkeys(int(record.metrics["units"].value) for record in run))
    caption = (
        f"Networks of {units} units. MFLOP: of one sequence. ms: median time of one sequence on one thread; beside it that "
        "of the dense network, measured alternately with it, and the ratio of the two."
    )
    columns = ("choice of units", "parameters", "KiB", "MFLOP", "ms", "dense ms", "speed-up")
    return Table(f"Half of an LSTM on {run[0].task['data']}: size and speed", columns, tuple(rows), caption)


def _structure_figures(run: Sequence[Record]) -> list[Figure]:
    figures = []
    for record in run:
        persistence = record.data.get("persistence")
        if persistence:
            caption = persistence_caption(persistence)
            figures.append(Figure("persistence", "Persistence of irreducibility", persistence, caption))
        hasse = record.data.get("hasse")
        if hasse:
            figures.append(
                Figure("hasse", "Dependency lattice of the strongest influences", hasse, hasse_caption(hasse))
            )
    return figures


def _accuracy_against_size(run: Sequence[Record]) -> Figure:
    series = []
    for record in run:
        stages = [stage for stage in STAGES if f"accuracy {stage}" in record.metrics]
        size = record.metrics["parameters"].value
        y = [100 * record.metrics[f"accuracy {stage}"].value for stage in stages]
        label = NAMES.get(record.task["what"], record.task["what"])
        series.append({"label": label, "x": [size] * len(y), "y": y})
    payload = {"x_label": "parameters", "y_label": "test accuracy (%)", "series": series, "log_x": True, "apart": True}
    caption = (
        "A line joins the stages of one pruned network: after the cut (lowest), after the fold, after fine-tuning. All "
        "pruned networks and the small dense one have the same size, that of their group's centre; they stand side by side "
        "to be told apart."
    )
    return Figure("scatter", "Accuracy against size", payload, caption)


STUDY = Demo()
