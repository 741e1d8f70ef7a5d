"""The autograd graph between an image and a layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from lightning_cnnvis.functional.network.canonical import RectifiableForward
from lightning_cnnvis.functional.network.chunks import is_out_of_memory
from lightning_cnnvis.functional.network.forward import OUTPUT, is_about_shapes
from lightning_cnnvis.functional.network.graph import nodes_between
from lightning_cnnvis.functional.noise import gaussian
from lightning_cnnvis.layers import LayerError, activations, check_call, check_takes_an_image, get_layer


def trace(model: nn.Module, layer: str, image: Tensor) -> tuple[Tensor, list[Node]]:
    """Runs one image to a layer and returns the graph of the pass.

    The model must be isolated and in evaluation mode.

    Args:
        model: The network.
        layer: Dotted module name; with the number of the call if the module runs several times, see `get_layer`.
        image: ``(1, C, H, W)``.

    Returns:
        The layer's output, and the graph between the image and it as `nodes_between` gives it.

    Raises:
        LayerError: If the layer does not exist, its name does not stand for one call, it does not return a tensor,
            if its output does not depend on the image, or if an image of this shape does not reach it.
    """
    check_takes_an_image(model)
    check_calls(model, [layer], image)
    image = image.detach().clone().requires_grad_()
    with RectifiableForward("identity"):
        output = activations(model, image, [layer])[layer]
    nodes = nodes_between(output, image)
    if not nodes:
        raise LayerError(_without_gradient(model, layer, image, output))
    return output, nodes


def check_calls(model: nn.Module, layers: Sequence[str], image: Tensor) -> None:
    """Checks that the name of each layer stands for one call of a module, in a forward pass of an image.

    Args:
        model: The network, isolated and in evaluation mode.
        layers: Names of layers; `OUTPUT` may be among them.
        image: ``(1, C, H, W)``.

    Raises:
        LayerError: If a layer does not exist, or runs several times and its name does not say which call is meant;
            the message lists the calls. Also if an image of this shape does not reach a layer.

    Examples:
        >>> relu = nn.ReLU()
        >>> net = nn.Sequential(relu, nn.Conv2d(3, 8, 3), relu)
        >>> check_calls(net, ["0@1", "0@2"], torch.zeros(1, 3, 8, 8))
        >>> check_calls(net, ["0"], torch.zeros(1, 3, 8, 8))
        Traceback (most recent call last):
        ...
        lightning_cnnvis.layers.LayerError: Layer '0' runs 2 times in one forward pass. Name a call: '0@1' or '0@2'.
    """
    modules = {layer: get_layer(model, layer) for layer in layers if layer != OUTPUT}
    runs: Counter[nn.Module] = Counter()
    handles = [
        module.register_forward_hook(lambda module, *_: runs.update([module])) for module in set(modules.values())
    ]
    try:
        with torch.no_grad():
            model(image)
    except Exception as error:
        # layers after these need not fit the image
        unreached = [layer for layer, module in modules.items() if not runs[module]]
        if is_out_of_memory(error) or (unreached and not is_about_shapes(error)):
            raise
        if unreached:
            shape = " × ".join(map(str, image.shape[1:]))
            raise LayerError(
                f"An image of {shape} (channels, height, width) does not get through the network to layer "
                f"{unreached[0]!r}: {error}. Give images as the network was made for."
            ) from error
    finally:
        for handle in handles:
            handle.remove()
    for layer, module in modules.items():
        if runs[module]:  # one that does not run at all is found out by what asks for its output
            check_call(model, layer, runs[module])


def _without_gradient(model: nn.Module, layer: str, image: Tensor, output: Tensor) -> str:
    """Says why there is no graph between an image and a layer."""
    # a blank image is its own negative, and noise too weak to pass a bias changes nothing
    noise = gaussian(image.shape).to(image)
    with torch.no_grad():
        others = [activations(model, image + strength * noise, [layer])[layer] for strength in (1, -1, 100)]
    if all(other.shape == output.shape and torch.equal(other, output) for other in others):
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
