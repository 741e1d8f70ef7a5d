"""Properties of a network that every method asks for, and the default choice of its layers, channels and classes."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import torch
from torch import nn

from lightning_cnnvis.functional.network.forward import OUTPUT, blank_input, model_options
from lightning_cnnvis.functional.network.output import read_output
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.isolation import isolated
from lightning_cnnvis.layers import LayerError

__all__ = [
    "MAX_DEFAULT_CLASSES",
    "OUTPUT",
    "blank_input",
    "choose_channels",
    "choose_depths",
    "model_options",
    "number_of_classes",
]

MAX_DEFAULT_CLASSES = 12
"""How many classes are shown where none are named."""


def number_of_classes(model: nn.Module, input_spec: InputSpec) -> int:
    """Counts the classes of a classifier.

    Args:
        model: The network. It runs once, in evaluation mode, and is left as it was.
        input_spec: The network's input.

    Returns:
        The number of classes; 0 if the network is not a classifier, whose output is, or contains, ``(N, classes)``.

    Example:
        >>> number_of_classes(nn.Sequential(nn.Flatten(), nn.Linear(48, 10)), InputSpec(size=(4, 4)))
        10
        >>> number_of_classes(nn.Conv2d(3, 8, 3), InputSpec(size=(4, 4)))
        0
    """
    with isolated(model) as network:
        try:
            output = read_output(network, input_spec, blank_input(network, input_spec))
        except LayerError:  # no tensor in it
            return 0
    return 0 if output is None else output.count


def choose_channels(layer: str, maps: int, num_channels: int | None, seed: int) -> list[int]:
    """Chooses feature maps of a layer at random; the choice does not depend on which other layers are shown.

    Args:
        layer: The layer's name.
        maps: Number of its feature maps.
        num_channels: Number of maps to choose; None takes every one.
        seed: Seed of the choice.

    Returns:
        The numbers of the chosen maps, ascending.

    Example:
        >>> choose_channels("relu1", 96, 4, seed=0) == choose_channels("relu1", 96, 4, seed=0)
        True
    """
    if num_channels is None or num_channels >= maps:
        return list(range(maps))
    generator = torch.Generator().manual_seed(seed + zlib.crc32(layer.encode()))
    return sorted(torch.randperm(maps, generator=generator, device="cpu")[:num_channels].tolist())


def choose_depths(layers: Sequence[str]) -> list[str]:
    """Picks a low, a middle and a high layer.

    Args:
        layers: Names of at least one layer, in the order of the forward pass.

    Returns:
        One to three of the names, in order.

    Example:
        >>> choose_depths(["relu1", "relu2", "relu3", "relu4", "relu5"])
        ['relu2', 'relu3', 'relu5']
    """
    places = (len(layers) // 4, len(layers) // 2, len(layers) - 1)
    return [layers[place] for place in dict.fromkeys(places)]
