"""Every criterion keeps the same laws (a new file in jali/criterion is tested without a word here), and each its formula."""

import inspect
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import nn

import jali
from jali.criterion import get, registry
from jali.errors import CriterionError, DataError, JaliError, ModelError, SeedError
from jali.evidence import SiteEvidence, SiteTrajectory, Use, collect
from jali.maths.context import irreducible_columns, irreducible_rows
from jali.maths.local_laplacian import local_laplacian
from jali.maths.moebius import moebius
from jali.maths.named_lattices import boolean, m3, partition
from jali.maths.order import covers
from jali.maths.persistence import logit_grid
from jali.site import Site, sites
from jali.view import View, read
from tests.strategies_context import incidences, irreducible_by_sets
from tests.strategies_models import made_up_trajectory

NAMES = sorted(jali.criteria())
WEIGHTS = [name for name in NAMES if "weight" in get(name).granularities]
UNITS = [name for name in NAMES if "unit" in get(name).granularities]


class Sequence(nn.Module):
    """A recurrent layer and a head on its last step."""

    def __init__(self, rnn, width):
        super().__init__()
        self.rnn, self.head = rnn, nn.Linear(width, 2)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


class Loop(nn.Module):
    """A recurrent cell called step by step, and a head on its last state."""

    def __init__(self, cell):
        super().__init__()
        self.cell, self.head = cell, nn.Linear(cell.hidden_size, 2)

    def forward(self, x):
        state = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.head(state[0] if isinstance(state, tuple) else state)


@dataclass(frozen=True, eq=False)
class Case:
    """A model, calibration data, and the sites that are scored."""

    model: nn.Module
    data: list

    def scored(self, needs, linear=False):
        """``[(view, evidence)]`` of every recurrent site, or of every Linear one."""
        chosen = [site for site in sites(self.model, linear=True) if site.recurrent is not linear]
        trained = made_up_trajectory(self.model) if "trajectory" in needs else None
        found = collect(self.model, self.data, chosen, needs, trajectory=trained).sites
        return [(read(self.model, site), found.get(site.name, SiteEvidence())) for site in chosen]


def _layer(cls, hidden, inputs=3, **options):
    width = (options.get("proj_size") or hidden) * (2 if options.get("bidirectional") else 1)
    return Sequence(cls(inputs, hidden, batch_first=True, **options), width)


MODELS = {
    "RNN": lambda: _layer(nn.RNN, 5),
    "RNN relu without bias": lambda: _layer(nn.RNN, 5, nonlinearity="relu", bias=False),
    "GRU bidirectional": lambda: _layer(nn.GRU, 4, bidirectional=True),
    "LSTM of two layers": lambda: _layer(nn.LSTM, 6, num_layers=2),
    "LSTM with a projection": lambda: _layer(nn.LSTM, 6, proj_size=2),
    "RNNCell": lambda: Loop(nn.RNNCell(3, 5)),
    "GRUCell": lambda: Loop(nn.GRUCell(3, 5, bias=False)),
    "LSTMCell": lambda: Loop(nn.LSTMCell(3, 5)),
}


def case(build, batch=12, steps=4, inputs=3):
    torch.manual_seed(0)
    model = build().double().eval()
    data = [(torch.randn(batch, steps, inputs).double(), torch.randint(0, 2, (batch,))) for _ in range(2)]
    return Case(model, data)


@pytest.fixture(scope="module", params=sorted(MODELS))
def any_model(request):
    return case(MODELS[request.param])


def permuted(view, evidence, order):
    """The same network with its hidden units renamed: unit k is what unit ``order[k]`` was."""

    def turn(v):
        arrays = {field: value[:, order] for field, value in v.arrays()}
        if v.w_rec is not None and v.w_proj is None:
            arrays["w_rec"] = arrays["w_rec"][:, :, order]
        return v.replace(**arrays)

    uses = tuple(
        Use(use.reader, _turned_weight(use, order), use.mean[order], use.second[np.ix_(order, order)], use.samples)
        for use in evidence.uses
    )
    trained = evidence.trajectory and SiteTrajectory(
        {field: _turned_series(field, values, order, view) for field, values in evidence.trajectory.exponents.items()},
        evidence.trajectory.performance,
    )
    return turn(view), SiteEvidence(uses, tuple(turn(gradient) for gradient in evidence.gradients), trained)


