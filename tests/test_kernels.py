"""The kernels agree with plain numpy in float64 and with PyTorch: cells × formats × widths × odd shapes × lengths."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import cfunc, types
from numba.core.caching import CacheImpl

from jali.errors import DataError, LimitError, ModelError, PlanError
from jali.inference import reference
from jali.inference.cells import relu_cell
from jali.inference.compiled import with_cache
from jali.inference.fields import CELLS, LAYER_FIELDS
from jali.inference.kernels import run
from jali.inference.layer import Layer, build_layer
from jali.inference.vector import WIDTHS, Width, default_width, width_type

FORMS = ["tiles", "lanes", "aligned", "rows"]
TOLERANCE = 2e-6


def random_weights(
    rng: np.random.Generator, cell: str, inputs: int, hidden: int, density: float
) -> tuple[np.ndarray, ...]:
    gates = CELLS[cell]
    scale = 1 / np.sqrt(max(hidden, 1))
    parts = [
        rng.uniform(-scale, scale, (gates, hidden, n)) * (rng.random((gates, hidden, n)) < density)
        for n in (inputs, hidden)
    ]
    biases = [rng.uniform(-scale, scale, (gates, hidden)) for _ in range(2)]
    return tuple(a.astype(np.float32) for a in (*parts, *biases))


def check(
    cell: str, weights: tuple, layer: Layer, rng: np.random.Generator, batch: int, lengths: np.ndarray, reverse: bool
) -> None:
    """Runs packed rows of sequences of these non-increasing lengths, and compares with the oracle."""
    time, hidden, inputs = int(lengths.max(initial=0)), weights[1].shape[1], weights[0].shape[2]
    x = rng.standard_normal((time, batch, inputs)).astype(np.float32)
    h, c = (rng.standard_normal((batch, hidden)).astype(np.float32) for _ in range(2))
    expected, last_h, last_c = reference.run(
        cell, *(a.astype(float) for a in (x, h, c)), [w.astype(float) for w in weights], lengths, reverse
    )
    alive = np.arange(time)[:, None] < lengths
    state = c if cell == "lstm" else None
    if alive.all():
        out = run(layer, x, h, state, reverse=reverse)
        assert np.abs(out - expected).max(initial=0) < TOLERANCE
    else:
        out = run(layer, x[alive], h, state, sizes=alive.sum(1), reverse=reverse)
        assert np.abs(out - expected[alive]).max(initial=0) < TOLERANCE
    assert np.abs(h - last_h).max() < TOLERANCE
    assert np.abs(c - last_c).max() < TOLERANCE


@settings(max_examples=150)
@given(data=st.data())
def test_kernels_agree_with_the_reference(data: st.DataObject) -> None:
    cell, width = data.draw(st.sampled_from(list(CELLS))), data.draw(st.sampled_from(WIDTHS))
    recurrent = data.draw(st.sampled_from(FORMS))
    first = data.draw(st.sampled_from(FORMS if recurrent == "rows" else FORMS[:3]))
    hidden, inputs = data.draw(st.sampled_from([1, 5, 16, 37])), data.draw(st.sampled_from([1, 31, 33, 70]))
    batch, time = data.draw(st.sampled_from([1, 3, 8, 17])), data.draw(st.integers(0, 9))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    weights = random_weights(rng, cell, inputs, hidden, data.draw(st.sampled_from([0, 0.1, 0.5, 1])))
    layer = build_layer(cell, *weights, width=width, forms=(first, recurrent))
    lengths = np.full(batch, time)
    if data.draw(st.booleans()):
        lengths = np.sort(rng.integers(0, time + 1, batch))[::-1]
    check(cell, weights, layer, rng, batch, lengths, data.draw(st.booleans()))


@pytest.mark.parametrize("cell", list(CELLS))
@pytest.mark.parametrize("batch", [1, 64])
def test_kernels_agree_with_pytorch(cell: str, batch: int) -> None:
    kinds = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}
    torch.manual_seed(0)
    hidden, inputs, time = 70, 33, 20
    module = kinds[cell](inputs, hidden) if cell in kinds else torch.nn.RNN(inputs, hidden, nonlinearity=cell[4:])
    weights = tuple(
        getattr(module, f"{name}_l0").detach().numpy().reshape(CELLS[cell], hidden, -1)
        for name in ("weight_ih", "weight_hh")
    )
    biases = tuple(
        getattr(module, f"{name}_l0").detach().numpy().reshape(CELLS[cell], hidden) for name in ("bias_ih", "bias_hh")
    )
    x = torch.randn(time, batch, inputs)
    with torch.inference_mode():
        expected = module(x)[0].numpy()
    for form in FORMS:
        layer = build_layer(cell, *weights, *biases, forms=(form, form))
        h, c = np.zeros((2, batch, hidden), np.float32)
        out = run(layer, x.numpy(), h, c if cell == "lstm" else None)
        assert np.abs(out - expected).max() < TOLERANCE
        assert np.array_equal(h, out[-1])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("batch", [1, 17])
def test_many_weights_are_read_to_and_fro(form: str, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every other step takes the groups in reverse order, which changes no sum."""
    rng = np.random.default_rng(0)
    weights = random_weights(rng, "gru", 9, 70, 0.3)
    x, outs = rng.standard_normal((5, batch, 9)).astype(np.float32), []
    for cache in (0, 2**30):
        monkeypatch.setattr("jali.inference.layer.CACHE", cache)
        layer = build_layer("gru", *weights, forms=("tiles", form))
        forward, back = (int(layer.table[LAYER_FIELDS.index(name)]) for name in ("recurrent", "recurrent_back"))
        assert (forward == back) == (cache > 0)
        outs.append(run(layer, x, np.zeros((batch, 70), np.float32)))
        check("gru", weights, layer, rng, batch, np.full(batch, 5), False)
    assert np.array_equal(*outs)


