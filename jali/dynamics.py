"""A recurrent site as a dynamical system: its step, the exact Jacobian of that step, its Lyapunov spectrum on data.

The state of a site is what it hands to its next step: ``h (R,)`` for RNN and GRU, ``(h, c) (R + H,)`` for LSTM, with R = H,
or the projection size; the potential ``x (H,)`` of a Cohen–Grossberg network. Jacobians are closed forms of the step
equations in the documentation of ``nn.RNN``, ``nn.GRU``, ``nn.LSTM`` and :mod:`jali.models`, in float64.

A stack of layers is a system whose Jacobian is block triangular: its spectrum is that of its sites together. A layer of a
``TopDownRNN`` is a system driven by the layers beside it; as these answer, the spectrum of the network is another one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from torch import nn

from jali.errors import DynamicsError, ModelError
from jali.maths.lyapunov import Spectrum, lyapunov_spectrum
from jali.plain import an
from jali.site import Site
from jali.view import View, read

Floats = NDArray[np.float64]


class System(Protocol):
    """What has states along an input and the Jacobian of a step: a :class:`Recurrence`, or layers that act on each other."""

    @property
    def size(self) -> int: ...
    def states(self, x: Floats, start: Floats | None = None) -> Floats: ...
    def jacobian(self, x: Floats, state: Floats) -> Floats: ...


@dataclass(frozen=True, eq=False)
class Recurrence:
    """The step of one recurrent site, batched over sequences. ``nonlinearity`` ("tanh" or "relu") is that of an RNN,
    ``interval`` > 0 the time that a step of a Cohen–Grossberg network takes.

    A reverse site steps through its input from the end: give the input reversed.
    Raises :class:`ModelError` for a Linear, which has no state, and for another nonlinearity or interval.
    """

    view: View
    nonlinearity: str = "tanh"
    interval: float = 1.0
    _back: Floats = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.view.w_rec is None:
            raise ModelError(
                f"site {self.view.site.name!r} is {an(self.view.site.kind)} and has no state; choose a recurrent site"
            )
        if self.nonlinearity not in ("tanh", "relu"):
            raise ModelError(f"nonlinearity {self.nonlinearity!r} is neither 'tanh' nor 'relu'")
        if not (np.isfinite(self.interval) and self.interval > 0):
            raise ModelError(f"an interval of {self.interval!r} is no positive length of time; give the network's step")
        # [gate, from, to]: Jacobians are built transposed, which is the Fortran order that LAPACK works in.
        object.__setattr__(self, "_back", np.ascontiguousarray(self.view.w_rec.transpose(0, 2, 1)))

    def with_view(self, view: View) -> Recurrence:
        """The same step with the weights of another view."""
        return dataclasses.replace(self, view=view)

    @property
    def outputs(self) -> int:
        """R, the width of ``h``."""
        return self._back.shape[1]

    @property
    def weights(self) -> Floats:
        """``w_rec (G, H, R)`` of the view."""
        return self._back.transpose(0, 2, 1)

    @property
    def size(self) -> int:
        """Width of the state: R, or R + H for LSTM."""
        return self.outputs + (self.view.hidden if self.view.site.kind == "LSTM" else 0)

    def states(self, x: Floats, start: Floats | None = None) -> Floats:
        """The states before and after every step, ``(B, T + 1, size)``, on ``x (B, T, I)``; ``start (B, size)``, or zero.

        Raises :class:`DynamicsError` for an input of another width and where a state leaves the finite numbers.
        """
        x = np.asarray(x, dtype=np.float64)
        if x.ndim != 3 or x.shape[2] != self.view.inputs:
            raise DynamicsError(f"the input has shape {x.shape}; (B, T, {self.view.inputs}) is wanted")
        states = np.zeros((len(x), x.shape[1] + 1, self.size))
        if start is not None:
            states[:, 0] = start
        for t in range(x.shape[1]):
            states[:, t + 1] = self.step(x[:, t], states[:, t])
            if not np.isfinite(states[:, t + 1]).all():
                raise DynamicsError(
                    f"site {self.view.site.name!r}: the state left the finite numbers at step {t}; the network diverges on "
                    "this input: check its scale and the weights"
                )
        return states

    def step(self, x: Floats, state: Floats) -> Floats:
        """The next states ``(B, size)`` of ``state (B, size)`` under the input ``x (B, I)``."""
        if self.view.site.kind == "CohenGrossberg":
            return _Potential(self, x, state).next
        h, c = state[:, : self.outputs], state[:, self.outputs :]
        fed, back = self._pre_activations(x, h)
        if self.view.site.kind == "LSTM":
            i, f, g, o = _lstm_gates(fed + back)
            c = f * c + i * g
            m = o * np.tanh(c)
            return np.concatenate((m if self.view.w_proj is None else m @ self.view.w_proj.T, c), axis=1)
        if self.view.site.kind == "GRU":
            _, z, n = _gru_gates(fed, back)
            return (1 - z) * n + z * h
        a = (fed + back)[:, 0]
        return np.tanh(a) if self.nonlinearity == "tanh" else np.maximum(a, 0)

    def jacobian(self, x: Floats, state: Floats) -> Floats:
        """∂(next state)/∂(state), ``(B, size, size)`` as ``[to, from]``, at ``state (B, size)`` under ``x (B, I)``.

        Where a relu has its kink the derivative is 0, as in PyTorch.
        """
        if self.view.site.kind == "CohenGrossberg":
            return _Potential(self, x, state).jacobian()
        h, c = state[:, : self.outputs], state[:, self.outputs :]
        fed, back = self._pre_activations(x, h)
        if self.view.site.kind == "LSTM":
            turned = self._lstm(_lstm_gates(fed + back), c)
        elif self.view.site.kind == "GRU":
            turned = self._gru(_gru_gates(fed, back), back[:, 2], h)
        else:
            a = (fed + back)[:, 0]
            turned = self._back[0] * _columns(1 - np.tanh(a) ** 2 if self.nonlinearity == "tanh" else a > 0)
        return turned.transpose(0, 2, 1)

    def _pre_activations(self, x: Floats, h: Floats) -> tuple[Floats, Floats]:
        """What input and state add to each gate, both ``(B, G, H)``."""
        view = self.view
        fed = np.einsum("bi,ghi->bgh", x, view.w_in, optimize=True) + (0.0 if view.b_in is None else view.b_in)
        back = np.einsum("br,grh->bgh", h, self._back, optimize=True) + (0.0 if view.b_rec is None else view.b_rec)
        return fed, back

    def _lstm(self, gates: tuple[Floats, Floats, Floats, Floats], c: Floats) -> Floats:
        (i, f, g, o), width, hidden = gates, self.outputs, self.view.hidden
        squashed = np.tanh(f * c + i * g)
        through = o * (1 - squashed**2)  # ∂m/∂c', where h' = m, or w_proj m
        turned = np.empty((len(c), self.size, self.size))
        cell, unit = turned[:, :, width:], np.zeros((len(c), self.size, hidden))
        cell[:, :width] = self._back[0] * _columns(g * i * (1 - i))
        cell[:, :width] += self._back[1] * _columns(c * f * (1 - f))
        cell[:, :width] += self._back[2] * _columns(i * (1 - g**2))
        cell[:, width:] = _diagonal(f)
        unit[:, :width] = self._back[3] * _columns(squashed * o * (1 - o))
        unit += cell * _columns(through)
        turned[:, :, :width] = unit if self.view.w_proj is None else unit @ self.view.w_proj.T
        return turned

    def _gru(self, gates: tuple[Floats, Floats, Floats], back: Floats, h: Floats) -> Floats:
        r, z, n = gates
        through = (1 - z) * (1 - n**2)  # ∂h'/∂(pre-activation of n)
        turned = self._back[0] * _columns(through * back * r * (1 - r))
        turned += self._back[1] * _columns((h - n) * z * (1 - z))
        turned += self._back[2] * _columns(through * r)
        return turned + _diagonal(z)


class _Potential:
    """A step of Cohen–Grossberg potentials ``state (B, H)``; the equations are those of :class:`jali.models.CohenGrossberg`."""

    def __init__(self, recurrence: Recurrence, x: Floats, state: Floats) -> None:
        self.state, self.interval, self.weights = state, recurrence.interval, recurrence.weights[0]
        self.a, self.gamma, self.s, self.kappa = decay_terms(recurrence.view)
        self.seen = np.tanh(state)
        fed, back = recurrence._pre_activations(x, self.seen)
        self.rate = self.gamma + self.kappa * state**2  # r(x) = β(x) / x
        self.alpha = self.a / (1 + self.s * state**2)
        self.target = (fed + back)[:, 0] / self.rate
        self.share = -np.expm1(-self.alpha * self.rate * self.interval)  # 1 − e

    @property
    def next(self) -> Floats:
        return self.state + self.share * (self.target - self.state)

    def jacobian(self) -> Floats:
        rate_slope = 2 * self.kappa * self.state
        alpha_slope = -2 * self.s * self.state * self.alpha**2 / self.a
        decay = self.interval * (alpha_slope * self.rate + self.alpha * rate_slope)
        own = (1 - self.share) * (1 + decay * (self.target - self.state))
        own -= self.share * self.target * rate_slope / self.rate
        gain = (self.share / self.rate)[:, :, None] * self.weights  # (B, to, from)
        return gain * (1 - self.seen**2)[:, None, :] + _diagonal(own)


def decay_terms(view: View) -> tuple[Floats, Floats, Floats, Floats]:
    """a, γ, s, κ of the units of a Cohen–Grossberg site, each ``(H,)``. Raises :class:`ModelError` for another site."""
    if view.terms is None:
        raise ModelError(f"site {view.site.name!r} is {an(view.site.kind)} and has no decay of its own")
    return np.exp(view.terms[0]), np.exp(view.terms[1]), view.terms[2] ** 2, view.terms[3] ** 2


def recurrence_of(model: nn.Module, site: Site) -> Recurrence:
    """The step of a recurrent ``site`` of ``model``. Raises :class:`ModelError` for a Linear."""
    module = model.get_submodule(site.module)
    interval = module.step if site.kind == "CohenGrossberg" else 1.0
    return Recurrence(read(model, site), getattr(module, "nonlinearity", "tanh"), interval)  # type: ignore[arg-type]


def site_spectrum(
    recurrence: System,
    x: Floats,
    start: Floats | None = None,
    lengths: Sequence[int] | None = None,
    *,
    count: int | None = None,
    transient: int = 0,
) -> Spectrum:
    """Lyapunov spectrum of a site on the sequences ``x (B, T, I)``, ``(B, count)``, in nats per step.

    ``start (B, size)``: the first states, by default zero; ``lengths``: steps of each sequence, by default T. These are
    the exponents of the driven system over a finite time, of each input sequence. ``count`` and ``transient`` as in
    :func:`jali.maths.lyapunov.lyapunov_spectrum`. ``steps`` of the result are those of the shortest sequence.
    """
    states = recurrence.states(x, start)
    own = [x.shape[1]] * len(x) if lengths is None else [int(length) for length in lengths]
    if len(own) != len(x) or not all(0 < length <= x.shape[1] for length in own):
        raise DynamicsError(f"lengths {own} do not fit {len(x)} sequences of at most {x.shape[1]} steps")
    # One sequence after the other: its frame and its Jacobian stay in the cache.
    parts = [
        lyapunov_spectrum(jacobians(recurrence, x[b, :length], states[b]), count=count, transient=transient)
        for b, length in enumerate(own)
    ]
    exponents = np.stack([part.exponents for part in parts])
    noted = [part.notes[0] for part in parts if part.notes]
    notes = (f"{len(noted)} of {len(parts)} sequences: {noted[0]}",) if noted else ()
    return Spectrum(exponents, min(part.steps for part in parts), notes)


def jacobians(recurrence: System, x: Floats, states: Floats) -> Iterator[Floats]:
    """The Jacobian of every step of one sequence ``x (T, I)`` along its ``states (T + 1, size)``."""
    for t in range(len(x)):
        yield recurrence.jacobian(x[t : t + 1], states[t : t + 1])[0]


def exponent_curve(recurrence: Recurrence, x: Floats, thresholds: Sequence[float], *, transient: int = 0) -> Floats:
    """The maximal exponent, averaged over the sequences ``x (B, T, I)``, when recurrent weights below each τ are zero.

    Returns ``(len(thresholds),)``: λ(τ) of paper 1, section III.E.3. −inf where every state is forgotten in one step.
    """
    weights, out = recurrence.weights, np.empty(len(thresholds))
    for index, threshold in enumerate(thresholds):
        cut = recurrence.view.replace(w_rec=np.where(np.abs(weights) < threshold, 0.0, weights))
        part = recurrence.with_view(cut)
        states = part.states(x)
        moved = (part.jacobian(x[:, t], states[:, t]) for t in range(x.shape[1]))
        out[index] = lyapunov_spectrum(moved, count=1, transient=transient).largest
    return out


def _lstm_gates(a: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    return expit(a[:, 0]), expit(a[:, 1]), np.tanh(a[:, 2]), expit(a[:, 3])


def _gru_gates(fed: Floats, back: Floats) -> tuple[Floats, Floats, Floats]:
    r, z = expit(fed[:, 0] + back[:, 0]), expit(fed[:, 1] + back[:, 1])
    return r, z, np.tanh(fed[:, 2] + r * back[:, 2])


def _columns(gains: NDArray) -> NDArray:
    """``(B, H)`` so that it scales the columns (the units reached) of a transposed Jacobian."""
    return gains[:, None, :]


def _diagonal(values: Floats) -> Floats:
    out = np.zeros((*values.shape, values.shape[1]))
    index = np.arange(values.shape[1])
    out[:, index, index] = values
    return out
