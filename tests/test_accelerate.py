"""Accelerated models compute what PyTorch computes, however they are called, and say what runs them."""

import copy
import itertools
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune
from torch.nn.utils.rnn import PackedSequence

import jali
from jali.batches import tensors_in
from jali.errors import DataError, JaliError, ModelError
from jali.inference.accelerate import _best, _enough, _measured
from jali.inference.choice import ENGINES, Choice
from jali.inference.fast_layers import FastLayers, with_plain_layers
from jali.inference.fast_linear import FastLinear, quicken
from jali.plans import Budget, Plan, SitePlan
from jali.site import sites
from tests.strategies_models import forms, layers, plans

OURS = ENGINES[1:]


def agree(got, want, tolerance=2e-6):
    pairs = list(zip(tensors_in(got), tensors_in(want), strict=True))
    assert pairs
    for a, b in pairs:
        assert a.shape == b.shape
        a, b = a.detach(), b.detach()
        assert float((a - b).abs().max()) <= tolerance * max(1.0, float(b.abs().max()))


@settings(max_examples=200)
@given(layer=layers(dtypes=(torch.float32,), projections=False), form=forms, engine=st.sampled_from(OURS))
def test_every_kind_of_call_agrees_with_pytorch(layer, form, engine):
    """Cell, depth, direction, bias, layout, packed or not, given states or not; also the types of what comes out."""
    args = form.arguments(layer)
    fast, want = jali.accelerate(layer, args, engine=engine), layer(*args)
    got = fast(*args)
    agree(got, want)
    assert isinstance(got[0], PackedSequence) == isinstance(want[0], PackedSequence)
    if isinstance(want[0], PackedSequence):
        assert torch.equal(got[0].batch_sizes, want[0].batch_sizes)
        agree(torch.nn.utils.rnn.pad_packed_sequence(got[0]), torch.nn.utils.rnn.pad_packed_sequence(want[0]))


@pytest.mark.parametrize("pattern", ["weight", "gate-aligned", "block:16x1", "3:32"])
@pytest.mark.parametrize("hidden", [16, 37, 96])
@pytest.mark.parametrize("batch", [1, 5, 33])
@pytest.mark.parametrize("cls", [nn.LSTM, nn.GRU, nn.RNN])
def test_patterns_are_exact_at_widths_that_no_vector_divides(cls, batch, hidden, pattern):
    torch.manual_seed(0)
    layer = cls(29, hidden, num_layers=2, bidirectional=True).eval()
    masked = jali.mask(layer, jali.plan(layer, "magnitude", None if pattern == "3:32" else 0.8, pattern=pattern))
    x = torch.randn(6, batch, 29)
    for engine in OURS:
        agree(jali.accelerate(masked, x, engine=engine)(x), masked(x))


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(("layers", "both"), [(1, False), (3, True)])
@pytest.mark.parametrize("cls", [nn.LSTM, nn.GRU, nn.RNN])
def test_calls_that_repeat_give_the_same_again(cls, layers, both, batch_first):
    """From the second call of one shape on, nothing is looked at again but what can change."""
    torch.manual_seed(0)
    layer = cls(5, 9, num_layers=layers, bidirectional=both, batch_first=batch_first).eval()
    xs = [torch.randn(*shape, 5) for shape in ((1, 7), (7, 1), (3, 4), (1, 1))]
    fast = jali.accelerate(layer, xs[0], engine="kernels")
    for _ in range(3):
        for x in xs:
            agree(fast(x), layer(x))
    x = xs[2]
    agree(fast(x.double().float().transpose(0, 1).contiguous().transpose(0, 1)), layer(x))  # other strides
    h = torch.randn(layers * (1 + both), x.shape[0 if batch_first else 1], 9)
    state = (h, 2 * h) if cls is nn.LSTM else h
    agree(fast(x, state), layer(x, state))
    with torch.no_grad():
        layer.weight_hh_l0.mul_(0.5)  # the fast layer's own weights are a copy
        fast.weight_hh_l0.mul_(0.5)
    agree(fast(x), layer(x))
    with pytest.raises(ModelError, match="cannot train"):
        fast.train()(x)


@pytest.mark.parametrize("cls", [nn.LSTM, nn.GRU])
def test_calls_that_repeat_on_many_sequences_begin_at_zero(cls, monkeypatch):
    """Vectors go over sequences there; the memory that the states come in holds numbers of earlier calls."""
    torch.manual_seed(0)
    layer, x = cls(20, 33).eval(), torch.randn(4, 40, 20)
    layer = jali.mask(layer, jali.plan(layer, "magnitude", 0.95, pattern="weight"))
    fast = jali.accelerate(layer, x, engine="kernels")
    assert "rows" in str(fast)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    for _ in range(3):
        agree(fast(x), layer(x))
        torch.full((1, 40, 33), 7.0)


