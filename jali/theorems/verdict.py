"""What a theorem says about one network: a value that prints as one line, and JSON in and out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from jali.errors import FileError
from jali.plain import numbers, parse_json, strict

SCHEMA = 1
Answer = Literal["holds", "fails", "premise not met"]


@dataclass(frozen=True)
class Verdict:
    """``theorem`` as numbered in the paper ("III.1", "Corollary III.1"), at one ``site`` ("" for a whole model).

    ``answer``: "holds", "fails" (here is a counterexample) or "premise not met" (the theorem says nothing here); ``witness``
    is the reason in one line, ``numbers`` are the measured values behind it. True in a boolean context iff it holds.
    """

    theorem: str
    site: str
    answer: Answer
    witness: str
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.answer == "holds"

    def __str__(self) -> str:
        return f"{self.theorem:<16} {self.site or 'model':<8} {self.answer:<15} {self.witness}"


def to_json(verdicts: Iterable[Verdict]) -> str:
    """Strict JSON; an infinite number is the string "inf" or "-inf"."""
    body = {"schema": SCHEMA, "verdicts": [strict(dataclasses.asdict(each)) for each in verdicts]}
    return json.dumps(body, indent=1, allow_nan=False, ensure_ascii=False)


def from_json(text: str | bytes) -> tuple[Verdict, ...]:
    """What :func:`to_json` wrote; :class:`FileError` for anything else."""
    try:
        body = parse_json(text)
        if body["schema"] != SCHEMA:
            raise ValueError(f"schema {SCHEMA} is wanted")
        found = tuple(Verdict(**{**each, "numbers": numbers(each["numbers"])}) for each in body["verdicts"])
        for each in found:
            if each.answer not in get_args(Answer):
                raise ValueError(f"{each.answer!r} is no answer")
    except (ValueError, TypeError, KeyError) as error:
        raise FileError(f"these are no verdicts of this version of jali ({error}); run jali verify again") from None
    return found
