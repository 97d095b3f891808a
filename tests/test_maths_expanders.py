"""Spectra of bipartite graphs against closed forms, numpy and exhaustive cuts; masks against what their names promise."""

import itertools
import math

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from jali.errors import ContextError, LimitError
from jali.maths.expanders import _tilt, expander_ranking, lps, ramanujan_lift, random_regular, regular_ranking
from jali.maths.spectral import cheeger, expansion, random_crossing, singular_values
from jali.maths.unfolding import unfolded
from jali.plans.ramanujan import edges_at_loss

SIDES = st.integers(1, 9)


@st.composite
def blocks(draw, least=1, density=(0.0, 0.15, 0.5, 1.0)):
    """Real blocks (m, n), from empty to full."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    shape = draw(st.tuples(st.integers(least, 9), st.integers(least, 9)))
    return rng.normal(size=shape) * (rng.random(shape) < draw(st.sampled_from(density)))


def adjacency(graph):
    m, n = graph.shape
    return np.block([[np.zeros((m, m)), graph], [graph.T, np.zeros((n, n))]])


@given(blocks(), st.booleans(), st.booleans())
def test_the_numbers_are_those_of_the_definitions_and_never_nan(block, weighted, sparse):
    graph = np.abs(block) if weighted else (block != 0).astype(float)
    found = expansion(scipy.sparse.csr_matrix(block) if sparse else block, weighted)
    eigenvalues = np.sort(np.linalg.eigvalsh(adjacency(graph)))[::-1]
    assert found.lambda1 == pytest.approx(max(eigenvalues[0], 0), abs=1e-9)
    second = eigenvalues[1] if min(block.shape) > 1 else 0.0  # a star has rank one
    assert found.lambda2 == pytest.approx(second, abs=1e-9)
    assert found.degree == pytest.approx(adjacency(graph).sum() / sum(block.shape), abs=1e-12)
    assert found.edges == np.count_nonzero(block)
    assert found.density == pytest.approx((block != 0).mean())
    assert found.isolated == (int((~block.any(1)).sum()), int((~block.any(0)).sum()))
    for delta, degree in ((found.delta_r, found.degree), (found.delta_s, found.lambda1)):
        if delta is None:
            assert degree < 1
        elif math.isinf(delta):
            assert found.lambda2 == 0
        else:
            bound = 2 * math.sqrt(max(degree - 1, 0))
            assert delta == pytest.approx((bound - found.lambda2) / found.lambda2, abs=1e-9)
    assert len(found.problems) == (found.delta_r is None) + (found.delta_s is None) + (found.edges == 0)


@given(blocks(), st.integers(0, 10**6), st.booleans())
def test_names_of_vertices_and_sides_do_not_matter(block, seed, weighted):
    rng = np.random.default_rng(seed)
    moved = block[rng.permutation(len(block))][:, rng.permutation(block.shape[1])].T
    for measure in (expansion, cheeger):
        one, other = measure(block, weighted), measure(moved, weighted)
        for name in ("lambda1", "lambda2", "degree", "alpha2"):
            if hasattr(one, name):
                assert getattr(one, name) == pytest.approx(getattr(other, name), abs=1e-9)


@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 7), (3, 5), (40, 40), (300, 500)])
def test_complete_bipartite_graphs(m, n):
    found = expansion(np.ones((m, n)))
    assert found.lambda1 == pytest.approx(math.sqrt(m * n))
    assert found.lambda2 == 0
    assert found.delta_r == found.delta_s == math.inf
    assert cheeger(np.ones((m, n))).alpha2 == (2.0 if m == n == 1 else pytest.approx(1.0))


@pytest.mark.parametrize("d", [2, 3, 6, 10])
def test_hypercubes(d):
    """The eigenvalues of the cube are d − 2k, those of its normalised Laplacian 2k/d; the best cut halves it: h = 1/d."""
    vertex = np.arange(2**d)
    odd = np.array([bin(v).count("1") % 2 == 1 for v in vertex])
    joined = np.isin(vertex[:, None] ^ vertex, 2 ** np.arange(d))
    cube = joined[~odd][:, odd]
    found, interval = expansion(cube), cheeger(cube)
    assert (found.lambda1, found.lambda2, found.degree) == pytest.approx((d, d - 2, d))
    assert interval.alpha2 == pytest.approx(2 / d)
    assert interval.low == pytest.approx(1 / d)  # the lower bound is attained
    assert interval.low <= 1 / d + 1e-12 <= interval.high


@settings(deadline=None, max_examples=60)
@given(blocks(density=(0.15, 0.5, 1.0)).filter(lambda b: b.shape[0] + b.shape[1] <= 10), st.booleans())
def test_the_cheeger_constant_by_all_cuts_lies_in_the_interval(block, weighted):
    graph = adjacency(np.abs(block) if weighted else (block != 0).astype(float))
    degree = graph.sum(axis=0)
    found = cheeger(block, weighted)
    assert (found.low, found.high**2) == pytest.approx((found.alpha2 / 2, 2 * found.alpha2))
    assert found.isolated == int((degree == 0).sum())
    graph, degree = graph[degree > 0][:, degree > 0], degree[degree > 0]
    if not len(degree):
        assert (found.alpha2, found.low, found.high) == (0, 0, 0)
        return
    ratios = []
    for chosen in itertools.product((False, True), repeat=len(degree)):
        inside = np.array(chosen)
        volume = degree[inside].sum()
        if 0 < volume <= degree.sum() / 2 + 1e-12:
            ratios.append(graph[inside][:, ~inside].sum() / volume)
    assert found.low - 1e-6 <= min(ratios) <= found.high + 1e-6


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 10**6), st.sampled_from([0.02, 0.2]), st.booleans())
def test_lanczos_finds_what_numpy_finds(seed, density, weighted):
    rng = np.random.default_rng(seed)
    block = rng.normal(size=(420, 270)) * (rng.random((420, 270)) < density)
    wanted = np.linalg.svd(np.abs(block) if weighted else block != 0, compute_uv=False)
    found = expansion(scipy.sparse.csr_matrix(block), weighted)
    assert (found.lambda1, found.lambda2) == pytest.approx(tuple(wanted[:2]), rel=1e-8)
    assert singular_values(block, 5) == pytest.approx(np.linalg.svd(block, compute_uv=False)[:5], rel=1e-7)
    assert expansion(block, weighted).lambda2 == pytest.approx(found.lambda2, rel=1e-9)


def test_lanczos_resolves_values_at_the_edge_of_a_dense_bulk():
    block = scipy.sparse.random_array((1500, 700), density=0.05, format="csr", rng=np.random.default_rng(0))
    wanted = np.linalg.svd(block.toarray() != 0, compute_uv=False)[:2]
    assert singular_values(block != 0) == pytest.approx(tuple(wanted), rel=1e-10)


def test_lanczos_finds_equal_values_and_tiny_ones():
    twice = np.kron(np.eye(3), np.ones((150, 100)))
    assert singular_values(twice, 4) == pytest.approx((*[math.sqrt(15000)] * 3, 0), abs=1e-6)
    assert cheeger(twice).alpha2 == 0
    apart = np.diag([*np.full(290, 1e-8), 1.0])  # squares would lose the second one
    assert singular_values(apart, 2) == pytest.approx((1.0, 1e-8), rel=1e-6)


@pytest.mark.parametrize(
    "block",
    [
        np.zeros((0, 3)),
        np.zeros(3),
        [[1, np.nan]],
        [[np.inf]],
        scipy.sparse.csr_matrix((2, 0)),
        "abc",
        None,
        [[1], [2, 3]],
        1j * np.ones((2, 2)),
        1j * torch.ones(2, 2),
        torch.ones(2, 2, device="meta"),
        scipy.sparse.csr_matrix(1j * np.eye(2)),
    ],
)
def test_what_is_no_block_is_refused(block):
    for measure in (expansion, cheeger, singular_values, expander_ranking):
        with pytest.raises(ContextError, match="block"):
            measure(block)


@pytest.mark.parametrize("k", [0, -1, 1.5, True])
def test_a_number_of_singular_values_is_whole_and_positive(k):
    with pytest.raises(ContextError, match="ask for at least one singular value"):
        singular_values(np.eye(3), k)


def test_a_parameter_of_a_model_is_a_block():
    weight = torch.nn.RNN(3, 5).weight_ih_l0
    assert expansion(weight, weighted=True) == expansion(weight.detach().double().numpy(), weighted=True)
    assert expansion(weight.to(torch.bfloat16)).edges == 15
    assert expansion(weight.to_sparse(), weighted=True) == expansion(weight, weighted=True)


def test_blocks_without_edges_or_of_low_degree_have_answers():
    empty = expansion(np.zeros((4, 6)))
    assert (empty.edges, empty.lambda1, empty.lambda2, empty.delta_r, empty.delta_s) == (0, 0, 0, None, None)
    assert empty.problems[0] == "the block has no edge"
    assert empty.isolated == (4, 6)
    assert cheeger(np.zeros((4, 6))).isolated == 10
    single = expansion(np.eye(4, 6)[:, ::-1] * (np.arange(4) == 0)[:, None])
    assert single.problems == ("Δ_R is undefined: d_avg = 0.2 is below 1",)
    assert single.delta_s == math.inf  # one edge: λ1 = 1, λ2 = 0
    assert expansion(np.full((2, 2), 0.1), weighted=True).delta("S") is None
    with pytest.raises(ContextError, match="bound 'T' is unknown"):
        single.delta("T")


@settings(deadline=None)
@given(SIDES, SIDES, st.data())
def test_random_regular_masks_have_their_degrees(m, n, data):
    edges = data.draw(st.integers(0, m * n))
    seed = data.draw(st.integers(0, 99))
    mask = random_regular(m, n, edges, seed)
    assert mask.shape == (m, n)
    assert mask.sum() == edges
    for axis, side in ((1, m), (0, n)):
        degrees = mask.sum(axis=axis)
        assert {edges // side, -(-edges // side)} >= set(degrees.tolist())
    assert (random_regular(m, n, edges, seed) == mask).all()


def test_random_regular_masks_are_random_and_nearly_ramanujan():
    masks = [random_regular(64, 64, 64 * 6, seed) for seed in range(8)]
    assert len({mask.tobytes() for mask in masks}) == 8
    for mask in masks:
        found = expansion(mask)
        assert found.lambda1 == pytest.approx(6)
        assert found.lambda2 < 2 * math.sqrt(5) * 1.1
    assert np.mean(masks, axis=0).max() < 0.9  # no entry is always there
    with pytest.raises(ContextError, match="17 edges do not fit a mask of 4 x 4"):
        random_regular(4, 4, 17)
    with pytest.raises(ContextError, match=r"12\.5 edges"):
        random_regular(8, 8, 12.5)
    with pytest.raises(ContextError, match="at least one row"):
        regular_ranking(8, 2.5)


@pytest.mark.parametrize(("p", "q", "bipartite"), [(5, 13, True), (17, 13, False), (13, 17, False), (37, 13, True)])
def test_graphs_of_lubotzky_phillips_and_sarnak_are_ramanujan(p, q, bipartite):
    block = lps(p, q)
    assert block.shape == (q * (q * q - 1) // 2,) * 2
    assert set(np.asarray(block.sum(0)).ravel()) == set(np.asarray(block.sum(1)).ravel()) == {p + 1}
    assert block.data.max() == 1  # no edge twice
    assert bipartite or abs(block - block.T).nnz == 0
    found = expansion(block)
    assert found.lambda1 == pytest.approx(p + 1)
    assert found.lambda2 <= 2 * math.sqrt(p) + 1e-9
    assert found.delta_r == pytest.approx(found.delta_s, abs=1e-9)
    assert found.delta_s >= 0


@pytest.mark.parametrize(("p", "q"), [(4, 13), (7, 13), (5, 5), (17, 5), (5, 1)])
def test_other_numbers_have_no_such_graph(p, q):
    with pytest.raises(ContextError, match=r"4k \+ 1|must differ"):
        lps(p, q)


@pytest.mark.parametrize(("c", "d", "k"), [(2, 2, 3), (3, 6, 4), (4, 4, 5), (8, 8, 4), (16, 16, 0)])
def test_lifts_are_ramanujan(c, d, k):
    mask = ramanujan_lift(c, d, k, seed=1)
    assert mask.shape == (d * 2**k, c * 2**k)
    assert set(mask.sum(1)) == {c}
    assert set(mask.sum(0)) == {d}
    values = singular_values(mask, 2)
    assert values[0] == pytest.approx(math.sqrt(c * d))
    assert values[1] <= math.sqrt(c - 1) + math.sqrt(d - 1) + 1e-9
    with pytest.raises(ContextError, match="must be at least 2"):
        ramanujan_lift(1, d, k)


def test_graphs_beyond_the_limit_are_refused_at_once():
    for doublings in (11, 40, 10**9):
        with pytest.raises(LimitError, match="limit of 16,777,216; give fewer doublings"):
            ramanujan_lift(8, 8, doublings)
    with pytest.raises(LimitError, match="more than 16,777,216 edges"):
        lps(5, 1009)
    for p, q in ((5, 10**16 + 61), (10**16 + 61, 13)):
        with pytest.raises(LimitError, match="give smaller primes"):
            lps(p, q)
    with pytest.raises(ContextError, match="-3 is no prime"):
        lps(-3, 13)
    with pytest.raises(ContextError, match=r"doublings 1\.5"):
        ramanujan_lift(3, 3, 1.5)
    with pytest.raises(ContextError, match=r"13\.0 is no prime"):
        lps(5, 13.0)


RANKED = npst.arrays(float, st.tuples(SIDES, SIDES), elements=st.sampled_from([0.0, 0.1, -0.5, 1.0, 3.0]))


@settings(deadline=None)
@given(RANKED, st.sampled_from([-1.0, 0.0, 0.1, 2.0]), st.sampled_from([0.0, 0.25, 1.0]), st.sampled_from([0.1, 4.0]))
def test_rankings_are_orders_of_all_entries(weights, strength, floor, scale):
    ranks = expander_ranking(weights, strength, floor)
    assert sorted(ranks.ravel().tolist()) == list(range(weights.size))
    assert (expander_ranking(weights, strength, floor) == ranks).all()
    if not strength and not floor:
        order = np.argsort(-ranks, axis=None)
        assert (np.diff(np.abs(weights).ravel()[order]) <= 0).all()  # magnitude


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 10**6), st.sampled_from([-0.5, 0.1, 1.0]))
def test_a_ranking_follows_the_names_of_the_vertices_and_no_scale(m, n, seed, strength):
    rng = np.random.default_rng(seed)
    weights, rows, columns = rng.normal(size=(m, n)), rng.permutation(m), rng.permutation(n)
    ranks = expander_ranking(weights, strength)
    assert (expander_ranking(8.0 * weights[rows][:, columns], strength) == ranks[rows][:, columns]).all()


@settings(deadline=None, max_examples=20)
@given(st.integers(8, 30), st.integers(8, 30), st.integers(0, 10**6))
def test_with_a_floor_no_vertex_is_left_out(m, n, seed):
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(m, n)) * np.exp(2 * rng.normal(size=(m, 1)))
    ranks = expander_ranking(weights)
    kept = ranks >= m * n - 2.5 * (m + n)  # poor vertices may ask for half of the edges and one each
    assert expansion(kept).isolated == (0, 0)


def uneven(rng, m, n):
    """Weights whose rows and columns differ in size, as after training."""
    return rng.normal(size=(m, n)) * np.exp(0.5 * (rng.normal(size=(m, 1)) + rng.normal(size=n)))


def test_the_correction_by_lambda2_raises_the_bounds_and_its_opposite_breaks_them():
    rng = np.random.default_rng(0)
    for m, n in ((96, 96), (96, 32)):
        weights, found = uneven(rng, m, n), []
        for strength in (-0.3, 0.0, 0.1):
            mask = expander_ranking(weights, strength, of="lambda2") >= 0.8 * m * n
            found.append(expansion(mask))
        assert found[0].delta_s < found[1].delta_s < found[2].delta_s
        assert found[0].delta_r < found[1].delta_r < found[2].delta_r
        assert found[0].delta_s < 0


@pytest.mark.parametrize("density", [0.2, 0.1])
def test_the_correction_by_alpha2_connects_and_raises_the_bounds_and_its_opposite_cuts(density):
    found = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        for m, n in ((64, 64), (96, 40)):
            weights = uneven(rng, m, n)
            masks = [expander_ranking(weights, strength) >= (1 - density) * m * n for strength in (-0.3, 0.0, 0.1)]
            found.append([[cheeger(mask).alpha2, expansion(mask).delta_r] for mask in masks])
    broken, chance, corrected = np.mean(found, axis=0)
    assert (broken < chance).all()
    assert (chance < corrected).all()
    assert broken[0] + 0.02 < chance[0] < corrected[0] - 0.02


def test_a_tilt_is_the_derivative_of_what_it_says():
    rng = np.random.default_rng(0)
    graph = rng.random((9, 7)) < 0.5

    def energy(entries, of):
        rows, columns = entries.sum(axis=1), entries.sum(axis=0)
        if of == "alpha2":
            normal = entries / np.sqrt(np.outer(rows, columns))
            return float((np.linalg.svd(normal, compute_uv=False)[1:] ** 10).sum())
        fixed = np.outer(graph.sum(axis=1), graph.sum(axis=0)) / graph.sum()  # the direction of Perron is held
        return float((np.linalg.svd(entries - fixed, compute_uv=False) ** 10).sum())

    for of in ("alpha2", "lambda2"):
        slope = np.empty(graph.shape)
        for i, j in np.ndindex(*graph.shape):
            step = np.zeros(graph.shape)
            step[i, j] = 1e-6
            slope[i, j] = energy(graph + step, of) - energy(graph - step, of)
        slope *= math.sqrt(slope.size) / np.linalg.norm(slope)
        assert _tilt(graph, of) == pytest.approx(slope, abs=1e-4)


def test_what_a_ranking_cannot_be_made_of_is_refused():
    weights = np.eye(3)
    with pytest.raises(ContextError, match="strength inf"):
        expander_ranking(weights, math.inf)
    with pytest.raises(ContextError, match="floor 2 is outside"):
        expander_ranking(weights, floor=2)
    with pytest.raises(ContextError, match="of='lambda1' is unknown"):
        expander_ranking(weights, of="lambda1")


@settings(deadline=None)
@given(SIDES, SIDES, st.integers(0, 99))
def test_regular_rankings_are_orders_with_even_degrees(m, n, seed):
    ranks = regular_ranking(m, n, seed)
    assert sorted(ranks.ravel().tolist()) == list(range(m * n))
    assert (regular_ranking(m, n, seed) == ranks).all()


def test_regular_rankings_are_nested_nearly_regular_masks():
    ranks = regular_ranking(128, 32, 3)
    for degree in (2, 5, 16):
        mask = ranks >= 128 * 32 - 128 * degree
        for axis, mean in ((1, degree), (0, 4 * degree)):
            degrees = mask.sum(axis=axis)
            assert np.abs(degrees - mean).max() <= max(2, mean // 4)
        regular = random_regular(128, 32, 128 * degree)
        assert expansion(mask).lambda2 == pytest.approx(expansion(regular).lambda2, rel=0.1)


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.integers(0, 10**6))
def test_the_unfolded_graph_has_the_edges_of_every_step(hidden, features, steps, seed):
    rng = np.random.default_rng(seed)
    w_in, w_rec = (rng.normal(size=(hidden, k)) * (rng.random((hidden, k)) < 0.7) for k in (features, hidden))
    size = hidden * (steps + 1) + features * steps
    whole = np.zeros((size, size))  # h_0 … h_k, then x_1 … x_k
    for t in range(1, steps + 1):
        to, from_, driven = hidden * t, hidden * (t - 1), hidden * (steps + 1) + features * (t - 1)
        whole[to : to + hidden, from_ : from_ + hidden] = w_rec
        whole[to : to + hidden, driven : driven + features] = w_in
    block = unfolded(w_in, w_rec, steps)
    assert sum(block.shape) == size
    assert np.linalg.eigvalsh(adjacency(block.toarray())) == pytest.approx(
        np.linalg.eigvalsh(whole + whole.T), abs=1e-9
    )
    assert sorted(block.data) == sorted(whole[whole != 0])
    assert block.shape[0] - hidden * (steps // 2 + 1) == features * ((steps + 1) // 2)


def test_a_longer_unfolding_is_a_worse_expander():
    rng = np.random.default_rng(0)
    w_in, w_rec = rng.random((24, 8)) < 0.4, rng.random((24, 24)) < 0.4
    gaps = []
    for steps in (2, 8, 32):
        found = expansion(unfolded(w_in, w_rec, steps))
        gaps.append(1 - found.lambda2 / found.lambda1)
    assert gaps[0] > 3 * gaps[1] > 9 * gaps[2] > 0
    for arguments in ((w_in, w_rec[:3], 2), (w_in[:3], w_rec, 2), (w_in, w_rec, 0)):
        with pytest.raises(ContextError):
            unfolded(*arguments)


@pytest.mark.parametrize(("m", "n"), [(900, 250), (250, 700), (500, 120)])
@pytest.mark.parametrize("bound", ["S", "R"])
def test_random_masks_lose_their_bounds_where_the_laws_of_random_matrices_say(m, n, bound):
    found = [
        edges_at_loss(np.random.default_rng(seed).permutation(m * n).reshape(m, n), bound) / (m * n)
        for seed in range(2)
    ]
    assert random_crossing(m, n, bound) == pytest.approx(np.mean(found), abs=0.04)
    assert random_crossing(n, m, bound) == random_crossing(m, n, bound)


@given(st.integers(2, 5000))
def test_square_random_masks_lose_one_bound_at_the_root_of_their_size_and_the_other_at_degree_one(n):
    assert random_crossing(n, n, "R") == pytest.approx(1 / math.sqrt(n), rel=1e-6)
    assert random_crossing(n, n, "S") == pytest.approx(1 / n, rel=1e-6)


@given(st.integers(1, 2000), st.integers(1, 2000))
def test_above_its_crossing_a_random_mask_has_the_bound_and_below_it_has_not(m, n):
    edge = (math.sqrt(m) + math.sqrt(n)) ** 2

    def delta(p, bound):
        lambda1, degree = math.sqrt((p * m + 1 - p) * (p * n + 1 - p)), 2 * p * m * n / (m + n)
        return 4 * ((lambda1 if bound == "S" else degree) - 1) - p * (1 - p) * edge

    for bound in "SR":
        where = random_crossing(m, n, bound)
        assert 0 <= where <= 1
        assert all(delta(p, bound) >= -1e-9 * edge for p in np.linspace(where, 1, 20)) or where == 1
        if 0 < where < 1:
            assert delta(0.999 * where, bound) < 0


def test_a_crossing_of_what_is_no_block_is_refused():
    with pytest.raises(ContextError, match="bound 'x'"):
        random_crossing(3, 3, "x")
    for rows in (0, 3.5):
        with pytest.raises(ContextError, match="at least one row"):
            random_crossing(rows, 3)
