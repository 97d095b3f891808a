"""Copies of models, and of those that remember what they computed."""

import threading

import pytest
import torch
from torch import nn

import jali
from jali.copies import copy_of
from jali.errors import ModelError


class Remembers(nn.Module):
    """Keeps its last output and a log, as streaming models and those that show their attention do."""

    def __init__(self):
        super().__init__()
        self.rnn, self.last, self.log = nn.GRU(4, 8, batch_first=True), None, []

    def forward(self, x):
        self.last = self.rnn(x)[0]
        self.log.append({"states": (self.last,)})
        return self.last


def model_of() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(Remembers(), nn.Linear(8, 3)).eval()


def remembered(model: nn.Module) -> list[torch.Tensor]:
    return [model[0].last, *(entry["states"][0] for entry in model[0].log)]


def test_a_copy_shares_nothing_and_what_was_remembered_has_no_history():
    model, x = model_of(), torch.randn(2, 3, 4)
    want = model(x)
    assert all(tensor.grad_fn is not None for tensor in remembered(model))
    copied = copy_of(model)
    for old, new in zip(remembered(model), remembered(copied), strict=True):
        assert torch.equal(old, new)
        assert new.grad_fn is None
        assert old.data_ptr() != new.data_ptr()
    assert copied[0].last is copied[0].log[0]["states"][0]  # one tensor stays one
    assert all(a is not b for a, b in zip(model.parameters(), copied.parameters(), strict=True))
    assert torch.equal(copied(x), want)


@pytest.mark.parametrize("criterion", ["magnitude", "taylor", "reconstruction"])
def test_models_that_remember_are_pruned_and_keep_tensors_only(criterion, tmp_path):
    """Tracing runs their forward pass on stand-ins; none may stay behind in the caller's model."""
    model, x = model_of(), torch.randn(6, 3, 4)
    model(x).sum().backward()
    result = jali.prune(model, criterion, 0.5, [(x, torch.zeros(6, 3, 3))])
    assert result.model[1].in_features == 4
    jali.save(result.model, tmp_path, example_inputs=x)
    for place in (model, result.model):
        assert all(type(tensor) is torch.Tensor for tensor in remembered(place))


def test_what_cannot_be_copied_is_named():
    model = model_of()
    model[0].lock = threading.Lock()
    with pytest.raises(ModelError, match=r"Sequential cannot be copied \(TypeError: .*lock.*; remove what it holds"):
        jali.mask(model, jali.plan(model, "magnitude", 0.5))