def test_rows_may_lie_apart() -> None:
    """Batch-first inputs and one half of a bidirectional output are views; nothing around them is touched."""
    rng = np.random.default_rng(0)
    weights = random_weights(rng, "gru", 9, 13, 0.5)
    layer = build_layer("gru", *weights)
    x = rng.standard_normal((3, 6, 9)).astype(np.float32)
    both = np.full((3, 6, 26), 7, np.float32)
    h = np.zeros((3, 13), np.float32)
    run(layer, x.swapaxes(0, 1), h, out=both.swapaxes(0, 1)[..., 13:])
    again = np.zeros((3, 13), np.float32)
    plain = run(layer, np.ascontiguousarray(x.swapaxes(0, 1)), again)
    assert np.array_equal(both[..., 13:], plain.swapaxes(0, 1))
    assert (both[..., :13] == 7).all()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("form", FORMS)
def test_nan_and_infinity_propagate_to_their_own_sequence_only(form: str, width: int) -> None:
    rng = np.random.default_rng(0)
    weights = random_weights(rng, "lstm", 20, 18, 1)
    layer = build_layer("lstm", *weights, width=width, forms=(form, form))
    x = rng.standard_normal((4, 5, 20)).astype(np.float32)
    x[1, 2, 3], x[2, 4, 0] = np.nan, np.inf
    h, c = np.zeros((2, 5, 18), np.float32)
    out = run(layer, x, h, c)
    assert np.isnan(out[1:, 2]).all()
    assert np.isfinite(out[0]).all()
    assert np.isfinite(out[:, [0, 1, 3]]).all()
    assert (np.abs(out[2, 4]) <= 1).all() or np.isnan(out[2, 4]).any()


