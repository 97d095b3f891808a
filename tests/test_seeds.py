"""A seed is a whole number from 0 to 2³² − 1 wherever one is taken, also where nothing is drawn with it."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from torch import nn

import jali
from jali.data import load
from jali.errors import JaliError, SeedError
from jali.maths.expanders import ramanujan_lift, random_regular, regular_ranking
from jali.maths.information import gaussian_bias, ksg
from jali.maths.modularity import communities
from jali.models.asynchronous import AsynchronousNetwork
from jali.models.truth_tables import GATES
from jali.plain import is_seed, seed_of

X = np.arange(20.0)


def layer():
    torch.manual_seed(0)
    return nn.RNN(2, 4, batch_first=True)


TAKERS = {
    "plan": lambda seed: jali.plan(layer(), "magnitude", seed=seed),
    "prune": lambda seed: jali.prune(layer(), "magnitude", seed=seed),
    "Pruner": lambda seed: jali.Pruner(layer(), "magnitude", seed=seed),
    "analyze": lambda seed: jali.analyze(layer(), seed=seed),
    "verify": lambda seed: jali.verify(layer(), seed=seed),
    "verify of the default network": lambda seed: jali.verify(seed=seed),
    "decompose": lambda seed: jali.decompose(layer(), seed=seed),
    "Plan": lambda seed: jali.Plan("unit", "x", jali.Budget(0.5), jali.plan(layer(), "magnitude").sites, seed=seed),
    "load": lambda seed: load("digits", seed=seed),
    "random_regular": lambda seed: random_regular(4, 4, 8, seed),
    "regular_ranking": lambda seed: regular_ranking(4, 4, (0, seed)),
    "ramanujan_lift": lambda seed: ramanujan_lift(3, 3, 1, seed),
    "ksg": lambda seed: ksg(X, -X, 3, seed),
    "gaussian_bias": lambda seed: gaussian_bias((0.5,), 50, 1, seed),
    "communities": lambda seed: communities(np.eye(3), seed),
    "AsynchronousNetwork": lambda seed: AsynchronousNetwork(1, 1, 1, seeds=(0, seed)),
    "draw": lambda seed: GATES["AND"].draw(3, seed),
}


@pytest.mark.parametrize("name", TAKERS)
@pytest.mark.parametrize("seed", [-1, 2**32, 1.0, True, None, "0"])
def test_what_is_no_seed_is_refused_by_name(name, seed):
    with pytest.raises(JaliError, match=rf"seed {seed!r} is not a whole number from 0 to 4294967295"):
        TAKERS[name](seed)


@pytest.mark.parametrize("name", TAKERS)
def test_the_smallest_and_the_largest_seed_are_taken(name):
    for seed in (0, 2**32 - 1, np.int64(3)):
        TAKERS[name](seed)


def test_no_public_function_takes_a_seed_that_is_not_in_the_table():
    public = {name: getattr(jali, name) for name in jali.__all__ if inspect.isroutine(getattr(jali, name))}
    public["Pruner"] = jali.Pruner
    takers = {name for name, call in public.items() if "seed" in inspect.signature(call).parameters}
    assert {"plan", "Pruner"} <= takers <= set(TAKERS)


def test_a_seed_becomes_a_plain_integer():
    assert type(seed_of(np.uint8(7))) is int
    assert is_seed(0)
    assert not is_seed(-1)
    with pytest.raises(ValueError, match="give one, e"):
        seed_of(-1)
    assert issubclass(SeedError, JaliError)
