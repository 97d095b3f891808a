"""Modular and distributive laws of finite lattices, refuted by a pentagon or a diamond.

* Modular: a ≤ c implies a ∨ (b ∧ c) = (a ∨ b) ∧ c; equivalently, no sublattice is an N5 (R. Dedekind, 1900).
* Distributive: a ∧ (b ∨ c) = (a ∧ b) ∨ (a ∧ c); equivalently, no sublattice is an N5 or an M3 (G. Birkhoff, 1934).

Both are decided on the covering relation instead of on all triples:

* A finite lattice is modular iff for all a, b: both cover a ∧ b exactly when a ∨ b covers both (upper and lower
  semimodular; G. Birkhoff, *Lattice Theory*, 3rd ed., ch. II sec. 8). O(k²) once the covers are known.
* A finite modular lattice is distributive iff no interval of length two has three elements or more in its middle
  (G. Grätzer, *Lattice Theory: Foundation*, 2011, ch. II: a modular lattice of finite length that is not distributive
  contains a cover-preserving M3). One matrix product.

See also B. A. Davey, H. A. Priestley, *Introduction to Lattices and Order*, 2nd ed., Cambridge 2002, thm. 4.10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from jali.errors import ContextError
from jali.maths.lattice import Lattice
from jali.maths.relation import BoolArray, Verdict, as_elements


@dataclass(frozen=True)
class LatticeVerdict(Verdict):
    """A verdict whose ``witness`` is a five-element sublattice, ``shape`` telling which.

    N5: (o, a, c, b, i) with o < a < c < i, and b a complement of a and of c in [o, i]. M3: (o, a, b, c, i) with a, b, c
    complements of each other in [o, i]. Both fields are empty where the law holds.
    """

    shape: Literal["", "N5", "M3"] = ""


def is_modular(lattice: Lattice) -> LatticeVerdict:
    """Whether the modular law holds; where it fails, the witness is a pentagon N5. O(k³/64)."""
    return _modular(lattice, lattice.covers())


def is_distributive(lattice: Lattice) -> LatticeVerdict:
    """Whether the distributive law holds; where it fails, the witness is a pentagon N5 or a diamond M3. O(k³)."""
    cover = lattice.covers()
    modular = _modular(lattice, cover)
    if not modular:
        return LatticeVerdict(False, "distributivity", modular.witness, "N5")
    weights = cover.astype(np.float32)
    middles = weights @ weights  # (k, k) number of x with o ≺ x ≺ i
    wide = np.argwhere(middles >= 3)
    if not wide.size:
        return LatticeVerdict(True, "distributivity")
    o, i = (int(x) for x in wide[0])
    a, b, c = (int(x) for x in np.flatnonzero(cover[o] & cover[:, i])[:3])
    return LatticeVerdict(False, "distributivity", (o, a, b, c, i), "M3")


def _modular(lattice: Lattice, cover: BoolArray) -> LatticeVerdict:
    elements = np.arange(len(lattice))
    over_meet = cover[lattice.meet, elements[:, None]]  # [a, b]: a ∧ b ≺ a
    under_join = cover[elements[:, None], lattice.join]  # [a, b]: a ≺ a ∨ b
    diamond = over_meet & over_meet.T, under_join & under_join.T
    broken = np.argwhere(diamond[0] != diamond[1])
    if not broken.size:
        return LatticeVerdict(True, "modularity")
    a, b = (int(x) for x in broken[0])
    if diamond[0][a, b]:
        return LatticeVerdict(False, "modularity", _pentagon_above(lattice, cover, a, b), "N5")
    i, d, c, e, o = _pentagon_above(lattice.dual(), cover.T, a, b)
    return LatticeVerdict(False, "modularity", (o, c, d, e, i), "N5")


def _pentagon_above(lattice: Lattice, cover: BoolArray, a: int, b: int) -> tuple[int, int, int, int, int]:
    """N5 from a, b that both cover o = a ∧ b while i = a ∨ b does not cover both.

    Say a < x < i. Then x ∧ b = o, as b covers o and b ≤ x would give i ≤ x; and x ∨ b ≥ a ∨ b = i.
    """
    o, i = int(lattice.meet[a, b]), int(lattice.join[a, b])
    if cover[a, i]:
        a, b = b, a
    between = lattice.leq[a] & lattice.leq[:, i]
    between[[a, i]] = False
    return o, a, int(between.argmax()), b, i


def is_pentagon(lattice: Lattice, elements: Sequence[int]) -> bool:
    """Whether five elements, in the order (o, a, c, b, i), are a sublattice N5: o < a < c < i, o < b < i."""
    o, a, c, b, i = _five(lattice, elements)
    leq, join, meet = lattice.leq, lattice.join, lattice.meet
    chain = a != c and leq[a, c] and o != a and c != i
    return bool(chain and meet[a, b] == meet[c, b] == o and join[a, b] == join[c, b] == i)


def is_diamond(lattice: Lattice, elements: Sequence[int]) -> bool:
    """Whether five elements, in the order (o, a, b, c, i), are a sublattice M3."""
    o, a, b, c, i = _five(lattice, elements)
    pairs = [(a, b), (a, c), (b, c)]
    distinct = len({o, a, b, c, i}) == 5
    return distinct and all(lattice.meet[p] == o and lattice.join[p] == i for p in pairs)


def _five(lattice: Lattice, elements: Sequence[int]) -> tuple[int, ...]:
    as_elements(elements, len(lattice))
    if len(elements) != 5:
        raise ContextError(f"N5 and M3 have 5 elements; got {len(elements)}.")
    return tuple(int(x) for x in elements)
