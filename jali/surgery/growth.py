"""Who grows again: scores of the weights that are not there."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from torch import nn

from jali.planning import WeightScores
from jali.plans import Plan
from jali.site import Site
from jali.view import read_gradient


def gradients(model: nn.Module, sites: Sequence[Site]) -> WeightScores:
    """``|∂loss/∂w|`` of every input and recurrent weight, from what ``.grad`` holds (Evci et al. 2020)."""
    return {
        site: {
            field: np.abs(value) for field, value in read_gradient(model, site).arrays() if field in ("w_in", "w_rec")
        }
        for site in sites
    }


def lots(plan: Plan, sites: Sequence[Site], seed: int, time: int) -> WeightScores:
    """Uniform random numbers (Mocanu et al. 2018) that depend on ``seed``, ``time``, the site and the field only."""
    return {
        site: {
            field: _lot(mask.shape, [seed, time, site.name, field]) for field, mask in plan.site(site.name).keep.items()
        }
        for site in sites
    }


def _lot(shape: tuple[int, ...], key: list[int | str]) -> np.ndarray:
    # crc32, not hash(): Python salts that one per process.
    words = [part if isinstance(part, int) else zlib.crc32(part.encode()) for part in key]
    return np.random.default_rng(words).random(shape)
