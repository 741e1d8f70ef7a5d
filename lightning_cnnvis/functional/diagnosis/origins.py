"""Where feature maps come from: the convolution that makes them, and their stride in the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from lightning_cnnvis.channel_dim import as_maps
from lightning_cnnvis.functional.network.canonical import RectifiableForward
from lightning_cnnvis.functional.network.graph import children, kind, nodes_between, output_shape
from lightning_cnnvis.functional.network.receptive_field import read_field
from lightning_cnnvis.layers import activations


@dataclass(frozen=True, eq=False)
class Convolution:
    """The convolution whose output, normalised and rectified, is a layer's.

    Attributes:
        weight: ``(K, C, h, w)``, a kernel for each feature map of the layer.
        stride: Vertical and horizontal stride in positions of its own input.
        groups: Number of groups.
        on_image: Whether it reads the image, and not the output of another convolution.
    """

    weight: Tensor
    stride: tuple[int, int]
    groups: int
    on_image: bool


@dataclass(frozen=True, eq=False)
class Origin:
    """Where the feature maps of a layer come from.

    Attributes:
        convolution: The convolution; None if they come from several, such as a sum of branches, or from none.
        stride: Vertical and horizontal stride of the maps in pixels of the image; (0, 0) if each value depends on the
            whole image, or if that is not known.
        size: Height and width of the maps; (1, 1) for units without a map, one row for tokens.
    """

    convolution: Convolution | None
    stride: tuple[int, int]
    size: tuple[int, int]


def origins(model: nn.Module, layers: Sequence[str], image: Tensor) -> dict[str, Origin]:
    """Finds out where the feature maps of layers come from, by the autograd graph of one forward pass.

    Args:
        model: The network, isolated and in evaluation mode.
        layers: Dotted module names.
        image: ``(1, C, H, W)``.

    Returns:
        The origins by layer.

    Raises:
        LayerError: If a layer is not there, does not run, or does not return a tensor.

    Examples:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 5, stride=2), nn.BatchNorm2d(8), nn.ReLU()).eval()
        >>> found = origins(net, ["2"], torch.zeros(1, 3, 16, 16))["2"]
        >>> found.convolution.weight.shape, found.convolution.on_image, found.stride
        (torch.Size([8, 3, 5, 5]), True, (2, 2))
    """
    image = image.detach().clone().requires_grad_()
    with torch.enable_grad(), RectifiableForward("identity"):
        outputs = activations(model, image, layers)
    found = {}
    for layer, output in outputs.items():
        nodes = nodes_between(output, image)
        stride = read_field(output, nodes, (image.shape[2], image.shape[3])).stride if nodes else (0, 0)
        height, width = (*as_maps(output).shape[2:], 1, 1)[:2]
        found[layer] = Origin(_convolution(output, image), stride, (height, width))
    return found


def _convolution(output: Tensor, image: Tensor) -> Convolution | None:
    node = _above(output.grad_fn) if output.ndim == 4 else None
    if node is None:
        return None
    saved = {name: getattr(node, f"_saved_{name}") for name in ("weight", "stride", "groups", "transposed")}
    weight, groups, stride = saved["weight"].detach(), int(saved["groups"]), [int(n) for n in saved["stride"]]
    if saved["transposed"] or weight.ndim != 4 or len(weight) != output.shape[1]:
        return None
    on_image = weight.shape[1] * groups == image.shape[1] and not _meets_convolution(node)
    return Convolution(weight, (stride[0], stride[-1]), groups, on_image)


def _above(node: Node | None) -> Node | None:
    """The convolution from which a single path of pointwise operations leads to a tensor, if there is one."""
    while node is not None and kind(node) != "Convolution":
        inputs = [child for child in children(node) if kind(child) != "AccumulateGrad"]
        # what views and permutes may hold the channels elsewhere, where they have not the same shape
        same = len(inputs) == 1 and output_shape(inputs[0])[:2] == output_shape(node)[:2]
        node = inputs[0] if same and len(output_shape(node)) == 4 else None
    return node


def _meets_convolution(node: Node) -> bool:
    """Whether there is another convolution between the image and one."""
    waiting, seen = [node.next_functions[0][0]], {node}
    while waiting:
        below = waiting.pop()
        if below is None or below in seen:
            continue
        if kind(below) == "Convolution":
            return True
        seen.add(below)
        waiting += children(below)
    return False
