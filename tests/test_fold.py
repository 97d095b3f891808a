"""Folding: exact where the removed units are copies of kept ones, and never far behind the plain cut."""

import numpy as np
import pytest
import torch
from torch import nn

import jali
from jali.plans import Budget, Plan, SitePlan
from jali.surgery.decode import Moments
from jali.view import read, sites, write


class Classifier(nn.Module):
    def __init__(self, cls, **options):
        super().__init__()
        self.rnn = cls(4, 12, batch_first=True, **options)
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


@pytest.mark.parametrize("options", [{}, {"bias": False}], ids=["bias", "no bias"])
@pytest.mark.parametrize("cls", [nn.LSTM, nn.GRU, nn.RNN])
def test_copies_are_folded_into_their_originals(cls, options):
    """Unit k + 6 computes what unit k computes, so cutting it loses nothing that a fold cannot restore."""
    torch.manual_seed(0)
    model = Classifier(cls, **options).double().eval()
    site = sites(model)[0]
    view = read(model, site)
    arrays = {}
    for field, value in view.arrays():
        value = value.copy()
        value[:, 6:] = value[:, :6]
        arrays[field] = value
    write(model, view.replace(**arrays))
    plan = Plan("unit", "x", Budget(0.5), (SitePlan(site.name, site.kind, 12, tuple(range(6, 12)), (0.0,) * 12),))
    x = torch.randn(256, 9, 4, dtype=torch.float64)
    want = model(x)
    cut, folded = jali.compact(model, plan, x[:2]), jali.compact(model, plan, x[:2], fold=x)
    # The ridge (1e-4 of the mean variance) bends the fit by about as much.
    assert float((folded(x) - want).norm() / want.norm()) < 5e-3
    assert float((cut(x) - want).norm() / want.norm()) > 5e-2


@pytest.mark.parametrize("count", [1, 2, 8])
def test_tiny_calibration_gives_finite_weights(count):
    torch.manual_seed(0)
    model = Classifier(nn.LSTM)
    result = jali.prune(model, "magnitude", 0.5, torch.randn(count, 5, 4))
    assert all(torch.isfinite(parameter).all() for parameter in result.model.parameters())


def test_decoder_solves_the_ridge_problem_and_knows_its_error():
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(50, 3)), rng.normal(size=(50, 4))
    moments = Moments(3, 4)
    moments.add(torch.from_numpy(z[:20]), torch.from_numpy(y[:20]))
    moments.add(torch.from_numpy(z[20:]), torch.from_numpy(y[20:]))
    a, c = moments.solve(1e-12, np.zeros((4, 3)), offset=True)
    design = np.column_stack((z, np.ones(50)))
    exact = np.linalg.lstsq(design, y, rcond=None)[0]
    np.testing.assert_allclose(np.vstack((a.T, c)), exact, atol=1e-8)
    reader = rng.normal(size=(2, 4))
    direct = ((y - z @ a.T - c) @ reader.T) ** 2
    np.testing.assert_allclose(moments.error((a, c), reader), direct.sum(1).mean(), rtol=1e-9)
    prior = rng.normal(size=(4, 3))
    np.testing.assert_allclose(moments.solve(1e12, prior, offset=True)[0], prior, atol=1e-8)
