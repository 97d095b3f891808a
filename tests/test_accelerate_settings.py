"""Accelerated layers compute the same whatever the program around them has set, and are traced as PyTorch's own."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

import jali


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return nn.GRU(10, 21, num_layers=2, bidirectional=True).eval()


X = torch.randn(7, 3, 10, generator=torch.Generator().manual_seed(0))


def near(got, want):
    assert got.dtype == torch.float32
    assert got.device.type == "cpu"
    assert torch.allclose(got, want, atol=2e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_default_types_do_not_matter(layer, dtype):
    want, final = layer(X)
    torch.set_default_dtype(dtype)
    try:
        fast = jali.accelerate(layer, X, engine="kernels")
        for _ in range(2):  # the second call is one that repeats
            near(fast(X)[0], want)
        near(fast(X, torch.zeros_like(final))[0], want)
        jali.accelerate(layer, X)
        one = nn.GRU(10, 21, dtype=torch.float32).eval()
        near(jali.accelerate(one, X, engine="kernels").step(X[0])[0], one(X[:1])[0][0])
    finally:
        torch.set_default_dtype(torch.float32)


def test_default_devices_do_not_matter(layer):
    want = layer(X)[0]
    fast = jali.accelerate(layer, X, engine="kernels")
    with torch.device("meta"):
        for _ in range(2):
            near(fast(X)[0], want)


def test_autocast_does_not_matter(layer):
    fast, want = jali.accelerate(layer, X, engine="kernels"), layer(X)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        near(fast(X)[0], want)


def test_inference_mode_may_be_on_from_the_beginning(layer, tmp_path):
    want, other = layer(X)[0], nn.GRU(10, 21, num_layers=2, bidirectional=True).eval()
    jali.save(jali.accelerate(layer, X, engine="kernels"), tmp_path / "m.safetensors", example_inputs=X)
    with torch.inference_mode():
        fast, loaded = jali.accelerate(layer, X, engine="kernels"), jali.load(tmp_path / "m.safetensors")
        for model in (fast, loaded):
            for _ in range(2):
                near(model(X)[0], want)
        for model in (fast, loaded):  # weights that change there are seen
            model.load_state_dict(other.state_dict())
            near(model(X)[0], other(X)[0])
    for model in (fast, loaded):
        near(model(X)[0], other(X)[0])


def test_models_are_pickled(layer):
    fast = jali.accelerate(layer, X, engine="kernels")
    want = fast(X)[0]
    buffer = io.BytesIO()
    torch.save(fast, buffer)
    buffer.seek(0)
    for twin in (pickle.loads(pickle.dumps(fast)), torch.load(buffer, weights_only=False)):  # noqa: S301  (our own bytes)
        assert torch.equal(twin(X)[0], want)
        assert twin.choices == fast.choices


@pytest.mark.filterwarnings("ignore")  # of torch.jit's end
def test_traces_hold_pytorchs_own_layer(layer):
    fast = jali.accelerate(layer, X, engine="kernels")
    fast(X)
    other = torch.randn(7, 3, 10)
    for _ in range(2):
        assert torch.allclose(torch.jit.trace(fast, X)(other)[0], layer(other)[0], atol=1e-6)
        exported = torch.export.export(fast, (X,)).module()
        assert torch.allclose(exported(other)[0], layer(other)[0], atol=1e-6)
        compiled = torch.compile(fast, backend="eager")
        assert torch.allclose(compiled(other)[0], layer(other)[0], atol=1e-6)
        near(fast(other)[0], layer(other)[0])


class Streaming(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x, state):
        return self.layer.step(x, state)


@pytest.mark.filterwarnings("ignore")  # of torch.jit's end
def test_traces_of_a_step_hold_pytorchs_own_layer():
    torch.manual_seed(0)
    layer, h = nn.GRU(10, 21, batch_first=True).eval(), torch.randn(1, 3, 21)
    stream = Streaming(jali.accelerate(layer, X, engine="kernels")).eval()
    want, final = layer(X[1][:, None], h)
    for traced in (
        torch.jit.trace(stream, (X[0], h)),
        torch.export.export(stream, (X[0], h)).module(),
        torch.compile(stream, backend="eager"),
    ):
        got, new = traced(X[1], h)
        assert torch.allclose(got, want[:, 0], atol=1e-6)
        assert torch.allclose(new, final, atol=1e-6)


def test_inputs_whose_memory_has_the_other_sign_are_read_right():
    """As imaginary parts of a conjugate have, which PyTorch does not write out."""
    torch.manual_seed(0)
    layer = nn.GRU(1, 21).eval()
    fast = jali.accelerate(layer, X[..., :1], engine="kernels")
    x, h = torch._neg_view(X[..., :1].contiguous()), torch._neg_view(torch.randn(1, 3, 21))
    want, final = layer(x.clone(), h.clone())
    assert x.is_neg()
    for _ in range(2):
        near(fast(x, h)[0], want)
        near(fast(x)[0], layer(x.clone())[0])
    near(fast.step(x[0], h)[0], want[0])
    near(fast(x, h)[1], final)


def test_complex_outputs_are_compared_up_to_rounding():
    class Spectrum(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(10, 20)

        def forward(self, x):
            real, imaginary = self.rnn(x)[0].chunk(2, -1)
            return torch.complex(real.contiguous(), imaginary.contiguous())

    torch.manual_seed(0)
    model = Spectrum().eval()
    assert torch.allclose(jali.accelerate(model, X, engine="kernels")(X), model(X), atol=2e-6)


def test_weights_given_for_one_call_count(layer):
    fast, other = jali.accelerate(layer, X, engine="kernels"), copy.deepcopy(layer)
    with torch.no_grad():
        for weight in other.parameters():
            weight.mul_(0.5)
    fast(X)
    for _ in range(2):
        near(torch.func.functional_call(fast, dict(other.named_parameters()), (X,))[0], other(X)[0])
        near(fast(X)[0], layer(X)[0])
