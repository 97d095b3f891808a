"""Arrowhead eigenvalues against LAPACK, local Laplacians against the paper's equations, and the pruning decision."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import linear_sum_assignment

from jali.errors import ContextError, DynamicsError
from jali.maths.arrowhead import arrowhead_eigenvalues
from jali.maths.local_laplacian import DEGREES, Decision, decide, local_laplacian

SIMPLE = st.integers(-4, 4).map(float)  # where eigenvalues coincide
SEEDS = st.integers(0, 2**32 - 1)


def dense(centre, poles, row, column):
    full = np.diag(np.concatenate([[centre], poles]))
    full[0, 1:], full[1:, 0] = row, column
    return full


def distance(found, wanted):
    """The largest distance between two lists of eigenvalues, matched as well as they can be."""
    cost = np.abs(np.subtract.outer(found, wanted))
    return cost[linear_sum_assignment(cost)].max()


def graph(seed, nodes, density=0.7, scale=1.0):
    """A random graph ``[to, from]``."""
    rng = np.random.default_rng(seed)
    edges = rng.random((nodes, nodes)) < density
    np.fill_diagonal(edges, False)
    return rng.uniform(-scale, scale, (nodes, nodes)), edges


# --- eigenvalues -----------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(SEEDS, st.integers(0, 40), st.sampled_from(["any", *DEGREES]), st.sampled_from([0.1, 1.0, 10.0]))
def test_eigenvalues_are_those_of_lapack(seed, leaves, kind, scale):
    rng = np.random.default_rng(seed)
    row, column = rng.uniform(-scale, scale, (2, leaves))
    poles = {"any": rng.normal(size=leaves), "weighted": row + column, "directed": np.full(leaves, 2.0)}[kind]
    centre = rng.normal() if kind == "any" else poles.sum()
    found = arrowhead_eigenvalues(centre, poles, row * column)
    assert distance(found, np.linalg.eigvals(dense(centre, poles, row, column))) < 1e-9


@settings(deadline=None)
@given(st.lists(st.tuples(SIMPLE, SIMPLE, SIMPLE), max_size=6), SIMPLE)
def test_where_eigenvalues_coincide_each_is_exact_for_a_matrix_beside(leaves, centre):
    poles, row, column = np.array(leaves).reshape(-1, 3).T
    full = dense(centre, poles, row, column)
    found = arrowhead_eigenvalues(centre, poles, row * column)
    size = max(np.abs(full).sum(), 1.0)
    for value in found:
        assert np.linalg.svd(full - value * np.eye(len(full)), compute_uv=False)[-1] <= 1e-13 * size
    assert abs(found.sum() - np.trace(full)) <= 1e-7 * size  # each of them, and as often as it is one
    assert abs((found**2).sum() - np.trace(full @ full)) <= 1e-6 * size**2


@settings(deadline=None)
@given(SEEDS, st.integers(1, 30))
def test_complex_eigenvalues_come_in_exact_pairs_and_are_sorted(seed, leaves):
    rng = np.random.default_rng(seed)
    found = arrowhead_eigenvalues(rng.normal(), rng.normal(size=leaves), rng.normal(size=leaves))
    assert sorted(found.conj().tolist(), key=lambda z: (z.real, z.imag)) == found.tolist()


@settings(deadline=None)
@given(SEEDS, st.integers(1, 20), st.floats(0.01, 3))
def test_products_of_one_sign_give_real_eigenvalues_that_the_poles_part(seed, leaves, scale):
    rng = np.random.default_rng(seed)
    poles = np.sort(rng.normal(size=leaves))
    found = arrowhead_eigenvalues(rng.normal(), poles, scale * rng.random(leaves))
    assert (found.imag == 0).all()
    slack = 1e-12 * (np.abs(poles).max() + np.abs(found).max())
    assert (found.real[:-1] <= poles + slack).all()
    assert (poles <= found.real[1:] + slack).all()


def test_equal_poles_and_ties_without_product_give_their_own_eigenvalues():
    found = arrowhead_eigenvalues(8.0, [2, 2, 2, 5], [3.0, 4.0, -16.0, 0.0])
    np.testing.assert_allclose(found, [2, 2, 5, 5, 5], atol=1e-12)  # (z − 8)(z − 2) = −9 has the root 5 twice
    assert arrowhead_eigenvalues(3.0, [], []).tolist() == [3]
    assert arrowhead_eigenvalues(0.0, [0.0], [-4.0]).tolist() == [-2j, 2j]
    assert arrowhead_eigenvalues(0.0, [0.0], [0.0]).tolist() == [0, 0]


@pytest.mark.parametrize("huge", [1e-150, 1e100])
def test_the_scale_of_a_matrix_is_that_of_its_eigenvalues(huge):
    poles, products = np.array([1.0, -2.0, 0.5]), np.array([-1.0, 2.0, -3.0])
    want = arrowhead_eigenvalues(0.3, poles, products)
    np.testing.assert_allclose(
        arrowhead_eigenvalues(0.3 * huge, poles * huge, products * huge**2) / huge, want, rtol=1e-12
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.0, [1.0, 2.0], [1.0]), r"one product per pole; got shapes \(2,\) and \(1,\)"),
        ((float("nan"), [1.0], [1.0]), "not finite; the weights have exploded"),
        ((1.0, [1.0], [float("inf")]), "not finite"),
    ],
)
def test_what_is_no_arrowhead_is_refused(arguments, message):
    with pytest.raises(DynamicsError, match=message):
        arrowhead_eigenvalues(*arguments)


# --- the Laplacian of a neighbourhood --------------------------------------------------------------------------------


def as_printed(weights, edges, node, degree):
    """Equation 4 with dense arrays ``[from, to]``, as the paper describes them."""
    a, w = edges.T.astype(float), weights.T
    local = np.zeros_like(a)
    local[:, node], local[node] = a[:, node], a[node]
    counted = local * w if degree == "weighted" else local
    return np.diag(counted.sum(axis=0) + counted.sum(axis=1)) - local * w


@pytest.mark.parametrize("degree", DEGREES)
@settings(deadline=None)
@given(SEEDS, st.integers(2, 12), st.floats(0, 1))
def test_the_local_laplacian_is_equation_4(degree, seed, nodes, density):
    weights, edges = graph(seed, nodes, density)
    for node in range(nodes):
        local, want = local_laplacian(weights, edges, node, degree), as_printed(weights, edges, node, degree)
        np.testing.assert_allclose(local.matrix(), want, atol=1e-14)
        padded = np.concatenate([local.eigenvalues(), np.zeros(nodes - 1 - len(local.neighbours))])
        assert distance(padded, np.linalg.eigvals(want)) < 1e-7  # many of them coincide


@settings(deadline=None)
@given(SEEDS, st.integers(2, 12), st.sampled_from(DEGREES))
def test_the_shares_of_an_oscillation_are_participation_factors_and_sum_to_one(seed, nodes, degree):
    local = local_laplacian(*graph(seed, nodes, 1.0, 4.0), 0, degree)
    value = max(local.eigenvalues(), key=lambda z: z.imag)
    assume(value.imag > 1e-3)
    shares = local.shares(value)
    assert abs(shares.sum() - 1) < 1e-9
    values, right = np.linalg.eig(local.matrix())
    k = np.abs(values - value).argmin()
    assume(np.sort(np.abs(values - value))[1] > 1e-3)
    left = np.linalg.inv(right)[k]
    factors = np.abs(left * right[:, k])
    np.testing.assert_allclose(np.abs(shares), factors[local.neighbours] / factors[local.node], rtol=1e-6, atol=1e-9)


def test_a_node_without_edges_has_an_empty_neighbourhood():
    local = local_laplacian(np.ones((3, 3)), np.zeros((3, 3)), 1)
    assert local.eigenvalues().tolist() == [0]
    assert (local.matrix() == 0).all()
    assert decide(np.ones((3, 3)), np.zeros((3, 3)), 1) is None


# --- the decision ----------------------------------------------------------------------------------------------------


def as_published(weights, edges, node, degree):
    """What the paper's code does, with dense arrays ``[from, to]``: positions in LAPACK's output are taken for nodes."""
    imaginary = np.linalg.eig(as_printed(weights, edges, node, degree))[0].imag
    high, low = np.argmax(imaginary), np.argmin(imaginary)
    if imaginary[high] > 0 and imaginary[low] == -imaginary[high] and edges[high, low]:
        return (low, high)
    return None


@settings(deadline=None)
@given(SEEDS, st.integers(2, 8), st.sampled_from([0.6, 1.0]), st.sampled_from([1.0, 10.0]))
def test_lapack_order_removes_what_the_published_code_removes_and_only_from_one_node_to_the_one_before(
    seed, nodes, density, scale
):
    weights, edges = graph(seed, nodes, density, scale)
    for degree in DEGREES:
        for node in range(nodes):
            found, want = (
                decide(weights, edges, node, degree, "lapack-order"),
                as_published(weights, edges, node, degree),
            )
            if found is None:
                assert want is None
                continue
            assert found.source == found.target + 1  # LAPACK keeps a pair side by side
            if found.imaginary > 1e-9:  # below, one more rounding turns the answer
                assert want == (found.source, found.target)


@settings(deadline=None)
@given(SEEDS, st.integers(2, 9), st.sampled_from(DEGREES), st.sampled_from([1.0, 10.0]))
def test_by_eigenvector_a_node_prunes_its_own_input_of_the_largest_share(seed, nodes, degree, scale):
    weights, edges = graph(seed, nodes, 0.8, scale)
    for node in range(nodes):
        found, local = decide(weights, edges, node, degree), local_laplacian(weights, edges, node, degree)
        values = local.eigenvalues()
        top = max(values.imag)
        if found is None:
            assert top <= 1e-6 * max(np.abs(local.matrix()).max(), 1.0)
            continue
        assert found.target == node
        assert edges[node, found.source]
        assert edges[found.source, node]
        assert weights[node, found.source] * weights[found.source, node] < 0  # what oscillates pulls both ways
        assert abs(found.imaginary - top) < 1e-9
        if sum(values.imag > top - 1e-6) == 1:
            shares = local.shares(values[values.imag.argmax()])
            assert shares[local.neighbours == found.source][0] >= shares.max() - 1e-9


@settings(deadline=None)
@given(SEEDS, st.integers(2, 9), st.permutations(range(9)))
def test_by_eigenvector_renaming_the_nodes_renames_the_decision(seed, nodes, order):
    order = np.array([k for k in order if k < nodes])
    weights, edges = graph(seed, nodes, 0.8, 4.0)
    found = decide(weights, edges, int(order[0]), "weighted")
    turned = decide(weights[np.ix_(order, order)], edges[np.ix_(order, order)], 0, "weighted")
    assert (found is None) == (turned is None)
    if found is not None and turned is not None:
        assert (order[turned.source], order[turned.target]) == (found.source, found.target)


@pytest.mark.parametrize("degree", DEGREES)
def test_rounding_is_taken_for_a_pair_by_position_and_not_by_eigenvector(degree):
    """Weights of one sign have real eigenvalues (the matrix is similar to a symmetric one)."""
    rng, noise = np.random.default_rng(0), 0
    for _ in range(200):
        weights = rng.uniform(0.1, 1, (7, 7))
        edges = ~np.eye(7, dtype=bool)
        assert decide(weights, edges, 3, degree) is None
        found = decide(weights, edges, 3, degree, "lapack-order")
        noise += found is not None
        assert found is None or found.imaginary < 1e-7
    assert (noise > 0) == (degree == "directed")  # five of the six degrees are 2, and so are as many eigenvalues


def test_two_nodes_by_hand():
    weights = np.array([[0.0, 3.0], [-2.0, 0.0]])  # 1 → 0 weighs 3, 0 → 1 weighs −2
    edges = ~np.eye(2, dtype=bool)
    # D: degrees 2, 2, L = [[2, 2], [−3, 2]], 2 ± i√6. D_W: degrees 1, 1: 1 ± i√6.
    for degree, real in (("directed", 2.0), ("weighted", 1.0)):
        values = local_laplacian(weights, edges, 0, degree).eigenvalues()
        np.testing.assert_allclose(values, [real - 1j * 6**0.5, real + 1j * 6**0.5])
        assert decide(weights, edges, 0, degree) == Decision(1, 0, pytest.approx(6**0.5))
        assert decide(weights, edges, 1, degree) == Decision(0, 1, pytest.approx(6**0.5))
        assert decide(weights, edges, 0, degree, "lapack-order") == Decision(1, 0, pytest.approx(6**0.5))


@settings(deadline=None)
@given(hnp.arrays(np.float64, (5, 5), elements=SIMPLE))
def test_simple_weights_are_decided_without_failure(weights):
    edges = (weights != 0) & ~np.eye(5, dtype=bool)
    for degree in DEGREES:
        for rule in ("eigenvector", "lapack-order"):
            found = decide(weights, edges, 2, degree, rule)
            assert found is None or edges[found.target, found.source]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"node": 3}, ContextError, "node 3 is none of the 3 nodes"),
        ({"degree": "D"}, ContextError, "degree 'D' is unknown; give one of 'directed', 'weighted'"),
        ({"node_of": "first"}, ContextError, "node_of 'first' is unknown; give one of 'lapack-order', 'eigenvector'"),
        ({"weights": np.ones((3, 2))}, ContextError, r"two square arrays of one size; got \(3, 2\) weights"),
        ({"adjacency": np.ones((3, 3))}, ContextError, "node 0 has an edge to itself"),
        ({"weights": np.full((3, 3), np.inf)}, DynamicsError, "6 weights are not finite; bound them"),
    ],
)
def test_bad_graphs_are_refused(change, error, message):
    good = {"weights": np.ones((3, 3)), "adjacency": ~np.eye(3, dtype=bool), "node": 0}
    with pytest.raises(error, match=message):
        decide(**good | change)
