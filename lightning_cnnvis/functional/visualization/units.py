"""Activation maximisation: the image to which a unit of the network responds most.

Erhan et al. 2009, "Visualizing higher-layer features of a deep network"; Olah et al. 2017
(https://doi.org/10.23915/distill.00007) for the kinds of unit: a neuron, a channel, a layer, a direction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_cnnvis.functional.network.forward import blank_input, plain_forward
from lightning_cnnvis.functional.network.tracing import check_calls
from lightning_cnnvis.functional.optimization.loop import optimize
from lightning_cnnvis.functional.optimization.objectives import Objective, channel, direction, layer_energy, neuron
from lightning_cnnvis.functional.optimization.recipes import Recipe
from lightning_cnnvis.functional.visualization.results import (
    VisualizationOptions,
    Visualizations,
    batch_for,
    on_clean_image,
    recipe_for,
    visualizations,
)
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.isolation import isolated
from lightning_cnnvis.layers import LayerError, has_units


def maximize_activation(
    model: nn.Module,
    layer: str,
    channels: Sequence[int] | Tensor | None,
    *,
    input_spec: InputSpec,
    positions: Sequence[tuple[int, int]] | Literal["center"] | None = None,
    preset: str | Recipe = "fourier",
    steps: int | None = None,
    seed: int = 0,
    options: VisualizationOptions | None = None,
) -> Visualizations:
    """Makes the images to which channels, neurons, directions or a whole layer respond most (Erhan et al. 2009).

    Args:
        model: The network. Left as it was.
        layer: Dotted name of a module, usually a rectified convolution or a fully connected layer.
        channels: Channel numbers, one image for each; or directions in the layer's channel space, a float tensor
            ``(N, C)`` (`directions_between` interpolates); or None for one image of the whole layer.
        input_spec: The network's input.
        positions: Row and column of one neuron in each channel's map, or ``"center"``; None takes the mean of the map.
        preset: ``"fourier"``, ``"yosinski2015"``, ``"simonyan2013"``, ``"none"`` or another name registered in
            `PRESETS`, see `preset_recipe`; or a recipe of your own.
        steps: Number of steps; None takes the recipe's.
        seed: Seed of all random numbers.
        options: Advanced options.

    Returns:
        One image for each channel or direction, or for the layer.

    Raises:
        LayerError: If the layer does not exist, or its output has no channels.
        ValueError: If a channel or a position is out of range, or there is no preset of the name.

    Examples:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        >>> shown = maximize_activation(net, "1", [0, 3], input_spec=InputSpec(size=(16, 16)), steps=4)
        >>> shown.labels
        ('1 #0', '1 #3')
    """
    options = options or VisualizationOptions()
    with isolated(model) as network:
        blank = blank_input(network, input_spec)
        check_calls(network, [layer], blank)
        activations = plain_forward(network, [layer])(blank)[layer]
        if channels is not None:
            _check_units(network, layer, activations, positioned=positions is not None)
        objective, labels, targets = unit_objective(layer, activations, channels, positions)
        recipe = recipe_for(network, preset, steps, input_spec, options)
        batch = batch_for(seed, [("unit", label) for label in labels], options, group=1)
        optimized = optimize(network, objective, recipe, batch, input_spec=input_spec)
        scores, outputs = on_clean_image(network, objective, optimized.images, input_spec, options.chunk)
    tenth = max(1, recipe.steps // 10)
    late, end = optimized.losses[:, -2 * tenth : -tenth].mean(1), optimized.losses[:, -tenth:].mean(1)
    gain = optimized.losses[:, 0] - end
    reached = (scores > 0) & (late - end < 0.02 * gain)
    peaks = scores if positions is not None else _peaks(outputs, targets)
    return visualizations(optimized, labels, targets, scores, reached=reached, peaks=peaks)


def _peaks(outputs: Tensor, channels: Sequence[int]) -> Tensor | None:
    """Finds the strongest activation in each image's channel; None if the images have no channel."""
    if min(channels) < 0:
        return None
    maps = outputs[torch.arange(len(outputs), device=outputs.device), torch.tensor(channels, device=outputs.device)]
    return maps.flatten(1).amax(1) if maps.ndim > 1 else maps


def _check_units(model: nn.Module, layer: str, activations: Tensor, *, positioned: bool) -> None:
    if not has_units(model, layer, activations):
        raise LayerError(
            f"Layer {layer!r} gives {tuple(activations.shape)} for one image. Name a layer that gives (N, C, H, W), "
            "(N, units) or tokens (N, T, C)."
        )
    if activations.ndim == 3 and positioned:
        raise LayerError(f"Layer {layer!r} gives tokens, which have no row and no column. Leave out positions.")


def unit_objective(
    layer: str,
    activations: Tensor,
    channels: Sequence[int] | Tensor | None,
    positions: Sequence[tuple[int, int]] | str | None = None,
) -> tuple[Objective, list[str], list[int]]:
    """Makes the objective of units.

    Args:
        layer: Dotted name of a layer.
        activations: ``(1, C, ...)``, what it gives for one image.
        channels: As `maximize_activation` takes them.
        positions: As `maximize_activation` takes them.

    Returns:
        The objective, the label of each image, and its channel, -1 if it has none.

    Raises:
        ValueError: If a channel or a position is out of range.
    """
    if channels is None:
        return layer_energy(layer), [layer], [-1]
    count = activations.shape[1]
    if isinstance(channels, Tensor) and channels.is_floating_point():
        if channels.ndim != 2 or channels.shape[1] != count:
            raise ValueError(
                f"Directions of shape {tuple(channels.shape)}: layer {layer!r} has {count} channels, give (N, {count})."
            )
        return direction(layer, channels), [f"{layer} ↗{i}" for i in range(len(channels))], [-1] * len(channels)
    numbers = [int(number) for number in channels]
    if not numbers:
        raise ValueError("channels is empty. Name at least one, or None for the whole layer.")
    for number in numbers:
        if not 0 <= number < count:
            raise ValueError(f"Channel {number} is out of range: layer {layer!r} has channels 0 to {count - 1}.")
    if positions is None:
        return channel(layer, numbers), [f"{layer} #{number}" for number in numbers], numbers
    if positions == "center":
        return neuron(layer, numbers), [f"{layer} #{number} centre" for number in numbers], numbers
    if isinstance(positions, str):
        raise ValueError(f"positions={positions!r}: give a row and a column for each channel, 'center', or None.")
    height, width = activations.shape[-2:] if activations.ndim == 4 else (0, 0)
    for row, column in positions:
        if activations.ndim == 4 and not (0 <= row < height and 0 <= column < width):
            raise ValueError(f"Position {(row, column)} is outside the {height}×{width} map of layer {layer!r}.")
    objective = neuron(layer, numbers, positions)
    places = zip(numbers, positions, strict=True)
    return objective, [f"{layer} #{number} at {row}, {column}" for number, (row, column) in places], numbers