def _turned_series(field, values, order, view):
    """Per window as :func:`permuted` turns the weights: (D, G, H, ...)."""
    turned = values[..., order] if field == "w_proj" else values[:, :, order]
    return turned[..., order] if field == "w_rec" and view.w_proj is None else turned


def _turned_weight(use, order):
    weight = use.weight[:, order]
    if use.reader in ("recurrence", "output") and len(weight) % len(order) == 0:  # its outputs are units, too
        weight = weight.reshape(-1, len(order), len(order))[:, order].reshape(weight.shape)
    return weight


# --- the laws of every criterion -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_criterion_says_what_it_is_in_one_line_and_what_it_needs(name):
    module = get(name).module
    assert jali.criteria()[name] == module.SUMMARY
    assert module.SUMMARY.strip() == module.SUMMARY
    assert 0 < len(module.SUMMARY) <= 120
    assert "\n" not in module.SUMMARY
    assert set(module.NEEDS) <= {"states", "gradients", "trajectory"}
    assert name in UNITS or name in WEIGHTS


@pytest.mark.parametrize("name", NAMES)
def test_the_defaults_of_options_are_of_their_annotated_types(name):
    for function in ("score", "score_weights"):
        target = getattr(get(name).module, function, None)
        for option, parameter in inspect.signature(target).parameters.items() if target else ():
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY and parameter.default is not None:
                assert get(name, {option: parameter.default}).options[option] == parameter.default


@pytest.mark.parametrize("name", UNITS)
def test_scores_are_one_finite_number_per_unit(name, any_model):
    for view, evidence in any_model.scored(get(name).needs):
        scores = get(name).score(view, evidence)
        assert scores.shape == (view.hidden,)
        assert scores.dtype == np.float64
        assert np.isfinite(scores).all()


@pytest.mark.parametrize("name", WEIGHTS)
def test_weight_scores_are_one_finite_number_per_weight(name, any_model):
    for view, evidence in any_model.scored(get(name).needs):
        scores = get(name).score_weights(view, evidence)
        assert {field: value.shape for field, value in scores.items()} == {
            field: value.shape for field, value in view.arrays() if field in ("w_in", "w_rec")
        }
        assert all(np.isfinite(value).all() for value in scores.values())


@pytest.mark.parametrize("name", NAMES)
def test_the_same_model_data_and_seed_give_the_same_scores_bit_for_bit(name, any_model):
    criterion, again = get(name, seed=7), get(name, seed=7)
    pairs = zip(any_model.scored(criterion.needs), any_model.scored(criterion.needs), strict=True)
    for (view, evidence), (other_view, other_evidence) in pairs:
        if name in UNITS:
            assert criterion.score(view, evidence).tobytes() == again.score(other_view, other_evidence).tobytes()
        if name in WEIGHTS:
            first, second = criterion.score_weights(view, evidence), again.score_weights(other_view, other_evidence)
            assert all(first[field].tobytes() == second[field].tobytes() for field in first)


@pytest.mark.parametrize("name", [name for name in UNITS if not name.startswith("random")])
def test_renaming_units_renames_their_scores(name, any_model):
    for view, evidence in any_model.scored(get(name).needs):
        order = np.random.default_rng(3).permutation(view.hidden)
        assert (order != np.arange(view.hidden)).any()
        scores = get(name).score(view, evidence)
        np.testing.assert_allclose(get(name).score(*permuted(view, evidence, order)), scores[order], atol=1e-12)


