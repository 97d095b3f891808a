"""Independent parts: the connected components of a relation, the direct factors of a lattice.

Units in different components never influence each other: a network of k components has a block-diagonal
recurrence of k blocks. A lattice factor is the finer notion: the lattice is a product of intervals [0, z], in which
joins and meets are computed factor by factor.

Source: G. Birkhoff, *Lattice Theory*, 3rd ed., AMS 1967, ch. III sec. 8 (the centre of a lattice).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from jali.maths.lattice import Lattice
from jali.maths.order import number_components
from jali.maths.relation import IntArray


def weak_components(relation: npt.ArrayLike) -> IntArray:
    """(n,) number of the component of each element when directions are ignored; numbered by smallest element."""
    return number_components(relation, "weak")


def direct_factors(lattice: Lattice) -> tuple[int, ...]:
    """Elements z₁ … zₘ, ascending, so that x ↦ (x ∧ z₁, …, x ∧ zₘ) maps the lattice onto the product of the [0, zᵢ].

    The finest such decomposition, the atoms of the centre; (top,) for an indecomposable lattice, () for one element.
    """
    central = [z for z in range(len(lattice)) if z != lattice.bottom and _is_central(lattice, z)]
    return tuple(z for z in central if not any(lattice.leq[y, z] for y in central if y != z))


def _is_central(lattice: Lattice, z: int) -> bool:
    """Whether z has a complement y so that x ↦ (x ∧ z, x ∧ y) and (u, v) ↦ u ∨ v are inverse to each other."""
    complements = lattice.complements(z)
    if len(complements) != 1:  # the complement of a central element is unique
        return False
    y, join, meet = int(complements[0]), lattice.join, lattice.meet
    if not np.array_equal(join[meet[:, z], meet[:, y]], np.arange(len(lattice))):
        return False
    u, v = np.flatnonzero(lattice.leq[:, z])[:, None], np.flatnonzero(lattice.leq[:, y])
    joined = join[u, v]
    return bool((meet[joined, z] == u).all() and (meet[joined, y] == v).all())
