"""What a model costs: parameters, bytes, and multiply-accumulates of one call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from jali.batches import example
from jali.capture import inputs_of


@dataclass(frozen=True)
class Cost:
    """``parameters`` and ``bytes`` of the whole model; ``macs`` (multiply-accumulates) of one call, None without inputs.

    The multiply-accumulates are those of recurrent layers, cells and Linear layers; one is two floating-point operations.
    """

    parameters: int
    bytes: int
    macs: int | None = None


def cost(model: nn.Module, example_inputs: Any = None) -> Cost:
    """Count ``model``; with ``example_inputs`` (as for :func:`jali.compact`) also the work of one call on them."""
    parameters = {id(p): p for p in model.parameters()}.values()
    count, size = sum(p.numel() for p in parameters), sum(p.numel() * p.element_size() for p in parameters)
    if example_inputs is None:
        return Cost(count, size)
    counted = (nn.RNNBase, nn.RNNCellBase, nn.Linear)
    paths = [path for path, module in model.named_modules() if isinstance(module, counted)]
    calls = inputs_of(model, paths, [example(example_inputs)])
    return Cost(count, size, sum(_macs(model.get_submodule(p), a, k) for p in calls for a, k in calls[p]))


def _macs(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Rows of the input times the weights that each row meets (biases are no multiplication)."""
    x = args[0] if args else kwargs["input"]
    data: Tensor = x.data if isinstance(x, PackedSequence) else x
    rows = data.numel() // max(data.shape[-1], 1)
    return rows * sum(p.numel() for name, p in module.named_parameters(recurse=False) if name.startswith("weight"))
