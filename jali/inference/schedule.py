"""Which units share the lanes of a group, and in which steps their weights are multiplied: for weights without structure.

A step names two registers of W inputs, and each lane takes one of these 2 W. So the steps of a group are at least as many as
the entries of its longest lane, and half of ``Σ_r max_l e(l, r)``, e(l, r) being the entries of lane l in register r: units with
like profiles e(l, ·) go together, and a step is to lower these maxima.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
TURNS = (4, 3, 2, 1)  # how often a step may choose from its two registers
_FIRST = 4  # registers of most worth that are compared with all others; with all instead, steps are 1 % fewer
_CANDIDATES = 256  # units of like length that are compared for a group
_LENGTH = 0.9  # what an entry of a unit is worth to a group; 0.7 to 1.2 give the same number of steps within 1 %
_LATER = 0.1  # what an entry is worth beside one that lowers the maximum of its register
_POWER = 8  # of the share that a lane has left of the most that a lane has left


def alike(keep: NDArray[np.bool_], width: int) -> NDArray[np.int64]:
    """Groups (U / W, W) of units with like profiles; ``keep`` (U, C) are their entries, U and C multiples of W.

    Greedy: the longest unit left begins a group; W - 1 times that one joins which raises the group's maxima least for its length.
    """
    profile = keep.reshape(len(keep), -1, width).sum(-1).astype(np.uint8)  # at most W = 16 each
    length = profile.sum(1).astype(np.float32)
    left = np.argsort(-length, kind="stable")
    groups = []
    while len(left):
        group, top = [left[0]], profile[left[0]]
        others = left[1 : _CANDIDATES + 1]
        for _ in range(width - 1):
            raised = np.maximum(profile[others], top).sum(1) - _LENGTH * length[others]
            best = int(raised.argmin())
            group.append(others[best])
            top = np.maximum(top, profile[others[best]])
            others = np.delete(others, best)
        groups.append(group)
        left = np.concatenate([others, left[_CANDIDATES + 1 :]])
    return np.array(groups)


def turns_of(keep: NDArray[np.bool_], width: int) -> int:
    """How often to choose from the same two registers: as often as neighbouring ones serve every lane, if they do so evenly.

    That is n of m per row, where m divides two registers. Without such a pattern a second turn serves too few lanes.
    """
    columns = keep.shape[2] // (2 * width) * 2 * width
    counts = np.unique(keep[:, :, :columns].reshape(*keep.shape[:2], -1, 2 * width).sum(-1))
    largest = int(counts.max(initial=0))
    if keep[:, :, columns:].any() or set(counts.tolist()) - {0, largest}:
        return 1
    return next(turns for turns in TURNS if largest % turns == 0)


def schedule(keep: NDArray[np.bool_], width: int, turns: int = 1) -> tuple[NDArray[Any], ...]:
    """Orders the entries of ``keep`` (groups, W, C) into steps that each read two registers of W columns.

    Greedy: a step takes the two registers that are worth most, neighbours if it chooses more than once, and each lane takes one
    entry in each of its ``turns``. Returns the steps' groups (steps,), registers (steps, 2), columns (steps, turns, W) and
    whether a lane has an entry there (steps, turns, W), in no particular order.
    """
    n, lanes, columns = keep.shape
    parts = keep.reshape(n, lanes, columns // width, width)
    left = parts.sum(-1).astype(np.float32)  # (groups, W, registers)
    order = _entries_first(parts)
    done = np.zeros(left.shape, np.int64)
    live = np.flatnonzero(left.any((1, 2)))
    out: list[tuple[NDArray[Any], ...]] = []
    while len(live):
        worth = _worth(left[live]) if turns == 1 else left[live]
        a, b = _best_pair(worth) if turns == 1 else _best_neighbours(worth, turns)
        rows, lane, here = live[:, None], np.arange(lanes), np.arange(len(live))[:, None]
        served: list[tuple[NDArray[Any], NDArray[Any]]] = []
        for turn in range(turns):
            if turn:
                worth = left[live]
            in_a, in_b = worth[here, lane, a[:, None]], worth[here, lane, b[:, None]]
            register = np.where((in_b > in_a), b[:, None], a[:, None])
            taken = np.maximum(in_a, in_b) > 0
            position = np.minimum(done[rows, lane, register], width - 1)
            served.append((register * width + order[rows, lane, register, position], taken))
            left[rows, lane, register] -= taken
            done[rows, lane, register] += taken
        out.append((live, np.stack([a, b], 1), *(np.stack(parts, 1) for parts in zip(*served, strict=True))))
        live = live[left[live].any((1, 2))]
    if not out:
        empty = np.empty((0, turns, lanes), np.int64)
        return np.empty(0, np.int64), np.empty((0, 2), np.int64), empty, empty.astype(bool)
    group, registers, column, taken = (np.concatenate(p) for p in zip(*out, strict=True))
    return group, registers, column, taken


def _entries_first(parts: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Along the last axis, the places of the entries, in order; then zeros."""
    *where, place = np.nonzero(parts)
    order = np.zeros(parts.shape, np.int64)
    order[(*where, (parts.cumsum(-1, dtype=np.int64) - 1)[(*where, place)])] = place
    return order


def _worth(left: Floats) -> Floats:
    """What serving a lane from a register is worth (groups, W, registers): long lanes first, and entries above the others'."""
    length = left.sum(-1, keepdims=True)
    above = left - left.max(1, keepdims=True)  # 0 where the lane has most in this register
    worth: Floats = (left > 0) * (length / length.max(1, keepdims=True)) ** _POWER * (1 + np.float32(_LATER) ** -above)
    return worth


def _best_pair(worth: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Per group, the two registers from which its lanes get most, each from the better one."""
    n, lanes, registers = worth.shape
    single, count = worth.sum(1), min(_FIRST, registers)
    top = np.argpartition(-single, count - 1, axis=1)[:, :count]
    first = np.take_along_axis(worth, top[:, None], 2)  # (groups, W, count)
    both = np.zeros((n, count, registers), np.float32)
    for lane in range(lanes):
        both += np.maximum(first[:, lane, :, None], worth[:, lane, None, :])
    a, b = np.divmod(both.reshape(n, -1).argmax(1), registers)
    return top[np.arange(n), a], b


def _best_neighbours(left: Floats, turns: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Per group, the registers 2j and 2j + 1 that together serve most lanes and turns."""
    pairs = np.pad(left, ((0, 0), (0, 0), (0, left.shape[2] % 2))).reshape(*left.shape[:2], -1, 2).sum(-1)
    a = 2 * np.minimum(pairs, turns).sum(1).argmax(1)
    return a, np.minimum(a + 1, left.shape[2] - 1)