@pytest.mark.parametrize("name", [name for name in WEIGHTS if not name.startswith("random")])
def test_renaming_units_renames_the_scores_of_their_weights(name, any_model):
    for view, evidence in any_model.scored(get(name).needs):
        order = np.random.default_rng(3).permutation(view.hidden)
        turned = get(name).score_weights(*permuted(view, evidence, order))
        for field, value in get(name).score_weights(view, evidence).items():
            square = field == "w_rec" and view.w_proj is None
            want = value[:, order][:, :, order] if square else value[:, order]
            np.testing.assert_allclose(turned[field], want, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_scoring_changes_neither_the_view_nor_the_evidence(name, any_model):
    for view, evidence in any_model.scored(get(name).needs):
        held = [value for v in (view, *evidence.gradients) for _, value in v.arrays()]
        held += [value for use in evidence.uses for value in (use.weight, use.mean, use.second)]
        if evidence.trajectory is not None:
            held += [*evidence.trajectory.exponents.values(), evidence.trajectory.performance]
        before = [value.copy() for value in held]
        for value in held:
            value.flags.writeable = False
        if name in UNITS:
            get(name).score(view, evidence)
        if name in WEIGHTS:
            get(name).score_weights(view, evidence)
        assert all(np.array_equal(old, new, equal_nan=True) for old, new in zip(before, held, strict=True))


@pytest.mark.parametrize("name", UNITS)
def test_a_linear_is_scored_or_refused_by_name(name):
    model = case(lambda: _layer(nn.LSTM, 5))
    ((view, evidence),) = model.scored(get(name).needs, linear=True)
    recurrent_only = {"lattice", "moebius", "column-sum", "laplacian"}
    if name in recurrent_only:
        with pytest.raises(CriterionError, match=rf"'{name}'.*'head'.*recurrent"):
            get(name).score(view, evidence)
    else:
        assert np.isfinite(get(name).score(view, evidence)).all()


@pytest.mark.parametrize("hidden", [1, 2])
@pytest.mark.parametrize("cls", [nn.RNN, nn.GRU, nn.LSTM])
@pytest.mark.parametrize("name", UNITS)
def test_one_and_two_units_are_scored(name, cls, hidden):
    for view, evidence in case(lambda: _layer(cls, hidden)).scored(get(name).needs):
        assert np.isfinite(get(name).score(view, evidence)).all()


@pytest.mark.parametrize("change", ["no recurrence", "no input", "zero data"])
@pytest.mark.parametrize("name", UNITS)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_degenerate_networks_are_scored_or_refused_by_name(name, change):
    broken = case(lambda: _layer(nn.GRU, 4))
    with torch.no_grad():
        if change == "no recurrence":
            broken.model.rnn.weight_hh_l0.zero_()
        elif change == "no input":
            broken.model.rnn.weight_ih_l0.zero_()
        else:
            for parameter in (broken.model.rnn.bias_ih_l0, broken.model.rnn.bias_hh_l0):
                parameter.zero_()
            for x, _ in broken.data:
                x.zero_()
    ((view, evidence),) = broken.scored(get(name).needs)
    if change == "no recurrence" and name in ("lattice", "moebius"):
        with pytest.raises(CriterionError, match=rf"'{name}' cannot score site 'rnn\.l0'.*no weight is positive"):
            get(name).score(view, evidence)
    else:
        assert np.isfinite(get(name).score(view, evidence)).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_weights_never_reach_a_criterion(name, value):
    broken = case(lambda: _layer(nn.LSTM, 4))
    with torch.no_grad():
        broken.model.rnn.bias_hh_l0[3] = value
    with pytest.raises(ModelError, match="1 NaN or infinite"):
        jali.plan(broken.model, name, 0.5, broken.data)


# --- asking for a criterion ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_option_is_answered_with_the_known_ones(name):
    known = sorted(set().union(*(registry._options(f) for f in _functions(name))))
    with pytest.raises(CriterionError, match="no option 'colour'") as caught:
        get(name, {"colour": 1})
    assert all(option in str(caught.value) for option in known or ["it has none"])


def _functions(name):
    module = get(name).module
    return [getattr(module, function) for function in registry.FUNCTIONS.values() if hasattr(module, function)]


@pytest.mark.parametrize(
    ("asked", "near"), [("latice", "lattice"), ("magnitud", "magnitude"), ("mobius", "moebius"), ("Taylor", "taylor")]
)
def test_an_unknown_criterion_is_answered_with_the_near_names(asked, near):
    with pytest.raises(CriterionError, match=rf"unknown criterion '{asked}'; did you mean .*{near}"):
        get(asked)


@pytest.mark.parametrize("asked", ["zzz", "", None, 3, ["lattice"], "registry", "__init__"])
def test_what_is_no_name_is_refused(asked):
    with pytest.raises(CriterionError, match="unknown criterion"):
        get(asked)


def test_a_name_near_to_none_is_answered_with_all():
    with pytest.raises(CriterionError) as caught:
        get("zzz")
    assert all(name in str(caught.value) for name in NAMES)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lattice", {"form": "fuzzy"}, "form is 'fuzzy'; give one of 'persistence', 'exact', 'graded'"),
        ("lattice", {"side": "left"}, "side is 'left'; give one of 'both', 'columns', 'rows'"),
        ("lattice", {"span": "half"}, "span is 'half'; give one of 'sparse', 'full'"),
        ("lattice", {"algebra": "tropical"}, "algebra is 'tropical'; give one of 'godel'"),
        ("lattice", {"density": "0.1"}, "density is '0.1'; give a finite number"),
        ("lattice", {"density": True}, "density is True; give a finite number"),
        ("moebius", {"density": float("nan")}, "density is nan; give a finite number"),
        ("moebius", {"steps": 1.5}, "steps is 1.5; give a whole number"),
        ("moebius", {"steps": True}, "steps is True; give a whole number"),
        ("random", ["seed"], "not a mapping"),
    ],
)
def test_an_option_of_the_wrong_type_is_refused_before_anything_runs(name, options, message):
    with pytest.raises(CriterionError, match=message):
        get(name, options)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", [True, 1.0, "1", None, -1])
