"""Packed weights hold exactly the matrix, in every format, width and pattern."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jali.errors import ModelError, PlanError
from jali.inference.packing import FORMATS, Packed, _least_cost, cost, pack, schedule
from jali.plans.pattern import Pattern


def unpack(packed: Packed) -> np.ndarray:
    """The matrix that the kernels would multiply with, found by reading the steps as the format's table describes them."""
    gates, _, columns = packed.shape
    w = packed.width
    out = np.zeros((gates * packed.padded, -(-columns // w) * w + w), np.float32)
    for g in range(len(packed.starts) - 1):
        for k in range(packed.starts[g], packed.starts[g + 1]):
            for turn, v, lane in np.ndindex(packed.values.shape[1:]):
                if packed.format == "rows":
                    row, column = packed.targets[g, v] // (4 * w), packed.index[k, v]
                else:
                    place = packed.targets[g, 0] // 4 + lane
                    unit = int(np.flatnonzero(packed.places == place)[0]) if packed.scattered else place
                    row, column = unit + v * packed.padded, packed.index[k, 0]
                if packed.format in ("lanes", "aligned"):
                    choice = int(packed.select[k, turn, lane])
                    column = packed.index[k, choice // w] * w + choice % w
                out[row, column] += packed.values[k, turn, v, lane]
    assert not out[:, columns:].any()
    return out[:, :columns].reshape(gates, packed.padded, columns)


@st.composite
def matrices(draw: st.DrawFn) -> np.ndarray:
    shape = (
        draw(st.sampled_from([1, 3, 4])),
        draw(st.sampled_from([1, 5, 16, 37])),
        draw(st.sampled_from([1, 7, 33, 70])),
    )
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    weights = rng.standard_normal(shape).astype(np.float32)
    pattern = draw(st.sampled_from(["weight", "gate-aligned", "block:16x1", "block:4x3", "3:32", "2:4"]))
    groups = Pattern.parse(pattern).groups(shape)
    return weights * (rng.random(groups.max() + 1) < draw(st.sampled_from([0, 0.05, 0.3, 1])))[groups]


@given(matrices(), st.sampled_from([4, 8, 16]), st.sampled_from([*FORMATS, None]))
def test_a_packed_matrix_is_the_matrix(weights: np.ndarray, width: int, form: str | None) -> None:
    packed = pack(weights, width, form)
    full = unpack(packed)
    assert np.array_equal(full[:, : weights.shape[1]], weights)
    assert not full[:, weights.shape[1] :].any()
    assert packed.nonzero == np.count_nonzero(weights) <= packed.stored
    assert all(a.ctypes.data % 64 == 0 for a in (packed.starts, packed.index, packed.values) if a.size)


@given(st.integers(0, 50), st.sampled_from([4, 8, 16]), st.floats(0, 1), st.integers(1, 4))
def test_a_schedule_serves_every_entry_once_from_its_two_registers(
    seed: int, width: int, density: float, turns: int
) -> None:
    keep = np.random.default_rng(seed).random((3, width, 4 * width)) < density
    group, registers, column, taken = schedule(keep, width, turns)
    assert column.shape == taken.shape == (len(group), turns, width)
    seen = np.zeros(keep.shape, int)
    step, turn, lane = np.nonzero(taken)
    np.add.at(seen, (group[step], lane, column[step, turn, lane]), 1)
    assert np.array_equal(seen, keep)
    first, second = registers[:, None, :1], registers[:, None, 1:]
    assert ((column // width == first) | (column // width == second))[taken].all()


@given(matrices(), st.sampled_from([4, 8, 16]), st.sampled_from(["lanes", "aligned", "rows"]), st.sampled_from([1, 64]))
def test_no_packing_costs_less_than_its_least(weights: np.ndarray, width: int, form: str, batch: int) -> None:
    assert _least_cost(form, weights, width, batch) <= cost(pack(weights, width, form), batch) + 1e-6


def test_patterns_fill_the_formats_made_for_them() -> None:
    rng = np.random.default_rng(0)
    shape = (4, 64, 128)
    weights = rng.standard_normal(shape).astype(np.float32)
    n_of_m = weights * Pattern.parse("3:32").keep_per_row(rng.random(shape))
    lanes = pack(n_of_m, 16, "lanes")
    assert lanes.stored == lanes.nonzero
    assert lanes.turns == 3
    assert not lanes.scattered
    block = weights * np.repeat(rng.random((4, 4, 128)) < 0.1, 16, axis=1)
    assert pack(block, 16).format == "tiles"
    assert pack(block, 16).stored == np.count_nonzero(block)
    aligned = weights * (rng.random((1, 64, 128)) < 0.1)
    assert pack(aligned, 16).format == "aligned"
    assert pack(weights * (rng.random(shape) < 0.1), 16).format == "lanes"
    assert pack(weights * (rng.random(shape) < 0.1), 16, batch=64).format == "rows"
    assert pack(weights, 16).format == "tiles"
    assert pack(weights, 16).gates == 4
    uneven = weights * (rng.random(shape) < rng.uniform(0, 0.2, (4, 64, 1)))
    assert pack(uneven, 16, "lanes").stored < 0.8 * 16 * (uneven != 0).reshape(-1, 16, 128).sum(2).max(1).sum()


def test_block_diagonal_stores_only_its_blocks() -> None:
    blocks = np.kron(np.eye(4), np.ones((16, 16))).astype(np.float32)
    packed = pack(blocks[None], 16)
    assert packed.format == "tiles"
    assert packed.stored == 4 * 16 * 16


def test_groups_come_by_length_and_cost_grows_with_the_batch() -> None:
    weights = np.random.default_rng(0).random((4, 80, 50)) < 0.2
    for form in FORMATS:
        packed = pack(weights, 16, form)
        assert (np.diff(packed.starts, 2) >= 0).all()
        assert cost(packed, 64) > cost(packed, 1) > 0


@pytest.mark.parametrize(
    ("weights", "form", "error"),
    [
        (np.full((1, 2, 2), np.nan), None, ModelError),
        (np.ones((2, 2)), None, ModelError),
        (np.ones((1, 0, 2)), None, ModelError),
        (np.ones((1, 2, 2)), "csr", PlanError),
    ],
)
def test_what_cannot_be_packed_is_refused(weights: np.ndarray, form: str | None, error: type[Exception]) -> None:
    with pytest.raises(error):
        pack(weights, 16, form)
