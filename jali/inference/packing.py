"""Weights of one gate matrix, packed for the kernels. Pure numpy; exact for every pattern, chosen by estimated cost.

A matrix (G, H, C) becomes lists of steps, one list per group of W consecutive units of one gate (H is padded to whole groups;
the padding units have weight 0):

==============  =====================================================================================================
format          a step is
==============  =====================================================================================================
``tiles``       one column and its W weights, or W for each gate: dense gates, and blocks of 16 rows that share their columns
``lanes``       two registers of W inputs, and in some turns per lane one of these and its weight: any pattern, ``n:m`` best
``aligned``     as ``lanes``, with one choice of inputs and a weight per gate: gates that share their columns
``rows``        one column and weight for each of 4 rows, for W sequences at once: any pattern, for larger batches
==============  =====================================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jali.errors import ModelError, PlanError
from jali.inference.schedule import TURNS, alike, schedule, turns_of

Floats = NDArray[np.float32]
FORMATS = ("tiles", "lanes", "aligned", "rows")
ROWS_AT_ONCE = 4
_ALIGNMENT = 64
_MAX_COLUMNS = 2**16  # what an index of 16 bits can name
_NATURAL: NDArray[np.int32] = np.empty(0, np.int32)  # no places: sums in the order of the units
_FULL = 0.9  # tiles this full are not beaten: the other formats store an index per weight


@dataclass(frozen=True)
class Packed:
    """One packed gate matrix.

    ``starts`` (groups + 1) delimits the groups' steps; ``index`` (steps, 1) holds columns for ``tiles``, else (steps, 2)
    the numbers of the two registers; ``select`` (steps, turns, W) the lanes' choices, empty for ``tiles``;
    ``values`` (steps, turns, V, W) the weights of V gates, 1 or G. ``rows`` has (steps, 4) columns and (steps, 1, 4, 1) weights,
    and its inputs and sums hold W sequences per column and row. ``targets`` are byte offsets of the groups' sums: (groups, 1),
    or for ``rows`` (groups, 4). Where a group of ``lanes`` or ``aligned`` is not W consecutive units, sums come in the order of
    the packing, and ``places`` (units) says where there each unit of a gate of the steps has its own; otherwise it is empty.

    Groups are ordered by their number of steps: loops of equal length are what a processor predicts.
    """

    format: str
    shape: tuple[int, int, int]  # (G, H, C)
    width: int
    nonzero: int
    starts: NDArray[np.int64]
    targets: NDArray[np.int64]
    index: NDArray[np.uint16]
    select: NDArray[np.uint8]
    values: Floats
    places: NDArray[np.int32]

    @property
    def padded(self) -> int:
        """Units per gate, padding included."""
        return -(-self.shape[1] // self.width) * self.width

    @property
    def gates(self) -> int:
        """Gates V that a step serves."""
        return 1 if self.format == "rows" else self.values.shape[2]

    @property
    def turns(self) -> int:
        """How many times a step chooses from its two registers."""
        return self.values.shape[1]

    @property
    def scattered(self) -> bool:
        """Whether the sums come in the order of the packing, and not in that of the units."""
        return self.places.size > 0

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.index)

    @property
    def stored(self) -> int:
        """Number of weights stored, zeros that fill up steps included."""
        return self.values.size

    @property
    def bytes(self) -> int:
        """Bytes that one product reads besides its input."""
        arrays = (self.starts, self.targets, self.index, self.select, self.values, self.places)
        return sum(array.nbytes for array in arrays)


def pack(
    weights: NDArray[Any], width: int, form: str | None = None, batch: int = 1, *, by_unit: bool = False
) -> Packed:
    """Packs ``weights`` (G, H, C) for vectors of ``width`` lanes; ``form`` overrides the choice.

    The choice is the format of least :func:`cost` for ``batch`` sequences at once, not ``rows`` if ``by_unit``.
    :class:`ModelError` for weights that are not finite or not (G, H, C); :class:`PlanError` for an unknown format.
    """
    array = np.asarray(weights, np.float32)
    if array.ndim != 3 or 0 in array.shape[:2]:
        raise ModelError(f"weights of shape {array.shape}; a gate matrix is (G, H, C) with G, H ≥ 1")
    if not np.isfinite(array).all():
        raise ModelError("weights that are NaN or infinite cannot be packed; repair or retrain the model")
    if array.shape[2] > _MAX_COLUMNS:
        raise ModelError(f"{array.shape[2]} columns; the kernels' indices of 16 bits allow {_MAX_COLUMNS}")
    if form is not None:
        return _packer(form)(array, width)
    best = min((_tiles(array, width), *([_gate_tiles(array, width)] if len(array) > 1 else [])), key=_cost_for(batch))
    if best.nonzero >= _FULL * best.stored:
        return best
    forms = ["lanes", *(["aligned"] if len(array) > 1 else []), *(["rows"] if batch >= width and not by_unit else [])]
    for least, each in sorted((_least_cost(each, array, width, batch), each) for each in forms):
        if least < cost(best, batch):  # packing takes time: what could not win if every step were full is left alone
            best = min(best, _packer(each)(array, width), key=_cost_for(batch))
    return best


def _cost_for(batch: int) -> Callable[[Packed], float]:
    return lambda packed: cost(packed, batch)


def cost(packed: Packed, batch: int = 1) -> float:
    """Estimated cycles of one product for ``batch`` sequences, from rates measured on an AVX-512 processor (Zen 5).

    ``a + b · batch`` per step, a for reading the weights and b for the work. The choice of lanes' inputs takes one instruction
    with 16 lanes, three with 8, and one per lane with 4.
    """
    return packed.steps * _step_cost(packed.format, packed.gates, packed.turns, packed.width, batch)


def _step_cost(form: str, gates: int, turns: int, width: int, batch: int) -> float:
    choice = {16: 1.0, 8: 2.0, 4: 5.0}[width]
    return {
        "tiles": 0.8 * gates + (0.1 + 0.5 * gates) * batch,
        "lanes": 0.5 + 0.6 * turns + (0.7 + turns * (0.6 * choice + 0.5)) * batch,
        "aligned": 0.5 * gates + (0.7 + turns * (0.6 * choice + 0.8 * gates)) * batch,
        "rows": 6.0 * -(-batch // width),
    }[form]


def _least_cost(form: str, weights: Floats, width: int, batch: int) -> float:
    """The cost of ``weights`` if every step were full."""
    entries = np.count_nonzero(weights.any(0)) if form == "aligned" else np.count_nonzero(weights)
    if form == "rows":
        return entries / ROWS_AT_ONCE * _step_cost(form, 1, 1, width, batch)
    gates = len(weights) if form == "aligned" else 1
    return min(entries / width / turns * _step_cost(form, gates, turns, width, batch) for turns in TURNS)


def _packer(form: str) -> Any:
    packers = {"tiles": _best_tiles, "lanes": _lanes, "aligned": _aligned, "rows": _rows}
    if form not in packers:
        raise PlanError(f"format {form!r} is unknown; it is one of {', '.join(FORMATS)}")
    return packers[form]


def aligned_empty(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Uninitialised array whose first byte lies on a cache line."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.empty(size + _ALIGNMENT, np.uint8)
    offset = -raw.ctypes.data % _ALIGNMENT
    return raw[offset : offset + size].view(dtype).reshape(shape)


def _on_cache_line(array: NDArray[Any]) -> NDArray[Any]:
    out = aligned_empty(array.shape, array.dtype)
    out[...] = array
    return out


def pad_units(weights: Floats, width: int) -> Floats:
    """(G, H, C) to (G, padded H, C), zeros below."""
    return np.pad(weights, ((0, 0), (0, -weights.shape[1] % width), (0, 0)))


def _finish(
    form: str,
    weights: Floats,
    width: int,
    group: NDArray[Any],
    targets: NDArray[Any],
    *parts: NDArray[Any],
    places: NDArray[Any] = _NATURAL,
) -> Packed:
    """Sorts the steps, whose groups are ``group`` (steps,), by the groups' number of steps."""
    counts = np.bincount(group, minlength=len(targets))
    by_count = np.argsort(counts, kind="stable")
    steps = np.argsort(np.argsort(by_count, kind="stable")[group], kind="stable")
    starts = np.concatenate([[0], np.cumsum(counts[by_count])])
    arrays = (
        starts.astype(np.int64), targets[by_count].astype(np.int64), *(p[steps] for p in parts), places.astype(np.int32)
    )  # fmt: skip
    return Packed(form, weights.shape, width, int(np.count_nonzero(weights)), *(_on_cache_line(a) for a in arrays))


