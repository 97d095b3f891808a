"""Table 1 of the LEGCNet paper: dense networks beside LEGCNet-FT, which prunes by the whole training."""

from __future__ import annotations

from collections.abc import Sequence

from jali.report.tables import NONE, Cell
from jali.studies.base import Record, Table, mean_interval
from jali.studies.legcnet_settings import PAPER, SETTINGS, WEIGHTS
from jali.studies.legcnet_tables import (
    PAPERS,
    Column,
    LegcnetStudy,
    against_paper,
    by_data,
    mean_of,
    means,
    per_seed,
    removed,
    weights_of,
)

OTHER = "FT, causal go"
ROWS_HERE = {  # of the data, all that can be used; MNIST: the canonical test part
    "cancer": 683, "titanic": 1045, "banknote": 1372, "iris": 150, "iris-3": 150, "vowel": 871, "mnist": 70000,
}  # fmt: skip


class LegcnetTable1(LegcnetStudy):
    name = "legcnet-table1"
    title = "LEGCNet-FT: weights pruned by the whole training"
    paper = f"{PAPER}, Table 1"
    shows = ("dense", "FT")

    def tables(self, records: Sequence[Record]) -> list[Table]:
        percent = "Test accuracy in %. "
        return [
            _removed(records),
            against_paper("Table 1: accuracy", records, "accuracy", ("dense", "FT"), 2, 100, percent + means(records), (OTHER,)),
            against_paper("Table 1: macro F1", records, "f1", ("dense", "FT"), 2, 100, "In %. " + means(records), (OTHER,)),
            against_paper("Table 1: epochs to convergence", records, "epochs", ("dense", "FT"), 0, 1, rule(), (OTHER,)),
            flops("Table 1: FLOPs", records, ("dense", "FT")),
            _test_parts(records),
        ]  # fmt: skip


def rule() -> str:
    descent = SETTINGS["iris"].descent
    return (
        f"Ours: the first epoch after which the training loss is not {100 * descent.gain:g} % below its smallest value of "
        f"{descent.patience} epochs earlier; at most {descent.epochs} (MNIST {SETTINGS['mnist'].descent.epochs}). The paper "
        "gives no rule."
    )


def _removed(records: Sequence[Record]) -> Table:
    def paper(data: str) -> Cell:
        return f"{100 * (1 - PAPERS['FT', 'kept'][data] / WEIGHTS[data]):.2f}"

    def windows(data: str) -> Cell:
        found = [count for r in records if r.task["data"] == data for count in r.data["windows"]["FT"]]
        return f"{min(found)}–{max(found)}"

    columns = {
        "weights, paper": lambda data: WEIGHTS[data],
        "ours": lambda data: weights_of(records, data),
        "removed by FT (%), paper": paper,
        "removed, ours": lambda data: mean_interval(removed(records, data, "FT")).text(2, 100),
        "causal go, ours": lambda data: _other(records, data),
        "not testable (%)": lambda data: f"{100 * untested(records, data, 'FT'):.2f}",
        "windows": windows,
    }
    caption = (
        "FT removes the weights with p > 0.05, as the tables' column says; 'causal go' those with p < 0.05, as other places of "
        f"the text say. Weights that cannot be tested stay. {means(records)}"
    )
    return by_data("Table 1: what goes", records, columns, caption)


def _other(records: Sequence[Record], data: str) -> Cell:
    return mean_interval(removed(records, data, OTHER)).text(2, 100)


def untested(records: Sequence[Record], data: str, choice: str) -> float:
    """Share of the weights of all seeds without a p-value."""
    own = [record for record in records if record.task["data"] == data]
    count = sum(sum(record.data["problems"][choice].values()) for record in own)
    return count / sum(record.data["weights"] * len(record.data["windows"][choice]) for record in own)


def flops(title: str, records: Sequence[Record], variants: Sequence[str]) -> Table:
    """The paper's FLOPs, and what the trainings cost."""

    def paper(what: str) -> Column:
        return lambda data: f"{PAPERS[what, 'kept'][data]:,.0f}"

    def ours(what: str) -> Column:
        return lambda data: mean_of(records, data, what, "kept", 0)

    def cost(what: str) -> Column:
        return lambda data: _cost(records, data, what)

    columns: dict[str, Column] = {}
    for what in variants:
        columns |= {f"{what}, paper": paper(what), f"{what}, ours": ours(what)}
    for what in ("dense", *(variant for variant in variants if variant != "dense")):
        columns[f"training {what} (10⁶)"] = cost(what)
    caption = (
        "The paper's FLOPs are the number of weights: the multiplications of one example. Training: multiply-adds of all "
        "examples and epochs, forward and backward (3 per weight), in millions; for LEGCNet with those of the twins that chose."
    )
    return by_data(title, records, columns, caption)


def _cost(records: Sequence[Record], data: str, what: str) -> Cell:
    kept, epochs = (per_seed(records, data, what, number) for number in ("kept", "epochs"))
    dense = per_seed(records, data, "dense", "epochs")
    own = next(record for record in records if record.task["data"] == data)
    examples, costs = own.data["examples"], []
    for seed, weights in kept.items():
        twins = {"FT": 2 * dense[seed], "PT": 2 * min(own.config["early"], dense[seed])}.get(what.split(",")[0], 0)
        costs.append(3e-6 * examples * (weights * epochs[seed] + twins * own.data["weights"]))
    return mean_interval(costs).text(1 if max(costs) < 1000 else 0) if costs else NONE


def implied(accuracies: Sequence[float], most: int = 1000) -> int | None:
    """The smallest size of a test part on which all these accuracies, rounded or cut to four digits, can occur."""
    for size in range(1, most + 1):
        if all(
            any(0 <= k / size - a < 1e-4 or abs(k / size - a) <= 5.0001e-5 for k in range(size + 1)) for a in accuracies
        ):
            return size
    return None


def fits(accuracies: Sequence[float], size: int) -> bool:
    near = [round(a * size) + step for a in accuracies for step in (-1, 0, 1)]
    found = [a for a in accuracies if any(0 <= k / size - a < 1e-4 or abs(k / size - a) <= 5.0001e-5 for k in near)]
    return len(found) == len(accuracies)


def _test_parts(records: Sequence[Record]) -> Table:
    def accuracies(data: str) -> list[float]:
        return [values[data] for (_, number), values in PAPERS.items() if number == "accuracy"]

    def here(data: str) -> int:
        return -(-ROWS_HERE[data] // 5) if data != "mnist" else 10000

    columns = {
        "test rows of an 80:20 split": here,
        "the paper's accuracies fit them": lambda data: "yes" if fits(accuracies(data), here(data)) else "no",
        "smallest test part that they fit": lambda data: implied(accuracies(data)) or "above 1,000",
    }
    caption = (
        "An accuracy is a whole number of test rows over their number: whether all accuracies of the paper's Tables 1 to 3 can "
        "occur on the test part of the 80:20 split that it states (MNIST: the canonical 10 000)."
    )
    return by_data("The paper's test parts", records, columns, caption)


STUDY = LegcnetTable1()
