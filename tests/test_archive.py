"""Saved models: they come back whole, and nothing that a file says is run, allocated or believed unchecked."""

import copy
import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import jali
from jali.archive import checksum, load_weights
from jali.batches import tensors_in
from jali.errors import DataError, FileError, ModelError
from jali.surgery.compact import operate
from jali.widths import FullWidth

FILE = "model.safetensors"


class Net(nn.Module):
    """Recurrent layer → last step or all steps → head, with parts that a graph must keep apart."""

    def __init__(self, rnn, width, head):
        super().__init__()
        self.rnn, self.kind = rnn, head
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 3)
        self.scale = nn.Parameter(torch.full((3,), 0.5))
        self.register_buffer("shift", torch.arange(3.0))

    def forward(self, x):
        y = self.rnn(x)[0]
        if self.kind == "norm":
            y = self.norm(y)
        y = y.mean(1) if self.kind == "mean" else y[:, -1]
        return self.scale * self.head(torch.relu(y)) + self.shift


@st.composite
def nets(draw):
    torch.manual_seed(draw(st.integers(0, 99)))
    cls, both = draw(st.sampled_from([nn.LSTM, nn.GRU, nn.RNN])), draw(st.booleans())
    proj = draw(st.sampled_from([0, 0, 2])) if cls is nn.LSTM else 0
    options = {"num_layers": draw(st.integers(1, 3)), "bidirectional": both, "bias": draw(st.booleans())}
    options |= {"dropout": 0.1} if options["num_layers"] > 1 and draw(st.booleans()) else {}
    rnn = cls(4, 6, batch_first=True, **options, **({"proj_size": proj} if proj else {}))
    net = Net(rnn, (proj or 6) * (2 if both else 1), draw(st.sampled_from(["last", "mean", "norm"])))
    return net.to(draw(st.sampled_from([torch.float32, torch.float64]))).eval()


def inputs(model):
    return torch.randn(3, 5, 4, dtype=next(model.parameters()).dtype, generator=torch.Generator().manual_seed(0))


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@settings(max_examples=40)
@given(
    net=nets(), budget=st.sampled_from([None, 0.3, 0.5]), fold=st.booleans(), scope=st.sampled_from(["site", "global"])
)
def test_a_saved_model_comes_back_bit_for_bit(net, budget, fold, scope, tmp_path_factory):
    folder, x = tmp_path_factory.mktemp("saved"), inputs(net)
    model = net
    if budget is not None:
        plan = jali.plan(net, "magnitude", jali.Budget(budget, scope=scope))
        model = jali.compact(net, plan, example_inputs=x, fold=x if fold else None)
    assert jali.save(model, folder, example_inputs=x)
    loaded = jali.load(folder)
    assert torch.equal(loaded(x), model(x))
    assert not loaded.training
    stored = model.state_dict()
    assert all(torch.equal(value, stored[name]) for name, value in loaded.state_dict().items())
    twin = copy.deepcopy(loaded)
    twin(x).sum().backward()
    assert twin.head.weight.grad is not None
    assert torch.equal(twin(x), loaded(x))


def roundtrip(model, folder, *args):
    assert jali.save(model, folder, example_inputs=args)
    want, got = tensors_in(model.eval()(*args)), tensors_in(jali.load(folder)(*args))
    assert len(want) == len(got) > 0
    assert all(torch.equal(a, b) for a, b in zip(want, got, strict=True))


def test_packed_input_cells_shared_modules_and_idle_parameters(tmp_path):
    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.LSTM(4, 6, batch_first=True, bidirectional=True)

        def forward(self, x, lengths):
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            return pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0]

    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.idle = nn.GRUCell(4, 6), nn.Linear(7, 7)

        def forward(self, x):
            h = None
            for t in range(5):
                h = self.cell(x[:, t], h)
            return h

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.GRU(4, 4, batch_first=True)
            self.b = self.a

        def forward(self, x):
            return self.b(self.a(x)[0])[0]

    torch.manual_seed(0)
    x = torch.randn(3, 5, 4)
    roundtrip(Packed(), tmp_path / "packed", x, torch.tensor([2, 5, 3]))
    roundtrip(Loop(), tmp_path / "loop", x)
    roundtrip(Twice(), tmp_path / "twice", x)