def _tiles(weights: Floats, width: int) -> Packed:
    return _from_columns(weights, width, pad_units(weights, width).reshape(-1, 1, width, weights.shape[2]))


def _gate_tiles(weights: Floats, width: int) -> Packed:
    padded = pad_units(weights, width)
    return _from_columns(weights, width, padded.reshape(len(padded), -1, width, weights.shape[2]).swapaxes(0, 1))


def _best_tiles(weights: Floats, width: int) -> Packed:
    return min(_tiles(weights, width), _gate_tiles(weights, width), key=cost)


def _from_columns(weights: Floats, width: int, groups: Floats) -> Packed:
    """Packs ``groups`` (groups, V, W, C) as ``tiles``: per group, the columns with a weight."""
    group, column = np.nonzero((groups != 0).any((1, 2)))
    values = groups[group, :, :, column][:, None]  # (steps, 1, V, W)
    index = column[:, None].astype(np.uint16)
    targets = 4 * width * np.arange(len(groups))[:, None]
    return _finish("tiles", weights, width, group, targets, index, np.empty((len(index), 0), np.uint8), values)


def _rows(weights: Floats, width: int) -> Packed:
    rows = pad_units(weights, width).reshape(-1, weights.shape[2])  # (G · padded, C)
    order = np.argsort((rows != 0).sum(1), kind="stable").reshape(-1, ROWS_AT_ONCE)  # rows of like length go together
    keep = rows[order] != 0  # (groups, 4, C)
    columns = np.argsort(~keep, axis=2, kind="stable")  # the entries first
    length = keep.sum(2).max(1)
    group = np.repeat(np.arange(len(order)), length)
    position = np.arange(len(group)) - np.repeat(np.cumsum(length) - length, length)
    column = columns[group, :, position]  # (steps, 4)
    values = rows[order[group], column][:, None, :, None]
    index = column.astype(np.uint16)
    return _finish("rows", weights, width, group, 4 * width * order, index, np.empty((len(index), 0), np.uint8), values)


