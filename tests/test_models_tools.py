"""Networks of jali.models in everything else: training companion, patterns, files, ONNX, kernels."""

import copy
import json

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import jali
from jali.archive import checksum
from jali.archive.folder import FILE, KEY
from jali.criterion import get
from jali.errors import FileError, ModelError
from jali.models import CohenGrossberg, TopDownRNN
from jali.plans import Pattern
from jali.site import sites
from jali.view import read
from jali.widths import FullWidthWired
from tests.strategies_models import plans
from tests.test_models import Reader, networks

CORES = {
    "Cohen-Grossberg": lambda: CohenGrossberg(2, 8, step=0.5),
    "top-down": lambda: TopDownRNN(2, (8, 6)),
    "top-down relu": lambda: TopDownRNN(2, (8, 4), bias=False, nonlinearity="relu"),
}
every_core = pytest.mark.parametrize("core", sorted(CORES))


def model_of(core, what="last", given=False):
    torch.manual_seed(0)
    return Reader(CORES[core](), what, given)


def tensors(output):
    return output if isinstance(output, tuple) else (output,)


# Training companion ---------------------------------------------------------------------------------------------------
def trained(model, pruner, optimizer, steps, first=0):
    for number in range(first, first + steps):
        x = torch.randn(6, 5, 2, generator=torch.Generator().manual_seed(number))
        optimizer.zero_grad()
        F.mse_loss(model(x), x.sum((1, 2))[:, None].tanh().expand(-1, 3)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        pruner.step()
        held(model, pruner.plan)


def held(model, plan):
    """Whatever the plan says has gone is zero."""
    for planned, site in zip(plan.sites, sites(model), strict=True):
        view = read(model, site)
        for field, keep in planned.keep.items():
            assert not getattr(view, field)[~keep].any()
        for field, value in view.arrays():
            gone = value[:, list(planned.removed)]
            assert not gone.any(), field


WAYS = {
    "units": {"schedule": jali.Cubic(end=8, every=2, initial=0.1)},
    "weights": {"schedule": jali.Cubic(end=8, every=2, initial=0.1), "granularity": "weight"},
    "regrown": {"schedule": jali.RigL(2, 8), "granularity": "weight"},
    "2:4": {"granularity": "weight", "pattern": "2:4"},
    "blocks": {"granularity": "weight", "pattern": "block:4x1"},
    "block-diagonal": {"granularity": "weight", "pattern": "block-diagonal:2"},
}


@every_core
@pytest.mark.parametrize("way", sorted(WAYS))
def test_a_pruner_holds_its_zeros_and_resumes_bit_for_bit(core, way):
    def start():
        model = model_of(core)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
        budget = None if Pattern.parse(WAYS[way].get("pattern", "weight")).diagonal else 0.5
        return model, optimizer, jali.Pruner(model, "magnitude", budget, optimizer=optimizer, **WAYS[way])

    model, optimizer, pruner = start()
    trained(model, pruner, optimizer, 5)
    stored = copy.deepcopy((model.state_dict(), optimizer.state_dict(), pruner.state_dict()))
    trained(model, pruner, optimizer, 5, first=5)
    again = start()
    for part, state in zip(again, stored, strict=True):
        part.load_state_dict(state)
    trained(again[0], again[2], again[1], 5, first=5)
    for name, value in model.state_dict().items():
        assert torch.equal(value, again[0].state_dict()[name]), name
    assert pruner.plan.sparsity > 0.2
    assert pruner.finished
    x = torch.randn(4, 6, 2)
    with torch.no_grad():
        assert torch.allclose(jali.mask(model, pruner.plan)(x), model(x), atol=1e-6)
        if way == "units":
            small = jali.compact(model, pruner.plan, x)
            assert list(small.core.sizes) == [len(site.kept) for site in pruner.plan.sites]
            assert torch.allclose(small(x), model(x), atol=1e-6)


@every_core
def test_the_given_state_of_units_that_go_while_training_is_zero(core):
    model = model_of(core, "state", given=True)
    pruner = jali.Pruner(model, "magnitude", 0.5)
    first = torch.randn(3, sum(model.core.sizes))
    h = model.core(torch.zeros(3, 1, 2), first)[1]
    assert torch.equal(h, jali.mask(model, pruner.plan).core(torch.zeros(3, 1, 2), first)[1])
    kept = torch.ones_like(first)
    for site, part in zip(pruner.plan.sites, kept.split(model.core.sizes, -1), strict=True):
        part[:, list(site.removed)] = 0
    assert torch.equal(h, model.core(torch.zeros(3, 1, 2), first * kept)[1])  # the layers beside it read zero, too
    for site, part in zip(pruner.plan.sites, h.split(model.core.sizes, -1), strict=True):
        assert site.removed
        assert not part[:, list(site.removed)].any()


@given(networks(dtypes=(torch.float64,)), st.sampled_from(["gate-aligned", "block:2x2", "1:2", "block-diagonal:2"]))
@settings(max_examples=25, deadline=None)
def test_patterns_are_those_of_the_masks(core, pattern):
    budget = None if pattern in ("1:2", "block-diagonal:2") else 0.5
    plan = jali.plan(core, "magnitude", budget, granularity="weight", pattern=pattern)
    masked = jali.mask(core, plan)
    for planned, site in zip(plan.sites, sites(core), strict=True):
        view, whole = read(masked, site), read(core, site)
        assert "terms" not in planned.keep  # decay is no weight
        for field, value in whole.arrays():
            kept = planned.keep.get(field)
            assert (getattr(view, field) == (value if kept is None else value * kept)).all()
        if pattern == "1:2":
            even = view.w_rec[0][:, : site.size // 2 * 2].reshape(site.size, -1, 2)
            assert ((even != 0).sum(-1) <= 1).all()
    x = torch.randn(2, 4, core.input_size, dtype=torch.float64)
    assert torch.isfinite(masked(x)[0]).all()


@every_core
@pytest.mark.parametrize("criterion", [name for name in jali.criteria() if "unit" in get(name).granularities])
def test_every_criterion_of_units_chooses(core, criterion):
    model, x = model_of(core).eval(), torch.randn(60, 6, 2)
    data = [(x, (x.sum((1, 2)) > 0).long())]
    plan = jali.plan(model, criterion, 0.5, data)
    assert [len(site.removed) for site in plan.sites] == [size // 2 for size in model.core.sizes]
    small = jali.compact(model, plan, x)
    assert jali.cost(small, x).macs < 0.6 * jali.cost(model, x).macs
    with torch.no_grad():
        assert torch.allclose(small(x), jali.mask(model, plan)(x), atol=1e-6)


# Files ----------------------------------------------------------------------------------------------------------------
@given(st.data(), networks(), st.sampled_from(["last", "state", "raw"]), st.booleans())
@settings(max_examples=25, deadline=None)
def test_what_is_saved_is_loaded_bit_for_bit(tmp_path_factory, data, core, what, states):
    dtype = next(core.parameters()).dtype
    model = Reader(core, what, states).eval()
    x = torch.randn(3, 5, 2, dtype=dtype)
    inputs = (x, torch.randn(3, sum(core.sizes), dtype=dtype)) if states else (x,)
    small = jali.compact(model, data.draw(plans(model)), inputs)
    for each, given_inputs in (
        (model, inputs),
        (small, inputs),
        (core, (torch.randn(2, 3, core.input_size).to(dtype),)),
    ):
        folder = tmp_path_factory.mktemp("saved")
        assert jali.save(each, folder, example_inputs=given_inputs)
        loaded = jali.load(folder)
        with torch.no_grad():
            pairs = zip(tensors(loaded(*given_inputs)), tensors(each(*given_inputs)), strict=True)
            assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("what", ["last", "raw"])
@every_core
def test_a_folded_model_is_saved_with_its_repairs(core, what, tmp_path):
    model, x = model_of(core, what).eval(), torch.randn(40, 6, 2)
    small = jali.prune(model, "reconstruction", 0.5, x).model
    assert isinstance(small.core, FullWidthWired) == (what == "raw")
    assert jali.save(small, tmp_path, example_inputs=x)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(tensors(jali.load(tmp_path)(x)), tensors(small(x)), strict=True))


def change(path, edit):
    """The stored file with another description of its network."""
    with safe_open(path, "pt") as file:
        body = json.loads(file.metadata()[KEY])
    edit(body["graph"]["modules"]["core"])
    stored, text = load_file(path), json.dumps(body)
    save_file(stored, path, {KEY: text, checksum.KEY: checksum.checksum(text, stored)})


HOSTILE = {
    "a huge layer outside": lambda core: core["sizes"].__setitem__(0, 10**12),
    "fewer kept units": lambda core: core["keep"][0].pop(),
    "a unit that is not there": lambda core: core["keep"][0].__setitem__(-1, 99),
    "one layer too few": lambda core: core["sizes"].pop(),
    "an unknown repair": lambda core: core.__setitem__("output", "code"),
    "another network": lambda core: core["inner"].__setitem__("type", "LSTM"),
    "a linear inside": lambda core: core.__setitem__("inner", {"type": "Linear", "options": {"in_features": 2, "out_features": 4}}),  # noqa: E501
    "a word for a width": lambda core: core["inner"]["options"].__setitem__("hidden_sizes", "many"),
    "too many layers": lambda core: core["inner"]["options"].__setitem__("hidden_sizes", [1] * 2000),
    "no layers": lambda core: core["inner"]["options"].__setitem__("hidden_sizes", []),
    "a huge layer inside": lambda core: core["inner"]["options"].__setitem__("hidden_sizes", [10**12, 10**12]),
    "another nonlinearity": lambda core: core["inner"]["options"].__setitem__("nonlinearity", "exec"),
}  # fmt: skip


@pytest.mark.parametrize("how", sorted(HOSTILE))
def test_a_file_that_lies_is_refused(how, tmp_path):
    model, x = model_of("top-down", "raw").eval(), torch.randn(40, 6, 2)
    assert jali.save(jali.prune(model, "magnitude", 0.5, x).model, tmp_path, example_inputs=x)
    jali.load(tmp_path)
    change(tmp_path / FILE, HOSTILE[how])
    with pytest.raises(FileError):
        jali.load(tmp_path)


def test_a_step_from_a_file_is_checked(tmp_path):
    x = torch.randn(4, 6, 2)
    model = model_of("Cohen-Grossberg").eval()
    assert jali.save(model, tmp_path, example_inputs=x)
    assert jali.load(tmp_path).get_submodule("core").step == 0.5
    change(tmp_path / FILE, lambda core: core["options"].__setitem__("step", -1.0))
    with pytest.raises(FileError, match="not a positive length of time"):
        jali.load(tmp_path)


# Export and kernels ---------------------------------------------------------------------------------------------------
@every_core
@pytest.mark.parametrize("cut", [False, True], ids=["whole", "pruned"])
def test_onnx_has_an_open_batch_and_the_steps_of_the_example(core, cut, tmp_path):
    ort = pytest.importorskip("onnxruntime", reason="the extra jali[onnx] is not installed")
    model, x = model_of(core, "raw").eval(), torch.randn(40, 6, 2)
    model = jali.prune(model, "magnitude", 0.5, x).model if cut else model
    done = jali.export_onnx(model, tmp_path / "m.onnx", x)
    (shape,) = done.inputs.values()
    assert isinstance(shape[0], str)
    assert shape[1:] == (6, 2)
    session = ort.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    other = torch.randn(3, 6, 2)
    got = session.run(None, {session.get_inputs()[0].name: other.numpy()})
    with torch.no_grad():
        for value, want in zip(got, model(other), strict=True):
            assert torch.allclose(torch.from_numpy(value), want, atol=1e-5)


@every_core
def test_there_are_no_kernels_and_that_is_said(core):
    model, x = model_of(core).eval(), torch.randn(3, 4, 2)
    name = type(model.core).__name__
    with pytest.raises(ModelError, match=rf"only these have kernels; make a {name} smaller with jali\.prune"):
        jali.accelerate(model, x)


@every_core
@pytest.mark.parametrize("batched", [False, True])
def test_their_blocks_are_found_and_not_reordered(core, batched):
    model = model_of(core)
    with torch.no_grad():
        model.core.weight_hh_l0[::2, 1::2] = 0
        model.core.weight_hh_l0[1::2, ::2] = 0
    found = jali.decompose(model)
    assert found.sites[0].count == 2
    with pytest.raises(
        ModelError,
        match=r"core\.l0: the units of an? .* stay in their order, .* nothing to reorder; jali.compact makes it smaller",
    ):
        jali.reorder(model, found, torch.randn(2, 3, 2), batched=batched)


def test_beside_an_lstm_they_stay_with_pytorch():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.LSTM(2, 16, batch_first=True), TopDownRNN(16, (8, 4))

        def forward(self, x):
            return self.second(self.first(x)[0])[0]

    torch.manual_seed(0)
    model, x = Both().eval(), torch.randn(2, 5, 2)
    fast = jali.accelerate(model, x, engine="kernels")
    assert isinstance(fast.second, TopDownRNN)
    with torch.no_grad():
        assert torch.allclose(fast(x), model(x), atol=1e-5)


# A class of the caller's own ------------------------------------------------------------------------------------------
class Sluggish(CohenGrossberg):
    def decay_rate(self, state):
        return 1 + state.abs()


class Named(CohenGrossberg):
    def describe(self):
        return "mine"


def test_a_subclass_with_other_equations_is_no_site():
    """Its views would be rebuilt with the equations that the library knows."""
    with pytest.raises(ModelError, match="is a Sluggish, with a forward of its own"):
        jali.sites(Sluggish(2, 3))
    assert jali.sites(Named(2, 3))[0].kind == "CohenGrossberg"