class Tied(nn.Module):
    """An embedding that is also the output layer's weight, and two recurrent layers with one parameter in common."""

    def __init__(self, traceable=True):
        super().__init__()
        self.embedding, self.head = nn.Embedding(9, 6), nn.Linear(6, 9)
        self.a, self.b, self.between = nn.GRU(6, 6, batch_first=True), nn.GRU(6, 6, batch_first=True), nn.LSTM(6, 6)
        self.again, self.traceable = self.between, traceable
        self.head.weight = self.embedding.weight
        self.b.weight_hh_l0 = self.a.weight_hh_l0
        self.a.bias_ih_l0 = self.a.bias_hh_l0

    def forward(self, x):
        if not self.traceable and x.sum() < 0:
            return x
        return self.head(self.again(self.between(self.b(self.a(self.embedding(x))[0])[0])[0])[0])


@pytest.mark.parametrize("traceable", [True, False])
def test_tied_parameters_come_back_tied(traceable, tmp_path):
    torch.manual_seed(0)
    model, x = Tied(traceable).eval(), torch.randint(0, 9, (3, 5))
    assert jali.save(model, tmp_path, example_inputs=x) is traceable
    loaded = jali.load(tmp_path, build=lambda: Tied(traceable))
    stored = load_file(tmp_path / FILE)
    assert sum(t.numel() for t in stored.values()) == sum(p.numel() for p in model.parameters())
    assert torch.equal(loaded(x), model(x))
    assert len(list(loaded.parameters())) == len(list(model.parameters()))
    optimizers = [torch.optim.SGD(one.parameters(), 0.1, momentum=0.9) for one in (model, loaded)]
    for _ in range(3):
        for one, optimizer in zip((model, loaded), optimizers, strict=True):
            optimizer.zero_grad()
            one(x).square().mean().backward()
            optimizer.step()
        assert loaded.head.weight is loaded.embedding.weight
        assert loaded.b.weight_hh_l0 is loaded.a.weight_hh_l0
        assert loaded.a.bias_ih_l0 is loaded.a.bias_hh_l0
        assert torch.equal(loaded(x), model(x))


@pytest.mark.parametrize("traceable", [True, False])
def test_ties_and_a_cut_layer_with_two_names_come_back_together(traceable, tmp_path):
    torch.manual_seed(0)
    model, x = Tied(traceable).eval(), torch.randint(0, 9, (3, 5))
    small = jali.compact(model, jali.plan(model, "magnitude", sites=["between.*"]), x)
    assert jali.save(small, tmp_path, example_inputs=x) is traceable
    loaded = jali.load(tmp_path, build=lambda: Tied(traceable))
    assert torch.equal(loaded(x), small(x))
    assert (loaded.head.weight is loaded.embedding.weight) == (small.head.weight is small.embedding.weight)
    assert loaded.b.weight_hh_l0 is loaded.a.weight_hh_l0


def test_weights_of_a_tied_model_may_hold_either_name(tmp_path):
    model = Tied()
    whole = {name: tensor.clone() for name, tensor in model.state_dict().items() if not name.startswith("again")}
    for absent in ("head.weight", "embedding.weight"):
        save_file({name: tensor for name, tensor in whole.items() if name != absent}, tmp_path / FILE)
        other = Tied()
        load_weights(other, tmp_path / FILE)
        assert torch.equal(other.embedding.weight, model.embedding.weight)
        assert other.head.weight is other.embedding.weight
    save_file({name: tensor for name, tensor in whole.items() if name != "head.bias"}, tmp_path / FILE)
    with pytest.raises(FileError, match=r"do not fit.*head\.bias"):
        load_weights(Tied(), tmp_path / FILE)
    with pytest.raises(FileError, match=r"^[^\n]+ …$"):  # a long list of keys is cut, and shown to be
        load_weights(nn.LSTM(2, 2, num_layers=9), tmp_path / FILE)


