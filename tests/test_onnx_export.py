"""ONNX files: every recurrent layer, cut or not, agrees with PyTorch at sizes that the export never saw."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import jali
from jali.errors import DataError, FileError, ModelError
from jali.inference.onnx_export import export_onnx, with_onnx_layers
from tests.strategies_models import layers, plans

ort = pytest.importorskip("onnxruntime", reason="the extra jali[onnx] is not installed")
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections", "ignore::DeprecationWarning")


class Model(nn.Module):
    def __init__(self, rnn):
        super().__init__()
        width = (rnn.proj_size or rnn.hidden_size) * (2 if rnn.bidirectional else 1)
        self.rnn, self.head = rnn, nn.Linear(width, 3, dtype=rnn.weight_ih_l0.dtype)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


def outputs(path, *tensors):
    session = ort.InferenceSession(str(path))
    return session.run(None, {slot.name: t.numpy() for slot, t in zip(session.get_inputs(), tensors, strict=True)})


# An export takes a second: no shrinking.
@settings(max_examples=8, phases=[Phase.generate], suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), layer=layers(dtypes=(torch.float32,)), cut=st.booleans())
def test_every_layer_agrees_at_sizes_that_the_export_never_saw(data, layer, cut, tmp_path_factory):
    model = Model(layer).eval()
    x = torch.randn(3, 5, layer.input_size)
    if cut:
        plan = data.draw(plans(layer))
        planned = tuple(jali.plans.SitePlan(f"rnn.{s.name}", s.kind, s.size, s.removed, s.scores) for s in plan.sites)
        model = jali.compact(model, jali.Plan("unit", "random", plan.budget, planned), x)
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    done = export_onnx(model, path, x)
    assert done.error <= 1e-5
    assert done.calls == 3
    (sizes,) = done.inputs.values()
    assert [isinstance(size, str) for size in sizes] == [True, True, False]
    for shape in ((1, 9), (6, 2)):
        z = torch.randn(*shape, layer.input_size)
        with torch.no_grad():
            want = model(z).numpy()
        np.testing.assert_allclose(outputs(path, z)[0], want, atol=1e-5 * max(1.0, np.abs(want).max()))


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("cls", [nn.LSTM, nn.GRU, nn.RNN])
def test_given_states_and_final_states_go_through(cls, both, tmp_path):
    torch.manual_seed(0)
    layer, slots = cls(4, 6, 2, bidirectional=both).eval(), 4 if both else 2
    x, h, c = torch.randn(5, 3, 4), torch.randn(slots, 3, 6), torch.randn(slots, 3, 6)
    hx = (h, c) if cls is nn.LSTM else h
    for model in (layer, jali.compact(layer, jali.plan(layer, "magnitude", jali.Budget(0.4, scope="global")), (x, hx))):
        done = export_onnx(model, tmp_path / "m.onnx", (x, hx))
        assert done.calls == 3
        assert len(set(done.inputs["input"][:2])) == 2
        assert "differs from PyTorch by" in str(done)
        assert {sizes[0] for name, sizes in done.inputs.items() if name != "input"} == {slots}
        assert {sizes[1] for name, sizes in done.inputs.items() if name != "input"} == {done.inputs["input"][1]}


@pytest.mark.parametrize("padding", [2, 0])
def test_time_stays_open_where_it_is_not_the_second_size(padding, tmp_path):
    class Spotter(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.rnn = nn.Conv1d(4, 6, 5, stride=2, padding=padding), nn.LSTM(6, 5, batch_first=True)

        def forward(self, x):
            return self.rnn(self.conv(x).transpose(1, 2))[0].mean(1)

    torch.manual_seed(0)
    model, path = Spotter().eval(), tmp_path / "m.onnx"
    done = export_onnx(model, path, torch.randn(2, 4, 20))
    assert [isinstance(size, str) for size in done.inputs["x"]] == [True, False, True]
    for shape in ((1, 4, 9), (3, 4, 31)):
        x = torch.randn(*shape)
        np.testing.assert_allclose(outputs(path, x)[0], model(x).detach().numpy(), atol=1e-5)


def test_every_recurrent_layer_is_one_operator_per_direction(tmp_path):
    import onnx

    torch.manual_seed(0)
    model = Model(nn.RNN(4, 6, 2, bidirectional=True)).eval()
    export_onnx(model, tmp_path / "m.onnx", torch.randn(5, 3, 4))
    kinds = [node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node]
    assert kinds.count("RNN") == 4
    assert len(kinds) < 40


def test_cells_in_a_loop_and_integer_inputs(tmp_path):
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.cell, self.head = nn.Embedding(10, 4), nn.LSTMCell(4, 6), nn.Linear(6, 2)

        def forward(self, tokens):
            x, state = self.embed(tokens), None
            for step in range(3):
                state = self.cell(x[:, step], state)
            return self.head(state[0])

    torch.manual_seed(0)
    model, tokens = Loop().eval(), torch.randint(0, 10, (4, 3))
    assert export_onnx(model, tmp_path / "m.onnx", tokens).error <= 1e-5
    small = jali.compact(model, jali.plan(model, "magnitude", 0.5), tokens)
    assert export_onnx(small, tmp_path / "m.onnx", tokens).error <= 1e-5


def test_steps_that_the_model_loops_over_itself_are_fixed_and_said_so(tmp_path):
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.GRUCell(4, 6)

        def forward(self, x):
            state, found = None, []
            for step in range(x.shape[1]):
                state = self.cell(x[:, step], state)
                found.append(state)
            return torch.stack(found, 1)

    torch.manual_seed(0)
    done = export_onnx(Loop().eval(), tmp_path / "m.onnx", torch.randn(3, 5, 4))
    (sizes,) = done.inputs.values()
    assert isinstance(sizes[0], str)
    assert sizes[1:] == (5, 4)
    assert done.calls == 3


def test_the_model_is_left_alone(tmp_path):
    model = Model(nn.LSTM(4, 6, batch_first=True)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    export_onnx(model, tmp_path / "m.onnx", torch.randn(2, 3, 4))
    assert type(model.rnn) is nn.LSTM
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_mistakes_are_named_and_leave_no_file(tmp_path, monkeypatch):
    path, x = tmp_path / "m.onnx", torch.randn(2, 3, 4)
    model = Model(nn.LSTM(4, 6, batch_first=True)).eval()
    with pytest.raises(DataError, match=r"\(2, 3, 9\)"):
        export_onnx(model, path, torch.randn(2, 3, 9))
    packed = pack_padded_sequence(x, torch.tensor([3, 2]), batch_first=True)
    with pytest.raises(ModelError, match="padded input"):
        export_onnx(model.rnn, path, packed)

    class Branching(Model):
        def forward(self, x):
            return super().forward(x) if x.sum() > 0 else super().forward(-x)

    with pytest.raises(ModelError, match="control flow"):
        export_onnx(Branching(nn.LSTM(4, 6, batch_first=True)), path, x)
    for dtype in (torch.bfloat16, torch.float64):
        with pytest.raises(ModelError, match=rf"{dtype}.*model\.float\(\)"):
            export_onnx(Model(nn.GRU(4, 6)).to(dtype), path, x.to(dtype))
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileError):
        export_onnx(Model(nn.GRU(4, 6, batch_first=True)), tmp_path / "file" / "m.onnx", x)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelError, match=r"jali\[onnx\]"):
        export_onnx(model, path, x)
    assert not path.exists()


def test_a_file_that_does_not_agree_is_not_written(tmp_path, monkeypatch):
    """The verification is real: with the gates in another order the export is refused."""
    import jali.inference.onnx_layers as module

    monkeypatch.setitem(module.ORDER, "LSTM", (0, 1, 2, 3))
    with pytest.raises(ModelError, match="differs from PyTorch by"):
        export_onnx(Model(nn.LSTM(4, 6, batch_first=True)), tmp_path / "m.onnx", torch.randn(2, 3, 4))
    assert not list(tmp_path.iterdir())


def test_layers_for_export_replace_every_recurrent_layer_and_nothing_else():
    model = nn.ModuleDict({"a": nn.LSTM(2, 3), "b": nn.Linear(3, 3), "c": nn.GRU(3, 2)})
    kinds = {name: type(module).__name__ for name, module in with_onnx_layers(model).named_children()}
    assert kinds == {"a": "OnnxLayers", "b": "Linear", "c": "OnnxLayers"}
