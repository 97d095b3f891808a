"""Running moments are those of all rows at once; a mode lasts for its block only."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from jali.errors import DataError
from jali.modes import evaluation_mode
from jali.moments import Moments, check_finite


@given(
    widths=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    rows=st.lists(st.integers(0, 5), min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
def test_batch_by_batch_is_all_at_once(widths, rows, seed):
    rng = np.random.default_rng(seed)
    batches = [[rng.normal(size=(2, n, width)) for width in widths] for n in rows]
    moments = Moments(*widths)
    for parts in batches:
        moments.add(*(torch.from_numpy(part).float() for part in parts))
    whole = [np.concatenate([part[k].reshape(-1, w) for part in batches]) for k, w in enumerate(widths)]
    count = max(len(whole[0]), 1)
    pairs = [(i, j) for i in range(len(widths)) for j in range(i, len(widths))]
    want = [x.sum(0) / count for x in whole] + [whole[i].T @ whole[j] / count for i, j in pairs]
    assert moments.count == len(whole[0])
    for found, wanted in zip(moments.means(), want, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_states_that_are_not_finite_are_refused(value):
    check_finite(torch.ones(3), torch.zeros(0))
    with pytest.raises(DataError, match="NaN or infinite on the calibration data"):
        check_finite(torch.ones(3), torch.tensor([0.0, value]))


def test_every_module_gets_its_own_mode_back_also_after_an_error():
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout(), nn.Linear(2, 2)))
    model[1].eval()
    model[1][1].train()
    before = [module.training for module in model.modules()]
    assert len(set(before)) == 2
    with evaluation_mode(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == before
    with pytest.raises(ZeroDivisionError), evaluation_mode(model):
        1 / 0  # noqa: B018
    assert [module.training for module in model.modules()] == before
