"""Where do the units of a site go? A proof by tracing, used to shrink the consumers of pruned layers.

``trace(model, sites, example_inputs)`` follows every hidden unit through the symbolic graph of the model
(:mod:`torch.fx`) and says which ``Linear`` and recurrent modules read it, and which outputs of a recurrent module escape
into an operation that is not proved to leave removed (identically zero) features alone.
"""

from jali.flow.layout import Features, Port, States, Units, occurrences
from jali.flow.trace import Flow, trace
from jali.flow.walk import Reader

__all__ = ["Features", "Flow", "Port", "Reader", "States", "Units", "occurrences", "trace"]
