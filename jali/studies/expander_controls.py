"""Is expansion the cause, or the density? Masks of one density from expander to its opposite, and how their accuracy ranks.

The paper above says that a network keeps its accuracy while its layers are expanders; D. Hoang et al., "Revisiting pruning at
initialization through the lens of Ramanujan graph", ICLR 2023, find no significant relation. Here the density is fixed and the
expansion is moved: the same ranking (:func:`jali.maths.expanders.expander_ranking`) with strengths from −0.3 (harm) to 0.3
(correction), of λ2, which the bounds are made of, and of α2, which says how well a graph is connected; on the sizes of trained
weights, on random numbers, and on random numbers before training. Beside them stand what others would do at this density: the
largest weights and nothing else, and random regular masks before training (X-Net).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from jali.maths.expanders import expander_ranking, regular_ranking
from jali.maths.spectral import cheeger, expansion
from jali.report.tables import percent
from jali.studies.base import Figure, Metric, Progress, Record, RecordStore, Settings, Study, Table, Task
from jali.studies.expander_control_tables import (
    FAMILIES,
    MEASURES,
    NAMES,
    PLAIN,
    REGULAR,
    STRENGTHS,
    UNTRAINED,
    accuracies,
    correlations,
    differences,
    rivals,
    scatter,
)
from jali.studies.expander_runs import (
    FIELDS,
    ExpanderRecipe,
    block,
    cut,
    fit,
    network,
    restored,
    save,
    scores,
    view_of,
)  # fmt: skip

FULL = ExpanderRecipe(
    "mnist", "RNN", hidden=64, epochs=(6, 3), lr=2e-3, remaining=(0.1, 0.05), noise=(0.0, 0.3), examples=10_000
)
QUICK = replace(FULL, data="digits", epochs=(10, 5), batch=32, lr=5e-3, remaining=(0.1,))


class ExpanderControls(Study):
    name = "expander-controls"
    title = "Expansion or density? Masks of one density, from expanders to their opposite"
    paper = (
        "Graph expansion in pruned recurrent neural network layers, ICLR 2024 Tiny Papers; D. Hoang et al., ICLR 2023"
    )
    default_seeds = 5

    def tasks(self, settings: Settings) -> list[Task]:
        recipe = QUICK if settings.quick else FULL
        config = recipe.config()
        return [
            Task(key, f"seed {seed}: {title}", seed, config)
            for seed in settings.seeds
            for key, title in _keys(recipe, seed)
        ]

    def run(self, task: Task, workspace: RecordStore, progress: Progress) -> Record:
        recipe = ExpanderRecipe.of(task.config)
        if task.key["what"] == "dense":
            model = network(recipe, task.seed)
            fit(model, recipe, recipe.epochs[0], task.seed, progress)
            save(workspace, model, task.seed, "dense")
            return task.record(self.name, scores(model, recipe))
        untrained = task.key["what"] in UNTRAINED
        model = network(recipe, task.seed) if untrained else restored(workspace, recipe, task.seed, "dense")
        keep = masks(model, task.key, task.seed)
        cut(model, keep)
        fit(model, recipe, sum(recipe.epochs) if untrained else recipe.epochs[1], task.seed, progress)
        return task.record(self.name, {**scores(model, recipe), **measured(keep)})

    def summary(self, records: Sequence[Record]) -> list[Table]:
        return [rivals(records), correlations(records), differences(records), accuracies(records)] if records else []

    def figures(self, records: Sequence[Record]) -> list[Figure]:
        densities = ExpanderRecipe.of(records[-1].config).remaining if records else ()
        return [scatter(records, remaining, measure) for remaining in densities for measure in ("Δ_S", "α2")]


def _keys(recipe: ExpanderRecipe, seed: int) -> Iterator[tuple[dict[str, Any], str]]:
    yield {"what": "dense", "seed": seed}, "dense"
    for remaining in recipe.remaining:
        for family, (_, base) in FAMILIES.items():
            for strength in STRENGTHS:
                if base is not None and not strength:
                    continue  # without a correction it is the mask of the other family
                key = {"what": family, "strength": strength, "remaining": remaining, "seed": seed}
                yield key, f"{family} {strength:+g}, {percent(remaining)} of the edges"
        for control in (PLAIN, REGULAR):
            key = {"what": control, "strength": 0.0, "remaining": remaining, "seed": seed}
            yield key, f"{NAMES[control, 0.0]}, {percent(remaining)} of the edges"


def masks(model: Any, key: dict[str, Any], seed: int) -> dict[str, np.ndarray]:
    """View field → mask (G, H, I) of ``key["remaining"]`` of the entries; a random family has the seed's numbers as sizes."""
    view, rng, found = view_of(model), np.random.default_rng([seed, 1]), {}
    what = key["what"]
    of, base = FAMILIES.get(what, ("lambda2", what))
    floor = 0.0 if what == PLAIN else 0.25
    for number, field in enumerate(FIELDS.values()):
        sizes = getattr(view, field)
        sizes = sizes if (base or what) in ("magnitude", PLAIN) else rng.normal(size=sizes.shape)
        count = round(key["remaining"] * sizes[0].size)
        if what == REGULAR:
            ranks = [regular_ranking(gate.shape[0], gate.shape[1], (seed, number, k)) for k, gate in enumerate(sizes)]
        else:
            ranks = [expander_ranking(gate, key["strength"], floor, of) for gate in sizes]
        found[field] = np.stack([rank >= rank.size - count for rank in ranks])
    return found


def measured(keep: dict[str, np.ndarray]) -> dict[str, Metric]:
    """Mean over both layers of Δ_S and Δ_R (−1, the least value, where undefined), and of α2 of the Cheeger interval."""
    values: dict[str, list[float]] = {measure: [] for measure in MEASURES}
    for mask in keep.values():
        found = expansion(block(mask))
        for name, delta in (("Δ_S", found.delta_s), ("Δ_R", found.delta_r)):
            values[name].append(-1.0 if delta is None else delta)
        values["α2"].append(cheeger(block(mask)).alpha2)
    return {name: Metric(float(np.mean(each)), len(each)) for name, each in values.items()}


STUDY = ExpanderControls()
