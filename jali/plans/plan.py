"""Plans as data: checked when they are made, JSON in and out."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import os
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jali.errors import BudgetError, FileError, PlanError
from jali.files import atomic_write
from jali.plans.budget import Budget, is_finite, is_whole
from jali.plans.pattern import Pattern
from jali.site import GATES, Site

SCHEMA = 1
Granularity = Literal["unit", "weight"]
_WEIGHTS = ("w_in", "w_rec")


@dataclass(frozen=True)
class SitePlan:
    """What goes at one site: ``removed`` unit indices, or for weights ``keep`` masks per view field.

    ``scores`` are the unit scores that decided, one per unit; ``keep`` has boolean masks of ``w_in`` (G, H, I) and
    ``w_rec`` (G, H, R). A plan of weights has neither ``removed`` nor ``scores``.
    Raises :class:`PlanError` for indices out of range or duplicated, and for anything of another type or shape.
    """

    name: str
    kind: str
    size: int
    removed: tuple[int, ...] = ()
    scores: tuple[float, ...] = ()
    keep: Mapping[str, np.ndarray] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        _expect(isinstance(self.name, str), f"site name {self.name!r} is not a string")
        where = f"site {self.name!r}"
        _expect(self.kind in tuple(GATES), f"{where}: kind {self.kind!r} is none of {', '.join(GATES)}")
        _expect(is_whole(self.size) and self.size >= 1, f"{where}: size {self.size!r} is not a number of units")
        for unit in self.removed:
            limit = f"0..{self.size - 1}"
            _expect(is_whole(unit), f"{where}: removed unit {unit!r} is not an integer in {limit}")
            _expect(0 <= unit < self.size, f"{where}: removed unit {unit} is outside {limit}")
        _expect(len(set(self.removed)) == len(self.removed), f"{where}: a removed unit is listed twice")
        for score in self.scores:
            _expect(is_finite(score), f"{where}: score {score!r} is not a finite number")
        count = 0 if self.keep else self.size
        _expect(len(self.scores) == count, f"{where}: {len(self.scores)} scores, {count} wanted for {self.size} units")
        _expect(
            not (self.keep and self.removed), f"{where}: it removes units and weights; one of the two can be planned"
        )
        for name, mask in self.keep.items():
            _expect(name in _WEIGHTS, f"{where}: mask {name!r} is none of {', '.join(_WEIGHTS)}")
            _expect(
                mask.dtype == np.bool_ and mask.ndim == 3 and mask.shape[:2] == (GATES[self.kind], self.size),
                f"{where}: mask {name!r} of shape {mask.shape} does not fit {GATES[self.kind]} gates of {self.size} units",
            )
        object.__setattr__(self, "size", int(self.size))
        object.__setattr__(self, "removed", tuple(int(unit) for unit in self.removed))
        object.__setattr__(self, "scores", tuple(float(score) for score in self.scores))

    def __eq__(self, other: object) -> bool:
        # The comparison that dataclasses generate stops at arrays, and the masks are the decision.
        return isinstance(other, SitePlan) and _site_to_json(self) == _site_to_json(other)

    @property
    def kept(self) -> np.ndarray:
        """Indices of the kept units, ascending."""
        return np.setdiff1d(np.arange(self.size), np.asarray(self.removed, dtype=int))

    def counts(self) -> tuple[int, int]:
        """(removed, total) of what this site's plan counts: units, or weights."""
        if self.keep:
            return sum(int((~m).sum()) for m in self.keep.values()), sum(m.size for m in self.keep.values())
        return len(self.removed), self.size


