"""The theorems of the lattice pruning paper, executable: each takes a network and answers holds, fails or premise not met.

R. Sengupta, "Lattice-based pruning in recurrent neural networks via poset modeling", theorems III.1 to III.7 and Corollary
III.1. One file per theorem; what each answer means is in ``docs/theorems.md``.
"""

from jali.theorems.suite import verify
from jali.theorems.verdict import Verdict, from_json, to_json

__all__ = ["Verdict", "from_json", "to_json", "verify"]
