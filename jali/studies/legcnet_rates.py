"""The learning rates of the LEGCNet studies, which the paper does not give: what each would have done on the validation part.

Dense networks are trained on the train part alone and judged on the validation part; the test part is not read. The rates of
the paper's perceptrons were chosen by hand before this record was made, so that it is their check and not their source; those of
the recurrent networks were chosen by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import torch

from jali.data import Dataset
from jali.report.tables import NONE, Cell
from jali.studies.base import Metric, Progress, Record, RecordStore, Settings, Study, Table, Task, mean_interval
from jali.studies.legcnet_networks import Examples, classes_of, initial, widths
from jali.studies.legcnet_recurrent import RATES
from jali.studies.legcnet_recurrent_training import RecurrentRecipe, descending, doubles, initial_network
from jali.studies.legcnet_settings import PAPER, SETTINGS, quick, setting_of
from jali.studies.legcnet_tables import NAMES, PAPERS
from jali.studies.legcnet_training import datasets, until_converged
from jali.studies.training import accuracy

SMALL, LARGE, CELLS = (0.01, 0.03, 0.1, 0.3), (0.1, 0.3, 1.0), (0.03, 0.1, 0.3)
FEW = 2  # seeds of those that take longer


class LegcnetRates(Study):
    name = "legcnet-rates"
    title = "Learning rates, on the validation part"
    paper = f"{PAPER}, which gives none"
    default_seeds = 5

    def tasks(self, settings: Settings) -> list[Task]:
        seeds, out = list(settings.seeds), list[Task]()
        for name in ["iris"] if settings.quick else NAMES:
            setting = quick(SETTINGS[name]) if settings.quick else SETTINGS[name]
            rates, own = (LARGE, seeds[:FEW]) if setting.apart else (SMALL, seeds)
            out.append(Task({"data": name}, name, seeds[0], {**asdict(setting), "seeds": own, "rates": list(rates)}))
        for cell in list(RATES)[-1 if settings.quick else 0 :]:
            recipe = RecurrentRecipe(RATES[cell]).quick() if settings.quick else RecurrentRecipe(RATES[cell])
            config = {**recipe.config(), "seeds": seeds[:FEW], "rates": list(CELLS)}
            del config["rate"]  # every one of them is tried
            out.append(Task({"data": recipe.data, "cell": cell}, f"{recipe.data}, {cell}", seeds[0], config))
        return out

    def run(self, task: Task, workspace: RecordStore, progress: Progress) -> Record:
        rows: list[dict[str, Any]] = []
        for rate in task.config["rates"]:
            progress(f"rate {rate:g}")
            found = _cells(task, rate) if "cell" in task.key else _perceptrons(task, rate, progress)
            rows += [{"rate": rate, **each} for each in found]
        best = max(rows, key=lambda row: row["accuracy"])
        return task.record(self.name, {"best validation": Metric(best["accuracy"], 1)}, data={"runs": rows})

    def summary(self, records: Sequence[Record]) -> list[Table]:
        return [_table(records)] if records else []


def _perceptrons(task: Task, rate: float, progress: Progress) -> list[dict[str, Any]]:
    """Validation accuracy and epochs to convergence of each seed."""
    setting = setting_of({key: value for key, value in task.config.items() if key != "rates"})
    setting = replace(setting, descent=replace(setting.descent, rate=rate))
    seeds, sets = task.config["seeds"], datasets(task.config)
    start = initial(widths(sets[0], setting.hidden), seeds).to(getattr(torch, setting.dtype))
    bank, epochs = until_converged(start, _train_part(sets[0], seeds), setting, None, progress)
    held_out = sets[0].validation
    with torch.no_grad():
        x = held_out.x.flatten(1).to(bank.weights[0].dtype).expand(bank.count, -1, -1)
        right = (classes_of(bank(x)) == held_out.y).double().mean(1).tolist()
    return [{"seed": s, "accuracy": a, "epochs": e} for s, a, e in zip(seeds, right, epochs, strict=True)]


def _train_part(data: Dataset, seeds: Sequence[int]) -> Examples:
    x, y = data.train.x.flatten(1), data.train.y
    count = len(seeds)
    return Examples(x.expand(count, *x.shape), y.expand(count, *y.shape), torch.arange(count), tuple(seeds))


def _cells(task: Task, rate: float) -> list[dict[str, Any]]:
    """Validation accuracy of each seed after as many epochs as the study trains."""
    recipe = RecurrentRecipe.of({**task.config, "rate": rate})
    data, out = doubles(recipe), []
    for seed in task.config["seeds"]:
        network = initial_network(data, recipe, task.key["cell"], seed)
        for _ in descending(data, recipe, seed)(network):
            pass
        out.append({"seed": seed, "accuracy": accuracy(network, data.validation), "epochs": recipe.epochs})
    return out


def _name(record: Record) -> str:
    data = record.task["data"]
    return f"{data}, {record.task['cell']}" if "cell" in record.task else NAMES[data]


def _taken(record: Record) -> float:
    return RATES[record.task["cell"]] if "cell" in record.task else float(record.config["descent"]["rate"])


def _table(records: Sequence[Record]) -> Table:
    rates = sorted({row["rate"] for record in records for row in record.data["runs"]})
    rows: list[tuple[Cell, ...]] = []
    for record in records:
        cells: list[Cell] = [_name(record), f"{_taken(record):g}"]
        for rate in rates:
            own = [row for row in record.data["runs"] if row["rate"] == rate]
            epochs = sum(row["epochs"] for row in own) / max(len(own), 1)
            text = mean_interval(row["accuracy"] for row in own).text(1, 100)
            cells.append(f"{text} ({epochs:.0f})" if own else NONE)
        known = PAPERS["dense", "epochs"].get(record.task["data"])
        rows.append((*cells, NONE if known is None else f"{known:.0f}"))
    counts = {len({row["seed"] for row in record.data["runs"]}) for record in records}
    initialisations = " or ".join(str(count) for count in sorted(counts, reverse=True))
    caption = (
        f"Validation accuracy in %, mean ± 95 % interval over {initialisations} initialisations, and mean epochs to convergence "
        "in brackets; trained on the train part alone. Recurrent networks are trained for a fixed number of epochs."
    )
    columns = ("network", "rate taken", *(f"rate {rate:g}" for rate in rates), "epochs, paper")
    return Table("Learning rates on the validation part", columns, tuple(rows), caption)


STUDY = LegcnetRates()
