"""Mutual information of samples, in nats, by estimators whose bias on Gaussian data is known.

``I(X; Y) = H(X) + H(Y) − H(X, Y)``. No estimator is right for everything:

- :func:`gaussian` is exact for jointly Gaussian variables, and sees nothing but covariance;
- :func:`ksg` follows any smooth dependence in a few dimensions, and is too small for strong dependence in many;
- :func:`binned` is exact for what lies in the bins, and loses what lies within them;
- :func:`discrete` is for labels.

If Y is a function of a continuous X, as a noiseless network's state is of its input, the true I(X; Y) is infinite and an
estimate measures the resolution of the sample (A. M. Saxe et al., ICLR 2018; Z. Goldfeld et al., ICML 2019). Such numbers
can be compared with each other, at one sample size and one reduction, and have no meaning alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jali.errors import DataError
from jali.plain import seed_of

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Information:
    """An estimate of I(X; Y): ``nats``, the ``estimator`` that made it, the number of ``samples``, what must be known of it."""

    nats: float
    estimator: str
    samples: int
    notes: tuple[str, ...] = ()

    @property
    def bits(self) -> float:
        return self.nats / float(np.log(2))


def gaussian(x: ArrayLike, y: ArrayLike) -> Information:
    """−½ log det of the correlations left over: ``½ log(det C_x det C_y / det C)``, from the covariance of the samples.

    ``x (N, p)`` or ``(N,)``, ``y (N, q)`` or ``(N,)``. Computed as −½ Σ log(1 − ρ²) over the canonical correlations ρ;
    infinite where one is 1. Positively biased by about p q / 2N.
    Raises :class:`DataError` for samples that do not pair, are not finite, or are no more than p + q.
    """
    pair, notes = _pair(x, y)
    if pair is None:
        return Information(0.0, "gaussian", len(np.asarray(x)), notes)
    a, b = pair
    if len(a) <= a.shape[1] + b.shape[1]:
        raise DataError(
            f"{len(a)} samples of {a.shape[1]} + {b.shape[1]} features leave no residual; give more, or reduce the features"
        )
    bases = [_orthonormal(part) for part in (a, b)]
    rho = np.linalg.svd(bases[0].T @ bases[1], compute_uv=False).clip(0, 1)
    if (1 - rho <= 1e-12).any():
        return Information(
            float("inf"),
            "gaussian",
            len(a),
            (*notes, "some feature is a linear function of the other side's: I is infinite"),
        )
    return Information(float(-0.5 * np.log1p(-(rho**2)).sum()), "gaussian", len(a), notes)


def ksg(x: ArrayLike, y: ArrayLike, neighbours: int = 10, seed: int = 0) -> Information:
    """The k-nearest-neighbour estimator, ``ψ(k) + ψ(N) − ⟨ψ(n_x + 1) + ψ(n_y + 1)⟩`` with maximum norms.

    A. Kraskov, H. Stögbauer, P. Grassberger, "Estimating mutual information", Phys. Rev. E 69 (2004) 066138, estimator 1.
    More ``neighbours`` vary less and blur more. Every feature is scaled to unit variance. The estimate may be slightly
    negative for independent variables. Samples that coincide would break it: then a noise of 1e-10, drawn with ``seed``,
    is added, as the authors advise, and a note says so.
    ``x (N, p)`` or ``(N,)``, likewise ``y``. Raises :class:`DataError` as :func:`gaussian`, or for fewer than k + 1 samples.
    """
    from scipy.spatial import cKDTree
    from scipy.special import digamma

    seed, (pair, notes) = seed_of(seed), _pair(x, y)
    if pair is None:
        return Information(0.0, "ksg", len(np.asarray(x)), notes)
    a, b = pair
    if not 1 <= neighbours < len(a):
        raise DataError(f"neighbours {neighbours} is outside 1 .. {len(a) - 1}, the number of other samples")
    if any(len(np.unique(part, axis=0)) < len(part) for part in (a, b)):
        rng = np.random.default_rng(seed)
        a, b = (part + 1e-10 * rng.normal(size=part.shape) for part in (a, b))
        notes = (*notes, "some samples coincide: noise of 1e-10 standard deviations was added")
    joint = np.hstack((a, b))
    distance = np.asarray(cKDTree(joint).query(joint, [neighbours + 1], p=np.inf)[0])[:, 0]
    radius = np.nextafter(distance, 0)  # n counts the samples strictly nearer, and the sample itself
    counts = [cKDTree(part).query_ball_point(part, radius, p=np.inf, return_length=True) for part in (a, b)]
    value = digamma(neighbours) + digamma(len(a)) - sum(digamma(count).mean() for count in counts)
    return Information(float(value), "ksg", len(a), notes)


def binned(x: ArrayLike, y: ArrayLike, bins: int | None = None, *, correct: bool = True) -> Information:
    """The plug-in estimate on a grid of ``bins`` per feature, each holding as many samples as the others.

    ``correct`` adds the Miller–Madow term (occupied cells − 1) / 2N to each of the three entropies (G. A. Miller, 1955),
    which takes the bias of the counts away, though not what the bins blur. By default N^(1/3) bins, at least 2.
    ``x (N, p)`` or ``(N,)``, likewise ``y``; p + q features need many more than bins^(p + q) samples.
    Raises :class:`DataError` as :func:`gaussian`, and for fewer than 2 bins.
    """
    pair, notes = _pair(x, y)
    if pair is None:
        return Information(0.0, "binned", len(np.asarray(x)), notes)
    size = len(pair[0])
    number = max(2, round(size ** (1 / 3))) if bins is None else bins
    if number < 2:
        raise DataError(f"bins {number} is below 2: one bin tells nothing apart")
    a, b = (_cells(part, number) for part in pair)
    name = f"binned, {number} per feature" + (", Miller-Madow" if correct else "")
    return Information(_plug_in(a, b, correct), name, size, notes)


def discrete(x: ArrayLike, y: ArrayLike, *, correct: bool = True) -> Information:
    """The plug-in estimate for labels ``x (N,)`` and ``y (N,)`` of any kind, with the Miller–Madow term by default."""
    a, b = np.asarray(x), np.asarray(y)
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise DataError(f"labels of shapes {a.shape} and {b.shape} do not pair; two arrays (N,) are wanted")
    a, b = (np.unique(part, return_inverse=True)[1] for part in (a, b))
    notes = tuple(
        f"{name} is constant: it carries no information" for name, part in (("x", a), ("y", b)) if not part.any()
    )
    value = 0.0 if notes else _plug_in(a, b, correct)
    return Information(value, "discrete" + (", Miller-Madow" if correct else ""), len(a), notes)


@dataclass(frozen=True, eq=False)
class Reduction:
    """The leading ``k`` principal components of samples, each of unit variance: ``scores (N, k)``.

    ``explained``: their share of the variance, in [0, 1]; ``note``: the same in words.
    """

    scores: Floats
    explained: float
    note: str


def whiten(x: ArrayLike, components: int) -> Reduction:
    """Reduce ``x (N, p)`` to at most ``components`` whitened principal components; fewer where its rank is less.

    Raises :class:`DataError` for samples that are not finite, or ``components`` below 1.
    """
    samples = _samples(x, "x")
    if components < 1:
        raise DataError(f"components {components} is below 1")
    centred = samples - samples.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    rank = int((s > s.max(initial=0.0) * max(centred.shape) * np.finfo(float).eps).sum())
    kept = min(components, rank)
    share = float((s[:kept] ** 2).sum() / (s**2).sum()) if rank else 1.0
    note = f"{kept} principal components of {samples.shape[1]} features, {100 * share:.3g} % of the variance"
    scores = u[:, :kept] * np.sqrt(len(samples)) if kept else np.zeros((len(samples), 1))
    return Reduction(scores, share, note)


@dataclass(frozen=True)
class Bias:
    """One line of :func:`gaussian_bias`: correlation, true I, and mean and standard deviation of an estimator over repeats."""

    rho: float
    true: float
    estimator: str
    mean: float
    deviation: float

    @property
    def relative(self) -> float:
        """(mean − true) / true; the statistical error of the mean is deviation / (true √repeats)."""
        return (self.mean - self.true) / self.true


def gaussian_bias(
    correlations: Sequence[float] = (0.3, 0.6, 0.9), samples: int = 5000, repeats: int = 10, seed: int = 0
) -> tuple[Bias, ...]:
    """The bias of every estimator on bivariate Gaussians, whose I is −½ log(1 − ρ²): measured, one line per ρ and estimator."""
    estimators: dict[str, Callable[[Floats, Floats], Information]] = {
        "gaussian": gaussian,
        "ksg": ksg,
        "binned": binned,
    }
    rng, lines = np.random.default_rng(seed_of(seed)), []
    for rho in correlations:
        found: dict[str, list[float]] = {name: [] for name in estimators}
        for _ in range(repeats):
            x, noise = rng.normal(size=(2, samples))
            y = rho * x + np.sqrt(1 - rho**2) * noise
            for name, estimate in estimators.items():
                found[name].append(estimate(x, y).nats)
        true = float(-0.5 * np.log1p(-(rho**2)))
        lines += [Bias(rho, true, name, float(np.mean(v)), float(np.std(v))) for name, v in found.items()]
    return tuple(lines)


def _samples(x: ArrayLike, name: str) -> Floats:
    array = np.asarray(x, dtype=np.float64)
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or not array.size:
        raise DataError(f"{name} has shape {array.shape}; samples (N, features) or (N,) are wanted")
    if not np.isfinite(array).all():
        raise DataError(f"{name} has NaN or infinite values; information is defined for finite samples")
    return array


def _pair(x: ArrayLike, y: ArrayLike) -> tuple[tuple[Floats, Floats] | None, tuple[str, ...]]:
    """Both sides with features of mean 0 and variance 1, without constant ones; None where a side has no other."""
    a, b = _samples(x, "x"), _samples(y, "y")
    if len(a) != len(b):
        raise DataError(f"x has {len(a)} samples and y {len(b)}; they must pair")
    notes, sides = [], []
    for name, part in (("x", a), ("y", b)):
        moving = np.ptp(part, axis=0) > 0
        if not moving.any():
            return None, (f"{name} is constant: it carries no information",)
        if not moving.all():
            notes.append(f"{(~moving).sum()} of {part.shape[1]} features of {name} are constant and were left out")
        part = part[:, moving] / np.abs(part[:, moving]).max(axis=0)  # deviations of huge values stay finite
        centred = part - part.mean(axis=0)
        sides.append(centred / centred.std(axis=0))
    return (sides[0], sides[1]), tuple(notes)


def _orthonormal(centred: Floats) -> Floats:
    """An orthonormal basis of the columns, of as many directions as they span."""
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    return u[:, s > s[0] * max(centred.shape) * np.finfo(float).eps]


def _cells(part: Floats, bins: int) -> NDArray[np.int64]:
    """The number of each sample's cell; ties share a bin."""
    edges = np.quantile(part, np.linspace(0, 1, bins + 1)[1:-1], axis=0)
    index = np.stack(
        [np.searchsorted(edge, column, side="right") for edge, column in zip(edges.T, part.T, strict=True)]
    )
    return np.unique(index, axis=1, return_inverse=True)[1].reshape(-1)


def _plug_in(a: NDArray, b: NDArray, correct: bool) -> float:
    joint = a.astype(np.int64) * (int(b.max()) + 1) + b
    return _entropy(a, correct) + _entropy(b, correct) - _entropy(joint, correct)


def _entropy(labels: NDArray, correct: bool) -> float:
    counts = np.unique(labels, return_counts=True)[1]
    p = counts / counts.sum()
    plug_in = float(-(p * np.log(p)).sum())
    return plug_in + (len(counts) - 1) / (2 * len(labels)) if correct else plug_in
