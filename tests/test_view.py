"""Views: reading and writing back is exact, and the layout is that of the equations in PyTorch's documentation."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm

import jali
from jali.errors import ModelError
from jali.site import sites
from jali.view import build, build_cell, build_linear, layer_views, read, write
from tests.strategies_models import layers

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def step(view, x, h, c, nonlinearity="tanh"):
    """One step of one layer on x (I,), h (R,), c (H,), gate by gate, from the formulas of the documentation."""
    zero = np.zeros((view.gates, view.hidden))
    b_in, b_rec = (zero if b is None else b for b in (view.b_in, view.b_rec))
    fed = [view.w_in[g] @ x + b_in[g] for g in range(view.gates)]
    back = [view.w_rec[g] @ h + b_rec[g] for g in range(view.gates)]
    if view.site.kind == "RNN":
        total = fed[0] + back[0]
        return (np.tanh(total) if nonlinearity == "tanh" else np.maximum(total, 0)), c
    if view.site.kind == "GRU":
        r, z = sigmoid(fed[0] + back[0]), sigmoid(fed[1] + back[1])
        return (1 - z) * np.tanh(fed[2] + r * back[2]) + z * h, c
    i, f, g, o = (fed[k] + back[k] for k in range(4))
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    return (h if view.w_proj is None else view.w_proj @ h), c


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@settings(max_examples=60)
@given(layer=layers(dtypes=(torch.float64,), batch_first=True))
def test_the_equations_on_the_views_give_the_outputs_of_the_layer(layer):
    x = torch.randn(1, 4, layer.input_size, dtype=torch.float64)
    below = x[0].numpy()
    for row in layer_views(layer):
        outputs = []
        for reverse, view in enumerate(row):
            h, c, states = np.zeros(layer.proj_size or view.hidden), np.zeros(view.hidden), []
            for features in below[::-1] if reverse else below:
                h, c = step(view, features, h, c, getattr(layer, "nonlinearity", "tanh"))
                states.append(h)
            outputs.append(np.stack(states[::-1] if reverse else states))
        below = np.concatenate(outputs, axis=1)
    np.testing.assert_allclose(layer(x)[0][0].detach().numpy(), below, atol=1e-12)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@settings(max_examples=80)
@given(layer=layers(dtypes=DTYPES))
def test_reading_and_writing_back_changes_no_bit(layer):
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    views = [read(layer, site) for site in sites(layer)]
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.fill_(7.0)
    for view in views:
        write(layer, view)
    after = layer.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@settings(max_examples=60)
@given(layer=layers(dtypes=DTYPES))
def test_a_layer_built_from_views_is_the_layer(layer):
    twin = build(layer_views(layer), layer)
    assert type(twin) is type(layer)
    assert repr(twin) == repr(layer)
    assert twin.mode == layer.mode
    assert twin.weight_ih_l0.dtype == layer.weight_ih_l0.dtype
    before, after = layer.state_dict(), twin.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("make", [nn.RNNCell, nn.GRUCell, nn.LSTMCell])
def test_cells_and_their_equations(make, bias):
    torch.manual_seed(0)
    cell = make(3, 5, bias=bias, dtype=torch.float64)
    view = read(cell, sites(cell)[0])
    x, h, c = (torch.randn(n, dtype=torch.float64) for n in (3, 5, 5))
    state = (h, c) if make is nn.LSTMCell else h
    want, _ = step(view, x.numpy(), h.numpy(), c.numpy())
    for module in (cell, build_cell(view, cell)):
        out = module(x, state)
        np.testing.assert_allclose((out[0] if isinstance(out, tuple) else out).detach().numpy(), want, atol=1e-12)


@given(inputs=st.integers(1, 5), outputs=st.integers(1, 5), bias=st.booleans())
def test_linear_layers(inputs, outputs, bias):
    linear = nn.Linear(inputs, outputs, bias=bias)
    (site,) = sites(linear, linear=True)
    view = read(linear, site)
    assert (view.gates, view.hidden, view.inputs) == (1, outputs, inputs)
    twin = build_linear(view, linear)
    x = torch.ones(2, inputs)
    assert torch.equal(twin(x), linear(x))
    with pytest.raises(ModelError, match="no recurrent weights"):
        view.recurrence()


def test_influence_joins_the_gates_and_goes_from_column_to_row():
    layer = nn.LSTM(1, 2)
    with torch.no_grad():
        layer.weight_hh_l0.zero_()
        layer.weight_hh_l0[0, 1] = 3.0  # gate i of unit 0 reads unit 1
        layer.weight_hh_l0[4, 1] = 4.0  # gate g of unit 0 reads unit 1
    np.testing.assert_array_equal(read(layer, sites(layer)[0]).influence(), [[0, 5], [0, 0]])


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_influence_goes_through_the_projection():
    torch.manual_seed(0)
    layer = nn.LSTM(2, 5, proj_size=2, dtype=torch.float64)
    view = read(layer, sites(layer)[0])
    direct = (layer.weight_hh_l0 @ layer.weight_hr_l0).detach().reshape(4, 5, 5).norm(dim=0).numpy()
    np.testing.assert_allclose(view.influence(), direct)


def test_sites_are_named_in_order():
    model = nn.ModuleDict({
        "a": nn.LSTM(3, 4, 2, bidirectional=True), "b": nn.GRUCell(4, 5), "c": nn.Linear(5, 6), "d": nn.Linear(6, 2),
    })  # fmt: skip
    assert [site.name for site in sites(model)] == ["a.l0", "a.l0.reverse", "a.l1", "a.l1.reverse", "b"]
    assert [site.name for site in sites(model, linear=True)][-2:] == ["c", "d"]
    assert [site.name for site in sites(nn.GRU(2, 3))] == ["l0"]


def test_models_that_cannot_be_read_are_refused():
    class Own(nn.LSTM):
        def forward(self, x):
            return super().forward(x)[0]

    with pytest.raises(ModelError, match="no prunable site"):
        sites(nn.Sequential(nn.Conv1d(2, 2, 1)))
    with pytest.raises(ModelError, match="no prunable site"):
        sites(Own(2, 3))
    for value in (float("nan"), float("inf")):
        layer = nn.GRU(2, 3)
        with torch.no_grad():
            layer.bias_hh_l0[1] = value
        with pytest.raises(ModelError, match="parameter 'bias_hh_l0' has 1 NaN or infinite"):
            read(layer, sites(layer)[0])
    pruned = nn.GRU(2, 3)
    prune.l1_unstructured(pruned, "weight_hh_l0", 0.5)
    with pytest.raises(ModelError, match=r"prune\.remove"):
        jali.plan(pruned, "magnitude")
    normed = parametrizations.weight_norm(nn.Linear(2, 3))
    with pytest.raises(ModelError):
        read(normed, sites(nn.Linear(2, 3), linear=True)[0])


def test_a_view_of_another_shape_writes_nothing():
    layer = nn.GRU(2, 3)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    view = read(nn.GRU(2, 4), sites(nn.GRU(2, 4))[0])
    with pytest.raises(ModelError, match="cannot write"):
        write(layer, view)
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())


@pytest.mark.parametrize("make", [nn.RNNCell, nn.GRUCell, nn.LSTMCell, nn.RNN, nn.GRU, nn.LSTM, nn.Linear])
def test_what_is_built_trains_like_the_module_it_replaces(make):
    """Training mode and frozen parameters hold for the new module, dropout too."""
    module = make(3, 4).eval()
    frozen = "weight" if make is nn.Linear else next(name for name, _ in module.named_parameters())
    getattr(module, frozen).requires_grad_(False)
    if isinstance(module, nn.RNNBase):
        twin = build(layer_views(module), module)
    else:
        view = read(module, sites(module, linear=True)[0])
        twin = build_linear(view, module) if make is nn.Linear else build_cell(view, module)
    assert not twin.training
    assert {name: p.requires_grad for name, p in twin.named_parameters()} == {
        name: p.requires_grad for name, p in module.named_parameters()
    }
    assert all(not p.requires_grad for name, p in twin.named_parameters() if name == frozen)


def test_dropout_between_layers_is_kept():
    layer = nn.GRU(3, 4, num_layers=2, dropout=0.25)
    assert build(layer_views(layer), layer).dropout == 0.25
    assert build(layer_views(layer)[:1], layer).dropout == 0.0


def test_a_relu_cell():
    torch.manual_seed(0)
    cell = nn.RNNCell(3, 5, nonlinearity="relu", dtype=torch.float64)
    view, x, h = read(cell, sites(cell)[0]), torch.randn(3).double(), torch.randn(5).double()
    want, _ = step(view, x.numpy(), h.numpy(), None, "relu")
    np.testing.assert_allclose(build_cell(view, cell)(x, h).detach().numpy(), want, atol=1e-12)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@settings(max_examples=60)
@given(data=st.data(), layer=layers(dtypes=(torch.float64,)))
def test_cut_and_without_leave_the_same_units(data, layer):
    """What is left of ``without`` where it is not zero is ``cut``."""
    view = read(layer, data.draw(st.sampled_from(sites(layer))))
    count = data.draw(st.integers(0, view.hidden - view.site.minimum))
    removed = np.array(data.draw(st.permutations(range(view.hidden)))[:count], dtype=int)
    keep = np.setdiff1d(np.arange(view.hidden), removed)
    zeroed, small = view.without(removed), view.cut(keep)
    assert small.site.size == small.hidden == len(keep)
    for (field, a), (_, b) in zip(zeroed.arrays(), small.arrays(), strict=True):
        axes = {"w_rec": (1,) if view.w_proj is not None else (1, 2)}.get(field, (1,))
        for axis in axes:
            assert not np.take(a, removed, axis).any()
            a = np.take(a, keep, axis)
        np.testing.assert_array_equal(a, b)
    inputs = np.arange(view.inputs)[::2]
    np.testing.assert_array_equal(view.cut(keep, inputs).w_in, view.w_in[:, keep][:, :, inputs])


def test_a_view_is_a_copy():
    layer = nn.GRU(3, 4, dtype=torch.float64)
    view = read(layer, sites(layer)[0])
    before = layer.weight_ih_l0.detach().clone()
    view.w_in[:] = 0.0
    view.without(np.array([0])).w_in[:] = 1.0
    assert torch.equal(layer.weight_ih_l0, before)
    assert not view.w_in.any()


def test_every_way_of_computing_a_parameter_is_refused():
    cases = {
        "pruned": prune.l1_unstructured(nn.Linear(2, 3), "weight", 0.5),
        "parametrized": parametrizations.weight_norm(nn.Linear(2, 3)),
        "old norm": spectral_norm(nn.Linear(2, 3)),
    }
    for module in cases.values():
        with pytest.raises(ModelError, match="'weight' of 'linear' is computed from others"):
            read(module, sites(nn.Linear(2, 3), linear=True)[0])
