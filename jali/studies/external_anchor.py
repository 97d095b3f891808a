"""Sparse recurrent networks beside another group's published ones: MNIST by rows, 400 units, 95 % of the weights removed.

M. S. Zhang and B. Stadie prune at initialisation, by the sensitivity of the recurrent Jacobian's spectrum, and print the
validation error of that, of random pruning and of the dense network (:data:`PUBLISHED`). Their parameter counts (171k for
the basic cell, 400 · (28 + 400)) say what they prune: input and recurrent weights together, no biases, the head dense.
The same share goes here, in two ways that the tables keep apart: at initialisation, and during training.

Theirs: Adam, learning rate 1e-3, batches of 64, 50 epochs, Glorot initialisation, initial state zero. Here: Glorot for every
gate's matrix, biases and initial state zero; otherwise the recipe is our own
(:class:`AnchorRecipe`): AdamW with one cycle of the learning rate, images shifted by up to a pixel, gradients clipped. The
learning rate of each cell and the epoch of each network are chosen on a validation part of the training set; the test part,
which we take their "validation" to be, is read once per network, after that. On a CPU the run has fewer epochs than theirs, and
its forward and backward passes are in bfloat16: records and tables call it reduced.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jali.data import Dataset, Split, batches, load
from jali.errors import JaliError
from jali.files import atomic_write
from jali.report.tables import Cell
from jali.runs.record import canonical
from jali.schedule import Cubic, OneShot, RigL, Schedule
from jali.studies.base import (
    Comparison,
    Figure,
    Metric,
    Progress,
    Record,
    RecordStore,
    Settings,
    Study,
    Table,
    Task,
    comparison_table,
    over_seeds,
)
from jali.studies.training import SequenceClassifier, accuracy, shifted
from jali.surgery.pruner import Pruner

PAPER_EPOCHS, PAPER_UNITS, PAPER_DATA = 50, 400, "mnist"
# Validation error after 50 epochs at 95 % sparsity, from their table 1.
PUBLISHED = {
    "RNN": {"random": 0.0951, "theirs": 0.0757, "dense": 0.0708},
    "LSTM": {"random": 0.0217, "theirs": 0.0166, "dense": 0.0080},
    "GRU": {"random": 0.0150, "theirs": 0.0146, "dense": 0.0077},
}
When = Literal["never", "initialisation", "training"]


@dataclass(frozen=True)
class Method:
    """When a network is pruned, by which criterion, and which of the published figures it stands beside."""

    when: When
    criterion: str
    schedule: Literal["", "cubic", "rigl"] = ""
    beside: Literal["random", "theirs", "dense"] = "theirs"


METHODS = {
    "dense": Method("never", "", beside="dense"),
    "random": Method("initialisation", "random", beside="random"),
    "magnitude": Method("initialisation", "magnitude"),
    "taylor": Method("initialisation", "taylor"),
    "cubic": Method("training", "magnitude", "cubic"),
    "rigl": Method("training", "magnitude", "rigl"),
}
# What is worth most comes first, as the whole takes hours: a run that is stopped has it already.
ORDER = (
    ("LSTM", "cubic"), ("GRU", "cubic"), ("LSTM", "dense"), ("RNN", "cubic"), ("RNN", "dense"), ("RNN", "random"),
    ("GRU", "dense"), ("LSTM", "random"), ("GRU", "random"), ("LSTM", "rigl"), ("GRU", "rigl"), ("RNN", "rigl"),
    ("LSTM", "taylor"), ("GRU", "taylor"), ("RNN", "taylor"), ("LSTM", "magnitude"), ("GRU", "magnitude"),
    ("RNN", "magnitude"),
)  # fmt: skip


@dataclass(frozen=True)
class AnchorRecipe:
    """All that a result depends on but the cell and the method.

    AdamW without decay, one cycle of the learning rate, gradients clipped at norm 1, images shifted by up to ``shift``
    pixels. Each cell's ``lrs`` are tried for ``pilot_epochs`` of pruning during training (seed 0), and the best on the
    validation part is the peak for all that is made of the cell. ``cubic``: where in the training pruning starts and ends;
    ``every``: steps from one change of the mask to the next; ``rigl``: where RigL's changes end, and its fraction.
    ``calibration`` sequences, in batches of ``calibration_batch``, choose at initialisation where a criterion needs data.
    """

    data: str = PAPER_DATA
    hidden: int = PAPER_UNITS
    sparsity: float = 0.95
    epochs: int = PAPER_EPOCHS
    batch: int = 128
    lrs: tuple[float, ...] = (1e-3, 3e-3)
    pilot_epochs: int = 2
    shift: int = 1
    warmup: float = 0.15
    cubic: tuple[float, float] = (0.05, 0.6)
    every: int = 50
    rigl: tuple[float, float] = (0.75, 0.3)
    calibration: int = 512
    calibration_batch: int = 64
    precision: Literal["float32", "bfloat16"] = "float32"


WHOLE = AnchorRecipe()
REDUCED = replace(WHOLE, epochs=20, precision="bfloat16")
QUICK = replace(
    WHOLE, data="digits", hidden=32, epochs=10, batch=64, lrs=(5e-3, 1e-2), pilot_epochs=2, every=5, shift=0
)


def reduced(config: dict[str, Any]) -> str:
    """In what a run is less than the paper's, or nothing."""
    parts = [config["data"]] if config["data"] != PAPER_DATA else []
    parts += [f"{config['hidden']} units"] if config["hidden"] != PAPER_UNITS else []
    parts += [f"{config['epochs']} of the paper's {PAPER_EPOCHS} epochs"] if config["epochs"] < PAPER_EPOCHS else []
    return f"reduced: {', '.join(parts)}" if parts else ""


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
        training = _Training(recipe, task, data, workspace)
        training.run(progress)
        curve = {"validation error": training.curve}
        if "lr" in task.key:
            metrics = {"validation error": Metric(training.curve[-1], len(data.validation.x))}
            return task.record(self.name, metrics, data=curve, notes=notes)
        return task.record(self.name, training.scores(), data={**curve, "lr": training.lr}, notes=notes)

    def summary(self, records: Sequence[Record]) -> list[Table]:
        made = [record for record in records if "lr" not in record.task]
        tables = [_against_published(made, when) for when in _CAPTIONS] + [_details(made)] if made else []
        return [*tables, _learning_rates(records)] if records else []

    def figures(self, records: Sequence[Record]) -> list[Figure]:
        made = [record for record in records if "lr" not in record.task]
        return [_curves(made, cell) for cell in PUBLISHED if any(r.task["cell"] == cell for r in made)]


