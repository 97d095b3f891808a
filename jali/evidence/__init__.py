"""Evidence: what is measured once on data, for the criteria that need it. Frozen results; no model inside."""

from jali.evidence.gradients import Loss
from jali.evidence.measure import collect
from jali.evidence.results import Evidence, SiteEvidence, Use

__all__ = ["Evidence", "Loss", "SiteEvidence", "Use", "collect"]
