"""What goes at one site, checked when it is made, JSON in and out."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jali.errors import PlanError
from jali.plain import is_finite, is_whole
from jali.plans.checks import expect, require_fields, require_list, short
from jali.site import GATES

_WEIGHTS = ("w_in", "w_rec")


@dataclass(frozen=True)
class SitePlan:
    """What goes at one site: ``removed`` unit indices, or for weights ``keep`` masks per view field.

    ``scores`` are the unit scores that decided, one per unit; ``keep`` has boolean masks of ``w_in`` (G, H, I) and
    ``w_rec`` (G, H, R). A plan of weights has neither ``removed`` nor ``scores``. ``groups``: with a ``block-diagonal:k`` pattern
    the group of every unit, 0 … k − 1; else empty.
    Raises :class:`PlanError` for indices out of range or duplicated, and for anything of another type or shape.
    """

    name: str
    kind: str
    size: int
    removed: tuple[int, ...] = ()
    scores: tuple[float, ...] = ()
    keep: Mapping[str, np.ndarray] = field(default_factory=dict, compare=False)
    groups: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        expect(isinstance(self.name, str), f"site name {self.name!r} is not a string")
        where = f"site {self.name!r}"
        expect(self.kind in tuple(GATES), f"{where}: kind {self.kind!r} is none of {', '.join(GATES)}")
        expect(is_whole(self.size) and self.size >= 1, f"{where}: size {self.size!r} is not a number of units")
        for unit in self.removed:
            limit = f"0..{self.size - 1}"
            expect(is_whole(unit), f"{where}: removed unit {unit!r} is not an integer in {limit}")
            expect(0 <= unit < self.size, f"{where}: removed unit {unit} is outside {limit}")
        expect(len(set(self.removed)) == len(self.removed), f"{where}: a removed unit is listed twice")
        for score in self.scores:
            expect(is_finite(score), f"{where}: score {score!r} is not a finite number")
        count = 0 if self.keep else self.size
        expect(len(self.scores) == count, f"{where}: {len(self.scores)} scores, {count} wanted for {self.size} units")
        expect(
            not (self.keep and self.removed), f"{where}: it removes units and weights; one of the two can be planned"
        )
        for name, mask in self.keep.items():
            expect(name in _WEIGHTS, f"{where}: mask {name!r} is none of {', '.join(_WEIGHTS)}")
            expect(
                mask.dtype == np.bool_ and mask.ndim == 3 and mask.shape[:2] == (GATES[self.kind], self.size),
                f"{where}: mask {name!r} of shape {mask.shape} does not fit {GATES[self.kind]} gates of {self.size} units",
            )
        for group in self.groups:
            expect(is_whole(group) and group >= 0, f"{where}: group {group!r} is not a whole number from 0")
        if self.groups:
            square = "w_rec" in self.keep and self.keep["w_rec"].shape[2] == self.size
            expect(square, f"{where}: it has groups of units, but no square mask 'w_rec'")
            expect(len(self.groups) == self.size, f"{where}: {len(self.groups)} groups named for {self.size} units")
        object.__setattr__(self, "groups", tuple(int(group) for group in self.groups))
        object.__setattr__(self, "size", int(self.size))
        object.__setattr__(self, "removed", tuple(int(unit) for unit in self.removed))
        object.__setattr__(self, "scores", tuple(float(score) for score in self.scores))

    def __eq__(self, other: object) -> bool:
        # The comparison that dataclasses generate stops at arrays, and the masks are the decision.
        return isinstance(other, SitePlan) and site_to_json(self) == site_to_json(other)

    @property
    def kept(self) -> np.ndarray:
        """Indices of the kept units, ascending."""
        return np.setdiff1d(np.arange(self.size), np.asarray(self.removed, dtype=int))

    def between(self) -> int:
        """How many weights stay between units of different :attr:`groups`; 0 without groups."""
        if not self.groups:
            return 0
        labels = np.asarray(self.groups)
        return int(np.count_nonzero(self.keep["w_rec"] & (labels[:, None] != labels[None, :])))

    def counts(self) -> tuple[int, int]:
        """(removed, total) of what this site's plan counts: units, or weights."""
        if self.keep:
            return sum(int((~m).sum()) for m in self.keep.values()), sum(m.size for m in self.keep.values())
        return len(self.removed), self.size


def site_to_json(site: SitePlan) -> dict[str, Any]:
    """The plan of one site in JSON's types; masks as base64 of packed bits."""
    body: dict[str, Any] = {"name": site.name, "kind": site.kind, "size": site.size}
    if not site.keep:
        return body | {"removed": list(site.removed), "scores": list(site.scores)}
    bits = {name: base64.b64encode(np.packbits(mask).tobytes()).decode("ascii") for name, mask in site.keep.items()}
    masks = {name: {"shape": list(site.keep[name].shape), "bits": bits[name]} for name in bits}
    return body | {"keep": masks} | ({"groups": list(site.groups)} if site.groups else {})


def site_from_json(body: Any) -> SitePlan:
    """What :func:`site_to_json` gave; :class:`PlanError` for anything else."""
    weights = isinstance(body, dict) and "keep" in body
    grouped = ["groups"] if weights and "groups" in body else []
    require_fields(
        body, ["name", "kind", "size", *(["keep"] if weights else ["removed", "scores"]), *grouped], "a site"
    )
    read: dict[str, Any]
    if weights:
        expect(isinstance(body["keep"], dict) and bool(body["keep"]), f"keep is {short(body['keep'])}, not masks")
        read = {"keep": {name: _mask_from_json(mask, name) for name, mask in body["keep"].items()}}
        read |= {name: tuple(require_list(body[name], name)) for name in grouped}
    else:
        read = {name: tuple(require_list(body[name], name)) for name in ("removed", "scores")}
    return SitePlan(**body | read)


def _mask_from_json(body: Any, name: str) -> np.ndarray:
    require_fields(body, ["shape", "bits"], f"mask {name!r}")
    shape = tuple(require_list(body["shape"], "shape"))
    expect(all(is_whole(n) and n >= 1 for n in shape), f"mask {name!r} has shape {short(shape)}")
    try:
        raw = np.frombuffer(base64.b64decode(body["bits"], validate=True), dtype=np.uint8)
    except (TypeError, ValueError) as error:
        raise PlanError(f"mask {name!r} is not base64 ({error}); the plan is damaged: make it again") from None
    count = math.prod(shape)
    expect(len(raw) == (count + 7) // 8, f"mask {name!r} of shape {shape} has {len(raw)} bytes, not {(count + 7) // 8}")
    return np.unpackbits(raw, count=count).astype(bool).reshape(shape)
