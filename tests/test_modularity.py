"""Modularity against networkx and against the printed double sum; laws; communities that are planted."""

import networkx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jali.errors import ContextError
from jali.maths.modularity import communities, modularity


@st.composite
def graphs(draw):
    """Weights (n, n), sparse or dense, loops included, and a partition."""
    rng, n = np.random.default_rng(draw(st.integers(0, 10**6))), draw(st.integers(1, 9))
    weights = rng.exponential(size=(n, n)) * (rng.random((n, n)) < draw(st.sampled_from([0.2, 0.6, 1.0])))
    weights[rng.integers(n), rng.integers(n)] = 1.5
    return weights, rng.integers(0, draw(st.integers(1, n)), size=n)


@given(graphs())
def test_is_the_directed_modularity_of_networkx(graph):
    weights, labels = graph
    parts = [set(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels)]
    digraph = networkx.from_numpy_array(weights, create_using=networkx.DiGraph)
    assert modularity(weights, labels) == pytest.approx(networkx.community.modularity(digraph, parts), abs=1e-12)


@given(graphs())
def test_is_the_printed_sum(graph):
    weights, labels = graph
    total, out, into = weights.sum(), weights.sum(1), weights.sum(0)
    pairs = [(i, j) for i in range(len(labels)) for j in range(len(labels)) if labels[i] == labels[j]]
    want = sum(weights[i, j] - out[i] * into[j] / total for i, j in pairs) / total
    assert modularity(weights, labels) == pytest.approx(want, abs=1e-12)


@given(graphs(), st.floats(1e-3, 1e3), st.integers(0, 10**6))
def test_laws(graph, scale, seed):
    weights, labels = graph
    q = modularity(weights, labels)
    assert -1 <= q < 1
    assert modularity(weights.T, labels) == pytest.approx(q, abs=1e-12)
    assert modularity(scale * weights, labels) == pytest.approx(q, abs=1e-12)
    assert modularity(weights, np.zeros(len(labels))) == pytest.approx(0, abs=1e-12)
    order = np.random.default_rng(seed).permutation(len(labels))
    assert modularity(weights[np.ix_(order, order)], labels[order] * 7 - 3) == pytest.approx(q, abs=1e-12)


@given(graphs(), st.integers(0, 3))
def test_communities_are_a_partition_with_its_own_q(graph, seed):
    weights, _ = graph
    found = communities(weights, seed)
    assert found.labels.shape == (len(weights),)
    assert sorted(set(found.labels.tolist())) == list(range(found.count))
    assert [int(np.flatnonzero(found.labels == k)[0]) for k in range(found.count)] == sorted(
        int(np.flatnonzero(found.labels == k)[0]) for k in range(found.count)
    )
    assert sum(found.sizes) == len(weights)
    assert found.q == modularity(weights, found.labels)
    assert found.q >= -1e-12
    np.testing.assert_array_equal(communities(weights, seed).labels, found.labels)


def test_planted_blocks_are_found():
    rng, labels = np.random.default_rng(0), np.arange(60) % 3
    weights = rng.random((60, 60)) * np.where(labels[:, None] == labels, 1.0, 0.1)
    found = communities(weights)
    np.testing.assert_array_equal(found.labels, labels)
    assert found.sizes == (20, 20, 20)
    assert found.q == modularity(weights, labels) > 0.4
    assert found.notes == ()


def test_blocks_without_links_reach_the_largest_value_for_their_number():
    weights = np.kron(np.eye(4), np.ones((5, 5)))
    found = communities(weights)
    assert found.sizes == (5, 5, 5, 5)
    assert found.q == pytest.approx(1 - 1 / 4)


def test_no_edges_is_zero_with_a_word():
    found = communities(np.zeros((3, 3)))
    assert found.labels.tolist() == [0, 1, 2]
    assert found.q == modularity(np.zeros((3, 3)), [0, 0, 1]) == 0.0
    assert found.notes == ("there is no edge: every unit is a community, and Q is 0",)


def test_units_without_edges_are_named():
    weights = np.zeros((5, 5))
    weights[0, 1] = weights[1, 0] = 1
    found = communities(weights)
    assert found.sizes == (2, 1, 1, 1)
    assert found.notes == ("3 of 5 units have no edge; each is a community of its own",)


def test_huge_weights_stay_finite():
    assert modularity(np.full((3, 3), 1e308), [0, 0, 1]) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("weights", "message"),
    [(np.ones((2, 3)), "square"), (-np.eye(2), "nonnegative"), (np.full((2, 2), np.nan), "finite"), ([], "square")],
)
def test_what_is_no_graph_is_one_clear_error(weights, message):
    for call in (communities, lambda graph: modularity(graph, [0, 1])):
        with pytest.raises(ContextError, match=message):
            call(weights)
    with pytest.raises(ContextError, match="one label for each of 2 units"):
        modularity(np.eye(2), [0, 1, 2])
