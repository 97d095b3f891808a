"""What the flow proves, an archive can hold: cut models come back bit for bit, built of listed operations only."""

import pytest
import torch

import jali
from jali.batches import tensors_in
from tests.test_compact import random_plan
from tests.test_flow import TABLE, model_of

NAMES = (
    "step by select", "step by select of a computed step", "step by unbind", "final states by unbind, the other order",
    "final states, hstack", "steps, vstack", "steps, dstack", "final states stacked and flattened",
    "final states, batch first, flattened", "final states, by layer and direction", "step repeated",
    "step repeated as its sequence", "step repeated in memory", "maximum over time", "pooling module",
    "residual of two steps", "larger of two steps", "directions swapped, unpacked", "steps by chunk and split",
    "masked by zeros", "masked by a mask expanded as the output", "chosen by where", "last valid step by gather",
    "last valid step, along", "steps as rows of their own width", "sum up to each step", "backwards in time",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_cut_model_is_stored_and_comes_back_bit_for_bit(name, tmp_path):
    assert TABLE[name][-1], "only what shrinks"
    model, x, _ = model_of(name)
    small = jali.compact(model, random_plan(model, (0.5,)), x)
    assert jali.save(small, tmp_path / "model", example_inputs=x)
    want, got = tensors_in(small(x)), tensors_in(jali.load(tmp_path / "model")(x))
    assert len(want) == len(got) > 0
    assert all(torch.equal(a, b) for a, b in zip(want, got, strict=True))
