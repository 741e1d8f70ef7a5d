"""Losses and their gradients with respect to the network's input."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_cnnvis.functional.network.forward import Forward, model_options, plain_forward
from lightning_cnnvis.functional.optimization.network_priors import NetworkPrior
from lightning_cnnvis.functional.optimization.objectives import Objective

Gradient = Callable[[Tensor, "Tensor | None"], tuple[Tensor, Tensor]]
"""A function of inputs ``(N, C, H, W)`` and of which of them to rescue, ``(N,)`` bool or None for none of them. It
returns losses ``(N,)`` and their gradients ``(N, C, H, W)``."""


def model_gradient(
    model: nn.Module,
    objective: Objective,
    part: slice,
    *,
    precision: Literal["float32", "bfloat16"] = "float32",
    forward: Forward | None = None,
    network_prior: NetworkPrior | None = None,
) -> Gradient:
    """Makes the function that computes an objective's losses and gradients for a part of the images.

    Args:
        model: The network, its parameters frozen.
        objective: The losses.
        part: Range of the images that the batch holds.
        precision: ``"float32"``, or ``"bfloat16"`` to run the passes under autocast.
        forward: The pass that records the activations; None runs the model to the deepest layer.
        network_prior: A penalty on what the layers see, added to the losses; None adds none.

    Returns:
        A function of the inputs.
    """
    forward = forward or plain_forward(model, objective.layers)
    dtype = model_options(model).dtype
    device = model_options(model).device
    loss_of = objective.bind(part, device)

    def gradient(inputs: Tensor, rescue: Tensor | None = None) -> tuple[Tensor, Tensor]:
        # convolutions run up to twice as fast on this layout
        leaf = inputs.detach().to(dtype, memory_format=torch.channels_last).requires_grad_()
        with ExitStack() as stack:
            if precision == "bfloat16":
                stack.enter_context(torch.autocast(device.type, dtype=torch.bfloat16))
            penalties = stack.enter_context(network_prior.watching(model)) if network_prior else []
            recorded = forward(leaf)
        loss = loss_of({layer: activations.to(inputs.dtype) for layer, activations in recorded.items()})
        for penalty in penalties:
            loss = loss + penalty.to(inputs.dtype)
        with nullcontext() if rescue is None else _Rescue(rescue):
            (slope,) = torch.autograd.grad(loss.sum(), leaf)
        return loss.detach(), slope.to(inputs.dtype)

    return gradient


class _Rescue(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Lets gradients pass through inactive ReLUs, for some images of the batch.

    It acts on the backward kernel, so that every form of ReLU is covered: modules, functions, in place, shared.

    Args:
        rescue: ``(N,)`` bool, the images whose gradients pass.
    """

    def __init__(self, rescue: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rescue = rescue

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.threshold_backward.default and len(result) <= len(self.rescue):
            # if the batch was narrowed on the way, its last images remain
            rows = self.rescue[len(self.rescue) - len(result) :]
            return torch.where(rows.view(-1, *[1] * (result.ndim - 1)), args[0], result)
        return result
