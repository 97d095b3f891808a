"""How fast is an LSTM of which nothing was lost? The fastest model of each sparse pattern, and of whole units, end to end.

A dense LSTM is trained; every pattern prunes it at a ladder of sparsities, the criterion chosen on the validation split,
and fine-tunes what is left. Of the models that lose at most half a point there, the fastest counts: its test accuracy as
:func:`jali.accelerate` computes it, and its time for one sequence beside that of the dense LSTM in other engines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

import jali
from jali.data import Dataset, load
from jali.runs.record import canonical
from jali.studies.base import Figure, Metric, Progress, Record, RecordStore, Settings, Study, Table, Task, tasks_on
from jali.studies.iso_tables import accuracy_against_speed, chosen, engines, fastest, ladder, of, ratio, row_of, winners
from jali.studies.peers import (
    DENSE,
    LOSSY,
    Contestant,
    installed,
    interleaved,
    max_error,
    peers,
    quartiles,
    torch_call,
)
from jali.studies.training import Recipe, SequenceClassifier, accuracy, dense_classifier, settings_of, train
from jali.studies.variants import FAMILIES, Variant
from jali.surgery.compact import operate
from jali.surgery.fold import fold
from jali.surgery.mask import mask


@dataclass(frozen=True)
class IsoRecipe:
    """All that a result depends on but for the pattern, the sparsity and the criterion.

    ``calibration``: the first sequences of the training part score weights and fold units; ``rounds`` and ``seconds``
    measure time.
    """

    data: str
    training: Recipe
    tuning: Recipe
    hidden: int = 128
    sparsities: tuple[float, ...] = (0.8, 0.9, 0.95, 0.98)
    units: tuple[float, ...] = (0.5, 0.625, 0.75, 0.875)
    criteria: tuple[str, ...] = ("magnitude", "taylor")
    calibration: int = 4000
    calibration_batch: int = 250
    rounds: tuple[int, int] = (50, 1000)
    seconds: float = 20.0


MNIST = IsoRecipe(
    "mnist",
    training=Recipe(epochs=10, batch=256, lr=5e-3, shift=1),
    tuning=Recipe(epochs=3, batch=64, lr=1e-2, shift=1, warmup=0.1),
)
SPEECH = IsoRecipe(
    "speech-commands",
    training=Recipe(epochs=20, batch=64, lr=5e-3, shift=2),
    tuning=Recipe(epochs=10, batch=64, lr=5e-3, shift=2, warmup=0.1),
)
QUICK = IsoRecipe(
    "digits",
    training=Recipe(epochs=20, batch=64, lr=1e-2),
    tuning=Recipe(epochs=10, batch=64, lr=5e-3, warmup=0.1),
    hidden=64,
    sparsities=(0.5,),
    units=(0.25,),
    criteria=("magnitude",),
    rounds=(5, 50),
    seconds=1.0,
)


class IsoAccuracy(Study):
    name = "iso-accuracy"
    title = "The fastest LSTM of each pattern at the accuracy of the dense one"
    paper = "S. Narang, G. Diamos, S. Sengupta, E. Elsen, Exploring sparsity in recurrent neural networks, ICLR 2017"
    default_seeds = 3

    def tasks(self, settings: Settings) -> list[Task]:
        recipes = (QUICK,) if settings.quick else (MNIST, SPEECH)
        tasks: list[Task] = []
        for recipe in recipes:
            config = settings_of(recipe, _loaded(recipe.data), "validation")
            tasks += tasks_on(recipe.data, config, settings.seeds, list(_keys(recipe)))
        return tasks

    def run(self, task: Task, workspace: RecordStore, progress: Progress) -> Record:
        recipe, data = _recipe(task.config), _loaded(task.config["data"])
        step = {"dense": _dense, "pruned": _pruned, "time": _timed}[task.key["what"]]
        return step(recipe, task, data, workspace, progress)

    def summary(self, records: Sequence[Record]) -> list[Table]:
        sets = dict.fromkeys(record.task["data"] for record in records)
        parts = {name: [record for record in records if record.task["data"] == name] for name in sets}
        return [table(name, own) for name, own in parts.items() for table in (fastest, ladder, engines)]

    def figures(self, records: Sequence[Record]) -> list[Figure]:
        sets = dict.fromkeys(record.task["data"] for record in of(records, "time"))
        return [accuracy_against_speed(name, [r for r in records if r.task["data"] == name]) for name in sets]


def _keys(recipe: IsoRecipe) -> Iterator[tuple[dict[str, Any], str]]:
    """What distinguishes the tasks of one data set and seed, in order, with their titles."""
    yield {"what": "dense"}, "train the dense LSTM"
    for variant in _variants(recipe):
        for criterion in recipe.criteria:
            key = {"what": "pruned", **asdict(variant), "criterion": criterion}
            yield key, f"{variant.pattern} {variant.sparsity:g} by {criterion}"
    yield {"what": "time"}, "time all of them"


def _variants(recipe: IsoRecipe) -> list[Variant]:
    return [
        Variant(family, sparsity)
        for family in FAMILIES
        for sparsity in (recipe.units if family == "unit" else recipe.sparsities)
    ]


def _recipe(config: dict[str, Any]) -> IsoRecipe:
    """The recipe of a task's settings: what is recorded is what is run."""
    own = {each.name: config[each.name] for each in fields(IsoRecipe)}
    return IsoRecipe(**own | {name: Recipe(**config[name]) for name in ("training", "tuning")})


@lru_cache(maxsize=2)
def _loaded(name: str) -> Dataset:
    """Tasks of one set follow each other, and reading sounds takes seconds."""
    return load(name)


