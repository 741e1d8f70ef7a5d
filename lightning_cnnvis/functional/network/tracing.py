"""The autograd graph between an image and a layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from lightning_cnnvis.functional.network.canonical import RectifiableForward
from lightning_cnnvis.functional.network.forward import is_about_shapes
from lightning_cnnvis.functional.network.graph import nodes_between
from lightning_cnnvis.layers import LayerError, activations, get_layer


def trace(model: nn.Module, layer: str, image: Tensor) -> tuple[Tensor, list[Node]]:
    """Runs one image to a layer and returns the graph of the pass.

    The model must be isolated and in evaluation mode.

    Args:
        model: The network.
        layer: Dotted module name.
        image: ``(1, C, H, W)``.

    Returns:
        The layer's output, and the graph between the image and it as `nodes_between` gives it.

    Raises:
        LayerError: If the layer does not exist, does not run exactly once in a forward pass, does not return a tensor,
            if its output does not depend on the image, or if an image of this shape does not reach it.
    """
    _check_runs_once(model, layer, image)
    image = image.detach().clone().requires_grad_()
    with RectifiableForward("identity"):
        output = activations(model, image, [layer])[layer]
    nodes = nodes_between(output, image)
    if not nodes:
        raise LayerError(f"The output of layer {layer!r} does not depend on the image.")
    return output, nodes


def _check_runs_once(model: nn.Module, layer: str, image: Tensor) -> None:
    runs = 0

    def count(*_: object) -> None:
        nonlocal runs
        runs += 1

    handle = get_layer(model, layer).register_forward_hook(count)
    try:
        with torch.no_grad():
            model(image)
    except RuntimeError as error:
        if not is_about_shapes(error):
            raise
        # layers after this one need not fit the image
        if not runs:
            shape = " × ".join(map(str, image.shape[1:]))
            raise LayerError(
                f"An image of {shape} (channels, height, width) does not get through the network to layer {layer!r}: "
                f"{error}. Give images as the network was made for."
            ) from error
    finally:
        handle.remove()
    if runs > 1:
        raise LayerError(
            f"Layer {layer!r} runs {runs} times in one forward pass, so its name stands for several maps: "
            "name a layer around it that runs once."
        )
