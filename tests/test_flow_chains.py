"""Random chains of tensor operations behind a layer: every claim at every node is true, and the cut is exact."""

import torch
from hypothesis import assume, event, given, note, settings
from hypothesis import strategies as st
from torch import fx, nn

from jali.batches import example
from jali.flow import Features, Units
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
            ("relu", lambda y, x: torch.relu(y)),
            ("times the input", lambda y, x: y * x),
            ("times one input", lambda y, x: x[0, 0, 0] * y),
            (f"times a size {a}", lambda y, x: y * y.shape[a]),
            (f"divided by a mean {a}", lambda y, x: y / x.abs().mean(-1, keepdim=True)),
            ("input @ it", lambda y, x: x @ y),
            ("it @ input", lambda y, x: y @ x),
        ])
    )  # fmt: skip


class Chain(nn.Module):
    """A layer on a (4, 4, 4) input, a chain of operations, a head on what comes out of it."""

    def __init__(self, hidden, steps, transposed):
        super().__init__()
        self.rnn, self.steps, self.transposed = nn.GRU(4, hidden, batch_first=True), steps, transposed
        self.head = nn.Identity()

    def before(self, x):
        y = self.rnn(x)[0]
        if self.transposed:
            y = y.transpose(1, 2)
        for function in self.steps:
            y = function(y, x)
        return y

    def forward(self, x):
        return self.head(self.before(x))


def chain(data, x, hidden):
    """A model with operations drawn one after the other, each of which can follow those before it."""
    steps = []
    model = Chain(hidden, steps, data.draw(st.booleans())).double().eval()
    for _ in range(data.draw(st.integers(1, 5))):
        y = model.before(x)
        name, function = data.draw(step(y.shape)) if y.dim() else ("", None)
        try:
            y = function(y, x) if function else y
        except (RuntimeError, IndexError):
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


@settings(max_examples=600)
@given(data=st.data())
def test_a_unit_is_seen_only_where_its_label_is(data):
    """At every node of any chain: without the unit, the entries with its label are zero and the others as they were.

    Batch, time, input and units all have 4 entries, so that nothing but the proof keeps the axes apart.
    """
    torch.manual_seed(0)
    x = torch.randn(4, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        model = chain(data, x, data.draw(st.sampled_from([4, 4, 4, 1])))
        graph = _graph(model, (x,), {}, ())
        walk = Walk(model, graph, Units(sites(model)), {}, frozenset())
        walk.run()
        unit = data.draw(st.integers(0, model.rnn.hidden_size - 1))

        def without(module, args, result):
            return torch.where(torch.arange(module.hidden_size) == unit, 0.0, result[0]), result[1]

        whole = values_of(model, graph, x)
        with model.rnn.register_forward_hook(without):
            missing = values_of(model, graph, x)
    for node, value in walk.values.items():
        if isinstance(value, Features):
            shown = (value.labels == unit).reshape(-1, *[1] * (-1 - value.axis))
            assert whole[node].shape[value.axis] == len(value.labels)
            assert torch.equal(missing[node], whole[node] * torch.from_numpy(~shown))
            event(f"{node.name} carries features")


@settings(max_examples=200)
@given(data=st.data())
def test_any_chain_of_operations_is_cut_soundly(data):
    torch.manual_seed(0)
    x = torch.randn(4, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        model = chain(data, x, 4)
        shape = model.before(x).shape
    assume(len(shape) > 0)
    model.head = nn.Linear(shape[-1], 2, dtype=torch.float64)
    plan = random_plan(model, (0.5,))
    cut, want = _cut(model, plan, example(x)).compact, mask(model, plan)(x)
    assert largest_difference(want, cut(x)) <= 1e-12 * max(1.0, float(want.detach().abs().max()))
    event("shrinks" if cut.head.in_features < model.head.in_features else "keeps its width")
