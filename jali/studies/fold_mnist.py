"""Units removed from an LSTM on MNIST by rows, repaired without retraining: choice × sparsity × repair.

The LSTM (28 → 128 → 10) reads the rows of a digit as 28 steps. Every choice of units is cut plainly, folded, and, folded,
fine-tuned for one epoch. Controls: random choice, and dense LSTMs of the same widths trained from scratch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from jali.costs import cost
from jali.data import Dataset, load
from jali.planning import plan
from jali.report.tables import Cell, percent
from jali.studies.base import (
    Comparison,
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
    comparison_table,
    mean_interval,
    over_seeds,
)
from jali.studies.training import Recipe, SequenceClassifier, accuracy, dense_classifier, fine_tuned, settings_of
from jali.surgery.compact import operate
from jali.surgery.fold import fold

SPARSITIES = (0.25, 0.5, 0.75)
STAGES = ("plain", "folded", "tuned")
CRITERIA = ("reconstruction", "lattice", "magnitude", "taylor", "moebius", "column-sum", "random")
# Constants, measured before this study on another dense LSTM of the same shape and data, cut plainly:
# (stage, who, sparsity) → accuracy. The plain cut of this study's own networks is the column "cut".
PEERS = {
    ("plain", "magnitude", 0.5): 0.557,
    ("plain", "TinyNN, l2", 0.5): 0.511,
    ("plain", "best of both", 0.25): 0.908,
    ("tuned", "best of both", 0.75): 0.956,
}


@dataclass(frozen=True)
class FoldRecipe:
    """All that the study's results depend on but for what its tables compare.

    ``hidden``: units before; ``calibration``: sequences that choose, in batches of ``calibration_batch``, and repair;
    ``draws``: how many random choices per seed.
    """

    training: Recipe
    tuning: Recipe
    data: str = "mnist"
    hidden: int = 128
    calibration: int = 4000
    calibration_batch: int = 500
    draws: int = 3


FULL = FoldRecipe(
    training=Recipe(epochs=10, batch=256, lr=5e-3, shift=1),
    tuning=Recipe(epochs=1, batch=64, lr=1e-2, shift=1, warmup=0.1),
)
QUICK = replace(FULL, training=replace(FULL.training, epochs=2), calibration=1000, draws=1)


class FoldMnist(Study):
    name = "fold-mnist"
    title = "Folding what was cut: an LSTM on MNIST by rows"
    paper = (
        "Step 5 of Algorithm 1 in R. Sengupta, Lattice-based pruning in recurrent neural networks via poset modeling"
    )
    default_seeds = 3

    def tasks(self, settings: Settings) -> list[Task]:
        recipe, sparsities = (QUICK, (0.5,)) if settings.quick else (FULL, SPARSITIES)
        config = settings_of(recipe, load(recipe.data), "validation")
        return [
            Task(key, title, seed, config) for seed in settings.seeds for key, title in _keys(recipe, sparsities, seed)
        ]

    def run(self, task: Task, workspace: RecordStore, progress: Progress) -> Record:
        recipe = _recipe(task.config)
        return (_dense if task.key["what"] == "dense" else _pruned)(
            recipe, task, load(recipe.data), workspace, progress
        )

    def summary(self, records: Sequence[Record]) -> list[Table]:
        if not records:
            return []
        return [_accuracies(records, "test"), _controls(records, "test"), _against_peers(records), _pairs(records)]

    def figures(self, records: Sequence[Record]) -> list[Figure]:
        return [_accuracy_against_size(records)] if records else []


def _recipe(config: dict[str, Any]) -> FoldRecipe:
    """The recipe of a task's settings: what is recorded is what is run."""
    own = {each.name: config[each.name] for each in fields(FoldRecipe)}
    return FoldRecipe(**own | {name: Recipe(**config[name]) for name in ("training", "tuning")})


def _keys(recipe: FoldRecipe, sparsities: Sequence[float], seed: int) -> Iterator[tuple[dict[str, Any], str]]:
    """The key and the title of every task of one seed: the dense network, what is made of it, the small dense ones."""
    yield {"what": "dense", "width": recipe.hidden, "seed": seed}, f"seed {seed}: dense"
    for criterion in CRITERIA:
        for sparsity in sparsities:
            for draw in range(recipe.draws if criterion == "random" else 1):
                key = {"what": criterion, "sparsity": sparsity, "seed": seed, "draw": draw}
                yield key, f"seed {seed}: {criterion} {percent(sparsity)}"
    for sparsity in sparsities:
        width = recipe.hidden - round(sparsity * recipe.hidden)
        yield {"what": "dense", "width": width, "seed": seed}, f"seed {seed}: {width} units from scratch"


