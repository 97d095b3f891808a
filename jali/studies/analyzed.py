"""``jali analyze``: analyse the caller's own model."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from torch import nn

from jali.analysis import Analysis, analyze
from jali.batches import batches
from jali.plans import Plan
from jali.studies.pruned import built


def analyze_files(
    *,
    build: Callable[[], nn.Module],
    weights: str | os.PathLike[str],
    data: Any = None,
    plan: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    seed: int = 0,
) -> Analysis:
    """What ``jali analyze`` does: build, load ``weights`` (safetensors), analyse, and write the JSON file ``out``.

    ``plan``: a plan.json. Raises the errors of :func:`jali.analyze`, and :class:`FileError`.
    """
    from rich.console import Console

    decided = None if plan is None else Plan.load(plan)
    model = built(build, weights)
    items = None if data is None else batches(data)
    with Console(stderr=True).status(f"analysing {type(model).__name__}"):
        found = analyze(model, items, plan=decided, seed=seed)
    if out is not None:
        found.save(out)
    return found
