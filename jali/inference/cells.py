"""The cell updates, fused: gate sums z to new states, W units at a time.

Gate order is PyTorch's. Every row of gate sums is ``gates · padded`` floats, every row of states ``padded`` floats; the padding
units start at zero and stay there, since each cell maps zero sums and a zero state to a zero state. Where vectors go over
sequences, ``padded`` counts units times W. The functions are compiled by :mod:`jali.inference.compiled`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jali.inference.vector import add, div, fma, load, maximum, mul, splat, store, sub, width_of
from jali.inference.vector_math import one_plus_exp_minus, sigmoid, tanh, tanh_parts


def lstm_cell(width: Any, z: int, u: int, h: int, c: int, padded: int) -> None:
    """``c ← σ(f) c + σ(i) tanh(g)``, ``h ← σ(o) tanh(c)``; products of two gates share one division."""
    gate = padded * 4
    for k in range(0, gate, width_of(width) * 4):
        one_plus_i = one_plus_exp_minus(width, load(width, z + k))
        above, below = tanh_parts(width, load(width, z + 2 * gate + k))
        forget = sigmoid(width, load(width, z + gate + k))
        cell = fma(forget, load(width, c + k), div(above, mul(below, one_plus_i)))
        store(c + k, cell)
        above, below = tanh_parts(width, cell)
        one_plus_o = one_plus_exp_minus(width, load(width, z + 3 * gate + k))
        store(h + k, div(above, mul(below, one_plus_o)))


def gru_cell(width: Any, z: int, u: int, h: int, c: int, padded: int) -> None:
    """``n = tanh(z_n + σ(r) u_n)``, ``h ← n + σ(z) (h - n)``; z sums the inputs' part, u the recurrent one."""
    gate = padded * 4
    for k in range(0, gate, width_of(width) * 4):
        reset = sigmoid(width, add(load(width, z + k), load(width, u + k)))
        update = sigmoid(width, add(load(width, z + gate + k), load(width, u + gate + k)))
        new = tanh(width, fma(reset, load(width, u + 2 * gate + k), load(width, z + 2 * gate + k)))
        store(h + k, fma(update, sub(load(width, h + k), new), new))


def tanh_cell(width: Any, z: int, u: int, h: int, c: int, padded: int) -> None:
    """``h ← tanh(z)``."""
    for k in range(0, padded * 4, width_of(width) * 4):
        store(h + k, tanh(width, load(width, z + k)))


def relu_cell(width: Any, z: int, u: int, h: int, c: int, padded: int) -> None:
    """``h ← max(z, 0)``."""
    zero = splat(width, np.float32(0))
    for k in range(0, padded * 4, width_of(width) * 4):
        store(h + k, maximum(load(width, z + k), zero))
