"""Pictures of any size: their checks, and passes that say so where a size does not go through a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from lightning_cnnvis.functional.network.forward import is_about_shapes, plain_forward
from lightning_cnnvis.inputs import InputSpec


def forward_of_any_size(model: nn.Module, layers: Sequence[str], inputs: Tensor, name: str) -> Mapping[str, Tensor]:
    """Computes the layers' outputs, and explains the error if the picture's size does not go through the network.

    Args:
        model: The network.
        layers: Dotted names of the layers.
        inputs: ``(N, C, H, W)``, normalised.
        name: What the picture is called in the error.

    Returns:
        Every layer's output ``(N, C, ...)``, by name, without gradients.

    Raises:
        LayerError: If a layer does not exist.
        ValueError: If the size does not go through the network.
    """
    try:
        with torch.no_grad():
            return plain_forward(model, layers)(inputs)
    except Exception as error:
        if not is_about_shapes(error):
            raise
        height, width = inputs.shape[-2:]
        raise ValueError(
            f"The {name} of {height}×{width} pixels does not go through the network to {list(layers)}: {error}"
        ) from error


def checked_pictures(image: Tensor, input_spec: InputSpec, name: str) -> Tensor:
    """Checks pictures.

    Args:
        image: ``(N, C, H, W)`` or ``(C, H, W)``, nominally in [0, 1].
        input_spec: The network's input.
        name: What they are called in the errors.

    Returns:
        ``(N, C, H, W)`` in [0, 1].

    Raises:
        ValueError: If they have another shape, or pixels outside of [0, 1].

    Examples:
        >>> checked_pictures(torch.zeros(3, 8, 8), InputSpec(), "image").shape
        torch.Size([1, 3, 8, 8])
    """
    batch = image[None] if image.ndim == 3 else image
    if batch.ndim != 4 or batch.shape[1] != input_spec.channels:
        raise ValueError(
            f"{name} of shape {tuple(image.shape)}: the network takes ({input_spec.channels}, height, width)."
        )
    # resampling leaves pixels a rounding error outside
    inside = batch.is_floating_point() and ((batch > -1e-3) & (batch < 1 + 1e-3)).all()
    if not inside:
        raise ValueError(f"{name} must hold finite floating-point pixels between 0 and 1. Scale it, or remove NaN.")
    return batch.detach().clamp(0, 1)
