"""Asynchronous recurrent graph networks: nodes that act alone, in random order, and prune their own edges.

Source: N. Bessone, "Spectral theory for edge pruning in asynchronous recurrent graph neural networks", equations 1 to 7. What the
paper leaves open is as in its published code: the error of an output is scaled by 0.15, weights are clipped to [−10, 10],
the first graph has every edge but those into inputs and from a node to itself, weights start uniform in [−1, 1], and in every
update all nodes act once, in a new random order (the paper's text: one order per input). That error is value − target; target −
value, as printed, is what equation 3 would climb. There is no batch and no autograd: a node knows its neighbours only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jali.errors import DataError, DynamicsError, ModelError
from jali.models.asynchronous_values import Channel, Event, Floats, SpectralRule, Training
from jali.plain import is_finite, is_whole, seed_of

MOST_NODES = 2000
ERROR_SCALE = 0.15  # of the error of an output, in the published code


class AsynchronousNetwork:
    """R networks of the same size that learn at once, one per seed. Nodes: inputs, then hidden, then outputs.

    ``weights``, ``adjacency`` ``(R, n, n)``: edges ``[run, to, from]``; ``values`` ``(R, n)``: what the nodes put out, in [0, 1].
    The same seed gives the same weights, orders and losses in every call, whatever the number of runs and of processors.

    ``hidden`` may be 0. ``adjacency`` ``(n, n)``: the edges of the first graph instead of all; a node without any keeps the value
    1/2. ``clip``: bound of the weights, may be inf. Raises :class:`ModelError` for sizes below one input or output or beyond
    2000 nodes, no seeds, edges into inputs or from a node to itself.
    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        outputs: int,
        *,
        seeds: Sequence[int] = (0,),
        adjacency: ArrayLike | None = None,
        error_scale: float = ERROR_SCALE,
        clip: float = 10.0,
        channel: Channel | None = None,
    ) -> None:
        for name, size, least in (("inputs", inputs, 1), ("hidden", hidden, 0), ("outputs", outputs, 1)):
            if not is_whole(size) or size < least:
                raise ModelError(f"{name} is {size!r}; give a whole number, at least {least}")
        self.inputs, self.hidden, self.outputs = int(inputs), int(hidden), int(outputs)
        if self.nodes > MOST_NODES:
            raise ModelError(f"{self.nodes} nodes; at most {MOST_NODES} are supported")
        if not isinstance(seeds, Sequence | np.ndarray) or not len(seeds):
            raise ModelError(f"seeds is {seeds!r}; give one per run, e.g. seeds=range(3)")
        if not isinstance(channel, Channel | None):
            raise ModelError(f"channel is {channel!r}; give a Channel, e.g. Channel(delay=3, loss=0.1), or None")
        if not is_finite(error_scale) or not error_scale > 0:
            raise ModelError(f"error_scale is {error_scale!r}; give a positive number")
        if not clip > 0:
            raise ModelError(f"clip is {clip!r}; give a positive number or inf")
        self.seeds, self.error_scale, self.clip = tuple(map(seed_of, seeds)), float(error_scale), float(clip)
        self.channel = channel or Channel()
        first = self._first_graph(adjacency)
        self._runs = [self._new_run(seed, first) for seed in self.seeds]

    def __repr__(self) -> str:
        edges = ", ".join(str(int(run.edges.sum())) for run in self._runs[:5]) + ("" if len(self._runs) < 6 else ", …")
        sizes = f"{self.inputs}, {self.hidden}, {self.outputs}"
        return f"AsynchronousNetwork({sizes}, seeds={self.seeds}) with {edges} edges"

    @property
    def nodes(self) -> int:
        """n = inputs + hidden + outputs."""
        return self.inputs + self.hidden + self.outputs

    @property
    def weights(self) -> Floats:
        """A copy of the weights, ``(R, n, n)`` ``[run, to, from]``, 0 where there is no edge."""
        return np.stack([np.where(run.edges, run.weights, 0.0) for run in self._runs])

    @property
    def adjacency(self) -> NDArray[np.bool_]:
        """A copy of the edges, ``(R, n, n)`` ``[run, to, from]``."""
        return np.stack([run.edges for run in self._runs])

    @property
    def values(self) -> Floats:
        """A copy of the nodes' values, ``(R, n)``."""
        return np.stack([run.values for run in self._runs])

    def train(
        self, x: ArrayLike, y: ArrayLike, *, updates: int = 10, rule: SpectralRule | None = None, trace: bool = False
    ) -> Training:
        """Show the inputs one after the other, all nodes acting ``updates`` times at each; with ``rule`` they prune, too.

        ``x`` ``(T, I)`` or one sequence per run ``(R, T, I)``, ``y`` likewise ``(…, O)``. ``trace`` keeps all eigenvalues.
        Raises :class:`DataError` for arrays that do not fit, :class:`DynamicsError` when weights explode (with a ``clip`` that is
        too large), naming the run and the update.
        """
        rows, wanted = self._sequences(x, y)
        logs = self._over_runs(self._runs, rows, wanted, self._setting(updates, True, rule), trace)
        events = tuple(_events(log) for log in logs)
        eigenvalues = np.stack([log.real + 1j * log.imaginary for log in logs]) if trace else None
        errors, edges = np.stack([log.errors for log in logs]), np.stack([log.counts for log in logs])
        return Training(errors, edges, events, eigenvalues)

    def evaluate(self, x: ArrayLike, y: ArrayLike, *, updates: int = 10) -> Floats:
        """Mean |output − target| per run ``(R,)`` over the rows, shown in random order without learning.

        The network is not changed: a copy goes on from its values.
        """
        rows, wanted = self._sequences(x, y)
        runs = [_copied(run) for run in self._runs]
        for k, seed in enumerate(self.seeds):
            order = np.random.default_rng([seed, 3]).permutation(rows.shape[1])
            rows[k], wanted[k] = rows[k][order], wanted[k][order]
        logs = self._over_runs(runs, rows, wanted, self._setting(updates, False, None), False)
        return np.array([log.errors.mean() for log in logs])

    def respond(self, x: ArrayLike, *, updates: int = 10) -> Floats:
        """Values of the outputs ``(R, T, O)`` after each row of ``x``, in the order given; the network is not changed."""
        shape = np.shape(x)[:-1]
        rows, wanted = self._sequences(x, np.zeros((*shape, self.outputs)))
        runs = [_copied(run) for run in self._runs]
        logs = self._over_runs(runs, rows, wanted, self._setting(updates, False, None), False)
        return np.stack([log.shown for log in logs])

    def prune(self, rule: SpectralRule) -> tuple[tuple[Event, ...], ...]:
        """Prune a network at rest, before or after training: nodes decide in random order until none removes an edge.

        The orders of a training that follows are those that it would have had anyway.
        Raises :class:`ModelError` for what is no rule, :class:`DynamicsError` where eigenvalues are not found.
        """
        from jali.models.asynchronous_steps import prune_still

        if rule is None:
            raise ModelError("prune needs a rule; give a SpectralRule, e.g. SpectralRule('weighted')")
        setting, found = self._setting(1, False, rule), []
        for seed, run in zip(self.seeds, self._runs, strict=True):
            log, orders = self._log(0, 0, run), run.random.copy()
            if not prune_still(run, setting, log):
                raise DynamicsError(f"run of seed {seed}: the eigenvalues of a node did not converge")
            run.random[:] = orders
            found.append(_events(log))
        return tuple(found)

    def cut(self, edges: Sequence[Sequence[tuple[int, int]]]) -> None:
        """Remove edges by hand: per run the ``(source, target)`` of each.

        Where messages are late or lost, neighbours act on an edge's last weight that they heard of until the next message.
        Raises :class:`ModelError` for an edge there is not.
        """
        if len(edges) != len(self._runs):
            raise ModelError(f"edges to cut of {len(edges)} runs; give a list for each of the {len(self._runs)}")
        for k, (gone, run) in enumerate(zip(edges, self._runs, strict=True)):
            there = set(map(tuple, np.argwhere(run.edges.T).tolist()))
            if strange := [edge for edge in gone if tuple(edge) not in there]:
                raise ModelError(
                    f"run {k} has no edge {strange[0]}; edges to cut are (source, target) of those there are"
                )
            for source, target in gone:
                run.edges[target, source] = False
                run.weights[target, source] = 0.0

    # --- inside ----------------------------------------------------------------------------------------------------

    def _first_graph(self, adjacency: ArrayLike | None) -> NDArray[np.bool_]:
        n = self.nodes
        if adjacency is None:
            edges = ~np.eye(n, dtype=bool)
            edges[: self.inputs] = False
            return edges
        edges = np.array(adjacency, dtype=bool)
        if edges.shape != (n, n):
            raise ModelError(f"adjacency is {edges.shape}; {n} nodes need {(n, n)}, [to, from]")
        if edges[: self.inputs].any() or edges.diagonal().any():
            raise ModelError("adjacency has edges into inputs or from a node to itself; rows are targets, [to, from]")
        return edges

    def _new_run(self, seed: int, first: NDArray[np.bool_]) -> Any:
        from jali.models.asynchronous_steps import Run

        n = self.nodes
        slots, wide = (0, 0) if self.channel.perfect else (self.channel.delay + 2, n)
        weights = np.where(first, np.random.default_rng([seed, 0]).uniform(-1, 1, (n, n)), 0.0)
        heard = np.zeros((wide, wide, 4))
        if wide:  # the neighbours know each other's weights from the start
            heard[..., 2], heard[..., 3] = weights.T, first.T
        state = np.random.default_rng([seed, 2]).integers(1, 2**63, size=1, dtype=np.uint64)
        return Run(
            weights, first.copy(), np.zeros(n), np.zeros(n), state, np.zeros(1, np.int64), first | first.T, heard,
            np.full((wide, wide), -1, np.int64), np.zeros((slots, wide, wide, 4)),
            np.full((slots, wide, wide), -1, np.int64), np.zeros((slots, wide, wide), np.int64),
        )  # fmt: skip

    def _setting(self, updates: int, learn: bool, rule: SpectralRule | None) -> Any:
        from jali.models.asynchronous_steps import Setting

        if not is_whole(updates) or updates < 1:
            raise DataError(f"updates is {updates!r}; give a whole number, at least 1")
        if not isinstance(rule, SpectralRule | None):
            raise ModelError(f"rule is {rule!r}; give a SpectralRule, e.g. SpectralRule('weighted')")
        used, channel = rule or SpectralRule(), self.channel
        return Setting(
            self.inputs, self.outputs, int(updates), learn, self.error_scale, self.clip, rule is not None,
            used.degree == "weighted", used.node_of == "lapack-order", float(used.tolerance), int(used.every),
            -1 if channel.perfect else int(channel.delay), float(channel.loss), bool(channel.reordered),
        )  # fmt: skip

    def _sequences(self, x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
        runs = len(self._runs)
        try:
            rows, wanted = (np.array(part, dtype=np.float64) for part in (x, y))
        except (TypeError, ValueError) as error:
            raise DataError(f"x or y is no array of numbers ({error}); give rows of one width") from None
        rows, wanted = (np.repeat(part[None], runs, axis=0) if part.ndim == 2 else part for part in (rows, wanted))
        for name, part, width in (("x", rows, self.inputs), ("y", wanted, self.outputs)):
            if part.ndim != 3 or part.shape[0] != runs or part.shape[2] != width:
                raise DataError(
                    f"{name} is {part.shape}; give (T, {width}), or ({runs}, T, {width}) for the {runs} runs"
                )
        if rows.shape[1] == 0:
            raise DataError("x has no rows; give at least one")
        if rows.shape[1] != wanted.shape[1]:
            raise DataError(f"x has {rows.shape[1]} rows and y {wanted.shape[1]}; give as many of both")
        _refuse("x", rows, ~np.isfinite(rows), "which are not finite; leave these rows out")
        _refuse("y", wanted, ~((wanted >= 0) & (wanted <= 1)), "outside [0, 1], which no node puts out; rescale them")
        return rows, wanted

    def _log(self, inputs: int, traced: int, run: Any) -> Any:
        from jali.models.asynchronous_steps import Log

        edges = int(run.edges.sum())
        trace = (np.full((traced, self.nodes, self.nodes), np.nan) for _ in range(2))
        return Log(
            np.zeros(inputs), np.zeros(inputs, np.int64), np.zeros((inputs, self.outputs)), np.zeros((edges, 4), np.int64),
            np.zeros(edges), np.zeros(1, np.int64), *trace,
        )  # fmt: skip

    def _over_runs(self, runs: Sequence[Any], x: Floats, y: Floats, setting: Any, trace: bool) -> list[Any]:
        from jali.models.asynchronous_steps import run_inputs

        logs = [self._log(x.shape[1], x.shape[1] * setting.updates if trace else 0, run) for run in runs]
        if trace and sum(log.real.nbytes for log in logs) > 2**30:
            raise DataError("a trace of more than 2 GiB; trace fewer inputs, runs or nodes")

        def one(k: int) -> int:
            return int(run_inputs(runs[k], setting, x[k], y[k], logs[k]))

        for seed, broken in zip(self.seeds, _parallel(one, len(runs)), strict=True):
            if broken >= 0:
                raise DynamicsError(
                    f"run of seed {seed}: values or eigenvalues are no longer finite at update {broken}; bound the weights "
                    f"(clip is {self.clip:g}) or lower error_scale ({self.error_scale:g})"
                )
        return logs


def _refuse(name: str, values: Floats, bad: NDArray[np.bool_], why: str) -> None:
    if bad.any():
        run, row, column = np.argwhere(bad)[0]
        raise DataError(
            f"{name} has {int(bad.sum())} values {why}; the first is {values[run, row, column]:g} in row {row}, column {column}"
        )


def _parallel(call: Callable[[int], int], count: int) -> list[int]:
    """The calls hold no lock of Python, so threads do."""
    with ThreadPoolExecutor(max_workers=min(count, os.cpu_count() or 1)) as pool:
        return list(pool.map(call, range(count)))


def _events(log: Any) -> tuple[Event, ...]:
    count = int(log.length[0])
    rows = zip(log.events[:count].tolist(), log.parts[:count].tolist(), strict=True)
    return tuple(Event(update, node, source, target, part) for (update, node, source, target), part in rows)


def _copied(run: Any) -> Any:
    return type(run)(*(part.copy() for part in run))
