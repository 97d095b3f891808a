"""Corollary III.1: "decomposed into k modular sublattices, the network can be parallelized with a speedup of O(k)".

What makes units independent is that no weight leads from one block to another, and then it is true: the blocks run apart and
give the same states. Modularity of the lattice, the paper's reason, does not: u → v is a modular chain whose two elements are
modular sublattices, and v cannot be run without u.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jali.dynamics import Floats
from jali.errors import ContextError
from jali.maths.decomposition import weak_components
from jali.maths.partition import balanced_partition
from jali.theorems.case import Case
from jali.theorems.verdict import Verdict
from jali.view import View

TOLERANCE = 1e-9  # sums of another order, over many steps


def sublattices_in_parallel(case: Case, labels: ArrayLike | None = None) -> Verdict:
    """Corollary III.1 on one site: its blocks run apart, and the largest difference of any state from the whole site's.

    ``labels (H,)``: the block of every unit; by default the connected components of the influence graph, which are the finest
    independent blocks. Where these are one, two blocks of an equal number of units are cut out for comparison.
    Raises :class:`ContextError` for labels that do not fit.
    """
    view, theorem = case.view, "Corollary III.1"
    if view.w_proj is not None:
        return Verdict(theorem, case.site, "premise not met", "the projection mixes all units into every output")
    influence = view.influence()
    blocks = weak_components(influence > 0) if labels is None else _checked(labels, len(influence))
    if labels is None and blocks.max() == 0:
        return _one_component(case, influence)
    moved, share = difference(case, blocks), _share(blocks)
    count = len(np.unique(blocks))
    measured = {"blocks": count, "largest difference": moved, "share of multiply-adds": share, "inputs": case.source}
    between = np.argwhere((influence > 0) & (blocks[:, None] != blocks))
    ran = f"{count} blocks run apart differ from the whole by at most {moved:.1e}"
    if moved <= TOLERANCE:
        why = f"{ran}, with {100 * share:.3g} % of its recurrent multiply-adds"
        return Verdict(theorem, case.site, "holds", why, measured)
    link = f"u{between[0][1]} drives u{between[0][0]} of another block" if len(between) else "rounding alone"
    return Verdict(theorem, case.site, "fails", f"{ran}: {link}", measured)


def difference(case: Case, blocks: NDArray[np.integer]) -> float:
    """The largest absolute difference between the states of the whole site and of its ``blocks (H,)`` run apart."""
    whole, hidden = case.recurrence.states(case.x, case.start), case.view.hidden
    worst = 0.0
    for block in np.unique(blocks):
        units = np.flatnonzero(blocks == block)
        own = units if whole.shape[2] == hidden else np.concatenate((units, hidden + units))  # LSTM: (h, c)
        part = case.recurrence.with_view(case.view.cut(units)).states(case.x, case.start[:, own])
        worst = max(worst, float(np.abs(part - whole[:, :, own]).max()))
    return worst


def _one_component(case: Case, influence: Floats) -> Verdict:
    n = len(influence)
    measured = {"blocks": 1, "inputs": case.source}
    if n == 1:
        return Verdict("Corollary III.1", case.site, "premise not met", "there is a single unit", measured)
    halves = balanced_partition(influence, 2)
    cut = Case(case.recurrence.with_view(_apart(case.view, halves)), case.x, case.start, case.source, case.seed)
    apart, cost = difference(cut, halves), difference(case, halves)
    measured |= {"two blocks": apart, "two blocks of the whole": cost, "share of multiply-adds": _share(halves)}
    why = f"all {n} units are one component; cut into 2 blocks they run apart exactly ({apart:.1e}), but {cost:.2g} off the whole"
    return Verdict("Corollary III.1", case.site, "premise not met", why, measured)


def _apart(view: View, blocks: NDArray[np.integer]) -> View:
    """The view without the recurrent weights between blocks."""
    return view.replace(w_rec=view.recurrence() * (blocks[:, None] == blocks))


def _share(blocks: NDArray[np.integer]) -> float:
    """Σ n_b² / n²: the recurrent multiply-adds of the blocks, of those of one dense matrix; 1 / k for k equal blocks."""
    sizes = np.unique(blocks, return_counts=True)[1]
    return float((sizes.astype(float) ** 2).sum() / len(blocks) ** 2)


def _checked(labels: ArrayLike, units: int) -> NDArray[np.intp]:
    blocks = np.asarray(labels)
    if blocks.shape != (units,):
        raise ContextError(f"labels has shape {blocks.shape}; one block for each of {units} units is wanted")
    return np.unique(blocks, return_inverse=True)[1].astype(np.intp)
