"""Calibration data in the forms that people have it, and one clear error for what is none."""

import math
from collections import OrderedDict, namedtuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from torch.utils.data import DataLoader, TensorDataset

import jali
from jali.batches import Batch, batches, device_of, example, map_leaves, run, tensors_in
from jali.errors import DataError
from jali.plain import an

X, Y = torch.arange(24.0).reshape(2, 4, 3), torch.tensor([0, 1])
PACKED = pack_padded_sequence(X, torch.tensor([4, 2]), batch_first=True)


class Net(nn.Module):
    """Takes its input by position or by name, padded or packed."""

    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.GRU(3, 6, batch_first=True), nn.Linear(6, 2)

    def forward(self, x, h=None):
        return self.head(self.rnn(x, h)[1][-1])


def net():
    torch.manual_seed(0)
    return Net()


def loader(*tensors, size=1):
    return DataLoader(TensorDataset(*tensors), batch_size=size)


class Once:
    """An iterable that counts how often it is read."""

    def __init__(self, items):
        self.items, self.reads = items, 0

    def __iter__(self):
        self.reads += 1
        return iter(self.items)


def same(one, other):
    """Equal values, tensors and packed sequences included, of the same types."""
    if isinstance(one, PackedSequence):
        return isinstance(other, PackedSequence) and all(
            (a is None and b is None) or torch.equal(a, b) for a, b in zip(one, other, strict=True)
        )
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple | list):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return one == other


# --- what is understood ----------------------------------------------------------------------------------------------

FORMS = {
    "a tensor": (X, [((X,), {}, None)]),
    "a packed sequence": (PACKED, [((PACKED,), {}, None)]),
    "a batch": (Batch((X,)), [((X,), {}, None)]),
    "a list of tensors": ([X, X + 1], [((X,), {}, None), ((X + 1,), {}, None)]),
    "a tuple of three tensors": ((X, X, X), [((X,), {}, None)] * 3),
    "a generator": ((X + k for k in range(2)), [((X,), {}, None), ((X + 1,), {}, None)]),
    "packed sequences": ([PACKED, PACKED], [((PACKED,), {}, None)] * 2),
    "pairs": ([(X, Y), [X, Y]], [((X,), {}, Y)] * 2),
    "pairs of packed": ([(PACKED, Y)], [((PACKED,), {}, Y)]),
    "pairs with several arguments": ([((X, None), Y)], [((X, None), {}, Y)]),
    "pairs with a list of arguments": ([([X], Y)], [((X,), {}, Y)]),
    "pairs with keywords": ([({"x": X}, Y)], [((), {"x": X}, Y)]),
    "pairs without a target": ([(X, None)], [((X,), {}, None)]),
    "pairs with a target of any kind": ([(X, {"label": Y})], [((X,), {}, {"label": Y})]),
    "keywords": ([{"x": X}, OrderedDict(x=X)], [((), {"x": X}, None)] * 2),
    "single items": ([(X,), [X]], [((X,), {}, None)] * 2),
    "a loader of inputs": (loader(X), [((X[:1],), {}, None), ((X[1:],), {}, None)]),
    "a loader of pairs": (loader(X, Y, size=2), [((X,), {}, Y)]),
}


@pytest.mark.parametrize("form", sorted(FORMS))
def test_every_form_gives_the_arguments_and_the_target_of_each_call(form):
    data, want = FORMS[form]
    found = batches(data)
    assert len(found) == len(want)
    for batch, (args, kwargs, target) in zip(found, want, strict=True):
        assert same(batch.args, args)
        assert same(dict(batch.kwargs), kwargs)
        assert same(batch.target, target)


@given(st.lists(st.sampled_from([0, 1, 2]), min_size=1, max_size=5))
def test_batches_come_in_the_order_of_the_data(kinds):
    made = [(X + k, (X + k, Y), {"x": X + k})[kind] for k, kind in enumerate(kinds)]
    for k, batch in enumerate(batches(iter(made))):
        assert torch.equal(tensors_in((batch.args, dict(batch.kwargs)))[0], X + k)
        assert (batch.target is not None) == (kinds[k] == 1)


def test_batches_of_batches_are_the_same_batches():
    first = batches([(X, Y), X])
    assert all(one is other for one, other in zip(first, batches(first), strict=True))


@pytest.mark.parametrize("verb", [jali.plan, jali.prune])
@pytest.mark.parametrize("criterion", ["taylor", "reconstruction"])
def test_data_is_read_once_so_that_a_generator_is_enough(verb, criterion):
    data = Once([(X, Y), (X + 1, Y)])
    from_list = verb(net(), criterion, 0.5, list(data.items))
    from_iterable = verb(net(), criterion, 0.5, data)
    assert data.reads == 1
    from_generator = verb(net(), criterion, 0.5, (item for item in data.items))
    plans = [getattr(made, "plan", made) for made in (from_list, from_iterable, from_generator)]
    assert plans[0] == plans[1] == plans[2]


