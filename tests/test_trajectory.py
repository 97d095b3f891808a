"""Twin trainings: their differences and exponents against ones held whole; criterion causal; LEGCNet-FT and -PT."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import jali
from jali.criterion import get
from jali.criterion.causal import judge
from jali.errors import BudgetError, CriterionError, DataError, ModelError
from jali.evidence import SiteEvidence, SiteTrajectory, collect
from jali.legcnet import held, legcnet, natural_budget
from jali.maths.granger import corrected, granger
from jali.maths.series_exponents import direct, rosenstein
from jali.site import sites
from jali.view import read


class Sequence(nn.Module):
    def __init__(self, rnn):
        super().__init__()
        self.rnn, self.head = rnn, nn.Linear(rnn.hidden_size, 2)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


def perceptron():
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.Sigmoid(), nn.Linear(4, 2))


NETWORKS = {
    "MLP": perceptron,
    "RNN": lambda: Sequence(nn.RNN(2, 4, batch_first=True)),
    "LSTM": lambda: Sequence(nn.LSTM(2, 4, batch_first=True)),
    "GRU": lambda: Sequence(nn.GRU(2, 4, batch_first=True)),
}
X = torch.randn(40, 3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
Y = (X.sum((1, 2)) > 0).long()


def network(name="MLP", seed=0):
    torch.manual_seed(seed)
    return NETWORKS[name]().double()


def training(iterations=60, rate=0.5, noise=0.0):
    def train(model):
        optimizer = torch.optim.SGD(model.parameters(), lr=rate)
        for t in range(iterations):
            rows = torch.arange(4 * t, 4 * t + 4) % len(X)
            x = X[rows] + noise * torch.randn(4, 3, 2)
            optimizer.zero_grad()
            F.cross_entropy(model(x), Y[rows]).backward()
            optimizer.step()
            yield

    return train


def accuracy(model):
    return float((model(X).argmax(-1) == Y).double().mean())


def whole(model, train, moved):
    """Every difference of every weight, (iterations, weights), held at once."""
    out = []
    for shift in (0.0, moved.delta):
        torch.manual_seed(5)
        own = network_copy(model)
        with torch.no_grad():
            for index in moved.indices:
                dict(own.named_parameters())[moved.parameter][index] += shift
        out.append([torch.cat([p.detach().reshape(-1) for p in own.parameters()]) for _ in train(own)])
    return (torch.stack(out[1]) - torch.stack(out[0])).numpy()


def network_copy(model):
    import copy

    return copy.deepcopy(model)


# --- windows --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(NETWORKS))
@settings(max_examples=3, deadline=None)
@given(window=st.integers(16, 30), stride=st.integers(1, 30), method=st.sampled_from(["direct", "rosenstein"]))
def test_windows_are_those_of_the_whole_series(name, window, stride, method):
    stride = min(stride, window)
    model, moved = (
        network(name),
        jali.Perturbation(next(n for n, _ in network(name).named_parameters()), ((1, 0),), 1e-3),
    )
    seen, _ = jali.trajectory(
        model, training(), accuracy, perturbation=moved, window=window, stride=stride, method=method
    )
    series = whole(model, training(), moved)
    ends = list(range(window, len(series) + 1, stride))
    assert seen.ends.tolist() == ends
    flat = np.concatenate([seen.exponents[n].reshape(len(ends), -1) for n, _ in model.named_parameters()], axis=1)
    for row, end in zip(flat, ends, strict=True):
        own = series[end - window : end].T
        before = series[end - window - 1] if end > window else np.full(len(own), moved.delta)
        np.testing.assert_array_equal(row, direct(own, before) if method == "direct" else rosenstein(own))
    np.testing.assert_allclose(seen.distance, [np.linalg.norm(series[end - 1]) for end in ends], rtol=1e-12)
    assert (len(seen), seen.iterations) == (len(ends), 60)


def test_the_reference_is_the_training_itself_and_the_model_is_left_alone():
    model = network("LSTM")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    seen, trained = jali.trajectory(model, training(), accuracy, window=20)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    alone, watched = network_copy(model), []
    for t, _ in enumerate(training()(alone), 1):
        if t % 20 == 0:
            watched.append(accuracy(alone))
    assert all(torch.equal(p, q) for p, q in zip(trained.parameters(), alone.parameters(), strict=True))
    assert seen.performance.tolist() == watched


def test_both_twins_get_the_same_random_numbers_and_the_callers_are_left_alone():
    model = network()
    torch.manual_seed(3)
    seen, _ = jali.trajectory(model, training(noise=1.0), accuracy, window=20)
    drawn = torch.rand(3)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(3))
    assert seen.distance[0] < 1e-2, "noise of size 1 in one twin only would part them"
    again, _ = jali.trajectory(model, training(noise=1.0), accuracy, window=20)
    assert again.distance.tobytes() != seen.distance.tobytes(), "the caller's random state counts"


@settings(max_examples=5, deadline=None)
@given(st.floats(1e-9, 1e-5))
def test_a_small_perturbation_grows_in_proportion(delta):
    """Before anything saturates the twins' difference is linear in δ₀, and exponents do not depend on it."""
    one, other = (
        jali.trajectory(
            network(), training(20), accuracy, window=20, perturbation=jali.Perturbation("1.weight", ((0, 0),), d)
        )[0]
        for d in (delta, delta / 2)
    )
    assert one.distance[-1] / other.distance[-1] == pytest.approx(2, rel=1e-3)