def _dense(recipe: FoldRecipe, task: Task, data: Dataset, workspace: RecordStore, progress: Progress) -> Record:
    model = dense_classifier(data, task.key["width"], recipe.training, task.seed, progress)
    workspace.write_tensors(_weights(task.seed, task.key["width"]), model.state_dict())
    metrics = _scores("dense", model, data) | {"parameters": Metric(cost(model).parameters, 1)}
    return task.record(FoldMnist.name, metrics)


def _weights(seed: int, width: int) -> str:
    return f"dense-{width}-seed{seed}.safetensors"


def _pruned(recipe: FoldRecipe, task: Task, data: Dataset, workspace: RecordStore, progress: Progress) -> Record:
    model = SequenceClassifier(data.features, recipe.hidden, data.classes)
    model.load_state_dict(workspace.read_tensors(_weights(task.seed, recipe.hidden)))
    model.eval()
    x, y = (part[: recipe.calibration] for part in data.train)
    choice = list(zip(x.split(recipe.calibration_batch), y.split(recipe.calibration_batch), strict=True))
    seed = task.seed * recipe.draws + task.key["draw"]
    decided = plan(model, task.key["what"], task.key["sparsity"], choice, seed=seed)
    surgery = operate(model, decided, x[:8])
    metrics = _scores("plain", surgery.compact, data)
    progress("fold")
    fold(surgery, x)
    metrics |= _scores("folded", surgery.compact, data)
    progress("fine-tune")
    metrics |= _scores("tuned", fine_tuned(surgery.compact, data.train, recipe.tuning, task.seed), data)
    metrics["parameters"] = Metric(cost(surgery.compact).parameters, 1)
    removed = list(decided.sites[0].removed)
    return task.record(FoldMnist.name, metrics, data={"removed": removed}, notes=surgery.notes)


@torch.no_grad()
def _scores(stage: str, model: torch.nn.Module, data: Dataset) -> dict[str, Metric]:
    return {
        f"{stage} {part}": Metric(accuracy(model, split), len(split.x))
        for part, split in (("validation", data.validation), ("test", data.test))
    }


def _where(what: str, sparsity: float | None = None, width: int | None = None):  # type: ignore[no-untyped-def]
    def match(record: Record) -> bool:
        task = record.task
        return task["what"] == what and sparsity in (None, task.get("sparsity")) and width in (None, task.get("width"))

    return match


def _seed_means(records: Sequence[Record], what: str, sparsity: float, metric: str) -> dict[int, float]:
    """Seed → mean over the draws of that seed."""
    found: dict[int, list[float]] = {}
    for record in records:
        if _where(what, sparsity)(record):
            found.setdefault(record.seed, []).append(record.metrics[metric].value)
    return {seed: sum(values) / len(values) for seed, values in found.items()}


def _interval(records: Sequence[Record], what: str, sparsity: float, metric: str) -> Interval:
    return mean_interval(_seed_means(records, what, sparsity, metric).values())


def _hidden(records: Sequence[Record]) -> int:
    """Units of the networks that were pruned."""
    return int(records[-1].config["hidden"])


def _sparsities(records: Sequence[Record]) -> list[float]:
    return sorted({record.task["sparsity"] for record in records if "sparsity" in record.task})


def _accuracies(records: Sequence[Record], part: str) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for sparsity in _sparsities(records):
        for what in CRITERIA:
            cells = [_interval(records, what, sparsity, f"{stage} {part}").text(2, 100) for stage in STAGES]
            rows.append((what, percent(sparsity), *cells))
    columns = ("choice of units", "removed", "cut (%)", "folded (%)", "+ 1 epoch (%)")
    caption = (
        f"{part.capitalize()} accuracy of an LSTM of {_hidden(records)} units, mean ± 95 % interval over seeds; random: "
        "mean of its draws in each seed. Folded: repaired without training; + 1 epoch: then fine-tuned."
    )
    return Table("Accuracy by choice, sparsity and repair", columns, tuple(rows), caption)


