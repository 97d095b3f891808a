"""The frame of a study: what a study is, and how it is found. :mod:`jali.studies.runner` runs it.

A study's module needs this module's names only.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import jali.studies
from jali.errors import JaliError
from jali.report.tables import Comparison, Figure, Interval, Table, comparison_table, mean_interval, over_seeds
from jali.runs.record import Metric, Record
from jali.runs.store import RecordStore

__all__ = [
    "Comparison",
    "Figure",
    "Interval",
    "Metric",
    "Progress",
    "Record",
    "RecordStore",
    "Settings",
    "Study",
    "Table",
    "Task",
    "comparison_table",
    "find_study",
    "mean_interval",
    "over_seeds",
    "studies",
]


class Progress(Protocol):
    """How a running task says where it is: a few words, and the fraction of the task done (0..1) when it knows it."""

    def __call__(self, message: str, fraction: float | None = None) -> None: ...


@dataclass(frozen=True)
class Settings:
    """What the user chose: ``quick`` asks for a small run that proves the study works, ``seeds`` which seeds to run."""

    quick: bool = False
    seeds: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Task:
    """One run: its key (unique within the study, JSON scalars), and the settings that its result depends on.

    A task is done when the store holds a record with the same key and the same config; changing either runs it again.
    """

    key: dict[str, Any]
    title: str
    seed: int = 0
    config: dict[str, Any] = field(default_factory=dict)

    def record(
        self,
        study: str,
        metrics: dict[str, Metric],
        *,
        timings: dict[str, float] | None = None,
        data: dict[str, Any] | None = None,
        notes: Sequence[str] = (),
    ) -> Record:
        """The record of this task: key, seed and config are the task's own, versions and time are filled in."""
        return Record(study, self.key, self.seed, self.config, metrics, timings or {}, data or {}, tuple(notes))


def tasks_on(
    data: str, config: dict[str, Any], seeds: Iterable[int], keys: Sequence[tuple[dict[str, Any], str]]
) -> list[Task]:
    """On one data set a task for every seed and every key, which its title follows."""
    return [
        Task({**key, "data": data, "seed": seed}, f"{data}, seed {seed}: {title}", seed, config)
        for seed in seeds
        for key, title in keys
    ]


class Study(ABC):
    """A table or figure of a paper, reproduced. Tasks run in list order, so a later one may read an earlier one's
    artefacts from the workspace; ``summary`` and ``figures`` see records only, also those of an unfinished run."""

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]  # citation
    default_seeds: ClassVar[int] = 3
    listed: ClassVar[bool] = True  # False: a report of another command, which cannot be run as a study

    @abstractmethod
    def tasks(self, settings: Settings) -> list[Task]:
        """What to run, in order."""

    @abstractmethod
    def run(self, task: Task, workspace: RecordStore, progress: Progress) -> Record:
        """Run one task and return its record (see :meth:`Task.record`); artefacts go to ``workspace``."""

    @abstractmethod
    def summary(self, records: Sequence[Record]) -> list[Table]:
        """The tables: paper, ours, difference."""

    def figures(self, records: Sequence[Record]) -> list[Figure]:
        """The figures; none unless a study has some."""
        return []


# --- the registry ---------------------------------------------------------------------------------------------------


def _modules() -> dict[str, str]:
    """CLI name → module name, without importing any."""
    found = (module.name for module in pkgutil.iter_modules(jali.studies.__path__))
    return {name.replace("_", "-"): f"jali.studies.{name}" for name in sorted(found)}


def studies() -> list[Study]:
    """Every study, by name."""
    found = [getattr(importlib.import_module(module), "STUDY", None) for module in _modules().values()]
    return [study for study in found if study is not None and study.listed]


def find_study(name: str) -> Study:
    """The study of this name; JaliError with near names otherwise. Only modules of ``jali.studies`` are imported."""
    study = getattr(importlib.import_module(_modules()[name]), "STUDY", None) if name in _modules() else None
    if study is None:
        known = [each.name for each in studies()]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise JaliError(f"unknown study {name!r}; known: {', '.join(known) or 'none'}{hint}")
    return study
