"""Random chains of tensor operations behind a layer: every claim at every node is true, and the cut is exact."""

import torch
from hypothesis import assume, event, given, note, settings
from hypothesis import strategies as st
from torch import fx, nn

from jali.batches import example
from jali.flow import Features, States, Units
from jali.flow.layout import Spread, Width
from jali.flow.trace import _graph
from jali.flow.walk import Walk
from jali.site import sites
from jali.surgery.compact import _cut
from jali.surgery.mask import mask
from tests.test_compact import largest_difference, random_plan


@st.composite
def step(draw, shape):
    """An operation on a tensor of ``shape``, as ``(name, function)``; function(y, x): y holds the states, x the input."""
    rank, axis = len(shape), st.integers(-len(shape), len(shape) - 1)
    items = [
        st.just(slice(None)),
        st.just(slice(None)),
        st.integers(0, 1),
        st.just(slice(0, 2)),
        st.just(slice(1, None)),
    ]
    tensors = [
        torch.tensor([1, 0]),
        torch.tensor([True, *[False] * 3]),
        torch.tensor(1),
        torch.tensor([[1, 0], [0, 1]]),
        *(torch.ones(*[4] * n, dtype=torch.bool) for n in (2, 3)),
    ]
    item = st.one_of(*items, st.none(), st.sampled_from(tensors))
    index = tuple(draw(st.lists(item, max_size=rank)))
    if draw(st.booleans()):
        index = (*index, Ellipsis) if draw(st.booleans()) else (Ellipsis, *index)
    a, b, order = draw(axis), draw(axis), draw(st.permutations(range(rank)))
    low, high = sorted((a % rank, b % rank))
    sizes = (*shape[:low], -1)
    return draw(
        st.sampled_from([
            (f"[{index}]", lambda y, x: y[index]),
            (f"[..., {low - rank}]", lambda y, x: y[..., low - rank]),
            (f"transpose {a} {b}", lambda y, x: y.transpose(a, b)),
            (f"permute {order}", lambda y, x: y.permute(*order)),
            (f"unsqueeze {a}", lambda y, x: y.unsqueeze(a)),
            (f"squeeze {a}", lambda y, x: y.squeeze(a)),
            (f"flatten {low} {high}", lambda y, x: y.flatten(low, high)),
            (f"reshape {sizes}", lambda y, x: y.reshape(sizes)),
            (f"reshape -1 {shape[a]}", lambda y, x: y.reshape(-1, shape[a])),
            (f"reshape {shape[a]} -1", lambda y, x: y.reshape(shape[a], -1)),
            (f"mean {a}", lambda y, x: y.mean(a)),
            (f"amax {low} {high}", lambda y, x: y.amax((low, high), keepdim=a == b)),
            (f"max {a}", lambda y, x: y.max(a)[0]),
            (f"cat with itself {a}", lambda y, x: torch.cat((y, y), a)),
            (f"cat with its transpose {a} {b}", lambda y, x: torch.cat((y, y.transpose(a, b)), low)),
            (f"cat with zeros {a}", lambda y, x: torch.cat((torch.zeros(shape).to(x), y), a)),
            (f"select {a} {b}", lambda y, x: y.select(a, b)),
            (f"unbind {a}", lambda y, x: y.unbind(a)[-1]),
            (f"stack of itself {a}", lambda y, x: torch.stack((y, y), a)),
            (f"stack of slices {a} {b}", lambda y, x: torch.stack((y.select(a, 0), y.select(a, 1)), b)),
            (f"hstack of slices {a}", lambda y, x: torch.hstack((y.select(a, 1), y.select(a, 0)))),
            (f"vstack of slices {a}", lambda y, x: torch.vstack((y.select(a, 1), y.select(a, 0)))),
            (f"dstack of slices {a}", lambda y, x: torch.dstack((y.select(a, 1), y.select(a, 0)))),
            (f"cat of slices {a} {b}", lambda y, x: torch.cat((y.narrow(a, 1, 2), y.narrow(a, 0, 1)), b)),
            (f"half {a}", lambda y, x: y.chunk(2, a)[1]),
            (f"reshape {(*shape[:low], 2, -1)}", lambda y, x: y.reshape(*shape[:low], 2, -1)),
            (f"rows of size {a}", lambda y, x: y.reshape(-1, y.size(a))),
            (f"expand {a}", lambda y, x: y.narrow(a, 0, 1).expand(*(4 if k == a % rank else -1 for k in range(rank)))),
            (f"expand to size {a}", lambda y, x: y.narrow(a, 0, 1).expand(*(y.size(k) for k in range(rank)))),
            (f"repeat {a}", lambda y, x: y.repeat(*(2 if k == a % rank else 1 for k in range(rank)))),
            (f"plus its transpose {a} {b}", lambda y, x: y + y.transpose(a, b)),
            (f"minus its reverse {a}", lambda y, x: y - y.flip(a)),
            (f"times its transpose {a} {b}", lambda y, x: y * y.transpose(a, b)),
            (f"sum up to {a}", lambda y, x: y.cumsum(a)),
            ("zeros by the input", lambda y, x: y.masked_fill(x > 0, 0)),
            (f"zeros by a mean {a}", lambda y, x: y.masked_fill(x.mean(a, keepdim=True) > 0, 0)),
            ("zeros by an expanded mask", lambda y, x: y.masked_fill((x[..., :1] > 0).expand_as(y), 0)),
            (f"where, of its transpose {a} {b}", lambda y, x: torch.where(x[:1, :1, :1] > 0, y, y.transpose(a, b))),
            (f"gather {a} by size {b}", lambda y, x: gathered(y, x, rank, a, b)),
            (f"transpose {a} {b}, flatten {low}", lambda y, x: y.transpose(a, b).flatten(low)),
            (f"rows side by side {low}", lambda y, x: torch.cat(tuple(y.select(low, k) for k in (1, 0, 2)), -1)),
            (f"gate by an expanded mask {low}", lambda y, x: y * (x[..., :1] > 0).to(x).expand(y.size())),
            ("relu", lambda y, x: torch.relu(y)),
            ("times the input", lambda y, x: y * x),
            ("times one input", lambda y, x: x[0, 0, 0] * y),
            (f"times a size {a}", lambda y, x: y * y.shape[a]),
            (f"divided by a mean {a}", lambda y, x: y / x.abs().mean(-1, keepdim=True)),
            ("input @ it", lambda y, x: x @ y),
            ("it @ input", lambda y, x: y @ x),
        ])
    )  # fmt: skip


