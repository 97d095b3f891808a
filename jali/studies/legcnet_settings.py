"""The seven data sets of the LEGCNet studies, and how each is trained and pruned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from jali.evidence.windows import Method
from jali.studies.base import Settings, Task
from jali.studies.legcnet_networks import Descent

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
    descent = replace(setting.descent, epochs=min(setting.descent.epochs, 2 if setting.apart else 6), patience=2)
    early = 1 if setting.apart else 3  # of fewer epochs than are trained
    return replace(setting, early=early, descent=descent, choices=setting.choices[:2], draws=1, watched=500, window=20)


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
