"""What a model is like: order, communities, dynamics and information of every recurrent site."""

from jali.analysis.measure import analyze
from jali.analysis.results import Analysis, SiteAnalysis

__all__ = ["Analysis", "SiteAnalysis", "analyze"]
