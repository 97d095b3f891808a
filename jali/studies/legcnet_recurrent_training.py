"""LEGCNet on one recurrent layer that reads digits row by row: the training, its twins, and who is pruned how."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from jali.data import Dataset, Split, batches, load
from jali.errors import BudgetError, CriterionError
from jali.evidence import Perturbation, Trajectory, trajectory
from jali.evidence.twins import Training
from jali.legcnet import Goes, held, natural_budget
from jali.planning import plan
from jali.plans import Plan
from jali.site import sites
from jali.studies.legcnet_runs import matched
from jali.studies.training import SequenceClassifier, accuracy
from jali.surgery.mask import mask
from jali.view import View, read


@dataclass(frozen=True)
class RecurrentRecipe:
    """All that a result depends on but for cell and seed: gradient descent at a constant rate, in float64.

    ``early``: the share of the training that LEGCNet-PT looks at, the paper's 10 %; windows are shorter than its 200 iterates so
    that such a share has enough of them.
    """

    rate: float
    data: str = "digits"
    hidden: int = 12
    epochs: int = 30
    batch: int = 8
    window: int = 40
    early: float = 0.1
    draws: int = 2

    @classmethod
    def of(cls, config: dict[str, Any]) -> RecurrentRecipe:
        """The recipe of a task's settings: what is recorded is what is run."""
        return cls(**{key: value for key, value in config.items() if key in cls.__dataclass_fields__})

    def quick(self) -> RecurrentRecipe:
        """The same in seconds."""
        return replace(self, hidden=4, epochs=2, batch=32, window=5, draws=1, early=0.7)

    def config(self) -> dict[str, Any]:
        return asdict(self)


def doubles(recipe: RecurrentRecipe) -> Dataset:
    """The data in float64: differences of twins of 1e-8 are lost in float32."""
    data = load(recipe.data)
    train, validation, test = (Split(part.x.double(), part.y) for part in (data.train, data.validation, data.test))
    return replace(data, train=train, validation=validation, test=test)


def initial_network(data: Dataset, recipe: RecurrentRecipe, cell: str, seed: int) -> nn.Module:
    """PyTorch's own initial weights, drawn by ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SequenceClassifier(data.features, recipe.hidden, data.classes, cell).double()


def descending(data: Dataset, recipe: RecurrentRecipe, seed: int) -> Training:
    """Gradient descent on the cross-entropy of the train part; ``seed`` draws the order of the examples."""

    def train(network: nn.Module) -> Iterator[None]:
        generator = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.SGD(network.parameters(), lr=recipe.rate)
        network.train()
        for _ in range(recipe.epochs):
            for x, y in batches(*data.train, recipe.batch, generator, shuffle=True):
                optimizer.zero_grad()
                F.cross_entropy(network(x), y).backward()
                optimizer.step()
                yield

    return train


def recorded(
    start: nn.Module, data: Dataset, train: Training, recipe: RecurrentRecipe, delta: float, most: int | None = None
) -> tuple[Trajectory, nn.Module]:
    """The twins part in the first recurrent weight: the paper's w₁₁ would read a pixel at the rim that is rarely lit."""
    moved = Perturbation("rnn.weight_hh_l0", ((0, 0),), delta)
    return trajectory(
        start, train, lambda network: accuracy(network, data.train), perturbation=moved, window=recipe.window, most=most
    )


def chosen(start: nn.Module, seen: Trajectory, goes: Goes) -> Plan | None:
    """The plan of the natural threshold; None where nothing goes, or the accuracy was constant, so that nothing can be tested."""
    try:
        return plan(
            start, "causal", natural_budget(goes=goes), granularity="weight", sites=["*"], options={"goes": goes},
            trajectory=seen,
        )  # fmt: skip
    except (BudgetError, CriterionError):
        return None


def retrained(start: nn.Module, made: Plan | None, dense: nn.Module, train: Training) -> nn.Module:
    """The network without what ``made`` removes, trained from its initial weights; the dense one where nothing goes."""
    if made is None:
        return dense
    ticket = mask(start, made)
    for _ in held(ticket, made, train):
        pass
    return ticket


def controls(
    made: Plan | None, what: str, dense: nn.Module, recipe: RecurrentRecipe, seed: int
) -> Iterator[tuple[str, Plan | None]]:
    """As many weights of every matrix as ``made`` removes: the smallest of the dense network, and random ones."""
    yield f"magnitude as {what}", made and _as_many(made, dense, np.abs)
    for draw in range(recipe.draws):
        rng = np.random.default_rng([seed, draw])
        yield f"random as {what}", made and _as_many(made, dense, rng.permuted)  # scores: the values, dealt anew


def _as_many(made: Plan, dense: nn.Module, score: Callable[[np.ndarray], np.ndarray]) -> Plan:
    """A plan that keeps the highest of ``score(weights)``, as many of every matrix as ``made``."""
    views = {site.name: read(dense, site) for site in sites(dense, linear=True)}
    planned = []
    for each in made.sites:
        fields = list(each.keep)
        scores = [score(getattr(views[each.name], field)) for field in fields]
        keep = dict(zip(fields, matched([each.keep[field] for field in fields], scores), strict=True))
        planned.append(replace(each, keep=keep))
    return replace(made, sites=tuple(planned))


def weights_of(network: nn.Module) -> int:
    """Weights of all matrices; biases do not count, as they stay."""
    return sum(_matrices(read(network, site)) for site in sites(network, linear=True))


def _matrices(view: View) -> int:
    return sum(value.size for field, value in view.arrays() if field in ("w_in", "w_rec"))
