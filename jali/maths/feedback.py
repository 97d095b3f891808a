"""Lattices of a multilayer network: the global one, and the top-down operator T between the layers' own.

Layer ℓ has n_ℓ units and a relation ``within`` (a influences b); ``up`` relates the units of layer ℓ to those of layer
ℓ + 1, ``down`` those of layer ℓ + 1 to those of layer ℓ. Each layer has its dependency lattice L_ℓ, the smallest lattice
that contains its poset. Paper 1, definition III.4, takes the union of these, "augmented" with operators
T: L_{ℓ+1} × L_ℓ → L_ℓ, and *assumes* that T(x, ·) preserves meets and joins. Two things are decided here:

* The union of lattices is no lattice: elements of two layers have no join in it. The global dependency lattice is the
  smallest lattice that contains the poset of *all* units, whose relation has ``up`` and ``down`` in it.
* T is what the connections say: ρ(x) is the join in L_ℓ of all units that a unit below x feeds back to, and
  T(x, a) = a ∨ ρ(x), the least element above a and all that x reaches ("join"), or a ∧ ρ(x) ("meet").

Then the assumption is a theorem about L_ℓ: a ↦ a ∨ c preserves joins in every lattice, and meets for all c iff L_ℓ is
distributive (dually for a ∧ c). The checks give the pair that breaks it.

Source: R. Sengupta, *Lattice-based pruning in recurrent neural networks via poset modeling*, section III.D; B. A. Davey,
H. A. Priestley, *Introduction to Lattices and Order*, 2nd ed., Cambridge 2002, sec. 2.16 and 4.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from jali.errors import ContextError
from jali.maths.completion import Completion, dedekind_macneille
from jali.maths.lattice import MAX_ELEMENTS, Lattice
from jali.maths.order import condensation, unfolding
from jali.maths.relation import BoolArray, IntArray, Verdict, as_relation


@dataclass(frozen=True, eq=False)
class Dependency:
    """The dependency lattice of n units. ``element`` (n,): the lattice element of each unit; units that influence each
    other share one. ``layer`` (n,): the layer of each unit, from 0."""

    completion: Completion
    element: IntArray
    layer: IntArray

    @property
    def lattice(self) -> Lattice:
        return self.completion.lattice


def multilayer_relation(
    within: Sequence[npt.ArrayLike], up: Sequence[npt.ArrayLike], down: Sequence[npt.ArrayLike]
) -> BoolArray:
    """The relation (N, N) of all units, layer after layer: ``[a, b]`` is True iff a influences b.

    ``within[ℓ]`` (n_ℓ, n_ℓ), ``up[ℓ]`` (n_ℓ, n_{ℓ+1}), ``down[ℓ]`` (n_{ℓ+1}, n_ℓ), all boolean. Raises ContextError if
    the shapes do not fit each other.
    """
    blocks = [as_relation(block) for block in within]
    if not blocks or len(up) != len(blocks) - 1 or len(down) != len(blocks) - 1:
        raise ContextError(
            f"{len(blocks)} layers need {max(len(blocks) - 1, 0)} relations up and as many down; got {len(up)} and {len(down)}."
        )
    sizes = [len(block) for block in blocks]
    first = np.concatenate(([0], np.cumsum(sizes)))
    whole = np.zeros((first[-1], first[-1]), dtype=np.bool_)
    for layer, block in enumerate(blocks):
        whole[first[layer] : first[layer + 1], first[layer] : first[layer + 1]] = block
    for layer in range(len(blocks) - 1):
        low, high = slice(first[layer], first[layer + 1]), slice(first[layer + 1], first[layer + 2])
        whole[low, high] = _between(up[layer], sizes[layer], sizes[layer + 1], f"up[{layer}]")
        whole[high, low] = _between(down[layer], sizes[layer + 1], sizes[layer], f"down[{layer}]")
    return whole


def _between(relation: npt.ArrayLike, rows: int, columns: int, name: str) -> BoolArray:
    array = np.asarray(relation)
    if array.dtype != np.bool_ or array.shape != (rows, columns):
        raise ContextError(f"{name} must be boolean ({rows}, {columns}); got {array.dtype} {array.shape}.")
    return array


def layer_lattice(relation: npt.ArrayLike, *, limit: int = MAX_ELEMENTS) -> Dependency:
    """The dependency lattice L_ℓ of one layer: the completion of the condensation of its ``relation`` (n, n)."""
    return _condensed(as_relation(relation), np.zeros(len(as_relation(relation)), dtype=np.intp), limit)


def global_lattice(
    within: Sequence[npt.ArrayLike],
    up: Sequence[npt.ArrayLike],
    down: Sequence[npt.ArrayLike],
    *,
    poset: Literal["condensation", "unfolding"] = "condensation",
    limit: int = MAX_ELEMENTS,
) -> Dependency:
    """The global dependency lattice of a multilayer network; arguments as for :func:`multilayer_relation`.

    ``poset``: how cycles are made an order. "condensation" merges units that influence each other, which with feedback
    is often a whole pair of layers; "unfolding" takes one step in time instead, and ``element`` is that of (unit, t).
    Raises ContextError, and LimitError above ``limit`` elements.
    """
    relation = multilayer_relation(within, up, down)
    layer = np.repeat(np.arange(len(within)), [len(np.asarray(block)) for block in within])
    if poset == "condensation":
        return _condensed(relation, layer, limit)
    if poset != "unfolding":
        raise ContextError(f"poset {poset!r} is unknown; it is 'condensation' or 'unfolding'.")
    completion = dedekind_macneille(unfolding(relation, 1), limit=limit)
    return Dependency(completion, completion.embedding[: len(relation)], layer)


def _condensed(relation: BoolArray, layer: IntArray, limit: int) -> Dependency:
    parts = condensation(relation)
    completion = dedekind_macneille(parts.leq, limit=limit)
    return Dependency(completion, completion.embedding[parts.membership], layer)


def feedback_operator(
    upper: Dependency, lower: Dependency, down: npt.ArrayLike, *, by: Literal["join", "meet"] = "join"
) -> IntArray:
    """T as a table (k_upper, k_lower): ``T[x, a]`` = a ∨ ρ(x), or a ∧ ρ(x), an element of the lower lattice.

    ``down`` (n_upper, n_lower) bool: which unit feeds back to which. ρ(x) is the join of the elements of all units that
    a unit at or below x feeds back to, the bottom if there is none. ρ preserves order.
    """
    relation = _between(down, len(upper.element), len(lower.element), "down")
    if by not in ("join", "meet"):
        raise ContextError(f"by={by!r} is unknown; it is 'join' or 'meet'.")
    reached = np.full(len(upper.lattice), lower.lattice.bottom, dtype=np.intp)
    for x in range(len(upper.lattice)):
        below = upper.lattice.leq[upper.element, x]  # (n_upper,)
        for unit in np.flatnonzero(relation[below].any(axis=0)):
            reached[x] = lower.lattice.join[reached[x], lower.element[unit]]
    table = lower.lattice.join if by == "join" else lower.lattice.meet
    return table[reached].astype(np.intp)


def preserves_meets(source: Lattice, target: Lattice, image: npt.ArrayLike) -> Verdict:
    """f(a ∧ b) = f(a) ∧ f(b) for all a, b of ``source``; ``image`` (k,) has f(a). The witness is a pair (a, b)."""
    f = _image(image, len(source), len(target))
    return _verdict(f[source.meet] != target.meet[f[:, None], f[None, :]], "f(a ∧ b) = f(a) ∧ f(b)")


def preserves_joins(source: Lattice, target: Lattice, image: npt.ArrayLike) -> Verdict:
    """f(a ∨ b) = f(a) ∨ f(b) for all a, b of ``source``; ``image`` (k,) has f(a). The witness is a pair (a, b)."""
    f = _image(image, len(source), len(target))
    return _verdict(f[source.join] != target.join[f[:, None], f[None, :]], "f(a ∨ b) = f(a) ∨ f(b)")


def is_homomorphism(source: Lattice, target: Lattice, image: npt.ArrayLike) -> Verdict:
    """Whether f preserves meets and joins; where it does not, ``law`` says which and the witness is a pair (a, b)."""
    meets = preserves_meets(source, target, image)
    return preserves_joins(source, target, image) if meets else meets


def operator_preserves(lattice: Lattice, table: npt.ArrayLike) -> Verdict:
    """Whether T(x, ·) preserves meets and joins of ``lattice`` for every x, as definition III.4 assumes.

    ``table`` (k_upper, k) as :func:`feedback_operator` makes it, or any other. The witness is (x, a, b): a and b are
    what T(x, ·) breaks, by the law that ``law`` names. O(k_upper k²).
    """
    rows = np.asarray(table)
    if rows.ndim != 2 or len(rows) == 0:
        raise ContextError(f"T is a table (k_upper, {len(lattice)}) of elements; got shape {rows.shape}.")
    for x, row in enumerate(rows):
        verdict = is_homomorphism(lattice, lattice, row)
        if not verdict:
            return Verdict(False, verdict.law.replace("f(", "T(x, "), (x, *verdict.witness))
    return Verdict(True, "T(x, ·) preserves meets and joins")


def _image(image: npt.ArrayLike, size: int, target: int) -> IntArray:
    f = np.asarray(image)
    if f.shape != (size,) or not np.issubdtype(f.dtype, np.integer):
        raise ContextError(f"a map of {size} elements is ({size},) integers; got {f.dtype} {f.shape}.")
    if f.min() < 0 or f.max() >= target:
        raise ContextError(f"images must lie in [0, {target}); got {f.min()} to {f.max()}.")
    return f.astype(np.intp)


def _verdict(broken: BoolArray, law: str) -> Verdict:
    pairs = np.argwhere(broken)
    return Verdict(not len(pairs), law, tuple(int(a) for a in pairs[:1].ravel()))
