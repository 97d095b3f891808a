"""Layers that act on each other, measured together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from jali.analysis.observe import Run, started
from jali.coupled import Coupled, coupled
from jali.dynamics import Floats, site_spectrum
from jali.site import Site


def together(
    model: nn.Module, sites: Sequence[Site], runs: Mapping[str, list[Run]], *, sequences: int, steps: int, count: int
) -> dict[str, tuple[dict[str, Any], tuple[str, ...]]]:
    """Site name → what to add to its ``dynamics``, and notes: at the first layer of every top-down RNN the exponents of the
    network."""
    found: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {}
    for path in dict.fromkeys(site.module for site in sites if site.kind == "TopDownRNN"):
        own = [runs.get(site.name, []) for site in sites if site.module == path]
        if len(own) > 1 and own[0]:
            network = coupled(model, path)
            x, start = _outside(network, own, sequences, steps)
            spectrum = site_spectrum(network, x, start, count=min(count, network.size))
            name = next(site.name for site in sites if site.module == path)
            section = {
                "largest exponent of the network": spectrum.largest,
                "exponents of the network": spectrum.mean.tolist(),
            }
            found[name] = section, tuple(f"the network: {note}" for note in spectrum.notes)
    return found


def _outside(network: Coupled, own: Sequence[list[Run]], sequences: int, steps: int) -> tuple[Floats, Floats]:
    """Input and first states of the network's first sequences, cut to the shortest of them."""
    inputs: list[Floats] = []
    first: list[Floats] = []
    for row in zip(*own, strict=True):  # one call: the runs of all layers
        if sum(map(len, inputs)) < sequences:
            inputs.append(row[0].x[:, :steps, : network.inputs])
            layers = zip(row, network.layers, strict=True)
            first.append(np.concatenate([started(run, layer) for run, layer in layers], axis=1))
    shortest = min(x.shape[1] for x in inputs)
    return np.concatenate([x[:, :shortest] for x in inputs])[:sequences], np.concatenate(first)[:sequences]
