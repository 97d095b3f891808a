"""Tensors with many zeros take little room in a file, and come back as they were."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import jali
from jali.archive.sparse import BITS, VALUES, packed, unpacked
from jali.errors import FileError

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


@st.composite
def sparse_tensors(draw):
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    shape = tuple(draw(st.lists(st.integers(0, 40), max_size=3)))
    value = rng.normal(size=shape) * (rng.random(shape) < draw(st.sampled_from([0.0, 0.02, 0.1, 0.5, 1.0])))
    return torch.tensor(value).to(draw(st.sampled_from(DTYPES)))


@given(st.dictionaries(st.text(max_size=4), sparse_tensors(), max_size=3))
def test_what_is_packed_is_unpacked_and_never_larger(tensors):
    stored, shapes = packed(tensors)
    again = unpacked(stored, shapes)
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[n], t) and again[n].dtype == t.dtype for n, t in tensors.items())
    size = [sum(t.numel() * t.element_size() for t in group.values()) for group in (stored, tensors)]
    assert size[0] <= size[1]


def test_extreme_values_survive():
    tensor = torch.zeros(4096)
    tensor[[0, 7, 8, 4095]] = torch.tensor([float("nan"), float("inf"), -float("inf"), 1e-45])
    stored, shapes = packed({"w": tensor})
    assert stored["w" + VALUES].numel() == 4
    assert torch.equal(unpacked(stored, shapes)["w"].nan_to_num(7.0), tensor.nan_to_num(7.0))


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.LSTM(16, 64, batch_first=True), nn.Linear(64, 5)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


def test_a_masked_model_is_small_on_disk_and_bit_equal_when_loaded(tmp_path):
    torch.manual_seed(0)
    model, x = Tagger().eval(), torch.randn(3, 5, 16)
    masked = jali.mask(model, jali.plan(model, "magnitude", 0.9, pattern="weight"))
    for name, which in (("dense", model), ("masked", masked)):
        assert jali.save(which, tmp_path / f"{name}.safetensors", example_inputs=x)
    loaded = jali.load(tmp_path / "masked.safetensors")
    assert torch.equal(loaded(x), masked(x))
    assert torch.equal(loaded.rnn.weight_hh_l0 == 0, masked.rnn.weight_hh_l0 == 0)
    small, large = ((tmp_path / f"{name}.safetensors").stat().st_size for name in ("masked", "dense"))
    assert small < 0.25 * large  # 0.1 of the values, a bit for each, and the graph


CONTRADICTIONS = {
    "a value too many": lambda s, shapes: s.update({"w" + VALUES: torch.ones(9)}),
    "no values": lambda s, shapes: s.pop("w" + VALUES),
    "no bits": lambda s, shapes: s.pop("w" + BITS),
    "there twice": lambda s, shapes: s.update({"w": torch.ones(4096)}),
    "bits of another type": lambda s, shapes: s.update({"w" + BITS: s["w" + BITS].float()}),
    "a larger shape": lambda s, shapes: shapes.update(w=[64, 65]),
    "a huge shape": lambda s, shapes: shapes.update(w=[2**62]),
    "a negative size": lambda s, shapes: shapes.update(w=[-64, -64]),
    "no shape": lambda s, shapes: shapes.update(w="64"),
    "a size that is no number": lambda s, shapes: shapes.update(w=[True, 4096]),
}


@pytest.mark.parametrize("change", CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_contradictions_are_refused(change):
    tensor = torch.zeros(64, 64)
    tensor[3, :8] = 1.0
    stored, shapes = packed({"w": tensor})
    change(stored, shapes)
    with pytest.raises(FileError, match="sparse tensor 'w'"):
        unpacked(stored, shapes)


def test_a_damaged_list_of_sparse_tensors_is_refused():
    with pytest.raises(FileError, match="sparse tensors is damaged"):
        unpacked({}, ["w"])


def test_set_bits_behind_the_end_are_refused():
    tensor = torch.zeros(1001)
    tensor[0] = 1.0
    stored, shapes = packed({"w": tensor})
    stored["w" + BITS][-1] |= 1
    stored["w" + VALUES] = torch.ones(2)
    with pytest.raises(FileError, match="places"):
        unpacked(stored, shapes)


def test_names_that_would_collide_stay_as_they_are():
    tensors = {"w": torch.zeros(4096), "w:bits": torch.ones(3)}
    stored, shapes = packed(tensors)
    assert not shapes
    assert all(torch.equal(stored[name], tensor) for name, tensor in tensors.items())


def test_what_saves_little_stays_as_it_is():
    stored, shapes = packed({"w": torch.zeros(100)})
    assert set(stored) == {"w"}
    assert not shapes
