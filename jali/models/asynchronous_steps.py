"""Compiled steps of one asynchronous recurrent graph network: nodes that act alone, in random order, on what they have heard.

Arrays of edges are ``[to, from]``. One call is one run; runs are independent, and a call holds no lock of Python.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jali.jit import njit
from jali.maths.arrowhead import Floats
from jali.maths.local_laplacian import FAILED, Bools, decide_edge, lapack_eigenvalues

VALUE, GRADIENT, WEIGHT, ALIVE = range(4)  # what a message says of its sender, and of the edge receiver → sender


class Run(NamedTuple):
    """The state of one run; every array is changed in place. n nodes, S slots for messages (0: they are perfect).

    ``weights``, ``edges`` ``(n, n)``: a row is what a node owns, its inputs. ``values``, ``gradients`` ``(n,)``. ``random``,
    ``clock`` ``(1,)``: generator and number of updates so far. ``links`` ``(n, n)``: who hears whom. ``heard`` ``(n, n, 4)``
    and ``stamp`` ``(n, n)``: the message that a receiver goes by, per sender, and when it was sent. ``pending``
    ``(S, n, n, 4)``, ``sent``, ``due`` ``(S, n, n)``: messages under way; sent is −1 in a free slot.
    """

    weights: np.ndarray
    edges: np.ndarray
    values: np.ndarray
    gradients: np.ndarray
    random: np.ndarray
    clock: np.ndarray
    links: np.ndarray
    heard: np.ndarray
    stamp: np.ndarray
    pending: np.ndarray
    sent: np.ndarray
    due: np.ndarray


class Setting(NamedTuple):
    """What a run does. ``updates``: how often all nodes act per input; ``every``: a node decides at each ``every``-th."""

    inputs: int
    outputs: int
    updates: int
    learn: bool
    error_scale: float
    clip: float
    prune: bool
    weighted: bool
    lapack_order: bool
    tolerance: float
    every: int
    delay: int
    loss: float
    reordered: bool


class Log(NamedTuple):
    """What a run leaves. ``errors``, ``counts`` ``(T,)``, ``shown`` ``(T, O)``: per input; ``events`` ``(E, 4)``, ``parts``
    ``(E,)``, ``length`` ``(1,)``: update, node, source, target and imaginary part of every edge that went; ``real``,
    ``imaginary`` ``(T · updates, n, n)`` or empty: the eigenvalues at every node."""

    errors: np.ndarray
    counts: np.ndarray
    shown: np.ndarray
    events: np.ndarray
    parts: np.ndarray
    length: np.ndarray
    real: np.ndarray
    imaginary: np.ndarray


@njit(cache=True, nogil=True)
def draw(random: np.ndarray) -> np.uint64:
    """The next 64 random bits (xorshift64*, S. Vigna, "An experimental exploration of Marsaglia's xorshift generators")."""
    x = random[0]
    x ^= x >> np.uint64(12)
    x ^= x << np.uint64(25)
    x ^= x >> np.uint64(27)
    random[0] = x
    return x * np.uint64(2685821657736338717)


@njit(cache=True, nogil=True)
def uniform(random: np.ndarray) -> float:
    """A random number in [0, 1)."""
    return float(draw(random) >> np.uint64(11)) * 2.0**-53


@njit(cache=True, nogil=True)
def shuffle(order: np.ndarray, first: int, random: np.ndarray) -> None:
    """Fill ``order`` with first, first + 1, … anew; every order is as likely (Fisher and Yates)."""
    for i in range(order.size):
        order[i] = first + i
    for i in range(order.size - 1, 0, -1):
        j = int(draw(random) >> np.uint64(1)) % (i + 1)
        order[i], order[j] = order[j], order[i]


@njit(cache=True, nogil=True, error_model="numpy")
def run_inputs(run: Run, setting: Setting, x: Floats, y: Floats, log: Log) -> int:
    """Show every row of ``x`` ``(T, I)``; returns −1, or the first update at which something was not finite."""
    n = run.values.size
    order: Any = np.empty(n - setting.inputs, dtype=np.int64)
    begin = run.clock[0]
    scratch, w_out = np.empty((n, n)), np.empty(n)
    v_in, e_out, has_out = np.empty(n), np.empty(n), np.empty(n, dtype=np.bool_)
    for t in range(x.shape[0]):
        run.values[: setting.inputs] = x[t]
        for _ in range(setting.updates):
            shuffle(order, setting.inputs, run.random)
            for node in order:
                _listen(run, setting, node, v_in, e_out, w_out, has_out)
                target = y[t, max(node - (n - setting.outputs), 0)]
                act(run, setting, node, target, v_in, e_out, w_out, has_out)
                if not np.isfinite(run.values[node] + run.gradients[node]):
                    return run.clock[0]
                if log.real.size:
                    row = run.clock[0] - begin
                    lapack_eigenvalues(
                        run.weights, run.edges, w_out, has_out, node, setting.weighted, scratch, log.real[row, node],
                        log.imaginary[row, node],
                    )  # fmt: skip
                decides = setting.prune and run.clock[0] % setting.every == setting.every - 1
                if decides and prune_at(run, setting, node, w_out, has_out, scratch, log) == FAILED:
                    return run.clock[0]
                if setting.delay >= 0:
                    _tell(run, setting, node)
            run.clock[0] += 1
        wrong = 0.0
        for o in range(setting.outputs):
            log.shown[t, o] = run.values[n - setting.outputs + o]
            wrong += abs(log.shown[t, o] - y[t, o])
        log.errors[t] = wrong / setting.outputs
        log.counts[t] = run.edges.sum()
    return -1


@njit(cache=True, nogil=True, error_model="numpy")
def act(
    run: Run, setting: Setting, node: int, target: float, v_in: Floats, e_out: Floats, w_out: Floats, has_out: Bools
) -> None:
    """Equations 1 to 3 at one node, from what it owns and what it has heard."""
    n, total, back = v_in.size, 0.0, 0.0
    weights, edges = run.weights[node], run.edges[node]
    for i in range(n):
        if edges[i]:
            total += v_in[i] * weights[i]
    value = 1.0 / (1.0 + np.exp(-total))
    run.values[node] = value
    if not setting.learn:
        return
    if node >= n - setting.outputs:
        gradient = (value - target) * setting.error_scale
    else:
        for i in range(n):
            if has_out[i]:
                back += e_out[i] * w_out[i]
        gradient = back * (value * (1.0 - value))
    run.gradients[node] = gradient
    for i in range(n):
        if edges[i]:
            weights[i] = min(max(weights[i] - gradient * v_in[i], -setting.clip), setting.clip)


@njit(cache=True, nogil=True, error_model="numpy")
def prune_at(
    run: Run, setting: Setting, node: int, w_out: Floats, has_out: Bools, scratch: Floats, log: Log
) -> int:  # fmt: skip
    """Equations 5 to 7 at one node; the source of the edge that went, KEEP or FAILED."""
    source, target, part = decide_edge(
        run.weights, run.edges, w_out, has_out, run.edges, node, setting.weighted, setting.lapack_order, setting.tolerance,
        scratch,
    )  # fmt: skip
    if source >= 0:
        run.edges[target, source] = False
        run.weights[target, source] = 0.0
        e = log.length[0]
        log.events[e, 0], log.events[e, 1], log.events[e, 2], log.events[e, 3] = run.clock[0], node, source, target
        log.parts[e] = part
        log.length[0] += 1
    return source


@njit(cache=True, nogil=True, error_model="numpy")
def prune_still(run: Run, setting: Setting, log: Log) -> bool:
    """Let all nodes decide in random order, the values at rest, until none removes an edge; False where it failed."""
    n = run.values.size
    scratch = np.empty((n, n))
    order: Any = np.empty(n - setting.inputs, dtype=np.int64)
    before = -1
    while before != log.length[0]:
        before = log.length[0]
        shuffle(order, setting.inputs, run.random)
        for node in order:
            source = 0
            while source >= 0:
                source = prune_at(
                    run, setting, node, run.weights[:, node].copy(), run.edges[:, node].copy(), scratch, log
                )
            if source == FAILED:
                return False
    return True


# --- messages --------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True, error_model="numpy")
def _listen(run: Run, setting: Setting, node: int, v_in: Floats, e_out: Floats, w_out: Floats, has_out: Bools) -> None:
    """What ``node`` knows of the others: all there is now, or what has reached it."""
    n = v_in.size
    if setting.delay >= 0:
        _receive(run, setting, node)
    for i in range(n):
        if setting.delay < 0 or i < setting.inputs:  # an input is a sensor of the node's own
            v_in[i], e_out[i] = run.values[i], run.gradients[i]
            w_out[i], has_out[i] = run.weights[i, node], run.edges[i, node]
        else:
            v_in[i], e_out[i] = run.heard[node, i, VALUE], run.heard[node, i, GRADIENT]
            w_out[i], has_out[i] = run.heard[node, i, WEIGHT], run.heard[node, i, ALIVE] > 0


@njit(cache=True, nogil=True, error_model="numpy")
def _receive(run: Run, setting: Setting, node: int) -> None:
    now = run.clock[0]
    for i in range(setting.inputs, run.values.size):
        best, last = -1, -1
        for slot in range(run.sent.shape[0]):
            sent, due = run.sent[slot, node, i], run.due[slot, node, i]
            if sent < 0 or due > now:
                continue
            run.sent[slot, node, i] = -1
            # In order: the newest counts, and older ones are dropped. Reordered: what comes last counts, however old it is.
            if not setting.reordered and sent < run.stamp[node, i]:
                continue
            rank = due if setting.reordered else sent
            if rank > last:
                best, last = slot, rank
        if best >= 0:
            run.heard[node, i] = run.pending[best, node, i]
            run.stamp[node, i] = last


@njit(cache=True, nogil=True, error_model="numpy")
def _tell(run: Run, setting: Setting, node: int) -> None:
    """One message to everybody linked; each is lost or delayed on its own."""
    now, slots = run.clock[0], run.sent.shape[0]
    for i in range(setting.inputs, run.values.size):
        if not run.links[i, node] or uniform(run.random) < setting.loss:
            continue
        due = now + int(uniform(run.random) * (setting.delay + 1))
        slot = due % slots
        run.due[slot, i, node], run.sent[slot, i, node] = due, now
        message = run.pending[slot, i, node]
        message[VALUE], message[GRADIENT] = run.values[node], run.gradients[node]
        message[WEIGHT], message[ALIVE] = run.weights[node, i], 1.0 if run.edges[node, i] else 0.0
