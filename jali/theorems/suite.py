"""All theorems on one network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from jali.errors import DynamicsError, LimitError
from jali.plain import seed_of
from jali.theorems.case import Case, cases, default_model
from jali.theorems.communities import modularity_rises
from jali.theorems.connections import pruning_efficiency, pruning_efficiency_of_networks
from jali.theorems.feedback import feedbacks, preserved
from jali.theorems.information import data_processing
from jali.theorems.modular_law import modular_law
from jali.theorems.reducible_units import reducible_units
from jali.theorems.stability import stability
from jali.theorems.sublattices import sublattices_in_parallel
from jali.theorems.verdict import Verdict

BEFORE: dict[str, Callable[[Case], Verdict]] = {
    "III.1": modular_law,
    "III.2": reducible_units,
    "III.3": pruning_efficiency,
    "Corollary III.1": sublattices_in_parallel,
}
AFTER: dict[str, Callable[[Case], Verdict]] = {
    "III.5": modularity_rises,
    "III.6": data_processing,
    "III.7": stability,
}


def verify(model: nn.Module | None = None, data: Any = None, *, seed: int = 0) -> tuple[Verdict, ...]:
    """What theorems III.1 to III.7 and Corollary III.1 say about ``model``, one verdict per theorem and recurrent site.

    III.4 is asked of every module of several layers as a whole, with the connections between its layers. Networks with
    top-down feedback are asked whether it preserves meets and joins, too (Definition III.4 assumes it).

    ``model``: by default a small RNN drawn by ``seed``; it is not changed. ``data``: as for :func:`jali.prune`; without it
    the sites step through standard normal inputs drawn by ``seed``, and ``numbers`` say so. A theorem that fails is an answer
    and no error. Raises :class:`ModelError`, :class:`DataError` and :class:`SeedError`.
    """
    seed = seed_of(seed)
    model = default_model(seed) if model is None else model
    found = cases(model, data, seed)
    before = [_asked(name, theorem, case) for name, theorem in BEFORE.items() for case in found]
    after = [_asked(name, theorem, case) for name, theorem in AFTER.items() for case in found]
    top_down = [preserved(each) for each in feedbacks(model)]
    return (*before, *pruning_efficiency_of_networks(model), *top_down, *after)


def _asked(name: str, theorem: Callable[[Case], Verdict], case: Case) -> Verdict:
    """A network that leaves the finite numbers is no failure of the theorems that speak of its states."""
    try:
        return theorem(case)
    except (DynamicsError, LimitError) as error:
        return Verdict(name, case.site, "premise not met", " ".join(str(error).split()), {"inputs": case.source})
