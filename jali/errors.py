"""The exceptions of jali: a few, one cause each. All derive from :class:`JaliError`.

A message names the value, the limit it broke and the remedy.
"""

from __future__ import annotations


class JaliError(Exception):
    """Base of every error that jali raises on purpose."""


class ModelError(JaliError):
    """The model cannot be pruned as asked: no prunable site, an unsupported layer, NaN or infinite weights."""


class DataError(JaliError):
    """The data is missing, empty, of the wrong shape or of the wrong kind."""


class BudgetError(JaliError, ValueError):
    """A budget, width or threshold outside its range."""


class ScheduleError(JaliError, ValueError):
    """A schedule with values outside their range, or a pruner whose steps come in the wrong order."""


class SeedError(JaliError, ValueError):
    """A seed that is no whole number from 0 to 2³² − 1."""


class CriterionError(JaliError, ValueError):
    """An unknown criterion, or an option that it does not have."""


class PlanError(JaliError):
    """A plan that is malformed, of an unknown schema version, or that does not fit the model."""


class ContextError(JaliError, ValueError):
    """A relation, context or lattice that is empty, of the wrong shape, or breaks a law that it must satisfy."""


class LimitError(JaliError):
    """An enumeration reached its explicit limit before it was complete."""


class FileError(JaliError):
    """A file or folder that cannot be read, is truncated, or cannot be written."""


class DynamicsError(JaliError, ValueError):
    """A trajectory, Jacobian or integration that leaves the finite numbers, or is too short to be averaged."""