def _lanes(weights: Floats, width: int) -> Packed:
    return _from_lists("lanes", weights, width, pad_units(weights, width).reshape(-1, 1, weights.shape[2]))


def _aligned(weights: Floats, width: int) -> Packed:
    return _from_lists("aligned", weights, width, pad_units(weights, width).swapaxes(0, 1))


def _from_lists(form: str, weights: Floats, width: int, units: Floats) -> Packed:
    """Packs ``units`` (U, V, C): per lane one of them, and its columns where any of the V gates has a weight.

    The lanes of a group wait for the longest list, so lists that are alike go together, if their lengths differ.
    """
    units = np.pad(units, ((0, 0), (0, 0), (0, -weights.shape[2] % width)))
    lists = (units != 0).any(1)
    length = lists.sum(1)
    order = natural = np.arange(len(units)).reshape(-1, width)
    if np.sort(length).reshape(-1, width).max(1).sum() < length[natural].max(1).sum():
        order = alike(lists, width)
    targets = 4 * width * np.arange(len(order))[:, None]
    places = _NATURAL if order is natural else np.argsort(order.reshape(-1), kind="stable")
    groups = units[order].swapaxes(1, 2)  # (groups, V, W, C)
    keep = (groups != 0).any(1)
    group, registers, column, taken = schedule(keep, width, turns_of(keep, width))
    lane = np.arange(width)
    values = groups[group[:, None, None], :, lane, column] * taken[..., None]  # (steps, turns, W, V)
    select = column % width + width * (column // width != registers[:, None, :1])
    index = registers.astype(np.uint16)
    steps = (index, select.astype(np.uint8), values.swapaxes(2, 3))
    return _finish(form, weights, width, group, targets, *steps, places=places)
