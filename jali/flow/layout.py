"""The values of the tracing analysis: which features of a tensor are hidden units, and of which site."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from jali.site import Site


@dataclass(frozen=True)
class Port:
    """One output of a module that holds sites: its output sequence, its final hidden or its final cell state."""

    module: str
    what: Literal["output", "h", "c"]


class Units:
    """Numbers the units of all sites from 0; the label of a feature that is no unit is -1."""

    def __init__(self, sites: Iterable[Site]) -> None:
        self.sites = tuple(sites)
        self._first: dict[str, int] = {}
        total = 0
        for site in self.sites:
            self._first[site.name] = total
            total += site.size
        self.total = total

    def labels(self, site: Site) -> np.ndarray:
        """Labels of the units of ``site``, ``(H,)``."""
        first = self._first[site.name]
        return np.arange(first, first + site.size)

    def removed(self, removed: dict[str, np.ndarray]) -> np.ndarray:
        """Boolean flag per label, ``(total,)``, from site name → removed unit indices."""
        flags = np.zeros(self.total, dtype=bool)
        for name, units in removed.items():
            flags[self._first[name] + np.asarray(units, dtype=int)] = True
        return flags


@dataclass(frozen=True)
class Data:
    """A value that depends on no labelled feature.

    ``axes``: how many axes of a tensor it takes up as an index (the rank of a boolean tensor, else 1), None if unknown.
    Not to be confused with a literal ``None`` in the user's code.
    """

    axes: int | None = None


@dataclass(frozen=True)
class Family:
    """The sites of one module whose layers and directions, of ``size`` units each, all keep equally many of them."""

    module: str
    size: int


@dataclass(frozen=True, eq=False)
class Features:
    """A tensor whose axis ``axis`` (counted from the end, negative) carries the features ``labels``.

    Whatever else the tensor depends on, an entry at a removed unit's feature is identically zero. The units of a site
    come as a whole. ``family``: the one that all of them belong to, if there is one.
    """

    labels: np.ndarray
    axis: int
    ports: frozenset[Port]
    family: Family | None = None

    def moved(self, axis: int) -> Features:
        """The same features on another axis."""
        return replace(self, axis=axis)


@dataclass(frozen=True, eq=False)
class States:
    """A tensor whose last axis carries features, which differ along other axes: final states ``(slots, [batch], H)``.

    ``labels`` has the rank of the tensor, and size 1 along the axes that do not matter. Every row of it keeps equally
    many features.
    """

    labels: np.ndarray
    ports: frozenset[Port]
    family: Family | None = None


def settled(labels: np.ndarray, like: Features | States, ports: frozenset[Port] | None = None) -> Features | States:
    """The value with the ``labels`` of :class:`States`, which are :class:`Features` if they differ along no other axis."""
    ports = like.ports if ports is None else ports
    for axis in range(labels.ndim - 1):
        first = labels[(slice(None),) * axis + (slice(0, 1),)]
        if (labels == first).all():
            labels = first
    if labels.size == labels.shape[-1]:
        return Features(labels.reshape(-1), -1, ports, like.family)
    return States(labels, ports, like.family)


@dataclass(frozen=True, eq=False)
class Spread:
    """A tensor, constant along axis ``axis``, which is there only to be as wide as the features ``labels``.

    A mask over time that was expanded to the width of an output, for example. Nothing in it is zero.
    """

    labels: np.ndarray
    axis: int
    ports: frozenset[Port]


@dataclass(frozen=True, eq=False)
class Escaped:
    """Data that depends on the removed features themselves (their number, a position among them): unsafe once used."""

    ports: frozenset[Port]


@dataclass(frozen=True, eq=False)
class Width(Escaped):
    """The number of the features ``labels``: safe only as a size that is to follow the cut."""

    labels: np.ndarray


def ports_in(value: object) -> frozenset[Port]:
    """Every port that an abstract value, however nested, derives from."""
    if isinstance(value, Features | States | Spread | Escaped):
        return value.ports
    if isinstance(value, tuple | list):
        return frozenset().union(*(ports_in(item) for item in value))
    if isinstance(value, dict):
        return frozenset().union(*(ports_in(item) for item in value.values()))
    if isinstance(value, slice):
        return ports_in((value.start, value.stop, value.step))
    return frozenset()


def has_escaped(value: object) -> bool:
    """Whether an :class:`Escaped` value is somewhere inside."""
    if isinstance(value, tuple | list):
        return any(has_escaped(item) for item in value)
    if isinstance(value, dict):
        return any(has_escaped(item) for item in value.values())
    if isinstance(value, slice):
        return has_escaped((value.start, value.stop, value.step))
    return isinstance(value, Escaped)


def occurrences(labels: np.ndarray, units: np.ndarray) -> list[np.ndarray]:
    """Positions of all ``units`` among ``labels``, one array in unit order per repetition of the block.

    Features repeat where a model flattens time into them.
    """
    places = [np.flatnonzero(labels == unit) for unit in units]
    return [np.array([place[k] for place in places]) for k in range(min(len(place) for place in places))]