def _keys(recipe: AnchorRecipe, seed: int) -> Iterator[tuple[tuple[tuple[str, Any], ...], str]]:
    """Keys (as items, so that the pilots, which seeds share, come once) and titles, in order."""
    for cell, method in ORDER:
        for lr in recipe.lrs:
            yield (
                (("cell", cell), ("method", "cubic"), ("lr", lr), ("seed", 0)), f"{cell}: is {lr:g} the learning rate?"
            )  # fmt: skip
        yield (("cell", cell), ("method", method), ("seed", seed)), f"{cell}, {_shown(method)}, seed {seed}"


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


# --- training ---------------------------------------------------------------------------------------------------------


class _Training:
    """One training, pruned as its task says; put down after any epoch, it is taken up again where it was."""

    def __init__(self, recipe: AnchorRecipe, task: Task, data: Dataset, workspace: RecordStore) -> None:
        self.data, self.method = data, METHODS[task.key["method"]]
        pilot = "lr" in task.key
        self.lr = task.key["lr"] if pilot else _chosen_lr(task, workspace)
        self.recipe = replace(recipe, epochs=recipe.pilot_epochs) if pilot else recipe
        self.device = torch.device(task.config["device"])
        self.name = "-".join(str(part) for part in task.key.values()) + ".pt"
        self.path = workspace.artifacts / self.name
        self.made_by = canonical({"key": task.key, "config": task.config, "lr": self.lr})
        self.generator = torch.Generator().manual_seed(task.seed)
        self.model = network(task.key["cell"], data, recipe.hidden, task.seed).to(self.device)
        self.steps = -(-len(data.train.x) // recipe.batch)  # in an epoch
        total = self.steps * self.recipe.epochs
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=self.lr, weight_decay=0.0)
        self.rate = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, self.lr, total_steps=total, pct_start=recipe.warmup
        )
        self.pruner = self._pruner(total, task.seed)
        self.curve: list[float] = []  # validation error after every epoch
        self.best: tuple[int, dict[str, Tensor]] | None = None  # epochs done, weights
        self._resume()

    def _pruner(self, steps: int, seed: int) -> Pruner | None:
        recipe, method = self.recipe, self.method
        if method.when == "never":
            return None
        schedule: Schedule = OneShot()
        if method.schedule == "cubic":
            start, end = (round(part * steps) for part in recipe.cubic)
            schedule = Cubic(start=start, end=end, every=recipe.every)
        elif method.schedule == "rigl":
            last, fraction = recipe.rigl
            schedule = RigL(every=2 * recipe.every, end=round(last * steps), fraction=fraction)
        x, y = (part[: recipe.calibration].split(recipe.calibration_batch) for part in self.data.train)
        measured = list(zip(x, y, strict=True)) if method.criterion == "taylor" else None
        return Pruner(
            self.model, method.criterion, recipe.sparsity, schedule, self.optimizer, data=measured,
            granularity="weight", sites=["rnn.*"], seed=seed,
        )  # fmt: skip

    def run(self, progress: Progress) -> None:
        """Train to the end; the model then has the weights of the best epoch of those in which the pruning was over."""
        while (epoch := len(self.curve)) < self.recipe.epochs:
            so_far = f", validation error {100 * self.curve[-1]:.2f} %" if self.curve else ""
            progress(f"epoch {epoch + 1} of {self.recipe.epochs}{so_far}", epoch / self.recipe.epochs)
            self._epoch()
            error = 1 - accuracy(self.model, self.data.validation)
            over = self.pruner is None or self.pruner.finished
            if over and (self.best is None or error < self.curve[self.best[0] - 1]):
                self.best = epoch + 1, {name: value.clone() for name, value in self.model.state_dict().items()}
            self.curve.append(error)
            self._save()
        if self.best is not None:
            self.model.load_state_dict(self.best[1])
        self.path.unlink(missing_ok=True)

    def _epoch(self) -> None:
        recipe, low = self.recipe, self.recipe.precision == "bfloat16"
        self.model.train()
        for x, y in batches(*self.data.train, recipe.batch, self.generator, shuffle=True):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=low):
                out = self.model(shifted(x, recipe.shift, self.generator))
            self.optimizer.zero_grad()
            F.cross_entropy(out.float(), y).backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.rate.step()
            if self.pruner is not None:
                self.pruner.step()
        if self.pruner is not None:
            self.pruner.epoch()
        self.model.eval()

    def scores(self) -> dict[str, Metric]:
        """Errors of the chosen epoch's weights, in [0, 1], and what is left of the recurrent layer."""
        if self.best is None:
            raise JaliError(f"{self.name}: the schedule of the pruning does not end within {self.recipe.epochs} epochs")
        parts = {"validation": self.data.validation, "test": self.data.test}
        scores = {f"{name} error": Metric(1 - accuracy(self.model, each), len(each.x)) for name, each in parts.items()}
        weights = [p for name, p in self.model.named_parameters() if name.startswith("rnn.weight")]
        total, left = sum(p.numel() for p in weights), sum(int((p != 0).sum()) for p in weights)
        counts = {"removed": Metric(1 - left / total, 1), "weights left": Metric(left, 1)}
        return scores | counts | {"epoch": Metric(self.best[0], 1)}

    def _state(self) -> dict[str, Any]:
        parts: dict[str, Any] = {
            "model": self.model,
            "optimizer": self.optimizer,
            "rate": self.rate,
            "pruner": self.pruner,
        }
        return {name: part.state_dict() for name, part in parts.items() if part is not None}

    def _save(self) -> None:
        content = io.BytesIO()
        drawn = {"generator": self.generator.get_state(), "curve": self.curve, "best": self.best}
        torch.save({"made by": self.made_by, **self._state(), **drawn}, content)
        atomic_write(self.path, content.getvalue())

    def _resume(self) -> None:
        if not self.path.exists():
            return
        saved = torch.load(self.path, map_location=self.device, weights_only=True)
        if saved["made by"] != self.made_by:
            return
        for name in self._state():
            getattr(self, name).load_state_dict(saved[name])
        self.generator.set_state(saved["generator"].cpu())
        self.curve, self.best = saved["curve"], saved["best"]


