"""The measurements of one model, section by section."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from jali.analysis.expansion import expansions
from jali.analysis.networks import together
from jali.analysis.observe import Run, answers, observe, started
from jali.analysis.results import Analysis, SiteAnalysis
from jali.batches import Batch, batches
from jali.contraction import Contraction, contraction_bound, sampled_norm
from jali.dynamics import Floats, Recurrence, exponent_curve, recurrence_of, site_spectrum
from jali.errors import DynamicsError, ModelError
from jali.plain import an, seed_of
from jali.plans import Plan, SitePlan
from jali.site import Site, sites
from jali.surgery.mask import mask
from jali.view import View, read

DENSITIES = (0.01, 0.05, 0.2, 0.5, 0.95)
SEQUENCES, STEPS, EXPONENTS = 16, 100, 256  # the spectrum's cost grows with all three
COMPONENTS = 3  # of each side of I(X; h_T): a nearest-neighbour estimate needs few
SAMPLES = 50  # fewer tell nothing
CUTS = (0.25, 0.5, 0.75, 0.9, 0.95, 0.99)  # fractions of the recurrent weights below the thresholds τ
CURVE_SEQUENCES, CURVE_STEPS = 4, 50
# Of the variance: the distortions of the R(D) curve.
FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 1.0)


def analyze(model: nn.Module, data: Any = None, *, plan: Plan | None = None, seed: int = 0) -> Analysis:
    """Order, communities, expansion, dynamics and information of every recurrent site of ``model``, which is not changed.

    ``data``: a tensor, an iterable of batches or a DataLoader, as for :func:`jali.prune`; without it there is nothing about
    dynamics and information. Batches with targets give I(Y; Ŷ), too: of labels and the largest output, or of real targets
    and outputs. ``plan``: adds modularity, expansion, information and the distortion–rate point of the model masked by it.

    The Lyapunov spectrum is that of the first 16 sequences and 100 steps, at most 256 exponents; the largest exponent under
    thresholds of the weights that of 4 sequences and 50 steps; I(X; h_T) that of 3 principal components of each side. Notes
    say what was left out and why. All information is in nats.
    Raises :class:`ModelError`, :class:`PlanError`, :class:`DataError`, :class:`SeedError`, or :class:`DynamicsError` where
    the states of a site leave the finite numbers.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(f"the model is {an(type(model).__name__)}; give the torch.nn.Module that holds the layers")
    seed, found = seed_of(seed), sites(model)
    items = None if data is None else batches(data)
    cut = None if plan is None else mask(model, plan)
    runs = {} if items is None else observe(model, items, found)
    after = {} if items is None or cut is None else observe(cut, items, found)
    network = together(model, found, runs, sequences=SEQUENCES, steps=STEPS, count=EXPONENTS)
    planned = {} if plan is None else {each.name: each for each in plan.sites}
    parts = []
    for site in found:
        measured = _Site(model, site, runs.get(site.name, []), seed)
        measured.structure()
        if items is not None:
            measured.on_data(*network.get(site.name, ({}, ())))
        if cut is not None:
            measured.pruned(read(cut, site), planned.get(site.name), after.get(site.name, []))
        parts.append(measured.result())
    notes = () if items is not None else ("without data nothing is said about dynamics and information",)
    task = {} if items is None else _task(model, cut, items, seed)
    return Analysis(type(model).__name__, tuple(parts), task, seed, notes)


