"""Common parts of class visualisation and activation maximisation: options, results, scores of the clean image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_cnnvis.functional.network.chunks import in_chunks, is_out_of_memory
from lightning_cnnvis.functional.network.forward import blank_input, model_options, plain_forward
from lightning_cnnvis.functional.optimization.loop import Batch, Optimized, image_seeds
from lightning_cnnvis.functional.optimization.objectives import Objective
from lightning_cnnvis.functional.optimization.parameterizations import ImageStatistics
from lightning_cnnvis.functional.optimization.recipes import Recipe, with_steps
from lightning_cnnvis.functional.optimization.transforms import resize
from lightning_cnnvis.functional.tensors import cat_fields
from lightning_cnnvis.functional.visualization.judging import Verdict
from lightning_cnnvis.functional.visualization.paths import PathSimilarity
from lightning_cnnvis.functional.visualization.presets import SMALLEST_COARSE_INPUT, preset_recipe
from lightning_cnnvis.inputs import InputSpec

State = Literal["reached", "not converged", "dead"]
"""How far an image got; see `Visualizations`."""

_TRIED_SIZES = (0.6, 1.25)


@dataclass(frozen=True)
class VisualizationOptions:
    """Advanced options of class visualisation and activation maximisation.

    Args:
        size: Height and width of the images; None takes the network's input size. Images of another size are
            resampled for the network.
        frames: Steps after which a copy of the images is kept; 0 is the start.
        statistics: Statistics of the images that ``"fourier"`` and ``"maco"`` make; None takes everyday photographs.
        diversity: Weight of the diversity term over the samples of a class; see `diversify`.
        diversity_layer: Layer of the features that should differ; None takes a convolution at about three quarters
            of the depth.
        chunk: Number of images that are optimised at a time; halved when memory runs out.
        precision: Precision of the network's passes, ``"float32"`` or ``"bfloat16"``; see `Recipe`.
        transparency: Whether the result has a mask of what the network cares about; see `Visualizations`.

    Raises:
        ValueError: If ``size`` is not a height and a width.

    Examples:
        >>> VisualizationOptions(size=(96, 96), frames=[0, 48, 96]).precision
        'float32'
    """

    size: tuple[int, int] | None = None
    frames: Sequence[int] = ()
    statistics: ImageStatistics | None = None
    diversity: float = 0.5
    diversity_layer: str | None = None
    chunk: int = 16
    precision: Literal["float32", "bfloat16"] = "float32"
    transparency: bool = False

    def __post_init__(self) -> None:
        """Checks the size."""
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1):
            raise ValueError(f"size={self.size} is not a height and a width of at least 1 pixel.")


@dataclass(frozen=True)
class Visualizations:
    """Optimised images, and how far each of them got.

    Attributes:
        images: ``(N, C, H, W)`` in [0, 1].
        labels: Target of each image in words: the class's name, or the layer and the unit.
        targets: Class or channel of each image; -1 for a whole layer or a direction.
        scores: ``(N,)``, the logit, log-probability or activation reached on the clean image: the picture itself at the
            network's input size, with no random moves.
        probabilities: ``(N,)`` in [0, 1], reached on the clean image; None if the target is not a class.
        peaks: ``(N,)``, the strongest activation anywhere in the channel's map on the clean image, or that of the
            requested neuron: comparable with the strongest activations on real images. None if the target is not a
            channel.
        states: ``"reached"``, ``"not converged"`` or ``"dead"``. A class is reached at probability 0.9 on the clean
            image; a unit, once its score is above 0 and the last tenth of the steps gained less than 2 %.
            An image is dead if its objective had no gradient even after the rescue.
        rescued: ``(N,)`` bool, whether gradients had to pass through dead ReLUs.
        losses: ``(N, steps)``, objective plus penalties before each step.
        frames: ``(N, F, C, H, W)`` in [0, 1], after the F requested steps.
        score_name: What the scores are: ``"logit"``, ``"log-probability"`` or ``"activation"``.
        transparency: ``(N, H, W)`` in [0, 1], how opaque each pixel is: how strongly the steps pulled at it, as a
            fraction of the image's 80th percentile, and 1 above (Fel et al. 2023, arXiv 2306.06805). None if not
            requested.
        paths: For each image its class's `PathSimilarity`, in which it is the one image; None where there were no real
            images. None if it was not asked for.
        verdicts: For each image what other networks say of it; None if none were asked.
        means: For each image of a class how it was made, if the first attempt did not reach the class and the second
            came nearer; empty for those of the first attempt. None if the target is not a class.
    """

    images: Tensor
    labels: tuple[str, ...]
    targets: tuple[int, ...]
    scores: Tensor
    probabilities: Tensor | None
    peaks: Tensor | None
    states: tuple[State, ...]
    rescued: Tensor
    losses: Tensor
    frames: Tensor
    score_name: str = "activation"
    transparency: Tensor | None = None
    paths: tuple[PathSimilarity | None, ...] | None = None
    verdicts: tuple[Verdict, ...] | None = None
    means: tuple[str, ...] | None = None

    @property
    def with_alpha(self) -> Tensor:
        """The images with their transparency as a last channel, ``(N, C + 1, H, W)`` in [0, 1].

        Raises:
            ValueError: If there is no transparency.
        """
        if self.transparency is None:
            raise ValueError("There is no transparency: ask for it by transparency=True.")
        return torch.cat([self.images, self.transparency[:, None]], 1)

    @staticmethod
    def cat(parts: Sequence[Visualizations]) -> Visualizations:
        """Joins the images of several results, at least one, made with the same number of steps and frames.

        Args:
            parts: Results of shares of the classes or units.

        Returns:
            All images, in order.
        """
        return cat_fields(parts, shared=["score_name"])


def frame_steps(steps: int, count: int = 7) -> list[int]:
    """Chooses steps after which to keep an image, to show how it forms: the start, the end, and halvings between.

    Args:
        steps: Number of steps of the optimisation.
        count: Largest number of frames.

    Returns:
        The steps, ascending, from 0 to ``steps``.

    Examples:
        >>> frame_steps(88), frame_steps(3)
        ([0, 2, 5, 11, 22, 44, 88], [0, 1, 3])
    """
    halvings = {steps // 2**n for n in range(count - 1)}
    return sorted({0, *halvings})


def recipe_for(
    model: nn.Module,
    preset: str | Recipe,
    steps: int | None,
    input_spec: InputSpec,
    options: VisualizationOptions,
) -> Recipe:
    """Makes the recipe of a preset with the options applied; one of the user's own keeps its precision.

    Args:
        model: The network, isolated.
        preset: A preset's name, or a recipe.
        steps: Number of steps; None takes the recipe's own.
        input_spec: The network's input.
        options: The options.

    Returns:
        The recipe.

    Raises:
        ValueError: If there is no preset of the name, ``steps`` is not positive, or the statistics are of images with
            another number of channels.
    """
    if options.statistics is not None and len(options.statistics.mean) != input_spec.channels:
        raise ValueError(
            f"statistics are of images with {len(options.statistics.mean)} channels, and the network's input has "
            f"{input_spec.channels}. Measure images of as many channels."
        )
    if isinstance(preset, Recipe):
        return preset if steps is None else with_steps(preset, steps)
    recipe = preset_recipe(
        preset,
        input_spec,
        steps=steps,
        statistics=options.statistics,
        any_size=_takes_any_size(model, input_spec),
    )
    return replace(recipe, precision=options.precision)


def batch_for(seed: int, keys: Sequence[object], options: VisualizationOptions, group: int) -> Batch:
    """Makes the batch of images to optimise, each with a seed of its key.

    Args:
        seed: The run's seed.
        keys: One value for each image whose ``repr`` identifies it.
        options: The options.
        group: Number of consecutive images that may depend on each other.

    Returns:
        The batch.
    """
    return Batch(
        image_seeds(seed, *keys),
        size=options.size,
        group=group,
        chunk=options.chunk,
        frames=options.frames,
        transparency=options.transparency,
    )


def on_clean_image(
    model: nn.Module, objective: Objective, images: Tensor, input_spec: InputSpec, chunk: int
) -> tuple[Tensor, Tensor]:
    """Scores the images as a person sees them: at the network's input size, with no random moves.

    Args:
        model: The network, isolated.
        objective: The objective, of one layer.
        images: ``(N, C, H, W)``; clipped to [0, 1] first.
        input_spec: The network's input.
        chunk: Number of images in a forward pass.

    Returns:
        Scores ``(N,)``, minus the losses, and the layer's outputs ``(N, ...)``.
    """
    (layer,) = objective.layers
    forward, probe = plain_forward(model, [layer]), model_options(model)

    def work(part: slice) -> tuple[Tensor, Tensor]:
        inputs = input_spec.normalize(resize(images[part].clamp(0, 1), input_spec.size))
        with torch.no_grad():
            recorded = {layer: forward(inputs.to(probe))[layer].to(images.dtype)}
            return -objective.bind(part, images.device)(recorded), recorded[layer]

    scores, outputs = zip(*in_chunks(work, len(images), chunk), strict=True)
    return torch.cat(scores), torch.cat(outputs)


def visualizations(
    optimized: Optimized,
    labels: Sequence[str],
    targets: Sequence[int],
    scores: Tensor,
    *,
    reached: Tensor,
    probabilities: Tensor | None = None,
    peaks: Tensor | None = None,
    score_name: str = "activation",
    means: tuple[str, ...] | None = None,
) -> Visualizations:
    """Assembles the result, with a state for each image.

    Args:
        optimized: The optimised images, N of them.
        labels: Target of each image in words.
        targets: Class or channel of each image; -1 if it has none.
        scores: ``(N,)``, reached on the clean image.
        reached: ``(N,)`` bool, whether the target was reached.
        probabilities: ``(N,)``, reached on the clean image, for classes.
        peaks: ``(N,)``, the strongest activation on the clean image, for channels.
        score_name: What the scores are.
        means: How each image was made, if by a second attempt, for classes.

    Returns:
        The result; images and frames are clipped to [0, 1].
    """
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
        peaks=peaks,
        states=tuple(states),
        rescued=optimized.rescued,
        losses=optimized.losses,
        frames=optimized.frames.clamp(0, 1),
        score_name=score_name,
        transparency=None if optimized.transparency is None else opacity(optimized.transparency),
        means=means,
    )


def opacity(pull: Tensor, percentile: float = 80.0) -> Tensor:
    """Turns how strongly the steps pulled at each pixel into how opaque it is drawn.

    Args:
        pull: ``(N, H, W)``, not negative.
        percentile: Percentile of an image's pixels above which they are opaque, from 0 to 100.

    Returns:
        ``(N, H, W)`` in [0, 1]; 0 for an image that nothing pulled at.

    Examples:
        >>> opacity(torch.tensor([[[0.0, 1.0], [2.0, 4.0]]]), percentile=75)
        tensor([[[0.0000, 0.5000],
                 [1.0000, 1.0000]]])
    """
    rank = max(1, round(percentile / 100 * pull[0].numel()))
    top = pull.flatten(1).kthvalue(rank, dim=1).values.view(-1, 1, 1)
    # more than a fifth of the pixels may have been pulled at equally, or not at all
    top = torch.where(top > 0, top, pull.flatten(1).amax(1).view(-1, 1, 1))
    return (pull / top.clamp_min(torch.finfo(pull.dtype).tiny)).clamp(max=1)


def _takes_any_size(model: nn.Module, input_spec: InputSpec) -> bool:
    """Tries whether smaller and larger images go through the whole network."""
    for scale in _TRIED_SIZES:
        height, width = (round(side * scale) for side in input_spec.size)
        if scale < 1 and min(height, width) < SMALLEST_COARSE_INPUT:
            continue
        probe = blank_input(model, replace(input_spec, size=(height, width)))
        with torch.no_grad():
            try:
                model(probe)
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                # such as at a fully connected layer made for one size, or a check of the network's own
                return False
    return True
