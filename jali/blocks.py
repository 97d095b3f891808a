"""``jali.decompose``: the units of every recurrent site in blocks, as a value.

Corollary III.1 of the lattice pruning paper runs independent sublattices of a network in parallel. What makes blocks independent
is that no recurrent weight leads from one to another (:mod:`jali.theorems.sublattices`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

import numpy as np
from torch import nn

from jali.errors import BudgetError, ModelError
from jali.maths.decomposition import merged, renumbered, staged_components, weak_components
from jali.maths.modularity import communities
from jali.maths.partition import balanced_partition, inside
from jali.plain import is_whole, seed_of
from jali.site import Site
from jali.site import sites as sites_of
from jali.view import View, read

By = Literal["components", "condensation", "communities"]
BY: tuple[By, ...] = ("components", "condensation", "communities")


@dataclass(frozen=True)
class SiteBlocks:
    """The blocks of one site.

    ``labels``: the block of every unit, 0 … k − 1. ``between``: pairs (from, to) of units in different blocks with a recurrent
    weight. ``share``: the part of the influence ‖w_rec[:, to, from]‖₂, summed over all pairs, that lies inside the blocks, in
    [0, 1]; ``by_index``: the same for as many contiguous blocks of equal size. ``stages``: of a condensation, one number per
    block, else empty. ``projected``: a projection mixes all units into what they read.
    """

    name: str
    kind: str
    labels: tuple[int, ...]
    between: int
    share: float
    by_index: float
    stages: tuple[int, ...] = ()
    projected: bool = False
    notes: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """k, the number of blocks."""
        return max(self.labels) + 1

    @property
    def sizes(self) -> tuple[int, ...]:
        """Units per block."""
        return tuple(np.bincount(self.labels).tolist())

    @property
    def order(self) -> np.ndarray:
        """The units block after block, ``(H,)``: what stands at position i is unit ``order[i]``."""
        return np.argsort(self.labels, kind="stable")

    @property
    def independent(self) -> bool:
        """Whether no unit of one block influences one of another."""
        return self.between == 0

    @property
    def work(self) -> float:
        """Σ n_b² / H²: recurrent multiply-adds of the blocks, of those of the dense matrix; 1/k for k equal blocks."""
        return float((np.square(self.sizes, dtype=float)).sum() / len(self.labels) ** 2)

    def __str__(self) -> str:
        size, sizes = len(self.labels), self.sizes
        if self.count == 1:
            return "\n".join(
                [f"{self.name}: {self.kind} of {size} units, one block", *(f"  note: {note}" for note in self.notes)]
            )
        blocks = f"{self.count} blocks of {_range(sizes)}"
        whole = (
            "independent" if self.independent else f"not independent: {self.between:,} pairs of units between blocks"
        )
        lines = [f"{self.name}: {self.kind} of {size} units, {blocks}", f"  {'recurrence':<18} {whole}"]
        if self.stages:
            stages = max(self.stages) + 1
            lines.append(f"  {'stages':<18} {stages}, each reads earlier ones and itself")
        against = f"(by index {self.by_index:.3f}, if spread evenly {self.work:.3f})"
        lines.append(f"  {'influence inside':<18} {self.share:.3f} {against}")
        lines.append(f"  {'recurrent work':<18} {self.work:.3f} of the dense matrix")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


@dataclass(frozen=True)
class Decomposition:
    """What :func:`decompose` found: the blocks of every site, and how they were looked for."""

    model: str
    by: By
    sites: tuple[SiteBlocks, ...]

    def site(self, name: str) -> SiteBlocks:
        """The blocks of one site; :class:`ModelError` if there is none of that name."""
        for site in self.sites:
            if site.name == name:
                return site
        raise ModelError(f"no site {name!r} was decomposed; there are {', '.join(site.name for site in self.sites)}")

    def __str__(self) -> str:
        return "\n".join([f"Decomposition of {self.model} by {self.by}", *map(str, self.sites)])


def decompose(
    model: nn.Module, k: int | None = None, *, by: By = "components", sites: Sequence[str] | None = None, seed: int = 0
) -> Decomposition:
    """The recurrent units of ``model`` in blocks, site by site; the model is not changed.

    ``by``: "components", connected by any recurrent weight, are the finest independent blocks. "condensation": the strong
    components, in an order in which none reads a later one. "communities" hold much of the influence but are independent only
    if nothing lies between them: ``jali.plan(model, pattern="block-diagonal:k")`` cuts that. ``k``: so many blocks of about
    equal size; whole components are put together, communities are balanced (sizes differ by one at most). Without it
    communities are Louvain's, of any number and size, drawn with ``seed``. ``sites``: names or patterns such as
    ``"encoder.*"``; by default all recurrent ones.

    Raises :class:`BudgetError` for a ``k`` that a site cannot have, :class:`SeedError`, :class:`ModelError` for anything else.
    """
    if by not in BY:
        raise ModelError(f"by={by!r} is unknown; it is one of {', '.join(BY)}")
    if k is not None and (not is_whole(k) or k < 1):
        raise BudgetError(f"k={k!r} is not a number of blocks; give a whole number from 1, or None")
    if k is not None and by == "condensation":
        raise BudgetError("the condensation has as many blocks as it has; leave k out, or choose another by=")
    seed = seed_of(seed)
    found = [_blocks(read(model, site), site, k, by, seed) for site in _chosen(model, sites)]
    return Decomposition(type(model).__name__, by, tuple(found))


def _chosen(model: nn.Module, patterns: Sequence[str] | None) -> list[Site]:
    known = sites_of(model)
    names = ", ".join(site.name for site in known)
    if patterns is None:
        return list(known)
    if isinstance(patterns, str) or not patterns:
        raise ModelError(f"sites={patterns!r} is not a list of names; give some of {names}, or leave it out for all")
    for pattern in patterns:
        if not any(fnmatchcase(site.name, pattern) for site in known):
            raise ModelError(f"no recurrent site matches {pattern!r}; the model has {names}")
    return [site for site in known if any(fnmatchcase(site.name, pattern) for pattern in patterns)]


def _blocks(view: View, site: Site, k: int | None, by: By, seed: int) -> SiteBlocks:
    influence = view.influence()
    size, stages, notes = len(influence), (), []
    if k is not None and k > size:
        raise BudgetError(f"{k} blocks of the {size} units of site {site.name!r}; give {size} or less")
    if by == "components":
        labels = _components(influence, site, k)
    elif by == "condensation":
        labels, depth = staged_components((influence > 0).T)  # A[to, from]
        stages = tuple(depth.tolist())
    elif k is None:
        labels = communities(influence, seed).labels
    else:
        labels = renumbered(balanced_partition(influence, k))
    notes += _isolated(influence)
    if view.w_proj is not None:
        notes.append("a projection mixes the units: blocks can be told, but not be run apart")
    apart = labels[:, None] != labels[None, :]
    contiguous = np.sort(np.arange(size) % (int(labels.max()) + 1))
    return SiteBlocks(
        site.name, site.kind, tuple(labels.tolist()), int(np.count_nonzero(influence[apart])), _share(influence, labels),
        _share(influence, contiguous), stages, view.w_proj is not None, tuple(notes),
    )  # fmt: skip


def _components(influence: np.ndarray, site: Site, k: int | None) -> np.ndarray:
    labels = weak_components(influence > 0)
    count = int(labels.max()) + 1
    if k is None:
        return labels
    if k > count:
        parts = "one component" if count == 1 else f"{count} components"
        raise BudgetError(
            f"site {site.name!r} falls into {parts}, and {k} independent blocks are wanted; cut it first with "
            f"jali.plan(model, 'magnitude', pattern='block-diagonal:{k}') and jali.mask, or ask for by='communities'"
        )
    return merged(labels, k)


def _isolated(influence: np.ndarray) -> list[str]:
    alone = int((~(influence.any(axis=0) | influence.any(axis=1))).sum())
    if alone == len(influence):
        return ["no unit influences another or itself: any blocks are independent"]
    return [f"{alone} of {len(influence)} units have no recurrent weight at all"] if alone else []


def _share(influence: np.ndarray, labels: np.ndarray) -> float:
    """The part of the influence inside the blocks; exactly 1 where there is none between them."""
    if not influence[labels[:, None] != labels[None, :]].any():
        return 1.0
    return inside(influence, labels) / float(influence.sum())


def _range(sizes: Sequence[int]) -> str:
    unit = "unit" if max(sizes) == 1 else "units"
    return f"{min(sizes)} {unit}" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)} {unit}"
