"""Objectives: losses of recorded activations, one number for each image.

An objective names the layers that it reads, and is bound to a part of the images before use, so that images can be
optimised in chunks. Objectives can be added and scaled: ``class_logit([3, 7]) + 0.5 * channel("conv5", [1, 2])``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cnnvis.functional.network.forward import OUTPUT
from lightning_cnnvis.functional.network.output import ClassOutput
from lightning_cnnvis.layers import LayerError

Loss = Callable[[Mapping[str, Tensor]], Tensor]
"""A function of recorded activations, layer -> ``(N, ...)``. It returns losses ``(N,)``; loss i depends only on row i,
unless images are grouped."""


@dataclass(frozen=True)
class Objective:
    """A loss for each of many images.

    Args:
        layers: Dotted names of the modules whose outputs are read; `OUTPUT` is the model's output.
        bind: A function of the part of the images that a batch holds, a slice, and the device. It returns the function
            that computes their losses ``(N,)`` from the recorded activations, layer -> ``(N, ...)``.

    Examples:
        >>> norm = Objective(("conv1",), lambda part, device: lambda maps: -maps["conv1"].flatten(1).norm(dim=1))
        >>> loss = (2 * norm).bind(slice(None), torch.device("cpu"))
        >>> loss({"conv1": torch.tensor([[[[3.0, 4.0]]]])})
        tensor([-10.])
    """

    layers: tuple[str, ...]
    bind: Callable[[slice, torch.device], Loss]

    def __add__(self, other: Objective) -> Objective:
        """Adds the losses of two objectives."""

        def bind(part: slice, device: torch.device) -> Loss:
            first, second = self.bind(part, device), other.bind(part, device)
            return lambda recorded: first(recorded) + second(recorded)

        return Objective(tuple(dict.fromkeys(self.layers + other.layers)), bind)

    def __mul__(self, factor: float) -> Objective:
        """Multiplies the loss by a number."""

        def bind(part: slice, device: torch.device) -> Loss:
            loss = self.bind(part, device)
            return lambda recorded: factor * loss(recorded)

        return Objective(self.layers, bind)

    __rmul__ = __mul__


def _per_image(targets: Tensor, layer: str, score: Callable[[Tensor, Tensor], Tensor]) -> Objective:
    """Makes minus the score of a layer's activations ``(N, ...)`` for the images' targets ``(N, ...)`` an objective."""

    def bind(part: slice, device: torch.device) -> Loss:
        mine = targets[part].to(device)
        return lambda recorded: -score(recorded[layer], mine)

    return Objective((layer,), bind)


def _rows(activations: Tensor) -> Tensor:
    return torch.arange(len(activations), device=activations.device)


def class_logit(classes: Sequence[int], output: ClassOutput | None = None) -> Objective:
    """Raises the logit of a class, before the softmax (Simonyan et al. 2013, arXiv 1312.6034, Sec. 2).

    The probability would also rise if all other logits fell.

    Args:
        classes: Class index of each image.
        output: The meaning of the output, as `read_output` finds it; None takes it for logits. Of a network that
            returns probabilities, their logarithm is raised.

    Returns:
        The objective; its loss is minus the logit.

    Examples:
        >>> loss = class_logit([2]).bind(slice(None), torch.device("cpu"))
        >>> loss({OUTPUT: torch.tensor([[0.0, 1.0, 5.0]])})
        tensor([-5.])
    """

    def score(outputs: Tensor, index: Tensor) -> Tensor:
        scores = outputs if output is None else output.scores(outputs)
        return scores[_rows(scores), index]

    return _per_image(torch.tensor(list(classes), device="cpu"), OUTPUT, score)


def class_margin(classes: Sequence[int], output: ClassOutput | None = None, weight: float = 0.5) -> Objective:
    """Raises the logit of a class and lowers the others: the logit, less a part of the others' log-sum-exp.

    By its logit alone, an image may rise for the whole family of a class, so that a sibling wins. With ``weight`` 1,
    this is the logarithm of the odds. Of classes that do not exclude each other, the others are left alone.

    Args:
        classes: Class index of each image.
        output: The meaning of the output, as `read_output` finds it; None takes it for logits of classes that exclude
            each other. Of a network that returns probabilities, their logarithms are taken.
        weight: Part of the other classes' log-sum-exp that is subtracted.

    Returns:
        The objective; its loss is minus the score.

    Examples:
        >>> loss = class_margin([1]).bind(slice(None), torch.device("cpu"))
        >>> loss({OUTPUT: torch.tensor([[2.0, 3.0]])})
        tensor([-2.])
    """
    alone = output is not None and (output.count == 1 or (output.kind == "sigmoid" and not output.two_sided))

    def score(outputs: Tensor, index: Tensor) -> Tensor:
        scores = outputs if output is None else output.scores(outputs)
        own = scores[_rows(scores), index]
        if alone:
            return own
        others: Tensor = scores.scatter(1, index[:, None], -torch.inf).logsumexp(1)
        return own - weight * others

    return _per_image(torch.tensor(list(classes), device="cpu"), OUTPUT, score)


def class_log_probability(classes: Sequence[int], output: ClassOutput | None = None) -> Objective:
    """Raises the logarithm of a class's probability: minus the cross-entropy, as inversions of a network do.

    It rises also where other logits fall, and hardly changes once the class is reached.

    Args:
        classes: Class index of each image.
        output: The meaning of the output, as `read_output` finds it; None takes it for logits of classes that exclude
            each other.

    Returns:
        The objective; its loss is minus the log-probability.

    Examples:
        >>> loss = class_log_probability([1]).bind(slice(None), torch.device("cpu"))
        >>> loss({OUTPUT: torch.tensor([[0.0, 0.0]])}).exp()
        tensor([2.])
    """

    def score(outputs: Tensor, index: Tensor) -> Tensor:
        scores = outputs if output is None else output.scores(outputs)
        if output is None or output.kind == "softmax":
            scores = scores.log_softmax(1)
        elif output.kind == "sigmoid":
            scores = F.logsigmoid(scores)
        return scores[_rows(scores), index]

    return _per_image(torch.tensor(list(classes), device="cpu"), OUTPUT, score)


def channel(layer: str, channels: Sequence[int]) -> Objective:
    """Raises the mean of a channel's map, or a unit of a fully connected layer (Erhan et al. 2009).

    Args:
        layer: Dotted module name.
        channels: Channel of each image.

    Returns:
        The objective; its loss is minus the mean.

    Examples:
        >>> loss = channel("conv1", [1]).bind(slice(None), torch.device("cpu"))
        >>> loss({"conv1": torch.tensor([[[[5.0, 5.0]], [[1.0, 3.0]]]])})
        tensor([-2.])
    """

    def score(activations: Tensor, index: Tensor) -> Tensor:
        return activations[_rows(activations), index].reshape(len(activations), -1).mean(1)

    return _per_image(torch.tensor(list(channels), device="cpu"), layer, score)


def neuron(layer: str, channels: Sequence[int], positions: Sequence[tuple[int, int]] | None = None) -> Objective:
    """Raises one neuron of a channel's map (Erhan et al. 2009).

    Args:
        layer: Dotted module name of a layer with maps.
        channels: Channel of each image.
        positions: Row and column of each image's neuron; None takes the centre of the map.

    Returns:
        The objective; its loss is minus the activation. It raises a `LayerError` if the layer has no maps.

    Raises:
        ValueError: If there are not as many positions as channels.

    Examples:
        >>> loss = neuron("conv1", [0], [(0, 1)]).bind(slice(None), torch.device("cpu"))
        >>> loss({"conv1": torch.tensor([[[[5.0, 7.0]]]])})
        tensor([-7.])
    """
    if positions is not None and len(positions) != len(channels):
        raise ValueError(f"There are {len(positions)} positions for {len(channels)} channels. Give one for each image.")
    place = positions or [(-1, -1)] * len(channels)
    targets = torch.tensor([(c, *p) for c, p in zip(channels, place, strict=True)], device="cpu")

    def score(activations: Tensor, target: Tensor) -> Tensor:
        if activations.ndim != 4:
            raise LayerError(
                f"Layer {layer!r} has an output of shape {tuple(activations.shape)}, not maps with positions. Name a "
                "convolutional layer, or optimise for the channel."
            )
        index, row, column = target.unbind(1)
        row = torch.where(row < 0, activations.shape[-2] // 2, row)
        column = torch.where(column < 0, activations.shape[-1] // 2, column)
        return activations[_rows(activations), index, row, column]

    return _per_image(targets, layer, score)


def direction(layer: str, vectors: Tensor) -> Objective:
    """Raises the mean dot product of a layer's channel vectors with a direction.

    After Olah et al. 2017 (https://doi.org/10.23915/distill.00007).

    Args:
        layer: Dotted module name.
        vectors: ``(N, C)``, the direction of each image in the space of the layer's channels.

    Returns:
        The objective; its loss is minus the mean dot product.

    Examples:
        >>> loss = direction("fc", torch.tensor([[1.0, 2.0]])).bind(slice(None), torch.device("cpu"))
        >>> loss({"fc": torch.tensor([[3.0, 4.0]])})
        tensor([-11.])
    """
    return _per_image(
        vectors.detach().cpu(),
        layer,
        lambda activations, vector: (
            torch.einsum("nc...,nc->n", activations, vector.to(activations.dtype)) / max(1, activations[0, 0].numel())
        ),
    )


def layer_energy(layer: str, channels: Sequence[int] | None = None) -> Objective:
    """Raises half the sum of squares of a layer's activations: DeepDream's objective, "more of what you see".

    Mordvintsev et al. 2015, https://research.google/blog/inceptionism-going-deeper-into-neural-networks/. Its
    gradient is the activations themselves.

    Args:
        layer: Dotted module name.
        channels: The channels that count; None takes all.

    Returns:
        The objective; its loss is minus the half sum. It raises a ValueError if the layer has no such channel.

    Examples:
        >>> loss = layer_energy("conv1").bind(slice(None), torch.device("cpu"))
        >>> loss({"conv1": torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])})
        tensor([-7.])
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
    """Raises, at each place, the guide's feature with the largest dot product: guided DeepDream.

    Mordvintsev et al. 2015, the "controlling dreams" part of https://github.com/google/deepdream.

    Args:
        layer: Dotted module name of a layer with maps.
        guide: ``(1, C, h, w)``, the layer's activations for the guide image.
        chunk: Number of places that are compared with the guide at a time, which bounds the memory.

    Returns:
        The objective; its loss is minus the sum of the dot products.
    """
    features = guide[0].detach().flatten(1)

    def bind(part: slice, device: torch.device) -> Loss:
        on_device = features.to(device)

        def loss(recorded: Mapping[str, Tensor]) -> Tensor:
            activations = recorded[layer].flatten(2)
            mine = on_device.to(activations.dtype)
            with torch.no_grad():
                places = activations.transpose(1, 2).flatten(0, 1)
                best = torch.cat([(some @ mine).argmax(1) for some in torch.split(places, chunk)])
                target = mine[:, best].reshape(len(mine), len(activations), -1).transpose(0, 1)
            scores: Tensor = (activations * target).flatten(1).sum(1)
            return -scores

        return loss

    return Objective((layer,), bind)


