"""Folding: exact where the removed units are copies of kept ones, and never behind the plain cut where it is judged."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import jali
from jali.errors import DataError
from jali.plans import Budget, Plan, SitePlan
from jali.site import Site, sites
from jali.surgery.closed_loop import Loop
from jali.surgery.decode import PairMoments, fit_rows, held_out, rows_of
from jali.view import View, read, write

HALF = 4


class Classifier(nn.Module):
    """A recurrent layer with a head on the last step, on all steps, or on the final states."""

    def __init__(self, cls, what="last", **options):
        super().__init__()
        self.rnn, self.what = cls(3, 2 * HALF, batch_first=True, **options), what
        width = (options.get("proj_size") or 2 * HALF) * (2 if options.get("bidirectional") else 1)
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        y, states = self.rnn(x)
        if self.what == "all":
            return self.head(y)
        if self.what == "states":
            h = states[0] if self.rnn.mode == "LSTM" else states
            return self.head(torch.cat((h[-2], h[-1]), -1) if self.rnn.bidirectional else h[-1])
        return self.head(y[:, -1])


def with_copies(model):
    """The model with unit k + HALF of every recurrent site computing what unit k computes; readers stay as they are."""
    for site in sites(model):
        view = read(model, site)
        arrays = {}
        for field, value in view.arrays():
            value = 2 * value  # livelier than PyTorch's initialisation
            if field != "w_proj":
                value[:, HALF:] = value[:, :HALF]
            arrays[field] = value
        write(model, view.replace(**arrays))
    return model.eval()


def without_copies(model):
    gone = tuple(range(HALF, 2 * HALF))
    planned = tuple(SitePlan(s.name, s.kind, 2 * HALF, gone, (0.0,) * 2 * HALF) for s in sites(model))
    return Plan("unit", "x", Budget(0.5), planned)


def relative(got, want):
    """Error relative to how much the outputs vary."""
    rows = want.detach().reshape(-1, want.shape[-1])
    return float((got - want).detach().norm() / (rows - rows.mean(0)).norm())


def check_copies_are_folded(model, x):
    """Cutting copies loses nothing that a fold cannot restore, up to the ridge of 1e-4 of the mean variance."""
    want, plan = model(x), without_copies(model)
    cut, folded = jali.compact(model, plan, x), jali.compact(model, plan, x, fold=x)
    assert relative(folded(x), want) < min(0.02, 0.1 * relative(cut(x), want))
    assert sum(p.numel() for p in folded.parameters()) == sum(p.numel() for p in cut.parameters())


GRID = [
    (cls, layers, both, bias, what)
    for cls, layers, both, bias, what in itertools.product(
        (nn.LSTM, nn.GRU, nn.RNN), (1, 2), (False, True), (True, False), ("last", "all", "states")
    )
    if bias or what == "last"
]


@pytest.mark.parametrize(("cls", "layers", "both", "bias", "what"), GRID)
def test_copies_are_folded_into_their_originals(cls, layers, both, bias, what):
    torch.manual_seed(0)
    model = Classifier(cls, what, num_layers=layers, bidirectional=both, bias=bias).double()
    check_copies_are_folded(with_copies(model), torch.randn(200, 7, 3, dtype=torch.float64))


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("both", [False, True])
def test_copies_behind_a_projection_are_folded(layers, both):
    torch.manual_seed(0)
    model = Classifier(nn.LSTM, num_layers=layers, bidirectional=both, proj_size=3).double()
    check_copies_are_folded(with_copies(model), torch.randn(200, 7, 3, dtype=torch.float64))


@pytest.mark.parametrize("cls", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_copies_in_a_cell_are_folded(cls):
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.head = cls(3, 2 * HALF), nn.Linear(2 * HALF, 3)

        def forward(self, x):
            state = None
            for step in range(7):
                state = self.cell(x[:, step], state)
            return self.head(state[0] if isinstance(state, tuple) else state)

    torch.manual_seed(0)
    model, x = with_copies(Loop().double()), torch.randn(200, 7, 3, dtype=torch.float64)
    want, plan = model(x), without_copies(model)
    cut, folded = jali.compact(model, plan, x), jali.compact(model, plan, x, fold=x)
    assert relative(folded(x), want) < min(0.02, 0.1 * relative(cut(x), want))


@pytest.mark.parametrize("cls", [nn.LSTM, nn.GRU, nn.RNN])
def test_copies_are_folded_into_another_recurrent_module_and_on_packed_input(cls):
    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.low = cls(3, 2 * HALF, batch_first=True, bidirectional=True)
            self.high, self.head = nn.GRU(4 * HALF, 2 * HALF, batch_first=True), nn.Linear(2 * HALF, 3)

        def forward(self, x, lengths):
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            return self.head(pad_packed_sequence(self.high(self.low(packed)[0])[0], batch_first=True)[0])

    torch.manual_seed(0)
    model, x = with_copies(Tagger().double()), torch.randn(200, 7, 3, dtype=torch.float64)
    args = (x, torch.randint(1, 8, (200,)).index_fill(0, torch.tensor([0]), 7))
    want, plan, data = model(*args), without_copies(model), [(args, None)]
    cut, folded = jali.compact(model, plan, args), jali.compact(model, plan, args, fold=data)
    assert relative(folded(*args), want) < min(0.02, 0.1 * relative(cut(*args), want))
    assert folded.high.input_size == 2 * HALF


@pytest.mark.parametrize("cls", [nn.RNN, nn.GRU])
def test_a_constant_unit_goes_into_the_biases(cls):
    """With zero weights, a bias and the same initial state, a unit never moves: what it gives its readers is an offset."""

    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = cls(3, 2 * HALF, batch_first=True), nn.Linear(2 * HALF, 3)

        def forward(self, x, h):
            return self.head(self.rnn(x, h)[0])

    torch.manual_seed(0)
    model = Tagger().double()
    view = read(model, sites(model)[0])
    arrays = {field: value.copy() for field, value in view.arrays()}
    for field in arrays:
        arrays[field][:, 0] = 0.0
    arrays["b_in"][-1, 0] = 0.7
    write(model, view.replace(**arrays))
    kind, size = view.site.kind, 2 * HALF
    plan = Plan("unit", "x", Budget(0.1), (SitePlan("rnn.l0", kind, size, (0,), (0.0,) * size),))
    x, h = torch.randn(50, 6, 3, dtype=torch.float64), torch.randn(1, 50, size, dtype=torch.float64).tanh()
    h[..., 0] = np.tanh(0.7)
    cut, folded = jali.compact(model, plan, (x, h)), jali.compact(model, plan, (x, h), fold=[((x, h), None)])
    assert relative(folded(x, h), model(x, h)) < 1e-10
    assert relative(cut(x, h), model(x, h)) > 0.05


def test_one_sequence_is_enough_for_a_head_that_follows_the_recurrence():
    """The head sees one row only; it takes over the decoder that the recurrence fitted on all steps."""
    torch.manual_seed(0)
    model = with_copies(Classifier(nn.GRU, "last").double())
    one, many = torch.randn(1, 60, 3, dtype=torch.float64), torch.randn(50, 7, 3, dtype=torch.float64)
    folded = jali.compact(model, without_copies(model), one, fold=one)
    cut = jali.compact(model, without_copies(model), one)
    assert relative(folded(many), model(many)) < 0.1 * relative(cut(many), model(many))


def flat(outputs):
    """Output and final states of a recurrent layer, in a flat list."""
    y, states = outputs
    y = y.data if isinstance(y, PackedSequence) else y
    return [y, *states] if isinstance(states, tuple) else [y, states]


def wide_call(kind, x):
    if kind == "packed":
        lengths = torch.randint(1, 8, (len(x),)).index_fill(0, torch.tensor([0]), 7)
        return pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    return x


@pytest.mark.parametrize("kind", ["padded", "packed"])
@pytest.mark.parametrize(("layers", "both"), [(1, False), (1, True), (2, True)])
@pytest.mark.parametrize("cls", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_model_that_keeps_its_width_gives_the_removed_units_back(cls, layers, both, kind):
    """Output, final h and final c, of every layer and direction, at their last steps."""
    torch.manual_seed(0)
    model = with_copies(cls(3, 2 * HALF, num_layers=layers, batch_first=True, bidirectional=both).double())
    x = wide_call(kind, torch.randn(200, 7, 3, dtype=torch.float64))
    folded = jali.compact(model, without_copies(model), (x,), fold=[((x,), None)])
    for got, want in zip(flat(folded(x)), flat(model(x)), strict=True):
        assert relative(got, want) < 0.02


def test_final_states_of_unequal_widths_come_back_whole():
    torch.manual_seed(0)
    model = with_copies(nn.LSTM(3, 2 * HALF, num_layers=2, batch_first=True).double())
    planned = without_copies(model).sites[1:]
    x = torch.randn(200, 7, 3, dtype=torch.float64)
    folded = jali.compact(model, Plan("unit", "x", Budget(0.5), planned), x, fold=x)
    for got, want in zip(flat(folded(x)), flat(model(x)), strict=True):
        assert relative(got, want) < 0.02


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_the_final_cell_state_behind_a_projection_comes_back_whole():
    torch.manual_seed(0)
    model = with_copies(nn.LSTM(3, 2 * HALF, proj_size=3, batch_first=True).double())
    x = torch.randn(200, 7, 3, dtype=torch.float64)
    folded = jali.compact(model, without_copies(model), x, fold=x)
    assert relative(folded(x)[1][1], model(x)[1][1]) < 0.02


@pytest.mark.parametrize("cls", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_a_cell_gives_the_removed_units_back(cls, tmp_path):
    torch.manual_seed(0)
    model, x = with_copies(cls(3, 2 * HALF).double()), torch.randn(200, 3, dtype=torch.float64)
    state = torch.randn(200, 2 * HALF, dtype=torch.float64).tanh()
    state[:, HALF:] = state[:, :HALF]
    args = (x, (state, 2 * state) if cls is nn.LSTMCell else state)
    folded = jali.compact(model, without_copies(model), args, fold=[(args, None)])
    got, want = (out if isinstance(out, tuple) else (out,) for out in (folded(*args), model(*args)))
    assert all(relative(g, w) < 0.02 for g, w in zip(got, want, strict=True))
    jali.save(folded, tmp_path / "m.safetensors", example_inputs=args)
    again = jali.load(tmp_path / "m.safetensors")(*args)
    assert all(torch.equal(g, w) for g, w in zip(got, again if isinstance(again, tuple) else (again,), strict=True))


@pytest.mark.parametrize("cls", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_fold_leaves_the_model_and_the_data_alone_and_repeats_bit_for_bit(cls):
    torch.manual_seed(0)
    model, x = Classifier(cls).eval(), torch.randn(30, 5, 3)
    plan, before, data = without_copies(model), {k: v.clone() for k, v in model.state_dict().items()}, x.clone()
    first, second = (jali.compact(model, plan, x[:1], fold=x).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(x, data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "no batch"), (torch.zeros(0, 5, 3), "empty"), (torch.ones(2, 5, 3) / 0, "infinite"),
        (torch.ones(2, 5, 9), "shape"), (7, "int"),
    ],
    ids=["no batch", "no sample", "infinite", "other width", "no data"],
)  # fmt: skip
def test_bad_calibration_data_is_named(data, message):
    model = Classifier(nn.LSTM)
    with pytest.raises(DataError, match=message):
        jali.compact(model, without_copies(model), torch.ones(1, 5, 3), fold=data)


def rigged_loop(simulate, reader=None):
    """A loop over one site of 4 units, of which 2 are kept; ``simulate`` stands for the narrow network."""
    rng = np.random.default_rng(0)
    targets = [torch.from_numpy(rng.normal(size=(50, 4)))]
    view = View(Site("r", "RNN", 2), np.zeros((1, 2, 1)), np.zeros((1, 2, 2)))
    return targets, Loop(
        targets=targets,
        held=[torch.arange(50) % 5 == 4],
        keep=np.array([0, 1]),
        reader=np.eye(4) if reader is None else reader,
        build=lambda a, c: view.replace(w_rec=a[None]),
        simulate=lambda candidate: simulate(candidate, targets),
        offset=True,
    )


def test_where_every_repair_is_worse_the_plain_cut_stays():
    def simulate(view, targets):
        plain = np.array_equal(view.w_rec[0], np.eye(4)[:, :2])
        return [targets[0][:, :2] * (1 if plain else 1e6)], "run"

    _, (decoder, offset), extra = rigged_loop(simulate)[1].run()
    np.testing.assert_array_equal(decoder, np.eye(4)[:, :2])
    np.testing.assert_array_equal(offset, np.zeros(4))
    assert extra == "run"


def test_a_network_that_runs_away_is_never_chosen():
    def simulate(view, targets):
        plain = np.array_equal(view.w_rec[0], np.eye(4)[:, :2])
        return [targets[0][:, :2] if plain else torch.full((50, 2), torch.inf, dtype=torch.float64)], None

    _, (decoder, _), _ = rigged_loop(simulate)[1].run()
    np.testing.assert_array_equal(decoder, np.eye(4)[:, :2])


def test_a_repair_is_taken_where_the_plain_cut_runs_away():
    def simulate(view, targets):
        plain = np.array_equal(view.w_rec[0], np.eye(4)[:, :2])
        return [torch.full((50, 2), torch.nan, dtype=torch.float64) if plain else targets[0][:, :2]], None

    targets, loop = rigged_loop(simulate)
    targets[0][:, 2:] = targets[0][:, :2] + 1.0
    _, (_, offset), _ = loop.run()
    np.testing.assert_allclose(offset[2:], 1.0, atol=1e-2)


def test_the_closed_loop_learns_the_trajectory_of_the_network_itself():
    """The narrow network's states are a fixed map of the original's: decoding them needs the inverse of that map."""
    mixing = torch.tensor([[1.0, 0.5], [0.0, 2.0]], dtype=torch.float64)

    def simulate(view, targets):
        return [targets[0][:, :2] @ mixing], None

    targets, loop = rigged_loop(simulate, reader=np.eye(4)[:2])
    _, (decoder, offset), _ = loop.run()
    own, wanted = (targets[0][:, :2] @ mixing).numpy(), targets[0][:, :2].numpy()
    open_loop = np.abs(own - wanted).mean()  # on the original states the kept units decode themselves
    assert np.abs((own @ decoder.T + offset)[:, :2] - wanted).mean() < 0.5 * open_loop


@pytest.mark.parametrize("count", [1, 2, 8])
def test_tiny_calibration_gives_finite_weights(count):
    torch.manual_seed(0)
    model = Classifier(nn.LSTM)
    result = jali.prune(model, "magnitude", 0.5, torch.randn(count, 5, 3))
    assert all(torch.isfinite(parameter).all() for parameter in result.model.parameters())


def test_decoder_solves_the_ridge_problem_and_knows_its_error():
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(50, 3)), rng.normal(size=(50, 4))
    moments = PairMoments(3, 4)
    moments.add(torch.from_numpy(z[:20]), torch.from_numpy(y[:20]))
    moments.add(torch.from_numpy(z[20:]), torch.from_numpy(y[20:]))
    a, c = moments.solve(1e-12, np.zeros((4, 3)), offset=True)
    design = np.column_stack((z, np.ones(50)))
    exact = np.linalg.lstsq(design, y, rcond=None)[0]
    np.testing.assert_allclose(np.vstack((a.T, c)), exact, atol=1e-8)
    reader = rng.normal(size=(2, 4))
    direct = ((y - z @ a.T - c) @ reader.T) ** 2
    np.testing.assert_allclose(moments.error((a, c), reader), direct.sum(1).mean(), rtol=1e-9)
    prior = rng.normal(size=(4, 3))
    np.testing.assert_allclose(moments.solve(1e12, prior, offset=True)[0], prior, atol=1e-8)


def test_a_fifth_of_the_sequences_judges_and_at_least_one_learns():
    assert [int(held_out(n).sum()) for n in (1, 2, 5, 10, 12)] == [0, 1, 1, 2, 3]
    assert all(int((~held_out(n)).sum()) > 0 for n in range(1, 30))


def test_fit_rows_agrees_with_scikit_learn():
    from sklearn.linear_model import Ridge

    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(1, 40, 3)), rng.normal(size=(1, 40, 2))  # one sequence: nothing judges, the ridge is 1e-3
    a, c = fit_rows([rows_of(torch.from_numpy(z), torch.from_numpy(y))], np.zeros((2, 3)), np.eye(2), offset=True)
    ridge = Ridge(alpha=1e-3 * z[0].var(axis=0).mean() * 40).fit(z[0], y[0])
    np.testing.assert_allclose(a, ridge.coef_, rtol=1e-9)
    np.testing.assert_allclose(c, ridge.intercept_, rtol=1e-9)


def test_a_network_that_is_unstable_on_the_data_is_named():
    torch.manual_seed(0)
    model = Classifier(nn.RNN, nonlinearity="relu")
    with torch.no_grad():
        model.rnn.weight_hh_l0.fill_(1e6)
        model.rnn.bias_hh_l0.fill_(1.0)
    x = torch.ones(4, 20, 3)
    for criterion in ("reconstruction", "magnitude"):
        with pytest.raises(DataError, match="NaN or infinite on the calibration data"):
            jali.prune(model, criterion, 0.5, x)


def test_whole_sequences_judge_also_between_layers(monkeypatch):
    """Neighbouring steps of one sequence never stand on both sides."""
    import jali.surgery.fold_layers as module

    seen = []
    monkeypatch.setattr(module, "fit_rows", lambda parts, *a, **k: seen.extend(parts) or fit_rows(parts, *a, **k))
    torch.manual_seed(0)
    model = Classifier(nn.GRU, num_layers=2).double()
    jali.compact(model, without_copies(model), torch.randn(1, 7, 3).double(), fold=torch.randn(10, 7, 3).double())
    ((_, _, judges),) = seen
    assert judges.reshape(10, 7).float().mean(1).tolist() == held_out(10).double().tolist()