def test_until_is_what_a_shorter_training_leaves():
    short, _ = jali.trajectory(network(), training(), accuracy, window=10, most=45)
    cut = jali.trajectory(network(), training(), accuracy, window=10)[0].until(45)
    assert (len(cut), cut.iterations, short.iterations) == (4, 45, 45)
    assert cut.ends.tolist() == short.ends.tolist() == [10, 20, 30, 40]
    for name, values in short.exponents.items():
        assert cut.exponents[name].tobytes() == values.tobytes()
    assert cut.performance.tobytes() == short.performance.tobytes()


def test_no_more_than_a_window_is_held():
    """Ten times the iterations do not need more memory than one window, the exponents and the networks."""

    def peak(iterations):
        tracemalloc.start()
        seen, _ = jali.trajectory(nn.Linear(2000, 2).double(), wide(iterations), lambda m: 0.5, window=50)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most - sum(values.nbytes for values in seen.exponents.values())

    def wide(iterations):
        def train(model):
            for t in range(iterations):
                with torch.no_grad():
                    model.weight *= 1 - 0.01 / (t + 1) * model.weight.sum()
                yield

        return train

    assert peak(1000) < 1.5 * peak(100)


# --- bad input --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 100}, "ended after 60 iterations, before a window of 100"),
        ({"window": 1}, "window 1 is not a whole number of iterates, at least 2"),
        ({"window": 10, "stride": 11}, "stride 11 is not a whole number from 1 to the window of 10"),
        ({"window": 10, "stride": 0}, "stride 0"),
        ({"window": 10, "most": 9}, "most=9"),
        ({"window": 10, "method": "wolf"}, "method 'wolf' is unknown"),
        ({"window": 10, "perturbation": jali.Perturbation("1.weight", ((0, 0),), 0.0)}, "delta 0.0"),
        ({"window": 10, "perturbation": jali.Perturbation("1.weight", ((0, 0),), 1e-30)}, "lost in the rounding"),
    ],
)
def test_what_cannot_be_recorded_is_refused(options, message):
    with pytest.raises(DataError, match=message):
        jali.trajectory(network(), training(), accuracy, **options)


@pytest.mark.parametrize(
    "moved",
    [
        ("2.weight", ((0, 0),)), ("1.weight", ((0, 6),)), ("1.weight", ((0,),)), ("1.weight", (0, 0)),
        ("1.weight", ([0, 0],)), ("1.weight", ((0, 0.5),)),
    ],
)  # fmt: skip
def test_a_weight_that_is_not_there_is_refused(moved):
    with pytest.raises(ModelError, match=r"has no (parameter '2.weight'|entry)"):
        jali.trajectory(network(), training(), accuracy, perturbation=jali.Perturbation(*moved), window=10)