def test_a_seed_is_a_whole_number(name, seed):
    with pytest.raises(SeedError, match=f"seed {seed!r} is not a whole number"):
        get(name, seed=seed)
    if name == "random":
        with pytest.raises(SeedError, match=f"seed {seed!r} is not a whole number"):
            get(name, {"seed": seed})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lattice", {"form": "exact", "density": 0.0}, r"density 0\.0 is outside \(0, 1\); give"),
        ("lattice", {"form": "exact", "density": 1.0}, r"density 1\.0 is outside \(0, 1\); give"),
        ("lattice", {"density": 2}, r"density 2\.0 is outside \(0, 1\); give"),
        ("lattice", {"form": "graded", "density": -1.0}, r"density -1\.0 is outside \(0, 1\); give"),
        ("moebius", {"density": 1.2}, r"site 'rnn\.l0': densities lie strictly .* \[1\.2\]"),
        ("moebius", {"steps": 0}, "steps 0 is below 1"),
        ("column-sum", {"epsilon": 0.0}, r"epsilon 0\.0 is not positive"),
        ("column-sum", {"epsilon": -1.0}, r"epsilon -1\.0 is not positive"),
        ("reconstruction", {"ridge": 0.0}, r"ridge 0\.0 is not positive"),
    ],
)
def test_an_option_out_of_range_is_refused_with_its_value(name, options, message):
    ((view, evidence),) = case(lambda: _layer(nn.RNN, 4)).scored(get(name).needs)
    with pytest.raises(CriterionError, match=message):
        get(name, options).score(view, evidence)


OF_FORM = {"span": ("persistence", "sparse"), "density": ("exact", 0.05), "algebra": ("graded", "lukasiewicz")}


@pytest.mark.parametrize("form", ["persistence", "exact", "graded"])
@pytest.mark.parametrize("option", OF_FORM)
def test_an_option_of_another_form_is_refused_even_with_its_own_default(form, option):
    owner, default = OF_FORM[option]
    ((view, evidence),) = case(lambda: _layer(nn.RNN, 6)).scored(get("lattice").needs)
    given = get("lattice", {"form": form, option: default})
    if form == owner:
        want = get("lattice", {"form": form}).score(view, evidence)
        np.testing.assert_array_equal(given.score(view, evidence), want)
    else:
        with pytest.raises(CriterionError, match=rf"option {option}=.* in form '{form}'.*choose form='{owner}'"):
            given.score(view, evidence)
    with pytest.raises(CriterionError, match=f"option {option} is None; give"):
        get("lattice", {option: None})


def test_numbers_of_numpy_become_plain_options():
    options = get("moebius", {"density": np.float32(0.25), "steps": np.int64(3)}).options
    assert options == {"density": 0.25, "steps": 3}
    assert [type(value) for value in options.values()] == [float, int]


@pytest.mark.parametrize("name", NAMES)
def test_a_criterion_without_scores_of_a_granularity_names_those_that_have_them(name):
    view, found = unit_view(np.eye(3)), get(name)
    for granularity, able in (("unit", UNITS), ("weight", WEIGHTS)):
        if granularity not in found.granularities:
            with pytest.raises(CriterionError, match=f"no scores of {granularity} granularity") as caught:
                (found.score if granularity == "unit" else found.score_weights)(view, SiteEvidence())
            assert all(other in str(caught.value) for other in able)


@pytest.mark.parametrize("name", [name for name in NAMES if "gradients" in get(name).needs])
def test_missing_gradients_are_said(name):
    with pytest.raises(CriterionError, match="needs gradients"):
        get(name).score(unit_view(np.eye(3)), SiteEvidence())


