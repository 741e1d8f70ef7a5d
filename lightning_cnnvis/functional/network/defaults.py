"""Properties of a network that every method asks for, and the default choice of its layers, channels and classes."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from lightning_cnnvis.functional.network.forward import OUTPUT, blank_input, model_options
from lightning_cnnvis.functional.network.output import read_output
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.isolation import isolated
from lightning_cnnvis.layers import LayerCalls, LayerError

__all__ = [
    "MAX_DEFAULT_CLASSES",
    "MAX_DEFAULT_LAYERS",
    "OUTPUT",
    "blank_input",
    "choose_channels",
    "choose_depths",
    "choose_layers",
    "model_options",
    "number_of_classes",
]

MAX_DEFAULT_CLASSES = 12
"""How many classes are shown where none are named."""

MAX_DEFAULT_LAYERS = 6
"""How many layers are shown where none are named."""


def number_of_classes(model: nn.Module, input_spec: InputSpec) -> int:
    """Counts the classes of a classifier.

    Args:
        model: The network. It runs once, in evaluation mode, and is left as it was.
        input_spec: The network's input.

    Returns:
        The number of classes; 0 if the network is not a classifier, whose output is, or contains, ``(N, classes)``.

    Examples:
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

    Examples:
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

    Examples:
        >>> choose_depths(["relu1", "relu2", "relu3", "relu4", "relu5"])
        ['relu2', 'relu3', 'relu5']
    """
    places = (len(layers) // 4, len(layers) // 2, len(layers) - 1)
    return [layers[place] for place in dict.fromkeys(places)]


def choose_layers(layers: Sequence[str], calls: Mapping[str, LayerCalls], count: int = MAX_DEFAULT_LAYERS) -> list[str]:
    """Chooses the layers that are shown where none are named, spread over the depth and the sizes of the maps.

    The first and the last one are always among them, and the last one of each size of map as far as there is room. What
    room is left goes where most layers are left out, to one with many maps. Maps of a single place, as in
    squeeze-and-excitation, and convolutions without a rectifier, as in a shortcut, are chosen only where there is
    nothing else.

    Args:
        layers: Names of the layers that hold the rectified outputs of the convolutions, in the order in which they run.
        calls: What is known of them; see `trace_layers`.
        count: Greatest number of layers to choose, at least 2.

    Returns:
        The names, in order; all of them if they are no more than ``count``.

    Examples:
        >>> calls = {f"relu{n}": LayerCalls(f"relu{n}", "ReLU", 1, (8, 32 >> n // 3, 32 >> n // 3)) for n in range(9)}
        >>> choose_layers(list(calls), calls)
        ['relu0', 'relu2', 'relu3', 'relu5', 'relu6', 'relu8']
    """
    if len(layers) <= count:
        return list(layers)
    maps = [layer for layer in layers if max(calls[layer].shape[1:], default=1) > 1] or list(layers)
    known = [layer for layer in maps if calls[layer].rectified]
    known = known if len(known) >= count else maps
    ends = {calls[layer].shape[1:]: place for place, layer in enumerate(known)}
    chosen = sorted({0, *ends.values(), len(known) - 1})
    while len(chosen) < min(count, len(known)):
        gap = max(range(len(chosen) - 1), key=lambda n: (chosen[n + 1] - chosen[n], n))
        between = range(chosen[gap] + 1, chosen[gap + 1])
        middle = (chosen[gap] + chosen[gap + 1]) / 2
        widest = max(between, key=lambda place: (calls[known[place]].shape[:1], -abs(place - middle)))
        chosen.insert(gap + 1, widest)
    last = len(chosen) - 1
    places = range(count) if last >= count else ()
    chosen = [chosen[round(n * last / (count - 1))] for n in places] or chosen
    return [known[place] for place in chosen]
