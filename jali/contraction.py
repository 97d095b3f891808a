"""How much one step of a recurrent site can stretch: sup ‖Df‖₂, from above by its weights, from below on data.

Theorem III.7 of R. Sengupta, "Lattice-based pruning in recurrent neural networks via poset modeling": ‖Df‖ ≤ L < 1 implies
a maximal Lyapunov exponent of at most log L < 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from jali.dynamics import Floats, Recurrence, System, decay_terms

_ROUNDS = 4  # of the power method per step; it starts from the direction of the step before
_EXACT = 16  # steps at which the norm is computed exactly
_SLACK = 1e-9  # rounding of L and of the exponent


@dataclass(frozen=True)
class Contraction:
    """``bound`` ≥ sup ‖Df‖₂ ≥ ``sampled``, and the maximal exponent on the same data, in nats per step.

    ``bound`` holds for every state that can be reached and every input in the box that it was asked for (up to rounding);
    ``sampled`` is the largest ‖Df‖₂ found along the trajectories of the data.
    """

    bound: float
    sampled: float
    exponent: float

    @property
    def theorem(self) -> str:
        """Theorem III.7 here: "holds", "fails", or "premise not met" where the bound L is not below 1."""
        if not self.bound < 1:
            return "premise not met"
        return "holds" if np.exp(self.exponent) <= self.bound * (1 + _SLACK) else "fails"


def contraction_bound(
    recurrence: Recurrence, inputs: tuple[Floats, Floats] | None = None, start: Floats | None = None
) -> float:
    """L ≥ ‖Df‖₂ at every reachable state, from the weights and the bounds of the slopes.

    Args:
        inputs: the smallest and the largest value of each input feature, two arrays ``(I,)``; None for any input at all.
        start: the first states ``(B, size)``; by default zero. It widens the box of reachable states.

    The gates of a step are enclosed by interval arithmetic, |h| ≤ 1 (for tanh) and |c| ≤ sup(i |g|) / (1 − sup f), the fixed
    point of the bound of one step. A gate's term diag(d) W with |d| ≤ D has norm at most ‖diag(D) W‖; the result is the
    smaller of two ways to add the terms, by their norms and entry by entry. Infinite where c cannot be bounded: an LSTM
    whose forget gate may be open for any length of time.
    """
    kind = recurrence.view.site.kind
    if kind in ("RNN", "TopDownRNN") and recurrence.nonlinearity == "relu":
        return _norm(recurrence.weights[0])  # the slope is at most 1, and is 1 wherever the unit is on
    box = _Box(recurrence, inputs, start)
    bounds = {"RNN": _rnn, "TopDownRNN": _rnn, "GRU": _gru, "LSTM": _lstm, "CohenGrossberg": _cohen_grossberg}
    return bounds[kind](recurrence, box)


def sampled_norm(recurrence: System, x: Floats, states: Floats, lengths: Sequence[int] | None = None) -> float:
    """The largest ‖Df‖₂ along the trajectories ``states (B, T + 1, size)`` of ``x (B, T, I)``: a lower bound of the sup.

    The power method finds the steps where it is large; at the largest few it is computed exactly.
    """
    own = np.full(len(x), x.shape[1]) if lengths is None else np.asarray(lengths)
    v = np.random.default_rng(0).normal(size=(len(x), recurrence.size, 1))
    found = np.full(x.shape[:2], -1.0)
    for t in range(x.shape[1]):
        jacobian = recurrence.jacobian(x[:, t], states[:, t])
        turned = jacobian.transpose(0, 2, 1)
        for _ in range(_ROUNDS if t else 20 * _ROUNDS):
            v = turned @ (jacobian @ v)
            v /= np.maximum(np.linalg.norm(v, axis=1, keepdims=True), np.finfo(float).tiny)
        found[:, t] = np.where(t < own, np.linalg.norm(jacobian @ v, axis=(1, 2)), -1.0)
        v += 1e-2 * np.random.default_rng(t).normal(size=v.shape)  # never stuck where another direction leads now
    first = np.argsort(-found, axis=None, kind="stable")[:_EXACT]
    b, at = (index[found.ravel()[first] >= 0] for index in np.unravel_index(first, found.shape))
    return float(np.linalg.norm(recurrence.jacobian(x[b, at], states[b, at]), 2, axis=(1, 2)).max())


class _Box:
    """Intervals of what enters the gates, for inputs and states in a box; each interval is a pair of ``(G, H)`` arrays."""

    def __init__(self, recurrence: Recurrence, inputs: tuple[Floats, Floats] | None, start: Floats | None) -> None:
        view, width = recurrence.view, recurrence.outputs
        first = np.zeros((1, recurrence.size)) if start is None else np.abs(start)
        unit = np.ones(width) if view.w_proj is None else np.abs(view.w_proj).sum(axis=1)  # |o tanh c| < 1
        seen = 0 if view.site.kind == "CohenGrossberg" else width  # what is read of a potential is its tanh
        self.state = np.maximum(unit, first[:, :seen].max(axis=0)) if seen else unit
        self.first_cell = first[:, seen:].max(axis=0)
        low, high = (np.full(view.inputs, value) for value in (-np.inf, np.inf)) if inputs is None else inputs
        self.fed = _affine(view.w_in, view.b_in, low, high)
        self.back = _affine(recurrence.weights, view.b_rec, -self.state, self.state)
        self.whole = (self.fed[0] + self.back[0], self.fed[1] + self.back[1])


def _rnn(recurrence: Recurrence, box: _Box) -> float:
    return _norm(_tanh_slope(*box.whole)[0][:, None] * recurrence.weights[0])


def _gru(recurrence: Recurrence, box: _Box) -> float:
    low, high = box.whole
    r_low, r_high, z_low, z_high = expit(low[0]), expit(high[0]), expit(low[1]), expit(high[1])
    back_low, back_high = box.back[0][2], box.back[1][2]
    products = np.stack([r * b for r in (r_low, r_high) for b in (back_low, back_high)])
    through = (1 - z_low) * _tanh_slope(box.fed[0][2] + products.min(0), box.fed[1][2] + products.max(0))
    gains = (
        through * np.maximum(np.abs(back_low), np.abs(back_high)) * _logistic_slope(low[0], high[0]),
        (box.state + 1) * _logistic_slope(low[1], high[1]),
        through * r_high,
    )
    terms = [gain[:, None] * weight for gain, weight in zip(gains, recurrence.weights, strict=True)]
    by_norms = float(z_high.max()) + sum(map(_norm, terms))
    return min(by_norms, _norm(np.diag(z_high) + sum(map(np.abs, terms))))


def _lstm(recurrence: Recurrence, box: _Box) -> float:
    low, high = box.whole
    i, f, o = (expit(high[gate]) for gate in (0, 1, 3))
    g = np.maximum(np.abs(np.tanh(low[2])), np.abs(np.tanh(high[2])))
    if (f == 1).any():
        return float("inf")
    c = np.maximum(i * g / (1 - f), box.first_cell)
    gains = (
        g * _logistic_slope(low[0], high[0]),
        c * _logistic_slope(low[1], high[1]),
        i * _tanh_slope(low[2], high[2]),
        np.tanh(c) * _logistic_slope(low[3], high[3]),
    )
    *cell, unit = (gain[:, None] * weight for gain, weight in zip(gains, recurrence.weights, strict=True))
    cell_norm, projection = sum(map(_norm, cell)), recurrence.view.w_proj
    spread = 1.0 if projection is None else _norm(projection)
    blocks = [
        [spread * (_norm(unit) + float(o.max()) * cell_norm), spread * float((o * f).max())],
        [cell_norm, float(f.max())],
    ]
    cell_entries = sum(map(np.abs, cell))
    rows = np.concatenate((np.abs(unit) + o[:, None] * cell_entries, np.diag(o * f)), axis=1)
    if projection is not None:
        rows = np.abs(projection) @ rows
    entries = np.concatenate((rows, np.concatenate((cell_entries, np.diag(f)), axis=1)))
    return min(_norm(np.array(blocks)), _norm(entries))


def _cohen_grossberg(recurrence: Recurrence, box: _Box) -> float:
    """The step is x' = e x + (1 − e) D / r with D in an interval, |x| ≤ max(|x₀|, sup |D| / γ), e and r monotone in x²."""
    a, gamma, s, kappa = decay_terms(recurrence.view)
    drive = np.maximum(np.abs(box.whole[0]), np.abs(box.whole[1]))[0]
    most = np.maximum(box.first_cell, drive / gamma)
    linear = (s == 0) & (kappa == 0)
    if not np.isfinite(most[~linear]).all():
        return float("inf")
    most, drive = np.where(linear, 0.0, most), np.where(linear, 0.0, drive)  # of linear decay the slope knows no state
    kept = np.exp(-recurrence.interval * a * np.minimum(gamma, (gamma + kappa * most**2) / (1 + s * most**2)))
    with np.errstate(divide="ignore"):
        steepest, turning = np.minimum(most, (3 * s) ** -0.5), np.minimum(most, np.sqrt(gamma / kappa))
    faster = 2 * a * np.abs(kappa - s * gamma) * steepest / (1 + s * steepest**2) ** 2  # ≥ |(α r)'|
    gain = -np.expm1(-recurrence.interval * a * gamma) / gamma  # ≥ (1 − e) / r
    own = kept * (1 + recurrence.interval * faster * (most + drive / gamma))
    own += gain * drive * 2 * kappa * turning / (gamma + kappa * turning**2)
    term = gain[:, None] * recurrence.weights[0]
    return min(float(own.max()) + _norm(term), _norm(np.diag(own) + np.abs(term)))


def _affine(weight: Floats, bias: Floats | None, low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Interval of ``weight @ v + bias`` over low ≤ v ≤ high; a weight of zero reads nothing, whatever v is."""
    with np.errstate(invalid="ignore"):
        ends = np.where(weight == 0, 0.0, weight * low), np.where(weight == 0, 0.0, weight * high)
    shift = 0.0 if bias is None else bias
    return np.minimum(*ends).sum(axis=-1) + shift, np.maximum(*ends).sum(axis=-1) + shift


def _logistic_slope(low: Floats, high: Floats) -> Floats:
    """The largest σ' on [low, high]: at the point nearest to zero."""
    s = expit(_nearest_to_zero(low, high))
    return s * (1 - s)


def _tanh_slope(low: Floats, high: Floats) -> Floats:
    return 1 - np.tanh(_nearest_to_zero(low, high)) ** 2


def _nearest_to_zero(low: Floats, high: Floats) -> Floats:
    return np.clip(0.0, low, high)


def _norm(matrix: Floats) -> float:
    return float(np.linalg.norm(matrix, 2))
