"""Gradients of the loss with respect to the parameters of every site, one per calibration batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jali.batches import Batch, device_of, run, tensors_in
from jali.errors import DataError, ModelError
from jali.site import Site
from jali.view import View, read

Loss = Callable[[Any, Any], Tensor]


def loss_gradients(
    model: nn.Module, items: Sequence[Batch], sites: Sequence[Site], loss: Loss | None
) -> dict[str, tuple[View, ...]]:
    parameters = {
        (site.name, key): model.get_submodule(site.module)._parameters[name]
        for site in sites
        for key, name in site.parameter_names().items()
        if model.get_submodule(site.module)._parameters.get(name) is not None
    }
    training = {module: module.training for module in model.modules()}
    required = {p: p.requires_grad for p in parameters.values() if p is not None}
    out: dict[str, list[View]] = {site.name: [] for site in sites}
    model.eval()
    # cuDNN computes gradients of recurrent layers in training mode only; dropout stays off in all others.
    for module in model.modules():
        if isinstance(module, nn.RNNBase) and device_of(model).type == "cuda" and not module.dropout:
            module.train()
    try:
        for parameter in required:
            parameter.requires_grad_(True)
        for batch in items:
            with torch.enable_grad():
                value = _loss(run(model, batch), batch.to(device_of(model)), loss)
                grads = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)  # type: ignore[arg-type]
            for site in sites:
                out[site.name].append(_gradient_view(model, site, dict(zip(parameters, grads, strict=True))))
    finally:
        for module, mode in training.items():
            module.training = mode
        for parameter, flag in required.items():
            parameter.requires_grad_(flag)
    return {name: tuple(views) for name, views in out.items()}


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