def _controls(records: Sequence[Record], part: str) -> Table:
    widths = sorted({record.task["width"] for record in records if "width" in record.task}, reverse=True)
    rows = [
        (
            width,
            percent(1 - width / _hidden(records)),
            over_seeds(records, f"dense {part}", _where("dense", width=width)).text(2, 100),
        )
        for width in widths
    ]
    caption = f"{part.capitalize()} accuracy of dense LSTMs trained from scratch, mean ± 95 % interval over seeds."
    return Table("Control: small dense networks", ("units", "as if removed", "accuracy (%)"), tuple(rows), caption)


def best_choice(records: Sequence[Record], sparsity: float, stage: str) -> str | None:
    """The criterion with the best mean accuracy on the *validation* split."""
    means = {what: _interval(records, what, sparsity, f"{stage} validation").mean for what in CRITERIA}
    known = {what: mean for what, mean in means.items() if mean == mean}
    return max(known, key=lambda what: known[what]) if known else None


def _against_peers(records: Sequence[Record]) -> Table:
    lines = []
    for (stage, peer, sparsity), before in PEERS.items():
        ours = "folded" if stage == "plain" else "tuned"
        choice = best_choice(records, sparsity, ours)
        if choice is not None:
            removed = f"{percent(sparsity)} removed" + ("" if stage == "plain" else ", + 1 epoch")
            result = _interval(records, choice, sparsity, f"{ours} test")
            lines.append(Comparison(f"{removed}: {peer}; our choice: {choice}", before, result))
    caption = (
        "Before: constants, measured once on another network of the same shape, cut without any repair (TinyNN: "
        "TinyNeuralNetwork); nothing here runs them again. Most of the difference is the fold: our own plain cut is in the first "
        "table. Our choice of units was made on the validation split."
    )
    return comparison_table("Against what was there", lines, unit="%", scale=100, caption=caption, whose="before")


def _pairs(records: Sequence[Record]) -> Table:
    """Paired differences to random and to magnitude, same seed, same fold."""
    rows: list[tuple[Cell, ...]] = []
    for sparsity in _sparsities(records):
        for what in CRITERIA:
            cells: list[Cell] = []
            for other in ("random", "magnitude"):
                ours = _seed_means(records, what, sparsity, "folded test")
                theirs = _seed_means(records, other, sparsity, "folded test")
                both = sorted(set(ours) & set(theirs))
                difference = mean_interval([ours[s] - theirs[s] for s in both])
                cells.append("–" if what == other else difference.text(2, 100))
            rows.append((what, percent(sparsity), *cells))
    caption = "Folded, no training: points of test accuracy gained, paired by seed, mean ± 95 % interval."
    return Table(
        "Is the choice worth it?", ("choice", "removed", "minus random", "minus magnitude"), tuple(rows), caption
    )


def _accuracy_against_size(records: Sequence[Record]) -> Figure:
    """The choices that are not far behind, and the dense networks; all of them are in the table."""
    hidden, series = _hidden(records), []
    for what in ("reconstruction", "lattice", "magnitude", "taylor", "random"):
        points = [_interval(records, what, s, "folded test") for s in _sparsities(records)]
        series.append(_line(what, [hidden - round(s * hidden) for s in _sparsities(records)], points))
    widths = sorted({r.task["width"] for r in records if "width" in r.task})
    dense = [over_seeds(records, "dense test", _where("dense", width=w)) for w in widths]
    series.append(_line("dense, trained from scratch", widths, dense))
    payload = {"x_label": "units", "y_label": "test accuracy (%)", "series": series}
    caption = (
        "Folded without any training, beside dense networks trained from scratch. Bands: 95 % intervals over seeds."
    )
    return Figure("lines", "Accuracy against size, without retraining", payload, caption)


def _line(label: str, widths: Sequence[int], points: Sequence[Interval]) -> dict[str, Any]:
    known = [(width, point) for width, point in zip(widths, points, strict=True) if point.mean == point.mean]
    low, high = ([100 * (p.mean + sign * (p.half or 0.0)) for _, p in known] for sign in (-1, 1))
    line = {"label": label, "x": [width for width, _ in known], "y": [100 * p.mean for _, p in known]}
    return {**line, "low": low, "high": [min(value, 100.0) for value in high]}


STUDY = FoldMnist()