def gathered(y, x, rank, dim, wide):
    """Positions from the input, expanded to all sizes of ``y`` but that of ``dim``; ``wide`` is read from ``y``."""
    index = (x[0, 0, 0] > 0).long().reshape((1,) * rank)
    sizes = [1 if k == dim % rank else y.size(k) if k == wide % rank else 4 for k in range(rank)]
    return y.gather(dim, index.expand(*sizes))


# What a chain starts from: (units, layers, two directions); batch, time, input and features always count 4.
STARTS = {
    "output": (4, 1, False),
    "features before time": (4, 1, False),
    "output of two directions": (2, 1, True),
    "states": (4, 2, True),
    "one unit": (1, 1, False),
}


class Chain(nn.Module):
    """A layer on a (4, 4, 4) input, a chain of operations, a head on what comes out of it."""

    def __init__(self, start, steps):
        super().__init__()
        hidden, layers, both = STARTS[start]
        self.rnn, self.steps, self.start = nn.GRU(4, hidden, layers, batch_first=True, bidirectional=both), steps, start
        self.head = nn.Identity()

    def before(self, x):
        y = self.rnn(x)[1 if self.start == "states" else 0]
        if self.start == "features before time":
            y = y.transpose(1, 2)
        for function in self.steps:
            y = function(y, x)
        return y

    def forward(self, x):
        return self.head(self.before(x))


