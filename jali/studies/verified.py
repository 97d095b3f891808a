"""``jali verify``: the theorems on the caller's own model, or on a small one."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from torch import nn

from jali.batches import batches
from jali.files import atomic_write
from jali.studies.pruned import built
from jali.theorems import Verdict, to_json, verify


def verify_files(
    *,
    build: Callable[[], nn.Module] | None = None,
    weights: str | os.PathLike[str] | None = None,
    data: Any = None,
    out: str | os.PathLike[str] | None = None,
    seed: int = 0,
) -> tuple[Verdict, ...]:
    """What ``jali verify`` does: build, load ``weights`` (safetensors), verify, and write the JSON file ``out``.

    Without ``build`` and ``weights`` the model is the default of :func:`jali.verify`, whose errors are raised, and
    :class:`FileError`.
    """
    from rich.console import Console

    model = None if build is None or weights is None else built(build, weights)
    items = None if data is None else batches(data)
    with Console(stderr=True).status("verifying"):
        found = verify(model, items, seed=seed)
    if out is not None:
        atomic_write(out, (to_json(found) + "\n").encode())
    return found
