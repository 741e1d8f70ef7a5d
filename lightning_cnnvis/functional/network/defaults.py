"""What is shown of a network where nothing is named."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import torch


def choose_channels(layer: str, maps: int, num_channels: int | None, seed: int) -> list[int]:
    """A random choice of a layer's feature maps that does not depend on which other layers are shown.

    Args:
        layer: The layer's name.
        maps: How many feature maps it has.
        num_channels: How many to choose; every one if None.
        seed: Of the choice.

    Returns:
        Their numbers, ascending.

    Example:
        >>> choose_channels("relu1", 96, 4, seed=0) == choose_channels("relu1", 96, 4, seed=0)
        True
    """
    if num_channels is None or num_channels >= maps:
        return list(range(maps))
    generator = torch.Generator().manual_seed(seed + zlib.crc32(layer.encode()))
    return sorted(torch.randperm(maps, generator=generator)[:num_channels].tolist())


def choose_depths(layers: Sequence[str]) -> list[str]:
    """A low, a middle and a high layer.

    Example:
        >>> choose_depths(["relu1", "relu2", "relu3", "relu4", "relu5"])
        ['relu2', 'relu3', 'relu5']
    """
    places = (len(layers) // 4, len(layers) // 2, len(layers) - 1)
    return [layers[place] for place in dict.fromkeys(places)]


MAX_DEFAULT_CLASSES = 12
"""How many classes are shown where none are named."""
