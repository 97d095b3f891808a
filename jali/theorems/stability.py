"""Theorem III.7: if ‖Df‖ ≤ L < 1 near an attractor, the maximal Lyapunov exponent is at most log L < 0.

True. L must bound all states, so it comes from the weights by interval arithmetic; a sample bounds it only from below.
"""

from __future__ import annotations

import numpy as np

from jali.contraction import Contraction, contraction_bound, sampled_norm
from jali.dynamics import Recurrence, site_spectrum
from jali.theorems.case import Case, weakest_cut
from jali.theorems.verdict import Verdict

TRAJECTORIES = 8
CUTS = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95)


def stability(case: Case) -> Verdict:
    """III.7 on one site, and on the site without its weakest recurrent weights where the premise is not met with all."""
    found: list[Contraction] = []
    for fraction in CUTS:
        view = weakest_cut(case.view, fraction)
        found.append(measure(case.recurrence.with_view(view), case))
        if found[-1].bound < 1:
            break
    return judge(case.site, found, case.source)


def measure(recurrence: Recurrence, case: Case) -> Contraction:
    """Bound, sample and maximal exponent of one step map on the inputs of a case."""
    x, start = case.x[:TRAJECTORIES], case.start[:TRAJECTORIES]
    box = x.min(axis=(0, 1)), x.max(axis=(0, 1))
    exponent = site_spectrum(recurrence, x, start, count=1).largest
    return Contraction(
        contraction_bound(recurrence, box, start),
        sampled_norm(recurrence, x, recurrence.states(x, start)),
        float(exponent),
    )


def judge(site: str, found: list[Contraction], source: str) -> Verdict:
    """The verdict from what was measured at ``CUTS``, the last of them the first with L < 1, if there is one."""
    last, fraction = found[-1], CUTS[len(found) - 1]
    measured = {
        "cuts": list(CUTS[: len(found)]),
        "L": [each.bound for each in found],
        "sampled norm": [each.sampled for each in found],
        "exponent": [each.exponent for each in found],
        "inputs": source,
    }
    where = "" if fraction == 0 else f"without the weakest {100 * fraction:g} % of the recurrent weights "
    if last.theorem == "premise not met":
        why = f"L = {last.bound:.3g} ≥ 1 even {where}(the exponent with all weights is {found[0].exponent:.3g})"
        return Verdict("III.7", site, "premise not met", why, measured)
    with np.errstate(divide="ignore"):
        limit = np.log(last.bound)
    sign = "≤" if last.theorem == "holds" else ">"
    why = f"{where}L = {last.bound:.3g} and the maximal exponent is {last.exponent:.3g} {sign} log L = {limit:.3g}"
    return Verdict("III.7", site, "holds" if last.theorem == "holds" else "fails", why, measured)
