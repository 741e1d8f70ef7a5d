"""What is to be made strong: losses of one number an image, on recorded activations.

An objective names the layers that it reads, and is bound to a part of the images before use, so that images can be
optimised in chunks. Objectives add up and scale: ``class_logit([3, 7]) + 0.5 * channel("conv5", [1, 2])``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cnnvis.functional.network.forward import OUTPUT
from lightning_cnnvis.layers import LayerError

Loss = Callable[[Mapping[str, Tensor]], Tensor]
"""Recorded activations, layer -> ``(N, ...)`` -> losses ``(N,)``; loss i depends on row i alone."""


@dataclass(frozen=True)
class Objective:
    """A loss for each of many images.

    Args:
        layers: Dotted names of the modules whose outputs are read; `OUTPUT` is the model's output.
        bind: Takes the part of the images that a batch holds, and the device; returns their loss.
    """

    layers: tuple[str, ...]
    bind: Callable[[slice, torch.device], Loss]

    def __add__(self, other: Objective) -> Objective:
        """The sum of both losses."""

        def bind(part: slice, device: torch.device) -> Loss:
            first, second = self.bind(part, device), other.bind(part, device)
            return lambda recorded: first(recorded) + second(recorded)

        return Objective(tuple(dict.fromkeys(self.layers + other.layers)), bind)

    def __mul__(self, factor: float) -> Objective:
        """The loss times a number."""

        def bind(part: slice, device: torch.device) -> Loss:
            loss = self.bind(part, device)
            return lambda recorded: factor * loss(recorded)

        return Objective(self.layers, bind)

    __rmul__ = __mul__


def _per_image(targets: Tensor, layer: str, score: Callable[[Tensor, Tensor], Tensor]) -> Objective:
    """Minus the score of a layer's activations ``(N, ...)`` and the images' targets ``(N, ...)``."""

    def bind(part: slice, device: torch.device) -> Loss:
        mine = targets[part].to(device)
        return lambda recorded: -score(recorded[layer], mine)

    return Objective((layer,), bind)


def _rows(activations: Tensor) -> Tensor:
    return torch.arange(len(activations), device=activations.device)


def class_logit(classes: Sequence[int]) -> Objective:
    """The logit of a class, before softmax (Simonyan et al. 2013, arXiv 1312.6034, Sec. 2).

    The probability would rise by lowering all other classes, too.

    Args:
        classes: Class index of each image.

    Example:
        >>> loss = class_logit([2]).bind(slice(None), torch.device("cpu"))
        >>> loss({OUTPUT: torch.tensor([[0.0, 1.0, 5.0]])})
        tensor([-5.])
    """
    return _per_image(torch.tensor(list(classes)), OUTPUT, lambda logits, index: logits[_rows(logits), index])


def channel(layer: str, channels: Sequence[int]) -> Objective:
    """The mean of a channel's map (Erhan et al. 2009), or of a unit of a fully connected layer.

    Args:
        layer: Dotted module name.
        channels: Channel of each image.
    """

    def score(activations: Tensor, index: Tensor) -> Tensor:
        return activations[_rows(activations), index].reshape(len(activations), -1).mean(1)

    return _per_image(torch.tensor(list(channels)), layer, score)


def neuron(layer: str, channels: Sequence[int], positions: Sequence[tuple[int, int]] | None = None) -> Objective:
    """One neuron of a channel's map.

    Args:
        layer: Dotted module name of a layer with maps.
        channels: Channel of each image.
        positions: Row and column of each image's neuron; None takes the centre of the map.
    """
    if positions is not None and len(positions) != len(channels):
        raise ValueError(f"{len(positions)} positions for {len(channels)} channels: give one an image.")
    place = positions or [(-1, -1)] * len(channels)
    targets = torch.tensor([(c, *p) for c, p in zip(channels, place, strict=True)])

    def score(activations: Tensor, target: Tensor) -> Tensor:
        if activations.ndim != 4:
            raise LayerError(
                f"Layer {layer!r} gives {tuple(activations.shape)}, no maps with positions: "
                "use a convolutional layer, or ask for the channel."
            )
        index, row, column = target.unbind(1)
        row = torch.where(row < 0, activations.shape[-2] // 2, row)
        column = torch.where(column < 0, activations.shape[-1] // 2, column)
        return activations[_rows(activations), index, row, column]

    return _per_image(targets, layer, score)


def direction(layer: str, vectors: Tensor) -> Objective:
    """The mean dot product of a layer's channel vectors with a direction.

    Args:
        layer: Dotted module name.
        vectors: ``(N, C)``, the direction of each image in the space of the layer's channels.
    """
    return _per_image(
        vectors.detach().cpu(),
        layer,
        lambda activations, vector: (
            torch.einsum("nc...,nc->n", activations, vector.to(activations.dtype)) / max(1, activations[0, 0].numel())
        ),
    )


def layer_energy(layer: str, channels: Sequence[int] | None = None) -> Objective:
    """Half the sum of squares of a layer's activations: DeepDream's objective, "more of what you see".

    Mordvintsev et al. 2015, https://research.google/blog/inceptionism-going-deeper-into-neural-networks/. Its
    gradient is the activations themselves.

    Args:
        layer: Dotted module name.
        channels: Only these channels; None takes all.

    Raises:
        ValueError: When it is computed, if the layer has no such channel.
    """

    def bind(part: slice, device: torch.device) -> Loss:
        chosen = None if channels is None else torch.tensor(list(channels), device=device)

        def loss(recorded: Mapping[str, Tensor]) -> Tensor:
            activations = recorded[layer]
            if chosen is not None:
                count = activations.shape[1]
                for wanted in channels or ():
                    if not 0 <= wanted < count:
                        raise ValueError(
                            f"Channel {wanted} is not in layer {layer!r}: it has channels 0 to {count - 1}."
                        )
                activations = activations[:, chosen]
            return -0.5 * activations.square().flatten(1).sum(1)

        return loss

    return Objective((layer,), bind)


def guided(layer: str, guide: Tensor, chunk: int = 4096) -> Objective:
    """Guided DeepDream: at each place, more of the guide's feature with the largest dot product.

    Mordvintsev et al. 2015, the "controlling dreams" part of https://github.com/google/deepdream.

    Args:
        layer: Dotted module name of a layer with maps.
        guide: ``(1, C, h, w)``, the layer's activations for the guide image.
        chunk: Places compared with the guide at a time, which bounds the memory.
    """
    features = guide[0].detach().flatten(1)

    def bind(part: slice, device: torch.device) -> Loss:
        mine = features.to(device)

        def loss(recorded: Mapping[str, Tensor]) -> Tensor:
            activations = recorded[layer].flatten(2)
            with torch.no_grad():
                places = activations.transpose(1, 2).flatten(0, 1)
                best = torch.cat([(some @ mine).argmax(1) for some in torch.split(places, chunk)])
                target = mine[:, best].reshape(len(mine), len(activations), -1).transpose(0, 1)
            scores: Tensor = (activations * target).flatten(1).sum(1)
            return -scores

        return loss

    return Objective((layer,), bind)


def diversity(layer: str, group: int) -> Objective:
    """The mean cosine similarity of an image's features with those of the others of its group.

    Added to a class's logit, it spreads the samples of the class over what the network takes for it. The features
    are the layer's channel correlations, as in Olah et al. 2017 (https://doi.org/10.23915/distill.00007,
    "Diversity"), computed for all pairs by one matrix product.

    Args:
        layer: Dotted module name of a layer with maps.
        group: Images in a group; consecutive images form one.

    Example:
        >>> loss = diversity("conv", 2).bind(slice(None), torch.device("cpu"))
        >>> maps = torch.eye(2)[:, :, None, None].expand(2, 2, 3, 3)
        >>> loss({"conv": maps}), loss({"conv": maps[:1].expand(2, 2, 3, 3)})
        (tensor([0., 0.]), tensor([1., 1.]))
    """

    def loss(recorded: Mapping[str, Tensor]) -> Tensor:
        if recorded[layer].ndim != 4:
            raise LayerError(f"Layer {layer!r} gives {tuple(recorded[layer].shape)}: diversity needs one with maps.")
        maps = recorded[layer].flatten(2)
        gram = F.normalize((maps @ maps.transpose(1, 2)).flatten(1), dim=1)
        gram = gram.reshape(-1, group, gram.shape[1])
        similarity = gram @ gram.transpose(1, 2)
        others: Tensor = similarity.sum(2) - similarity.diagonal(dim1=1, dim2=2)
        return others.flatten() / max(1, group - 1)

    return Objective((layer,), lambda _part, _device: loss)


def diversify(objective: Objective, layer: str, group: int, weight: float) -> Objective:
    """An objective and the `diversity` of its groups, weighed by the size that the objective's loss has reached.

    The logits of one network are ten times those of another; the relative weight serves both.

    Args:
        objective: What each image is for.
        layer: Dotted module name of a layer with maps, for `diversity`.
        group: Images in a group.
        weight: Fraction of the score that two images of equal features would lose.
    """
    spread = diversity(layer, group)

    def bind(part: slice, device: torch.device) -> Loss:
        wanted, similarity = objective.bind(part, device), spread.bind(part, device)

        def loss(recorded: Mapping[str, Tensor]) -> Tensor:
            base = wanted(recorded)
            return base + weight * base.detach().abs() * similarity(recorded)

        return loss

    return Objective(tuple(dict.fromkeys((*objective.layers, layer))), bind)


def directions_between(first: Tensor, second: Tensor, count: int) -> Tensor:
    """Unit vectors on the way from one direction to another, in equal angles.

    Args:
        first: ``(C,)``.
        second: ``(C,)``.
        count: How many, the ends included; at least 2.

    Returns:
        ``(count, C)``, for `direction`.

    Example:
        >>> directions_between(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 1.0]), 3)
        tensor([[1.0000, 0.0000],
                [0.7071, 0.7071],
                [0.0000, 1.0000]])
    """
    if count < 2:
        raise ValueError(f"count={count}: both ends need a direction.")
    first, second = F.normalize(first, dim=0), F.normalize(second, dim=0)
    angle = (first @ second).clamp(-1, 1).acos()
    part = torch.linspace(0, 1, count)[:, None]
    if angle < 1e-4:
        return first.expand(count, -1)
    return ((1 - part) * angle).sin() / angle.sin() * first + (part * angle).sin() / angle.sin() * second