def test_low_precision_is_kept(tmp_path):
    model = Net(nn.GRU(4, 6, batch_first=True), 6, "last").to(torch.bfloat16).eval()
    roundtrip(model, tmp_path, inputs(model))
    assert jali.load(tmp_path).head.weight.dtype == torch.bfloat16


def test_what_a_graph_cannot_hold_needs_its_own_class(tmp_path):
    class Custom(Net):
        def forward(self, x):
            if x.sum() > 1e9:  # control flow on data: torch.fx cannot trace it
                return super().forward(x) * 2
            return super().forward(x)

    torch.manual_seed(0)
    model = Custom(nn.LSTM(4, 6, batch_first=True), 6, "last").eval()
    x = inputs(model)
    small = jali.prune(model, "magnitude", 0.5, x).model
    assert jali.save(small, tmp_path, example_inputs=x) is False
    with pytest.raises(FileError, match="pass build="):
        jali.load(tmp_path)
    with pytest.raises(FileError, match="no module 'rnn'"):
        jali.load(tmp_path, build=lambda: nn.Linear(2, 2))
    loaded = jali.load(tmp_path, build=lambda: Custom(nn.LSTM(4, 6, batch_first=True), 6, "last"))
    assert torch.equal(loaded(x), small(x))


def test_what_does_not_fit_is_told_by_save_and_not_by_load(tmp_path, caplog):
    model = nn.Sequential(nn.Linear(3, 2)).eval()
    with pytest.raises(DataError, match="cannot run on inputs"):
        jali.save(model, tmp_path / "m.safetensors", example_inputs=torch.ones(2, 4))
    with pytest.raises(DataError, match="cannot run on inputs"):  # of a layer that is stored whole, too
        jali.save(nn.GRU(3, 2), tmp_path / "m.safetensors", example_inputs=torch.ones(2, 4))
    assert not list(tmp_path.iterdir())
    assert jali.save(model, tmp_path / "m.safetensors") is False
    assert "m.safetensors can be loaded with build= only: no example inputs were given" in caplog.text


def test_a_model_whose_class_does_more_than_its_modules_is_not_stored_as_a_graph(tmp_path):
    class Doubled(nn.Sequential):
        def __call__(self, x):
            return 2 * super().__call__(x)

    assert jali.save(Doubled(nn.Linear(4, 3)), tmp_path, example_inputs=torch.ones(2, 4)) is False
    with pytest.raises(FileError, match="other outputs"):
        jali.load(tmp_path)


def test_hooks_are_never_dropped_in_silence(tmp_path):
    model = nn.Sequential(nn.Linear(4, 3))
    model[0].register_forward_hook(lambda module, args, output: output * 2)
    with pytest.raises(ModelError, match="forward hooks"):
        jali.save(model, tmp_path / "a", example_inputs=torch.ones(2, 4))
    layer = nn.GRU(4, 6)
    with pytest.raises(ModelError, match=r"jali\.compact"):  # a mask zeroes given states by a hook
        jali.save(jali.mask(layer, jali.plan(layer, "magnitude")), tmp_path / "b")


def test_weights_that_are_masked_stay_masked(tmp_path):
    torch.manual_seed(0)
    model = Net(nn.LSTM(4, 6, batch_first=True), 6, "last").eval()
    masked = jali.mask(model, jali.plan(model, "magnitude", 0.8, pattern="gate-aligned"))
    assert jali.save(masked, tmp_path / "model.safetensors", example_inputs=inputs(model))
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    loaded = jali.load(tmp_path / "model.safetensors")
    assert torch.equal(loaded.rnn.weight_hh_l0, masked.rnn.weight_hh_l0)
    assert float((loaded.rnn.weight_hh_l0 == 0).float().mean()) > 0.5


