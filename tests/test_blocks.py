"""Blocks of units: what decompose finds, and that reordering and batching by them change no output."""

import copy
import logging

import networkx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import jali
from jali.batches import tensors_in
from jali.block_layers import BlockLayer
from jali.errors import BudgetError, DataError, ModelError, PlanError
from jali.maths.decomposition import merged, staged_components
from jali.models import CohenGrossberg
from jali.site import sites
from jali.surgery.mask import mask
from jali.view import read, write
from jali.widths import FullWidth
from tests.strategies_models import forms, layers, plans
from tests.test_compact import TOLERANCE, largest_difference, size


def cut_apart(model: nn.Module, seed: int, least: int = 2) -> nn.Module:
    """A copy whose recurrent sites fall into random independent blocks scattered over the units."""
    rng, out = np.random.default_rng(seed), copy.deepcopy(model)
    for site in sites(out):
        view, labels = read(out, site), rng.permutation(np.arange(site.size) % rng.integers(least, 4))
        apart = labels[:, None] != labels[None, :]
        if view.w_proj is None:
            write(out, view.replace(w_rec=np.where(apart, 0.0, view.recurrence())))
    return out


def several(model: nn.Module) -> jali.Decomposition | None:
    """The components, or communities where there is only one (a projection mixes everything)."""
    found = jali.decompose(model)
    if all(site.count == 1 for site in found.sites):
        found = jali.decompose(model, 2, by="communities")
    return found


# --- decompose ---------------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(seed=st.integers(0, 999), layer=layers(projections=False, dtypes=(torch.float64,)))
def test_components_are_the_finest_independent_blocks(seed, layer):
    layer = cut_apart(layer, seed, least=1)
    for site, blocks in zip(sites(layer), jali.decompose(layer).sites, strict=True):
        influence = read(layer, site).influence()
        graph = networkx.from_numpy_array((influence + influence.T > 0).astype(int))
        parts = {frozenset(part) for part in networkx.connected_components(graph)}
        assert {frozenset(np.flatnonzero(np.array(blocks.labels) == b)) for b in range(blocks.count)} == parts
        assert blocks.independent
        assert blocks.share == 1.0
        ordered = influence[np.ix_(blocks.order, blocks.order)]
        stay = np.repeat(np.arange(blocks.count), blocks.sizes)
        assert not ordered[stay[:, None] != stay[None, :]].any()  # block-diagonal


@given(seed=st.integers(0, 999), n=st.integers(1, 12), density=st.floats(0, 0.5))
def test_the_condensation_is_block_triangular_and_its_stages_are_longest_paths(seed, n, density):
    relation = np.random.default_rng(seed).random((n, n)) < density  # [a, b]: a influences b
    labels, stage = staged_components(relation)
    graph = networkx.from_numpy_array(relation, create_using=networkx.DiGraph)
    parts = {frozenset(part) for part in networkx.strongly_connected_components(graph)}
    assert {frozenset(np.flatnonzero(labels == part)) for part in range(len(stage))} == parts
    a, b = np.nonzero(relation)
    assert (labels[a] <= labels[b]).all()
    inner = labels[a] == labels[b]
    assert (stage[labels[a]] < stage[labels[b]])[~inner].all()
    condensed = networkx.condensation(graph)
    assert stage.max(initial=0) == networkx.dag_longest_path_length(condensed)
    assert (np.diff(stage) >= 0).all()


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=12), data=st.data())
def test_merged_parts_stay_whole_and_are_balanced(sizes, data):
    groups = data.draw(st.integers(1, len(sizes)))
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    found = merged(labels, groups)
    assert sorted(set(found.tolist())) == list(range(groups))
    assert all(len(set(found[labels == part])) == 1 for part in range(len(sizes)))
    load = np.bincount(found)
    assert load.max() <= max(sum(sizes) / groups + max(sizes) * (1 - 1 / groups), max(sizes)) + 1e-9  # list scheduling