@dataclass(frozen=True)
class Plan:
    """The decision as data: which units or weights go at which site, chosen how, with which sparsity reached.

    ``pattern``: which weights went together (:mod:`jali.plans.pattern`); None for units, and for weights one by one.
    Raises :class:`PlanError` if there is no site, a site is named twice, or a site is planned in the other granularity.
    """

    granularity: Granularity
    criterion: str
    budget: Budget
    sites: tuple[SitePlan, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    notes: tuple[str, ...] = ()
    pattern: str | None = None

    def __post_init__(self) -> None:
        if self.pattern is not None:
            _expect(
                self.granularity == "weight", f"pattern {self.pattern!r} is one of weights, and the plan is of units"
            )
            try:
                Pattern.parse(self.pattern)
            except BudgetError as error:
                raise PlanError(f"not a valid plan: {error}") from None
        _expect(
            self.granularity in ("unit", "weight"), f"granularity {self.granularity!r} is neither 'unit' nor 'weight'"
        )
        _expect(isinstance(self.criterion, str), f"criterion {self.criterion!r} is not a string")
        _expect(len(self.sites) > 0, "it has no site")
        names = [site.name for site in self.sites]
        _expect(len(set(names)) == len(names), f"a site is named twice among {', '.join(names)}")
        for site in self.sites:
            _expect(
                bool(site.keep) == (self.granularity == "weight"),
                f"site {site.name!r} is not planned in {self.granularity} granularity",
            )
        _expect(is_whole(self.seed), f"seed {self.seed!r} is not an integer")
        _expect(all(isinstance(note, str) for note in self.notes), "a note is not a string")
        object.__setattr__(self, "seed", int(self.seed))

    @property
    def counted(self) -> str:
        """What the sparsity counts."""
        return "units of the planned sites" if self.granularity == "unit" else "weights of w_in and w_rec (no biases)"

    @property
    def sparsity(self) -> float:
        """Fraction removed, over all planned sites."""
        removed, total = (sum(column) for column in zip(*(s.counts() for s in self.sites), strict=True))
        return removed / total

    def site(self, name: str) -> SitePlan:
        """The plan of one site; :class:`PlanError` if there is none of that name."""
        for site in self.sites:
            if site.name == name:
                return site
        raise PlanError(f"the plan has no site {name!r}; it has {', '.join(s.name for s in self.sites)}")

    def check(self, model_sites: Sequence[Site]) -> dict[str, Site]:
        """Site name → site of the model, or :class:`PlanError` where the plan does not fit the model."""
        known = {site.name: site for site in model_sites}
        for planned in self.sites:
            site = known.get(planned.name)
            if site is None:
                raise PlanError(
                    f"the plan has site {planned.name!r}, the model has {', '.join(known)}; use the right model"
                )
            if (site.kind, site.size) != (planned.kind, planned.size):
                raise PlanError(
                    f"site {planned.name!r} is a {planned.kind} of {planned.size} units in the plan but a {site.kind} of "
                    f"{site.size} in the model; make the plan from this model"
                )
            if len(planned.kept) < site.minimum:
                raise PlanError(
                    f"the plan keeps {len(planned.kept)} units at {planned.name!r}, but at least {site.minimum} must stay"
                )
        return {planned.name: known[planned.name] for planned in self.sites}

    def __str__(self) -> str:
        pattern = f" in pattern {self.pattern}" if self.pattern else ""
        lines = [
            f"Plan by {self.criterion!r}{pattern}: sparsity {self.sparsity:.4f} reached, counted over {self.counted}",
            *(
                f"  {s.name:<24} {s.kind:<6} {s.counts()[1] - s.counts()[0]:>7} of {s.counts()[1]:>7} kept"
                for s in self.sites
            ),
            *(f"  note: {note}" for note in self.notes),
        ]
        return "\n".join(lines)

    def to_json(self) -> str:
        """The plan as strict JSON; :class:`PlanError` for options that JSON cannot hold."""
        body = {
            "schema": SCHEMA,
            "granularity": self.granularity,
            "criterion": self.criterion,
            "options": dict(self.options),
            "seed": self.seed,
            "budget": dataclasses.asdict(self.budget),
            "sparsity": self.sparsity,
            "counted": self.counted,
            "notes": list(self.notes),
            "pattern": self.pattern,
            "sites": [_site_to_json(site) for site in self.sites],
        }
        try:
            return json.dumps(body, indent=1, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise PlanError(
                f"options {dict(self.options)!r} are not JSON ({error}); give plain finite values"
            ) from None

    @staticmethod
    def from_json(text: str) -> Plan:
        """The plan that ``to_json`` wrote; :class:`PlanError` for anything else."""
        body = _parse(text)
        schema = body.get("schema") if isinstance(body, dict) else None
        if not is_whole(schema) or schema != SCHEMA:
            raise PlanError(f"the plan has schema {_short(schema)}, this version of jali reads schema {SCHEMA}")
        names = [f.name for f in dataclasses.fields(Plan)]
        _fields(body, ["schema", *names, "sparsity", "counted"], "the plan")
        _fields(body["budget"], [f.name for f in dataclasses.fields(Budget)], "budget")
        _expect(isinstance(body["options"], dict), f"options {_short(body['options'])} is not an object")
        try:
            budget = Budget(**body["budget"])
        except BudgetError as error:
            raise PlanError(f"not a valid plan: {error}") from None
        read = {
            "budget": budget,
            "sites": tuple(_site_from_json(site) for site in _list(body["sites"], "sites")),
            "notes": tuple(_list(body["notes"], "notes")),
        }
        plan = Plan(**{name: body[name] for name in names} | read)
        for name in ("sparsity", "counted"):
            found = getattr(plan, name)
            _expect(
                type(body[name]) is type(found) and body[name] == found,
                f"{name} says {_short(body[name])}, but what it removes gives {found!r}",
            )
        return plan

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the plan as JSON, whole or not at all."""
        atomic_write(path, (self.to_json() + "\n").encode())

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Plan:
        """Read a plan; :class:`FileError` if there is none, :class:`PlanError` if it is not understood."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise FileError(f"cannot read the plan {str(path)!r} ({error}); check the path") from None
        return Plan.from_json(text)


def _expect(holds: bool, problem: str) -> None:
    if not holds:
        raise PlanError(f"not a valid plan: {problem}; make it again with jali.plan")


def _short(value: Any) -> str:
    return reprlib.repr(value)


def _parse(text: str) -> Any:
    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not a JSON number")

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise PlanError(f"the plan is not valid JSON ({error}); it may be truncated: write it again") from None


def _fields(body: Any, names: Sequence[str], where: str) -> None:
    _expect(isinstance(body, dict), f"{where} is {_short(body)}, not an object")
    missing, unknown = [n for n in names if n not in body], [n for n in body if n not in names]
    _expect(not missing, f"{where} lacks {', '.join(missing)}")
    _expect(not unknown, f"{where} has unknown fields {', '.join(unknown)}")


def _list(value: Any, where: str) -> list[Any]:
    _expect(isinstance(value, list), f"{where} is {_short(value)}, not a list")
    return list(value)


def _site_to_json(site: SitePlan) -> dict[str, Any]:
    body: dict[str, Any] = {"name": site.name, "kind": site.kind, "size": site.size}
    if not site.keep:
        return body | {"removed": list(site.removed), "scores": list(site.scores)}
    bits = {name: base64.b64encode(np.packbits(mask).tobytes()).decode("ascii") for name, mask in site.keep.items()}
    return body | {"keep": {name: {"shape": list(site.keep[name].shape), "bits": bits[name]} for name in bits}}


def _site_from_json(body: Any) -> SitePlan:
    weights = isinstance(body, dict) and "keep" in body
    _fields(body, ["name", "kind", "size", *(["keep"] if weights else ["removed", "scores"])], "a site")
    read: dict[str, Any]
    if weights:
        _expect(isinstance(body["keep"], dict) and bool(body["keep"]), f"keep is {_short(body['keep'])}, not masks")
        read = {"keep": {name: _mask_from_json(mask, name) for name, mask in body["keep"].items()}}
    else:
        read = {name: tuple(_list(body[name], name)) for name in ("removed", "scores")}
    return SitePlan(**body | read)


def _mask_from_json(body: Any, name: str) -> np.ndarray:
    _fields(body, ["shape", "bits"], f"mask {name!r}")
    shape = tuple(_list(body["shape"], "shape"))
    _expect(all(is_whole(n) and n >= 1 for n in shape), f"mask {name!r} has shape {_short(shape)}")
    try:
        raw = np.frombuffer(base64.b64decode(body["bits"], validate=True), dtype=np.uint8)
    except (TypeError, ValueError) as error:
        raise PlanError(f"mask {name!r} is not base64 ({error}); the plan is damaged: make it again") from None
    count = math.prod(shape)
    _expect(
        len(raw) == (count + 7) // 8, f"mask {name!r} of shape {shape} has {len(raw)} bytes, not {(count + 7) // 8}"
    )
    return np.unpackbits(raw, count=count).astype(bool).reshape(shape)