def test_scores_that_are_not_finite_are_refused():
    view = unit_view(np.full((2, 2), 1e200))
    with pytest.raises(CriterionError, match=r"'magnitude'.*2 of them not finite"), np.errstate(over="ignore"):
        get("magnitude").score(view, SiteEvidence())


# --- values by hand --------------------------------------------------------------------------------------------------


def unit_view(*gates, w_in=None):
    """A view whose recurrent weights ``[gate][to, from]`` are given."""
    w_rec = np.array(gates, dtype=float)
    kind = {1: "RNN", 3: "GRU", 4: "LSTM"}[len(w_rec)]
    w_in = np.zeros((*w_rec.shape[:2], 1)) if w_in is None else np.array(w_in, dtype=float)
    return View(Site("rnn", kind, w_rec.shape[1]), w_in, w_rec)


def score(name, view, **options):
    return get(name, options).score(view, SiteEvidence())


def test_magnitude_by_hand():
    view = unit_view([[1, 2, 0], [0, 0, 3], [4, 0, 0]], w_in=[[[1, 1], [0, 2], [0, 0]]])
    # in: 2, 4, 0; what drives the unit: 5, 9, 16; what it drives: 17, 4, 9
    np.testing.assert_allclose(score("magnitude", view) ** 2, [2 + 5 + 17, 4 + 9 + 4, 0 + 16 + 9])


def test_magnitude_counts_every_gate():
    gate = np.arange(9.0).reshape(3, 3)
    one, three = unit_view(gate), unit_view(gate, gate, gate)
    np.testing.assert_allclose(score("magnitude", three), np.sqrt(3) * score("magnitude", one))


def test_magnitude_of_weights_is_their_absolute_value():
    view = unit_view([[1, -2], [0, -0.5]], w_in=[[[-3], [4]]])
    scores = get("magnitude").score_weights(view, SiteEvidence())
    assert scores["w_rec"].tolist() == [[[1, 2], [0, 0.5]]]
    assert scores["w_in"].tolist() == [[[3], [4]]]


def test_laplacian_of_two_units_that_pull_both_ways():
    # W = [[0, 3], [−2, 0]]: D_W = 1, D = 2, eigenvalues real ± i√6; of either edge ∂λ/∂w · w = i√6 / 2.
    for degree in ("weighted", "directed"):
        view = unit_view([[0, 3], [-2, 0]])
        options = {"degree": degree, "part": "imaginary"}
        edges = get("laplacian", options).score_weights(view, SiteEvidence())["w_rec"][0]
        np.testing.assert_allclose(edges, [[0, 3 - 6**0.5 / 2], [2 - 6**0.5 / 2, 0]], atol=1e-12)
        np.testing.assert_allclose(score("laplacian", view, **options), [5 - 6**0.5] * 2)


def test_laplacian_of_a_star_has_the_shares_of_the_local_laplacian():
    rng = np.random.default_rng(0)
    w = np.zeros((5, 5))
    w[0, 1:], w[1:, 0] = rng.uniform(1, 2, 4), -rng.uniform(1, 2, 4)
    local = local_laplacian(w, w != 0, 0, "weighted")
    pairs = [value for value in local.eigenvalues() if value.imag > 0]
    view = unit_view(w)
    edges = np.abs(w) - get("laplacian", {"part": "imaginary"}).score_weights(view, SiteEvidence())["w_rec"][0]
    want = np.zeros(4)
    for value in pairs:  # of the pair's own norm y^H x = 1 + Σ p / (λ − d)²
        norm = 1 + (local.products / (value - local.poles) ** 2).sum()
        want += (local.products / (value - local.poles) / norm).imag
    np.testing.assert_allclose(edges[0, 1:], want, atol=1e-10)
    np.testing.assert_allclose(edges[1:, 0], want, atol=1e-10)


def test_laplacian_without_oscillation_is_magnitude_and_real_parts_are_never_negative():
    symmetric = np.array([[0.5, 2, 0], [2, 0, 1], [0, 1, -3]])
    view = unit_view(symmetric)
    imaginary, real, both = (
        get("laplacian", {"part": part}).score_weights(view, SiteEvidence())["w_rec"]
        for part in ("imaginary", "real", "both")
    )
    np.testing.assert_allclose(imaginary[0], np.abs(symmetric))
    assert (real >= 0).all()
    np.testing.assert_allclose(both - real, np.abs(symmetric)[None], atol=1e-12)
    np.testing.assert_array_equal(get("laplacian").score_weights(view, SiteEvidence())["w_rec"], both)


