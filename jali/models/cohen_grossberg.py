"""Cohen–Grossberg networks: continuous time, general decay, and an energy that falls if the weights are symmetric."""

from __future__ import annotations

import copy
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

from jali.errors import DynamicsError, ModelError
from jali.plain import is_finite
from jali.wired import Wire, WiredLayers

_REACH = 20.0  # tanh' is below 2e-17 beyond, and s³ tanh' integrates to less than 1e-12 there


@cache
def _gauss() -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(64)


def _length(step: float) -> float:
    if not (is_finite(step) and step > 0):
        raise ModelError(f"step {step!r} is not a positive length of time; 0.1 is a tenth of a unit's time constant")
    return float(step)


class CohenGrossberg(WiredLayers):
    """``dx_i/dt = α_i(x_i) [−β_i(x_i) + Σ_j w_ij tanh(x_j) + Σ_k u_ik I_k + c_i]``, trainable, one step per input.

    Amplification ``α_i(x) = a_i / (1 + s_i x²)`` and decay ``β_i(x) = γ_i x + κ_i x³``, with a, γ > 0 and s, κ ≥ 0 of
    each unit: ``terms_l0`` (4, H) holds log a, log γ, √s, √κ. With a = 1, s = 0 this is the form of paper 1, eq. 2; the
    original has −w (M. A. Cohen, S. Grossberg, IEEE Trans. SMC 13 (1983) 815–826). What is read of a unit, by the weights
    and by the next layer, is its bounded activation tanh(x); the state is the potential x.

    One step of length ``step`` is exponential Euler with the coefficients held: with r(x) = β(x)/x ≥ γ > 0 and
    e = exp(−α r step), ``x' = e x + (1 − e) drive / r``. A mean of x and drive/r, it is stable at every step and stays in
    |x| ≤ max(|x₀|, sup |drive| / γ). Whether the energy falls in every step is a stronger wish: see
    :meth:`step_limit`; how near it is to the differential equation, another: :meth:`check_step`.
    Raises :class:`ModelError` for a step that is not positive and finite.
    """

    KIND = "CohenGrossberg"
    TERMS = 4
    weight_ih_l0: Tensor
    weight_hh_l0: Tensor
    terms_l0: Tensor

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, step: float = 0.1) -> None:
        self.hidden_size, self._step = hidden_size, _length(step)
        super().__init__(input_size, (hidden_size,), bias)

    @property
    def step(self) -> float:
        """How much time one input lasts. Raises :class:`ModelError` when it is set to what is not positive and finite."""
        return self._step

    @step.setter
    def step(self, value: float) -> None:
        self._step = _length(value)

    def reset_parameters(self) -> None:
        """Weights as in PyTorch's layers; a = γ = 1 and s = κ = 0.01: near the linear decay, with a gradient away from it."""
        super().reset_parameters()
        with torch.no_grad():
            self.terms_l0[:2] = 0.0
            self.terms_l0[2:] = 0.1

    def wires(self) -> tuple[Wire, ...]:
        return (Wire(0, 0, "w_rec", 0, delayed=True),)

    def resized(self, input_size: int, sizes: tuple[int, ...]) -> CohenGrossberg:
        return CohenGrossberg(input_size, sizes[0], self.bias, self.step)

    def steps(self, x: Tensor, state: Tensor) -> tuple[list[list[Tensor]], list[Tensor]]:
        currents = self.current(x)
        seen, states = [torch.tanh(state)], []
        for t in range(x.shape[1]):
            drive = linear(seen[-1], self.weight_hh_l0) + currents[:, t]
            rate = self.decay_rate(state)
            state = state - torch.expm1(-self.amplification(state) * rate * self.step) * (drive / rate - state)
            seen.append(torch.tanh(state))
            states.append(state)
        return [seen], states

    def current(self, x: Tensor) -> Tensor:
        """What the input ``x`` (…, I) adds to the drive, with the bias: (…, H)."""
        return linear(x, self.weight_ih_l0, self.weight("bias", 0))

    def amplification(self, state: Tensor) -> Tensor:
        """α(x) > 0 of each unit, (…, H)."""
        return self.terms_l0[0].exp() / (1 + (self.terms_l0[2] * state) ** 2)

    def decay_rate(self, state: Tensor) -> Tensor:
        """r(x) = β(x) / x = γ + κ x² of each unit, (…, H)."""
        return self.terms_l0[1].exp() + (self.terms_l0[3] * state) ** 2

    @torch.no_grad()
    def check_step(self, x: Tensor, hx: Tensor | None = None, *, tolerance: float = 0.01) -> float:
        """How far the activations tanh(x) are from those of the differential equation, at most, on ``x`` (B, T, I).

        Every input is held for :attr:`step`; ``hx`` (B, H): the first potentials, or zero. The answer is Richardson's
        estimate for a method of first order: twice the largest difference to the run of half the step (E. Hairer,
        S. P. Nørsett, G. Wanner, *Solving Ordinary Differential Equations I*, sec. II.4). Raises :class:`DynamicsError`
        above ``tolerance`` > 0, with a step that would do.
        """
        if not tolerance > 0:
            raise DynamicsError(f"a tolerance of {tolerance} can never be met; give one above 0, e.g. 0.01")
        half = copy.copy(self)
        half.step = self.step / 2
        whole, finer = self.trajectory(x, hx)[0], half.trajectory(x.repeat_interleave(2, dim=1), hx)[0][:, ::2]
        error = 2 * float((whole - finer).abs().max())
        if not error <= tolerance:
            raise DynamicsError(
                f"with a step of {self.step:.4g} the activations are off by about {error:.2g}, over {tolerance:g}; a step of "
                f"about {self.step * tolerance / error / 2:.2g} would do, with each input held for more of them"
            )
        return error

    def remedy(self) -> str:
        return super().remedy() + f" (the step of {self.step} is stable for every finite drive)"

    @torch.no_grad()
    def symmetrize(self) -> CohenGrossberg:
        """Replace W by (W + Wᵀ)/2, in place; the condition of the energy."""
        self.weight_hh_l0.copy_((self.weight_hh_l0 + self.weight_hh_l0.T) / 2)
        return self

    @torch.no_grad()
    def energy(self, state: Tensor, x: Tensor) -> Tensor:
        """Lyapunov function ``V = Σ_i ∫₀^{x_i} β_i(s) tanh'(s) ds − ½ yᵀW y − yᵀ(U I + c)`` with y = tanh(x), (B,), float64.

        ``state`` (B, H), ``x`` (B, I) a constant input. With symmetric W it falls along every solution (Cohen and
        Grossberg 1983, thm. 1), in steps up to :meth:`step_limit` provably. Raises :class:`DynamicsError` if W is not symmetric.
        """
        weight = self._symmetric()
        state, current = state.double(), self.current(x).double()
        nodes, weights = _gauss()
        reach = state.clamp(-_REACH, _REACH)
        s = reach[..., None] * torch.from_numpy((nodes + 1) / 2).to(state)
        gain, cubic = self.terms_l0[1].double().exp(), self.terms_l0[3].double() ** 2
        beta = gain[:, None] * s + cubic[:, None] * s**3
        integral = ((beta / torch.cosh(s) ** 2) @ torch.from_numpy(weights / 2).to(state)) * reach
        y = torch.tanh(state)
        return (integral - y * (y @ weight / 2 + current)).sum(-1)

    @torch.no_grad()
    def step_limit(self, x: Tensor, hx: Tensor | None = None) -> float:
        """A step up to which the energy cannot rise on constant inputs ``x`` (B, I), from states ``hx`` (B, H), or zero.

        With −m the least eigenvalue of W (m = 0 if there is no negative one), |x_i| ≤ M_i, and r_i = γ_i + κ_i M_i²:
        ``min_i log(1 + r_i / (2 κ_i M_i² + m/2)) / (a_i r_i)``. It follows from the convexity of the integral in y and
        from 0 ≤ Δy² ≤ Δx Δy. Infinite if W has no negative eigenvalue and κ = 0. Raises :class:`DynamicsError` if W is
        not symmetric.
        """
        weight = self._symmetric()
        a, gamma = (self.terms_l0[k].double().exp() for k in (0, 1))
        kappa = self.terms_l0[3].double() ** 2
        most = (weight.abs().sum(1) + self.current(x).double().abs().amax(0)) / gamma
        if hx is not None:
            most = torch.maximum(most, hx.double().abs().amax(0))
        negative = max(0.0, -float(torch.linalg.eigvalsh(weight)[0]))
        rate, slope = gamma + kappa * most**2, 2 * kappa * most**2 + negative / 2
        return float((torch.log1p(rate / slope) / (a * rate)).min())

    def _symmetric(self) -> Tensor:
        weight = self.weight_hh_l0.detach().double()
        apart = float((weight - weight.T).abs().max())
        if apart > 1e-6 * float(weight.abs().max()):
            raise DynamicsError(
                f"the recurrent weights differ from their transpose by up to {apart:.4g}, and only symmetric ones have an "
                "energy; call symmetrize() first"
            )
        return (weight + weight.T) / 2

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, step={self.step}"
