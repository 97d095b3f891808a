"""Plain values from outside: what counts as a number, and strict JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, TypeGuard

from jali.errors import SeedError

LARGEST_SEED = 2**32 - 1  # every generator in use takes it


def an(word: str) -> str:
    """``word`` with its article by sound: "an int", "a str"; capitals are spelled: "an LSTM", "a GRU"."""
    spelled = len(word) > 1 and word[:2].isupper()
    return f"{'an' if word[:1] in ('AEFHILMNORSX' if spelled else 'AEIOUaeiou') else 'a'} {word}"


def is_whole(value: Any) -> TypeGuard[int]:
    """Whether ``value`` is an integer of Python or numpy; True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_finite(value: Any) -> bool:
    """Whether ``value`` is a real number that a float can hold; True and False are none."""
    try:
        return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)
    except OverflowError:  # an integer of Python that is too large
        return False


def is_seed(value: Any) -> TypeGuard[int]:
    """Whether ``value`` is a whole number from 0 to 2³² − 1."""
    return is_whole(value) and 0 <= value <= LARGEST_SEED


def seed_of(value: Any) -> int:
    """``value`` as a plain integer; :class:`SeedError` if it is no seed, also where nothing would be drawn with it."""
    if not is_seed(value):
        raise SeedError(f"seed {value!r} is not a whole number from 0 to {LARGEST_SEED}; give one, e.g. seed=0")
    return int(value)


def parse_json(text: str | bytes) -> Any:
    """The value of strict JSON; ``ValueError`` for anything else, also NaN, infinity, and nesting without end."""

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not a JSON number")

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError as error:
        raise ValueError(str(error)) from None


def strict(value: Any) -> Any:
    """``value`` with what strict JSON can hold in place of mappings, tuples and infinities ("inf", "-inf")."""
    if isinstance(value, Mapping):
        return {key: strict(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [strict(each) for each in value]
    return str(value) if isinstance(value, float) and math.isinf(value) else value


def numbers(value: Any) -> Any:
    """The infinities of :func:`strict` as floats again."""
    if isinstance(value, dict):
        return {key: numbers(each) for key, each in value.items()}
    if isinstance(value, list):
        return [numbers(each) for each in value]
    return float(value) if value in ("inf", "-inf") else value
