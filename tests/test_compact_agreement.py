"""What compact makes of models that it cannot prove or check: the check itself, its bounds, and what it says."""

import logging

import pytest
import torch
from torch import nn

import jali
from jali.batches import example
from jali.errors import ModelError
from jali.surgery.agreement import MARGIN, UNCHECKED, _close, _noise, disagreement
from jali.surgery.compact import operate
from jali.surgery.mask import mask
from tests.test_compact import random_plan

WHOLE = "every pruned layer keeps its outer width"


class Model(nn.Module):
    """A layer, a head, and what a test does with them."""

    def __init__(self, forward, cls=nn.LSTM):
        super().__init__()
        self.rnn, self.head, self.run = cls(4, 8, batch_first=True), nn.Linear(8, 3), forward

    def forward(self, x):
        return self.run(self, x)


def model_of(forward, cls=nn.LSTM):
    torch.manual_seed(0)
    model = Model(forward, cls).eval()
    return model, random_plan(model, (0.5,)), torch.randn(3, 6, 4)


def single(m, x):
    """Cannot run in float64, as many models that make their own states."""
    return m.head(m.rnn(x, (torch.zeros(1, x.shape[0], 8), torch.zeros(1, x.shape[0], 8)))[0])


def test_a_model_that_runs_in_float32_only_is_shrunk():
    model, plan, x = model_of(single)
    surgery = operate(model, plan, x)
    assert surgery.notes == ()
    assert surgery.compact.head.in_features == 4