@pytest.mark.parametrize("width", WIDTHS)
def test_activations_saturate_and_keep_their_accuracy(width: int) -> None:
    """An RNN without recurrence and with unit weights is tanh itself; a GRU with n = 1 and h = 0 is 1 - σ(z)."""
    values = np.concatenate([np.linspace(-20, 20, 4001), [-1e30, -88, -1e-6, 0, 1e-6, 88, 1e30]]).astype(np.float32)
    x = values[:, None, None]
    one, zero = np.ones((1, 1, 1), np.float32), np.zeros((1, 1, 1), np.float32)
    h = np.zeros((1, 1), np.float32)
    out = run(build_layer("rnn_tanh", one, zero, width=width), x, h)[:, 0, 0]
    exact = np.tanh(values.astype(float))
    assert np.abs(out - exact).max() < 1.5e-7
    assert (np.abs(out - exact) <= 3e-7 * np.abs(exact)).all()
    assert out[-1] == 1 == -out[-7]
    gate = np.concatenate([zero, one, zero])
    bias = np.array([[0], [0], [50]], np.float32)
    outs = []
    for value in x:  # each from a state of zero
        h = np.zeros((1, 1), np.float32)
        outs.append(run(build_layer("gru", gate, 0 * gate, bias, width=width), value[None], h)[0, 0, 0])
        if len(outs) > 40:
            break
    exact = 1 - reference.sigmoid(values[: len(outs)].astype(float))
    assert np.abs(np.array(outs) - exact).max() < 1.5e-7


def test_threads_share_a_layer() -> None:
    rng = np.random.default_rng(0)
    weights = random_weights(rng, "lstm", 30, 40, 0.2)
    layer = build_layer("lstm", *weights)
    x = rng.standard_normal((8, 50, 3, 30)).astype(np.float32)

    def one(k: int) -> np.ndarray:
        h, c = np.zeros((2, 3, 40), np.float32)
        return run(layer, x[k], h, c)

    expected, results = [one(k) for k in range(8)], [None] * 8
    threads = [threading.Thread(target=lambda k=k: results.__setitem__(k, one(k))) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(a, b) for a, b in zip(expected, results, strict=True))


def test_kernels_work_where_no_cache_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*_: object) -> None:
        raise RuntimeError("cannot cache function 'f': no locator available for file 'f.py'")

    calls = []
    monkeypatch.setattr(CacheImpl, "__init__", nowhere)
    signature = types.void(width_type(4), *[types.int64] * 5)

    def compiled(cache: bool) -> object:
        calls.append(cache)
        return cfunc(signature, cache=cache)(relu_cell)

    assert with_cache(compiled).address
    assert calls == [True, False]
    with pytest.raises(RuntimeError, match="other"):  # no fault of the cache
        with_cache(lambda cache: (_ for _ in ()).throw(RuntimeError("other")))


def test_what_does_not_fit_is_refused() -> None:
    rng = np.random.default_rng(0)
    weights = random_weights(rng, "lstm", 3, 4, 1)
    layer = build_layer("lstm", *weights)
    x, h, c = (np.zeros(s, np.float32) for s in ((2, 5, 3), (5, 4), (5, 4)))
    for bad in (
        lambda: run(layer, x[..., :2], h, c),
        lambda: run(layer, x.astype(float), h, c),
        lambda: run(layer, np.asfortranarray(x), h, c),
        lambda: run(layer, x, h[:4], c),
        lambda: run(layer, x, h, None),
        lambda: run(layer, x[0], h, c, sizes=np.array([2, 3])),
        lambda: run(layer, x, h, c, out=np.zeros((2, 5, 5), np.float32)),
    ):
        with pytest.raises(DataError):
            bad()
    with pytest.raises(ModelError, match="lstm2"):
        build_layer("lstm2", *weights)
    with pytest.raises(ModelError, match="w_rec"):
        build_layer("gru", *weights)
    with pytest.raises(ModelError, match="NaN"):
        build_layer("lstm", *weights[:2], np.full((4, 4), np.nan))
    with pytest.raises(PlanError, match="rows"):
        build_layer("lstm", *weights, forms=("rows", "tiles"))
    with pytest.raises(LimitError, match="5"):
        Width(5)
    assert default_width() in WIDTHS
