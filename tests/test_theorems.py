"""The executable theorems: each where it holds and where it fails, witnesses checked without the code that found them."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

import jali
from jali.contraction import Contraction
from jali.errors import ContextError, DataError, FileError, ModelError
from jali.maths.completion import dedekind_macneille
from jali.maths.concepts import enumerate_concepts
from jali.maths.feedback import multilayer_relation
from jali.maths.lattice import Lattice
from jali.maths.modularity import modularity
from jali.maths.rate_distortion import rate_distortion
from jali.models import TopDownRNN
from jali.theorems import from_json, to_json
from jali.theorems.case import cases, weakest_cut
from jali.theorems.communities import modularity_rises, weak_ties
from jali.theorems.connections import prune, pruning_efficiency, pruning_efficiency_of_networks
from jali.theorems.feedback import Feedback, preserved
from jali.theorems.information import chain, data_processing
from jali.theorems.layers import multilayer
from jali.theorems.modular_law import lattices, modular_law, pentagon
from jali.theorems.reducible_units import irreducible, reducible_units, remove_reducible
from jali.theorems.stability import judge, stability
from jali.theorems.sublattices import sublattices_in_parallel
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


# --- III.2 ----------------------------------------------------------------------------------------------------------


def paths(drives):
    import networkx as nx

    graph = nx.from_numpy_array(drives.astype(int), create_using=nx.DiGraph)
    return {(a, b) for a in graph for b in nx.descendants(graph, a)}


def test_a_path_through_a_reducible_unit_is_lost_with_it():
    answer = reducible_units(case(edges(4, (0, 1), (1, 2), (1, 3))))  # u1 is the meet of u2 and u3
    assert answer.answer == "fails"
    assert answer.witness.startswith("all weights: u0 influences u2 only through reducible units such as u1")
    assert answer.numbers["levels"][0] == {"density": 1.0, "reducible": 1, "lost path": [0, 1, 2]}


def test_what_a_direct_influence_bridges_is_not_lost():
    answer = reducible_units(case(edges(4, (0, 1), (1, 2), (1, 3), (0, 2), (0, 3), (2, 2))))
    first = answer.numbers["levels"][0]
    assert first["reducible"] == 1
    assert first["lost path"] is None


def test_the_removal_holds_where_the_reducible_units_are_sources():
    answer = reducible_units(case(edges(3, (0, 1), (0, 2))))
    assert answer
    assert "up to 1 of 3 units removed" in answer.witness
    assert reducible_units(case([[0.5]])).answer == "premise not met"


@given(relations(6))
def test_the_removal_is_that_of_the_lattice_and_a_lost_path_is_one(drives):
    from jali.maths.order import condensation

    modules = condensation(drives)
    completion = dedekind_macneille(modules.leq)
    covers, top = completion.lattice.covers(), completion.lattice.top
    wanted = [covers[x].sum() == 1 or x == top for x in completion.embedding]
    removal = remove_reducible(drives)
    assert removal.kept.tolist() == [wanted[k] for k in modules.membership]
    rest = np.flatnonzero(removal.kept)
    before = {(a, b) for a, b in paths(drives) if removal.kept[a] and removal.kept[b]}
    after = {(rest[a], rest[b]) for a, b in paths(drives[np.ix_(rest, rest)])}
    assert (removal.lost is None) == (before == after)
    if removal.lost is not None:
        a, x, b = removal.lost
        assert (a, b) in before - after
        assert {(a, x), (x, b)} <= paths(drives)
        assert not removal.kept[x]


@given(relations(6))
def test_the_concept_lattice_keeps_without_its_reducible_columns(incidence):
    kept = irreducible(incidence)
    closed = lambda table: {tuple(e) for e in enumerate_concepts(table).extents.tolist()}  # noqa: E731
    if kept.any():
        assert closed(incidence) == closed(incidence[:, kept])


def test_no_network_of_three_units_loses_a_path():
    for n in (1, 2, 3):
        for bits in product((False, True), repeat=n * n):
            assert remove_reducible(np.array(bits).reshape(n, n)).lost is None


# --- III.3 and III.4 ------------------------------------------------------------------------------------------------

MEET = np.array([[1, 0, 0], [1, 1, 1], [0, 1, 0]]) * 1.0  # the third column is the AND of the first two


def test_weak_reducible_units_stay_and_break_the_bound():
    answer = pruning_efficiency(case(0.1 * MEET))
    assert answer.answer == "fails"
    assert "|M| = 2 of 3 units, 5 of 5 connections are left > |M|² = 4: 1 reducible units" in answer.witness
    assert pruning_efficiency(case(10 * MEET))  # every μ is below every τ
    assert pruning_efficiency(case(np.ones((3, 3)))).answer == "premise not met"


@given(relations(6))
def test_the_bound_holds_without_the_threshold_and_nothing_goes_for_small_weights(incidence):
    weights = incidence.astype(float)
    strict = prune(weights + 0.0, np.inf)
    driven = incidence.any(axis=1)
    if driven.all():
        assert strict.spared == 0
        assert strict.left <= strict.bound
    spared = prune(1e-6 * weights, 0.5)
    assert spared.left == spared.connections == incidence.sum()


def test_three_units_are_the_smallest_counterexample():
    def worst(n):
        tables = (np.array(bits, dtype=float).reshape(n, n) for bits in product((0, 1), repeat=n * n))
        return [p for p in (prune(1e-6 * t, 0.5) for t in tables) if p.left > p.bound]

    assert not worst(1)
    assert not worst(2)
    assert min(p.connections for p in worst(3)) == 5


def intersections_of(k):
    """2^k − 2 units: the columns are the proper subsets of k rows, all of them intersections of the k largest."""
    n = 2**k - 2
    weights = np.zeros((n, n))
    weights[:k] = np.arange(1, n + 1) >> np.arange(k)[:, None] & 1
    return weights


def test_no_multiple_of_the_bound_holds():
    for k in (3, 5, 7):
        found = prune(1e-3 * intersections_of(k), 0.7)
        assert found.irreducible == k
        assert found.left >= 2**k - 2
    layers = nn.RNN(1, 30, num_layers=2)
    with torch.no_grad():
        layers.weight_ih_l1.zero_()
        layers.weight_hh_l0.copy_(torch.as_tensor(1e-3 * intersections_of(5)))
        layers.weight_hh_l1.copy_(torch.as_tensor(1e-3 * intersections_of(5)))
    (answer,) = pruning_efficiency_of_networks(layers)
    assert answer.answer == "fails"
    assert "|M| = 10 of 60 units, 150 of 150 connections are left > |M|² = 100" in answer.witness


def test_layers_count_together_with_what_lies_between_them():
    layers = nn.RNN(2, 3, num_layers=2)
    with torch.no_grad():
        for weight in (layers.weight_hh_l0, layers.weight_hh_l1):
            weight.copy_(torch.as_tensor(0.1 * MEET))
        layers.weight_ih_l1.fill_(0.1)
        (answer,) = pruning_efficiency_of_networks(layers)
        assert answer.answer == "fails"
        assert answer.witness.startswith("2 layers and what lies between them: all weights")
        assert "|M| = 4 of 6 units, 19 of 19 connections are left > |M|² = 16" in answer.witness
        assert answer.numbers["connections between layers"] == 9
        layers.weight_ih_l1.zero_()
        (answer,) = pruning_efficiency_of_networks(layers)
    assert answer
    assert "10 of 10 connections are left ≤ |M|² = 16" in answer.witness
    assert answer.numbers["connections between layers"] == 0


@pytest.mark.parametrize("cls", [nn.RNN, nn.LSTM, nn.GRU])
def test_a_connection_between_layers_is_a_weight_that_leads_there(cls):
    """Every state that moves when a unit of the layer below is moved, and no other."""
    torch.manual_seed(0)
    gates, sizes = {nn.RNN: 1, nn.LSTM: 4, nn.GRU: 3}[cls], (4, 4, 4, 4)
    layers = cls(2, 4, num_layers=2, bidirectional=True)
    with torch.no_grad():
        for name, parameter in layers.named_parameters():
            parameter.mul_(torch.rand_like(parameter) < (0.15 if "weight" in name else 1))
    (network,) = multilayer(layers)
    assert (network.path, network.depth, network.sizes) == ("", 2, sizes)
    for reader, suffix in ((2, "l1"), (3, "l1_reverse")):
        weight = getattr(layers, f"weight_ih_{suffix}").detach().double().numpy().reshape(gates, 4, 8)
        block = network.weights[4 * reader : 4 * reader + 4]
        np.testing.assert_allclose(block[:, :8], np.linalg.norm(weight, axis=0), atol=1e-15)
    for k, suffix in enumerate(("l0", "l0_reverse", "l1", "l1_reverse")):
        weight = getattr(layers, f"weight_hh_{suffix}").detach().double().numpy().reshape(gates, 4, 4)
        own = slice(4 * k, 4 * k + 4)
        np.testing.assert_allclose(network.weights[own, own], np.linalg.norm(weight, axis=0), atol=1e-15)
    assert not network.weights[:8, 8:].any(), "nothing leads back"
    assert not network.weights[:4, 4:8].any(), "the directions of a layer do not see each other"
    assert not network.weights[8:12, 12:].any()
    assert network.between == np.count_nonzero(network.weights[8:, :8])


def test_feedback_unequal_widths_and_projections_are_connections_too():
    torch.manual_seed(0)
    core = TopDownRNN(2, (3, 4))
    (network,) = multilayer(nn.Sequential(core))
    assert network.path == "0"
    np.testing.assert_allclose(network.weights[:3, 3:], core.feedback(0).detach().abs().numpy(), rtol=1e-6)
    np.testing.assert_allclose(network.weights[3:, :3], core.weight_ih_l1.detach().abs().numpy(), rtol=1e-6)
    assert network.between == 2 * 12
    relations = core.relations()
    whole = multilayer_relation(relations.within, relations.up, relations.down)
    assert (whole == (network.weights > 0).T).all()

    projected = nn.LSTM(2, 5, num_layers=2, proj_size=3)
    (network,) = multilayer(projected)
    own = {name: value.detach().double().numpy() for name, value in projected.named_parameters()}
    through = own["weight_ih_l1"].reshape(4, 5, 3) @ own["weight_hr_l0"]
    np.testing.assert_allclose(network.weights[5:, :5], np.linalg.norm(through, axis=0), rtol=1e-6)

    stack = nn.LSTM(2, 6, num_layers=2, bidirectional=True)
    cut = jali.compact(stack, jali.plan(stack, "magnitude", jali.Budget(0.4, scope="global")))
    (network,) = multilayer(cut)
    kept = [site.kept for site in jali.plan(stack, "magnitude", jali.Budget(0.4, scope="global")).sites]
    (whole,) = multilayer(stack)
    units = np.concatenate([6 * k + units for k, units in enumerate(kept)])
    assert network.sizes == tuple(map(len, kept))
    assert len(set(network.sizes)) > 1, "the widths differ"
    np.testing.assert_allclose(network.weights, whole.weights[np.ix_(units, units)], atol=1e-12)


def test_modules_of_one_layer_are_no_multilayer_network():
    two = nn.ModuleList([nn.GRU(2, 3), nn.GRU(3, 3, bidirectional=True), nn.GRUCell(3, 3), nn.Linear(3, 1)])
    (answer,) = pruning_efficiency_of_networks(two)
    assert answer.answer == "premise not met"
    assert (
        "no module has several recurrent layers, and what leads from one module to another is not counted"
        in answer.witness
    )


def test_two_layers_of_three_units_break_the_bound_and_no_smaller_ones_do():
    """Exhaustively: every relation of two layers, without and with feedback; weights so small that nothing goes."""

    def worst(low, high, feedback):
        n, found = low + high, []
        free = [(to, source) for to in range(n) for source in range(n) if feedback or not (to < low <= source)]
        for bits in product((0, 1), repeat=len(free)):
            weights = np.zeros((n, n))
            weights[tuple(np.transpose(free))] = bits
            found.append(prune(1e-6 * weights, 0.5))
        return [each.connections for each in found if each.left > each.bound]

    assert not worst(1, 1, feedback=True)
    assert min(worst(1, 2, feedback=False)) == min(worst(2, 1, feedback=True)) == 5


# --- Corollary III.1 ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [nn.RNN, nn.GRU, nn.LSTM])
def test_independent_blocks_run_apart(cls):
    weights = np.kron(np.eye(3), np.random.default_rng(0).normal(size=(4, 4)))
    shuffle = np.random.default_rng(1).permutation(12)
    layer = rnn(weights[np.ix_(shuffle, shuffle)], cls)
    x = torch.randn(5, 9, 2, dtype=torch.float64)
    answer = sublattices_in_parallel(cases(layer, x, 0)[0])
    assert answer
    assert answer.numbers["blocks"] == 3
    assert answer.numbers["largest difference"] < 1e-12
    assert answer.numbers["share of multiply-adds"] == pytest.approx(1 / 3)
    assert answer.numbers["inputs"] == "data"
    units = np.flatnonzero(np.isin(shuffle, range(4)))  # the first block by PyTorch itself
    part = cls(2, 4, batch_first=True).double()
    with torch.no_grad():
        rows = np.concatenate([units + gate * 12 for gate in range(len(layer.weight_ih_l0) // 12)])
        for name in ("weight_ih_l0", "bias_ih_l0", "bias_hh_l0"):
            getattr(part, name).copy_(getattr(layer, name)[rows])
        part.weight_hh_l0.copy_(layer.weight_hh_l0[rows][:, units])
        assert (part(x)[0] - layer(x)[0][..., units]).abs().max() < 1e-12


def test_modular_sublattices_that_are_not_independent():
    chain_of_two = case(edges(2, (0, 1)))
    assert not breaks_the_modular_law(lattices(edges(2, (0, 1)).T > 0)["condensation"].lattice)
    answer = sublattices_in_parallel(chain_of_two, [0, 1])
    assert answer.answer == "fails"
    assert "u0 drives u1 of another block" in answer.witness
    assert sublattices_in_parallel(chain_of_two, [0, 0])
    with pytest.raises(ContextError, match="one block for each of 2 units"):
        sublattices_in_parallel(chain_of_two, [0, 1, 2])


def test_one_component_is_no_sum_of_blocks():
    answer = sublattices_in_parallel(case(np.ones((4, 4))))
    assert answer.answer == "premise not met"
    assert answer.numbers["two blocks"] < 1e-12 < answer.numbers["two blocks of the whole"]
    assert sublattices_in_parallel(case([[0.5]])).witness == "there is a single unit"
    torch.manual_seed(0)
    projected = cases(nn.LSTM(2, 4, proj_size=2), None, 0)[0]
    assert "projection" in sublattices_in_parallel(projected).witness


# --- III.5 ----------------------------------------------------------------------------------------------------------


def test_q_rises_without_weak_ties_and_falls_without_weak_inner_ones():
    blocks = np.kron(np.eye(2), np.ones((4, 4))) + 0.1
    answer = modularity_rises(case(blocks))
    assert answer
    assert answer.numbers["communities"] == 2
    pair = np.array([[4.0, 0.0], [1.5, 1.0]])
    answer = weak_ties(pair, [0, 1])
    assert answer.answer == "fails"
    after = modularity(np.where(pair < 1.5, 0.0, pair), [0, 1])
    assert f"Q falls from {modularity(pair, [0, 1]):.4g} to {after:.4g} at τ = 1.5" in answer.witness
    assert "cuts 1 connections inside and 0 between" in answer.witness


def test_two_units_are_the_smallest_counterexample():
    def fail(n, values):
        tables = (np.array(t, dtype=float).reshape(n, n) for t in product(values, repeat=n * n))
        return [t for t in tables if weak_ties(t, np.arange(n)).answer == "fails"]

    assert not fail(1, range(5))
    found = fail(2, range(5))
    assert min((t > 0).sum() for t in found) == 3


def test_what_the_premise_of_weak_ties_wants():
    assert "no connections between" in weak_ties(np.ones((3, 3)), [0, 0, 0]).witness
    assert "no connections inside" in weak_ties(1 - np.eye(2), [0, 1]).witness
    assert "not weaker on average" in weak_ties(np.ones((2, 2)), [0, 1]).witness


@given(hnp.arrays(np.float64, (4, 4), elements=st.integers(0, 4).map(float)))
def test_a_verdict_on_weak_ties_is_that_of_every_threshold(weights):
    labels = np.array([0, 0, 1, 1])
    answer = weak_ties(weights, labels)
    same = labels[:, None] == labels
    inside, between = weights[same & (weights > 0)], weights[~same & (weights > 0)]
    if not (inside.size and between.size and between.mean() < inside.mean()):
        assert answer.answer == "premise not met"
        return
    q = modularity(weights, labels)
    falls = any(
        modularity(np.where(weights < tau, 0, weights), labels) < q - 1e-9
        for tau in range(1, int(min(inside.max(), between.max())) + 1)
    )
    assert (answer.answer == "fails") == falls


# --- III.6 ----------------------------------------------------------------------------------------------------------


def test_pruning_can_raise_the_information_about_the_input():
    """h = relu(x − h') of one unit and two steps: the recurrent weight hides x; without it the unit shows x."""
    whole = np.array([[0], [1], [0], [0]])
    pruned = np.array([[0], [1], [0], [1]])
    answer = chain(whole, pruned)
    assert answer.answer == "premise not met"
    assert "I with X rises, 0.562 → 0.693" in answer.witness


def test_a_chain_keeps_both_inequalities():
    y = np.array(list(product((0, 1), repeat=3)))
    z = y * [1, 1, 0]  # a unit that is zeroed in place
    answer = chain(y, z)
    assert answer
    assert answer.numbers["I(X; Y)"] == pytest.approx(3 * np.log(2))
    assert answer.numbers["I(X; Y')"] == pytest.approx(2 * np.log(2))
    assert answer.numbers["D"] == 0.5
    coin = rate_distortion([0.5, 0.5], 1 - np.eye(2), 0.5 / 3)  # three coins share the distortion
    assert answer.numbers["R(D)"] == pytest.approx(3 * coin.rate, abs=1e-4)


@settings(max_examples=40)
@given(hnp.arrays(np.bool_, (8, 3)), st.lists(st.booleans(), min_size=3, max_size=3), hnp.arrays(np.bool_, (8, 3)))
def test_data_processing_is_a_theorem_where_there_is_a_chain(y, kept, z):
    assert chain(y, y & kept)  # a function of Y
    answer = chain(y, z)
    assert answer.answer in ("holds", "premise not met")  # neither part can fail
    function = all((z[i] == z[j]).all() for i in range(8) for j in range(8) if (y[i] == y[j]).all())
    assert bool(answer) == function


def test_the_network_decides_whether_there_is_a_chain():
    found = case(np.kron(np.eye(2), np.random.default_rng(0).normal(size=(2, 2))))
    assert data_processing(found, found.view)
    answer = data_processing(found)
    assert answer.numbers["estimated I(X; Y)"] > 0
    few = cases(rnn(np.eye(2)), torch.randn(8, 4, 2, dtype=torch.float64), 0)[0]
    assert data_processing(few).numbers["estimated I(X; Y)"] is None
    with pytest.raises(DataError, match="do not pair"):
        chain(np.ones((2, 2)), np.ones((3, 2)))


# --- III.7 ----------------------------------------------------------------------------------------------------------


def test_a_contraction_has_a_negative_exponent():
    weights = 0.4 * np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
    answer = stability(case(weights))
    assert answer
    assert answer.numbers["cuts"] == [0.0]
    assert answer.numbers["L"][0] <= 0.4 + 1e-9
    assert answer.numbers["exponent"][0] <= np.log(0.4)


def test_no_contraction_no_claim_and_pruning_may_make_one():
    answer = stability(case(np.diag([0.5, 0.5, 0.5, 1.5]) + 1e-3, nonlinearity="relu"))
    assert answer.answer == "premise not met"
    assert "even without the weakest 95 %" in answer.witness
    answer = stability(case(np.where(np.eye(4) > 0, 0.6, 0.3), nonlinearity="relu"))
    assert answer
    assert answer.witness.startswith("without the weakest")
    assert answer.numbers["L"][0] > 1 > answer.numbers["L"][-1]


def test_an_exponent_above_its_bound_would_be_a_failure():
    answer = judge("l0", [Contraction(0.5, 0.4, -0.1)], "data")
    assert answer.answer == "fails"
    assert "-0.1 > log L = -0.693" in answer.witness


def test_feedback_is_thinned_like_the_layers_it_joins():
    """Of all weights the lower layer is one module. Of the strongest, u0 → u1 beside u2 is a pentagon, and x feeds back to u0."""
    lower = np.full((3, 3), 0.01)
    lower[1, 0] = 1.0
    down = np.array([[1.0], [0.0], [0.01]])  # with the weak one to u2, T(x, a) would be the top, which preserves all
    answer = preserved(Feedback("l0", lower, np.zeros((1, 1)), down))
    rows = {row["density"]: row["preserved"] for row in answer.numbers["lattices"]}
    assert rows[1.0]
    assert not rows[0.1]
    assert answer.answer == "fails"


def test_sequences_of_unequal_lengths_are_cut_to_the_shortest():
    layer = rnn(0.3 * np.eye(3))
    data = [torch.randn(2, 7, 2, dtype=torch.float64), torch.randn(1, 4, 2, dtype=torch.float64)]
    own = cases(layer, data, 0)[0]
    np.testing.assert_array_equal(own.x, torch.cat([part[:, :4] for part in data]).numpy())
    assert own.source == "data"
    long = cases(layer, torch.randn(70, 60, 2, dtype=torch.float64), 0)[0]
    assert long.x.shape == (64, 50, 2)
    assert long.start.shape == (64, 3)


# --- all of them ----------------------------------------------------------------------------------------------------


def test_verify_answers_every_theorem_of_a_default_network_and_the_same_again():
    found = jali.verify()
    names = ["III.1", "III.2", "III.3", "Corollary III.1", "III.4", "III.5", "III.6", "III.7"]
    assert [each.theorem for each in found] == names
    assert found == jali.verify() == from_json(to_json(found))
    assert found != jali.verify(seed=1)
    assert all(len(str(each).splitlines()) == 1 for each in found)
    state = torch.get_rng_state()
    jali.verify()
    assert torch.equal(state, torch.get_rng_state())


def test_verify_answers_for_every_site_and_leaves_the_model_alone():
    torch.manual_seed(0)
    layer = nn.LSTM(3, 6, num_layers=2, batch_first=True)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    found = jali.verify(layer, torch.randn(60, 7, 3))
    assert len(found) == 7 * 2 + 1
    assert {each.site for each in found} == {"l0", "l1", ""}
    assert all(each.numbers["inputs"] == "data" for each in found if each.theorem in ("III.6", "III.7"))
    assert found == from_json(to_json(found))  # also with infinite bounds
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


def test_a_network_that_diverges_and_one_without_connections_have_words():
    found = {each.theorem: each for each in jali.verify(rnn(1e9 * np.ones((9, 9)), nonlinearity="relu"))}
    for name in ("Corollary III.1", "III.6", "III.7"):
        assert found[name].answer == "premise not met"
        assert "left the finite numbers" in found[name].witness
    assert found["III.2"].answer == "premise not met"
    empty = {each.theorem: each for each in jali.verify(rnn(np.zeros((3, 3))))}
    assert empty["III.7"]
    assert "nan" not in to_json(empty.values())


def test_mistakes_are_one_clear_error():
    with pytest.raises(ModelError, match="is a dict"):
        jali.verify({})
    with pytest.raises(FileError, match="schema 1"):
        from_json('{"schema": 2, "verdicts": []}')
    with pytest.raises(FileError, match="no answer"):
        from_json(to_json(jali.verify()).replace("premise not met", "perhaps"))
    assert np.count_nonzero(weakest_cut(case(np.ones((4, 4))).view).w_rec) == 8
