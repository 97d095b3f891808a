"""Schedules: closed forms at hand-computed moments, and laws that hold at all of them."""

import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jali.errors import JaliError, ScheduleError
from jali.schedule import SET, Cubic, OneShot, Periodic, Rewind, RigL

small, clocks = st.integers(1, 6), st.sampled_from(["step", "epoch"])
FINAL = st.floats(0.05, 0.99)


@st.composite
def rewinds(draw):
    to = draw(st.integers(0, 4))
    return Rewind(to + draw(small), draw(small), to)


cubics = st.builds(
    lambda start, length, every, clock: Cubic(start + length, start, min(every, length), clock=clock),
    st.integers(0, 5), st.integers(1, 20), small, clocks,
)  # fmt: skip
one_way = st.one_of(
    st.builds(OneShot, st.integers(0, 8), clocks), st.builds(Periodic, small, small, clocks), cubics, rewinds()
)
regrowing = st.builds(
    lambda every, more, clock: SET(every, every + more, clock=clock), small, st.integers(0, 14), clocks
) | st.builds(lambda every, more: RigL(every, every + more), small, st.integers(1, 14))


@given(schedule=one_way | regrowing, time=st.integers(0, 50))
def test_next_is_the_first_later_moment_that_is_due(schedule, time):
    later = [t for t in range(time + 1, 60) if schedule.due(t)]
    assert schedule.next(time) == (later[0] if later else None)
    assert schedule.due(schedule.last)
    assert schedule.next(schedule.last) is None


@given(schedule=one_way, final=FINAL)
def test_without_regrowth_the_sparsity_rises_to_the_budgets_and_changes_only_when_due(schedule, final):
    path = [schedule.sparsity(t, final) for t in range(schedule.last + 4)]
    assert path == sorted(path)
    assert path[schedule.last :] == [final] * 4
    assert all(0.0 <= s <= final for s in path)
    for t in range(1, len(path)):
        assert path[t] == path[t - 1] or schedule.due(t)
        assert schedule.regrow(t) == 0.0
    assert schedule.begin == 0 or path[schedule.begin - 1] == 0.0


@given(schedule=regrowing, final=FINAL)
def test_regrowth_keeps_the_sparsity_and_moves_weights_only_when_due(schedule, final):
    for t in range(schedule.last + 4):
        assert schedule.sparsity(t, final) == final
        assert 0.0 <= schedule.regrow(t) <= schedule.fraction
        assert schedule.regrow(t) == 0.0 or (t > 0 and schedule.due(t))


def test_cubic_at_its_start_its_middle_and_its_end():
    schedule = Cubic(end=110, start=10)
    assert schedule.sparsity(0, 0.9) == schedule.sparsity(10, 0.9) == 0.0
    assert schedule.sparsity(60, 0.9) == pytest.approx(0.9 * 7 / 8, abs=1e-15)  # 1 − (1/2)³
    assert schedule.sparsity(35, 0.9) == pytest.approx(0.9 * 37 / 64, abs=1e-15)  # 1 − (3/4)³
    assert schedule.sparsity(110, 0.9) == schedule.sparsity(999, 0.9) == 0.9
    assert Cubic(end=100, initial=0.5).sparsity(0, 0.9) == 0.5
    assert Cubic(end=100, initial=0.5).sparsity(50, 0.9) == pytest.approx(0.9 - 0.4 / 8, abs=1e-15)


def test_cubic_waits_between_its_changes_and_always_ends_at_its_end():
    schedule = Cubic(end=10, every=4)
    assert [t for t in range(20) if schedule.due(t)] == [0, 4, 8, 10]
    assert schedule.sparsity(7, 0.9) == schedule.sparsity(4, 0.9) == pytest.approx(0.9 * (1 - 0.6**3))


def test_a_change_at_the_start_and_one_at_the_end_are_a_schedule():
    assert [t for t in range(9) if Cubic(end=5, start=2, every=3).due(t)] == [2, 5]
    assert [t for t in range(9) if SET(5, 5).regrow(t)] == [5]
    assert [t for t in range(9) if RigL(3, 5).regrow(t)] == [3]


