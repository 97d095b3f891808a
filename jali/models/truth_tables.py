"""Truth tables: what a network of gates is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jali.errors import DataError
from jali.plain import is_whole, seed_of

Floats = NDArray[np.float64]
MOST_BITS = 16


@dataclass(frozen=True, eq=False)
class TruthTable:
    """Rows of inputs ``(rows, I)`` and what is wanted of the outputs ``(rows, O)``, all in [0, 1].

    Raises :class:`DataError` for arrays that are no such tables.
    """

    name: str
    x: Floats
    y: Floats

    def __post_init__(self) -> None:
        for part in ("x", "y"):
            try:
                values = np.array(getattr(self, part), dtype=np.float64)
            except (TypeError, ValueError) as error:
                raise DataError(
                    f"truth table {self.name!r}: {part} is no array of numbers ({error}); give rows of one width"
                ) from None
            if values.ndim != 2 or not values.size:
                raise DataError(
                    f"truth table {self.name!r}: {part} is {values.shape}; give rows and columns, one of each at least"
                )
            if not ((values >= 0) & (values <= 1)).all():  # NaN, too
                raise DataError(
                    f"truth table {self.name!r} has values outside [0, 1], which a node cannot take; rescale them"
                )
            object.__setattr__(self, part, values)
        if len(self.x) != len(self.y):
            raise DataError(
                f"truth table {self.name!r}: x has {len(self.x)} rows, y {len(self.y)}; give as many of both"
            )

    @classmethod
    def of_rows(cls, name: str, rows: Sequence[Sequence[float]], outputs: int = 1) -> TruthTable:
        """From rows of inputs followed by ``outputs`` outputs, for example ``[[0, 0, 0], [0, 1, 1], …]``.

        Raises :class:`DataError` for no rows, for rows of unlike width (it names the first), for a row that leaves no input,
        and for values outside [0, 1].
        """
        if not len(rows):
            raise DataError(f"truth table {name!r} has no rows")
        widths = [len(row) for row in rows]
        odd = next((k for k, width in enumerate(widths) if width != widths[0]), None)
        if odd is not None:
            raise DataError(
                f"truth table {name!r}: row {odd} has {widths[odd]} columns, row 0 has {widths[0]}; give all the same"
            )
        if not 1 <= outputs < widths[0]:
            raise DataError(
                f"truth table {name!r} has {widths[0]} columns and {outputs} outputs; it needs an input and an output at least"
            )
        values = np.array(rows, dtype=np.float64)
        return cls(name, values[:, :-outputs], values[:, -outputs:])

    def draw(self, count: int, seed: int) -> tuple[Floats, Floats]:
        """``count`` rows drawn at random with replacement, at least 1: ``(count, I)``, ``(count, O)``."""
        if not is_whole(count) or count < 1:
            raise DataError(f"{count!r} rows to draw; give a whole number, at least 1")
        chosen = np.random.default_rng([seed_of(seed), 1]).integers(len(self.x), size=count)
        return self.x[chosen], self.y[chosen]


GATES = {
    "AND": TruthTable.of_rows("AND", [[0, 0, 0], [0, 1, 0], [1, 0, 0], [1, 1, 1]]),
    "OR": TruthTable.of_rows("OR", [[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 1]]),
    "XOR": TruthTable.of_rows("XOR", [[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]]),
}


def parity(bits: int) -> TruthTable:
    """Whether an odd number of ``bits`` inputs is 1; two bits are XOR. Raises :class:`DataError` outside 1 to 16 bits."""
    if not is_whole(bits) or not 1 <= bits <= MOST_BITS:
        raise DataError(f"parity of {bits} bits; give 1 to {MOST_BITS}")
    x = (np.arange(2**bits)[:, None] >> np.arange(bits)[::-1] & 1).astype(np.float64)
    return TruthTable(f"parity of {bits}", x, x.sum(axis=1, keepdims=True) % 2)