@pytest.mark.parametrize(
    "data",
    [[(X, Y)], [({"x": X}, Y)], [((X, None), Y)], [((X,), Y)], loader(X, Y, size=2)],
    ids=["pair", "keywords", "arguments", "single", "loader"],
)
def test_the_same_data_in_another_form_gives_the_same_plan(data):
    want = jali.plan(net(), "taylor", 0.5, [(X, Y)])
    assert jali.plan(net(), "taylor", 0.5, data) == want


def test_a_packed_sequence_calibrates():
    full = pack_padded_sequence(X, torch.tensor([4, 4]), batch_first=True)
    want = jali.plan(net(), "reconstruction", 0.5, X)
    packed = jali.plan(net(), "reconstruction", 0.5, full)
    np.testing.assert_allclose(packed.sites[0].scores, want.sites[0].scores)


@pytest.mark.parametrize(
    ("inputs", "args", "kwargs"),
    [(X, (X,), {}), ((X, None), (X, None), {}), ([X], (X,), {}), ({"x": X}, (), {"x": X}), (PACKED, (PACKED,), {})],
    ids=["tensor", "tuple", "list", "dict", "packed"],
)
def test_example_inputs_are_the_arguments_of_one_call(inputs, args, kwargs):
    batch = example(inputs)
    assert same(batch.args, args)
    assert same(dict(batch.kwargs), kwargs)
    assert batch.target is None


@pytest.mark.parametrize("inputs", ["x", 3, {1}, torch.nn.ReLU()], ids=repr)
def test_example_inputs_of_another_kind_are_named(inputs):
    with pytest.raises(DataError, match=f"the example inputs are {an(type(inputs).__name__)}; give a tensor"):
        example(inputs)


Pair = namedtuple("Pair", "h c")


def test_moving_a_batch_keeps_every_container_and_value():
    inside = {"pair": Pair(X, Y), "list": [X, (Y, None)], "packed": PACKED, "flag": True, "text": "a"}
    moved = Batch((inside,), {"k": [Y]}, (X, 3)).to(torch.device("meta"))
    assert isinstance(moved.args[0]["pair"], Pair)
    assert [type(value) for value in moved.args[0].values()] == [type(value) for value in inside.values()]
    assert {tensor.device.type for tensor in tensors_in((moved.args, dict(moved.kwargs), moved.target))} == {"meta"}
    back = Batch((inside,), {"k": [Y]}, (X, 3)).to(torch.device("cpu"))
    assert same(back.args[0], inside)
    assert moved.target[1] == 3


def test_tensors_are_found_in_any_nesting():
    found = tensors_in({"a": [X, (Y, {"b": PACKED})], "c": "text", "d": None, "e": Pair(X, 1)})
    assert [id(tensor) for tensor in found] == [id(X), id(Y), id(PACKED.data), id(X)]
    assert tensors_in(3) == []


def test_the_device_is_that_of_the_parameters():
    assert device_of(nn.Linear(1, 1, device="meta")).type == "meta"
    assert device_of(nn.Identity()).type == "cpu"


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("data.pt", "data is a str; give a tensor"),
        (b"data", "data is a bytes"),
        ({"x": X}, "data is a dict"),
        (3, "data is an int"),
        (net, "data is a function"),
        ([], "no batch.*generator"),
        (iter(()), "no batch"),
        (DataLoader(TensorDataset(X[:0])), "no batch"),
        ((X, Y), r"tuple of two tensors; give \[\(x, y\)\]"),
        ((PACKED, Y), "tuple of two tensors"),
        (X[:0], r"batch 0 has an empty tensor of shape \(0, 4, 3\)"),
        ([X, X[:, :0]], r"batch 1 has an empty tensor of shape \(2, 0, 3\)"),
        ([(X, Y), {"x": X, "h": X[:0]}], "batch 1 has an empty tensor"),
        (X * math.nan, "batch 0 has NaN or infinite"),
        ([X, torch.where(X == 5, math.inf, X)], "batch 1 has NaN or infinite"),
        ([((X, [X * math.nan]), Y)], "batch 0 has NaN or infinite"),
        (PACKED._replace(data=PACKED.data * math.nan), "batch 0 has NaN or infinite"),
        ([3], "a batch is an int; give a tensor"),
        ([None], "a batch is a NoneType"),
        (["a"], "a batch is a str"),
        ([[1.0, 2.0]], "a batch is a list of 2 items"),
        ([(X, Y, Y)], "a batch is a tuple of 3 items"),
        ([()], "a batch is a tuple of 0 items"),
        (np.zeros((2, 4, 3)), "a batch is a ndarray; give a tensor"),
        ([(np.zeros((2, 4, 3)), Y)], "a batch is a tuple of 2 items"),
    ],
    ids=lambda value: str(value)[:30].replace("\n", " ") if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_data_is_refused_with_a_remedy(data, message):
    with pytest.raises(DataError, match=message):
        batches(data)


def test_a_generator_that_was_used_before_is_empty():
    data = (x for x in [X])
    batches(data)
    with pytest.raises(DataError, match="used before"):
        batches(data)


