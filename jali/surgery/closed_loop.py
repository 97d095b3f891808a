"""The closed loop of a fold: fit on the original states, run the narrow network, add its own states, fit again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from torch import Tensor

from jali.moments import check_finite
from jali.surgery.decode import Affine, PairMoments, fit, selection

ROUNDS = 4

Built = TypeVar("Built")
Extra = TypeVar("Extra")


@dataclass(frozen=True, eq=False)
class Loop(Generic[Built, Extra]):
    """One recurrent site to repair.

    ``targets``: original states, rows (N, H) per call; ``held``: which rows judge, (N,) per call; ``keep``: kept units.
    ``reader`` (O, H): the weights that read the states: an error in the states counts as it appears through them.
    ``build(A, c)``: the narrow view, or views, with the decoder folded in. ``simulate(view)``: the narrow network's own
    states, rows (N, K) per call, and whatever else is wanted of that run. ``offset``: whether the reader has a bias to
    take c.
    """

    targets: Sequence[Tensor]
    held: Sequence[Tensor]
    keep: np.ndarray
    reader: np.ndarray
    build: Callable[[np.ndarray, np.ndarray], Built]
    simulate: Callable[[Built], tuple[Sequence[Tensor], Extra]]
    offset: bool

    def run(self) -> tuple[Built, Affine, Extra]:
        """The best round's view, its decoder, and what ``simulate`` returned with it.

        A round is judged by how well its own trajectory decodes on the held-out rows; the plain cut takes part, so the
        result is never worse there than no repair.
        """
        check_finite(*self.targets)
        size = self.targets[0].shape[-1]
        prior = selection(self.keep, size)
        train, held = PairMoments(len(self.keep), size), PairMoments(len(self.keep), size)
        self._add(train, held, [full[:, self.keep] for full in self.targets])
        plain = (prior, np.zeros(size))
        # The plain cut is judged, but its poor trajectory teaches nothing.
        best, lowest, _ = self._round(plain)
        for _ in range(ROUNDS + 1):
            candidate, error, states = self._round(fit(train, held, prior, self.reader, offset=self.offset))
            if error < lowest:
                best, lowest = candidate, error
            if not np.isfinite(error):
                break  # an unbounded network ran away: its states would spoil the moments
            self._add(train, held, states)
        return best

    def _round(self, decoder: Affine) -> tuple[tuple[Built, Affine, Extra], float, Sequence[Tensor]]:
        """Build, run and judge one decoder; the error is infinite if the trajectory is."""
        view = self.build(*decoder)
        states, extra = self.simulate(view)
        own, judged = (PairMoments(len(self.keep), self.targets[0].shape[-1]) for _ in range(2))
        self._add(own, judged, states)
        error = (judged if judged.count else own).error(decoder, self.reader)
        return (view, decoder, extra), error if np.isfinite(error) else np.inf, states

    def _add(self, train: PairMoments, held: PairMoments, states: Sequence[Tensor]) -> None:
        for own, full, rows in zip(states, self.targets, self.held, strict=True):
            train.add(own[~rows], full[~rows])
            held.add(own[rows], full[rows])
