"""The `reconstruction` criterion against the definition: refit, measure, remove the cheapest unit, repeat."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jali.criterion.reconstruction import score
from jali.errors import CriterionError
from jali.evidence import SiteEvidence, Use
from jali.site import Site
from jali.view import View

RIDGE = 1e-3


def view(hidden):
    return View(Site("rnn", "RNN", hidden), np.zeros((1, hidden, 2)), np.zeros((1, hidden, hidden)))


def random_use(rng, hidden, outputs):
    states = rng.normal(size=(4 * hidden, hidden)) @ rng.normal(size=(hidden, hidden))
    weight = rng.normal(size=(outputs, hidden))
    return Use("r", weight, states.mean(0), states.T @ states / len(states), len(states))


def left_error(use, weight, kept):
    """Least squared error of computing ``weight @ h`` from the kept units only, by normal equations."""
    s = use.covariance + RIDGE * np.trace(use.covariance) / len(use.covariance) * np.eye(len(use.covariance))
    if not kept:
        return np.einsum("oi,ij,oj->", weight, s, weight)
    fit = np.linalg.solve(s[np.ix_(kept, kept)], s[kept] @ weight.T)
    return np.einsum("oi,ij,oj->", weight, s, weight) - np.einsum("ko,kj,oj->", fit, s[kept], weight)


def by_definition(uses, hidden):
    """Backward elimination with a fresh least-squares fit at every step."""
    weights = [use.weight for use in uses]
    s = [use.covariance + RIDGE * np.trace(use.covariance) / hidden * np.eye(hidden) for use in uses]
    scales = [np.einsum("oi,ij,oj->", w, c, w) for w, c in zip(weights, s, strict=True)]
    alive, rank = list(range(hidden)), np.zeros(hidden)
    for place in range(1, hidden + 1):
        costs = {}
        for unit in alive:
            rest = [u for u in alive if u != unit]
            total = 0.0
            for use, weight, scale in zip(uses, weights, scales, strict=True):
                total += (left_error(use, weight, rest) - left_error(use, weight, alive)) / scale
            costs[unit] = total
        unit = min(costs, key=costs.__getitem__)
        alive.remove(unit)
        rank[unit] = place
    return rank / hidden


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), hidden=st.integers(2, 7), rows=st.integers(1, 12))
def test_updates_equal_a_fresh_fit_at_every_step(seed, hidden, rows):
    rng = np.random.default_rng(seed)
    uses = (random_use(rng, hidden, rows), random_use(rng, hidden, 3))
    ours = score(view(hidden), SiteEvidence(uses), ridge=RIDGE)
    np.testing.assert_allclose(ours, by_definition(uses, hidden))


def test_a_copy_goes_before_what_nothing_else_reproduces():
    rng = np.random.default_rng(0)
    states = rng.normal(size=(500, 4))
    states[:, 3] = states[:, 1]
    use = Use("head", np.ones((1, 4)), states.mean(0), states.T @ states / 500, 500)
    scores = score(view(4), SiteEvidence((use,)))
    assert sorted(scores) == [0.25, 0.5, 0.75, 1.0]
    assert min(scores[1], scores[3]) == 0.25


def test_a_ridge_of_zero_is_refused():
    use = Use("head", np.ones((1, 2)), np.zeros(2), np.eye(2), 10)
    with pytest.raises(CriterionError, match=r"ridge 0\.0"):
        score(view(2), SiteEvidence((use,)), ridge=0.0)


def test_units_that_nothing_reads_cannot_be_ranked():
    use = Use("head", np.zeros((1, 2)), np.zeros(2), np.eye(2), 10)
    with pytest.raises(CriterionError, match="nothing reads"):
        score(view(2), SiteEvidence((use,)))
