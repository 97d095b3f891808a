"""Gradients of the loss with respect to the parameters of every site, one per calibration batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jali.batches import Batch, device_of, run, tensors_in
from jali.errors import DataError, ModelError
from jali.modes import evaluation_mode
from jali.site import Site
from jali.view import View, read

Loss = Callable[[Any, Any], Tensor]


def loss_gradients(
    model: nn.Module, items: Sequence[Batch], sites: Sequence[Site], loss: Loss | None
) -> dict[str, tuple[View, ...]]:
    """Site name → the gradient of the loss with respect to the site's parameters, one view per batch.

    Each view has the shapes of the site's own (:mod:`jali.view`), in units of loss per unit of parameter, of the batch's
    loss as ``loss(output, target)`` reduces it (the default ones are means); zero for parameters that the loss does not
    reach. The model runs in evaluation mode and is left as it was, ``requires_grad`` flags and ``grad`` included.
    Raises :class:`DataError` for batches without a target or of a shape that does not fit, or a loss that is no scalar
    tensor made from the output, and :class:`ModelError` for a default loss that is not finite.
    """
    parameters = {
        (site.name, key): model.get_submodule(site.module)._parameters[name]
        for site in sites
        for key, name in site.parameter_names().items()
        if model.get_submodule(site.module)._parameters.get(name) is not None
    }
    leaves = [parameter for parameter in parameters.values() if parameter is not None]
    out: dict[str, list[View]] = {site.name: [] for site in sites}
    with _differentiable(model, leaves):
        for batch in items:
            value = _loss(run(model, batch), batch.to(device_of(model)), loss)
            grads = torch.autograd.grad(value, leaves, allow_unused=True)
            for site in sites:
                out[site.name].append(_gradient_view(model, site, dict(zip(parameters, grads, strict=True))))
    return {name: tuple(views) for name, views in out.items()}


@contextmanager
def _differentiable(model: nn.Module, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """``model`` without dropout and the like, and gradients of ``parameters``, also of those that the caller froze."""
    required = {parameter: parameter.requires_grad for parameter in parameters}
    with evaluation_mode(model), torch.enable_grad():
        # cuDNN computes gradients of recurrent layers in training mode only; dropout stays off in all others.
        for module in model.modules():
            if isinstance(module, nn.RNNBase) and device_of(model).type == "cuda" and not module.dropout:
                module.train()
        try:
            for parameter in required:
                parameter.requires_grad_(True)
            yield
        finally:
            for parameter, flag in required.items():
                parameter.requires_grad_(flag)


def _gradient_view(model: nn.Module, site: Site, grads: Mapping[tuple[str, str], Tensor | None]) -> View:
    view = read(model, site)
    arrays = {}
    for key, value in view.arrays():
        grad = grads[(site.name, key)]
        arrays[key] = (
            np.zeros_like(value) if grad is None else grad.to("cpu", torch.float64).numpy().reshape(value.shape)
        )
    return view.replace(**arrays)


def _loss(output: Any, batch: Batch, loss: Loss | None) -> Tensor:
    if batch.target is None:
        raise DataError("this criterion needs gradients, so the data must give (inputs, target) batches")
    if loss is not None:
        value = loss(output, batch.target)
        if not isinstance(value, Tensor) or value.dim() > 0:
            raise DataError(
                f"loss= returned {type(value).__name__} {getattr(value, 'shape', '')}; return a scalar tensor"
            )
        if not value.requires_grad:
            raise DataError("loss= returned a tensor that does not depend on the output; compute it from its arguments")
        return value
    first = tensors_in(output)
    if not first or not isinstance(batch.target, Tensor):
        raise DataError("no default loss fits this model's output and target; pass loss=callable(output, target)")
    if batch.target.is_floating_point():
        if first[0].shape != batch.target.shape:
            raise DataError(
                f"output {tuple(first[0].shape)} and target {tuple(batch.target.shape)} differ in shape; pass loss=..."
            )
        return F.mse_loss(first[0], batch.target)
    if first[0].shape[:-1] != batch.target.shape:
        raise DataError(
            f"output {tuple(first[0].shape)} does not give one row of class scores per target of shape "
            f"{tuple(batch.target.shape)}; pass loss=callable(output, target)"
        )
    classes = first[0].shape[-1]
    known = batch.target[batch.target != -100]  # cross-entropy's own mark of what does not count
    if len(known) and not (int(known.min()) >= 0 and int(known.max()) < classes):
        raise DataError(
            f"the targets lie in {int(known.min())}..{int(known.max())}, the model has {classes} classes; pass loss=..."
        )
    value = F.cross_entropy(first[0].reshape(-1, classes), batch.target.reshape(-1))
    if not torch.isfinite(value):
        raise ModelError("the loss on the calibration data is not finite; check the targets and the weights")
    return value
