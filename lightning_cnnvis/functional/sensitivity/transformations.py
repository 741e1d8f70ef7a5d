"""Transformation invariance: what translating, scaling, turning and recolouring an image changes in a network.

Zeiler & Fergus 2013 (arXiv 1311.2901), section 4.1 and Fig. 5.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from lightning_cnnvis.functional.network.chunks import chunk_size, in_chunks
from lightning_cnnvis.functional.network.forward import OUTPUT, Forward, model_options, plain_forward
from lightning_cnnvis.functional.network.output import ClassOutput, class_indices, read_output
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.isolation import isolated
from lightning_cnnvis.layers import get_layer

_COLORS = 3  # channels that have a hue


@dataclass(frozen=True)
class Transformation:
    """A way to change images, by a strength.

    Attributes:
        apply: A function of pictures ``(N, C, H, W)`` in [0, 1], a strength, and the colour ``(C, 1, 1)`` of what comes
            in from outside, that returns pictures of the same shape.
        unit: What the strength is measured in, for an axis.
        strengths: A function of the height of an image that returns usual strengths, among them that which changes
            nothing.
        channels: Number of channels that it needs; None for any.
    """

    apply: Callable[[Tensor, float, Tensor], Tensor]
    unit: str
    strengths: Callable[[int], tuple[float, ...]]
    channels: int | None = None


def _moved(pictures: Tensor, fill: Tensor, *, down: float = 0.0, scale: float = 1.0, angle: float = 0.0) -> Tensor:
    """Moves, scales and turns about the centre. What comes in is filled: colours are taken as differences from it."""
    if (down, scale, angle) == (0.0, 1.0, 0.0):
        return pictures
    with _default_dtype(pictures.dtype):  # in which torchvision numbers the pixels
        moved: Tensor = transforms.affine(
            pictures - fill,
            angle=angle,
            translate=[0.0, down],
            scale=scale,
            shear=[0.0, 0.0],
            interpolation=InterpolationMode.BILINEAR,
        )
    return moved + fill


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _contrasted(pictures: Tensor, factor: float, _: Tensor) -> Tensor:
    grey = pictures.mean((1, 2, 3), keepdim=True)
    return (grey + factor * (pictures - grey)).clamp(0, 1)


def _recolored(pictures: Tensor, degrees: float, _: Tensor) -> Tensor:
    turn = (degrees / 360 + 0.5) % 1 - 0.5
    recolored: Tensor = pictures if turn == 0 else transforms.adjust_hue(pictures, turn)
    return recolored


def _evenly(first: float, last: float, count: int) -> tuple[float, ...]:
    return tuple(round(first + (last - first) * n / (count - 1), 6) for n in range(count))


TRANSFORMATIONS: Mapping[str, Transformation] = {
    "translation": Transformation(
        lambda pictures, pixels, fill: _moved(pictures, fill, down=pixels),
        "pixels down",
        # 60 of 224 pixels in the paper
        lambda height: tuple(float(round(0.27 * height * n / 6)) for n in range(-6, 7)),
    ),
    "scale": Transformation(
        lambda pictures, factor, fill: _moved(pictures, fill, scale=factor), "factor", lambda _: _evenly(1, 1.8, 9)
    ),
    "rotation": Transformation(
        lambda pictures, degrees, fill: _moved(pictures, fill, angle=degrees),
        "degrees",
        lambda _: _evenly(0, 345, 24),
    ),
    "contrast": Transformation(_contrasted, "factor", lambda _: _evenly(0.25, 1.75, 7)),
    "color": Transformation(_recolored, "degrees of hue", lambda _: _evenly(0, 315, 8), channels=_COLORS),
}
"""The transformations by name."""


@dataclass(frozen=True, eq=False)
class TransformationInvariance:
    """How far transformations of N images change what a network computes.

    Attributes:
        layers: Names of the layers.
        strengths: Strengths of each transformation, ``(steps,)``, by name.
        distances: Euclidean distance of each layer's features from those of the untouched image, over the norm of
            these: ``(N, steps)`` by layer and transformation; NaN where the norm is 0.
        classes: ``(N,)``, the class of each image; None if the network is not a classifier.
        probabilities: Probability of the class, in [0, 1]: ``(N, steps)`` by transformation; None if the network is not
            a classifier.
    """

    layers: tuple[str, ...]
    strengths: Mapping[str, Tensor]
    distances: Mapping[str, Mapping[str, Tensor]]
    classes: Tensor | None
    probabilities: Mapping[str, Tensor] | None

    def area(self, layer: str, transformation: str) -> Tensor:
        """Computes the area under the curves of a layer, over the range of strengths: the mean distance.

        Args:
            layer: Name of the layer.
            transformation: Name of the transformation.

        Returns:
            ``(N,)``, in units of the features' norm; the lower, the more invariant.
        """
        return _mean_height(self.distances[layer][transformation], self.strengths[transformation])

    def probability_area(self, transformation: str) -> Tensor | None:
        """Computes the area under the curves of the probability, over the range of strengths: the mean probability.

        Args:
            transformation: Name of the transformation.

        Returns:
            ``(N,)``, in [0, 1]; None if the network is not a classifier.
        """
        if self.probabilities is None:
            return None
        return _mean_height(self.probabilities[transformation], self.strengths[transformation])

    @staticmethod
    def cat(parts: Sequence[TransformationInvariance]) -> TransformationInvariance:
        """Joins results for shares of the images, of the same layers and strengths.

        Args:
            parts: The results, at least one.

        Returns:
            That of all images, in order.
        """
        first = parts[0]
        known = [part.classes for part in parts if part.classes is not None]
        return TransformationInvariance(
            first.layers,
            first.strengths,
            {
                layer: {name: torch.cat([part.distances[layer][name] for part in parts]) for name in first.strengths}
                for layer in first.layers
            },
            torch.cat(known) if known else None,
            None
            if first.probabilities is None
            else {name: torch.cat([(part.probabilities or {})[name] for part in parts]) for name in first.strengths},
        )


def transformation_invariance(
    model: nn.Module,
    images: Tensor,
    layers: Sequence[str],
    *,
    input_spec: InputSpec,
    translations: Sequence[float] | None = None,
    scales: Sequence[float] | None = None,
    rotations: Sequence[float] | None = None,
    contrasts: Sequence[float] | None = None,
    colors: Sequence[float] | None = None,
    classes: Sequence[int | str] | Tensor | None = None,
) -> TransformationInvariance:
    """Measures how far a network's features and its answer change with transformations of its input.

    As in the paper, with the contrast and the hue besides. A steep curve belongs to a layer that notices the
    transformation at once. What moves in from outside has the mean colour of the input, 0 after normalisation.

    Args:
        model: The network. It is left as it was.
        images: ``(N, C, H, W)``, normalised as the network expects them.
        layers: Dotted names of the layers.
        input_spec: The network's input.
        translations: Pixels by which the images move down; None takes 13 up to 27 % of the height either way. An empty
            sequence leaves the transformation out, here and below.
        scales: Factors by which they grow about the centre; None takes 9 from 1 to 1.8.
        rotations: Degrees by which they turn about the centre, clockwise; None takes every 15.
        contrasts: Factors of the differences from the mean grey of each image; None takes 7 from 0.25 to 1.75.
        colors: Degrees by which the hue turns; None takes every 45, or none where there are not three channels.
        classes: Index, or name, of the class of each image; None takes what the network takes the untouched image for.

    Returns:
        Distances and probabilities.

    Raises:
        LayerError: If a layer does not exist, does not run, or does not return a tensor.
        ValueError: If shapes do not fit, a strength is out of range, all transformations are left out, the hue of
            images without colour is to turn, or there is no such class.

    Examples:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> spec = InputSpec((16, 16))
        >>> found = transformation_invariance(net, images, ["1", "3"], input_spec=spec, rotations=[0, 90])
        >>> found.distances["1"]["rotation"].shape, sorted(found.strengths)
        (torch.Size([2, 2]), ['color', 'contrast', 'rotation', 'scale', 'translation'])
    """
    chosen = chosen_strengths(
        input_spec,
        {
            "translation": translations,
            "scale": scales,
            "rotation": rotations,
            "contrast": contrasts,
            "color": colors,
        },
    )
    layers = list(dict.fromkeys(layers))
    if not layers:
        raise ValueError("layers is empty. Name at least one.")
    if images.ndim != 4 or not len(images) or images.shape[1] != input_spec.channels:
        raise ValueError(
            f"images has shape {tuple(images.shape)}: give (N, {input_spec.channels}, height, width) with at least one."
        )
    for layer in layers:
        get_layer(model, layer)
    with isolated(model) as network, torch.no_grad():
        images = images.detach().to(model_options(network))
        output = read_output(network, input_spec, torch.zeros_like(images[:1]))
        forward = plain_forward(network, [*layers, OUTPUT] if output is not None else layers)
        targets = None if output is None else _targets(classes, output, forward, images, input_spec)
        numbers = [None] * len(images) if targets is None else targets.tolist()
        found = [
            _of_one(image, number, forward, layers, chosen, output, input_spec)
            for image, number in zip(images, numbers, strict=True)
        ]
    strengths = {name: torch.tensor(values, dtype=torch.float32, device="cpu") for name, values in chosen.items()}
    distances, probabilities = zip(*found, strict=True)
    return TransformationInvariance(
        tuple(layers),
        strengths,
        {layer: {name: torch.stack([one[layer][name] for one in distances]) for name in chosen} for layer in layers},
        None if targets is None else targets.cpu(),
        None if output is None else {name: torch.stack([one[name] for one in probabilities]) for name in chosen},
    )


def chosen_strengths(
    input_spec: InputSpec, wanted: Mapping[str, Sequence[float] | None]
) -> dict[str, tuple[float, ...]]:
    """Chooses the strengths of transformations.

    Args:
        input_spec: The network's input.
        wanted: Strengths by name of the transformation; None takes the usual ones, nothing leaves it out.

    Returns:
        The strengths of those that are left.

    Raises:
        ValueError: If there is no such transformation, a strength is not finite or out of range, or nothing is left.

    Examples:
        >>> chosen_strengths(InputSpec((224, 224)), {"translation": None, "rotation": []})["translation"][:3]
        (-60.0, -50.0, -40.0)
    """
    chosen = {}
    for name, values in wanted.items():
        if name not in TRANSFORMATIONS:
            near = difflib.get_close_matches(name, TRANSFORMATIONS, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(map(repr, TRANSFORMATIONS))}."
            raise ValueError(f"There is no transformation {name!r}. {hint}")
        kind = TRANSFORMATIONS[name]
        fits = kind.channels in (None, input_spec.channels)
        if values and not fits:
            raise ValueError(
                f"The hue of images of {input_spec.channels} channels cannot turn: it needs {kind.channels}. Leave the "
                f"{name} out."
            )
        usual = kind.strengths(input_spec.size[0]) if fits else ()
        strengths = usual if values is None else tuple(float(value) for value in values)
        if not all(map(math.isfinite, strengths)) or (name == "scale" and min(strengths, default=1.0) <= 0):
            raise ValueError(f"{name} by {list(strengths)}: give finite numbers, and factors of a scale above 0.")
        if strengths:
            chosen[name] = strengths
    if not chosen:
        raise ValueError("All transformations are left out. Give strengths of at least one.")
    return chosen


def transformed(images: Tensor, name: str, strengths: Sequence[float], input_spec: InputSpec) -> Tensor:
    """Transforms images.

    Args:
        images: ``(N, C, H, W)``, normalised.
        name: Name of the transformation.
        strengths: One for each image.
        input_spec: The network's input.

    Returns:
        The images, normalised.
    """
    kind, pictures = TRANSFORMATIONS[name], input_spec.denormalize(images)
    fill = input_spec.denormalize(torch.zeros_like(images[0, :, :1, :1]))
    changed = torch.cat(
        [kind.apply(picture[None], strength, fill) for picture, strength in zip(pictures, strengths, strict=True)]
    )
    # what changes nothing is the image itself, to the last bit
    same = (changed == pictures).all(3).all(2).all(1)
    return torch.where(same[:, None, None, None], images, input_spec.normalize(changed))


def _targets(
    classes: Sequence[int | str] | Tensor | None,
    output: ClassOutput,
    forward: Forward,
    images: Tensor,
    input_spec: InputSpec,
) -> Tensor:
    if classes is None:
        untouched = [forward(images[part])[OUTPUT] for part in _parts(images)]
        return torch.cat([output.probabilities(one).argmax(1) for one in untouched])
    wanted = class_indices(classes.tolist() if isinstance(classes, Tensor) else classes, output.count, input_spec)
    if len(wanted) == 1:
        wanted *= len(images)
    if len(wanted) != len(images):
        raise ValueError(f"There are {len(wanted)} classes for {len(images)} images. Give one, or one for each image.")
    return torch.tensor(wanted, device=images.device)


def _parts(images: Tensor) -> list[slice]:
    size = chunk_size(images)
    return [slice(start, start + size) for start in range(0, len(images), size)]


_Curves = dict[str, Tensor]


def _of_one(
    image: Tensor,
    target: int | None,
    forward: Forward,
    layers: Sequence[str],
    chosen: Mapping[str, Sequence[float]],
    output: ClassOutput | None,
    input_spec: InputSpec,
) -> tuple[dict[str, _Curves], _Curves]:
    """The distances by layer and transformation, and the probabilities by transformation, ``(steps,)``."""
    untouched = {layer: value.flatten(1) for layer, value in forward(image[None]).items() if layer in layers}
    norms = {layer: value.norm() for layer, value in untouched.items()}
    steps = [(name, strength) for name, strengths in chosen.items() for strength in strengths]

    def work(part: slice) -> tuple[list[Tensor], Tensor]:
        own = steps[part]
        copies = torch.cat([transformed(image[None], name, [strength], input_spec) for name, strength in own])
        recorded = forward(copies)
        distances = [
            (recorded[layer].flatten(1) - untouched[layer]).norm(dim=1)
            / torch.where(norms[layer] > 0, norms[layer], torch.nan)
            for layer in layers
        ]
        if output is None or target is None:
            return distances, image.new_zeros(len(own))
        return distances, output.probabilities(recorded[OUTPUT])[:, target]

    found = list(in_chunks(work, len(steps), chunk_size(image[None])))
    of_layers = [torch.cat([distances[n] for distances, _ in found]).float().cpu() for n in range(len(layers))]
    probabilities = torch.cat([part for _, part in found]).float().cpu()
    counts = [len(strengths) for strengths in chosen.values()]
    return (
        {
            layer: dict(zip(chosen, of_layer.split(counts), strict=True))  # type: ignore[no-untyped-call]
            for layer, of_layer in zip(layers, of_layers, strict=True)
        },
        dict(zip(chosen, probabilities.split(counts), strict=True)),  # type: ignore[no-untyped-call]
    )


def _mean_height(curves: Tensor, strengths: Tensor) -> Tensor:
    """The area under curves ``(N, steps)`` over the range of the strengths, in whatever order these are."""
    order = strengths.argsort()
    strengths, curves = strengths[order].to(curves), curves[:, order.to(curves.device)]
    width = strengths[-1] - strengths[0]
    return curves.mean(1) if width == 0 else torch.trapezoid(curves, strengths, dim=1) / width
