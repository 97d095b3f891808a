"""The measurement of masked against compacted covers what it says, and would see a difference."""

from __future__ import annotations

import random

import pytest
import torch

import jali
from benchmarks.agreement import KINDS, LIMITS, agreement, combinations, difference

SAMPLE = random.Random(0).sample(combinations(), 40)  # noqa: S311  (no secret)


def test_every_combination_is_there_once() -> None:
    every = combinations()
    assert len(every) == len(set(every)) == len(KINDS) * 3 * 2**3 * 4 * 2 * 2
    assert {each.layers for each in every} == {1, 2, 3}
    assert {each.dtype for each in every} == set(LIMITS)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_a_sample_agrees_and_is_the_same_again() -> None:
    found = agreement(SAMPLE)
    assert sum(each["combinations"] for each in found) == len(SAMPLE)
    for each in found:
        assert each["largest"] <= each["limit"]
    assert agreement(SAMPLE) == found


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_a_difference_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = jali.mask

    def wrong(model: torch.nn.Module, plan: jali.Plan) -> torch.nn.Module:
        masked = mask(model, plan)
        with torch.no_grad():
            next(masked.parameters()).add_(1e-2)
        return masked

    chosen = SAMPLE[0]
    before = difference(chosen, 0)
    monkeypatch.setattr(jali, "mask", wrong)
    assert difference(chosen, 0) > max(1e-4, before)
