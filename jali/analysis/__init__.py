"""What a model is like: order, communities, dynamics and information of every recurrent site."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jali.analysis.results import Analysis, SiteAnalysis

if TYPE_CHECKING:
    from jali.analysis.measure import analyze as analyze

__all__ = ["Analysis", "SiteAnalysis", "analyze"]


def __getattr__(name: str) -> Any:
    if name != "analyze":  # what measures imports torch, which a report of saved results does without
        raise AttributeError(f"module 'jali.analysis' has no attribute {name!r}")
    from jali.analysis.measure import analyze

    return analyze
