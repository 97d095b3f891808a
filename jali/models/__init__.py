"""Recurrent networks that PyTorch lacks. They are pruned like PyTorch's own."""

from jali.models.cohen_grossberg import CohenGrossberg
from jali.models.top_down import TopDownRNN

__all__ = ["CohenGrossberg", "TopDownRNN"]