def chain(data, x, start):
    """A model with operations drawn one after the other, each of which can follow those before it."""
    steps = []
    model = Chain(start, steps).double().eval()
    for _ in range(data.draw(st.integers(1, 5))):
        y = model.before(x)
        name, function = data.draw(step(y.shape)) if y.dim() else ("", None)
        try:
            y = function(y, x) if function else y
        except (RuntimeError, IndexError, ValueError):
            continue
        if function and 0 < y.numel() < 2000:
            note(name)
            steps.append(function)
    return model


def values_of(model, graph, x):
    """The tensor at every node of a graph."""
    interpreter = fx.Interpreter(model, garbage_collect_values=False, graph=graph)
    interpreter.run(x)
    return interpreter.env


def without(unit, model):
    """A hook that makes a unit zero in the output and in the states, where it has its label's place."""

    def hook(module, args, result):
        output, h = (value.clone() for value in result)
        if model.start == "states":
            h[unit // module.hidden_size, :, unit % module.hidden_size] = 0
        else:
            output[..., unit] = 0
        return output, h

    return hook


def check_value(value, whole, missing, unit):
    """What the walk says of one node against its tensor with and without the unit."""
    if isinstance(value, Features | States):
        shown = torch.from_numpy(value.labels == unit)
        if isinstance(value, Features):
            assert whole.shape[value.axis] == len(value.labels)
            shown = shown.reshape(-1, *[1] * (-1 - value.axis))
        assert torch.equal(missing, whole * ~shown)
    elif isinstance(value, Spread):
        assert whole.shape[value.axis] == len(value.labels)
        assert torch.equal(whole, whole.narrow(value.axis, 0, 1).expand_as(whole))
    elif isinstance(value, Width):
        assert whole == len(value.labels)


@settings(max_examples=500)
@given(data=st.data())
def test_a_unit_is_seen_only_where_its_label_is(data):
    """At every node of any chain: without the unit, the entries with its label are zero and the others as they were.

    Batch, time, input and units all have 4 entries, so that nothing but the proof keeps the axes apart.
    """
    torch.manual_seed(0)
    x = torch.randn(4, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        model = chain(data, x, data.draw(st.sampled_from(list(STARTS))))
        graph = _graph(model, (x,), {}, ())
        units = Units(sites(model))
        walk = Walk(model, graph, units, {}, frozenset())
        walk.run()
        unit = data.draw(st.integers(0, units.total - 1))
        whole = values_of(model, graph, x)
        with model.rnn.register_forward_hook(without(unit, model)):
            missing = values_of(model, graph, x)
    for node, value in walk.values.items():
        check_value(value, whole[node], missing[node], unit)
        event(f"{node.name.rstrip('_0123456789')} is {type(value).__name__}")


@settings(max_examples=250)
@given(data=st.data())
def test_any_chain_of_operations_is_cut_soundly(data):
    torch.manual_seed(0)
    x = torch.randn(4, 4, 4, dtype=torch.float64)
    start = data.draw(st.sampled_from([name for name in STARTS if name != "one unit"]))
    with torch.no_grad():
        model = chain(data, x, start)
        shape = model.before(x).shape
    assume(len(shape) > 0)
    model.head = nn.Linear(shape[-1], 2, dtype=torch.float64)
    plan = random_plan(model, data.draw(st.sampled_from([(0.5,), (0.5, 0.8)])))
    cut, want = _cut(model, plan, example(x)).compact, mask(model, plan)(x)
    assert largest_difference(want, cut(x)) <= 1e-12 * max(1.0, float(want.detach().abs().max()))
    event(f"{start} shrinks" if cut.head.in_features < model.head.in_features else f"{start} keeps its width")
