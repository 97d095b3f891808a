"""Checks of plans, read or made: every problem is one :class:`PlanError` that says what is wrong and what to do."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Any

from jali.errors import PlanError


def expect(holds: bool, problem: str) -> None:
    """Raises :class:`PlanError` with ``problem`` unless it ``holds``."""
    if not holds:
        raise PlanError(f"not a valid plan: {problem}; make it again with jali.plan")


def short(value: Any) -> str:
    """``repr`` for a message: cut, whatever the file holds."""
    return reprlib.repr(value)


def require_fields(body: Any, names: Sequence[str], where: str) -> None:
    """Raises :class:`PlanError` unless ``body`` is an object with just the fields ``names``."""
    expect(isinstance(body, dict), f"{where} is {short(body)}, not an object")
    missing, unknown = [n for n in names if n not in body], [n for n in body if n not in names]
    expect(not missing, f"{where} lacks {', '.join(missing)}")
    expect(not unknown, f"{where} has unknown fields {', '.join(unknown)}")


def require_list(value: Any, where: str) -> list[Any]:
    """``value``; :class:`PlanError` unless it is a list."""
    expect(isinstance(value, list), f"{where} is {short(value)}, not a list")
    return list(value)
