"""The asynchronous network against a plain reading of the paper's equations, its reproducibility, and its messages."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jali.errors import DataError, DynamicsError, ModelError
from jali.maths.local_laplacian import DEGREES, NODE_RULES, decide
from jali.models.asynchronous import AsynchronousNetwork
from jali.models.asynchronous_steps import VALUE, _receive, _tell, shuffle
from jali.models.asynchronous_values import Channel, SpectralRule
from jali.models.truth_tables import GATES, TruthTable, parity

XOR = GATES["XOR"]
SEEDS = st.integers(0, 2**32 - 1)
QUICK = settings(deadline=None, max_examples=15)


def by_the_paper(network, x, y, updates, rule):
    """Equations 1 to 7 of one run with dense arrays ``[from, to]``: node after node, as the published code goes through them."""
    (run,) = network._runs
    a, w = run.edges.T.astype(float), run.weights.T.copy()
    v, e, random = np.zeros(len(a)), np.zeros(len(a)), run.random.copy()
    order, first, removed = np.arange(network.inputs, len(a)), len(a) - network.outputs, []
    for row, wanted in zip(x, y, strict=True):
        v[: network.inputs] = row
        for _ in range(updates):
            shuffle(order, network.inputs, random)
            for node in order:
                v[node] = 1 / (1 + np.exp(-(v * a[:, node]) @ w[:, node]))
                if node >= first:
                    e[node] = 0.15 * (v[node] - wanted[node - first])
                else:
                    e[node] = (e * a[node]) @ w[node] * v[node] * (1 - v[node])
                w[:, node] = np.clip(w[:, node] - e[node] * v * a[:, node], -10, 10)
                found = decide(w.T, a.T, node, rule.degree, rule.node_of) if rule else None
                if found:
                    a[found.source, found.target] = w[found.source, found.target] = 0
                    removed.append((node, found.source, found.target))
    return (a * w).T, v, removed


RULES = [SpectralRule(d, r) for d in DEGREES for r in NODE_RULES]


# With three hidden nodes D has a multiple eigenvalue, and what lapack-order takes for a pair is made by the last rounding.
@pytest.mark.parametrize(
    ("hidden", "outputs", "rule"),
    [(h, o, r) for h, o in ((0, 1), (1, 1), (3, 2)) for r in [None, *RULES] if h < 3 or r is not RULES[0]],
)
def test_a_run_is_equations_1_to_7(hidden, outputs, rule):
    rng = np.random.default_rng(5)
    network = AsynchronousNetwork(2, hidden, outputs, seeds=[11])
    x, y = rng.integers(0, 2, (12, 2)), rng.integers(0, 2, (12, outputs))
    weights, values, removed = by_the_paper(network, x, y, 6, rule)
    training = network.train(x, y, updates=6, rule=rule)
    np.testing.assert_allclose(network.weights[0], weights, atol=1e-9)
    np.testing.assert_allclose(network.values[0], values, atol=1e-9)
    assert [(e.node, e.source, e.target) for e in training.events[0]] == removed
    assert (
        training.edges[0, -1]
        == network.adjacency.sum()
        == (2 + hidden + outputs - 1) * (hidden + outputs) - len(removed)
    )


def test_every_order_of_the_nodes_is_as_likely():
    random, order = np.array([12345], dtype=np.uint64), np.empty(3, dtype=np.int64)
    counts = Counter()
    for _ in range(6000):
        shuffle(order, 2, random)
        counts[tuple(order.tolist())] += 1
    assert set(counts) == set(itertools.permutations((2, 3, 4)))
    assert all(abs(count - 1000) < 150 for count in counts.values())


def test_both_rules_remove_edges_each_of_its_own_kind():
    x, y = XOR.draw(600, 0)
    for degree in DEGREES:
        for rule in NODE_RULES:
            training = AsynchronousNetwork(2, 1, 1, seeds=range(5)).train(x, y, rule=SpectralRule(degree, rule))
            events = [event for run in training.events for event in run]
            assert len(events) >= 3
            assert all((e.source == e.target + 1) if rule == "lapack-order" else (e.target == e.node) for e in events)


@QUICK
@given(SEEDS, st.integers(0, 4), st.integers(1, 3), st.sampled_from([Channel(), Channel(2, 0.3, True)]))
def test_a_run_depends_on_its_seed_alone(seed, hidden, runs, channel):
    seeds = [seed, *range(runs)]
    x, y = XOR.draw(20, 0)
    together = AsynchronousNetwork(2, hidden, 1, seeds=seeds, channel=channel)
    alone = AsynchronousNetwork(2, hidden, 1, seeds=[seed], channel=channel)
    first, second = (each.train(x, y, rule=SpectralRule()) for each in (together, alone))
    assert first.errors[0].tobytes() == second.errors[0].tobytes()
    assert first.events[0] == second.events[0]
    assert together.weights[0].tobytes() == alone.weights[0].tobytes()
    assert together.evaluate(XOR.x, XOR.y)[0] == alone.evaluate(XOR.x, XOR.y)[0]


@QUICK
@given(SEEDS, st.sampled_from(DEGREES), st.sampled_from(NODE_RULES), st.integers(0, 4))
def test_edges_only_ever_go_and_an_event_says_which(seed, degree, node_of, hidden):
    network = AsynchronousNetwork(2, hidden, 1, seeds=[seed])
    before = network.adjacency[0]
    training = network.train(*XOR.draw(60, seed), rule=SpectralRule(degree, node_of))
    after, events = network.adjacency[0], training.events[0]
    assert not (after & ~before).any()
    assert {(e.target, e.source) for e in events} == set(map(tuple, np.argwhere(before & ~after)))
    assert (np.diff(training.edges[0]) <= 0).all()
    assert [e.update for e in events] == sorted(e.update for e in events)
    assert (network.weights[0][~after] == 0).all()
    assert np.abs(network.weights).max() <= 10
    assert hidden > 0 or not events  # an output alone has no cycle


@QUICK
@given(SEEDS, st.sampled_from(DEGREES))
def test_a_network_at_rest_is_pruned_until_no_node_decides_against_an_edge(seed, degree):
    network = AsynchronousNetwork(2, 4, 1, seeds=[seed])
    (events,) = network.prune(SpectralRule(degree))
    assert len(events) == 30 - network.adjacency.sum()
    for node in range(2, 7):
        assert decide(network.weights[0], network.adjacency[0], node, degree) is None
    assert network.prune(SpectralRule(degree)) == ((),)


def test_edges_cut_by_hand_are_edges_that_never_were():
    first = ~np.eye(5, dtype=bool)
    first[:2] = False
    less = first.copy()
    less[4, 2] = less[2, 0] = False  # [to, from]
    cut = AsynchronousNetwork(2, 2, 1, seeds=[6, 7])
    cut.cut([[(2, 4), (0, 2)], []])
    never = AsynchronousNetwork(2, 2, 1, seeds=[6], adjacency=less)
    whole = AsynchronousNetwork(2, 2, 1, seeds=[7])
    for network in (cut, never, whole):
        network.train(*XOR.draw(30, 0), rule=SpectralRule())
    assert cut.weights[0].tobytes() == never.weights[0].tobytes()
    assert cut.weights[1].tobytes() == whole.weights[0].tobytes()


def test_a_network_that_loses_nothing_at_rest_trains_as_if_nobody_had_asked():
    asked, never = (AsynchronousNetwork(2, 0, 2, seeds=[1, 2]) for _ in range(2))
    asked.cut([[(2, 3)], [(2, 3)]])  # no cycle is left, and so no pair of eigenvalues
    never.cut([[(2, 3)], [(2, 3)]])
    assert asked.prune(SpectralRule()) == ((), ())
    for network in (asked, never):
        network.train(*XOR.draw(30, 0)[:1], np.zeros((30, 2)))
    assert asked.weights.tobytes() == never.weights.tobytes()


def test_weights_stop_at_the_clip():
    network = AsynchronousNetwork(2, 2, 1, seeds=[0], clip=1.25)
    network.train(*XOR.draw(200, 0))
    assert np.abs(network.weights).max() == 1.25


def test_evaluation_and_responses_change_nothing():
    network = AsynchronousNetwork(2, 2, 1, seeds=[0, 1])
    network.train(*XOR.draw(50, 0))
    weights, values = network.weights, network.values
    error = network.evaluate(XOR.x, XOR.y)
    shown = network.respond(XOR.x)
    assert error.shape == (2,)
    assert shown.shape == (2, 4, 1)
    assert (network.weights == weights).all()
    assert (network.values == values).all()
    assert (network.evaluate(XOR.x, XOR.y) == error).all()


def test_a_network_learns_a_gate_and_a_trace_has_the_eigenvalues_of_its_laplacians():
    network = AsynchronousNetwork(2, 1, 1, seeds=range(3))
    network.train(*GATES["OR"].draw(1500, 0))
    assert (network.evaluate(GATES["OR"].x, GATES["OR"].y) < 0.05).all()
    never = SpectralRule("directed", every=10**6)
    traced = network.train(*GATES["OR"].draw(4, 0), updates=5, rule=never, trace=True).eigenvalues
    assert traced is not None
    assert traced.shape == (3, 20, 4, 4)
    assert np.isnan(traced[:, :, :2]).all()
    np.testing.assert_allclose(
        traced[:, :, 2:].sum(axis=-1), 8
    )  # either node has four edges, and as many end at the others


def test_a_trace_changes_nothing_and_goes_on_where_training_stopped():
    """Messages under way are due at a time that the network counts: a trace must not turn its clock back."""
    x, y = XOR.draw(20, 0)
    for channel in (None, Channel(3, 0.2, True)):
        whole, parts = (AsynchronousNetwork(2, 2, 1, seeds=[1, 2], channel=channel) for _ in range(2))
        expected = whole.train(x, y, rule=SpectralRule())
        found = [parts.train(x[at], y[at], rule=SpectralRule(), trace=True) for at in (slice(0, 7), slice(7, 20))]
        assert whole.weights.tobytes() == parts.weights.tobytes()
        for run in range(2):
            assert expected.events[run] == found[0].events[run] + found[1].events[run]
        assert found[1].eigenvalues is not None
        assert not np.isnan(found[1].eigenvalues[:, :, 2:]).any()


# --- messages --------------------------------------------------------------------------------------------------------


def test_of_a_network_that_hears_nothing_only_the_output_learns_from_its_inputs():
    deaf = AsynchronousNetwork(2, 3, 1, seeds=[4], channel=Channel(loss=1.0))
    first = deaf.weights[0]
    deaf.train(*GATES["OR"].draw(400, 0))
    assert (deaf.weights[0, 2:5] == first[2:5]).all()  # no error arrives at the hidden nodes,
    assert (deaf.weights[0, 5, 2:5] == first[5, 2:5]).all()  # and none of their values at the output
    assert (deaf.weights[0, 5, :2] > first[5, :2] + 1).all()


@pytest.mark.parametrize("reordered", [False, True])
@pytest.mark.parametrize("delay", [1, 3])
def test_a_value_arrives_within_its_delay(delay, reordered):
    chain = np.zeros((3, 3), dtype=bool)
    chain[1, 0] = chain[2, 1] = True
    network = AsynchronousNetwork(1, 1, 1, seeds=range(20), adjacency=chain, channel=Channel(delay, 0.0, reordered))
    direct = AsynchronousNetwork(1, 1, 1, seeds=range(20), adjacency=chain)
    np.testing.assert_array_equal(network.respond([[1.0]], updates=delay + 2), direct.respond([[1.0]], updates=2))
    assert (network.respond([[1.0]], updates=1) == 0.5).any()  # on the way still


@QUICK
@given(SEEDS, st.integers(0, 5), st.floats(0, 0.9), st.booleans())
def test_under_delay_loss_and_reordering_a_node_prunes_edges_that_there_are(seed, delay, loss, reordered):
    channel = Channel(delay, loss, reordered and delay > 0)
    network = AsynchronousNetwork(2, 3, 1, seeds=[seed], channel=channel)
    training = network.train(*XOR.draw(40, seed), rule=SpectralRule())
    assert np.isfinite(network.weights).all()
    pairs = [(e.source, e.target) for e in training.events[0]]
    assert len(pairs) == len(set(pairs)) == 20 - network.adjacency.sum()


@pytest.fixture
def told():
    """Three nodes that hear each other with a delay up to 3 and a loss of 30 %; the state of the run and what it does."""

    def make(reordered):
        network = AsynchronousNetwork(1, 2, 1, seeds=[5], channel=Channel(3, 0.3, reordered))
        return network._runs[0], network._setting(1, True, None)

    return make


def test_messages_are_lost_at_the_rate_of_the_channel_and_every_delay_is_as_likely(told):
    run, setting = told(False)
    delays = []
    for now in range(3000):
        run.clock[0] = now
        run.sent[:] = -1
        _tell(run, setting, 2)
        for receiver in (1, 3):
            (slots,) = np.nonzero(run.sent[:, receiver, 2] == now)
            assert len(slots) <= 1
            delays.append(int(run.due[slots[0], receiver, 2]) - now if len(slots) else None)
    shares = {delay: delays.count(delay) / len(delays) for delay in set(delays)}
    assert shares == {None: pytest.approx(0.3, abs=0.03), **{k: pytest.approx(0.7 / 4, abs=0.025) for k in range(4)}}


@pytest.mark.parametrize("reordered", [False, True])
def test_an_old_message_that_comes_late_counts_only_where_messages_are_reordered(told, reordered):
    run, setting = told(reordered)
    first = run.heard[3, 2, VALUE]
    run.sent[:] = -1
    for slot, (sent, due, value) in enumerate([(1, 5, 0.25), (2, 3, 0.75)]):  # the later one overtakes
        run.sent[slot, 3, 2], run.due[slot, 3, 2], run.pending[slot, 3, 2, VALUE] = sent, due, value
    sent, heard = run.sent.copy(), []
    for now in (2, 3, 4, 5, 6):
        run.clock[0] = now
        _receive(run, setting, 3)
        heard.append(run.heard[3, 2, VALUE])
    last = 0.25 if reordered else 0.75
    assert heard == [first, 0.75, 0.75, last, last]
    run.sent[:], run.stamp[:] = sent, -1
    _receive(run, setting, 3)  # both at once
    assert run.heard[3, 2, VALUE] == last


# --- bad input -------------------------------------------------------------------------------------------------------


def test_an_isolated_node_keeps_the_value_one_half_and_prunes_nothing():
    edges = np.zeros((4, 4), dtype=bool)
    edges[3, :2] = True
    network = AsynchronousNetwork(2, 1, 1, adjacency=edges)
    training = network.train(*XOR.draw(20, 0), rule=SpectralRule("directed"))
    assert network.values[0, 2] == 0.5
    assert training.events == ((),)


def test_exploding_weights_are_one_clear_error():
    network = AsynchronousNetwork(2, 4, 1, seeds=[3], clip=float("inf"), error_scale=1e300)
    with pytest.raises(
        DynamicsError, match=r"run of seed 3: .* no longer finite at update \d+; bound the weights \(clip is inf\)"
    ):
        network.train(*XOR.draw(500, 0), rule=SpectralRule())


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: AsynchronousNetwork(0, 1, 1), ModelError, "inputs is 0; give a whole number, at least 1"),
        (lambda: AsynchronousNetwork(1, -1, 1), ModelError, "hidden is -1"),
        (lambda: AsynchronousNetwork(1, 1, 1, seeds=[]), ModelError, r"seeds is \[\]; give one per run"),
        (
            lambda: AsynchronousNetwork(1, 1, 1, seeds=3),
            ModelError,
            r"seeds is 3; give one per run, e.g. seeds=range\(3\)",
        ),
        (lambda: AsynchronousNetwork(1, 1, 1, channel="lossy"), ModelError, "channel is 'lossy'; give a Channel"),
        (lambda: AsynchronousNetwork(1, 1, 1).prune(None), ModelError, "prune needs a rule"),
        (lambda: AsynchronousNetwork(1, 1, 1).prune("weighted"), ModelError, "rule is 'weighted'; give a SpectralRule"),
        (
            lambda: AsynchronousNetwork(1, 1, 1).train([[0]], [[1]], rule=SpectralRule),
            ModelError,
            "give a SpectralRule",
        ),
        (lambda: AsynchronousNetwork(1, 1, 1).respond(np.empty((0, 1))), DataError, "x has no rows"),
        (lambda: Channel(reordered=True), ModelError, "reordered messages without a delay"),
        (lambda: AsynchronousNetwork(1, 1, 1, clip=0), ModelError, "clip is 0"),
        (lambda: AsynchronousNetwork(1, 5000, 1), ModelError, "at most 2000"),
        (lambda: AsynchronousNetwork(1, 1, 1, adjacency=np.ones((3, 3))), ModelError, "edges into inputs"),
        (lambda: AsynchronousNetwork(1, 1, 1, adjacency=np.ones((2, 2))), ModelError, r"3 nodes need \(3, 3\)"),
        (lambda: SpectralRule("D"), ModelError, "degree is 'D'; give one of 'directed', 'weighted'"),
        (lambda: SpectralRule(every=0), ModelError, "every is 0"),
        (lambda: SpectralRule(tolerance=float("nan")), ModelError, "tolerance is nan"),
        (lambda: Channel(delay=-1), ModelError, "delay is -1"),
        (lambda: Channel(loss=1.5), ModelError, r"loss is 1.5; give a probability in \[0, 1\]"),
        (lambda: AsynchronousNetwork(2, 1, 1).train([[0, 1, 0]], [[1]]), DataError, r"x is \(1, 1, 3\); give \(T, 2\)"),
        (lambda: AsynchronousNetwork(2, 1, 1).train([[0, 1]], [[1], [0]]), DataError, "x has 1 rows and y 2"),
        (
            lambda: AsynchronousNetwork(2, 1, 1).train([[0, np.nan]], [[1]]),
            DataError,
            "x has 1 values which are not finite; .* row 0, column 1",
        ),
        (lambda: AsynchronousNetwork(2, 1, 1).train([[0, 1]], [[1]], updates=0), DataError, "updates is 0"),
        (lambda: AsynchronousNetwork(2, 1, 1).train([[0, 1]], [[2]]), DataError, r"y has 1 values outside \[0, 1\]"),
        (lambda: AsynchronousNetwork(2, 1, 1).cut([]), ModelError, "edges to cut of 0 runs; .* each of the 1"),
        (lambda: AsynchronousNetwork(2, 1, 1).cut([[(3, 0)]]), ModelError, r"run 0 has no edge \(3, 0\)"),
        (lambda: TruthTable.of_rows("T", [[0, 1], [0, 1, 1]]), DataError, "'T': row 1 has 3 columns, row 0 has 2"),
        (lambda: TruthTable.of_rows("T", []), DataError, "'T' has no rows"),
        (lambda: TruthTable.of_rows("T", [[1]]), DataError, "1 columns and 1 outputs"),
        (lambda: TruthTable.of_rows("T", [[0, 2]]), DataError, r"outside \[0, 1\]"),
        (lambda: TruthTable("T", [[0, np.nan]], [[1]]), DataError, r"outside \[0, 1\]"),
        (lambda: TruthTable("T", [[0, 1]], [[1], [0]]), DataError, "x has 1 rows, y 2"),
        (
            lambda: TruthTable("T", [[0, 1], [0]], [[1], [0]]),
            DataError,
            "x is no array of numbers .* rows of one width",
        ),
        (lambda: AsynchronousNetwork(2, 1, 1).train([[0, 1], [0]], [[1]]), DataError, "x or y is no array of numbers"),
        (lambda: TruthTable("T", [0, 1], [[1]]), DataError, r"x is \(2,\); give rows and columns"),
        (lambda: XOR.draw(0, 0), DataError, "0 rows to draw"),
        (lambda: parity(0), DataError, "parity of 0 bits; give 1 to 16"),
    ],
)
def test_bad_input_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_parity_of_two_bits_is_xor():
    two = parity(2)
    assert (two.x == XOR.x).all()
    assert (two.y == XOR.y).all()
    assert parity(5).y.mean() == 0.5


def test_a_network_and_a_training_say_in_a_line_what_they_are():
    network = AsynchronousNetwork(2, 1, 1, seeds=[3, 4])
    assert repr(network) == "AsynchronousNetwork(2, 1, 1, seeds=(3, 4)) with 6, 6 edges"
    training = network.train(*XOR.draw(3, 0))
    assert repr(training).startswith("Training of 2 runs over 3 inputs: error at the last 0.")
    assert "array" not in repr(training)
