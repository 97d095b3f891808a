"""Recurrent networks that PyTorch lacks. The layers are pruned like PyTorch's own; graphs of nodes prune themselves."""

from jali.models.asynchronous import AsynchronousNetwork
from jali.models.asynchronous_values import Channel, SpectralRule
from jali.models.cohen_grossberg import CohenGrossberg
from jali.models.top_down import TopDownRNN
from jali.models.truth_tables import GATES, TruthTable, parity

__all__ = [
    "GATES",
    "AsynchronousNetwork",
    "Channel",
    "CohenGrossberg",
    "SpectralRule",
    "TopDownRNN",
    "TruthTable",
    "parity",
]
