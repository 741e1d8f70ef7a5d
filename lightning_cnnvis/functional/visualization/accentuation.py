"""Accentuation: what a class, a unit or a layer sees in a photograph, brought out without leaving the photograph.

Hamblin et al. 2024 (arXiv 2402.10039).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from lightning_cnnvis.functional.network.forward import OUTPUT, Forward, blank_input, model_options, plain_forward
from lightning_cnnvis.functional.network.output import class_indices, read_output
from lightning_cnnvis.functional.network.tracing import check_calls
from lightning_cnnvis.functional.optimization.gradients import model_gradient
from lightning_cnnvis.functional.optimization.loop import Batch, image_seeds, optimize
from lightning_cnnvis.functional.optimization.objectives import Loss, Objective, class_logit, class_margin
from lightning_cnnvis.functional.optimization.optimizers import Nadam
from lightning_cnnvis.functional.optimization.parameterizations import Fourier
from lightning_cnnvis.functional.optimization.recipes import Phase, Recipe
from lightning_cnnvis.functional.optimization.transforms import RandomAffine, resize
from lightning_cnnvis.functional.tensors import cat_fields
from lightning_cnnvis.functional.visualization.results import on_clean_image
from lightning_cnnvis.functional.visualization.units import unit_objective
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.isolation import isolated
from lightning_cnnvis.layers import LayerError, trace_layers

_RATE = 0.05
_MOVES = RandomAffine(jitter=0.05, scale=(0.9, 1.1), rotate=5.0)
_SHARE = 0.1  # of what a straight way would gain, which the distance weighs against


@dataclass(frozen=True, eq=False)
class Accentuations:
    """One photograph, changed towards each of N targets.

    Attributes:
        photographs: ``(N, C, H, W)`` in [0, 1], the photograph for each target.
        images: ``(N, C, H, W)`` in [0, 1].
        labels: Each target in words: the class's name, the layer and the unit, or the layer.
        before: ``(N,)``, what is raised on the photograph: a class's logit, or its log-probability if the network
            returns probabilities; a unit's mean activation; half of a layer's sum of squares.
        after: ``(N,)``, the same on the image.
        probabilities: ``(N, 2)`` in [0, 1], a class's probability before and after; NaN for other targets.
        distances: ``(N,)``, how far the features of ``kept_at`` went from the photograph's, over their norm.
        kept_at: For each target, the layer whose features are kept near the photograph's.
    """

    photographs: Tensor
    images: Tensor
    labels: tuple[str, ...]
    before: Tensor
    after: Tensor
    probabilities: Tensor
    distances: Tensor
    kept_at: tuple[str, ...]

    @property
    def changes(self) -> Tensor:
        """What was added, ``(N, C, H, W)`` around 0.5: the difference, so that its largest value is black or white."""
        difference = self.images - self.photographs
        largest = difference.flatten(1).abs().amax(1).view(-1, 1, 1, 1)
        return 0.5 + 0.5 * difference / largest.clamp_min(1 / 255)

    @staticmethod
    def cat(parts: Sequence[Accentuations]) -> Accentuations:
        """Joins the targets of several results, at least one.

        Args:
            parts: Results for one size of photographs.

        Returns:
            All targets, in order.
        """
        return cat_fields(parts)


def accentuate(
    model: nn.Module,
    photograph: Tensor,
    *,
    input_spec: InputSpec,
    classes: Sequence[int | str] | None = None,
    layer: str | None = None,
    channels: Sequence[int] | None = None,
    weight: float = 1.0,
    keep: str | None = None,
    steps: int = 64,
    seed: int = 0,
) -> Accentuations:
    """Changes a photograph so that classes, units or a layer see more of themselves in it, and it stays what it was.

    After Hamblin et al. 2024. The photograph is the start, in the Fourier basis of class visualisation, seen through
    small random moves; a target's score is raised, and the squared relative distance of early features to the
    photograph's is lowered. The score is measured by a tenth of what a straight way along its first gradient would
    gain, so that one ``weight`` suits logits, activations and energies.

    What differs from the source: there, the magnitudes of the spectrum are fixed and the phases alone change, which
    moves things all over the photograph (`OwnMagnitude` is that parameterisation), and crops take the place of the
    moves.

    Args:
        model: The network. Left as it was.
        photograph: ``(C, H, W)`` in [0, 1], of any size; the network sees it at its input size.
        input_spec: The network's input.
        classes: Classes, by index or name; one image for each.
        layer: Dotted name of a layer, in the place of classes.
        channels: Channels of the layer, one image for each; None accentuates all of the layer in one image.
        weight: Weight of the distance; 0 lets go of the photograph.
        keep: Layer of the features that are to stay; a rectified convolution at a quarter of the depth if None.
        steps: Number of steps.
        seed: Seed of the moves.

    Returns:
        An image for each target. One whose score has no gradient, such as a dead unit's, is the photograph.

    Raises:
        LayerError: If a layer does not exist, or has no channels.
        ValueError: If not exactly one of ``classes`` and ``layer`` is given, a class or channel is out of range, a
            number is out of its range, the photograph is not ``(C, H, W)`` in [0, 1] of the network's channels, or
            classes are asked for and the model is not a classifier.

    Examples:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> photograph = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> found = accentuate(net, photograph, input_spec=InputSpec(size=(16, 16)), classes=[0, 3], steps=4)
        >>> found.images.shape, found.labels
        (torch.Size([2, 3, 16, 16]), ('0', '3'))
    """
    _check(photograph, input_spec, classes, layer, channels, weight, steps)
    with isolated(model) as network:
        for parameter in network.parameters():
            parameter.requires_grad_(False)
        blank = blank_input(network, input_spec)
        kept_at = keep or _early_layer(network, blank)
        if layer is None:
            objective, shown, labels, probability = _of_classes(network, blank, classes or (), input_spec)
        else:
            check_calls(network, [layer], blank)
            activations = plain_forward(network, [layer])(blank)[layer]
            objective, labels, _ = unit_objective(layer, activations, channels)
            shown, probability = objective, None
        like = model_options(network)
        one = photograph.detach()[None].to(like.device, torch.promote_types(like.dtype, torch.float32))
        distance = _FeatureDistance(plain_forward(network, [kept_at]), kept_at, input_spec, one, weight, like)
        parameterization, count = Fourier(), len(labels)
        starts = one.expand(count, -1, -1, -1)
        gains = _straight_gains(network, objective, parameterization, starts, input_spec) * _RATE * steps * _SHARE
        recipe = Recipe(
            phases=(Phase(steps, _RATE, final_lr=_RATE / 10, transform=_MOVES),),
            parameterization=parameterization,
            optimizer=Nadam(),
            regularizers=(distance,),
            rescue=False,
        )
        batch = Batch(image_seeds(seed, *[("accentuate", label) for label in labels]), starts=starts)
        made = optimize(network, _divided(objective, gains), recipe, batch, input_spec=input_spec).images.clamp(0, 1)
        images = torch.where(gains.view(-1, 1, 1, 1) > 0, made, starts)
        before, first = on_clean_image(network, shown, starts, input_spec, batch.chunk)
        after, last = on_clean_image(network, shown, images, input_spec, batch.chunk)
        with torch.no_grad():
            distances = torch.cat([distance.relative(image[None]) for image in images])
    unknown = before.new_full((count, 2), torch.nan)
    probabilities = unknown if probability is None else torch.stack([probability(first), probability(last)], 1)
    return Accentuations(starts, images, tuple(labels), before, after, probabilities, distances, (kept_at,) * count)


def _check(
    photograph: Tensor,
    input_spec: InputSpec,
    classes: Sequence[int | str] | None,
    layer: str | None,
    channels: Sequence[int] | None,
    weight: float,
    steps: int,
) -> None:
    if photograph.ndim != 3 or photograph.shape[0] != input_spec.channels or min(photograph.shape) < 1:
        raise ValueError(
            f"photograph of shape {tuple(photograph.shape)}: give one, (C, H, W), with {input_spec.channels} channels."
        )
    if not bool(((photograph >= 0) & (photograph <= 1)).all()):
        raise ValueError("The photograph has values outside of [0, 1]. Give it as it is, and not normalised.")
    if (classes is None) == (layer is None):
        raise ValueError(f"classes={classes}, layer={layer!r}: give one of the two, the classes or the layer.")
    if channels is not None and layer is None:
        raise ValueError(f"channels={list(channels)} requires layer, the layer that they belong to.")
    if not 0 <= weight < float("inf"):
        raise ValueError(f"weight={weight} must be 0 or more.")
    if steps < 1:
        raise ValueError(f"steps={steps} must be at least 1.")


def _of_classes(
    network: nn.Module, blank: Tensor, classes: Sequence[int | str], input_spec: InputSpec
) -> tuple[Objective, Objective, list[str], Callable[[Tensor], Tensor]]:
    """What is raised of classes, the logit that is shown, their names, and how to read their probabilities."""
    output = read_output(network, input_spec, blank)
    if output is None:
        shape = tuple(plain_forward(network, [OUTPUT])(blank)[OUTPUT].shape)
        raise ValueError(
            f"The model's output has shape {shape}, but a classifier's output is (N, classes). Name a layer instead."
        )
    indices = class_indices(classes, output.count, input_spec)

    def probability(outputs: Tensor) -> Tensor:
        every = output.probabilities(outputs)
        rows = torch.arange(len(indices), device=every.device)
        return every[rows, torch.tensor(indices, device=every.device)]

    labels = [input_spec.class_name(index) for index in indices]
    return class_margin(indices, output), class_logit(indices, output), labels, probability


def _early_layer(network: nn.Module, blank: Tensor) -> str:
    """A rectified convolution at a quarter of the depth."""
    calls, rectified = trace_layers(network, blank)
    with_maps = [name for name in rectified if len(calls[name].shape) == 3]
    if not with_maps:
        raise LayerError("No rectified convolution was found to keep the photograph by. Name a layer: keep=...")
    return with_maps[len(with_maps) // 4]


@dataclass(frozen=True, eq=False)
class _FeatureDistance:
    """The penalty on leaving a photograph: the squared distance of a layer's features, relative to the photograph's.

    ``like`` has the device and dtype of the network.
    """

    forward: Forward
    layer: str
    input_spec: InputSpec
    photograph: Tensor
    weight: float
    like: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        if not self.weight:
            return images.new_zeros(len(images))
        return self.weight * self.squared(images)

    def relative(self, images: Tensor) -> Tensor:
        """The distance itself, ``(N,)``."""
        return self.squared(images).sqrt()

    def squared(self, images: Tensor) -> Tensor:
        """The squared distance, ``(N,)``."""
        difference = (self._features(images) - self._kept).flatten(1).square().sum(1)
        return difference / self._kept.square().sum().clamp_min(torch.finfo(images.dtype).tiny)

    def _features(self, images: Tensor) -> Tensor:
        inputs = self.input_spec.normalize(resize(images, self.input_spec.size))
        features: Tensor = self.forward(inputs.to(self.like))[self.layer]
        return features.to(images.dtype)

    @cached_property
    def _kept(self) -> Tensor:
        with torch.no_grad():
            return self._features(self.photograph)


def _straight_gains(
    network: nn.Module, objective: Objective, parameterization: Fourier, starts: Tensor, input_spec: InputSpec
) -> Tensor:
    """What each score would gain by a step of 1 in every parameter along its first gradient's signs, ``(N,)``."""
    gains = []
    for n, start in enumerate(starts):
        params = parameterization.encode(start[None]).detach().requires_grad_()
        pictures = parameterization.decode(params, (start.shape[1], start.shape[2]))
        inputs = input_spec.normalize(resize(pictures, input_spec.size))
        slope = model_gradient(network, objective, slice(n, n + 1))(inputs.detach(), None)[1]
        (gradient,) = torch.autograd.grad(inputs, params, slope)
        gains.append(gradient.abs().sum())
    return torch.stack(gains).to(starts)


def _divided(objective: Objective, scales: Tensor) -> Objective:
    """The objective over a positive number for each image; an image whose number is 0 has none."""

    def bind(part: slice, device: torch.device) -> Loss:
        loss, own = objective.bind(part, device), scales[part].to(device)

        def divided(recorded: Mapping[str, Tensor]) -> Tensor:
            return torch.where(own > 0, loss(recorded) / own.clamp_min(torch.finfo(own.dtype).tiny), 0.0)

        return divided

    return Objective(objective.layers, bind)
