"""The exponent of a power-law tail: p(x) ∝ x^−α for x ≥ x_min, both from the data.

For each candidate x_min the exponent is the most likely one, α = 1 + n / Σ ln(x_i / x_min); chosen is the x_min whose fit has the
smallest Kolmogorov–Smirnov distance from the data.

Source: A. Clauset, C. R. Shalizi, M. E. J. Newman, "Power-law distributions in empirical data", SIAM Review 51 (2009) 661-703,
eq. 3.1 and sec. 3.3. On the eigenvalues of ``WᵀW`` of a layer α is what C. H. Martin, T. Peng, M. W. Mahoney, "Predicting trends
in the quality of state-of-the-art neural networks without access to training or testing data", Nature Communications 12 (2021)
4122, calls its quality.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jali.errors import DataError

LEAST = 2  # values that a tail must have for an exponent


@dataclass(frozen=True)
class PowerLaw:
    """``alpha``, of the ``tail`` values from ``xmin`` on; ``distance`` of Kolmogorov and Smirnov; ``sigma``: (α − 1)/√tail."""

    alpha: float
    xmin: float
    tail: int
    distance: float

    @property
    def sigma(self) -> float:
        """Standard error of α for a long tail."""
        return (self.alpha - 1) / math.sqrt(self.tail)


def power_law(values: ArrayLike) -> PowerLaw:
    """The tail of ``values`` (N,), positive numbers; zeros are left out.

    Raises :class:`DataError` for fewer than three different positive values, or for negative or not finite ones.
    """
    given = np.asarray(values, dtype=np.float64).ravel()
    if not np.isfinite(given).all() or (given < 0).any():
        raise DataError("a power law is fitted to finite numbers, not below 0; the eigenvalues of WᵀW are")
    x = np.sort(given[given > 0])
    candidates = np.unique(x)[:-1]  # a tail of one value has no exponent
    if len(candidates) < LEAST:
        raise DataError(
            f"{len(candidates) + 1} different positive values are too few for a power law; give three or more"
        )
    fits = [_fit(x[np.searchsorted(x, xmin) :]) for xmin in candidates]
    return min((fit for fit in fits if fit.tail >= LEAST), key=lambda fit: fit.distance)


def _fit(tail: NDArray[np.float64]) -> PowerLaw:
    n, xmin = len(tail), float(tail[0])
    alpha = 1 + n / float(np.log(tail / xmin).sum())
    below = np.arange(n) / n  # share of the data below each value
    return PowerLaw(alpha, xmin, n, float(np.abs(below - (1 - (tail / xmin) ** (1 - alpha))).max()))


def weighted_alpha(weight: ArrayLike) -> tuple[float, float]:
    """α of the eigenvalues of ``WᵀW``, and α log₁₀ λ_max, of a matrix ``(outputs, inputs)``.

    Martin, Peng and Mahoney call the second α-hat. Raises :class:`DataError` where :func:`power_law` does.
    """
    spectrum = eigenvalues(weight)
    alpha = power_law(spectrum).alpha
    return alpha, alpha * math.log10(float(spectrum.max()))


def eigenvalues(weight: ArrayLike) -> NDArray[np.float64]:
    """Eigenvalues of ``WᵀW`` that are not zero for its shape's sake, largest first: the squared singular values."""
    matrix = np.asarray(weight, dtype=np.float64)
    if matrix.ndim != 2 or not np.isfinite(matrix).all():
        raise DataError(f"weights of shape {matrix.shape} are no finite matrix; give (outputs, inputs)")
    return np.asarray(np.linalg.svd(matrix, compute_uv=False) ** 2)