def test_a_training_with_chance_of_its_own_is_refused():
    generator = torch.Generator().manual_seed(0)

    def train(model):
        for _ in range(30):
            with torch.no_grad():
                model[1].weight += torch.randn(4, 6, generator=generator, dtype=torch.float64)
            yield

    with pytest.raises(DataError, match=r"not deterministic: after 1 iterations .* differ in '1.weight'"):
        jali.trajectory(network(), train, accuracy, window=10)


def test_a_training_whose_length_depends_on_the_weights_is_refused():
    start = float(network()[1].weight[0, 0].detach())

    def train(model):
        moved = float(model[1].weight[0, 0].detach()) != start
        yield from training(30 if moved else 40)(model)

    with pytest.raises(DataError, match="one of the twins stopped before the other"):
        jali.trajectory(network(), train, accuracy, window=10)


@pytest.mark.parametrize("indices", [(), 0, [(0, 0)]])
def test_a_perturbation_of_no_weight_is_refused(indices):
    with pytest.raises(DataError, match="name no weight; give a tuple of entries"):
        jali.trajectory(network(), training(), accuracy, perturbation=jali.Perturbation("1.weight", indices), window=10)


@pytest.mark.parametrize("given", [None, "a", [], [0.5, "b"]])
def test_a_watch_that_returns_no_number_is_refused(given):
    with pytest.raises(DataError, match="return a number"):
        jali.trajectory(network(), training(), lambda model: given, window=10)
    counts = iter((1, 2))
    with pytest.raises(DataError, match="the same count of them every time"):
        jali.trajectory(network(), training(), lambda model: np.zeros(next(counts)), window=10)


def test_a_training_that_is_no_generator_is_refused():
    with pytest.raises(DataError, match="returned a NoneType; it must be a generator"):
        jali.trajectory(network(), lambda model: None, accuracy, window=10)


def test_a_trajectory_without_a_window_is_none():
    seen, _ = jali.trajectory(network(), training(), accuracy, window=10)
    assert len(seen.until(10)) == 1
    with pytest.raises(DataError, match="no window had closed after 9 iterations; the first one does after 10"):
        seen.until(9)


def test_a_perturbation_without_effect_is_refused():
    def train(model):
        for t in range(30):
            with torch.no_grad():
                model[3].weight *= 1 - 1 / (t + 2)
            yield

    with pytest.raises(DataError, match=r"the twins never parted: 1.weight\[0, 0\] has no effect"):
        jali.trajectory(network(), train, accuracy, window=10)


def test_nan_in_training_is_told_weight_by_weight():
    def train(model):
        for t, _ in enumerate(training()(model)):
            if t == 40:
                with torch.no_grad():
                    model[1].weight[2, 3] = float("nan")
            yield

    seen, _ = jali.trajectory(network(), train, accuracy, window=2)
    assert np.isnan(seen.exponents["1.weight"][-1, 2, 3])
    found = granger(seen.exponents["1.weight"][:, 2, 3][None], np.random.default_rng(0).random(len(seen)))
    assert np.isnan(found.p).all()
    assert found.words == ["not finite"]


# --- the criterion ----------------------------------------------------------------------------------------------------------


def evidence_of(model, windows=40, seed=0):
    """Made-up exponents: those of even entries cause the performance one window later, the others are noise."""
    rng = np.random.default_rng(seed)
    site = sites(model, linear=True)[0]
    view, out = read(model, site), {}
    drive = rng.normal(size=windows)
    performance = 0.3 * rng.normal(size=windows)
    performance[1:] += drive[:-1]
    for field, value in view.arrays():
        series = rng.normal(size=(windows, value.size))
        series[:, ::2] = drive[:, None] + 0.3 * rng.normal(size=(windows, len(range(0, value.size, 2))))
        out[field] = series.reshape(windows, *value.shape)
    return view, SiteEvidence(trajectory=SiteTrajectory(out, performance))


