"""Style and content: the Gram matrices of layers, their distances, and which layers hold what."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lightning_cnnvis.functional.network.forward import blank_input
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.layers import LayerError, trace_layers

STYLE_LAYERS = 5
"""How many layers hold the style where none are named: as many as in the paper."""


def gram(maps: Tensor) -> Tensor:
    """Computes the Gram matrices of feature maps, over the number of places: their mean products.

    Args:
        maps: ``(N, C, ...)``.

    Returns:
        ``(N, C, C)``.

    Examples:
        >>> gram(torch.tensor([[[1.0, 3.0], [0.0, 2.0]]]))
        tensor([[[5., 3.],
                 [3., 2.]]])
    """
    rows = maps.flatten(2)
    return rows @ rows.transpose(1, 2) / rows.shape[2]


def style_distances(maps: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
    """Measures how far the style of images is from the wanted one.

    Args:
        maps: Features of the images by layer, ``(N, C, ...)``.
        targets: Gram matrices ``(C, C)`` by layer.

    Returns:
        ``(N, L)``, ‖G - G*‖² / ‖G*‖².
    """
    return torch.stack(
        [
            (gram(maps[layer]) - target).square().sum((1, 2)) / target.square().sum().clamp_min(1e-20)
            for layer, target in targets.items()
        ],
        1,
    )


def content_error(features: Tensor, originals: Tensor) -> Tensor:
    """Measures how far features are from those of the photographs.

    Args:
        features: ``(N, C, ...)``.
        originals: The same of the photographs.

    Returns:
        ``(N,)``, ‖F - F₀‖² / ‖F₀‖².
    """
    norm = originals.square().flatten(1).sum(1).clamp_min(1e-20)
    return (features - originals).square().flatten(1).sum(1) / norm


def default_layers(model: nn.Module, input_spec: InputSpec) -> tuple[list[str], str]:
    """Chooses the layers that hold style and content.

    Args:
        model: The network, in evaluation mode; it runs once.
        input_spec: The network's input.

    Returns:
        The first rectified convolution of each size of map, five at most, as in the paper; and the last one that has
        more than one place, in whose features the network still recognises what is there.

    Raises:
        LayerError: If there is no convolution.
    """
    with torch.no_grad():
        calls, rectified = trace_layers(model, blank_input(model, input_spec))
    sizes = {layer: calls[layer].shape[1:] for layer in rectified if len(calls[layer].shape) == 3}
    if not sizes:
        raise LayerError(f"{type(model).__name__} has no convolution: name the layers of style and content.")
    first: dict[tuple[int, ...], str] = {}
    for layer, size in sizes.items():
        first.setdefault(size, layer)
    chosen = list(first)[:STYLE_LAYERS]
    with_places = [layer for layer, size in sizes.items() if max(size) > 1] or list(sizes)
    return [first[size] for size in chosen], with_places[-1]


def check_maps(recorded: Mapping[str, Tensor]) -> None:
    """Refuses layers without a map.

    Args:
        recorded: Outputs by layer.

    Raises:
        LayerError: If one has none.
    """
    for layer, activations in recorded.items():
        if activations.ndim < 3:
            raise LayerError(
                f"Layer {layer!r} has an output of shape {tuple(activations.shape)}: style and content need "
                "layers with maps."
            )