def network(cell: str, data: Dataset, hidden: int, seed: int) -> nn.Module:
    """A classifier with one layer of ``cell`` ("RNN", "LSTM", "GRU"): Glorot for every gate's matrix, biases zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SequenceClassifier(data.features, hidden, data.classes, cell)
        for name, parameter in model.named_parameters():
            if "bias" in name:
                nn.init.zeros_(parameter)
            else:
                for gate in parameter.detach().split(hidden):
                    nn.init.xavier_uniform_(gate)
    return model


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


# --- tables and figures -----------------------------------------------------------------------------------------------

_CAPTIONS: dict[When, str] = {
    "training": (
        "Published: pruned at initialisation by the spectrum of the Jacobian. Ours trains the weights that go until they do, "
        "which costs a dense training; the published networks are sparse from the start."
    ),
    "initialisation": (
        "As published: the mask is fixed before training. Beside random pruning the published random one, beside the other "
        "criteria the published Jacobian spectrum."
    ),
    "never": "Dense networks of 400 units, nothing removed.",
}
_TITLES: dict[When, str] = {
    "training": "Pruned during training", "initialisation": "Pruned at initialisation", "never": "Dense",
}  # fmt: skip


def _shown(method: str) -> str:
    made = METHODS[method]
    if made.when == "never":
        return "dense"
    how = {"cubic": "cubic schedule, ", "rigl": "RigL, ", "": "at initialisation, "}[made.schedule]
    return f"{how}{made.criterion}"


def _label(records: Sequence[Record]) -> str:
    """What is reduced in these runs, in brackets for a title."""
    labels = sorted({reduced(record.config) for record in records} - {""})
    return f" ({'; '.join(labels)})" if labels else ""


def _where(cell: str, method: str):  # type: ignore[no-untyped-def]
    return lambda record: (record.task["cell"], record.task["method"]) == (cell, method)


def _pairs(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Cells and methods that were run, in the published order of the cells."""
    found = {(record.task["cell"], record.task["method"]) for record in records}
    return [(cell, method) for cell in PUBLISHED for method in METHODS if (cell, method) in found]