def test_causes_are_found_and_both_readings_are_each_others_opposite():
    view, evidence = evidence_of(network("LSTM"))
    scores = get("causal").score_weights(view, evidence)
    other = get("causal", {"goes": "causal"}).score_weights(view, evidence)
    for field, values in scores.items():
        assert (values.ravel()[::2] > -1e-6).all(), "p is tiny where the exponents lead"
        assert np.median(values.ravel()[1::2]) < -0.2
        tested = values <= 0
        assert tested.mean() > 0.9
        np.testing.assert_allclose(other[field][tested], -values[tested] - 1.0)
        assert (other[field][~tested] == 1).all()
        assert {field: v.shape for field, v in scores.items()} == {"w_in": view.w_in.shape, "w_rec": view.w_rec.shape}


def test_scores_are_the_p_values_of_the_tests_corrected_if_so_wanted():
    view, evidence = evidence_of(network("GRU"))
    found = judge(evidence, max_lag=3, select="bic")
    p = np.concatenate([found["w_in"].p, found["w_rec"].p])
    for correction in ("none", "holm", "fdr_bh"):
        options = {"correction": correction, "max_lag": 3, "select": "bic"}
        scores = get("causal", options).score_weights(view, evidence)
        flat = np.concatenate([scores["w_in"].ravel(), scores["w_rec"].ravel()])
        want = p if correction == "none" else corrected(p, correction)
        np.testing.assert_allclose(flat, np.where(np.isnan(p), 1.0, -want), atol=1e-15)


@pytest.mark.parametrize(("untested", "stays"), [("keep", True), ("remove", False)])
@pytest.mark.parametrize("goes", ["causal", "non-causal"])
def test_what_cannot_be_tested_is_never_a_p_value(untested, stays, goes):
    view, evidence = evidence_of(network("RNN"))
    exponents = {field: values.copy() for field, values in evidence.trajectory.exponents.items()}
    exponents["w_in"][:, 0, 0, 0], exponents["w_rec"][7, 0, 1, 2], exponents["w_rec"][5, 0, 0, 0] = 2.0, np.nan, -np.inf
    broken = replace(evidence, trajectory=replace(evidence.trajectory, exponents=exponents))
    scores = get("causal", {"goes": goes, "untested": untested}).score_weights(view, broken)
    for score in (scores["w_in"][0, 0, 0], scores["w_rec"][0, 1, 2], scores["w_rec"][0, 0, 0]):
        assert bool(score > 0) == stays
        assert stays or score < -1
    found = judge(broken, max_lag=2, select="aic")
    assert found["w_in"].words[0] == "constant"
    assert found["w_rec"].words[0] == found["w_rec"].words[1 * 4 + 2] == "not finite"
    assert found["w_in"].words[1] == ""


def test_windows_fewer_than_the_lags_are_told():
    view, evidence = evidence_of(network("RNN"), windows=3)
    assert set(judge(evidence, max_lag=2, select="aic")["w_in"].words) == {"too short"}
    assert (get("causal").score_weights(view, evidence)["w_in"] > 0).all()


def test_a_plan_by_the_natural_threshold():
    model = network("LSTM")
    seen, _ = jali.trajectory(model, training(400), accuracy, window=20)
    made = jali.plan(model, "causal", natural_budget(0.05), granularity="weight", sites=["*"], trajectory=seen)
    own = collect(model, None, sites(model, linear=True), ("trajectory",), trajectory=seen).sites
    for site in sites(model, linear=True):
        found = judge(own[site.name], max_lag=2, select="aic")
        for field, mask in made.site(site.name).keep.items():
            p = found[field].p
            assert (mask.ravel() == (np.isnan(p) | (p <= 0.05))).all()
    assert jali.Plan.from_json(made.to_json()).sparsity == made.sparsity


def test_a_plan_without_a_trajectory_or_with_another_models_is_refused():
    model = network("LSTM")
    with pytest.raises(DataError, match=r"'causal' needs a training; pass trajectory="):
        jali.plan(model, "causal", 0.5, granularity="weight")
    seen, _ = jali.trajectory(network(), training(), accuracy, window=10)
    with pytest.raises(DataError, match=r"no weights of site 'rnn.l0'; it has 1.weight"):
        jali.plan(model, "causal", 0.5, granularity="weight", trajectory=seen)
    with pytest.raises(DataError, match="the trajectory is an int"):
        jali.plan(model, "causal", 0.5, granularity="weight", trajectory=3)
    wider, _ = jali.trajectory(network("GRU"), training(), accuracy, window=10)
    with pytest.raises(DataError, match=r"'rnn.weight_ih_l0' of shape \(12, 2\), the model one of \(16, 2\)"):
        jali.plan(model, "causal", 0.5, granularity="weight", trajectory=wider)
    many = replace(seen, performance=np.zeros((len(seen), 3)))
    with pytest.raises(DataError, match=r"watched \(3,\) numbers per window"):
        jali.plan(network(), "causal", 0.5, granularity="weight", sites=["*"], trajectory=many)
    with pytest.raises(CriterionError, match="none was recorded at site"):
        get("causal").score_weights(read(model, sites(model)[0]), SiteEvidence())