@pytest.mark.parametrize("degree", ["weighted", "directed"])
def test_laplacian_is_how_each_edge_moves_the_eigenvalues_at_fixed_degrees(degree):
    w, step = np.random.default_rng(1).normal(size=(5, 5)), 1e-6
    counted = w if degree == "weighted" else np.ones_like(w)
    degrees = np.diag(counted.sum(axis=0) + counted.sum(axis=1))
    values = np.linalg.eigvals(degrees - w)
    real, imaginary = np.zeros_like(w), np.abs(w)
    for i, j in np.ndindex(5, 5):
        moved = w.copy()
        moved[i, j] *= 1 + step
        after = np.linalg.eigvals(degrees - moved)
        slopes = np.array([after[np.abs(after - value).argmin()] - value for value in values]) / step
        real[i, j] = np.abs(slopes.real).sum()
        imaginary[i, j] -= slopes.imag[values.imag > 0].sum()
    for part, want in (("real", real), ("imaginary", imaginary)):
        options = {"degree": degree, "part": part}
        found = get("laplacian", options).score_weights(unit_view(w), SiteEvidence())["w_rec"][0]
        np.testing.assert_allclose(found, want, atol=1e-4)


def test_column_sum_by_hand():
    # four gates joined by the l2 norm: A[0, 1] = 5, A[1, 0] = 0.5, A[1, 1] = 1, A[0, 0] = 0
    gates = [[[0, 3], [0, 1]], [[0, -4], [0.3, 0]], [[0, 0], [-0.4, 0]], [[0, 0], [0, 0]]]
    np.testing.assert_allclose(score("column-sum", unit_view(*gates), epsilon=1e-300), [1 / 0.5, 1 / 6])
    np.testing.assert_allclose(score("column-sum", unit_view(*gates), epsilon=0.5), [1 / 1, 1 / 6.5])


def test_column_sum_of_an_unused_unit_is_one_over_epsilon():
    np.testing.assert_allclose(score("column-sum", unit_view([[1, 0], [1, 0]])), [0.5, 1e8])


def test_column_sums_of_the_papers_own_setting_are_all_below_its_thresholds():
    adjacency = np.random.default_rng(0).uniform(0.5, 2, (128, 128))
    scores = score("column-sum", unit_view(adjacency))
    np.testing.assert_allclose(scores, 1 / adjacency.sum(axis=0), rtol=1e-6)
    assert scores.max() < 0.2  # so that Algorithm 3 as printed removes everything


def test_moebius_of_one_step_counts_the_drivers():
    # unit 0 is driven by 1 and 2, unit 1 by 0, unit 2 by none but itself
    view = unit_view([[0, 1, 1], [1, 0, 0], [0, 0, 1]])
    # unfolded: (u, 1) has itself one step before below it exactly where it drives itself
    np.testing.assert_allclose(score("moebius", view, density=0.5, steps=1), np.log1p([1, 0, 0]))


@pytest.mark.parametrize(("lattice", "steps", "want"), [(m3(), 1, 2), (boolean(3), 2, -1), (partition(4), 2, -6)])
def test_moebius_of_a_graded_lattice_whose_covers_are_the_influences(lattice, steps, want):
    """Unfolded, rank k stands at step k − 1, and below the top at the last step lies the lattice without its bottom."""
    assert moebius(lattice.leq)[lattice.bottom, lattice.top] == want
    drives = covers(lattice.leq).T.astype(float)
    drives[:, lattice.bottom] = 0.0
    scores = score("moebius", unit_view(drives), density=drives.mean(), steps=steps)
    assert scores[lattice.top] == pytest.approx(np.log1p(abs(want)))


def test_moebius_by_chains():
    """μ(0̂, x) is the alternating sum over chains (P. Hall): two steps down a ring, each unit driven by two."""
    ring = np.zeros((5, 5))
    for unit in range(5):
        ring[unit, [unit - 1, unit - 2]] = 1.0
    # below (u, 2): two units at time 1 (μ = 1 each: two below, minus one), three at time 0 (μ = −1 each)
    want = -(1 + 2 * 1 + 3 * -1)
    np.testing.assert_allclose(score("moebius", unit_view(ring), density=0.4), np.log1p(abs(want)))


