"""How a budget is shared among matrices of unequal size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from jali.errors import BudgetError


def erdos_renyi(shapes: Sequence[tuple[int, int, int]], density: float) -> np.ndarray:
    """Densities of matrices of ``shapes`` (gates, outputs, inputs), in [0, 1]: ``min(1, ε·(out + in)/(out·in))``.

    ε is such that the densities, weighted with the sizes, have the mean ``density``. The Erdős–Rényi(-kernel) distribution of
    Mocanu et al. 2018 and of U. Evci et al., "Rigging the lottery", ICML 2020, section 3: what is small stays denser. Every
    gate is a matrix of its own. The cap at 1 is solved exactly: the matrices fill up in the order of their ratio, and ε is
    the value at which the rest carries the rest. Raises :class:`BudgetError` for a density outside [0, 1].
    """
    if not 0.0 <= density <= 1.0:
        raise BudgetError(f"density {density!r} is outside [0, 1]; it is the fraction of the weights that stay")
    sizes = np.array([math.prod(shape) for shape in shapes], dtype=np.float64)
    ratio = np.array([(out + inputs) / (out * inputs) for _, out, inputs in shapes])
    order = np.argsort(-ratio, kind="stable")
    wanted = density * sizes.sum()
    for full in range(len(order)):
        dense, rest = order[:full], order[full:]
        scale = (wanted - sizes[dense].sum()) / (sizes[rest] * ratio[rest]).sum()
        if scale * ratio[rest[0]] <= 1.0:
            return np.where(np.isin(np.arange(len(order)), dense), 1.0, scale * ratio)
    return np.ones(len(order))


def apportion(shares: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers next to the real ``shares`` that sum to ``total`` (Hamilton: the largest remainders round up)."""
    whole = np.floor(shares).astype(int)
    order = np.argsort(whole - shares, kind="stable")
    whole[order[: total - int(whole.sum())]] += 1
    return whole