def diversity(layer: str, group: int) -> Objective:
    """Lowers the mean cosine similarity of an image's features to those of the others in its group.

    Added to a class's logit, it spreads the samples of the class over the kinds of image that the network assigns to
    it. The features are the layer's channel correlations, as in Olah et al. 2017
    (https://doi.org/10.23915/distill.00007, "Diversity"), computed for all pairs by one matrix product.

    Args:
        layer: Dotted module name of a layer with maps.
        group: Number of images in a group; consecutive images form one.

    Returns:
        The objective; its loss is the mean similarity, at most 1. It raises a `LayerError` if the layer has no maps.

    Examples:
        >>> loss = diversity("conv", 2).bind(slice(None), torch.device("cpu"))
        >>> maps = torch.eye(2)[:, :, None, None].expand(2, 2, 3, 3)
        >>> loss({"conv": maps}), loss({"conv": maps[:1].expand(2, 2, 3, 3)})
        (tensor([0., 0.]), tensor([1., 1.]))
    """

    def loss(recorded: Mapping[str, Tensor]) -> Tensor:
        if recorded[layer].ndim != 4:
            raise LayerError(
                f"Layer {layer!r} has an output of shape {tuple(recorded[layer].shape)}: diversity needs one with maps."
            )
        maps = recorded[layer].flatten(2)
        gram = F.normalize((maps @ maps.transpose(1, 2)).flatten(1), dim=1)
        gram = gram.reshape(-1, group, gram.shape[1])
        similarity = gram @ gram.transpose(1, 2)
        others: Tensor = similarity.sum(2) - similarity.diagonal(dim1=1, dim2=2)
        return others.flatten() / max(1, group - 1)

    return Objective((layer,), lambda _part, _device: loss)


