"""All theorems on one network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from jali.theorems.case import Case, cases
from jali.theorems.modular_law import modular_law
from jali.theorems.verdict import Verdict

PER_SITE: tuple[Callable[[Case], Verdict], ...] = (modular_law,)


def verify(model: nn.Module | None = None, data: Any = None, *, seed: int = 0) -> tuple[Verdict, ...]:
    """What theorems III.1 to III.7 and Corollary III.1 say about ``model``, one verdict per theorem and recurrent site.

    ``model``: by default a small RNN drawn by ``seed``; it is not changed. ``data``: as for :func:`jali.prune`; without it
    the sites step through standard normal inputs drawn by ``seed``, and ``numbers`` say so. A theorem that fails is an answer
    and no error. Raises :class:`ModelError` and :class:`DataError`.
    """
    found = cases(model, data, seed)
    return tuple(theorem(case) for theorem in PER_SITE for case in found)
