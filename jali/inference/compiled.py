"""Compiled kernels, each on its own: the time loops call them by address, so that a program compiles only what it uses.

Numba optimises a function anew inside every function that calls it; calls by address avoid that too. Kernels take a
:class:`~jali.inference.vector.Width` and five integers. Compilation is guarded by numba's own lock, and its cache on disk makes
it a matter of the first run; where the cache cannot be written, every process compiles for itself.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

from numba import cfunc, types

from jali.inference import cells, products, transposition
from jali.inference.packing import Packed
from jali.inference.vector import width_type

_log = logging.getLogger("jali")
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


def with_cache(compiled: Callable[[bool], Any]) -> Any:
    """``compiled(True)``, with numba's cache on disk; without it where that cannot be written or read."""
    try:
        return compiled(True)
    except Exception as error:  # what is not the cache's fault comes again without it
        made = compiled(False)
        _warn(f"{type(error).__name__}: {error}".splitlines()[0])
        return made


@functools.cache
def _warn(reason: str) -> None:
    _log.warning(
        "kernels are compiled anew in every process, since numba's cache on disk cannot be used (%s); set NUMBA_CACHE_DIR to a "
        "new folder that can be written",
        reason,
    )


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