@pytest.mark.parametrize("cls", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("strength", [1.0, 4.0])
def test_rounding_in_float32_is_within_the_bound_and_small_errors_are_not(cls, strength):
    """Of one weight, one part in 10 000: ten times less than the fixed bound of 1e-3 let pass."""
    model, plan, x = model_of(lambda m, x: m.head(m.rnn(x)[0]), cls)
    with torch.no_grad():
        for parameter in model.rnn.parameters():
            parameter.mul_(strength)
        masked, small = mask(model, plan), jali.compact(model, plan, x)
        want, noise = masked(x), _noise(torch.random.get_rng_state(), masked, example(x))[0]
        assert 0 < noise < 1e-4
        assert _close(want, small(x), noise)
        wrong = want.clone()
        wrong[0, 0, 0] += 1e-4 * want.abs().max() + MARGIN * noise
        assert not _close(want, wrong, noise)
        assert not _close(want, want[:, :1], noise)
        assert not _close(want, want.double(), noise)


def test_a_wrong_cut_is_told_from_a_right_one_in_float32():
    model, plan, x = model_of(single)
    masked, small = mask(model, plan), operate(model, plan, x).compact
    assert disagreement(masked, small, example(x)) is None
    with torch.no_grad():
        small.head.weight[0, 0] *= 1.001
    assert "did not do what the masked one does" in disagreement(masked, small, example(x))


@pytest.mark.parametrize("result", [None, {"text": "none"}, 3.0, []], ids=str)
def test_what_cannot_be_compared_keeps_its_width(result):
    def forward(m, x):
        m.head(m.rnn(x)[0])
        return result

    model, plan, x = model_of(forward)
    surgery = operate(model, plan, x)
    assert surgery.compact.head.in_features == 8
    assert [note for note in surgery.notes if WHOLE in note and UNCHECKED in note]


def test_a_loop_over_time_is_named():
    """A graph of the example's length could prove nothing about other lengths: from step 7 on, another head reads."""

    def forward(m, x):
        y = m.rnn(x)[0]
        parts = [m.head(y[:, t]) if t < 7 else y[:, t, :3] for t in range(x.shape[1])]
        return torch.stack(parts, 1)

    model, plan, x = model_of(forward)
    surgery = operate(model, plan, x)
    assert [note for note in surgery.notes if "loops over a size of its input" in note]
    longer = torch.randn(2, 9, 4)
    torch.testing.assert_close(surgery.compact(longer), mask(model, plan)(longer))


class Scaled(nn.LSTM):
    """A layer with PyTorch's own forward, and more."""

    gain = 2.0

    def scaled(self, y):
        return y * self.gain


@pytest.mark.parametrize(
    ("name", "forward"),
    [
        ("scaled", lambda m, x: m.head(m.rnn.scaled(m.rnn(x)[0]))),
        ("gain", lambda m, x: m.head(m.rnn(x)[0] * m.rnn.gain)),
    ],
)
def test_what_the_class_of_a_layer_adds_is_named_where_the_forward_uses_it(name, forward):
    model, plan, x = model_of(forward, Scaled)
    with pytest.raises(ModelError, match=rf"uses '{name}' of 'rnn', a Scaled.*move it out of the layer"):
        jali.compact(model, plan, x)


def test_a_class_that_is_left_behind_is_said(caplog):
    model, plan, x = model_of(lambda m, x: m.head(m.rnn(x)[0]), Scaled)
    with caplog.at_level(logging.WARNING, "jali"):
        small = jali.compact(model, plan, x)
    assert "'rnn' was a Scaled" in caplog.text
    assert type(small.rnn) is nn.LSTM
    torch.testing.assert_close(small(x), mask(model, plan)(x))


def test_a_width_that_the_forward_code_computes_is_found_by_running():
    """Nothing traced shows it: the shrunk model fails, and the message says how."""

    def forward(m, x):
        return m.head(m.rnn(x)[0])[..., : m.head.in_features - 5]

    model, plan, x = model_of(forward)
    surgery = operate(model, plan, x)
    assert surgery.compact.head.in_features == 8
    assert [note for note in surgery.notes if note.startswith(WHOLE)]
    assert torch.equal(surgery.compact(x), mask(model, plan)(x))


@pytest.mark.parametrize("fractions", [(0.5,), (0.5, 0.25)], ids=["equal", "unequal"])
@pytest.mark.parametrize("what", ["layers", "cell", "linear"])
def test_everything_of_a_cut_model_moves_with_it(what, fractions):
    """Index buffers, too; the meta device stands for any other."""
    torch.manual_seed(0)
    forwards = {
        "layers": (nn.GRU(4, 8, 2, batch_first=True, bidirectional=True), (3, 5, 4)),
        "cell": (nn.LSTMCell(4, 8), (3, 4)),
        "linear": (nn.Linear(4, 8), (3, 4)),
    }
    layer, shape = forwards[what]
    model, x = nn.Sequential(layer), torch.randn(shape)
    names = [site.name for site in jali.sites(model, linear=True)]
    plan = random_plan(model, fractions) if what != "linear" else jali.plan(model, "magnitude", 0.5, sites=names)
    small = jali.compact(model, plan, x)
    want = small(x)
    moved = small.to("meta")
    assert {tensor.device.type for tensor in moved.state_dict().values()} == {"meta"}
    left = [value for module in moved.modules() for value in vars(module).values() if isinstance(value, torch.Tensor)]
    assert left == []  # a tensor that is no parameter and no buffer would stay behind
    got = moved(x.to("meta"))
    flat = [got] if what == "linear" else [got[0], *(got[1] if isinstance(got[1], tuple) else [got[1]])]
    assert all(tensor.device.type == "meta" for tensor in flat)
    assert flat[0].shape == (want if what == "linear" else want[0]).shape


STATES = {
    "rows mixed": lambda h, x: h.reshape(x.shape[0], -1),  # forgets that the states have the direction first
    "rows mixed, given width": lambda h, x: h.reshape(-1, 16),
    "right": lambda h, x: torch.cat((h[0], h[1]), -1),
}


@pytest.mark.parametrize("sequences", [1, 2, 3])
@pytest.mark.parametrize("what", STATES)
def test_sequences_that_are_mixed_up_are_seen_though_the_example_has_one(what, sequences):
    """A common mistake: with one sequence its outputs cannot be told from those of the right code."""
    torch.manual_seed(0)
    model = Model(lambda m, x: m.head(STATES[what](m.rnn(x)[1], x)))
    model.rnn, model.head = nn.GRU(4, 8, batch_first=True, bidirectional=True), nn.Linear(16, 3)
    plan = random_plan(model.eval(), (0.5,))
    small = jali.compact(model, plan, torch.randn(sequences, 6, 4))
    assert (small.head.in_features == 8) == (what == "right")
    x = torch.randn(4, 5, 4)
    torch.testing.assert_close(small(x), mask(model, plan)(x))


def test_shapes_that_differ_in_training_mode_only_are_seen():
    def forward(m, x):
        y = m.rnn(x)[0]
        return (m.head(y), y) if m.training else m.head(y)

    model, plan, x = model_of(forward)
    surgery = operate(model, plan, x)
    assert [note for note in surgery.notes if "in training mode" in note]
    assert surgery.compact.train()(x)[1].shape == (3, 6, 8)


@pytest.mark.parametrize("dropped", ["nothing", "by a layer", "between layers"])
def test_values_that_differ_in_training_mode_only_are_seen(dropped):
    """As many numbers as the layer has units, which a narrower layer gets others of; dropout layers do not hide it."""

    def forward(m, x):
        y = m.drop(m.rnn(x)[0])
        return m.head(y * torch.linspace(1, 2, y.shape[-1]).to(y) if m.training else y)

    model, plan, x = model_of(forward)
    model.drop = nn.Dropout(0.5 if dropped == "by a layer" else 0.0)
    if dropped == "between layers":
        model.rnn = nn.LSTM(4, 8, 2, batch_first=True, dropout=0.5)
        plan = random_plan(model.eval(), (0.5,))
    surgery = operate(model, plan, x)
    assert [note for note in surgery.notes if note.startswith(WHOLE) and "in training mode" in note]
    if dropped == "nothing":
        torch.testing.assert_close(surgery.compact.train()(x), mask(model, plan).train()(x))


DRAWN = {
    "nothing": lambda m, y: y,
    "a dropout layer": lambda m, y: m.drop(y),
    "a dropout function": lambda m, y: nn.functional.dropout(y, 0.5, m.training),
    "noise": lambda m, y: y + torch.randn(y.shape[:2])[..., None].to(y) if m.training else y,
}


@pytest.mark.parametrize("what", DRAWN)
def test_chance_in_training_mode_is_no_disagreement(what):
    model, plan, x = model_of(lambda m, x: m.head(DRAWN[what](m, m.rnn(x)[0])))
    model.drop = nn.Dropout(0.5)
    state = torch.random.get_rng_state()
    small = jali.compact(model, plan, x)
    assert small.head.in_features < 8, "it shrinks all the same"
    assert torch.equal(state, torch.random.get_rng_state())
    assert (small.drop.p, model.drop.p) == (0.5, 0.5)


@pytest.mark.parametrize("given", ["*inputs", "**inputs"])
def test_arguments_without_names_of_their_own_are_named_as_the_cause(given):
    class Positional(Model):
        def forward(self, *inputs):
            return self.head(self.rnn(inputs[0])[0])

    class Keywords(Model):
        def forward(self, **inputs):
            return self.head(self.rnn(inputs["x"])[0])

    torch.manual_seed(0)
    model, x = (Positional if given == "*inputs" else Keywords)(None).eval(), torch.randn(3, 6, 4)
    inputs = x if given == "*inputs" else {"x": x}
    surgery = operate(model, random_plan(model, (0.5,)), inputs)
    (note,) = (note for note in surgery.notes if note.startswith(WHOLE))
    assert f"its forward takes {given}; give its arguments names, each its own" in note


def test_a_hook_that_cannot_move_along_is_named_as_the_cause():
    model, plan, x = model_of(lambda m, x: m.head(m.rnn(x)[0]))
    model.rnn.register_forward_hook(lambda module, args, output: (output[0] + 1, output[1]))
    with pytest.raises(ModelError, match="the forward hooks of 'rnn' are not on its replacement"):
        jali.compact(model, plan, x)


def test_a_packed_sequence_and_its_state_are_not_resized_apart():
    """PyTorch takes a state of more rows than the packed sequence has; a cut layer does not."""
    torch.manual_seed(0)
    layer = nn.LSTM(1, 3).eval()
    x = torch.nn.utils.rnn.pack_padded_sequence(torch.randn(1, 1, 1), [1])
    args = (x, (torch.randn(1, 1, 3), torch.randn(1, 1, 3)))
    small = jali.compact(layer, random_plan(layer, (0.4,)), args)
    assert torch.isfinite(small(*args)[0].data).all()
