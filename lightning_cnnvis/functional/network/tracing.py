"""The autograd graph between an image and a layer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from lightning_cnnvis.functional.network.canonical import RectifiableForward
from lightning_cnnvis.functional.network.forward import is_about_shapes
from lightning_cnnvis.functional.network.graph import nodes_between
from lightning_cnnvis.layers import LayerError, activations, check_takes_an_image, get_layer


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
    check_takes_an_image(model)
    _check_runs_once(model, layer, image)
    image = image.detach().clone().requires_grad_()
    with RectifiableForward("identity"):
        output = activations(model, image, [layer])[layer]
    nodes = nodes_between(output, image)
    if not nodes:
        raise LayerError(_without_gradient(model, layer, image, output))
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
    except Exception as error:
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


def _without_gradient(model: nn.Module, layer: str, image: Tensor, output: Tensor) -> str:
    """Says why there is no graph between an image and a layer."""
    with torch.no_grad():
        other = activations(model, image.flip(-1).neg(), [layer])[layer]
    if other.shape == output.shape and torch.equal(other, output):
        return f"The output of layer {layer!r} does not depend on the image."
    cuts = _cuts_of_gradient(model, layer, image)
    cause = next(iter(cuts.values()), "the forward method detaches or quantises it on the way")
    # the outermost part with the layer in it, which as the network has a gradient of its own
    around = next((name for name in cuts if layer.startswith(f"{name}.")), None)
    if around is None:
        remedy = "Give the part of the network after that step as the network: network='...'."
    else:
        remedy = f"Give that part as the network: network={around!r}, or its name in the LightningModule."
    return f"No gradient flows from layer {layer!r} to the image: {cuts.get(around or '', cause)}. {remedy}"


def _cuts_of_gradient(model: nn.Module, layer: str, image: Tensor) -> dict[str, str]:
    """Finds the modules that the graph does not reach, outer ones first, and why.

    Returns:
        What happens to each, by name.
    """
    cuts: dict[str, str] = {}

    def hook_of(name: str) -> Callable[[nn.Module, tuple[object, ...]], None]:
        def hook(_: nn.Module, inputs: tuple[object, ...]) -> None:
            tensors = [x for x in inputs if isinstance(x, Tensor)]
            if not torch.is_grad_enabled():
                cuts[name] = f"the forward method runs {name!r} under torch.no_grad()"
            elif tensors and not any(x.requires_grad for x in tensors):
                cuts[name] = f"the forward method detaches or quantises the input of {name!r}"

        return hook

    handles = [m.register_forward_pre_hook(hook_of(name)) for name, m in model.named_modules() if name]
    try:
        activations(model, image, [layer])
    finally:
        for handle in handles:
            handle.remove()
    return cuts