def test_linear_layers_stay_what_they_are(tagger, tmp_path):
    x = torch.randn(2, 7, 5)
    fast = jali.accelerate(tagger, x, engine="kernels")
    linear = {path for path, module in tagger.named_modules() if type(module) is nn.Linear}
    assert linear == {path for path, module in fast.named_modules() if isinstance(module, FastLinear)}
    assert list(fast.state_dict()) == list(tagger.state_dict())
    for path in linear:
        copied, plain = fast.get_submodule(path), tagger.get_submodule(path)
        given = torch.randn(3, plain.in_features)
        assert torch.equal(copied(given), plain(given))
        copied.weight = nn.Parameter(2 * copied.weight)
        assert torch.equal(copied(given), nn.functional.linear(given, 2 * plain.weight, plain.bias))
    again = jali.accelerate(fast, x, engine="torch")
    assert torch.equal(again(x), with_plain_layers(copy.deepcopy(fast))(x))
    assert not any(isinstance(module, FastLinear) for module in with_plain_layers(copy.deepcopy(fast)).modules())
    assert jali.save(fast, tmp_path, example_inputs=x)
    assert any(isinstance(module, FastLinear) for module in jali.load(tmp_path).modules())


def test_linear_layers_with_computed_weights_are_left_alone():
    hooked = prune.identity(nn.Linear(4, 4), "weight")  # its weight is no parameter any more
    model = nn.Sequential(nn.Linear(3, 4), nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), hooked).eval()
    x = torch.randn(2, 3)
    want = model(x)
    quicken(model)
    assert [isinstance(module, FastLinear) for module in model] == [True, False, False]
    assert torch.equal(model(x), want)


def test_many_shapes_are_not_remembered_for_ever():
    fast = jali.accelerate(nn.GRU(2, 3).eval(), torch.randn(1, 1, 2), engine="kernels")
    for steps in range(1, 150):
        fast(torch.randn(steps, 1, 2))
    assert len(fast.__dict__["_packed"].calls) < 80


def half(model):
    planned = [
        SitePlan(s.name, s.kind, s.size, tuple(range(0, s.size, 2 + k % 2)), (0.0,) * s.size)
        for k, s in enumerate(sites(model))
    ]
    return Plan("unit", "x", Budget(0.5), tuple(planned))


@settings(max_examples=60)
@given(data=st.data(), layer=layers(dtypes=(torch.float32,), projections=False), form=forms)
def test_masked_compacted_and_accelerated_are_one(data, layer, form):
    plan, args = data.draw(plans(layer)), form.arguments(layer)
    masked, small = jali.mask(layer, plan), jali.compact(layer, plan, args)
    want = masked(*args)
    for model in (masked, small):
        for engine in OURS:
            agree(jali.accelerate(model, args, engine=engine)(*args), want)


class Tagger(nn.Module):
    def __init__(self, cls=nn.LSTM):
        super().__init__()
        self.low = cls(5, 12, batch_first=True, bidirectional=True)
        self.high, self.head = nn.GRU(24, 16, batch_first=True), nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.high(self.low(x)[0])[0][:, -1])


@pytest.fixture
def tagger():
    torch.manual_seed(0)
    return Tagger().eval()


def test_a_folded_model_of_unequal_widths_is_accelerated_whole(tagger):
    x = torch.randn(30, 7, 5)
    folded = jali.compact(tagger, half(tagger), x, fold=x)
    fast = jali.accelerate(folded, x, engine="kernels")
    agree(fast(x), folded(x))
    assert sum(isinstance(module, FastLayers) for module in fast.modules()) >= 3


def test_the_model_itself_is_not_touched(tagger):
    x = torch.randn(2, 7, 5)
    before = {name: value.clone() for name, value in tagger.state_dict().items()}
    jali.accelerate(tagger, x, engine="kernels")
    assert type(tagger.low) is nn.LSTM
    assert all(torch.equal(before[name], value) for name, value in tagger.state_dict().items())
    assert all(parameter.requires_grad for parameter in tagger.parameters())


