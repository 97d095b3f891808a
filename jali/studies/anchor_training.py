"""The trainings of the external anchor study: what is pruned when, the recipe, and a training that can be put down."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jali.data import Dataset, batches
from jali.errors import JaliError
from jali.files import atomic_write
from jali.runs.record import canonical
from jali.schedule import Cubic, OneShot, RigL, Schedule
from jali.studies.base import Metric, Progress, RecordStore, Task
from jali.studies.training import SequenceClassifier, accuracy, shifted
from jali.surgery.pruner import Pruner

PAPER_EPOCHS, PAPER_UNITS, PAPER_SPARSITY, PAPER_DATA = 50, 400, 0.95, "mnist"
When = Literal["never", "initialisation", "training"]


@dataclass(frozen=True)
class Method:
    """When a network is pruned, by which criterion, and which of the published figures it stands beside."""

    when: When
    criterion: str
    schedule: Literal["", "cubic", "rigl"] = ""
    beside: Literal["random", "theirs", "dense"] = "theirs"

    @property
    def label(self) -> str:
        """For tables, e.g. "cubic schedule, magnitude"."""
        if self.when == "never":
            return "dense"
        how = {"cubic": "cubic schedule", "rigl": "RigL", "": "at initialisation"}[self.schedule]
        return f"{how}, {self.criterion}"


METHODS = {
    "dense": Method("never", "", beside="dense"),
    "random": Method("initialisation", "random", beside="random"),
    "magnitude": Method("initialisation", "magnitude"),
    "taylor": Method("initialisation", "taylor"),
    "cubic": Method("training", "magnitude", "cubic"),
    "rigl": Method("training", "magnitude", "rigl"),
}


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
    sparsity: float = PAPER_SPARSITY
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


class Training:
    """One training, pruned as its task says; put down after any epoch, it is taken up again where it was."""

    def __init__(self, recipe: AnchorRecipe, lr: float, task: Task, data: Dataset, workspace: RecordStore) -> None:
        self.recipe, self.data, self.method = recipe, data, METHODS[task.key["method"]]
        self.device = torch.device(task.config["device"])
        self.name = "-".join(str(part) for part in task.key.values()) + ".pt"
        self.path = workspace.artifacts / self.name
        self.made_by = canonical({"key": task.key, "config": task.config, "lr": lr})
        self.generator = torch.Generator().manual_seed(task.seed)
        self.model = network(task.key["cell"], data, recipe.hidden, task.seed).to(self.device)
        steps = recipe.epochs * -(-len(data.train.x) // recipe.batch)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=lr, weight_decay=0.0)
        self.rate = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, lr, total_steps=steps, pct_start=recipe.warmup)
        self.pruner = self._pruner(steps, task.seed)
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
