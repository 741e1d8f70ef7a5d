"""From an image file to a network input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torchvision.transforms import v2

from lightning_cnnvis.inputs import IMAGENET_MEAN, IMAGENET_STD

Transform = Callable[[Image.Image], torch.Tensor]


def training_transform(image_size: int) -> Transform:
    """Makes the transform of training images.

    Args:
        image_size: Height and width of the result in pixels.

    Returns:
        A random crop of at least 60 % of the image, mirrored half of the time, with slightly changed colours, as a
        normalised tensor ``(3, image_size, image_size)``.
    """
    crop = v2.RandomResizedCrop(image_size, scale=(0.6, 1.0))
    return _compose(crop, v2.RandomHorizontalFlip(), v2.ColorJitter(0.3, 0.3, 0.3))


def validation_transform(image_size: int) -> Transform:
    """Makes the transform of validation images.

    Args:
        image_size: Height and width of the result in pixels.

    Returns:
        The central square of the image, as a normalised tensor ``(3, image_size, image_size)``.

    Examples:
        >>> validation_transform(32)(Image.new("L", (40, 60))).shape
        torch.Size([3, 32, 32])
    """
    return _compose(v2.Resize(image_size), v2.CenterCrop(image_size))


def _compose(*steps: Callable[..., Any]) -> Transform:
    to_tensor = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    composed: Transform = v2.Compose([v2.RGB(), *steps, *to_tensor])
    return composed