def test_a_loaded_model_is_not_saved_again(tmp_path):
    model = Net(nn.GRU(4, 6, batch_first=True), 6, "last").eval()
    jali.save(model, tmp_path, example_inputs=inputs(model))
    with pytest.raises(ModelError, match="copy its folder"):
        jali.save(jali.load(tmp_path), tmp_path / "b")


@pytest.fixture
def saved(tmp_path):
    """A folder with a pruned model whose layer keeps its full outer width, so that it holds every kind of entry."""
    torch.manual_seed(0)
    model = Net(nn.LSTM(4, 6, batch_first=True), 6, "norm").eval()
    x = inputs(model)
    small = operate(model, jali.plan(model, "magnitude", 0.5), x).compact
    assert isinstance(small.rnn, FullWidth)
    assert jali.save(small, tmp_path, example_inputs=x)
    return tmp_path


def rewrite(folder, change):
    """Save the file in ``folder`` again with its description changed in place by ``change``."""
    path = folder / FILE
    with safe_open(path, framework="pt") as file:
        body = json.loads(file.metadata()["jali"])
    text = change(body)
    write(load_file(path), path, json.dumps(body) if text is None else text)


def write(tensors, path, text):
    """A file that was made with intent: its checksum is right."""
    save_file(tensors, path, {"jali": text, checksum.KEY: checksum.checksum(text, tensors)})


def module(body):
    return body["graph"]["modules"]["rnn"]


def node(body, op):
    return next(node for node in body["graph"]["nodes"] if node["op"] == op)


def assign(find, key, value):
    return lambda body: find(body).__setitem__(key, value)


HOSTILE = {
    "another schema": assign(lambda b: b, "schema", 2),
    "another kind": assign(lambda b: b, "kind", "pickle"),
    "no graph": lambda b: b.pop("graph") and None,
    "not JSON": lambda b: '{"schema": 1,',
    "a list": lambda b: "[]",
    "nested a million deep": lambda b: "[" * 10**6,
    "an enormous layer": assign(lambda b: module(b)["inner"]["options"], "hidden_size", 10**9),
    "a billion layers": assign(lambda b: module(b)["inner"]["options"], "num_layers", 10**9),
    "no layers": assign(lambda b: module(b)["inner"]["options"], "num_layers", 0),
    "an enormous width": assign(module, "hidden_size", 10**12),
    "an overflowing width": assign(lambda b: module(b)["inner"]["options"], "hidden_size", 10**30),
    "a width that is text": assign(module, "hidden_size", "many"),
    "another unit kept": assign(module, "keep", [[0, 1, 9]]),
    "units of more layers than there are": lambda b: module(b)["keep"].append([0, 1, 2]),
    "a unit kept twice": assign(module, "keep", [[0, 1, 1]]),
    "other units kept": lambda b: module(b)["keep"][0].reverse(),
    "an unknown module": assign(module, "type", "Module"),
    "a module by its import path": assign(module, "type", "os.system"),
    "an option that is no plain value": assign(lambda b: module(b)["inner"]["options"], "device", "cuda"),
    "an enormous tensor": assign(lambda b: b["graph"]["tensors"]["scale"], "shape", [10**6, 10**6]),
    "a negative shape": assign(lambda b: b["graph"]["tensors"]["scale"], "shape", [-3]),
    "a path that escapes": lambda b: b["graph"]["tensors"].update({"a/../b": {"parameter": True, "shape": [1]}}),
    "a method off the list": lambda b: node(b, "call_function").update(op="call_method", target="__class__"),
    "a function off the list": assign(lambda b: node(b, "call_function"), "target", "os.system"),
    "a dunder attribute": lambda b: node(b, "call_function").update(target="getattr", args=[1, "__globals__"]),
    "a value before it is computed": assign(lambda b: node(b, "call_function"), "args", [{"node": "output"}]),
    "an argument of unknown kind": assign(lambda b: node(b, "call_function"), "args", [{"eval": "1"}]),
    "an argument nested too deep": lambda b: node(b, "call_function").update(args=[_nested(200)]),
    "no output": lambda b: b["graph"]["nodes"].pop() and None,
    "an output in the middle": lambda b: b["graph"]["nodes"].insert(0, {**b["graph"]["nodes"][-1], "name": "early", "args": [1]}),
    "no operations": lambda b: b["graph"]["nodes"].clear(),
    "nodes that are no list": assign(lambda b: b["graph"], "nodes", 7),
    "ties that are no object": assign(lambda b: b, "ties", [["scale", "shift"]]),
    "a tie to an unknown name": assign(lambda b: b, "ties", {"norm.more": "nowhere"}),
    "a tie of an unknown name": assign(lambda b: b, "ties", {"nowhere": "scale"}),
    "a tie to what is no name": assign(lambda b: b, "ties", {"norm.more": ["scale"]}),
    "a tie of a name that is stored": assign(lambda b: b, "ties", {"head.bias": "scale"}),
    "ties in a circle": assign(lambda b: b, "ties", {"x": "y", "y": "x"}),
    "a tie to itself": assign(lambda b: b, "ties", {"x": "x"}),
    "a missing module": lambda b: b["graph"]["modules"].pop("head") and None,
}  # fmt: skip