@pytest.mark.parametrize("side", ["columns", "rows", "both"])
def test_all_of_a_contranominal_scale_is_irreducible(side):
    scale = 1.0 - np.eye(6)
    exact = score("lattice", unit_view(scale), form="exact", density=30 / 36, side=side)
    assert exact.tolist() == [1.0] * 6
    assert score("lattice", unit_view(scale), side=side).tolist() == pytest.approx([1.0] * 6)
    assert score("lattice", unit_view(scale), form="graded", side=side).tolist() == pytest.approx([1 / 6] * 6)


# Column 3 is the intersection of columns 0 and 1, which drive 0, 1, 2 and 0, 1, 3; nothing meets in the others.
MEET = np.array([[1, 1, 0, 1], [1, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 0]])


def test_a_column_that_is_a_meet_of_others_loses_the_exact_test():
    assert irreducible_by_sets(MEET) == [True, True, True, False]
    scores = score("lattice", unit_view(MEET), form="exact", density=MEET.mean(), side="columns")
    strength = MEET.sum(axis=0) / 3
    np.testing.assert_allclose(scores, (np.array([1, 1, 1, 0]) + strength) / 2)
    assert scores.argmin() == 3


def test_the_exact_test_reads_rows_on_the_other_side():
    scores = score("lattice", unit_view(MEET), form="exact", density=MEET.mean(), side="rows")
    turned = score("lattice", unit_view(MEET.T), form="exact", density=MEET.mean(), side="columns")
    np.testing.assert_allclose(scores, turned)
    both = score("lattice", unit_view(MEET), form="exact", density=MEET.mean(), side="both")
    columns = score("lattice", unit_view(MEET), form="exact", density=MEET.mean(), side="columns")
    np.testing.assert_allclose(both, (columns + scores) / 2)


def test_the_exact_test_cuts_at_its_density():
    weighted = np.where(MEET, 1.0, 0.1) + np.arange(16).reshape(4, 4) / 1000
    scores = score("lattice", unit_view(weighted), form="exact", density=9 / 16, side="columns")
    assert (scores >= 0.5).tolist() == [True, True, True, False]


@given(incidences(6).filter(lambda relation: relation.shape[0] == relation.shape[1] and relation.any()))
@settings(max_examples=60)
def test_on_a_zero_one_matrix_graded_is_exact_and_persistence_too(relation):
    view = unit_view(relation)
    for side, want in (("columns", irreducible_columns(relation)), ("rows", irreducible_rows(relation))):
        for algebra in ("godel", "lukasiewicz", "goguen"):
            graded = score("lattice", view, form="graded", side=side, algebra=algebra)
            assert ((graded > 0) == want).all()
        np.testing.assert_allclose(score("lattice", view, side=side), want, atol=1e-12)


# Ranked 9 … 1, strongest first; diagonal strongest, so that the context grows from the identity.
FILTERED = np.array([[9.0, 3.0, 4.0], [6.0, 8.0, 2.0], [1.0, 5.0, 7.0]])


def persistence_by_hand(matrix, side, up_to):
    """Level by level: the irreducible columns of the strongest entries, weighed by their cells of the logit grid."""
    grid = logit_grid(*matrix.shape)
    grid = grid[grid <= up_to]
    place = np.log(grid / (1 - grid))
    total = np.zeros(len(matrix))
    for level, density in enumerate(grid):
        count = max(1, int(np.rint(density * matrix.size)))
        context = matrix >= np.sort(matrix, axis=None)[-count]
        left, right = place[max(level - 1, 0)], place[min(level + 1, len(place) - 1)]
        found = irreducible_by_sets(context if side == "columns" else context.T)
        total += (right - left) / 2 * np.array(found)
    return total / (place[-1] - place[0])


@pytest.mark.parametrize(("span", "up_to"), [("sparse", 0.5), ("full", 1.0)])
@pytest.mark.parametrize("side", ["columns", "rows"])
def test_persistence_of_a_weighted_matrix_by_hand(side, span, up_to):
    scores = score("lattice", unit_view(FILTERED), side=side, span=span)
    np.testing.assert_allclose(scores, persistence_by_hand(FILTERED, side, up_to), atol=1e-12)
    assert 0 < scores.min() < scores.max() <= 1 + 1e-12


