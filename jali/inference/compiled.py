"""Compiled kernels, each on its own: the time loops call them by address, so that a program compiles only what it uses.

Numba optimises a function anew inside every function that calls it; calls by address avoid that too. Kernels take a
:class:`~jali.inference.vector.Width` and five integers. Compilation is guarded by numba's own lock, and its cache on disk makes
it a matter of the first run; where the cache cannot be written, every process compiles for itself.
"""

from __future__ import annotations

import functools
from typing import Any

from numba import cfunc, types

from jali.inference import cells, products, transposition
from jali.inference.packing import Packed
from jali.inference.vector import width_type
from jali.jit import with_cache

_FUNCTIONS: dict[str, Any] = {
    "tiles": products.tiles,
    "lanes": products.lanes,
    "aligned": products.lanes,
    "rows": products.rows,
    "in_order": products.in_order,
    "lstm": cells.lstm_cell,
    "gru": cells.gru_cell,
    "rnn_tanh": cells.tanh_cell,
    "rnn_relu": cells.relu_cell,
    "to_columns": transposition.to_columns,
    "to_rows": transposition.to_rows,
}


@functools.cache
def _kernel(name: str, lanes: int, gates: int, turns: int) -> Any:
    signature = types.void(width_type(lanes, gates, turns), *[types.int64] * 5)
    return with_cache(lambda cache: cfunc(signature, cache=cache)(_FUNCTIONS[name]))


def kernel_address(name: str, lanes: int, gates: int = 1, turns: int = 1) -> int:
    """Address of a kernel for vectors of ``lanes``; it stays valid until the process ends.

    ``gates`` and ``turns`` are those of a product's steps: see :class:`jali.inference.packing.Packed`.
    """
    return int(_kernel(name, lanes, gates, turns).address)


def product_address(packed: Packed) -> int:
    """Address of the kernel that multiplies with this matrix."""
    return kernel_address(packed.format, packed.width, packed.gates, packed.turns)
