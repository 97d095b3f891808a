"""The executable theorems: each where it holds and where it fails, witnesses checked without the code that found them."""

from itertools import combinations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import nn

import jali
from jali.errors import FileError, ModelError
from jali.maths.completion import dedekind_macneille
from jali.maths.concepts import enumerate_concepts
from jali.maths.lattice import Lattice
from jali.theorems import from_json, to_json
from jali.theorems.case import cases
from jali.theorems.modular_law import lattices, modular_law, pentagon
from tests.strategies_order import relations


def rnn(weights, cls=nn.RNN, inputs=2, **options):
    """A layer whose recurrent weights are ``weights`` in every gate, other parameters drawn."""
    weights = torch.as_tensor(np.asarray(weights, dtype=np.float64))
    torch.manual_seed(0)
    layer = cls(inputs, len(weights), batch_first=True, **options).double()
    with torch.no_grad():
        layer.weight_hh_l0.copy_(weights.repeat(len(layer.weight_hh_l0) // len(weights), 1))
    return layer


def case(weights, cls=nn.RNN, data=None, **options):
    return cases(rnn(weights, cls, **options), data, 0)[0]


def edges(n, *pairs):
    """Influences ``[to, from]`` of strength 1 from the first to the second of each pair."""
    weights = np.zeros((n, n))
    for a, b in pairs:
        weights[b, a] = 1.0
    return weights


# --- III.1 ----------------------------------------------------------------------------------------------------------


def breaks_the_modular_law(lattice):
    """Every triple, from the joins and meets as the order defines them."""
    leq = lattice.leq

    def least(mask):
        return next(x for x in np.flatnonzero(mask) if leq[x][mask].all())

    def join(a, b):
        return least(leq[a] & leq[b])

    def meet(a, b):
        mask = leq[:, a] & leq[:, b]
        return next(x for x in np.flatnonzero(mask) if leq[:, x][mask].all())

    triples = product(range(len(leq)), repeat=3)
    return any(join(a, meet(b, c)) != meet(join(a, b), c) for a, b, c in triples if leq[a, c])


def test_the_modular_law_fails_on_one_influence_beside_a_third_unit():
    answer = modular_law(case(edges(3, (0, 1))))
    assert answer.answer == "fails"
    assert answer.witness.startswith("all weights, condensation: a=u0 ≤ c=u1, b=u2")
    assert answer.numbers["lattices"][0] == {
        "density": 1.0, "model": "condensation", "elements": 5, "modular": False
    }  # fmt: skip


def test_the_modular_law_holds_on_a_single_unit_and_says_where_it_fails():
    answer = modular_law(case([[0.5]]))
    assert answer
    assert "from 3 units on" in answer.witness


def test_no_lattice_no_claim():
    answer = modular_law(case(1 - np.eye(18) + edges(18, (0, 0))))  # 2^17 elements and more, or one
    unfolded = [row for row in answer.numbers["lattices"] if row["model"] == "unfolding" and row["density"] == 1.0]
    assert unfolded[0]["modular"] is None


@settings(max_examples=60)
@given(relations(5))
def test_a_pentagon_is_found_iff_some_triple_breaks_the_modular_law(drives):
    for name, completion in lattices(drives, limit=40).items():
        if completion is not None and len(completion.lattice) <= 16:
            assert (pentagon(completion, name) is not None) == breaks_the_modular_law(completion.lattice)


def test_the_smallest_counterexamples_by_exhaustive_search():
    def completed(n, model):
        return [
            lattices(np.array(bits, dtype=bool).reshape(n, n))[model].lattice for bits in product((0, 1), repeat=n * n)
        ]

    assert not any(breaks_the_modular_law(x) for n in (1, 2) for x in completed(n, "condensation"))
    assert not any(breaks_the_modular_law(x) for x in completed(1, "unfolding"))
    assert breaks_the_modular_law(dedekind_macneille(np.eye(3, dtype=bool) | (edges(3, (1, 0)) > 0)).lattice)
    assert breaks_the_modular_law(lattices(edges(2, (1, 0)) > 0)["unfolding"].lattice)

    def broken(g, m):
        tables = (np.array(bits, dtype=bool).reshape(g, m) for bits in product((0, 1), repeat=g * m))
        return [t for t in tables if breaks_the_modular_law(Lattice.from_leq(enumerate_concepts(t).order()))]

    assert not any(broken(g, m) for g in (1, 2) for m in range(1, 4))
    assert not broken(3, 2)
    assert min(t.sum() for t in broken(3, 3)) == 4
