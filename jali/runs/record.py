"""A record: one run's result as data, strict JSON in and out.

JSON has no NaN or infinity. A *metric* that is not finite is a result (a run that diverged): it is written as ``null``,
read back as NaN, and the record carries a note that says so. Anywhere else (timings, plot payloads, configuration) a
number that is not finite is a mistake of the writer and refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

from jali.errors import FileError
from jali.plain import LARGEST_SEED, an, is_seed, is_whole, parse_json
from jali.runs.versions import versions

SCHEMA = "jali.record/1"


@dataclass(frozen=True)
class Metric:
    """A measured value, the number ``n`` of examples or repetitions behind it, and its unit ("" for a pure number)."""

    value: float
    n: int
    unit: str = ""

    def __post_init__(self) -> None:
        if is_whole(self.n):
            object.__setattr__(self, "n", int(self.n))


@dataclass(frozen=True)
class Record:
    """One run of one task of a study.

    ``task`` is the key that identifies the run within its study (for example ``{"criterion": "lattice", "seed": 0}``),
    ``config`` all settings that the result depends on (recipes, splits, counts of examples), ``timings`` seconds by
    name, ``data`` JSON payloads for plots, ``versions`` the software, its commit and the machine, ``created`` the ISO
    8601 time in UTC.

    Raises :class:`~jali.errors.FileError` when a part is of the wrong type or could not be written as JSON.
    """

    study: str
    task: dict[str, Any]
    seed: int
    config: dict[str, Any]
    metrics: dict[str, Metric]
    timings: dict[str, float] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=versions)
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def __post_init__(self) -> None:
        object.__setattr__(self, "notes", tuple(self.notes))
        for name in ("study", "created"):
            _expect(isinstance(getattr(self, name), str), f"{name} is not a string")
        _expect(_is_time(self.created), f"created {self.created!r} is not an ISO 8601 time")
        _expect(is_seed(self.seed), f"seed {self.seed!r} is not a whole number from 0 to {LARGEST_SEED}")
        object.__setattr__(self, "seed", int(self.seed))
        for name in ("task", "config", "data"):
            _expect(isinstance(getattr(self, name), dict), f"{name} is not an object")
            object.__setattr__(self, name, _plain(getattr(self, name), name))
        _expect(isinstance(self.timings, dict), "timings is not an object")
        for key, seconds in self.timings.items():
            _expect(_is_number(seconds) and math.isfinite(seconds), f"timings.{key} = {seconds!r} is not finite")
        _expect(_all_strings(self.versions), "versions is not an object of strings")
        _expect(all(isinstance(note, str) for note in self.notes), "notes is not a list of strings")
        self._check_metrics()

    def _check_metrics(self) -> None:
        _expect(isinstance(self.metrics, dict), "metrics is not an object")
        for key, metric in self.metrics.items():
            _expect(isinstance(key, str) and isinstance(metric, Metric), f"metrics.{key} is not a Metric")
            _expect(_is_number(metric.value), f"metrics.{key} = {metric.value!r} is not a number")
            _expect(is_whole(metric.n) and metric.n >= 0, f"metrics.{key}: n = {metric.n!r} is not a count")
            _expect(isinstance(metric.unit, str), f"metrics.{key}: unit {metric.unit!r} is not a string")
            note = f"metric {key} is not finite"
            if not math.isfinite(metric.value) and not any(each.startswith(note) for each in self.notes):
                object.__setattr__(self, "notes", (*self.notes, f"{note} ({metric.value})"))

    def to_json(self) -> str:
        """One line of strict ASCII JSON, keys sorted; ends without a newline."""
        value = {"schema": SCHEMA, **asdict(self)}
        for metric in value["metrics"].values():
            metric["value"] = metric["value"] if math.isfinite(metric["value"]) else None
        return json.dumps(value, sort_keys=True, allow_nan=False, ensure_ascii=True)

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Read :meth:`to_json`'s text; a FileError names an unknown schema, a missing, unknown or malformed field."""
        try:
            value = parse_json(text)
        except ValueError as error:
            raise FileError(f"not a valid record: {error}") from error
        _expect(isinstance(value, dict), "it is not a JSON object")
        found = value.pop("schema", None)
        _expect(found == SCHEMA, f"its schema is {found!r}, this version reads {SCHEMA!r}")
        _same_keys(value, {each.name for each in fields(cls)}, "field")
        _expect(isinstance(value["metrics"], dict), "metrics is not an object")
        _expect(isinstance(value["notes"], list), "notes is not a list")
        metrics = {key: _metric(key, metric) for key, metric in value["metrics"].items()}
        return cls(**{**value, "metrics": metrics, "notes": tuple(value["notes"])})


def canonical(value: Mapping[str, Any]) -> str:
    """The text by which task keys and configurations are compared: sorted JSON, so tuples equal lists."""
    return json.dumps(_plain(dict(value), "key"), sort_keys=True, allow_nan=False, ensure_ascii=True)


def _expect(holds: bool, problem: str) -> None:
    if not holds:
        raise FileError(f"not a valid record: {problem}")


def _is_number(value: object) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and is_whole(value) and abs(value) < 2**63)


def _is_time(value: str) -> bool:
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


def _all_strings(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(part, str) for item in value.items() for part in item)


def _plain(value: Any, path: str) -> Any:
    """A copy in JSON's own types; a FileError names the path of what JSON cannot hold."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        _expect(math.isfinite(value), f"{path} = {value} is not finite; write None or leave the point out")
        return value
    if isinstance(value, dict):
        _expect(all(isinstance(key, str) for key in value), f"{path} has a key that is not a string")
        return {key: _plain(each, f"{path}.{key}") for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each, f"{path}[{i}]") for i, each in enumerate(value)]
    raise FileError(f"not a valid record: {path} is {an(type(value).__name__)}; convert it to JSON's types (.tolist())")


def _same_keys(value: dict[str, Any], expected: set[str], word: str) -> None:
    missing, unknown = sorted(expected - value.keys()), sorted(value.keys() - expected)
    _expect(not missing, f"missing {word} {', '.join(missing)}")
    _expect(not unknown, f"unknown {word} {', '.join(unknown)}")


def _metric(key: str, value: Any) -> Metric:
    _expect(isinstance(value, dict), f"metrics.{key} is not an object")
    _same_keys(value, {"value", "n", "unit"}, f"part of metrics.{key}:")
    return Metric(math.nan if value["value"] is None else value["value"], value["n"], value["unit"])