# --- LEGCNet ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["MLP", "LSTM"])
def test_a_ticket_starts_from_the_initial_weights_and_keeps_its_zeros(name):
    model, train = network(name), training(300)
    ticket = legcnet(model, train, accuracy, window=20, goes="non-causal")
    assert ticket.share == 1.0
    masked = jali.mask(model, ticket.plan)
    for _ in held(masked, ticket.plan, train):
        pass
    assert 0 < ticket.plan.sparsity < 1
    for (parameter, p), q in zip(ticket.model.named_parameters(), masked.parameters(), strict=True):
        assert torch.equal(p, q), parameter
    gone = 0
    for site in sites(model, linear=True):
        view = read(ticket.model, site)
        for field, keep in ticket.plan.site(site.name).keep.items():
            assert (getattr(view, field)[~keep] == 0).all()
            assert (getattr(view, field)[keep] != 0).all()
            gone += int((~keep).sum())
    assert gone
    alone = network_copy(model)
    for _ in train(alone):
        pass
    assert all(torch.equal(p, q) for p, q in zip(ticket.dense.parameters(), alone.parameters(), strict=True))


def test_the_partial_procedure_looks_at_the_beginning_only():
    ticket = legcnet(network("RNN"), training(300), accuracy, iterations=120, window=10, goes="causal")
    assert ticket.share == 0.4
    assert ticket.trajectory.ends.tolist() == list(range(10, 130, 10))
    whole_run, _ = jali.trajectory(network("RNN"), training(300), accuracy, window=10)
    made = jali.plan(
        network("RNN"), "causal", natural_budget(0.05, "causal"), granularity="weight", sites=["*"],
        options={"goes": "causal"}, trajectory=whole_run.until(120),
    )  # fmt: skip
    for one, other in zip(made.sites, ticket.plan.sites, strict=True):
        assert all((one.keep[field] == other.keep[field]).all() for field in one.keep)


@pytest.mark.parametrize("p", [0.0, 1.0, -0.1, 2.0, float("nan"), "a"])
def test_a_threshold_is_a_probability(p):
    with pytest.raises(BudgetError, match="not a number in"):
        natural_budget(p)


def test_a_reading_that_there_is_not_is_refused_before_the_training():
    with pytest.raises(BudgetError, match="goes='noncausal' is unknown"):
        natural_budget(0.05, "noncausal")
    with pytest.raises(CriterionError, match="option correction is 'bonferroni'"):
        legcnet(network(), refused, accuracy, options={"correction": "bonferroni"})
    with pytest.raises(CriterionError, match="are not a mapping"):
        legcnet(network(), refused, accuracy, options=["holm"])
    with pytest.raises(DataError, match="max_lag 0 is no whole number from 1"):
        legcnet(network(), refused, accuracy, options={"max_lag": 0})


def test_the_reading_is_given_once():
    """By another reading in the options the threshold would be one of other scores."""
    with pytest.raises(BudgetError, match=r"options give goes='causal'.*give legcnet\(goes=...\)"):
        legcnet(network(), refused, accuracy, options={"goes": "causal"})


def test_sites_that_there_are_not_are_refused_before_the_training():
    with pytest.raises(ModelError, match="no site matches 'head'"):
        legcnet(network(), refused, accuracy, sites=["head"])
    with pytest.raises(ModelError, match=r"sites='\*' is not a list"):
        legcnet(network(), refused, accuracy, sites="*")
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    with pytest.raises(ModelError, match="shared by two sites; leave one out"):
        legcnet(tied, refused, accuracy)


