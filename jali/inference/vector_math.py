"""The exponential, the logistic function and tanh on vectors of float32; NaN stays NaN, large arguments saturate.

``exp(y) - 1`` with ``y = n ln 2 + r``, ``|r| ≤ ln 2 / 2``, is ``2ⁿ q + (2ⁿ - 1)`` with ``q ≈ exp(r) - 1`` (Cody and Waite 1980,
chapter 6: ln 2 in two parts, the first of few bits, so that r is exact). The polynomial in q is the Chebyshev interpolant of
degree 4 of ``(exp(r) - 1 - r) / r²``; its error is 2.5e-8 of q.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from jali.inference.vector import (
    add,
    copy_sign,
    div,
    fma,
    maximum,
    minimum,
    mul,
    negative_abs,
    power_of_two,
    splat,
    sub,
)

_LN2_HIGH = np.float32(0.693359375)
_LN2_LOW = np.float32(-2.12194440e-4)
_LOG2_E = np.float32(1.44269504)
_SHIFT = np.float32(1.5 * 2**23)  # adding it rounds to an integer
_P0, _P1, _P2 = np.float32(0.5), np.float32(0.16666577), np.float32(0.04166646)
_P3, _P4 = np.float32(0.00836318), np.float32(0.00139336)
_ONE, _TWO, _LIMIT = np.float32(1), np.float32(2), np.float32(87)


@njit(inline="always")
def _split_exp(width: Any, y: Any) -> Any:
    """``(s, q)`` with ``exp(y) = s q + s``, for |y| ≤ 87."""
    shift = splat(width, _SHIFT)
    shifted = fma(y, splat(width, _LOG2_E), shift)
    n = sub(shifted, shift)
    r = fma(n, splat(width, -_LN2_LOW), fma(n, splat(width, -_LN2_HIGH), y))
    p = fma(splat(width, _P4), r, splat(width, _P3))
    p = fma(p, r, splat(width, _P2))
    p = fma(p, r, splat(width, _P1))
    p = fma(p, r, splat(width, _P0))
    return power_of_two(shifted), fma(p, mul(r, r), r)


@njit(inline="always")
def one_plus_exp_minus(width: Any, x: Any) -> Any:
    """``1 + exp(-x)``, finite: the denominator of the logistic function of x."""
    y = minimum(maximum(x, splat(width, -_LIMIT)), splat(width, _LIMIT))
    s, q = _split_exp(width, sub(splat(width, np.float32(0)), y))
    return add(splat(width, _ONE), fma(s, q, s))


@njit(inline="always")
def tanh_parts(width: Any, x: Any) -> Any:
    """``(a, b)`` with ``tanh(x) = a / b``, ``1 ≤ b ≤ 2``: ``tanh |x| = (1 - e) / (1 + e)``, ``e = exp(-2 |x|)``."""
    y = maximum(mul(negative_abs(x), splat(width, _TWO)), splat(width, -_LIMIT))
    s, q = _split_exp(width, y)
    less = fma(s, q, sub(s, splat(width, _ONE)))  # e - 1, accurate near 0
    return copy_sign(less, x), add(less, splat(width, _TWO))


@njit(inline="always")
def sigmoid(width: Any, x: Any) -> Any:
    """Logistic function ``1 / (1 + exp(-x))``."""
    return div(splat(width, _ONE), one_plus_exp_minus(width, x))


@njit(inline="always")
def tanh(width: Any, x: Any) -> Any:
    """Hyperbolic tangent."""
    above, below = tanh_parts(width, x)
    return div(above, below)
