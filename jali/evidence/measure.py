"""Run the model on calibration data and measure what the criteria need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from jali.batches import batches
from jali.errors import DataError
from jali.evidence.gradients import Loss, loss_gradients
from jali.evidence.results import Evidence, SiteEvidence, SiteTrajectory
from jali.evidence.states import state_uses
from jali.evidence.twins import Trajectory
from jali.plain import an
from jali.site import Site
from jali.view import unpacked


def collect(
    model: nn.Module,
    data: Any,
    sites: Sequence[Site],
    needs: Iterable[str],
    loss: Loss | None = None,
    trajectory: Trajectory | None = None,
) -> Evidence:
    """Measure what ``needs`` names ("states", "gradients") at ``sites`` on calibration ``data``.

    ``loss(output, target)`` → scalar, for gradients; by default cross-entropy for integer targets and the mean squared
    error for real ones. "trajectory" was measured in training and is handed over. Raises :class:`DataError` if the data
    does not fit the model or lacks targets, and for a trajectory of another model.
    """
    wanted = set(needs)
    if not wanted:
        return Evidence()
    trained = _trained(trajectory, model, sites) if "trajectory" in wanted else {}
    items = batches(data) if wanted - {"trajectory"} else []
    uses = state_uses(model, items, sites) if "states" in wanted else {}
    gradients = loss_gradients(model, items, sites, loss) if "gradients" in wanted else {}
    return Evidence(
        {s.name: SiteEvidence(uses.get(s.name, ()), gradients.get(s.name, ()), trained.get(s.name)) for s in sites}
    )


def _trained(trajectory: Any, model: nn.Module, sites: Sequence[Site]) -> dict[str, SiteTrajectory]:
    if not isinstance(trajectory, Trajectory):
        raise DataError(
            f"the trajectory is {an(type(trajectory).__name__)}; give the first of the two that "
            "jali.trajectory(model, train, watch) returns"
        )
    if trajectory.performance.ndim != 1:
        raise DataError(
            f"the trajectory watched {trajectory.performance.shape[1:]} numbers per window; watch one, of one network"
        )
    shapes, out = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}, {}
    for site in sites:
        prefix = f"{site.module}." if site.module else ""
        names = set(site.parameter_names().values())
        own = {name: values for name, values in trajectory.exponents.items() if name.startswith(prefix)}
        for name, values in own.items():
            if name in shapes and shapes[name] != values.shape[1:]:
                raise DataError(
                    f"the trajectory has {name!r} of shape {values.shape[1:]}, the model one of {shapes[name]}: record it on "
                    "this model"
                )
        exponents = unpacked(
            site, {name.removeprefix(prefix): v for name, v in own.items() if name.removeprefix(prefix) in names}
        )
        if "w_in" not in exponents:
            raise DataError(
                f"the trajectory has no weights of site {site.name!r}; it has {', '.join(trajectory.exponents)}: record it "
                "on this model"
            )
        out[site.name] = SiteTrajectory(exponents, trajectory.performance)
    return out