@pytest.mark.parametrize("criterion", ["taylor", "reconstruction"])
@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.zeros(2, 4, 7), r"Net cannot run on inputs of shape \[\(2, 4, 7\)\].*3"),
        (torch.zeros(2, 4, 3, 3), r"shape \[\(2, 4, 3, 3\)\]"),
        (torch.zeros(2, 4, 3, dtype=torch.float64), "cannot run"),
        (torch.zeros(2, 4, 3, dtype=torch.long), "cannot run"),
        ({"z": X}, "unexpected keyword argument 'z'"),
        ((X, None, None), "positional argument"),
        ((X, torch.zeros(1, 2, 5)), r"shape \[\(2, 4, 3\), \(1, 2, 5\)\].*hidden"),
        ({}, "missing 1 required"),
    ],
    ids=["width", "dimensions", "double", "integers", "keyword", "arguments", "state", "nothing"],
)
def test_data_that_does_not_fit_the_model_is_refused_with_its_shape(criterion, inputs, message):
    with pytest.raises(DataError, match=message):
        jali.plan(net(), criterion, 0.5, [(inputs, Y)])


def test_a_batch_of_two_inputs_is_told_from_one_with_its_target():
    class Two(Net):
        def forward(self, x, other):
            return super().forward(x) + other[:, None]

    with pytest.raises(DataError, match=r"missing 1 .*'other'; .*give \(\(a, b\), target\)"):
        jali.plan(Two(), "reconstruction", 0.5, [(X, Y)])
    assert jali.plan(Two(), "reconstruction", 0.5, [((X, Y), None)]).sparsity == 0.5
    with pytest.raises(DataError, match=r"7$"):  # a wrong width is no question of arguments
        jali.plan(net(), "reconstruction", 0.5, [(torch.zeros(2, 4, 7), Y)])


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (None, "target"),
        (torch.tensor([0, 1, 1]), r"\(3,\)"),
        (torch.zeros(2, 3), r"output \(2, 2\) and target \(2, 3\) differ"),
        ("cat", "pass loss="),
        ({"label": Y}, "pass loss="),
    ],
    ids=["none", "count", "shape", "text", "dict"],
)
def test_targets_that_fit_no_default_loss_are_refused(target, message):
    with pytest.raises(DataError, match=message):
        jali.plan(net(), "taylor", 0.5, [(X, target)])


def test_a_loss_of_ones_own_reads_any_target():
    plan = jali.plan(
        net(), "taylor", 0.5, [(X, {"label": Y})], loss=lambda o, t: nn.functional.cross_entropy(o, t["label"])
    )
    assert plan.sites == jali.plan(net(), "taylor", 0.5, [(X, Y)]).sites


def test_running_moves_nothing_and_changes_nothing():
    model, batch = net(), Batch((X,), {"h": None}, Y)
    assert torch.equal(run(model, batch), model(X))
    assert batch.args[0] is X


class Failing(torch.utils.data.Dataset):
    """The third sample cannot be read."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        if index == 2:
            raise OSError("the disk with the data is gone")
        return torch.zeros(3, 2)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_that_raises_while_it_is_read_is_one_error_with_its_cause(workers):
    loader = torch.utils.data.DataLoader(Failing(), batch_size=1, num_workers=workers)
    with pytest.raises(DataError, match=r"DataLoader raised OSError: the disk.*gone.* at batch 2; mend") as caught:
        batches(loader)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(DataError, match="of its own"):
        batches(fails for fails in map(_raise, [DataError("of its own")]))


def _raise(error):
    raise error


def test_mapping_keeps_the_form_and_changes_every_leaf():
    Pair = namedtuple("Pair", "a b")
    value = {"x": [torch.ones(2), (3, None)], "y": Pair(PACKED, "s")}
    found = map_leaves(lambda leaf: leaf * 2 if isinstance(leaf, torch.Tensor) else [leaf], value)
    assert torch.equal(found["x"][0], torch.full((2,), 2.0))
    assert found["x"][1] == ([3], [None])
    assert isinstance(found["y"], Pair)
    assert found["y"].a == [PACKED]  # a named tuple, too, but one leaf
    assert found["y"].b == ["s"]


def test_mapped_inputs_leave_the_batch_as_it_was_and_have_no_target():
    batch = Batch((torch.ones(2),), {"k": torch.ones(3)}, target=torch.ones(1))
    doubled = batch.map_inputs(lambda leaf: leaf.double())
    assert [tensor.dtype for tensor in tensors_in((doubled.args, doubled.kwargs))] == [torch.float64] * 2
    assert doubled.target is None
    assert batch.args[0].dtype == torch.float32


def test_constant_data_are_told(caplog):
    batches([torch.zeros(2, 3), torch.zeros(1, 3)])
    assert "every number of the calibration data is 0:" in caplog.text
    caplog.clear()
    batches([torch.zeros(2, 3), torch.ones(1, 3)])
    batches([torch.zeros(2, 3), torch.arange(3.0)])
    batches(torch.ones(1))  # a single number cannot vary
    batches(torch.zeros(3, dtype=torch.long))  # words of a vocabulary are no measurements
    assert not caplog.text
