"""Photographs from files."""

from __future__ import annotations

from pathlib import Path

import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import center_crop, pil_to_tensor, resize


def read_photograph(path: str | Path) -> Tensor:
    """Reads a photograph, ``(3, H, W)`` in [0, 1].

    Raises:
        MisconfigurationException: If it is not there, or is no picture.
    """
    try:
        with Image.open(path) as image:
            pixels: Tensor = pil_to_tensor(image.convert("RGB"))
            return pixels / torch.tensor(255.0)
    except OSError as error:
        raise MisconfigurationException(f"{str(path)!r} cannot be read as a picture: {error}") from error


def fit_photograph(photo: Tensor, size: tuple[int, int]) -> Tensor:
    """Scales and cuts a photograph to a network's input size."""
    return center_crop(resize(photo, max(size), antialias=True), list(size))
