"""Class visualisation: images that a classifier assigns to its classes.

Simonyan et al. 2013 (arXiv 1312.6034), Yosinski et al. 2015 (arXiv 1506.06579), Olah et al. 2017
(https://doi.org/10.23915/distill.00007).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_cnnvis.functional.network.chunks import in_chunks
from lightning_cnnvis.functional.network.forward import OUTPUT, blank_input, plain_forward
from lightning_cnnvis.functional.network.output import ClassOutput, class_indices, read_output
from lightning_cnnvis.functional.optimization.gradients import model_gradient
from lightning_cnnvis.functional.optimization.loop import Optimized, optimize
from lightning_cnnvis.functional.optimization.objectives import (
    Objective,
    class_log_probability,
    class_logit,
    class_margin,
    diversify,
)
from lightning_cnnvis.functional.optimization.recipes import ClassScore, Recipe, with_steps
from lightning_cnnvis.functional.optimization.transforms import resize
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
    """Makes images that a classifier assigns to its classes.

    What is raised is the recipe's `class_score`: in the default, the logit less half of the others' log-sum-exp. An
    image that does not reach its class is tried once more, where the recipe says by what means.

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

    Examples:
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
        recipe = recipe_for(network, preset, steps, input_spec, options)
        keys: list[tuple[object, ...]] = [("class", i, sample) for i in indices for sample in range(samples_per_class)]
        work = _Work(network, output, input_spec, options, seed)
        made = work.images(recipe, keys, targets, samples_per_class)
        missed = [n for n, probability in enumerate(made.probabilities.tolist()) if probability < REACHED_PROBABILITY]
        if recipe.otherwise is not None and missed:
            other = with_steps(recipe.otherwise, recipe.steps)
            again = work.images(other, [(*keys[n], "again") for n in missed], [targets[n] for n in missed])
            made = made.or_better(again, missed)
    labels = [input_spec.class_name(target) for target in targets]
    shown = visualizations(
        made.optimized,
        labels,
        targets,
        made.scores,
        probabilities=made.probabilities,
        reached=made.probabilities >= REACHED_PROBABILITY,
        score_name=output.score,
        means=made.means,
    )
    return shown if bench is None else replace(shown, verdicts=bench.verdicts(shown.images, targets))


@dataclass(frozen=True)
class _Made:
    """Images, and what became of their classes on the clean image.

    Attributes:
        optimized: The images.
        scores: ``(N,)``, their logits.
        probabilities: ``(N,)``.
        means: How they were made; empty for the first attempt.
    """

    optimized: Optimized
    scores: Tensor
    probabilities: Tensor
    means: tuple[str, ...]

    def or_better(self, others: _Made, rows: Sequence[int]) -> _Made:
        """Takes those of others, which were made in the place of some rows, that are more probable."""
        old, new = self.probabilities.tolist(), others.probabilities.tolist()
        taken = {row: n for n, row in enumerate(rows) if new[n] > old[row]}
        device = self.probabilities.device
        mine, theirs = (
            torch.tensor(list(places), dtype=torch.long, device=device) for places in (taken, taken.values())
        )

        def merged(first: Tensor | None, second: Tensor | None) -> Any:
            return (
                None if first is None or second is None else first.index_copy(0, mine, second.index_select(0, theirs))
            )

        means = [others.means[taken[row]] if row in taken else words for row, words in enumerate(self.means)]
        pairs = [(getattr(self.optimized, f.name), getattr(others.optimized, f.name)) for f in fields(Optimized)]
        return _Made(
            Optimized(*(merged(first, second) for first, second in pairs)),
            merged(self.scores, others.scores),
            merged(self.probabilities, others.probabilities),
            tuple(means),
        )


@dataclass(frozen=True)
class _Work:
    """What all attempts have in common."""

    network: nn.Module
    output: ClassOutput
    input_spec: InputSpec
    options: VisualizationOptions
    seed: int

    def images(self, recipe: Recipe, keys: Sequence[object], targets: Sequence[int], group: int | None = None) -> _Made:
        """Optimises images by a recipe; ``group`` is None for a second attempt, in which each is by itself."""
        options, logit = self.options, class_logit(targets, self.output)
        score = _SCORES[recipe.class_score](targets, self.output)
        if group is not None and group > 1 and options.diversity > 0:
            layer = options.diversity_layer or _diversity_layer(
                self.network, blank_input(self.network, self.input_spec)
            )
            # a log-probability tends to 0, and so would a part of it
            base = logit if recipe.class_score == "log_probability" else score
            score = diversify(base, layer, group, options.diversity)
        batch = batch_for(self.seed, keys, options, group or 1)
        optimized = optimize(self.network, score, recipe, batch, input_spec=self.input_spec)
        scores, outputs = on_clean_image(self.network, logit, optimized.images, self.input_spec, options.chunk)
        if recipe.class_score != "logit":  # whose gradient that of the other classes hides
            optimized = replace(optimized, dead=self._have_no_gradient(logit, optimized.images))
        rows = torch.arange(len(targets), device=outputs.device)
        probabilities = self.output.probabilities(outputs)[rows, torch.tensor(targets, device=outputs.device)]
        return _Made(optimized, scores, probabilities, ("" if group is not None else recipe.means,) * len(targets))

    def _have_no_gradient(self, logit: Objective, images: Tensor) -> Tensor:
        """Tells, ``(N,)``, in which images nothing that changes would change the logit."""

        def work(part: slice) -> Tensor:
            inputs = self.input_spec.normalize(resize(images[part].clamp(0, 1), self.input_spec.size))
            slopes = model_gradient(self.network, logit, part)(inputs, None)[1]
            return slopes.flatten(1).abs().amax(1) == 0

        return torch.cat(list(in_chunks(work, len(images), self.options.chunk)))


_SCORES: dict[ClassScore, Callable[[Sequence[int], ClassOutput], Objective]] = {
    "logit": class_logit,
    "margin": class_margin,
    "log_probability": class_log_probability,
}


def _diversity_layer(model: nn.Module, probe: Tensor) -> str:
    calls, rectified = trace_layers(model, probe)
    with_maps = [n for n in rectified if len(calls[n].shape) == 3 and min(calls[n].shape[1:]) > 1]
    if not with_maps:
        raise ValueError("No convolution with maps was found for the diversity term. Name a diversity_layer.")
    return with_maps[(3 * len(with_maps)) // 4 - (len(with_maps) > 1)]
