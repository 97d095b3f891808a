"""Theorem III.6: for a Markov chain X → Y → Ŷ, I(X; Ŷ) ≤ I(X; Y), and I(Y; Ŷ) ≥ R(D).

Both are true of a chain. A *pruned network* is none: its state Ŷ comes from X by another way and not from Y, and may say more
about X than Y did. So the chain is a question, and it is answered exactly, on a small discrete input: X is a uniform sequence of
``STEPS`` letters of two, Y the units of the last state that are above zero, Ŷ the same of the pruned network. The second part
needs no chain: R(D) is a minimum over all joint distributions. Source: T. M. Cover, J. A. Thomas, *Elements of Information
Theory*, 2nd ed., sec. 2.8 and 10.2.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jali.dynamics import Floats
from jali.errors import DataError
from jali.maths.information import ksg, whiten
from jali.maths.rate_distortion import rate_distortion
from jali.theorems.case import Case, weakest_cut
from jali.theorems.verdict import Verdict
from jali.view import View

STEPS = 5  # 32 input sequences
COMPONENTS, SAMPLES = 3, 50  # of an estimate
_ROUNDING = 1e-9
_TOLERANCE = 1e-5  # of R(D), nats


def data_processing(case: Case, pruned: View | None = None) -> Verdict:
    """III.6 on one site and its ``pruned`` view, by default without the weakest half of the recurrent weights.

    ``numbers`` hold an estimate on the inputs of the case, too (KSG, three principal components of each side). An estimate
    cannot decide an inequality: without noise the true I(X; Y) of real inputs is infinite, and what is estimated is how
    finely the sample resolves it.
    """
    cut = weakest_cut(case.view) if pruned is None else pruned
    low, high = np.quantile(case.x.reshape(-1, case.x.shape[2]), (0.1, 0.9), axis=0)
    x = np.array([[(low, high)[letter] for letter in word] for word in product((0, 1), repeat=STEPS)])
    y, z = (_last(case, view, x, np.zeros((len(x), case.start.shape[1]))) > 0 for view in (case.view, cut))
    estimates = {f"estimated I(X; {name})": _estimated(case, view) for name, view in (("Y", case.view), ("Y'", cut))}
    return chain(y, z, case.site, estimates | {"inputs": case.source})


def chain(y: ArrayLike, z: ArrayLike, site: str = "", numbers: dict[str, Any] | None = None) -> Verdict:
    """III.6, exactly, for N equally likely inputs X = 0 … N − 1 with the answers ``y (N, H)`` and ``z (N, H)``, booleans.

    The distortion is the number of entries that differ. Raises :class:`DataError` for answers that do not pair.
    """
    first, second = np.asarray(y, dtype=bool), np.asarray(z, dtype=bool)
    if first.ndim != 2 or first.shape != second.shape or not first.size:
        raise DataError(f"answers of shapes {first.shape} and {second.shape} do not pair; two arrays (N, H) are wanted")
    words, ids = np.unique(np.concatenate((first, second)), axis=0, return_inverse=True)
    a, b = ids.reshape(2, -1)
    before, after, joint = _entropy(a), _entropy(b), _entropy(a * len(words) + b)
    beside, mutual = joint - before, before + after - joint  # H(Ŷ|Y) = I(X; Ŷ|Y), since Ŷ is a function of X
    distances = (words[:, None] != words).sum(axis=2).astype(float)
    met = float(distances[a, b].mean())
    occurring = np.unique(a)
    rate = rate_distortion(
        np.bincount(a, minlength=len(words))[occurring] / len(a), distances[occurring], met, tolerance=_TOLERANCE
    )
    measured = {
        "I(X; Y)": before, "I(X; Y')": after, "I(X; Y'|Y)": beside,
        "I(Y; Y')": mutual, "D": met, "R(D)": rate.rate,
    } | (numbers or {})  # fmt: skip
    second_part = f"I(Y; Ŷ) = {mutual:.3f} ≥ R({met:.3g}) = {rate.rate:.3f}"
    if mutual < rate.rate - rate.gap - _ROUNDING:
        return Verdict(
            "III.6", site, "fails", f"I(Y; Ŷ) = {mutual:.4g} < R({met:.3g}) = {rate.rate:.4g} nats", measured
        )
    if beside > _ROUNDING:
        step = "rises" if after > before + _ROUNDING else "does not rise"
        why = (
            f"the pruned states are no function of the whole ones (I(X; Ŷ|Y) = {beside:.3f} nats): no Markov chain, and I with X "
            f"{step}, {before:.3f} → {after:.3f}; {second_part}"
        )
        return Verdict("III.6", site, "premise not met", why, measured)
    if after > before + _ROUNDING:
        return Verdict("III.6", site, "fails", f"I(X; Ŷ) = {after:.4g} > I(X; Y) = {before:.4g} nats", measured)
    why = f"I(X; Ŷ) = {after:.3f} ≤ I(X; Y) = {before:.3f} nats, exactly, and {second_part}"
    return Verdict("III.6", site, "holds", why, measured)


def _last(case: Case, view: View, x: Floats, start: Floats) -> Floats:
    """h after the last step, ``(B, R)``; of a Cohen–Grossberg network the potentials, whose signs are those of h."""
    recurrence = case.recurrence.with_view(view)
    return recurrence.states(x, start)[:, -1, : recurrence.outputs]


def _estimated(case: Case, view: View) -> float | None:
    """KSG between the input, flattened, and the last state; None for fewer than ``SAMPLES`` sequences."""
    if len(case.x) < SAMPLES:
        return None
    last = _last(case, view, case.x, case.start)
    x, h = (whiten(part, COMPONENTS).scores for part in (case.x.reshape(len(case.x), -1), last))
    return ksg(x, h, seed=case.seed).nats


def _entropy(labels: NDArray[np.integer]) -> float:
    p = np.unique(labels, return_counts=True)[1] / len(labels)
    return float(-(p * np.log(p)).sum()) + 0.0
