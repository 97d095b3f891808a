"""Which engine runs a layer on how many sequences, and why."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from jali.errors import ModelError

ENGINES = ("torch", "kernels")


@dataclass(frozen=True)
class Choice:
    """What runs a layer on about ``batch`` sequences, and why.

    ``engine`` is "torch" (PyTorch's own) or "kernels" (ours). ``seconds``: what was measured for each, empty if the engine
    was asked for. ``reason``: why no other was tried, or empty.
    """

    batch: int
    engine: str
    seconds: Mapping[str, float]
    reason: str = ""

    def __post_init__(self) -> None:
        whole = isinstance(self.batch, int) and not isinstance(self.batch, bool) and self.batch >= 1
        times = isinstance(self.seconds, Mapping) and all(
            name in ENGINES and isinstance(s, float) and 0 <= s < math.inf for name, s in self.seconds.items()
        )
        if not whole or self.engine not in ENGINES or not times or not isinstance(self.reason, str):
            raise ModelError(
                f"choice of {self.engine!r} for batch {self.batch!r} (seconds {self.seconds!r}) makes no sense; a batch is "
                f"a whole number from 1, an engine one of {', '.join(ENGINES)}"
            )

    def __str__(self) -> str:
        times = ", ".join(f"{name} {1e3 * s:.3g} ms" for name, s in sorted(self.seconds.items(), key=lambda p: p[1]))
        why = self.reason or (f"measured: {times}" if times else "as asked for")
        return f"batch {self.batch}: {self.engine} ({why})"