def _nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_description_is_one_clear_error(name, saved):
    rewrite(saved, HOSTILE[name])
    with pytest.raises(FileError) as caught:
        jali.load(saved)
    assert FILE in str(caught.value)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize(
    ("alias", "stored", "message"),
    [("head.bias", "head.weight", "do not fit.*size mismatch for head.bias"), ("shift", "scale", "the other a buffer")],
)
def test_a_tie_between_what_differs_is_one_clear_error(alias, stored, message, saved):
    path = saved / FILE
    with safe_open(path, framework="pt") as file:
        body = json.loads(file.metadata()["jali"])
    tensors = load_file(path)
    del tensors[alias]
    write(tensors, path, json.dumps(body | {"ties": {alias: stored}}))
    with pytest.raises(FileError, match=message):
        jali.load(saved)


def test_many_names_of_one_tensor_allow_no_larger_model(saved):
    """The widths that a description may ask for are bounded by what is stored, however often it is named."""
    rewrite(saved, assign(lambda b: b, "ties", {f"n{k}": "head.weight" for k in range(1000)}))
    rewrite(saved, assign(module, "hidden_size", 5000))
    with pytest.raises(FileError, match="a width of 5000 is not in"):
        jali.load(saved)


def test_nothing_is_allocated_before_it_is_checked(saved):
    """A layer of 10⁹ units would need petabytes; a description of it costs nothing to refuse."""
    import resource

    rewrite(saved, assign(lambda b: module(b)["inner"]["options"], "hidden_size", 10**7))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FileError, match="do not fit"):
        jali.load(saved)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes


def test_damaged_weights_are_one_clear_error(saved):
    path = saved / FILE
    whole = path.read_bytes()
    for part in (b"", whole[:4], whole[: len(whole) // 2], whole[:-1]):
        path.write_bytes(part)
        with pytest.raises(FileError, match="not a whole safetensors file"):
            jali.load(saved)
    path.unlink()
    with pytest.raises(FileError, match="cannot read"):
        jali.load(saved)


def test_a_file_that_was_altered_is_one_clear_error(saved):
    """One bit of one weight, one digit of the description, a tensor that changed its type: whole files, all of them."""
    path = saved / FILE
    whole = path.read_bytes()
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}  # not mapped to the file
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    for place in (len(whole) - 1, len(whole) - 100):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(
            FileError, match=r"has the checksum [0-9a-f]{12}…, and [0-9a-f]{12}… was written: it was altered"
        ):
            jali.load(saved)
        with pytest.raises(FileError, match="altered or damaged"):
            load_weights(nn.Linear(1, 1), path)
    for changed in (
        {**tensors, "head.bias": tensors["head.bias"].double()},
        {**tensors, "head.weight": tensors["head.weight"].T.contiguous()},
        {("head.weights" if name == "head.weight" else name): tensor for name, tensor in tensors.items()},
    ):
        save_file(changed, path, metadata)
        with pytest.raises(FileError, match="altered or damaged"):
            jali.load(saved)
    save_file(tensors, path, {**metadata, "jali": metadata["jali"].replace("1", "2", 1)})
    with pytest.raises(FileError, match="altered or damaged"):
        jali.load(saved)
    save_file(tensors, path, {"jali": metadata["jali"]})
    with pytest.raises(FileError, match="has no checksum"):
        jali.load(saved)
    save_file(tensors, path, metadata)
    jali.load(saved)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.bool, torch.int64])