def test_persistence_takes_the_mean_of_both_sides_by_default():
    sides = [score("lattice", unit_view(FILTERED), side=side) for side in ("columns", "rows")]
    np.testing.assert_allclose(score("lattice", unit_view(FILTERED)), np.mean(sides, axis=0))


def test_random_scores_are_uniform_and_depend_on_seed_and_site():
    view = View(Site("a", "RNN", 4000), np.zeros((1, 4000, 1)), None)
    first = score("random", view, seed=1)
    assert first.min() >= 0
    assert first.max() < 1
    counts = np.histogram(first, bins=10, range=(0, 1))[0]
    assert ((counts - 400) ** 2 / 400).sum() < 27.9  # χ² with 9 degrees of freedom, p = 0.001
    other = view.replace()
    other = View(Site("b", "RNN", 4000), other.w_in, None)
    assert (score("random", view, seed=2) != first).all()
    assert (score("random", other, seed=1) != first).all()


# --- Taylor ----------------------------------------------------------------------------------------------------------


def test_taylor_by_hand():
    view = unit_view([[2, 1], [0, 3]], w_in=[[[1], [2]]])
    view = view.replace(b_in=np.array([[1.0, 0]]), b_rec=np.array([[0, -1.0]]))
    slopes = View(
        view.site,
        np.array([[[0.5], [0.25]]]),
        np.array([[[1, 2], [5, -1]]], dtype=float),
        np.array([[2.0, 9]]),
        np.array([[9, 4.0]]),
    )
    # unit 0: input 0.5, biases 2, to itself 2 (once), from unit 1: 2, to unit 1: 0; unit 1: 0.5 − 4 − 3 + 0 + 2
    first, second = 0.5 + 2 + 2 + 2 + 0, 0.5 - 4 - 3 + 0 + 2
    found = get("taylor").score(view, SiteEvidence(gradients=(slopes,)))
    np.testing.assert_allclose(found, [first**2, second**2])


@pytest.mark.parametrize("name", sorted(MODELS))
def test_taylor_is_the_slope_of_the_loss_as_a_unit_is_scaled_away(name):
    """Σ g·w over what the mask zeroes is the derivative of the loss along the way from the model to the masked one."""
    tiny = case(MODELS[name])
    ((x, y), _) = tiny.data
    tiny = Case(tiny.model, [(x, y)])
    loss = nn.functional.cross_entropy(tiny.model(x), y)
    parameters = dict(tiny.model.named_parameters())
    gradients = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))
    for view, evidence in tiny.scored({"gradients"}):
        scores = get("taylor").score(view, evidence)
        for unit in range(view.hidden):
            gone = view.without(np.array([unit]))
            names = {key: f"{view.site.module}.{p}" for key, p in view.site.parameter_names().items()}
            kept = dict(gone.arrays())
            want = sum(
                ((value - kept[key]) * gradients[names[key]].numpy().reshape(value.shape)).sum()
                for key, value in view.arrays()
            )
            assert scores[unit] == pytest.approx(want**2, rel=1e-9, abs=1e-15)


def test_taylor_is_the_mean_over_batches():
    both = case(MODELS["LSTM with a projection"])
    parts = [get("taylor").score(*Case(both.model, [batch]).scored({"gradients"})[0]) for batch in both.data]
    np.testing.assert_allclose(get("taylor").score(*both.scored({"gradients"})[0]), np.mean(parts, axis=0))


def test_taylor_of_weights_is_the_squared_product():
    tiny = case(MODELS["RNN"])
    ((view, evidence),) = tiny.scored({"gradients"})
    one, two = (gradient.w_rec * view.w_rec for gradient in evidence.gradients)
    np.testing.assert_allclose(get("taylor").score_weights(view, evidence)["w_rec"], (one**2 + two**2) / 2)


def test_taylor_without_targets_says_so():
    tiny = case(MODELS["RNN"])
    with pytest.raises(DataError, match="target"):
        jali.plan(tiny.model, "taylor", 0.5, tiny.data[0][0])


@pytest.mark.parametrize("loss", [None, lambda output, target: (output[:, 0] - target).pow(2).mean()])
def test_targets_that_are_not_finite_give_no_plan(loss):
    tiny = case(MODELS["RNN"])
    x = tiny.data[0][0]
    shape = (len(x), 2) if loss is None else (len(x),)
    with pytest.raises(JaliError, match="not finite"):
        jali.plan(tiny.model, "taylor", 0.5, [(x, torch.full(shape, float("nan")))], loss=loss)
