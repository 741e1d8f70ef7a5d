"""Random colours, so that a network cannot rely on them."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def recolor(images: Tensor, random: Tensor) -> Tensor:
    """Changes the colours of each image: tint, hue, saturation, contrast, brightness.

    All of it is one affine map of the RGB values, a different one for each image.

    Args:
        images: ``(N, 3, H, W)`` in [0, 1].
        random: ``(N, 7)`` in [0, 1): hue, saturation, contrast, brightness, and three tints.

    Returns:
        ``(N, 3, H, W)`` in [0, 1].

    Examples:
        >>> recolor(torch.rand(2, 3, 8, 8), torch.rand(2, 7)).shape
        torch.Size([2, 3, 8, 8])
    """
    hue = 0.25 * math.pi * (random[:, 0] - 0.5)
    saturation = 1.4 * random[:, 1]
    contrast = 0.7 + 0.6 * random[:, 2]
    brightness = 0.4 * (random[:, 3] - 0.5)
    tint = 2 ** (0.7 * (random[:, 4:7] - 0.5))

    luma = images.new_tensor([[0.299, 0.587, 0.114]])
    identity = torch.eye(3, dtype=images.dtype, device=images.device)
    to_grey = luma.expand(3, 3)
    to_chroma = identity - to_grey
    about_grey_axis = images.new_tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
    turned = _each(hue.cos()) * identity + _each(hue.sin()) * about_grey_axis
    matrix = _each(contrast) * (to_grey + _each(saturation) * (to_chroma @ turned))
    # contrast is about the image's mean grey, which therefore moves by the brightness only
    mean_grey = (images.mean((2, 3)) @ luma.T).squeeze(1)
    offset = brightness + (1 - contrast) * mean_grey
    changed = torch.einsum("nij,njhw->nihw", matrix, images) + _each(offset, 3)
    colored: Tensor = (changed * tint[:, :, None, None]).clamp(0, 1)
    return colored


def _each(values: Tensor, dims: int = 2) -> Tensor:
    """Reshapes values ``(N,)`` to ``(N, 1, …)``, to be multiplied with a tensor of that many dimensions more."""
    return values.view(-1, *[1] * dims)
