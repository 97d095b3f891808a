"""Systems whose largest Lyapunov exponents are known, as batches of recorded series."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Nats per iterate or unit of time; J. C. Sprott, Chaos and Time-Series Analysis (2003), app. A.
KNOWN = {"logistic map": float(np.log(2)), "Hénon map": 0.419, "Lorenz flow": 0.906}


def logistic(x: Floats, steps: int, r: float = 4.0) -> Floats:
    """x' = r x (1 − x): ``(B, steps)`` from starts ``(B,)``."""
    found = []
    for _ in range(steps):
        x = r * x * (1 - x)
        found.append(x)
    return np.stack(found, axis=1)


def henon(x: Floats, y: Floats, steps: int) -> Floats:
    """x of x' = 1 − 1.4 x² + y, y' = 0.3 x: ``(B, steps)`` from starts ``(B,)``."""
    found = []
    for _ in range(steps):
        x, y = 1 - 1.4 * x * x + y, 0.3 * x
        found.append(x)
    return np.stack(found, axis=1)


def lorenz(state: Floats, steps: int, step: float) -> Floats:
    """x of the Lorenz flow (σ = 10, ρ = 28, β = 8/3): ``(B, steps)`` from ``(3, B)``, by the classical Runge–Kutta method."""

    def field(s: Floats) -> Floats:
        x, y, z = s
        return np.stack((10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z))

    found = []
    for _ in range(steps):
        k1 = field(state)
        k2 = field(state + step / 2 * k1)
        k3 = field(state + step / 2 * k2)
        k4 = field(state + step * k3)
        state = state + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        found.append(state[0])
    return np.stack(found, axis=1)
