"""Criteria: pure functions (view, evidence) → scores, one file each; a larger score means keep.

The file name, with "-" for "_", is the name on the command line, in tests and in the docs. A file exports

- ``SUMMARY``: one line,
- ``NEEDS``: what evidence it needs, a subset of {"states", "gradients", "trajectory"},
- ``score(view, evidence, **options) -> (H,)``: scores of the units, and/or
- ``score_weights(view, evidence, **options) -> {"w_in": (G, H, I), "w_rec": (G, H, R)}``: scores of the weights.

Options are keyword-only parameters with defaults, annotated as float, int, bool, str or a Literal: the registry refuses
values of another type, so that a criterion checks ranges only. A criterion that draws random numbers has a ``seed`` option.
Adding a criterion touches no other file.
"""

from jali.criterion.registry import Criterion, criteria, get

__all__ = ["Criterion", "criteria", "get"]