# --- the tasks --------------------------------------------------------------------------------------------------------


def _dense(recipe: IsoRecipe, task: Task, data: Dataset, workspace: RecordStore, progress: Progress) -> Record:
    model = dense_classifier(data, recipe.hidden, recipe.training, task.seed, progress)
    workspace.write_tensors(_weights(task.key), model.state_dict())
    return task.record(IsoAccuracy.name, _scores(model, data))


def _pruned(recipe: IsoRecipe, task: Task, data: Dataset, workspace: RecordStore, progress: Progress) -> Record:
    model = _read(data, recipe.hidden, {**_where(task), "what": "dense"}, workspace)
    x, y = (part[: recipe.calibration].split(recipe.calibration_batch) for part in data.train)
    variant = Variant(task.key["family"], task.key["sparsity"])
    decided = variant.plan(model, task.key["criterion"], list(zip(x, y, strict=True)), task.seed)
    progress("fine-tune")
    if variant.family == "unit":
        surgery = operate(model, decided, x[0][:8])
        fold(surgery, torch.cat(x))
        pruned = surgery.compact
        train(pruned, data.train, recipe.tuning, task.seed, progress)
    else:
        pruned = mask(model, decided)
        train_masked(pruned, data, recipe.tuning, task.seed, progress)
    workspace.write_tensors(_weights(task.key), pruned.state_dict())
    metrics = _scores(pruned, data) | {"width": Metric(pruned.rnn.hidden_size, 1)}  # type: ignore[union-attr, arg-type]
    return task.record(IsoAccuracy.name, metrics | {"removed": Metric(_removed(pruned, model), 1)})


def _timed(recipe: IsoRecipe, task: Task, data: Dataset, workspace: RecordStore, progress: Progress) -> Record:
    """All pruned models and the dense one in every engine, on one sequence, in one interleaved run on one thread."""
    x, where = data.test.x[:1].clone(), _where(task)
    own = [r for r in workspace.records() if _where(r) == where and canonical(r.config) == canonical(task.config)]
    dense = next(record for record in of(own, "dense"))
    original = _read(data, recipe.hidden, dense.task, workspace)
    progress("build")
    others = peers(original, x, threads=1, names=installed())
    fast, contestants, rows = {}, [], []
    for record in chosen(of(own, "pruned")):
        model = _read(data, int(record.metrics["width"].value), record.task, workspace)
        name = f"{record.task['family']} {record.task['sparsity']:g}"
        fast[name] = jali.accelerate(model, x)
        call = torch_call(fast[name], x)
        contestants.append(Contestant(name, call, max_error(call(), torch_call(model, x)())))
        rows.append(row_of(record, dense) | {"name": name, "explained": str(fast[name])})
    progress("take turns")
    times = interleaved([*others, *contestants], recipe.seconds, recipe.rounds)
    for row, each in zip(rows, contestants, strict=True):
        row |= {"seconds": quartiles(times[each.name]), "error": each.error}
    progress("test")
    for row in winners(rows):
        row["test, accelerated"] = accuracy(fast[row["name"]], data.test)
    found = [{"name": e.name, "seconds": quartiles(times[e.name]), "error": e.error} for e in others]
    metrics = {f"ratio {row['family']}": Metric(ratio(row, found), len(times[row["name"]])) for row in winners(rows)}
    missing = [name for name in (*DENSE, *LOSSY) if name not in installed()]
    notes = [f"{', '.join(missing)}: not installed (extra jali[bench])"] if missing else []
    return task.record(IsoAccuracy.name, metrics, data={"rows": rows, "engines": found}, notes=notes)


def train_masked(model: nn.Module, data: Dataset, recipe: Recipe, seed: int, progress: Progress | None = None) -> None:
    """Train ``model`` in place; recurrent weights that are zero stay zero.

    Their gradients are set to zero, and Adam without weight decay does not move a weight that never had a gradient.
    """
    weights = {name: p for name, p in model.named_parameters() if name.startswith("rnn.weight")}
    masks = {name: weight.detach() != 0 for name, weight in weights.items()}
    handles = [weight.register_hook(_masked(masks[name])) for name, weight in weights.items()]
    try:
        train(model, data.train, recipe, seed, progress)
    finally:
        for handle in handles:
            handle.remove()


def _masked(keep: Tensor) -> Any:
    return lambda gradient: gradient * keep


def _weights(key: dict[str, Any]) -> str:
    return "-".join(str(part).replace(":", "_") for part in key.values()) + ".safetensors"


def _where(of: Task | Record) -> dict[str, Any]:
    key = of.key if isinstance(of, Task) else of.task
    return {"data": key["data"], "seed": key["seed"]}


def _read(data: Dataset, width: int, key: dict[str, Any], workspace: RecordStore) -> nn.Module:
    model = SequenceClassifier(data.features, width, data.classes)
    parts = ("what", "family", "sparsity", "criterion", "data", "seed")  # in the order of the tasks' keys
    model.load_state_dict(workspace.read_tensors(_weights({part: key[part] for part in parts if part in key})))
    return model.eval()


def _scores(model: nn.Module, data: Dataset) -> dict[str, Metric]:
    parts = {"validation": data.validation, "test": data.test}
    return {name: Metric(accuracy(model, split), len(split.x)) for name, split in parts.items()}


def _removed(pruned: nn.Module, dense: nn.Module) -> float:
    """Share of the dense LSTM's weights that are gone."""
    left, before = (
        sum(int((p != 0).sum()) for name, p in model.named_parameters() if name.startswith("rnn.weight"))
        for model in (pruned, dense)
    )
    return 1 - left / before


STUDY = IsoAccuracy()
