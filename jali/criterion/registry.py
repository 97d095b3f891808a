"""Finds the criteria by their files, and calls them with checked options."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType, NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from jali.errors import BudgetError, ContextError, CriterionError, ModelError
from jali.evidence import SiteEvidence
from jali.plain import an, is_finite, is_whole, seed_of
from jali.view import View

FUNCTIONS = {"unit": "score", "weight": "score_weights"}  # granularity → the function of a criterion's file


@dataclass(frozen=True)
class Criterion:
    """One criterion by name, with the options to call it with."""

    name: str
    module: ModuleType
    options: Mapping[str, Any]

    @property
    def needs(self) -> frozenset[str]:
        """What the criterion must be given of the data: "states", "gradients", "trajectory", or nothing."""
        return frozenset(self.module.NEEDS)

    @property
    def granularities(self) -> tuple[str, ...]:
        """What it scores: "unit", "weight", or both."""
        return _granularities(self.module)

    def score(self, view: View, evidence: SiteEvidence) -> np.ndarray:
        """Unit scores, (H,), checked to be finite.

        Raises :class:`CriterionError` if it scores weights only, or cannot score this site.
        """
        scores = np.asarray(self._call("unit", view, evidence), dtype=np.float64)
        self._check(scores, (view.hidden,), view)
        return scores

    def score_weights(self, view: View, evidence: SiteEvidence) -> dict[str, np.ndarray]:
        """Weight scores per view field. Raises :class:`CriterionError` if it scores units only, or not this site."""
        scores = dict(self._call("weight", view, evidence))
        for field, value in scores.items():
            self._check(value, getattr(view, field).shape, view)
        return scores

    def require(self, granularity: str) -> None:
        """Raises :class:`CriterionError` if it has no scores of that granularity."""
        if granularity not in self.granularities:
            able = [name for name, module in _modules().items() if granularity in _granularities(module)]
            raise CriterionError(
                f"criterion {self.name!r} has no scores of {granularity} granularity; give "
                f"granularity={self.granularities[0]!r}, or take one that has: {', '.join(able)}"
            )

    def _call(self, granularity: str, view: View, evidence: SiteEvidence) -> Any:
        self.require(granularity)
        target = getattr(self.module, FUNCTIONS[granularity])
        if "gradients" in self.needs and not evidence.gradients:
            raise CriterionError(
                f"criterion {self.name!r} needs gradients, and none were measured at site {view.site.name!r}; "
                "collect evidence on data with targets"
            )
        if "trajectory" in self.needs and evidence.trajectory is None:
            raise CriterionError(
                f"criterion {self.name!r} needs a training, and none was recorded at site {view.site.name!r}; pass "
                "trajectory=..., as jali.trajectory(model, train, watch) records it"
            )
        accepted = {option: value for option, value in self.options.items() if option in _options(target)}
        try:
            return target(view, evidence, **accepted)
        except (BudgetError, ContextError, ModelError) as error:
            raise CriterionError(
                f"criterion {self.name!r} cannot score site {view.site.name!r}: {error}; change its options, choose "
                "another criterion, or leave the site out"
            ) from error

    def _check(self, scores: np.ndarray, shape: tuple[int, ...], view: View) -> None:
        if scores.shape != shape or not np.isfinite(scores).all():
            raise CriterionError(
                f"criterion {self.name!r} gave scores of shape {scores.shape} for site {view.site.name!r} (wanted {shape}), "
                f"{int((~np.isfinite(scores)).sum())} of them not finite; check the data, the loss and the scale of the weights"
            )


def criteria() -> dict[str, str]:
    """Name → one line, of every criterion, in alphabetical order."""
    return {name: module.SUMMARY for name, module in _modules().items()}


def get(name: str, options: Mapping[str, Any] | None = None, seed: int = 0) -> Criterion:
    """The criterion ``name`` with ``options``; ``seed`` goes to those that draw random numbers.

    Raises :class:`CriterionError` for an unknown name (with the nearest ones), or an option that is unknown or of another
    type than its annotation says, :class:`SeedError` for a seed that is none.
    """
    modules = _modules()
    if not isinstance(name, str) or name not in modules:
        near = difflib.get_close_matches(str(name), modules, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(modules)}"
        raise CriterionError(f"unknown criterion {name!r}; {hint}")
    if options is not None and not isinstance(options, Mapping):
        raise CriterionError(f"options {options!r} are not a mapping; give e.g. {{'density': 0.1}}")
    module, chosen = modules[name], dict(options or {})
    known: dict[str, Any] = {}
    for granularity in _granularities(module):
        known |= _options(getattr(module, FUNCTIONS[granularity]))
    for option in chosen:
        if option not in known:
            has = f"it has {', '.join(sorted(known))}" if known else "it has none"
            raise CriterionError(f"criterion {name!r} has no option {option!r}; {has}")
        chosen[option] = _checked(name, option, chosen[option], known[option])
    seed = seed_of(seed)
    if "seed" in known:
        chosen.setdefault("seed", seed)
    return Criterion(name, module, chosen)


def _checked(name: str, option: str, value: Any, kind: Any) -> Any:
    """``value`` as the option's annotated type, a plain one that JSON can hold."""
    if option == "seed":
        return seed_of(value)
    if get_origin(kind) is Literal:
        fits, wanted = value in get_args(kind), f"one of {', '.join(map(repr, get_args(kind)))}"
    else:
        fits = is_finite(value) if kind is float else is_whole(value) if kind is int else isinstance(value, kind)
        wanted = {float: "a finite number", int: "a whole number"}.get(kind, an(kind.__name__))
    if not fits:
        raise CriterionError(f"criterion {name!r}: option {option} is {value!r}; give {wanted}")
    return value if get_origin(kind) is Literal else kind(value)


def _modules() -> dict[str, ModuleType]:
    import jali.criterion as package

    names = sorted(info.name for info in pkgutil.iter_modules(package.__path__) if info.name != "registry")
    return {name.replace("_", "-"): importlib.import_module(f"jali.criterion.{name}") for name in names}


def _granularities(module: ModuleType) -> tuple[str, ...]:
    return tuple(granularity for granularity, function in FUNCTIONS.items() if hasattr(module, function))


def _options(function: Any) -> dict[str, Any]:
    """Option → annotated type; ``X | None`` is an X that may be left out, None itself is nothing that can be given."""
    parameters, types = inspect.signature(function).parameters.values(), get_type_hints(function)
    return {p.name: _given(types[p.name]) for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def _given(kind: Any) -> Any:
    if get_origin(kind) not in (Union, UnionType):
        return kind
    return next(each for each in get_args(kind) if each is not NoneType)
