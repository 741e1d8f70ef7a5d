"""Class visualisation: images that a classifier assigns to its classes.

Simonyan et al. 2013 (arXiv 1312.6034), Yosinski et al. 2015 (arXiv 1506.06579), Olah et al. 2017
(https://doi.org/10.23915/distill.00007).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from lightning_cnnvis.functional.network.forward import OUTPUT, blank_input, plain_forward
from lightning_cnnvis.functional.network.output import class_indices, read_output
from lightning_cnnvis.functional.optimization.loop import optimize
from lightning_cnnvis.functional.optimization.objectives import class_log_probability, class_logit, diversify
from lightning_cnnvis.functional.optimization.recipes import Recipe
from lightning_cnnvis.functional.visualization.judging import Judge, bench_of
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
from lightning_cnnvis.layers import trace_layers

REACHED_PROBABILITY = 0.9
"""A class counts as reached at this probability on the clean image."""


def visualize_classes(
    model: nn.Module,
    classes: Sequence[int | str],
    *,
    input_spec: InputSpec,
    samples_per_class: int = 1,
    preset: str | Recipe = "fourier",
    steps: int | None = None,
    seed: int = 0,
    options: VisualizationOptions | None = None,
    judges: Sequence[Judge | nn.Module] = (),
) -> Visualizations:
    """Makes images that a classifier assigns to its classes, by raising their logits.

    An image depends only on the seed, its class and the number of its sample, whichever other classes are requested.
    With several samples, the samples of one class also depend on each other, through the diversity term.

    Args:
        model: A classifier that returns logits ``(N, classes)``, or what ``input_spec.output_kind`` says, by itself or
            in a tuple or mapping. Left as it was.
        classes: Indices, or names from ``input_spec.class_names``.
        input_spec: The network's input.
        samples_per_class: Number of images of each class.
        preset: ``"fourier"``, ``"yosinski2015"``, ``"simonyan2013"``, ``"none"`` or another name registered in
            `PRESETS`, see `preset_recipe`; or a recipe of your own.
        steps: Number of steps; None takes the recipe's.
        seed: Seed of all random numbers.
        options: Advanced options.
        judges: Other networks with the same classes, which say of each image whether they see its class, too; see
            `judge_images`.

    Returns:
        ``len(classes) * samples_per_class`` images, the samples of a class one after the other.

    Raises:
        LayerError: If ``options.diversity_layer`` does not exist or has no maps.
        ValueError: If a class is out of range or unknown, a number is not positive, there is no preset of the name, or
            the model's output is not ``(N, classes)``; or if a judge tells other classes apart.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> spec = InputSpec(size=(16, 16), class_names=("cat", "dog", "emu", "fox"))
        >>> shown = visualize_classes(net, ["dog", 3], input_spec=spec, steps=4)
        >>> shown.images.shape, shown.labels
        (torch.Size([2, 3, 16, 16]), ('dog', 'fox'))
    """
    options = options or VisualizationOptions()
    if samples_per_class < 1:
        raise ValueError(
            f"samples_per_class={samples_per_class} is not positive. Give at least 1 image for each class."
        )
    with isolated(model) as network:
        probe = blank_input(network, input_spec)
        output = read_output(network, input_spec, probe)
        if output is None:
            shape = tuple(plain_forward(network, [OUTPUT])(probe)[OUTPUT].shape)
            raise ValueError(
                f"The model's output has shape {shape}, but a classifier's output is (N, classes). Use "
                "maximize_activation for other networks."
            )
        indices = class_indices(classes, output.count, input_spec)
        bench = bench_of(judges, input_spec, output.count) if judges else None
        targets = [index for index in indices for _ in range(samples_per_class)]
        objective = class_logit(targets, output)
        recipe = recipe_for(network, preset, steps, input_spec, options)
        wanted = class_log_probability(targets, output) if recipe.class_score == "log_probability" else objective
        if samples_per_class > 1 and options.diversity > 0:
            layer = options.diversity_layer or _diversity_layer(network, probe)
            wanted = diversify(objective, layer, samples_per_class, options.diversity)
        keys = [("class", index, sample) for index in indices for sample in range(samples_per_class)]
        batch = batch_for(seed, keys, options, samples_per_class)
        optimized = optimize(network, wanted, recipe, batch, input_spec=input_spec)
        scores, outputs = on_clean_image(network, objective, optimized.images, input_spec, options.chunk)
    probabilities = output.probabilities(outputs)[
        torch.arange(len(targets), device=outputs.device), torch.tensor(targets, device=outputs.device)
    ]
    reached = probabilities >= REACHED_PROBABILITY
    labels = [input_spec.class_name(target) for target in targets]
    shown = visualizations(
        optimized,
        labels,
        targets,
        scores,
        probabilities=probabilities,
        reached=reached,
        score_name=output.score,
    )
    return shown if bench is None else replace(shown, verdicts=bench.verdicts(shown.images, targets))


def _diversity_layer(model: nn.Module, probe: Tensor) -> str:
    calls, rectified = trace_layers(model, probe)
    with_maps = [n for n in rectified if len(calls[n].shape) == 3 and min(calls[n].shape[1:]) > 1]
    if not with_maps:
        raise ValueError("No convolution with maps was found for the diversity term. Name a diversity_layer.")
    return with_maps[(3 * len(with_maps)) // 4 - (len(with_maps) > 1)]
