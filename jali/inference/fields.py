"""The int64 tables through which compiled code sees a layer and the memory of a run: byte offsets of their fields."""

from __future__ import annotations

CELLS = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}  # gates

MATRIX_FIELDS = (
    "groups", "gates", "gate_bytes", "begins", "ends", "targets", "places", "units", "index", "select", "values",
)  # fmt: skip
(
    MATRIX_GROUPS, MATRIX_GATES, MATRIX_GATE_BYTES, MATRIX_BEGINS, MATRIX_ENDS, MATRIX_TARGETS, MATRIX_PLACES, MATRIX_UNITS,
    MATRIX_INDEX, MATRIX_SELECT, MATRIX_VALUES,
) = (8 * k for k in range(len(MATRIX_FIELDS)))  # fmt: skip

# Numbers, addresses of kernels (0: none), addresses of tables and arrays.
LAYER_FIELDS = (
    "hidden", "padded", "gates", "inputs", "padded_inputs", "copied", "inputs_by_sequence", "recurrence_apart",
    "input_product", "recurrent_product", "in_order", "cell", "to_columns", "to_rows", "matrix", "recurrent",
    "recurrent_back", "bias", "recurrent_bias",
)  # fmt: skip
(
    HIDDEN, PADDED, GATES, INPUTS, PADDED_INPUTS, COPIED, INPUTS_BY_SEQUENCE, RECURRENCE_APART,
    INPUT_PRODUCT, RECURRENT_PRODUCT, IN_ORDER, CELL, TO_COLUMNS, TO_ROWS, MATRIX, RECURRENT,
    RECURRENT_BACK, BIAS, RECURRENT_BIAS,
) = (8 * k for k in range(len(LAYER_FIELDS)))  # fmt: skip

# Buffers, then the arguments of the run in progress, then the sequences of it that are at work.
WORK_FIELDS = (
    "state_h", "state_c", "copies", "rows", "transposed", "z", "u", "sums", "packed_sums", "sources", "states", "lengths",
    "x", "x_time", "x_row", "out", "out_time", "out_row", "h", "c", "time", "offsets", "reverse", "from_zero", "first", "count",
)  # fmt: skip
(
    STATE_H, STATE_C, COPIES, ROWS, TRANSPOSED, Z, U, SUMS, PACKED_SUMS, SOURCES, STATES, LENGTHS,
    X, X_TIME, X_ROW, OUT, OUT_TIME, OUT_ROW, H, C, TIME, OFFSETS, REVERSE, FROM_ZERO, FIRST, COUNT,
) = (8 * k for k in range(len(WORK_FIELDS)))  # fmt: skip

CHUNK = 8  # sequences that run together where vectors go over units
TOGETHER = 16  # rows, over some time steps, whose input products are done at once where vectors go over units
