"""Evidence: what is measured once on data, for the criteria that need it. Frozen results; no model inside."""

from jali.evidence.gradients import Loss
from jali.evidence.measure import collect
from jali.evidence.results import Evidence, SiteEvidence, SiteTrajectory, Use
from jali.evidence.twins import Perturbation, Trajectory, trajectory

__all__ = [
    "Evidence",
    "Loss",
    "Perturbation",
    "SiteEvidence",
    "SiteTrajectory",
    "Trajectory",
    "Use",
    "collect",
    "trajectory",
]