class _Site:
    """The sections of one site as they come."""

    def __init__(self, model: nn.Module, site: Site, runs: list[Run], seed: int) -> None:
        self.site, self.runs, self.seed = site, runs, seed
        self.recurrence = recurrence_of(model, site)
        self.view = self.recurrence.view
        self.sections: dict[str, dict[str, Any]] = {
            name: {} for name in ("lattice", "modularity", "dynamics", "information", "pruning", "expansion")
        }
        self.notes: list[str] = []

    def result(self) -> SiteAnalysis:
        return SiteAnalysis(
            self.site.name, self.site.kind, self.site.size, **self.sections, notes=tuple(dict.fromkeys(self.notes))
        )

    def structure(self) -> None:
        influence = self.view.influence()
        if influence.any():
            self.sections["lattice"] = _lattice(influence)
        else:
            self.notes.append("no unit influences another: there is no lattice to speak of")
        self._communities(influence, "")
        self.sections["expansion"] = expansions(self.view, "")

    def _communities(self, influence: Floats, when: str) -> np.ndarray:
        from jali.maths.modularity import communities

        found = communities(influence, self.seed)
        self.sections["modularity"] |= {
            f"Q{when}": found.q,
            f"communities{when}": found.count,
            f"sizes{when}": list(found.sizes),
            f"labels{when}": found.labels.tolist(),
        }
        self.notes += [f"modularity{when}: {note}" for note in found.notes]
        return found.labels

    def pruned(self, cut: View, planned: SitePlan | None, after: list[Run]) -> None:
        """What the plan changes: communities of what is kept, and the states."""
        if planned is None:
            return
        from jali.maths.modularity import modularity

        kept = planned.kept
        influence = cut.influence()[np.ix_(kept, kept)]
        labels = np.asarray(self.sections["modularity"]["labels"])[kept]
        self._communities(influence, " after")
        self.sections["expansion"] |= expansions(cut, " after")
        self.sections["modularity"]["Q of the old communities after"] = modularity(influence, labels)
        if self.runs:
            self.sections["pruning"] = _distortion(self.runs, after)
            self._information(after, " after")

    def on_data(self, network: dict[str, Any], notes: Sequence[str]) -> None:
        if not self.runs:
            why = "a cell is called step by step" if self.site.cell else "it was never run on the data"
            self.notes.append(f"dynamics and information were not measured: {why}")
            return
        self.sections["dynamics"] = self._dynamics() | network
        self.notes += notes
        if self.site.kind == "TopDownRNN":
            self.notes.append("dynamics: the exponents are those of this layer, driven by the layers beside it")
        self._information(self.runs, "")

    def _dynamics(self) -> dict[str, Any]:
        recurrence = self.recurrence
        count = min(recurrence.size, EXPONENTS)
        spectra, sampled, used = [], 0.0, 0
        for run in self.runs:
            take = slice(0, SEQUENCES - used)
            x, start = run.x[take, :STEPS], started(run, recurrence)[take]
            lengths = np.minimum(run.lengths[take], x.shape[1])
            found = site_spectrum(recurrence, x, start, lengths.tolist(), count=count)
            spectra.append(found.exponents)
            sampled = max(sampled, sampled_norm(recurrence, x, recurrence.states(x, start), lengths.tolist()))
            self.notes += found.notes
            used += len(x)
            if used == SEQUENCES:
                break
        self._what_was_left_out(recurrence, count, used)
        exponents = np.concatenate(spectra).mean(axis=0)
        inputs = np.concatenate([run.x.reshape(-1, run.x.shape[2]) for run in self.runs])
        starts = np.concatenate([started(run, recurrence) for run in self.runs])
        bound = contraction_bound(recurrence, (inputs.min(axis=0), inputs.max(axis=0)), starts)
        answer = Contraction(bound, sampled, float(exponents[0]))
        return {
            "largest exponent": float(exponents[0]),
            "exponents": exponents.tolist(),
            "sequences": used,
            "bound of sup |Df|": bound,
            "sampled sup |Df|": sampled,
            "theorem III.7": answer.theorem,
            **self._under_thresholds(recurrence, used),
        }

    def _under_thresholds(self, recurrence: Recurrence, used: int) -> dict[str, Any]:
        """The largest exponent when recurrent weights below each τ are zero, from a zero state on some of the ``used``
        sequences of the spectrum."""
        run, magnitudes = self.runs[0], np.abs(recurrence.weights)
        steps = min(CURVE_STEPS, int(run.lengths[:CURVE_SEQUENCES].min()))
        every = min(STEPS, max(int(run.lengths.max()) for run in self.runs))
        self.notes.append(
            f"largest exponent at tau: one direction followed on {min(CURVE_SEQUENCES, len(run.x))} of the sequences over "
            f"{steps} steps from a zero state; at tau 0 it need not agree with the spectrum, of {used} and up to {every} steps"
        )
        thresholds = np.unique([0.0, *np.quantile(magnitudes, CUTS)]).tolist()
        found: list[float | None] = []
        for threshold in thresholds:
            try:
                with np.errstate(over="ignore", invalid="ignore"):  # a network that diverges is an error below
                    found += exponent_curve(recurrence, run.x[:CURVE_SEQUENCES, :steps], [threshold]).tolist()
            except DynamicsError as error:
                found.append(None)
                self.notes.append(f"largest exponent at tau {threshold:.4g}: {error}")
        below = [float((magnitudes < threshold).mean()) for threshold in thresholds]
        return {"tau": thresholds, "weights below tau": below, "largest exponent at tau": found}

    def _what_was_left_out(self, recurrence: Recurrence, count: int, used: int) -> None:
        steps, every = max(int(run.lengths.max()) for run in self.runs), sum(len(run.x) for run in self.runs)
        if count < recurrence.size:
            self.notes.append(f"spectrum: the {count} largest of {recurrence.size} exponents")
        if steps > STEPS or every > used:
            self.notes.append(f"spectrum: the first {used} of {every} sequences, {min(steps, STEPS)} of {steps} steps")

    def _information(self, runs: list[Run], when: str) -> None:
        from jali.maths.information import gaussian, ksg, whiten

        widths = {run.given.shape[1] for run in runs}
        samples = sum(len(run.x) for run in runs)
        if len(widths) > 1 or samples < SAMPLES:
            why = "the sequences differ in length" if len(widths) > 1 else f"{samples} sequences, {SAMPLES} are wanted"
            self.notes.append(f"I(X; h_T) was not estimated: {why}")
            return
        x = whiten(np.concatenate([run.given for run in runs]), COMPONENTS)
        h = whiten(np.concatenate([run.last for run in runs]), COMPONENTS)
        for estimate in (ksg(x.scores, h.scores, seed=self.seed), gaussian(x.scores, h.scores)):
            self.sections["information"][f"I(X; h_T) {estimate.estimator}{when}"] = estimate.nats
            self.notes += [f"I(X; h_T){when}, {estimate.estimator}: {note}" for note in estimate.notes]
        self.sections["information"][f"X{when}"], self.sections["information"][f"h_T{when}"] = x.note, h.note


