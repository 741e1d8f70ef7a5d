"""Class visualisation and activation maximisation: images that a class, or a unit, responds to most.

Erhan et al. 2009 ("Visualizing higher-layer features of a deep network"), Simonyan et al. 2013 (arXiv 1312.6034),
Yosinski et al. 2015 (arXiv 1506.06579), Olah et al. 2017 (https://doi.org/10.23915/distill.00007).
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_cnnvis.chunks import in_chunks
from lightning_cnnvis.functional.forward import OUTPUT, plain_forward
from lightning_cnnvis.functional.objectives import (
    Objective,
    channel,
    class_logit,
    direction,
    diversify,
    layer_energy,
    neuron,
)
from lightning_cnnvis.functional.optimize import Batch, Optimized, Recipe, image_seeds, optimize
from lightning_cnnvis.functional.parameterizations import ImageStatistics
from lightning_cnnvis.functional.presets import Preset, preset_recipe, with_steps
from lightning_cnnvis.functional.transforms import resize
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.isolation import isolated
from lightning_cnnvis.layers import trace_layers

State = Literal["reached", "not converged", "dead"]

REACHED_PROBABILITY = 0.9
_COARSEST = 0.6
_SMALLEST_COARSE_INPUT = 64  # pixels; below, the maps of a network made for small images run out


@dataclass(frozen=True)
class VisualizationOptions:
    """What seldom needs another value.

    Args:
        size: Height and width of the images; None takes the network's input size. Smaller images are resampled
            for the network.
        frames: Steps after which the images are kept, 0 being the start.
        statistics: Of the user's own images, for the preset ``"fourier"``; None takes everyday photographs.
        diversity: Weight of the diversity term over the samples of a class; see `diversify`.
        diversity_layer: Layer of the features that are to differ; None takes a convolution at about three quarters
            of the depth.
        chunk: Images optimised at a time.
        precision: Of the network's passes; see `Recipe`.
    """

    size: tuple[int, int] | None = None
    frames: Sequence[int] = ()
    statistics: ImageStatistics | None = None
    diversity: float = 0.5
    diversity_layer: str | None = None
    chunk: int = 16
    precision: Literal["float32", "bfloat16"] = "float32"


@dataclass(frozen=True)
class Visualizations:
    """Optimised images, and how far each of them got.

    Attributes:
        images: ``(N, C, H, W)`` in [0, 1].
        labels: What each image is for: the class's name, or the layer and the unit.
        targets: Class or channel of each image; -1 for a whole layer or a direction.
        scores: ``(N,)``, the logit or activation reached on the clean image: the picture itself at the network's input
            size, with no random moves.
        probabilities: ``(N,)`` in [0, 1], reached on the clean image; None if the target is no class.
        states: ``"reached"``, ``"not converged"`` or ``"dead"``. A class is reached at probability 0.9 on the clean
            image; a unit, once its score is above 0 and the last tenth of the steps gained less than 2 %.
            Dead is what had no gradient even after the rescue.
        rescued: ``(N,)`` bool, whether gradients had to be let through dead ReLUs.
        losses: ``(N, steps)``.
        frames: ``(N, F, C, H, W)`` in [0, 1], after the steps asked for.
    """

    images: Tensor
    labels: tuple[str, ...]
    targets: tuple[int, ...]
    scores: Tensor
    probabilities: Tensor | None
    states: tuple[State, ...]
    rescued: Tensor
    losses: Tensor
    frames: Tensor


def visualize_classes(
    model: nn.Module,
    classes: Sequence[int | str],
    *,
    input_spec: InputSpec,
    samples_per_class: int = 1,
    preset: Preset | Recipe = "fourier",
    steps: int | None = None,
    seed: int = 0,
    options: VisualizationOptions | None = None,
) -> Visualizations:
    """Makes images of what a classifier takes for its classes, by raising their logits.

    An image depends on the seed, its class and the number of its sample alone, whatever other classes are asked for.
    With several samples, the samples of one class also depend on each other, through the diversity term.

    Args:
        model: A classifier that returns logits ``(N, classes)``. Left as it was.
        classes: Indices, or names from ``input_spec.class_names``.
        input_spec: The network's input.
        samples_per_class: Images of each class, side by side in the result.
        preset: Name of a recipe (`preset_recipe`), or a recipe of one's own.
        steps: Number of steps; None takes the recipe's.
        seed: Of all random numbers.
        options: See `VisualizationOptions`.

    Returns:
        ``len(classes) * samples_per_class`` images, the samples of a class one after the other.

    Raises:
        ValueError: If a class is out of range or unknown, a number is not positive, or the model's output is not
            ``(N, classes)``.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> spec = InputSpec(size=(16, 16), class_names=("cat", "dog", "emu", "fox"))
        >>> shown = visualize_classes(net, ["dog", 3], input_spec=spec, steps=4)
        >>> shown.images.shape, shown.labels
        (torch.Size([2, 3, 16, 16]), ('dog', 'fox'))
    """
    options = options or VisualizationOptions()
    if samples_per_class < 1:
        raise ValueError(f"samples_per_class={samples_per_class}: at least 1 image shows a class.")
    with isolated(model):
        probe = _probe(model, input_spec)
        logits = plain_forward(model, [OUTPUT])(probe)[OUTPUT]
        if logits.ndim != 2:
            raise ValueError(f"The model returns {tuple(logits.shape)}: a classifier's output is (N, classes).")
        indices = _class_indices(classes, logits.shape[1], input_spec)
        targets = [index for index in indices for _ in range(samples_per_class)]
        objective = wanted = class_logit(targets)
        if samples_per_class > 1 and options.diversity > 0:
            layer = options.diversity_layer or _diversity_layer(model, probe)
            wanted = diversify(objective, layer, samples_per_class, options.diversity)
        keys = [("class", index, sample) for index in indices for sample in range(samples_per_class)]
        recipe = _recipe(model, preset, steps, input_spec, options)
        batch = _batch(seed, keys, options, samples_per_class)
        optimized = optimize(model, wanted, recipe, batch, input_spec=input_spec)
        scores, outputs = _on_clean_image(model, objective, optimized.images, input_spec, options.chunk)
    probabilities = outputs.softmax(1)[torch.arange(len(targets)), torch.tensor(targets)]
    reached = probabilities >= REACHED_PROBABILITY
    labels = [input_spec.class_name(target) for target in targets]
    return _result(optimized, labels, targets, scores, probabilities=probabilities, reached=reached)


def maximize_activation(
    model: nn.Module,
    layer: str,
    channels: Sequence[int] | Tensor | None,
    *,
    input_spec: InputSpec,
    positions: Sequence[tuple[int, int]] | Literal["center"] | None = None,
    preset: Preset | Recipe = "fourier",
    steps: int | None = None,
    seed: int = 0,
    options: VisualizationOptions | None = None,
) -> Visualizations:
    """Makes the images that channels, neurons, directions or a whole layer respond to most (Erhan et al. 2009).

    Args:
        model: The network. Left as it was.
        layer: Dotted name of a module, as a rule a rectified convolution or a fully connected layer.
        channels: Channel numbers, one image each; or directions in the layer's channel space, a float tensor
            ``(N, C)`` (`directions_between` makes those between two); or None for one image of the whole layer.
        input_spec: The network's input.
        positions: Row and column of one neuron in each channel's map, or ``"center"``; None takes the mean of the map.
        preset: As for `visualize_classes`.
        steps: Number of steps; None takes the recipe's.
        seed: Of all random numbers.
        options: See `VisualizationOptions`.

    Returns:
        One image a channel, direction or layer.

    Raises:
        LayerError: If the layer is not there.
        ValueError: If a channel or a position is out of range.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        >>> shown = maximize_activation(net, "1", [0, 3], input_spec=InputSpec(size=(16, 16)), steps=4)
        >>> shown.labels
        ('1 #0', '1 #3')
    """
    options = options or VisualizationOptions()
    with isolated(model):
        activations = plain_forward(model, [layer])(_probe(model, input_spec))[layer]
        objective, labels, targets = _unit_objective(layer, activations, channels, positions)
        recipe = _recipe(model, preset, steps, input_spec, options)
        batch = _batch(seed, [("unit", label) for label in labels], options, group=1)
        optimized = optimize(model, objective, recipe, batch, input_spec=input_spec)
        scores, _ = _on_clean_image(model, objective, optimized.images, input_spec, options.chunk)
    tenth = max(1, recipe.steps // 10)
    late, end = optimized.losses[:, -2 * tenth : -tenth].mean(1), optimized.losses[:, -tenth:].mean(1)
    gain = optimized.losses[:, 0] - end
    reached = (scores > 0) & (late - end < 0.02 * gain)
    return _result(optimized, labels, targets, scores, probabilities=None, reached=reached)


def _class_indices(classes: Sequence[int | str], count: int, input_spec: InputSpec) -> list[int]:
    if isinstance(classes, str) or len(classes) == 0:
        raise ValueError(f"classes={classes!r}: give a sequence of at least one class index or name.")
    indices = []
    for wanted in classes:
        if isinstance(wanted, str):
            names = input_spec.class_names
            if wanted not in names:
                near = difflib.get_close_matches(wanted, names, n=3)
                known = ", ".join(map(repr, near or names[:10])) or "none: give input_spec.class_names, or indices"
                raise ValueError(f"There is no class named {wanted!r}. Known names: {known}.")
            indices.append(names.index(wanted))
        elif 0 <= int(wanted) < count:
            indices.append(int(wanted))
        else:
            raise ValueError(f"Class {wanted} is out of range: the model has classes 0 to {count - 1}.")
    return indices


def _unit_objective(
    layer: str,
    activations: Tensor,
    channels: Sequence[int] | Tensor | None,
    positions: Sequence[tuple[int, int]] | Literal["center"] | None,
) -> tuple[Objective, list[str], list[int]]:
    """The objective, the label of each image and its channel."""
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
        raise ValueError("channels is empty: name at least one, or None for the whole layer.")
    for number in numbers:
        if not 0 <= number < count:
            raise ValueError(f"Channel {number} is out of range: layer {layer!r} has channels 0 to {count - 1}.")
    if positions is None:
        return channel(layer, numbers), [f"{layer} #{number}" for number in numbers], numbers
    if positions == "center":
        return neuron(layer, numbers), [f"{layer} #{number} centre" for number in numbers], numbers
    height, width = activations.shape[-2:] if activations.ndim == 4 else (0, 0)
    for row, column in positions:
        if activations.ndim == 4 and not (0 <= row < height and 0 <= column < width):
            raise ValueError(f"Position {(row, column)} is outside the {height}×{width} map of layer {layer!r}.")
    objective = neuron(layer, numbers, positions)
    places = zip(numbers, positions, strict=True)
    return objective, [f"{layer} #{number} at {row}, {column}" for number, (row, column) in places], numbers


def _recipe(
    model: nn.Module,
    preset: Preset | Recipe,
    steps: int | None,
    input_spec: InputSpec,
    options: VisualizationOptions,
) -> Recipe:
    if isinstance(preset, Recipe):
        return preset if steps is None else with_steps(preset, steps)
    recipe = preset_recipe(
        preset,
        input_spec,
        steps=steps,
        statistics=options.statistics,
        coarse=preset == "fourier" and _takes_smaller_inputs(model, input_spec),
    )
    return replace(recipe, precision=options.precision)


def _batch(seed: int, keys: Sequence[object], options: VisualizationOptions, group: int) -> Batch:
    return Batch(image_seeds(seed, *keys), size=options.size, group=group, chunk=options.chunk, frames=options.frames)


def _probe(model: nn.Module, input_spec: InputSpec) -> Tensor:
    parameter = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    return torch.zeros(1, *input_spec.shape, dtype=parameter.dtype, device=parameter.device)


def _takes_smaller_inputs(model: nn.Module, input_spec: InputSpec) -> bool:
    """Whether a smaller image goes through the whole network."""
    height, width = (round(side * _COARSEST) for side in input_spec.size)
    if min(height, width) < _SMALLEST_COARSE_INPUT:
        return False
    probe = _probe(model, input_spec)
    with torch.no_grad():
        try:
            model(probe[:, :, :height, :width])
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError):
            # a fully connected layer made for one size; nothing else differs from the pass that went well before
            return False
    return True


def _diversity_layer(model: nn.Module, probe: Tensor) -> str:
    calls, rectified = trace_layers(model, probe)
    with_maps = [n for n in rectified if len(calls[n].shape) == 3 and min(calls[n].shape[1:]) > 1]
    if not with_maps:
        raise ValueError("No convolution with maps was found for the diversity term: name a diversity_layer.")
    return with_maps[(3 * len(with_maps)) // 4 - (len(with_maps) > 1)]


def _on_clean_image(
    model: nn.Module, objective: Objective, images: Tensor, input_spec: InputSpec, chunk: int
) -> tuple[Tensor, Tensor]:
    """Scores ``(N,)`` and the recorded layer ``(N, ...)`` for the pictures as a person sees them."""
    (layer,) = objective.layers
    forward, probe = plain_forward(model, [layer]), _probe(model, input_spec)

    def work(part: slice) -> tuple[Tensor, Tensor]:
        inputs = input_spec.normalize(resize(images[part].clamp(0, 1), input_spec.size))
        with torch.no_grad():
            recorded = {layer: forward(inputs.to(probe))[layer].to(images.dtype)}
            return -objective.bind(part, images.device)(recorded), recorded[layer]

    scores, outputs = zip(*in_chunks(work, len(images), chunk), strict=True)
    return torch.cat(scores), torch.cat(outputs)


def _result(
    optimized: Optimized,
    labels: Sequence[str],
    targets: Sequence[int],
    scores: Tensor,
    *,
    probabilities: Tensor | None,
    reached: Tensor,
) -> Visualizations:
    states: list[State] = [
        "reached" if good else "dead" if dead else "not converged"
        for good, dead in zip(reached.tolist(), optimized.dead.tolist(), strict=True)
    ]
    return Visualizations(
        images=optimized.images.clamp(0, 1),
        labels=tuple(labels),
        targets=tuple(targets),
        scores=scores,
        probabilities=probabilities,
        states=tuple(states),
        rescued=optimized.rescued,
        losses=optimized.losses,
        frames=optimized.frames.clamp(0, 1),
    )
