"""Plans: what goes, from scores and a budget. Pure data and arithmetic, no model.

A :class:`Plan` is JSON with a schema version; the same scores and the same budget give the same plan, bit for bit.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jali.errors import BudgetError, FileError, PlanError
from jali.files import atomic_write
from jali.view import GATES, Site

SCHEMA = 1
Granularity = Literal["unit", "weight"]


@dataclass(frozen=True)
class Budget:
    """How much goes.

    Exactly one of ``sparsity`` (fraction of the units or weights removed, in (0, 1)) and ``threshold`` (units or weights
    with a score below it go). ``scope``: rank within each ``"site"``, or over all sites (``"global"``; scores are then
    compared as they are). ``multiple_of`` rounds the kept width *up*, ``min_width`` is the smallest width left; both hold
    for units only. Raises :class:`BudgetError` outside these ranges.
    """

    sparsity: float | None = None
    threshold: float | None = None
    scope: Literal["site", "global"] = "site"
    multiple_of: int = 1
    min_width: int = 1

    def __post_init__(self) -> None:
        if (self.sparsity is None) == (self.threshold is None):
            raise BudgetError("a budget is either a sparsity or a threshold; give exactly one of the two")
        if self.sparsity is not None and not 0.0 < self.sparsity < 1.0:
            raise BudgetError(
                f"sparsity {self.sparsity} is outside (0, 1); it is the fraction removed, e.g. 0.5 for half of the units"
            )
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise BudgetError(f"threshold {self.threshold} is not finite; give a number on the scale of the scores")
        if self.scope not in ("site", "global"):
            raise BudgetError(f"scope {self.scope!r} is unknown; it is 'site' or 'global'")
        if self.multiple_of < 1 or self.min_width < 1:
            raise BudgetError(f"multiple_of={self.multiple_of}, min_width={self.min_width}: both must be at least 1")

    @staticmethod
    def of(value: float | Budget) -> Budget:
        """A number is the sparsity; a Budget is itself."""
        if isinstance(value, Budget):
            return value
        if isinstance(value, bool) or not isinstance(value, int | float | np.floating):
            raise BudgetError(f"budget {value!r} is not a number in (0, 1) nor a jali.Budget")
        return Budget(sparsity=float(value))


@dataclass(frozen=True)
class SitePlan:
    """What goes at one site: ``removed`` unit indices, or for weights ``keep`` masks per view field.

    ``scores`` are the unit scores that decided (empty for weights).
    """

    name: str
    kind: str
    size: int
    removed: tuple[int, ...] = ()
    scores: tuple[float, ...] = ()
    keep: Mapping[str, np.ndarray] = field(default_factory=dict, compare=False)

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
    """The decision as data: which units or weights go at which site, chosen how, with which sparsity reached."""

    granularity: Granularity
    criterion: str
    budget: Budget
    sites: tuple[SitePlan, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    notes: tuple[str, ...] = ()

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
        lines = [
            f"Plan by {self.criterion!r}: sparsity {self.sparsity:.4f} reached, counted over {self.counted}",
            *(
                f"  {s.name:<24} {s.kind:<6} {s.counts()[1] - s.counts()[0]:>7} of {s.counts()[1]:>7} kept"
                for s in self.sites
            ),
            *(f"  note: {note}" for note in self.notes),
        ]
        return "\n".join(lines)

    def to_json(self) -> str:
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
            "sites": [_site_to_json(site) for site in self.sites],
        }
        return json.dumps(body, indent=1, allow_nan=False)

    @staticmethod
    def from_json(text: str) -> Plan:
        """The plan that ``to_json`` wrote; :class:`PlanError` for anything else."""
        try:
            body = json.loads(text)
        except ValueError as error:
            raise PlanError(f"the plan is not valid JSON ({error}); it may be truncated: write it again") from None
        if not isinstance(body, dict) or body.get("schema") != SCHEMA:
            found = body.get("schema") if isinstance(body, dict) else None
            raise PlanError(f"the plan has schema {found!r}, this version of jali reads schema {SCHEMA}")
        try:
            plan = Plan(
                granularity=_one_of(body["granularity"], ("unit", "weight")),
                criterion=str(body["criterion"]),
                budget=Budget(**body["budget"]),
                sites=tuple(_site_from_json(site) for site in body["sites"]),
                options=dict(body["options"]),
                seed=int(body["seed"]),
                notes=tuple(str(note) for note in body["notes"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise PlanError(f"the plan is malformed ({type(error).__name__}: {error}); write it again") from None
        if not plan.sites:
            raise PlanError("the plan has no site; write it again")
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


def decide_units(scores: Mapping[Site, np.ndarray], budget: Budget) -> dict[Site, np.ndarray]:
    """Site → indices of the removed units, ascending.

    The lowest scores go first; equal scores go by descending index, so that a plan depends on nothing else.
    """
    candidates = [(float(s), -unit, k) for k, site in enumerate(scores) for unit, s in enumerate(scores[site])]
    going: list[list[int]] = [[] for _ in scores]
    if budget.threshold is not None:
        chosen = sorted(c for c in candidates if c[0] < budget.threshold)
    elif budget.scope == "global":
        chosen = sorted(candidates)[: round(float(budget.sparsity or 0) * len(candidates))]
    else:
        chosen = sorted(candidates)
    for _, minus_unit, k in chosen:
        going[k].append(-minus_unit)
    out = {}
    for site, order in zip(scores, going, strict=True):
        count = len(order)
        if budget.threshold is None and budget.scope == "site":
            count = round(float(budget.sparsity or 0) * site.size)
        keep = max(site.size - count, budget.min_width, site.minimum)
        keep = min(site.size, math.ceil(keep / budget.multiple_of) * budget.multiple_of)
        out[site] = np.sort(np.asarray(order[: site.size - keep], dtype=int))
    return out


def decide_weights(
    scores: Mapping[Site, Mapping[str, np.ndarray]], budget: Budget
) -> dict[Site, dict[str, np.ndarray]]:
    """Site → view field → keep mask. Equal scores are kept in the order of their index."""
    if budget.multiple_of != 1 or budget.min_width != 1:
        raise BudgetError("multiple_of and min_width round widths, and a plan of weights changes none; leave them out")
    if budget.threshold is not None:
        return {site: {f: s >= budget.threshold for f, s in fields.items()} for site, fields in scores.items()}
    groups = [list(scores)] if budget.scope == "global" else [[site] for site in scores]
    out: dict[Site, dict[str, np.ndarray]] = {}
    for group in groups:
        flat = np.concatenate([scores[site][f].ravel() for site in group for f in scores[site]])
        mask = np.ones(flat.size, dtype=bool)
        order = np.argsort(-flat, kind="stable")
        mask[order[flat.size - round(float(budget.sparsity or 0) * flat.size) :]] = False
        at = 0
        for site in group:
            out[site] = {}
            for name, value in scores[site].items():
                out[site][name] = mask[at : at + value.size].reshape(value.shape)
                at += value.size
    return out


def _one_of(value: Any, allowed: tuple[str, ...]) -> Any:
    if value not in allowed:
        raise ValueError(f"{value!r} is none of {', '.join(allowed)}")
    return value


def _site_to_json(site: SitePlan) -> dict[str, Any]:
    body: dict[str, Any] = {"name": site.name, "kind": site.kind, "size": site.size}
    if site.keep:
        body["keep"] = {
            name: {"shape": list(mask.shape), "bits": base64.b64encode(np.packbits(mask).tobytes()).decode("ascii")}
            for name, mask in site.keep.items()
        }
    else:
        body["removed"] = list(site.removed)
        body["scores"] = list(site.scores)
    return body


def _site_from_json(body: Any) -> SitePlan:
    name, kind, size = str(body["name"]), _one_of(body["kind"], tuple(GATES)), int(body["size"])
    if "keep" in body:
        keep = {str(key): _mask_from_json(value) for key, value in body["keep"].items()}
        return SitePlan(name, kind, size, keep=keep)
    removed = tuple(int(unit) for unit in body["removed"])
    if size < 1 or len(set(removed)) != len(removed) or any(not 0 <= unit < size for unit in removed):
        raise ValueError(f"site {name!r}: removed units must be distinct and in 0..{size - 1}")
    scores = tuple(float(score) for score in body["scores"])
    if len(scores) != size:
        raise ValueError(f"site {name!r}: {len(scores)} scores for {size} units")
    return SitePlan(name, kind, size, removed, scores)


def _mask_from_json(body: Any) -> np.ndarray:
    shape = tuple(int(n) for n in body["shape"])
    count = math.prod(shape)
    raw = np.frombuffer(base64.b64decode(body["bits"], validate=True), dtype=np.uint8)
    if min(shape, default=0) < 1 or len(raw) != (count + 7) // 8:
        raise ValueError(f"a mask of shape {shape} needs {(count + 7) // 8} bytes, it has {len(raw)}")
    return np.unpackbits(raw, count=count).astype(bool).reshape(shape)
