"""Run the model on calibration data and measure what the criteria need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from jali.batches import batches
from jali.evidence.gradients import Loss, loss_gradients
from jali.evidence.results import Evidence, SiteEvidence
from jali.evidence.states import state_uses
from jali.site import Site


def collect(
    model: nn.Module,
    data: Any,
    sites: Sequence[Site],
    needs: Iterable[str],
    loss: Loss | None = None,
) -> Evidence:
    """Measure what ``needs`` names ("states", "gradients") at ``sites`` on calibration ``data``.

    ``loss(output, target)`` → scalar, for gradients; by default cross-entropy for integer targets and the mean squared
    error for real ones. Raises :class:`DataError` if the data does not fit the model or lacks targets.
    """
    wanted = set(needs)
    if not wanted:
        return Evidence()
    items = batches(data)
    uses = state_uses(model, items, sites) if "states" in wanted else {}
    gradients = loss_gradients(model, items, sites, loss) if "gradients" in wanted else {}
    return Evidence({s.name: SiteEvidence(uses.get(s.name, ()), gradients.get(s.name, ())) for s in sites})
