"""Causal: do the exponents of a weight's training Granger-cause the accuracy?

R. Sahu, S. Chadha, A. Mathur, N. Nagaraj, S. Saha, "A chaos-causality approach to principled pruning of dense neural
networks", Chaos Theory and Applications 7 (2025) 154-165: LEGCNet. A weight has one exponent per window of a training
(:func:`jali.trajectory`), and a p-value: that of the F test whether these exponents help to predict the accuracy of the next
windows. The paper's threshold is p = 0.05. Its tables remove the non-causal weights; some of its text says the causal ones.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from jali.errors import CriterionError
from jali.evidence import SiteEvidence
from jali.maths.granger import GrangerTests, corrected, granger
from jali.maths.series import FINE, PROBLEMS, standardized
from jali.view import View

SUMMARY = "p-value of a weight's training causing the accuracy (Sahu et al. 2025); needs a trajectory"
NEEDS = ("trajectory",)
Goes = Literal["non-causal", "causal"]
Untested = Literal["keep", "remove"]
Correction = Literal["none", "holm", "fdr_bh"]
Select = Literal["aic", "bic"]


def score_weights(
    view: View,
    evidence: SiteEvidence,
    *,
    goes: Goes = "non-causal",
    untested: Untested = "keep",
    correction: Correction = "none",
    max_lag: int = 2,
    select: Select = "aic",
) -> dict[str, np.ndarray]:
    """Scores of input and recurrent weights: −p where the non-causal ones go first, p − 1 where the causal ones do.

    What the test could not judge (a weight that never differed, a series too short or not finite: :func:`judge` says which)
    stays unless ``untested`` is "remove". ``correction`` of the p-values is within the site.

    Raises :class:`CriterionError` for a performance of one window, a constant one and one that is not finite: they tell nothing.
    """
    found = judge(evidence, max_lag=max_lag, select=select)
    if evidence.trajectory is not None:
        _refuse_silence(evidence.trajectory.performance)
    out = {}
    p = np.concatenate([each.p for each in found.values()])
    if correction != "none":
        p[~np.isnan(p)] = corrected(p[~np.isnan(p)], method=correction)
    for field, each in found.items():
        own, p = p[: len(each.p)], p[len(each.p) :]
        scores = -own if goes == "non-causal" else own - 1.0
        scores = np.where(np.isnan(own), 1.0 if untested == "keep" else -2.0, scores)
        out[field] = scores.reshape(getattr(view, field).shape)
    return out


def judge(evidence: SiteEvidence, *, max_lag: int, select: Select) -> dict[str, GrangerTests]:
    """View field → the tests of its weights, flat, in the order of the field's entries: p-values, lags, problems."""
    if evidence.trajectory is None:
        raise CriterionError("there is no trajectory; record one with jali.trajectory(model, train, watch)")
    found = {}
    for field in ("w_in", "w_rec"):
        exponents = evidence.trajectory.exponents.get(field)
        if exponents is not None:
            series = exponents.reshape(len(exponents), -1).T  # (weights, D)
            found[field] = granger(series, evidence.trajectory.performance, max_lag=max_lag, select=select)
    return found


def _refuse_silence(watched: np.ndarray) -> None:
    """:class:`CriterionError` for a performance (D,) that no series can cause."""
    if len(watched) == 1:
        raise CriterionError(
            "no weight can be tested by a single window; look at more of the training, or make window smaller"
        )
    (problem,) = standardized(watched[None])[1]
    if problem != FINE:
        raise CriterionError(
            f"no weight can be tested: what was watched is {PROBLEMS[problem]} over {len(watched)} windows (the last is "
            f"{watched[-1]:g}); watch a finite number that changes, as the accuracy or the loss on the training examples"
        )