def test_the_state_dict_fits_both_ways_and_new_weights_count(tagger):
    x, other = torch.randn(2, 7, 5), Tagger().eval()
    fast = jali.accelerate(tagger, x, engine="kernels")
    assert list(fast.state_dict()) == list(tagger.state_dict())
    fast(x)
    fast.load_state_dict(other.state_dict())
    agree(fast(x), other(x))
    with torch.no_grad():
        fast.low.weight_hh_l0.mul_(2.0)
        other.low.weight_hh_l0.mul_(2.0)
    agree(fast(x), other(x))


def test_copies_share_nothing(tagger):
    x = torch.randn(2, 7, 5)
    fast = jali.accelerate(tagger, x, engine="kernels")
    want = fast(x)
    twin = copy.deepcopy(fast)
    assert "_packed" not in twin.low.__dict__  # it holds addresses of memory that the copy does not own
    with torch.no_grad():
        fast.low.weight_ih_l0.zero_()
    fast(x)
    del fast
    assert torch.equal(twin(x), want)
    agree(twin(x), tagger(x))


def test_accelerating_twice_starts_anew(tagger):
    x = torch.randn(2, 7, 5)
    fast = jali.accelerate(jali.accelerate(tagger, x, engine="kernels"), x, engine="torch")
    assert [c.engine for c in fast.low.choices] == ["torch"]
    agree(fast(x), tagger(x))


def test_hooks_stay_on_the_layer():
    """A masked layer drops the removed units of a given state; so does its accelerated form, and that one's again."""
    torch.manual_seed(0)
    layer, x, h = nn.GRU(5, 12).eval(), torch.randn(4, 2, 5), torch.randn(1, 2, 12)
    masked = jali.mask(layer, half(layer))
    fast = jali.accelerate(jali.accelerate(masked, (x, h), engine="torch"), (x, h), engine="kernels")
    agree(fast(x, h), masked(x, h))


