"""Finds the criteria by their files, and calls them with checked options."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from jali.errors import CriterionError
from jali.evidence import SiteEvidence
from jali.view import View


@dataclass(frozen=True)
class Criterion:
    """One criterion by name, with the options to call it with."""

    name: str
    module: ModuleType
    options: Mapping[str, Any]

    @property
    def needs(self) -> frozenset[str]:
        return frozenset(self.module.NEEDS)

    def score(self, view: View, evidence: SiteEvidence) -> np.ndarray:
        """Unit scores, (H,), checked to be finite. Raises :class:`CriterionError` if it scores weights only."""
        scores = np.asarray(self._call("score", "unit", view, evidence), dtype=np.float64)
        self._check(scores, (view.hidden,), view)
        return scores

    def score_weights(self, view: View, evidence: SiteEvidence) -> dict[str, np.ndarray]:
        """Weight scores per view field. Raises :class:`CriterionError` if it scores units only."""
        scores = dict(self._call("score_weights", "weight", view, evidence))
        for field, value in scores.items():
            self._check(value, getattr(view, field).shape, view)
        return scores

    def _call(self, function: str, granularity: str, view: View, evidence: SiteEvidence) -> Any:
        target = getattr(self.module, function, None)
        if target is None:
            able = [name for name, module in _modules().items() if hasattr(module, function)]
            raise CriterionError(
                f"criterion {self.name!r} has no scores of {granularity} granularity; these have: {', '.join(able)}"
            )
        return target(view, evidence, **_accepted(self.name, target, self.options))

    def _check(self, scores: np.ndarray, shape: tuple[int, ...], view: View) -> None:
        if scores.shape != shape or not np.isfinite(scores).all():
            raise CriterionError(
                f"criterion {self.name!r} gave scores of shape {scores.shape} for site {view.site.name!r} (wanted {shape}), "
                f"{int((~np.isfinite(scores)).sum())} of them not finite"
            )


def criteria() -> dict[str, str]:
    """Name → one line, of every criterion, in alphabetical order."""
    return {name: module.SUMMARY for name, module in _modules().items()}


def get(name: str, options: Mapping[str, Any] | None = None, seed: int = 0) -> Criterion:
    """The criterion ``name`` with ``options``; ``seed`` goes to those that draw random numbers.

    Raises :class:`CriterionError` for an unknown name (with the nearest ones) or option.
    """
    modules = _modules()
    if name not in modules:
        near = difflib.get_close_matches(str(name), modules, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(modules)}"
        raise CriterionError(f"unknown criterion {name!r}; {hint}")
    module, chosen = modules[name], dict(options or {})
    functions = [getattr(module, f) for f in ("score", "score_weights") if hasattr(module, f)]
    known = set().union(*(_options(function) for function in functions))
    for option in chosen:
        if option not in known:
            has = f"it has {', '.join(sorted(known))}" if known else "it has none"
            raise CriterionError(f"criterion {name!r} has no option {option!r}; {has}")
    if "seed" in known:
        chosen.setdefault("seed", seed)
    return Criterion(name, module, chosen)


def _modules() -> dict[str, ModuleType]:
    import jali.criterion as package

    names = sorted(info.name for info in pkgutil.iter_modules(package.__path__) if info.name != "registry")
    return {name.replace("_", "-"): importlib.import_module(f"jali.criterion.{name}") for name in names}


def _options(function: Any) -> set[str]:
    parameters = inspect.signature(function).parameters.values()
    return {p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def _accepted(name: str, function: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key in _options(function)}
