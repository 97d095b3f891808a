"""Plans as data: checked when they are made, JSON in and out."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jali.errors import BudgetError, FileError, PlanError
from jali.files import atomic_write
from jali.plain import LARGEST_SEED, an, is_seed, is_whole, parse_json
from jali.plans.budget import Budget
from jali.plans.checks import expect, require_fields, require_list, short
from jali.plans.pattern import Pattern
from jali.plans.site_plan import SitePlan, site_from_json, site_to_json
from jali.site import Site

SCHEMA = 1
Granularity = Literal["unit", "weight"]
Weights = Literal["all", "recurrent", "input"]


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
            expect(
                self.granularity == "weight", f"pattern {self.pattern!r} is one of weights, and the plan is of units"
            )
            try:
                Pattern.parse(self.pattern)
            except BudgetError as error:
                raise PlanError(f"not a valid plan: {error}") from None
        grouped = self.pattern is not None and Pattern.parse(self.pattern).diagonal is not None
        for site in self.sites:
            expect(
                bool(site.groups) == grouped,
                f"site {site.name!r} has {'' if site.groups else 'no '}groups of units, and the pattern is {self.pattern!r}",
            )
        expect(
            self.granularity in ("unit", "weight"), f"granularity {self.granularity!r} is neither 'unit' nor 'weight'"
        )
        expect(isinstance(self.criterion, str), f"criterion {self.criterion!r} is not a string")
        expect(len(self.sites) > 0, "it has no site")
        names = [site.name for site in self.sites]
        expect(len(set(names)) == len(names), f"a site is named twice among {', '.join(names)}")
        for site in self.sites:
            expect(
                bool(site.keep) == (self.granularity == "weight"),
                f"site {site.name!r} is not planned in {self.granularity} granularity",
            )
        expect(is_seed(self.seed), f"seed {self.seed!r} is not a whole number from 0 to {LARGEST_SEED}")
        expect(all(isinstance(note, str) for note in self.notes), "a note is not a string")
        object.__setattr__(self, "seed", int(self.seed))

    @property
    def counted(self) -> str:
        """What the sparsity counts."""
        if self.granularity == "unit":
            return "units of the planned sites"
        planned = {field for site in self.sites for field in site.keep}
        if planned == {"w_rec"}:
            return "weights of w_rec (no biases; w_in stays whole)"
        return f"weights of {' and '.join(sorted(planned))} (no biases)"

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
                    f"site {planned.name!r} is {an(planned.kind)} of {planned.size} units in the plan but {an(site.kind)} of "
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
            "sites": [site_to_json(site) for site in self.sites],
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
        try:
            body = parse_json(text)
        except ValueError as error:
            raise PlanError(f"the plan is not valid JSON ({error}); it may be truncated: write it again") from None
        schema = body.get("schema") if isinstance(body, dict) else None
        if not is_whole(schema) or schema != SCHEMA:
            raise PlanError(f"the plan has schema {short(schema)}, this version of jali reads schema {SCHEMA}")
        names = [f.name for f in dataclasses.fields(Plan)]
        require_fields(body, ["schema", *names, "sparsity", "counted"], "the plan")
        require_fields(body["budget"], [f.name for f in dataclasses.fields(Budget)], "budget")
        expect(isinstance(body["options"], dict), f"options {short(body['options'])} is not an object")
        try:
            budget = Budget(**body["budget"])
        except BudgetError as error:
            raise PlanError(f"not a valid plan: {error}") from None
        read = {
            "budget": budget,
            "sites": tuple(site_from_json(site) for site in require_list(body["sites"], "sites")),
            "notes": tuple(require_list(body["notes"], "notes")),
        }
        plan = Plan(**{name: body[name] for name in names} | read)
        for name in ("sparsity", "counted"):
            found = getattr(plan, name)
            expect(
                type(body[name]) is type(found) and body[name] == found,
                f"{name} says {short(body[name])}, but what it removes gives {found!r}",
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
