"""The results of an analysis: plain values that print well, and JSON in and out."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jali.errors import FileError
from jali.files import atomic_write
from jali.plain import numbers, parse_json, strict

SCHEMA = 1
Section = Mapping[str, Any]


@dataclass(frozen=True)
class SiteAnalysis:
    """One site. A section is a mapping of names to numbers, words and lists; it is empty where nothing was measured.

    ``lattice``: irreducible columns and rows at some densities, quantiles of persistence. ``modularity``: Q, community sizes
    and labels, and the same after a plan. ``dynamics``: Lyapunov exponents in nats per step (at the first layer of a
    top-down RNN those of the network, too), bounds of sup ‖Df‖₂, theorem III.7, the largest exponent when recurrent weights
    below τ are zero. ``information``: I(X; h_T) in nats per estimator. ``pruning``: distortion of the states under a plan,
    R(D) there and as a curve. ``expansion``: of every gate's matrix as a bipartite graph its density, Δ_S and Δ_R (infinite
    for a full matrix, None where undefined), α2 of the Cheeger interval and units or inputs without a weight, and the same
    after a plan (:mod:`jali.maths.spectral`).
    """

    name: str
    kind: str
    size: int
    lattice: Section = field(default_factory=dict)
    modularity: Section = field(default_factory=dict)
    dynamics: Section = field(default_factory=dict)
    information: Section = field(default_factory=dict)
    pruning: Section = field(default_factory=dict)
    expansion: Section = field(default_factory=dict)
    notes: tuple[str, ...] = ()


_SECTIONS = ("lattice", "modularity", "dynamics", "information", "pruning", "expansion")


@dataclass(frozen=True)
class Analysis:
    """What :func:`jali.analyze` found. ``task``: I(Y; Ŷ) of targets and answers in nats, before and after a plan."""

    model: str
    sites: tuple[SiteAnalysis, ...]
    task: Section = field(default_factory=dict)
    seed: int = 0
    notes: tuple[str, ...] = ()

    def site(self, name: str) -> SiteAnalysis:
        """The analysis of one site; ``KeyError`` if there is none of that name."""
        return {site.name: site for site in self.sites}[name]

    def __str__(self) -> str:
        lines = [f"Analysis of {self.model}"]
        for site in self.sites:
            lines.append(f"{site.name}: {site.kind} of {site.size} units")
            for section in _SECTIONS:
                lines += _lines(section, getattr(site, section))
            lines += [f"  note: {note}" for note in site.notes]
        lines += _lines("task", self.task)
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def to_json(self) -> str:
        """Strict JSON; an infinite number is the string "inf" or "-inf"."""
        return json.dumps(strict({"schema": SCHEMA, **dataclasses.asdict(self)}), indent=1, allow_nan=False)

    @staticmethod
    def from_json(text: str) -> Analysis:
        """What ``to_json`` wrote; :class:`FileError` for anything else."""
        try:
            body = numbers(parse_json(text))
            if body.pop("schema") != SCHEMA:
                raise ValueError(f"schema {SCHEMA} is wanted")
            sites = tuple(SiteAnalysis(**{**site, "notes": tuple(site["notes"])}) for site in body.pop("sites"))
            return Analysis(**{**body, "sites": sites, "notes": tuple(body["notes"])})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise FileError(f"this is no analysis of this version of jali ({error}); make it again") from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the analysis as JSON, whole or not at all."""
        atomic_write(path, (self.to_json() + "\n").encode())

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Analysis:
        """Read an analysis; :class:`FileError` if there is none or it is not understood."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise FileError(f"cannot read the analysis {str(path)!r} ({error}); check the path") from None
        return Analysis.from_json(text)


def _lines(title: str, section: Section) -> list[str]:
    return [f"  {title if i == 0 else '':<12} {name:<28} {_shown(v)}" for i, (name, v) in enumerate(section.items())]


def _shown(value: Any) -> str:
    if isinstance(value, list):
        head = ", ".join(_shown(each) for each in value[:6])
        return head + (f", … {_shown(value[-1])} ({len(value)})" if len(value) > 6 else "")
    return f"{value:.4g}" if isinstance(value, float) else str(value)
