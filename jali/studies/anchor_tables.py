"""Showing the external anchor study: the published figures, and the tables and figures that put ours beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jali.report.tables import Cell, percent
from jali.studies.anchor_training import METHODS, PAPER_DATA, PAPER_EPOCHS, PAPER_SPARSITY, PAPER_UNITS, When
from jali.studies.base import Comparison, Figure, Record, Table, comparison_table, over_seeds

# Validation error after 50 epochs at 95 % sparsity, from their table 1.
PUBLISHED = {
    "RNN": {"random": 0.0951, "theirs": 0.0757, "dense": 0.0708},
    "LSTM": {"random": 0.0217, "theirs": 0.0166, "dense": 0.0080},
    "GRU": {"random": 0.0150, "theirs": 0.0146, "dense": 0.0077},
}


def reduced(config: dict[str, Any]) -> str:
    """In what a run is less than the paper's, or nothing."""
    parts = [config["data"]] if config["data"] != PAPER_DATA else []
    parts += [f"{config['hidden']} units"] if config["hidden"] != PAPER_UNITS else []
    parts += [f"{config['epochs']} of the paper's {PAPER_EPOCHS} epochs"] if config["epochs"] < PAPER_EPOCHS else []
    return f"reduced: {', '.join(parts)}" if parts else ""


def _same_task(config: dict[str, Any]) -> bool:
    """Whether the published figures are of this task: a quick run on other data has nothing to stand beside."""
    return (config["data"], config["hidden"], config["sparsity"]) == (PAPER_DATA, PAPER_UNITS, PAPER_SPARSITY)


SECTIONS: dict[When, tuple[str, str]] = {
    "training": (
        "Pruned during training",
        "Published: pruned at initialisation by the spectrum of the Jacobian. On the cubic schedule a weight is trained until it "
        "goes; RigL's networks, like the published ones, are sparse from the start.",
    ),
    "initialisation": (
        "Pruned at initialisation",
        "The mask is fixed before training, as published. Random pruning stands beside the published random one, the other "
        "criteria beside the published Jacobian spectrum.",
    ),
    "never": ("Dense", "Nothing is removed."),
}


def _label(records: Sequence[Record]) -> str:
    """What is reduced in these runs, in brackets for a title."""
    labels = sorted({reduced(record.config) for record in records} - {""})
    return f" ({'; '.join(labels)})" if labels else ""


def _where(cell: str, method: str):  # type: ignore[no-untyped-def]
    return lambda record: (record.task["cell"], record.task["method"]) == (cell, method)


def _pairs(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Cells and methods that were run, in the published order of the cells."""
    found = {(record.task["cell"], record.task["method"]) for record in records}
    return [(cell, method) for cell in PUBLISHED for method in METHODS if (cell, method) in found]


def against_published(records: Sequence[Record], when: When) -> Table:
    """The networks that were pruned ``when``, each beside the published one that it compares with."""
    lines = []
    for cell, method in _pairs(records):
        if METHODS[method].when == when:
            result = over_seeds(records, "test error", _where(cell, method))
            published = PUBLISHED[cell][METHODS[method].beside] if _same_task(records[-1].config) else None
            lines.append(Comparison(f"{cell}, {METHODS[method].label}", published, result))
    title, caption = SECTIONS[when]
    caption += " Published: validation error; ours: test error."
    return comparison_table(
        f"{title}: error{_label(records)}", lines, unit="%", scale=100, caption=caption, whose="published"
    )


def details(records: Sequence[Record]) -> Table:
    """What is left of each network, its errors, and what was chosen for it."""
    rows: list[tuple[Cell, ...]] = []
    for cell, method in _pairs(records):
        own = [record for record in records if _where(cell, method)(record)]

        def text(metric: str, digits: int, scale: float = 1.0, own: Sequence[Record] = own) -> str:
            return over_seeds(own, metric).text(digits, scale)

        rates = ", ".join(f"{lr:g}" for lr in sorted({record.data["lr"] for record in own}))
        share, errors = text("removed", 2, 100), (text("validation error", 2, 100), text("test error", 2, 100))
        name = f"{cell}, {METHODS[method].label}"
        rows.append((name, share, text("weights left", 0), *errors, text("epoch", 0), rates))
    columns = ("", "removed (%)", "weights left", "validation error (%)", "test error (%)", "epoch", "learning rate")
    caption = (
        "Epoch and learning rate are chosen on the validation part of the training set; the test part is read once. The recipe "
        f"is ours, and shifts the images (by at most {max(record.config['shift'] for record in records)} px); their paper names "
        "no such augmentation."
    )
    return Table(f"What was run{_label(records)}", columns, tuple(rows), caption)


def learning_rates(records: Sequence[Record]) -> Table:
    """The pilots."""
    pilots = [record for record in records if "lr" in record.task]
    rows: list[tuple[Cell, ...]] = [
        (record.task["cell"], f"{record.task['lr']:g}", f"{100 * record.metrics['validation error'].value:.2f}")
        for record in pilots
    ]
    epochs = records[-1].config["pilot_epochs"]
    caption = (
        f"Pruned on the cubic schedule within {epochs} epochs; the best of a cell is used for all of its networks."
    )
    return Table("Choice of the learning rate", ("cell", "peak", "validation error (%)"), tuple(rows), caption)


def curves(records: Sequence[Record], cell: str) -> Figure:
    """Validation error after every epoch."""
    series = []
    for method in METHODS:
        own = [record for record in records if _where(cell, method)(record)]
        if own:
            drawn = [record.data["validation error"] for record in own]
            mean = [100 * sum(values) / len(values) for values in zip(*drawn, strict=False)]
            series.append({"label": METHODS[method].label, "x": list(range(1, len(mean) + 1)), "y": mean})
    end = records[-1].config["cubic"][1]
    payload = {"x_label": "epoch", "y_label": "validation error (%)", "series": series}
    caption = f"Means over seeds. The cubic schedule removes until {percent(end)} of the training are over."
    return Figure("lines", f"{cell}: error while training{_label(records)}", payload, caption)