def _against_published(records: Sequence[Record], when: When) -> Table:
    lines = []
    for cell, method in _pairs(records):
        if METHODS[method].when == when:
            result = over_seeds(records, "test error", _where(cell, method))
            lines.append(Comparison(f"{cell}, {_shown(method)}", PUBLISHED[cell][METHODS[method].beside], result))
    sparsity = f"{100 * records[-1].config['sparsity']:g} % of input and recurrent weights removed. "
    caption = (
        "" if when == "never" else sparsity
    ) + f"{_CAPTIONS[when]} Ours: test error, mean ± 95 % interval over seeds."
    title = f"{_TITLES[when]}: error{_label(records)}"
    return comparison_table(title, lines, unit="%", scale=100, caption=caption, whose="published")


def _details(records: Sequence[Record]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for cell, method in _pairs(records):
        own = [record for record in records if _where(cell, method)(record)]

        def text(metric: str, digits: int, scale: float = 1.0, own: Sequence[Record] = own) -> str:
            return over_seeds(own, metric).text(digits, scale)

        rates = ", ".join(f"{lr:g}" for lr in sorted({record.data["lr"] for record in own}))
        errors = (text("validation error", 2, 100), text("test error", 2, 100))
        rows.append(
            (f"{cell}, {_shown(method)}", text("removed", 2, 100), text("weights left", 0), *errors, text("epoch", 0), rates)
        )  # fmt: skip
    columns = ("", "removed (%)", "weights left", "validation error (%)", "test error (%)", "epoch", "learning rate")
    caption = (
        "Epoch and learning rate are chosen on the validation part of the training set; the test part is read once."
    )
    return Table(f"What was run{_label(records)}", columns, tuple(rows), caption)


def _learning_rates(records: Sequence[Record]) -> Table:
    pilots = [record for record in records if "lr" in record.task]
    rows: list[tuple[Cell, ...]] = [
        (record.task["cell"], f"{record.task['lr']:g}", f"{100 * record.metrics['validation error'].value:.2f}")
        for record in pilots
    ]
    epochs = records[-1].config["pilot_epochs"]
    caption = (
        f"Pruned on the cubic schedule within {epochs} epochs; the best of a cell is used for all of its networks."
    )
    return Table("Choice of the learning rate", ("cell", "peak", "validation error (%)"), tuple(rows), caption)


def _curves(records: Sequence[Record], cell: str) -> Figure:
    series = []
    for method in METHODS:
        own = [record for record in records if _where(cell, method)(record)]
        if own:
            curves = [record.data["validation error"] for record in own]
            mean = [100 * sum(values) / len(values) for values in zip(*curves, strict=False)]
            series.append({"label": _shown(method), "x": list(range(1, len(mean) + 1)), "y": mean})
    payload = {"x_label": "epoch", "y_label": "validation error (%)", "series": series}
    caption = "Means over seeds. The cubic schedule removes until 60 % of the training are over."
    return Figure("lines", f"{cell}: error while training{_label(records)}", payload, caption)


STUDY = ExternalAnchor()
