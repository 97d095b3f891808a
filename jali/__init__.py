"""jali: make recurrent neural networks small and fast by understanding their structure.

The verbs: :func:`plan` (decide), :func:`mask` (zeros in place), :func:`compact` (physically smaller, repaired),
:func:`prune` (all of it), :class:`Pruner` (while it trains), :func:`save` and :func:`load`, :func:`export_onnx`,
:func:`criteria` (what can decide), :func:`analyze` (what a model is like), :func:`verify` (which theorems hold
for it), :func:`decompose` (which blocks of units are independent) and :func:`reorder` (block after block).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jali.analysis import Analysis as Analysis
    from jali.analysis import analyze as analyze
    from jali.api import Result as Result
    from jali.api import prune as prune
    from jali.archive import load as load
    from jali.archive import save as save
    from jali.blocks import Decomposition as Decomposition
    from jali.blocks import decompose as decompose
    from jali.costs import Cost as Cost
    from jali.costs import cost as cost
    from jali.criterion import criteria as criteria
    from jali.errors import JaliError as JaliError
    from jali.evidence import Perturbation as Perturbation
    from jali.evidence import trajectory as trajectory
    from jali.inference.accelerate import accelerate as accelerate
    from jali.inference.onnx_export import export_onnx as export_onnx
    from jali.planning import plan as plan
    from jali.plans import Budget as Budget
    from jali.plans import Plan as Plan
    from jali.schedule import SET as SET
    from jali.schedule import Cubic as Cubic
    from jali.schedule import OneShot as OneShot
    from jali.schedule import Periodic as Periodic
    from jali.schedule import Rewind as Rewind
    from jali.schedule import RigL as RigL
    from jali.site import sites as sites
    from jali.surgery.compact import compact as compact
    from jali.surgery.mask import mask as mask
    from jali.surgery.pruner import Pruner as Pruner
    from jali.surgery.reorder import reorder as reorder
    from jali.theorems import Verdict as Verdict
    from jali.theorems import verify as verify

__version__ = "0.1.0"

# Names are imported on first use, so that `import jali` costs next to nothing.
_HOME = {
    "Analysis": "analysis",
    "Budget": "plans",
    "Cost": "costs",
    "Cubic": "schedule",
    "Decomposition": "blocks",
    "JaliError": "errors",
    "OneShot": "schedule",
    "Periodic": "schedule",
    "Perturbation": "evidence",
    "Plan": "plans",
    "Pruner": "surgery.pruner",
    "Result": "api",
    "Rewind": "schedule",
    "RigL": "schedule",
    "SET": "schedule",
    "Verdict": "theorems",
    "accelerate": "inference.accelerate",
    "analyze": "analysis",
    "compact": "surgery.compact",
    "cost": "costs",
    "criteria": "criterion",
    "decompose": "blocks",
    "export_onnx": "inference.onnx_export",
    "load": "archive",
    "mask": "surgery.mask",
    "plan": "planning",
    "prune": "api",
    "reorder": "surgery.reorder",
    "save": "archive",
    "sites": "site",
    "trajectory": "evidence",
    "verify": "theorems",
}

__all__ = [*sorted(_HOME), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'jali' has no attribute {name!r}")
    return getattr(importlib.import_module(f"jali.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
