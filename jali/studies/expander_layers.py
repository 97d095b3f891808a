"""Which layer the accuracy hangs on: each cut by itself, and both, with the bounds beside it, over several seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from jali.studies.base import Record, Table
from jali.studies.expander_mnist import PAPER, ExpanderStudy
from jali.studies.expander_runs import FIELDS, ExpanderRecipe
from jali.studies.expander_tables import accuracies

# The paper's training on a ninth of its images: thirteen cuts a seed would take twenty minutes on all of them.
FULL = ExpanderRecipe(
    "mnist", "RNN", remaining=(1.0, 0.5, 0.25, 0.12, 0.05), layers=("both", *FIELDS), widths=(), noise=(0.0, 0.3),
    examples=6_000,
)  # fmt: skip
QUICK = replace(FULL, data="digits", hidden=32, batch=32, epochs=(5, 3), remaining=(1.0, 0.25, 0.05))


class ExpanderLayers(ExpanderStudy):
    name = "expander-layers"
    title = "Accuracy and Ramanujan bounds with the input or the recurrent weights cut alone"
    default_seeds = 3
    full, quick, known = FULL, QUICK, PAPER

    def summary(self, records: Sequence[Record]) -> list[Table]:
        return accuracies(records) if records else []


STUDY = ExpanderLayers()