def test_the_largest_part_comes_first():
    assert merged([0, 0, 1, 1, 2, 2, 2], 2).tolist() == [0, 0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("cls", [nn.RNN, nn.GRU, nn.LSTM])
def test_communities_hold_more_than_blocks_by_index_and_find_what_is_there(cls):
    torch.manual_seed(0)
    layer = cls(3, 12)
    found = jali.decompose(layer, 3, by="communities").site("l0")
    assert found.share >= found.by_index
    assert found.sizes == (4, 4, 4)
    assert not found.independent
    assert found.work == pytest.approx(1 / 3)
    labels = np.arange(12) % 3
    view = read(layer, sites(layer)[0])
    weak = np.where(labels[:, None] == labels[None, :], 1.0, 1e-3)
    write(layer, view.replace(w_rec=view.recurrence() * weak))
    for k in (3, None):
        again = jali.decompose(layer, k, by="communities").site("l0")
        assert again.labels == tuple(labels.tolist())
    assert again.share > 0.99 > again.by_index


def test_by_hand_a_chain_of_two_modules():
    layer = nn.RNN(1, 4, dtype=torch.float64)
    view = read(layer, sites(layer)[0])
    rec = np.zeros((1, 4, 4))
    rec[0, 2, 0] = rec[0, 0, 2] = 2.0  # 0 ⇄ 2
    rec[0, 1, 2] = 1.0  # 2 → 1
    write(layer, view.replace(w_rec=rec))
    parts = jali.decompose(layer).site("l0")
    assert parts.labels == (0, 0, 0, 1)
    assert parts.sizes == (3, 1)
    assert parts.work == 10 / 16
    assert parts.notes == ("1 of 4 units have no recurrent weight at all",)
    stages = jali.decompose(layer, by="condensation").site("l0")
    assert stages.labels == (0, 2, 0, 1)
    assert stages.stages == (0, 0, 1)
    assert stages.between == 1
    assert stages.share == 4 / 5
    assert "not independent: 1 pairs" in str(stages)
    two = jali.decompose(layer, 2).site("l0")
    assert two.sizes == (3, 1)


def test_a_layer_without_edges_has_as_many_blocks_as_units():
    layer = nn.GRU(3, 6)
    with torch.no_grad():
        layer.weight_hh_l0.zero_()
    found = jali.decompose(layer)
    assert found.site("l0").sizes == (1,) * 6
    assert found.site("l0").independent
    assert "any blocks are independent" in str(found)
    assert "nan" not in str(found)
    assert jali.decompose(layer, 4).site("l0").sizes == (2, 2, 1, 1)
    assert jali.decompose(layer, 2, by="communities").site("l0").sizes == (3, 3)
    x = torch.randn(5, 2, 3)
    torch.testing.assert_close(jali.reorder(layer, jali.decompose(layer, 2), x, batched=True)(x), layer(x))


@pytest.mark.parametrize(
    ("k", "options", "error", "message"),
    [
        (2, {}, BudgetError, "site 'l0' falls into one component, and 2 independent blocks are wanted; cut it first"),
        (11, {"by": "communities"}, BudgetError, "11 blocks of the 10 units of site 'l0'; give 10 or less"),
        (11, {}, BudgetError, "11 blocks of the 10 units"),
        (0, {}, BudgetError, "k=0 is not a number of blocks"),
        (2.5, {}, BudgetError, "k=2.5 is not a number of blocks"),
        (2, {"by": "condensation"}, BudgetError, "leave k out"),
        (None, {"by": "spectral"}, ModelError, "by='spectral' is unknown; it is one of components"),
        (None, {"sites": ["l1"]}, ModelError, "no recurrent site matches 'l1'; the model has l0"),
        (None, {"sites": "l0"}, ModelError, "is not a list of names"),
    ],
)
def test_blocks_that_cannot_be_had_are_one_clear_error(k, options, error, message):
    with pytest.raises(error, match=message):
        jali.decompose(nn.LSTM(3, 10), k, **options)


def test_patterns_choose_sites_and_only_those_are_reordered():
    torch.manual_seed(0)
    model, x = cut_apart(Stack(nn.GRU), 1), torch.randn(3, 6, 4, dtype=torch.float64)
    found = jali.decompose(model, sites=["second.*"])
    assert [site.name for site in found.sites] == ["second.l0", "second.l1"]
    moved = jali.reorder(model, found, x)
    assert torch.equal(moved.first.weight_ih_l0, model.first.weight_ih_l0)
    assert (moved(x) - model(x)).abs().max() <= 1e-12
    with pytest.raises(ModelError, match=r"no site 'first\.l0' was decomposed; there are second\.l0, second\.l1"):
        found.site("first.l0")


# --- reorder -----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@settings(max_examples=200)
@given(seed=st.integers(0, 999), layer=layers(), form=forms, given_inputs=st.booleans())
def test_reordered_is_masked(seed, layer, form, given_inputs):
    """Whatever the cell, depth, direction, bias, projection, layout, states and dtype."""
    layer, args = cut_apart(layer, seed), form.arguments(layer)
    moved = jali.reorder(layer, several(layer), args if given_inputs else None)
    want = layer(*args)
    assert largest_difference(want, moved(*args)) <= TOLERANCE[layer.weight_ih_l0.dtype] * size(want)


@settings(max_examples=200)
@given(seed=st.integers(0, 999), layer=layers(projections=False), form=forms, given_inputs=st.booleans())
def test_batched_is_masked(seed, layer, form, given_inputs):
    layer, args = cut_apart(layer, seed, least=1), form.arguments(layer)
    found = jali.decompose(layer)
    if all(site.count == 1 for site in found.sites):
        with pytest.raises(PlanError, match="no site falls into two blocks"):
            jali.reorder(layer, found, args, batched=True)
        return
    moved = jali.reorder(layer, found, args if given_inputs else None, batched=True)
    assert sum(isinstance(module, BlockLayer) for module in moved.modules()) == sum(s.count > 1 for s in found.sites)
    want = layer(*args)
    assert largest_difference(want, moved(*args)) <= TOLERANCE[layer.weight_ih_l0.dtype] * size(want)


class Stack(nn.Module):
    """Two recurrent layers, a residual, a head on the last step, and final states side by side."""

    def __init__(self, cls: type[nn.RNNBase], norm: bool = False) -> None:
        super().__init__()
        self.first = cls(4, 8, batch_first=True, bidirectional=True, dtype=torch.float64)
        self.second = cls(16, 8, 2, batch_first=True, dtype=torch.float64)
        self.lstm = cls is nn.LSTM
        self.norm = nn.LayerNorm(8, dtype=torch.float64) if norm else nn.Identity()
        self.head = nn.Linear(16, 3, dtype=torch.float64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, state = self.second(torch.relu(self.first(x)[0]))
        h = state[0] if self.lstm else state
        return self.head(torch.cat((self.norm(y[:, -1]), h[0]), -1))


@pytest.mark.parametrize("cls", [nn.RNN, nn.GRU, nn.LSTM])
@pytest.mark.parametrize("batched", [False, True])
def test_readers_are_permuted_and_nothing_is_put_back(cls, batched, caplog):
    torch.manual_seed(0)
    model, x = cut_apart(Stack(cls), 1), torch.randn(3, 6, 4, dtype=torch.float64)
    before = copy.deepcopy(model.state_dict())
    with caplog.at_level(logging.WARNING, "jali"):
        moved = jali.reorder(model, jali.decompose(model), x, batched=batched)
    assert caplog.text == ""
    assert (moved(x) - model(x)).abs().max() <= 1e-12
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not torch.equal(moved.head.weight, model.head.weight)
    assert any(isinstance(module, FullWidth) for module in moved.modules()) == batched
    if not batched:  # every site stands block after block
        for site, blocks in zip(sites(moved), jali.decompose(model).sites, strict=True):
            order = blocks.order
            np.testing.assert_array_equal(
                read(moved, site).influence(), read(model, site).influence()[np.ix_(order, order)]
            )


@pytest.mark.parametrize("batched", [False, True])
def test_what_cannot_follow_is_put_back_and_said(batched, caplog):
    torch.manual_seed(0)
    model, x = cut_apart(Stack(nn.GRU, norm=True), 1), torch.randn(3, 6, 4, dtype=torch.float64)
    with caplog.at_level(logging.WARNING, "jali"):
        moved = jali.reorder(model, jali.decompose(model), x, batched=batched)
    assert "the output of 'second' is put back into its old order: it is used by LayerNorm 'norm'" in caplog.text
    assert (moved(x) - model(x)).abs().max() <= 1e-12


class Started(nn.Module):
    """Its initial state is an argument; only the output is read."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(3, 8, batch_first=True).double(), nn.Linear(8, 2).double()

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x, h)[0])


@pytest.mark.parametrize("batched", [False, True])
def test_initial_states_are_given_in_the_old_order(batched, caplog):
    torch.manual_seed(0)
    model = cut_apart(Started(), 1)
    args = torch.randn(2, 5, 3, dtype=torch.float64), torch.randn(1, 2, 8, dtype=torch.float64)
    with caplog.at_level(logging.WARNING, "jali"):
        moved = jali.reorder(model, jali.decompose(model), args, batched=batched)
    assert caplog.text == ""
    assert (moved(*args) - model(*args)).abs().max() <= 1e-12


class Sorted(nn.Module):
    """Depends on the order of the units in a way that no operation shows."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.RNN(2, 6, batch_first=True), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0]) + self.rnn.weight_ih_l0[1, 0]


def test_a_model_that_reads_its_own_weights_is_refused():
    torch.manual_seed(0)
    model = cut_apart(Sorted(), 3)
    with pytest.raises(ModelError, match="does not compute the same with its units reordered"):
        jali.reorder(model, jali.decompose(model), torch.randn(2, 3, 2))


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("kind", ["given", "none"])
def test_units_that_a_mask_removed_start_at_zero(batched, kind):
    torch.manual_seed(0)
    model = cut_apart(nn.LSTM(3, 8, dtype=torch.float64), 2)
    masked = mask(model, jali.plan(model, "random", 0.25))
    x, state = torch.randn(5, 2, 3, dtype=torch.float64), tuple(torch.randn(2, 1, 2, 8, dtype=torch.float64))
    args = (x, state)
    moved = jali.reorder(masked, jali.decompose(masked, 2), args if kind == "given" else x, batched=batched)
    assert largest_difference(masked(*args), moved(*args)) <= 1e-12


def test_cells_keep_their_states_in_the_old_order():
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.head = nn.GRUCell(3, 6, dtype=torch.float64), nn.Linear(6, 2, dtype=torch.float64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.cell(x, self.cell(x)))

    torch.manual_seed(0)
    model, x = cut_apart(Loop(), 3), torch.randn(4, 3, dtype=torch.float64)
    found = jali.decompose(model, 2)
    assert (jali.reorder(model, found, x)(x) - model(x)).abs().max() <= 1e-12
    with pytest.raises(ModelError, match="no site can run as one batched product: cell are cells or have projections"):
        jali.reorder(model, found, x, batched=True)


def test_blocks_that_are_not_independent_cannot_be_batched_but_reordered():
    torch.manual_seed(0)
    layer, x = nn.GRU(3, 8), torch.randn(4, 2, 3)
    found = jali.decompose(layer, 2, by="communities")
    torch.testing.assert_close(jali.reorder(layer, found, x)(x), layer(x))
    with pytest.raises(PlanError, match="2 blocks of site 'l0' are not independent: 32 pairs"):
        jali.reorder(layer, found, x, batched=True)
    with pytest.raises(PlanError, match="no site falls into two blocks or more"):
        jali.reorder(layer, jali.decompose(layer), x)
    with pytest.raises(PlanError, match="the model has an LSTM of 8 units; decompose this model"):
        jali.reorder(nn.LSTM(3, 8), found, x)
    with pytest.raises(PlanError, match="is a list; make one"):
        jali.reorder(layer, [], x)


def test_networks_that_cannot_be_reordered_say_which_sites_can():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.slow = nn.GRU(3, 8, batch_first=True), CohenGrossberg(8, 6)

        def forward(self, x):
            return self.slow(self.rnn(x)[0])[0]

    torch.manual_seed(0)
    model, x = Both(), torch.randn(2, 4, 3)
    found = jali.decompose(model, 2, by="communities")
    with pytest.raises(ModelError, match=r"slow\.l0: the units of a CohenGrossberg stay .* sites=\['rnn\.l0'\]\)"):
        jali.reorder(model, found, x)
    others = jali.decompose(model, 2, by="communities", sites=["rnn.l0"])
    reordered = jali.reorder(model, others, x)
    torch.testing.assert_close(reordered(x), model(x))
    assert type(reordered.rnn) is nn.GRU, "the network reads the units in their new order"
    assert not torch.equal(reordered.slow.weight_ih_l0, model.slow.weight_ih_l0)
    alone = jali.decompose(model.slow, 2, by="communities")
    with pytest.raises(ModelError, match="no other site has two blocks, so there is nothing to reorder"):
        jali.reorder(model.slow, alone, torch.randn(2, 4, 8))


def test_an_order_that_is_there_is_said(caplog):
    layer, x = nn.GRU(3, 4), torch.randn(4, 2, 3)
    with torch.no_grad():
        layer.weight_hh_l0.copy_(torch.block_diag(torch.ones(2, 2), torch.ones(2, 2)).repeat(3, 1))
    with caplog.at_level(logging.WARNING, "jali"):
        moved = jali.reorder(layer, jali.decompose(layer), x)
    assert "stand in the order of their blocks already" in caplog.text
    assert torch.equal(moved(x)[0], layer(x)[0])


# --- the batched layer -------------------------------------------------------------------------------------------------


def test_one_step_by_hand():
    layer = nn.RNN(1, 3, bias=False, batch_first=True, dtype=torch.float64)
    view = read(layer, sites(layer)[0])
    rec = np.array([[[0.5, 0.0, 2.0], [0.0, 3.0, 0.0], [1.0, 0.0, 0.0]]])
    write(layer, view.replace(w_in=np.array([[[1.0], [2.0], [3.0]]]), w_rec=rec))
    fast = BlockLayer.of(read(layer, sites(layer)[0]), [np.array([0, 2]), np.array([1])], layer)
    y, h = fast(torch.ones(1, 1, 1, dtype=torch.float64), torch.tensor([[[0.1, 0.2, 0.3]]], dtype=torch.float64))
    want = np.tanh([1 + 0.5 * 0.1 + 2 * 0.2, 3 + 0.1, 2 + 3 * 0.3])  # units 0, 2, 1
    np.testing.assert_allclose(y.detach().numpy().ravel(), want, atol=1e-15)
    np.testing.assert_allclose(h.detach().numpy().ravel(), want, atol=1e-15)


@settings(max_examples=30)
@given(seed=st.integers(0, 99), layer=layers(max_layers=1, bidirectional=False, projections=False), form=forms)
def test_a_batched_layer_turns_plain_again(seed, layer, form):
    blocks = np.array_split(np.random.default_rng(seed).permutation(layer.hidden_size), 2)
    fast = BlockLayer.of(read(layer, sites(layer)[0]), blocks, layer)
    args = form.arguments(layer)
    want, got = fast.plain()(*args), fast(*args)
    assert largest_difference(want, got) <= TOLERANCE[layer.weight_ih_l0.dtype] * size(want)


@pytest.mark.parametrize("floats", [1, 200, 700])
@pytest.mark.parametrize("packed", [False, True])
def test_input_products_piece_by_piece_are_the_same(floats, packed, monkeypatch):
    torch.manual_seed(0)
    layer = nn.LSTM(3, 5, dtype=torch.float64)
    fast = BlockLayer.of(read(layer, sites(layer)[0]), [np.array([0, 3, 4]), np.array([1, 2])], layer)
    x = torch.randn(23, 4, 3, dtype=torch.float64)
    if packed:
        x = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([23, 20, 20, 2]))
    want = fast(x)
    monkeypatch.setattr("jali.block_layers.SUMS", floats)
    assert largest_difference(want, fast(x)) <= 1e-15


@pytest.mark.parametrize("cls", [nn.RNN, nn.GRU, nn.LSTM])
def test_gradients_are_those_of_the_masked_layer_and_the_padding_gets_none(cls):
    torch.manual_seed(0)
    layer = cls(3, 5, dtype=torch.float64)
    blocks = [np.array([0, 3, 4]), np.array([1, 2])]
    fast = BlockLayer.of(read(layer, sites(layer)[0]), blocks, layer)
    plain, x = fast.plain(), torch.randn(6, 2, 3, dtype=torch.float64)
    for module in (fast, plain):
        (module(x)[0] ** 2).sum().backward()
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        held = copy.deepcopy(fast)
        with torch.no_grad():
            getattr(held, name).copy_(getattr(fast, name).grad)
        want = getattr(plain, f"{name}_l0").grad
        if name == "weight_hh":
            want = want * torch.block_diag(torch.ones(3, 3), torch.ones(2, 2)).repeat(want.shape[0] // 5, 1)
        torch.testing.assert_close(getattr(held.plain(), f"{name}_l0"), want, check_dtype=False)
        assert getattr(fast, name).grad.count_nonzero() == want.count_nonzero()  # none in the padding


def test_batched_models_are_copied_saved_exported_and_counted(tmp_path):
    torch.manual_seed(0)
    model, x = cut_apart(Stack(nn.LSTM).float(), 1), torch.randn(3, 6, 4)
    moved = jali.reorder(model, jali.decompose(model, 2), x, batched=True)
    torch.testing.assert_close(copy.deepcopy(moved)(x), model(x))
    assert jali.save(moved, tmp_path / "m.safetensors", example_inputs=x)
    assert torch.equal(jali.load(tmp_path / "m.safetensors")(x), moved(x))
    assert jali.export_onnx(moved, tmp_path / "m.onnx", x).error < 1e-5
    assert jali.cost(moved, x).macs < jali.cost(model, x).macs


def test_a_stored_batched_layer_of_senseless_size_is_refused():
    from jali.archive.specs import construct
    from jali.errors import FileError

    options = {"kind": "LSTM", "nonlinearity": "tanh", "input_size": 2, "batch_first": True, "bias": True}
    for sizes in ([10**9], [0, 3], [], "ab", [3, "x"]):
        with pytest.raises(FileError, match="cannot be built"):
            construct({"type": "BlockLayer", "options": {**options, "sizes": sizes}}, limit=100)


def test_calls_that_do_not_fit_are_one_clear_error():
    layer = nn.LSTM(3, 4)
    fast = BlockLayer.of(read(layer, sites(layer)[0]), [np.array([0, 1]), np.array([2, 3])], layer)
    with pytest.raises(DataError, match="its last axis must be the 3 features"):
        fast(torch.randn(2, 2, 5))
    with pytest.raises(DataError, match=r"an initial state has shape \(1, 3, 4\); it must be \(1, 2, 4\)"):
        fast(torch.randn(5, 2, 3), (torch.zeros(1, 3, 4), torch.zeros(1, 2, 4)))
    with pytest.raises(ModelError, match="do not hold each of the 4 units"):
        BlockLayer.of(read(layer, sites(layer)[0]), [np.array([0, 1]), np.array([1, 3])], layer)
    projected = nn.LSTM(3, 4, proj_size=2)
    with pytest.raises(ModelError, match="has no square recurrence"):
        BlockLayer.of(read(projected, sites(projected)[0]), [np.arange(4)], projected)


@settings(max_examples=25)
@given(data=st.data(), layer=layers(projections=False, max_layers=2), form=forms)
def test_a_compacted_layer_can_be_reordered_too(data, layer, form):
    args = form.arguments(layer)
    small = jali.compact(layer, data.draw(plans(layer)), args)
    if not any(isinstance(module, nn.RNNBase) and module.hidden_size > 1 for module in small.modules()):
        return
    try:
        found = jali.decompose(small, 2, by="communities")
    except BudgetError:  # a layer of one unit has no two blocks
        return
    want, got = small(*args), jali.reorder(small, found, args)(*args)
    assert len(tensors_in(want)) == len(tensors_in(got))
    assert largest_difference(want, got) <= TOLERANCE[layer.weight_ih_l0.dtype] * size(want)