def diversify(objective: Objective, layer: str, group: int, weight: float) -> Objective:
    """Adds `diversity` within groups to an objective, weighted by the size that the objective's loss has reached.

    The logits of one network may be ten times those of another; a relative weight suits both.

    Args:
        objective: The objective of each image.
        layer: Dotted module name of a layer with maps, for `diversity`.
        group: Number of images in a group; consecutive images form one.
        weight: Fraction of the score that two images of equal features would lose.

    Returns:
        The sum of both objectives.
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
    """Interpolates between two directions: unit vectors at equal angles.

    Args:
        first: ``(C,)``, the direction to start from.
        second: ``(C,)``, the direction to end at.
        count: Number of vectors, both ends included; at least 2.

    Returns:
        ``(count, C)``, for `direction`.

    Raises:
        ValueError: If ``count`` is below 2.

    Examples:
        >>> directions_between(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 1.0]), 3)
        tensor([[1.0000, 0.0000],
                [0.7071, 0.7071],
                [0.0000, 1.0000]])
    """
    if count < 2:
        raise ValueError(f"count={count} is too few for both ends. Give at least 2.")
    first, second = F.normalize(first, dim=0), F.normalize(second, dim=0)
    angle = (first @ second).clamp(-1, 1).acos()
    part = torch.linspace(0, 1, count, dtype=first.dtype, device=first.device)[:, None]
    if angle < 1e-4:
        return first.expand(count, -1)
    return ((1 - part) * angle).sin() / angle.sin() * first + (part * angle).sin() / angle.sin() * second
