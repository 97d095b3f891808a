"""Rate–distortion functions: the fewest nats per symbol that keep the expected distortion at D or below.

``R(D) = min I(Y; Ŷ)`` over all channels from Y to Ŷ with E[d(Y, Ŷ)] ≤ D. A discrete source is solved by Blahut–Arimoto with a
certificate; a Gaussian one under squared error has a closed form.

Source: R. E. Blahut, "Computation of channel capacity and rate-distortion functions", IEEE Trans. Inf. Theory 18 (1972)
460-473; T. M. Cover, J. A. Thomas, *Elements of Information Theory*, 2nd ed., chapter 10.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jali.errors import DataError, LimitError

Floats = NDArray[np.float64]
_ITERATIONS = 200_000  # of the alternation at one slope
_SLOPES = 60  # each halves, at least, the distance between the bounds of the curve


@dataclass(frozen=True)
class RatePoint:
    """A point of the curve: some channel needs ``rate`` nats at ``distortion``, none needs less than ``rate − gap``."""

    distortion: float
    rate: float
    gap: float


def rate_distortion(source: ArrayLike, distortion: ArrayLike, at: float, *, tolerance: float = 1e-6) -> RatePoint:
    """R(``at``) of the discrete source ``source (n,)``, probabilities, and the matrix ``distortion (n, m)`` = d(y, ŷ) ≥ 0.

    The curve is convex: it lies below the chords of points that channels reach, and above the tangents that Blahut's
    theorem proves. New points are added at the slope of the chord over ``at`` until both agree to ``tolerance`` nats.
    At the least possible distortion the rate is that of the lossless code; from the distortion of the best constant on it is 0.

    Raises :class:`DataError` for a source that is no distribution, distortions that are negative or do not fit, or ``at``
    below the least possible distortion; :class:`LimitError` if the certificate is not reached.
    """
    p, d = _checked(source, distortion)
    if not tolerance > 0:
        raise DataError(f"tolerance {tolerance} is not positive")
    floor = d.min(axis=1)
    least, most = float(p @ floor), float((p @ d).min())
    scale = max(most, np.finfo(float).tiny)
    if not at >= least - 1e-12 * scale:
        raise DataError(f"distortion {at:.6g} is below {least:.6g}, the least that any code reaches; ask for no less")
    if at >= most:
        return RatePoint(float(at), 0.0, 0.0)
    shifted, wanted = d - floor[:, None], max(float(at) - least, 0.0)
    left, right = _solve(p, shifted, np.inf, tolerance / 4), _Tangent(most - least, 0.0, 0.0)
    if wanted <= 1e-12 * scale:
        return RatePoint(float(at), left.rate, max(left.rate - left.intercept, 0.0))
    lower = 0.0
    for _ in range(_SLOPES):
        slope = (left.rate - right.rate) / (right.distortion - left.distortion)
        upper = left.rate - slope * (wanted - left.distortion)
        if upper - lower <= tolerance:
            break
        found = _solve(p, shifted, slope, tolerance / 4)
        lower = max(lower, found.intercept - slope * wanted)
        if found.distortion <= wanted:
            left = min(left, found, key=lambda tangent: wanted - tangent.distortion)
        else:
            right = min(right, found, key=lambda tangent: tangent.distortion - wanted)
    upper = left.rate - (left.rate - right.rate) / (right.distortion - left.distortion) * (wanted - left.distortion)
    if upper - lower > tolerance:
        raise LimitError(
            f"R({at:.6g}) is between {lower:.6g} and {upper:.6g} after {_SLOPES} slopes; raise the tolerance"
        )
    return RatePoint(float(at), max(upper, lower), max(upper - lower, 0.0))


def blahut_arimoto(source: ArrayLike, distortion: ArrayLike, slope: float, *, tolerance: float = 1e-6) -> RatePoint:
    """The point of the curve where −dR/dD is ``slope`` > 0 (nats per unit of distortion), with its certified gap.

    The alternation stops when Blahut's bounds on R at the distortion reached agree to ``tolerance``. Raises as
    :func:`rate_distortion`.
    """
    p, d = _checked(source, distortion)
    if not (np.isfinite(slope) and slope > 0):
        raise DataError(f"slope {slope} is not a positive number of nats per unit of distortion")
    floor = d.min(axis=1)
    found = _solve(p, d - floor[:, None], slope, tolerance)
    bound = found.intercept - slope * found.distortion
    return RatePoint(found.distortion + float(p @ floor), found.rate, max(found.rate - bound, 0.0))


@dataclass(frozen=True)
class GaussianRate:
    """Reverse water-filling: ``rate`` nats in all, the water ``level``, and the ``distortions (n,)`` of the components."""

    rate: float
    level: float
    distortions: Floats


def gaussian_rate(variances: ArrayLike, at: float) -> GaussianRate:
    """R(``at``) of independent Gaussians of ``variances (n,)`` under the summed squared error, in closed form.

    Component i gets distortion min(θ, σ_i²) and ½ log(σ_i² / that) nats, with θ such that the distortions add up to ``at``
    (Cover & Thomas, theorem 10.3.3). For a covariance matrix give its eigenvalues. Among all sources of one covariance the
    Gaussian needs most: for any other this is an upper bound of R. At distortion 0 the rate is infinite.
    Raises :class:`DataError` for variances or a distortion that are negative or not finite.
    """
    sigma = np.asarray(variances, dtype=np.float64)
    if sigma.ndim != 1 or not sigma.size or not np.isfinite(sigma).all() or sigma.min() < 0:
        raise DataError("variances are a non-empty array (n,) of finite numbers of at least 0")
    if not (np.isfinite(at) and at >= 0):
        raise DataError(f"distortion {at} is not a number of at least 0")
    if at >= sigma.sum():
        return GaussianRate(0.0, float(sigma.max()), sigma.copy())
    ascending = np.sort(sigma)
    # With the i smallest components wholly given up, the others share what is left of the distortion.
    levels = (at - np.concatenate(([0.0], np.cumsum(ascending)[:-1]))) / np.arange(len(sigma), 0, -1)
    level = float(levels[np.argmax(levels <= ascending)])
    distortions = np.minimum(level, sigma)
    active = sigma > distortions
    if level <= 0:
        return GaussianRate(float("inf"), 0.0, np.zeros_like(sigma))
    return GaussianRate(float(0.5 * np.log(sigma[active] / distortions[active]).sum()), level, distortions)


@dataclass(frozen=True)
class _Tangent:
    """A point that a channel reaches, and the value at D = 0 of the tangent below the whole curve."""

    distortion: float
    rate: float
    intercept: float


def _solve(p: Floats, d: Floats, slope: float, tolerance: float) -> _Tangent:
    """Blahut–Arimoto at one slope; ``d`` has a zero in each row. An infinite slope asks for distortion 0."""
    kernel = (d == 0).astype(float) if np.isinf(slope) else np.exp(-slope * d)
    q = np.full(d.shape[1], 1 / d.shape[1])
    for _ in range(_ITERATIONS):
        z = kernel @ q
        c = kernel.T @ (p / z)
        moved = q * c
        with np.errstate(divide="ignore"):
            log_c = np.log(c)
        spent = float(moved @ np.where(moved > 0, log_c, 0.0))
        if log_c.max() - spent <= tolerance:
            level = -float(p @ np.log(z))
            reached = float(np.einsum("j,jk,jk,k->", p / z, kernel, d, q, optimize=True))
            paid = 0.0 if np.isinf(slope) else slope * reached  # nothing is reached at an infinite slope
            return _Tangent(reached, level - paid - spent, level - float(log_c.max()))
        q = moved / moved.sum()
    raise LimitError(
        f"Blahut-Arimoto at slope {slope:.6g} has a gap of {log_c.max() - spent:.3g} nats after {_ITERATIONS} rounds, "
        f"{tolerance:.3g} was asked; raise the tolerance"
    )


def _checked(source: ArrayLike, distortion: ArrayLike) -> tuple[Floats, Floats]:
    p, d = np.asarray(source, dtype=np.float64), np.asarray(distortion, dtype=np.float64)
    if p.ndim != 1 or not p.size or not np.isfinite(p).all() or p.min() < 0 or abs(p.sum() - 1) > 1e-9:
        raise DataError("source is not a distribution: probabilities (n,) of at least 0 with the sum 1 are wanted")
    if d.ndim != 2 or d.shape[0] != len(p) or not d.size or not np.isfinite(d).all() or d.min() < 0:
        raise DataError(f"distortion has shape {d.shape}; finite numbers ({len(p)}, m) of at least 0 are wanted")
    used = p > 0  # a symbol that never comes costs nothing
    return p[used] / p[used].sum(), d[used]