def test_a_trajectory_and_a_ticket_print_in_a_few_lines():
    ticket = legcnet(network("LSTM"), training(300), accuracy, iterations=200, window=20)
    assert len(repr(ticket.trajectory).splitlines()) == 4
    assert "10 windows of 20 over 200 iterations, by 'direct'" in str(ticket.trajectory)
    assert "138, 0 of them without a finite exponent" in str(ticket.trajectory)
    assert "200 of 300 iterations" in repr(ticket)
    assert len(str(ticket)) < 1000


def test_a_layer_that_keeps_no_input_weight_is_noted():
    model = network("LSTM")
    seen, _ = jali.trajectory(model, training(300), accuracy, window=20)
    still = {n: np.zeros_like(v) if "head" in n else v for n, v in seen.exponents.items()}
    made = jali.plan(
        model, "causal", natural_budget(), granularity="weight", sites=["*"], options={"untested": "remove"},
        trajectory=replace(seen, exponents=still),
    )  # fmt: skip
    empty = {site.name for site in made.sites if not site.keep["w_in"].any()}
    assert "head" in empty
    assert {note.split("'")[1] for note in made.notes if "keeps no input weight" in note} == empty
    assert not any("no input weight" in note for note in jali.plan(model, "magnitude", 0.5, granularity="weight").notes)


def refused(model):
    raise AssertionError("trained")


def test_zeros_are_held_whatever_moves_the_weights():
    def train(model):
        for _ in training(300)(model):
            with torch.no_grad():
                model[1].weight += 0.001
            yield

    ticket = legcnet(network(), train, accuracy, window=20, sites=["1"])
    (planned,) = ticket.plan.sites
    weight = ticket.model[1].weight.detach().numpy()
    assert ((weight == 0) == ~planned.keep["w_in"][0]).all()


def test_weights_that_start_at_zero_and_are_not_removed_are_trained():
    model = network("LSTM")
    nn.init.zeros_(model.head.weight)
    ticket = legcnet(model, training(300), accuracy, window=20, sites=["rnn.l0"])
    assert (ticket.model.head.weight != 0).all()
    assert (ticket.model.rnn.weight_hh_l0 == 0).any()


def test_a_network_whose_weights_cannot_be_tested_says_why_nothing_goes():
    def broken(model):
        for t, _ in enumerate(training(200)(model)):
            if t == 100:
                with torch.no_grad():
                    model[1].weight[0, 0] = float("nan")
            yield

    with pytest.raises(BudgetError, match=r"of 38 weights and biases 38 cannot be tested \(38 not finite\)"):
        legcnet(
            network(), broken, lambda model: float(model[3].bias.nan_to_num()[0]) + torch.rand(()).item(), window=10
        )
    with pytest.raises(BudgetError, match=r"no weight goes by p = 0.05; of 38 .* \(38 too short\)"):
        legcnet(network(), training(80), accuracy, window=20)
    with pytest.raises(CriterionError, match="by a single window; look at more of the training"):
        legcnet(network(), training(20), accuracy, window=20)


@pytest.mark.parametrize(("value", "word"), [(0.5, "constant over 6 windows"), (float("nan"), "not finite over 6")])
def test_a_performance_that_tells_nothing_is_refused(value, word):
    with pytest.raises(CriterionError, match=word):
        legcnet(network(), training(60), lambda model: value, window=10)


def test_the_tests_of_a_trajectory_are_those_of_the_criterion_by_parameter():
    model = network("GRU")
    seen, _ = jali.trajectory(model, training(300), accuracy, window=20)
    site = sites(model)[0]
    found, own = seen.tests(), collect(model, None, [site], ("trajectory",), trajectory=seen).sites["rnn.l0"]
    assert set(found) == {name for name, _ in model.named_parameters()}
    field = judge(own, max_lag=2, select="aic")["w_rec"]
    np.testing.assert_array_equal(found["rnn.weight_hh_l0"].p, field.p)  # packed gate after gate, as the view is
    assert found["rnn.weight_hh_l0"].words == field.words
    with pytest.raises(DataError, match=r"watched \(3,\) numbers"):
        replace(seen, performance=np.zeros((len(seen), 3))).tests()