def _lattice(influence: Floats) -> dict[str, Any]:
    from jali.maths.persistence import filtration

    size = influence.shape[0]
    grid = np.unique(np.clip(DENSITIES, 1 / size**2 / 2, 1 - 1e-9))
    levels = filtration(influence, grid)
    persistence = filtration(influence).persistence("both")
    return {
        "densities": grid.tolist(),
        "irreducible columns": levels.column_counts.tolist(),
        "irreducible rows": levels.row_counts.tolist(),
        "persistence, least": float(persistence.min()),
        "persistence, median": float(np.median(persistence)),
        "persistence, largest": float(persistence.max()),
    }


def _distortion(runs: Sequence[Run], after: Sequence[Run]) -> dict[str, Any]:
    """D = E‖h − ĥ‖² over all steps, and the Gaussian R(D), the most that any source of this covariance needs at D."""
    from jali.maths.rate_distortion import gaussian_rate

    h, moved = (np.concatenate([run.rows for run in part]) for part in (runs, after))
    variances = np.linalg.eigvalsh(np.cov(h.T).reshape(h.shape[1], -1)).clip(0) if len(h) > 1 else np.zeros(h.shape[1])
    distortion = float(((h - moved) ** 2).sum(axis=1).mean())
    curve = (np.array(FRACTIONS) * variances.sum()).tolist() if variances.any() else []
    return {
        "distortion": distortion,
        "variance": float(variances.sum()),
        "R(D), Gaussian bound": gaussian_rate(variances, distortion).rate,
        "curve D": curve,
        "curve R(D)": [gaussian_rate(variances, at).rate for at in curve],
    }


def _task(model: nn.Module, cut: nn.Module | None, items: Sequence[Batch], seed: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if any(batch.target is None for batch in items):
        return found
    for when, each in (("", model), (" after", cut)):
        if each is not None:
            found |= _answered(answers(each, items), [batch.target for batch in items], when, seed)
    return found


def _answered(outputs: Sequence[Any], targets: Sequence[Any], when: str, seed: int) -> dict[str, Any]:
    """I(Y; Ŷ), where outputs and targets are labels with scores, or real values of one shape."""
    from jali.maths.information import discrete, ksg, whiten

    if not all(isinstance(part, torch.Tensor) for part in (*outputs, *targets)):
        return {}
    if all(not y.is_floating_point() and o.shape[:-1] == y.shape for o, y in zip(outputs, targets, strict=True)):
        best = np.concatenate([o.argmax(-1).reshape(-1).cpu().numpy() for o in outputs])
        estimate = discrete(np.concatenate([y.reshape(-1).cpu().numpy() for y in targets]), best)
    elif all(y.is_floating_point() and o.shape == y.shape and y.dim() for o, y in zip(outputs, targets, strict=True)):
        y, o = (np.concatenate([_rows(p) for p in part]) for part in (targets, outputs))
        if len(y) < SAMPLES:
            return {}
        estimate = ksg(whiten(y, COMPONENTS).scores, whiten(o, COMPONENTS).scores, seed=seed)
    else:
        return {}
    return {f"I(Y; answer) {estimate.estimator}{when}": estimate.nats}


def _rows(part: torch.Tensor) -> Floats:
    part = part.detach().to("cpu", torch.float64)
    return (part[:, None] if part.dim() == 1 else part.reshape(-1, part.shape[-1])).numpy()