def test_every_round_removes_the_same_fraction_of_what_is_left():
    left = [1 - Periodic(2, 3).sparsity(t, 0.875) for t in range(8)]
    assert left == pytest.approx([1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125])


def test_rewinding_rounds_are_shorter_by_what_is_kept():
    schedule = Rewind(epochs=10, rounds=3, to=4)
    assert [t for t in range(40) if schedule.due(t)] == [10, 16, 22]
    assert [1 - schedule.sparsity(t, 0.875) for t in (9, 10, 15, 16, 22, 30)] == pytest.approx(
        [1, 0.5, 0.5, 0.25, 0.125, 0.125]
    )
    assert schedule.rewind_to == 4
    assert OneShot().rewind_to is None


def test_rigl_decays_as_a_cosine_and_set_does_not():
    schedule = RigL(every=25, end=100, fraction=0.4)
    wanted = [0.2 * (1 + math.sqrt(0.5)), 0.2, 0.2 * (1 - math.sqrt(0.5)), 0.0]
    assert [schedule.regrow(t) for t in (25, 50, 75, 100)] == pytest.approx(wanted, abs=1e-15)
    assert schedule.regrow(60) == schedule.regrow(0) == schedule.regrow(125) == 0.0
    assert [SET(5, 15, 0.4).regrow(t) for t in (0, 5, 7, 10, 15, 20)] == [0, 0.4, 0, 0.4, 0.4, 0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OneShot(-1), "OneShot: at=-1"),
        (lambda: OneShot(True), "at=True"),
        (lambda: OneShot(clock="batch"), "'batch'.*'step' or 'epoch'"),
        (lambda: Periodic(0, 3), "every=0"),
        (lambda: Periodic(1, 2.5), r"rounds=2\.5"),
        (lambda: Cubic(end=5, start=5), "end=5 is not after start=5"),
        (lambda: Cubic(end=5, every=0), "every=0"),
        (lambda: Cubic(end=5, initial=1.0), r"initial=1\.0.*\[0, 1\)"),
        (lambda: Cubic(end=5, initial=0.8).sparsity(0, 0.5), r"0\.8 is above .* 0\.5"),
        (lambda: Cubic(end=5, every=6), "every=6 is more than the 5 from start=0 to end=5; give a smaller every"),
        (lambda: Cubic(end=9, start=5, every=5), "every=5 is more than the 4 from start=5 to end=9"),
        (lambda: SET(6, 5), "SET: every=6 is more than end=5"),
        (lambda: RigL(6, 5), "RigL: every=6 is more than end=5"),
        (lambda: RigL(5, 5), "RigL: nothing moves at end=5"),
        (lambda: Rewind(3, 2, to=3), "to=3 is not before epochs=3"),
        (lambda: SET(1, 5, fraction=0.0), r"fraction=0\.0.*\(0, 1\)"),
        (lambda: SET(1, 5, fraction=float("nan")), "fraction=nan"),
        (lambda: SET(1, 5, start="best"), "'best'.*'random' nor 'criterion'"),
        (lambda: RigL(1, 5, clock="epoch"), "'step'.*batches of an epoch"),
        (lambda: OneShot().due(-1), "time=-1"),
        (lambda: Cubic(end=5).next(0.5), r"time=0\.5"),
    ],
)
def test_what_is_out_of_range_is_refused(make, message):
    with pytest.raises(ScheduleError, match=message) as caught:
        make()
    assert isinstance(caught.value, JaliError)
    assert isinstance(caught.value, ValueError)


def test_schedules_are_values_that_need_no_torch():
    assert Cubic(end=5) == Cubic(end=5) != Cubic(end=6)
    assert hash(RigL(1, 5)) == hash(RigL(1, 5))
    assert SET(1, 5) != RigL(1, 5)
    code = "import sys, jali.schedule; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
