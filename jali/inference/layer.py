"""One recurrent layer and direction, packed for the kernels, and the memory that a run of it needs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jali.errors import ModelError, PlanError
from jali.inference.compiled import kernel_address, product_address
from jali.inference.fields import CELLS, CHUNK, LAYER_FIELDS, PADDED_INPUTS, TOGETHER, WORK_FIELDS
from jali.inference.packing import Floats, Packed, aligned_empty, pack
from jali.inference.products import matrix_tables
from jali.inference.vector import Width, default_width

CACHE = 2**20  # bytes of weights from which on they are read to and fro: less stays in a core's cache in any order


@dataclass(frozen=True, eq=False)
class Layer:
    """Packed weights of one layer and direction; immutable, shared by threads.

    ``bias`` (G · padded) starts the gate sums: both biases, for a GRU only the inputs'. ``recurrent_bias`` (G · padded) is the
    GRU's recurrent one, empty otherwise. ``table`` holds their addresses (:data:`jali.inference.fields.LAYER_FIELDS`),
    ``address`` is its own.
    """

    cell: str
    inputs: Packed
    recurrent: Packed
    bias: Floats
    recurrent_bias: Floats
    table: NDArray[np.int64]
    address: int = field(init=False)
    _tables: tuple[NDArray[np.int64], ...] = field(repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "address", self.table.ctypes.data)

    @property
    def width(self) -> int:
        """Vector lanes."""
        return self.recurrent.width

    @property
    def by_sequence(self) -> bool:
        """Whether vectors go over sequences, W at a time, and not over units."""
        return self.recurrent.format == "rows"

    @property
    def hidden(self) -> int:
        """Units H."""
        return self.recurrent.shape[1]

    @property
    def row(self) -> int:
        """Floats in one row of gate sums: G · padded."""
        return CELLS[self.cell] * self.recurrent.padded

    @property
    def features(self) -> int:
        """Floats in one row of x: I."""
        return self.inputs.shape[2]

    @property
    def bytes(self) -> int:
        """Bytes of weights and indices that one time step reads."""
        return self.recurrent.bytes + self.inputs.bytes


def build_layer(
    cell: str,
    w_in: NDArray[Any],
    w_rec: NDArray[Any],
    b_in: NDArray[Any] | None = None,
    b_rec: NDArray[Any] | None = None,
    *,
    width: int | None = None,
    forms: tuple[str | None, str | None] = (None, None),
    batch: int = 1,
) -> Layer:
    """Packs a layer: ``w_in`` (G, H, I), ``w_rec`` (G, H, H), biases (G, H) or None for zeros, gates in PyTorch's order.

    ``cell`` is one of :data:`CELLS`; ``width`` 4, 8 or 16 (default: the processor's); ``forms`` overrides the formats of
    (w_in, w_rec); ``batch`` is the usual number of sequences, for the choice of formats.

    :class:`ModelError` for an unknown cell, shapes that do not fit, or weights that are not finite.
    """
    if cell not in CELLS:
        raise ModelError(f"cell {cell!r} has no kernel; there are {', '.join(CELLS)}")
    lanes = Width(width or default_width()).lanes
    gates, hidden = CELLS[cell], w_rec.shape[1] if w_rec.ndim == 3 else 0
    _check("w_rec", w_rec, (gates, hidden, hidden))
    recurrent = pack(w_rec, lanes, forms[1], batch)
    by_unit = recurrent.format != "rows"
    _check("w_in", w_in, (gates, hidden, w_in.shape[-1]))
    inputs = pack(w_in, lanes, forms[0], max(batch, 8), by_unit=by_unit)
    biases = [np.zeros((gates, hidden), np.float32) if b is None else np.asarray(b, np.float32) for b in (b_in, b_rec)]
    for name, bias in zip(("b_in", "b_rec"), biases, strict=True):
        _check(name, bias, (gates, hidden))
    apart = cell == "gru"
    start = _padded_bias(biases[0] if apart else biases[0] + biases[1], recurrent)
    later = _padded_bias(biases[1], recurrent) if apart else np.empty(0, np.float32)
    return _assemble(cell, inputs, recurrent, start, later)


def _check(name: str, array: NDArray[Any], shape: tuple[int, ...]) -> None:
    if array.shape != shape or 0 in shape[:2]:
        raise ModelError(f"{name} has shape {array.shape}; expected {shape} with at least one unit")
    if not np.isfinite(array).all():
        raise ModelError(f"{name} holds NaN or infinite values; repair or retrain the model")


def _padded_bias(bias: Floats, like: Packed) -> Floats:
    out = aligned_empty((len(bias), like.padded), np.float32)
    out[...] = 0
    out[:, : bias.shape[1]] = bias
    return out.reshape(-1)


def _scattered(inputs: Packed, recurrent: Packed) -> bool:
    return recurrent.scattered or inputs.scattered


def _assemble(cell: str, inputs: Packed, recurrent: Packed, bias: Floats, recurrent_bias: Floats) -> Layer:
    by_sequence = recurrent.format == "rows"
    if inputs.format == "rows" and not by_sequence:
        raise PlanError(
            f"input weights packed as 'rows' need recurrent weights packed so too, and not as {recurrent.format!r}"
        )
    lanes = recurrent.width
    first, second = matrix_tables(inputs), matrix_tables(recurrent)
    columns = inputs.shape[2]
    # All formats but tiles load whole vectors of inputs: rows must be padded, and they are faster when aligned.
    copied = inputs.format != "tiles"
    fields = {
        "hidden": recurrent.shape[1],
        "padded": recurrent.padded,
        "gates": CELLS[cell],
        "inputs": columns,
        "padded_inputs": -(-columns // lanes) * lanes if copied else 0,
        "copied": copied,
        "inputs_by_sequence": inputs.format == "rows",
        "recurrence_apart": cell == "gru",
        "input_product": product_address(inputs),
        "recurrent_product": product_address(recurrent),
        "in_order": kernel_address("in_order", lanes) if _scattered(inputs, recurrent) else 0,
        "cell": kernel_address(cell, lanes),
        "to_columns": kernel_address("to_columns", lanes) if by_sequence else 0,
        "to_rows": kernel_address("to_rows", lanes) if by_sequence else 0,
        "matrix": first[0].ctypes.data,
        "recurrent": second[0].ctypes.data,
        "recurrent_back": second[recurrent.bytes > CACHE].ctypes.data,
        "bias": bias.ctypes.data,
        "recurrent_bias": recurrent_bias.ctypes.data,
    }
    table = np.array([int(fields[name]) for name in LAYER_FIELDS], np.int64)
    return Layer(cell, inputs, recurrent, bias, recurrent_bias, table, (*first, *second))


class Workspace:
    """Memory for one run at a time of ``layer`` on up to ``batch`` sequences; not shared by threads.

    ``table`` holds addresses (:data:`jali.inference.fields.WORK_FIELDS`), ``address`` is its own.
    """

    def __init__(self, layer: Layer, batch: int) -> None:
        by_sequence = layer.by_sequence
        count = layer.width if by_sequence else max(min(batch, CHUNK), 1)
        sums = count if by_sequence else TOGETHER
        padded, row = layer.recurrent.padded, layer.row
        padded_inputs = int(layer.table[PADDED_INPUTS // 8])
        sizes = (
            count * padded,
            count * padded if layer.cell == "lstm" else 0,
            sums * padded_inputs,
            count * padded if by_sequence else 0,
            count * padded_inputs if by_sequence else 0,
            sums * row,  # from here on, buffers are written before they are read
            count * row if layer.cell == "gru" else 0,
            count * row if by_sequence else 0,
            sums * row if _scattered(layer.inputs, layer.recurrent) else 0,
        )
        ends = np.cumsum([-(-s // 16) * 16 for s in sizes])
        self._floats = aligned_empty((int(ends[-1]),), np.float32)
        self._floats[: ends[4]] = 0  # the padding of states and inputs stays so
        starts = self._floats.ctypes.data + 4 * np.concatenate([[0], ends[:-1]])
        self._lists = np.zeros(sums + 2 * count, np.int64)  # sources, states, lengths
        self._lists[sums : sums + count] = starts[0] + 4 * padded * np.arange(count)
        lists = self._lists.ctypes.data + 8 * np.array([0, sums, sums + count])
        self.layer, self.batch = layer, batch
        self.table = np.zeros(len(WORK_FIELDS), np.int64)
        self.table[: len(starts) + len(lists)] = [*starts, *lists]
        self.address = self.table.ctypes.data