def test_the_checksum_sees_every_element_of_every_type(dtype):
    tensors = {"a": torch.zeros(3, 2).to(dtype), "b": torch.zeros(()).to(dtype), "c": torch.zeros(0, 4).to(dtype)}
    before = checksum.checksum("{}", tensors)
    assert checksum.checksum("{}", dict(reversed(tensors.items()))) == before
    seen = {before, checksum.checksum("[]", tensors)}
    for name in "ab":
        for k in range(tensors[name].numel()):
            changed = {**tensors, name: tensors[name].clone()}
            changed[name].view(-1)[k] = 1
            seen.add(checksum.checksum("{}", changed))
    seen.add(checksum.checksum("{}", {**tensors, "a": tensors["a"].T}))
    assert len(seen) == 2 + 6 + 1 + 1


@pytest.mark.parametrize("what", ["missing", "extra", "reshaped", "other buffer"])
def test_weights_that_do_not_fit_are_one_clear_error(what, saved):
    path = saved / FILE
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    if what == "missing":
        del tensors["head.weight"]
    elif what == "extra":
        tensors["more"] = torch.zeros(1)
    elif what == "reshaped":
        tensors["head.weight"] = tensors["head.weight"].T.contiguous()
    else:
        tensors["rnn.output.order"] = tensors["rnn.output.order"].flip(0)
    write(tensors, path, metadata["jali"])
    with pytest.raises(FileError, match=r"do not fit|contradicts"):
        jali.load(saved)


def test_plain_weights_and_pickles_are_refused(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / FILE)
    with pytest.raises(FileError, match="weights only"):
        jali.load(tmp_path)

    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"a": Trap()}, tmp_path / FILE)
    with pytest.raises(FileError):
        jali.load(tmp_path)
    with pytest.raises(FileError):
        load_weights(nn.Linear(1, 1), tmp_path / FILE)
    assert not (tmp_path / "ran").exists()


def test_an_interrupted_save_leaves_the_old_model(saved, monkeypatch):
    x = torch.zeros(1, 5, 4)
    before = jali.load(saved)(x)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        jali.save(nn.GRU(4, 4), saved)
    monkeypatch.undo()
    assert torch.equal(jali.load(saved)(x), before)
    assert sorted(path.name for path in saved.iterdir()) == [FILE]


def test_a_full_disk_is_one_clear_error(saved, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    before = (saved / FILE).read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match="No space left"):
        jali.save(nn.GRU(4, 4), saved)
    assert (saved / FILE).read_bytes() == before
    assert [path.name for path in saved.iterdir()] == [FILE]


def test_loading_another_file_says_what_it_is_not(tmp_path):
    (tmp_path / "net.py").write_text("x")
    with pytest.raises(FileError, match=r"net\.py' is a file that jali\.save did not name; give a \.safetensors file"):
        jali.load(tmp_path / "net.py")


def test_a_folder_that_is_a_file_is_one_clear_error(tmp_path):
    (tmp_path / "taken").write_text("x")
    with pytest.raises(FileError, match="choose another"):
        jali.save(nn.GRU(4, 4), tmp_path / "taken")
