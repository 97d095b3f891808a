"""What a model costs: parameters, bytes, and multiply-accumulates of one call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from jali.batches import example
from jali.block_layers import BlockLayer
from jali.capture import input_of, inputs_of
from jali.wired import WiredLayers


@dataclass(frozen=True)
class Cost:
    """``parameters`` of the whole model (shared ones count once) and their ``bytes``; ``macs`` of one call, or None.

    ``macs`` are multiply-accumulates of recurrent layers, cells and Linear layers; one is two floating-point operations.
    """

    parameters: int
    bytes: int
    macs: int | None = None


def cost(model: nn.Module, example_inputs: Any = None) -> Cost:
    """Count ``model``; with ``example_inputs`` (as for :func:`jali.compact`) also the work of one call on them."""
    parameters = list(model.parameters())
    count, size = sum(p.numel() for p in parameters), sum(p.numel() * p.element_size() for p in parameters)
    if example_inputs is None:
        return Cost(count, size)
    counted = (nn.RNNBase, nn.RNNCellBase, nn.Linear, BlockLayer, WiredLayers)
    paths = [path for path, module in model.named_modules() if isinstance(module, counted)]
    calls = inputs_of(model, paths, [example(example_inputs)])
    return Cost(count, size, sum(_macs(model.get_submodule(p), a, k) for p in calls for a, k in calls[p]))


def _macs(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Rows of the input times the weights that each row meets (biases are no multiplication)."""
    data: Tensor = input_of(args, kwargs).data  # a PackedSequence's rows; a tensor is its own data
    rows = data.numel() // max(data.shape[-1], 1)
    return rows * sum(weight.numel() for weight in _weights(module))


def _weights(module: nn.Module) -> list[Tensor]:
    """The weight matrices, also where they are parametrized and so no parameters of the module itself."""
    if isinstance(module, nn.RNNBase):
        return [weight for group in module.all_weights for weight in group if weight.dim() == 2]
    if isinstance(module, WiredLayers):
        return [weight for name, weight in module.named_parameters() if name.startswith("weight")]
    names = ("weight_ih", "weight_hh") if isinstance(module, nn.RNNCellBase | BlockLayer) else ("weight",)
    return [getattr(module, name) for name in names]