def test_threads_share_one_layer(tagger):
    xs = [torch.randn(1 + k % 3, 9, 5) for k in range(8)]
    fast = jali.accelerate(tagger, xs[0], engine="kernels")
    found = {}

    def work(k):
        found[k] = [fast(xs[k]) for _ in range(20)]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(len(xs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k, x in enumerate(xs):
        for got in found[k]:
            agree(got, tagger(x))


def test_sequences_are_shared_out_to_threads(tagger):
    x, threads = torch.randn(19, 9, 5), torch.get_num_threads()
    fast = jali.accelerate(tagger, x, engine="kernels")
    try:
        torch.set_num_threads(3)
        several = fast(x)
        torch.set_num_threads(1)
        agree(several, fast(x), 1e-6)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("pattern", [None, "weight", "gate-aligned", "block:16x1"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_comes_out_where_a_weight_reads_it(pattern, bad):
    """Of a dense layer as of PyTorch's; where zeros are skipped, 0 · NaN is not computed, and nothing else is touched."""
    torch.manual_seed(0)
    layer = nn.GRU(5, 36, batch_first=True).eval()
    with torch.no_grad():
        layer.weight_ih_l0[:, 4] = 0.0 if pattern else 1.0
    if pattern:
        layer = jali.mask(layer, jali.plan(layer, "magnitude", 0.6, pattern=pattern))
    x = torch.randn(3, 6, 5)
    fast = jali.accelerate(layer, x, engine="kernels")
    clean = fast(x)[0]
    for column in (3, 4):
        y = x.clone()
        y[1, 2, column] = bad
        got, want = fast(y)[0], layer(y)[0]
        assert not (got.isnan() & ~want.isnan()).any()
        assert torch.equal(got[[0, 2]], clean[[0, 2]]), "other sequences"
        assert torch.equal(got[1, :2], clean[1, :2]), "steps before"
        if pattern is None:
            assert torch.equal(got.isnan(), want.isnan())
            agree(got.nan_to_num(), want.nan_to_num())
        elif column == 4:
            assert torch.equal(got, clean), "no weight reads it"
        else:
            assert got[1, 2:].isnan().any() or bad == float("inf")


def test_what_no_kernel_fits_stays_with_pytorch_and_says_why():
    x = torch.randn(4, 2, 5)
    projected, double = nn.LSTM(5, 9, proj_size=3).eval(), nn.GRU(5, 9, dtype=torch.float64).eval()
    fast = jali.accelerate(projected, x)
    assert "projections have no kernel" in str(fast)
    assert torch.equal(fast(x)[0], projected(x)[0])
    fast = jali.accelerate(double, x.double())
    assert "float64" in str(fast)
    assert torch.equal(fast(x.double())[0], double(x.double())[0])


def test_the_choice_is_the_fastest_measured_and_is_explained():
    torch.manual_seed(0)
    layer = nn.LSTM(5, 9).eval()
    choice = _measured(layer, 2, 7)
    assert set(choice.seconds) == set(ENGINES)
    assert choice.engine == _best(choice.seconds)
    fast = jali.accelerate(layer, torch.randn(7, 2, 5), batch_sizes=[64, 1])
    assert [c.batch for c in fast.choices] == [1, 64]
    assert all(name in str(fast) for name in (*ENGINES, "batch 1:", "batch 64:", "measured"))
    text = str(jali.accelerate(layer, torch.randn(7, 2, 5), engine="kernels"))
    assert "bytes per step" in text
    assert "as asked for" in text


@pytest.mark.parametrize("threads", [1, 2])
def test_on_several_threads_a_lucky_call_does_not_count(threads, monkeypatch):
    def seconds(candidate, x):
        return 1.0 if type(candidate) is nn.LSTM else next(ours)

    ours = itertools.chain([1.2, 1.2, 0.5], itertools.repeat(1.2))
    monkeypatch.setattr("jali.inference.accelerate._seconds", seconds)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    choice = _measured(nn.LSTM(5, 9).eval(), 2, 7)
    assert (choice.engine == "torch") is (threads == 2)


def test_no_kernel_is_chosen_for_a_gain_that_may_be_noise():
    assert _best({"torch": 1.0, "kernels": 0.4}) == "kernels"
    assert _best({"torch": 1.0, "kernels": 0.94}) == "kernels"
    assert _best({"torch": 1.0, "kernels": 0.96}) == "torch"
    assert _best({"torch": 1.0, "kernels": 2.0}) == "torch"


@pytest.mark.parametrize(
    ("rounds", "passed", "kernels", "enough"),
    [
        (0, 0.0, 0.5, False), (2, 60.0, 0.5, False), (3, 0.1, 0.5, False), (3, 0.6, 0.5, True), (7, 0.1, 0.5, True),
        (3, 0.6, 0.9, False), (7, 0.1, 1.0, False), (14, 1.9, 0.95, False), (15, 0.1, 0.95, True), (3, 2.1, 0.95, True),
        (7, 0.1, 1.2, True),
    ],
)  # fmt: skip
def test_what_is_nearly_equal_is_timed_for_longer(rounds, passed, kernels, enough):
    assert _enough(rounds, passed, {"torch": 1.0, "kernels": kernels}) is enough


def test_another_batch_takes_the_nearest_choice_by_ratio():
    choices = [Choice(batch, "torch", {}) for batch in (64, 1, 8)]
    fast = FastLayers.of(nn.GRU(2, 3), choices)
    assert [fast.choice(batch).batch for batch in (0, 1, 2, 3, 8, 22, 23, 1000)] == [1, 1, 1, 8, 8, 8, 64, 64]


def test_mistakes_are_named(tagger):
    x = torch.randn(2, 7, 5)
    with pytest.raises(ModelError, match="training mode"):
        jali.accelerate(Tagger().train(), x)
    with pytest.raises(ModelError, match="'magic' is unknown"):
        jali.accelerate(tagger, x, engine="magic")
    for sizes in ([], [0], [1.5], [True], 8):
        with pytest.raises(ModelError, match="batch_sizes"):
            jali.accelerate(tagger, x, batch_sizes=sizes)
    with pytest.raises(ModelError, match=r"no nn\.LSTM"):
        jali.accelerate(nn.Linear(5, 2).eval(), x)
    with pytest.raises(DataError, match="cannot run on inputs"):
        jali.accelerate(tagger, x[..., :3])
    two = nn.Sequential(nn.GRU(5, 8)).eval()
    two = jali.mask(two, jali.plan(two, "magnitude", None, pattern="block-diagonal:2"))
    batched = jali.reorder(two, jali.decompose(two), torch.randn(4, 2, 5), batched=True)
    with pytest.raises(ModelError, match=r"BlockLayer accelerate what it was made from"):
        jali.accelerate(batched, torch.randn(4, 2, 5))
    fast = jali.accelerate(tagger, x, engine="kernels")
    with pytest.raises(ModelError, match=r"model\.eval"):
        fast.train()(x)
    with torch.no_grad():
        tagger.high.weight_hh_l0[0, 0] = float("nan")
    with pytest.raises(ModelError, match=r"'high\.weight_hh_l0' has 1 NaN or infinite"):
        jali.accelerate(tagger, x)


def test_calls_that_do_not_fit_are_named():
    layer, x = nn.LSTM(5, 9).eval(), torch.randn(4, 2, 5)
    fast = jali.accelerate(layer, x, engine="kernels")
    for args, message in [
        ((x[..., :4],), "4 features"), ((x[None],), "4 axes"), ((x, x), "pair"), ((x, (x, x)), "must be float32"),
        ((x, (torch.zeros(1, 3, 9), torch.zeros(1, 3, 9))), r"\(1, 2, 9\)"), ((x, (x, x, x)), "pair"),
        ((x[:, 0], (torch.zeros(1, 1, 9),) * 2), r"\(1, 9\)"), ((x.numpy(),), "is a ndarray"),
        ((x, (torch.zeros(1, 2, 9), None)), "is a NoneType"),
    ]:  # fmt: skip
        with pytest.raises(DataError, match=message):
            fast(*args)


def test_a_model_that_depends_on_chance_is_refused():
    class Noisy(Tagger):
        def forward(self, x):
            return super().forward(x) + torch.rand(1)

    class Broken(Tagger):
        def forward(self, x):
            y = super().forward(x)
            return y if type(self.low) is nn.LSTM else y * float("nan")

    for model in (Noisy(), Broken()):
        with pytest.raises(JaliError, match="chance"):
            jali.accelerate(model.eval(), torch.randn(2, 7, 5), engine="kernels")


def test_other_types_and_degenerate_calls_run_on_pytorch(tagger):
    layer = nn.GRU(5, 9).eval()
    fast = jali.accelerate(layer, torch.randn(4, 2, 5), engine="kernels")
    assert fast(torch.randn(4, 0, 5))[0].shape == (4, 0, 9)
    doubled = copy.deepcopy(fast).double()
    x = torch.randn(4, 2, 5, dtype=torch.float64)
    assert torch.equal(doubled(x)[0], copy.deepcopy(layer).double()(x)[0])
    with pytest.raises(ValueError, match="dtype"):  # PyTorch's own answer
        doubled(x.float())
    assert "bytes per step" not in str(doubled)


def test_inputs_need_no_particular_layout(tagger):
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(5, 7, 2)).astype(np.float32)).permute(2, 1, 0)
    agree(jali.accelerate(tagger, x, engine="kernels")(x), tagger(x))


@pytest.mark.parametrize("engine", ENGINES)
def test_an_accelerated_model_is_saved_with_its_choices(tagger, engine, tmp_path):
    x = torch.randn(2, 7, 5)
    masked = jali.mask(tagger, jali.plan(tagger, "magnitude", 0.9, pattern="weight"))
    fast = jali.accelerate(masked, x, engine=engine)
    assert jali.save(fast, tmp_path / "m.safetensors", example_inputs=x)
    loaded = jali.load(tmp_path / "m.safetensors")
    assert torch.equal(loaded(x), fast(x))
    assert loaded.low.choices == fast.low.choices
    assert list(loaded.state_dict()) == list(fast.state_dict())


@pytest.mark.parametrize(
    "change",
    [
        {"batch": 0}, {"batch": True}, {"batch": 1.5}, {"engine": "magic"}, {"seconds": {"magic": 1.0}},
        {"seconds": {"torch": float("nan")}}, {"seconds": [1]}, {"reason": 3},
    ],
    ids=str,
)  # fmt: skip
def test_a_choice_from_a_file_is_not_believed_unchecked(change):
    with pytest.raises(ModelError, match="makes no sense"):
        Choice(**{"batch": 1, "engine": "torch", "seconds": {"torch": 1.0}, "reason": "", **change})


def test_a_layer_without_choices_is_refused():
    with pytest.raises(ModelError, match="at least one"):
        FastLayers.of(nn.GRU(2, 3), [])
    with pytest.raises(ModelError, match=r"is no nn\.LSTM"):
        FastLayers.of(nn.GRUCell(2, 3), [Choice(1, "torch", {})])


def test_an_accelerated_model_is_exported_as_the_model_it_was_made_from(tagger, tmp_path):
    x = torch.randn(2, 7, 5)
    fast = jali.accelerate(tagger, x, engine="kernels")
    assert jali.export_onnx(fast, tmp_path / "m.onnx", x).error <= 1e-5
    assert isinstance(fast.low, FastLayers)


def test_an_accelerated_model_is_not_pruned_again(tagger):
    fast = jali.accelerate(tagger, torch.randn(2, 7, 5), engine="kernels")
    with pytest.raises(ModelError, match=r"'low' is a FastLSTM.*made from"):
        jali.plan(fast, "magnitude", 0.5)
