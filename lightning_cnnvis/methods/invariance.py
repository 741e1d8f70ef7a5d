"""Translate, scale, turn and recolour images, and measure what that changes in the network.

Zeiler & Fergus 2013 (arXiv 1311.2901), section 4.1 and Fig. 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_cnnvis import figures
from lightning_cnnvis.evolution.accuracy import require
from lightning_cnnvis.functional.network.output import class_indices
from lightning_cnnvis.functional.noise import uniform
from lightning_cnnvis.functional.sensitivity.transformations import (
    TRANSFORMATIONS,
    TransformationInvariance,
    chosen_strengths,
    transformation_invariance,
    transformed,
)
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.inputs.photographs import check_photographs, read_photographs
from lightning_cnnvis.methods.checks import check_at_least_one, check_lists
from lightning_cnnvis.methods.method import Drawings, Method, Parts, ScalarPlot, Strip, Title
from lightning_cnnvis.methods.registry import register_method
from lightning_cnnvis.methods.results import Result
from lightning_cnnvis.methods.subject import Subject
from lightning_cnnvis.viewer.content import Gallery, Section, Tile

STRIP_SIZE = (64, 96)
"""Height and width in pixels of the curves of a strip."""


@dataclass(frozen=True)
class InvarianceOptions:
    """Measures what transformations of images change in the network; see `transformation_invariance`.

    Args:
        layers: Dotted names of the layers; the first, the middle and the last rectified convolution if None.
        images: Photographs whose curves are drawn: files, which are cut to the network's input size, or
            ``(N, C, H, W)`` in [0, 1] of that size. The first of the images if None.
        count: Number of images to take where none are given.
        sample: Number of images that the areas under the curves are averaged over, the first of the validation: None
            takes all of them, 0 those whose curves are drawn.
        classes: Name or number of the class of each image whose curves are drawn, or of all; what the network takes
            each image for if None.
        transformations: Names: ``"translation"``, ``"scale"``, ``"rotation"``, ``"contrast"``, ``"color"``; all of
            them if None.
        translations: Pixels down; 13 up to 27 % of the height either way if None.
        scales: Factors; 9 from 1 to 1.8 if None.
        rotations: Degrees clockwise; every 15 if None.
        contrasts: Factors; 7 from 0.25 to 1.75 if None.
        colors: Degrees of hue; every 45 if None.

    Raises:
        ValueError: If an option is out of range, a photograph cannot be read, or there is no such layer, class or
            transformation, or Matplotlib is missing.
    """

    layers: Sequence[str] | None = None
    _: KW_ONLY
    images: Sequence[str | Path] | Tensor | None = None
    count: int = 5
    sample: int | None = 32
    classes: Sequence[int | str] | None = None
    transformations: Sequence[str] | None = None
    translations: Sequence[float] | None = None
    scales: Sequence[float] | None = None
    rotations: Sequence[float] | None = None
    contrasts: Sequence[float] | None = None
    colors: Sequence[float] | None = None

    def __post_init__(self) -> None:
        """Checks the ranges, and that photographs can be read."""
        check_lists(
            layers=self.layers,
            images=self.images,
            classes=self.classes,
            transformations=self.transformations,
            translations=self.translations,
            scales=self.scales,
            rotations=self.rotations,
            contrasts=self.contrasts,
            colors=self.colors,
        )
        check_at_least_one(count=self.count)
        if self.sample is not None and self.sample < 0:
            raise ValueError(f"sample={self.sample} is negative. Give a number of images, or None for all.")
        self.strengths(InputSpec())
        check_photographs(self.images)

    def strengths(self, input_spec: InputSpec) -> dict[str, tuple[float, ...]]:
        """The strengths by transformation.

        Args:
            input_spec: The network's input.

        Returns:
            The strengths of those that are asked for and that the input has room for.

        Raises:
            ValueError: If one is out of range, or there is no such transformation.
        """
        given = {
            "translation": self.translations,
            "scale": self.scales,
            "rotation": self.rotations,
            "contrast": self.contrasts,
            "color": self.colors,
        }
        if self.transformations is None:
            return chosen_strengths(input_spec, given)
        return chosen_strengths(input_spec, {name: given.get(name) for name in self.transformations})


@dataclass(frozen=True, eq=False)
class ImageInvariance:
    """What transformations change, for images that are drawn and for a sample.

    Attributes:
        images: ``(N, C, H, W)`` in [0, 1].
        curves: The curves of these images.
        sample: Those of the sample; those of the images where there is none.
    """

    images: Tensor
    curves: TransformationInvariance
    sample: TransformationInvariance


class InvarianceResult(Result):
    """What transformations of images change in the network."""

    @property
    def invariance(self) -> TransformationInvariance:
        """The curves of the images that are drawn."""
        found: ImageInvariance = self.parts[""]
        return found.curves

    @property
    def sample(self) -> TransformationInvariance:
        """The curves of the sample."""
        found: ImageInvariance = self.parts[""]
        return found.sample


def _layers(subject: Subject, options: InvarianceOptions) -> list[str]:
    if options.layers is not None:
        return subject.known_layers(options.layers)
    rectified = subject.default_layers()
    return list(dict.fromkeys([rectified[0], rectified[len(rectified) // 2], rectified[-1]]))


def _parts(subject: Subject, options: InvarianceOptions) -> Parts:
    try:
        require("matplotlib")
    except ModuleNotFoundError as error:  # before the training, and not at every epoch
        raise ValueError(str(error)) from error
    options.strengths(subject.input_spec)
    count = options.count if options.images is None else len(options.images)
    if options.classes is not None:
        class_indices(options.classes, subject.number_of_classes(), subject.input_spec)
        if len(options.classes) not in (1, count):
            raise ValueError(
                f"There are {len(options.classes)} classes for {count} images. Give one, or one for each image."
            )
    return {"": _layers(subject, options)}


def _prepare(subject: Subject, options: InvarianceOptions, parts: Parts) -> tuple[Tensor, list[Tensor]]:
    """The images that are drawn, in [0, 1], and batches of the sample, normalised."""
    spec = subject.input_spec
    images = subject.images.first(options.count, spec) if options.images is None else None
    if images is None:
        assert options.images is not None
        images = read_photographs(options.images, spec)
    room, sample = options.sample, []
    if room != 0 and subject.has_images:
        for batch in subject.images.batches(spec):
            sample.append(batch if room is None else batch[:room])
            room = None if room is None else room - len(sample[-1])
            if room == 0:
                break
    return images, sample


def _run(
    subject: Subject,
    options: InvarianceOptions,
    part: str,
    layers: Sequence[str],
    prepared: tuple[Tensor, list[Tensor]],
) -> ImageInvariance:
    images, sample = prepared
    spec = subject.input_spec
    strengths = options.strengths(spec)

    def measured(inputs: Tensor, classes: Sequence[int | str] | None) -> TransformationInvariance:
        return transformation_invariance(
            subject.network,
            inputs,
            layers,
            input_spec=spec,
            translations=strengths.get("translation", ()),
            scales=strengths.get("scale", ()),
            rotations=strengths.get("rotation", ()),
            contrasts=strengths.get("contrast", ()),
            colors=strengths.get("color", ()),
            classes=classes,
        )

    classes = options.classes
    if classes is not None and len(classes) > len(images):  # the data have fewer images than were asked for
        classes = classes[: len(images)]
    curves = measured(subject.to_network(spec.normalize(images)), classes)
    batches = [measured(subject.to_network(batch), None) for batch in sample]
    return ImageInvariance(images, curves, TransformationInvariance.cat(batches) if batches else curves)


def _trial(subject: Subject, options: InvarianceOptions) -> tuple[InvarianceOptions, tuple[Tensor, list[Tensor]]]:
    """One step of each transformation, on noise."""
    count = len(options.classes or [0])
    once = InvarianceOptions(
        options.layers,
        classes=options.classes,
        transformations=["translation", "scale", "rotation", "contrast"],
        translations=[0],
        scales=[1],
        rotations=[0],
        contrasts=[1],
    )
    return once, (uniform((count, *subject.input_spec.shape)), [])


def _merge(results: Sequence[ImageInvariance]) -> ImageInvariance:
    """Joins shares of the layers."""

    def joined(parts: Sequence[TransformationInvariance]) -> TransformationInvariance:
        distances = {layer: part.distances[layer] for part in parts for layer in part.layers}
        return replace(parts[0], layers=tuple(distances), distances=distances)

    return ImageInvariance(
        results[0].images,
        joined([result.curves for result in results]),
        joined([result.sample for result in results]),
    )


def _draw(subject: Subject, options: InvarianceOptions, part: str, result: ImageInvariance, title: Title) -> Drawings:
    found, spec = result.curves, subject.input_spec
    panels = {layer: dict(found.distances[layer]) for layer in found.layers}
    if found.probabilities is not None:
        panels["probability"] = dict(found.probabilities)
    labels = [f"image {n + 1}" for n in range(len(result.images))]
    if found.classes is not None:
        labels = [f"{label}: {spec.class_name(int(c))}" for label, c in zip(labels, found.classes, strict=True)]
    first = spec.normalize(result.images[:1])
    examples = {}
    for name, strengths in found.strengths.items():
        shown = strengths.sort().values[[0, len(strengths) // 2, -1]].tolist()
        examples[name] = spec.denormalize(transformed(first.expand(3, -1, -1, -1), name, shown, spec)).clamp(0, 1)
    units = {name: TRANSFORMATIONS[name].unit for name in found.strengths}
    picture = figures.invariance_figure(panels, found.strengths, units, examples, labels, title("Invariance"))
    return {f"{INVARIANCE.tag}/curves": picture}


def _scalars(options: InvarianceOptions, part: str, result: ImageInvariance) -> Mapping[str, float]:
    found, scalars = result.sample, {}
    for name in found.strengths:
        for layer in found.layers:
            scalars[f"{INVARIANCE.tag}_area/{name}/{layer}"] = float(found.area(layer, name).nanmean())
        probability = found.probability_area(name)
        if probability is not None:
            scalars[f"{INVARIANCE.tag}_probability/{name}"] = float(probability.mean())
    return scalars


def _strip(options: InvarianceOptions, part: str, result: ImageInvariance) -> Strip:
    found = result.sample
    pictures, captions = [], []
    for name, strengths in found.strengths.items():
        means = [found.distances[layer][name].nanmean(0) for layer in found.layers]
        # a scale that stays the same over the epochs: features of two different images lie about this far apart
        pictures.append(figures.small_curves(means, strengths, 1.5, STRIP_SIZE))
        ends = dict.fromkeys([found.layers[0], found.layers[-1]])
        captions.append(" … ".join(f"{float(found.area(layer, name).nanmean()):.2f}" for layer in ends))
    return Strip(
        f"{INVARIANCE.tag}/evolution",
        f"Invariance · {' to '.join(dict.fromkeys([found.layers[0], found.layers[-1]]))} · evolution",
        list(found.strengths),
        torch.stack(pictures),
        captions,
        side=max(STRIP_SIZE),
    )


def _sections(
    subject: Subject, options: InvarianceOptions, result: InvarianceResult, evolutions: Mapping[str, Any]
) -> list[Section]:
    tiles = tuple(Tile(picture, "Curves, an image each") for picture in result.pictures.values())
    note = (
        "Distance of a layer's features from those of the untouched image, over their norm, and the probability of the "
        "class. A steep curve belongs to a layer that notices the transformation at once, a flat one to one that it "
        "leaves alone."
    )
    return [Section("Invariance to transformations", (Gallery(tiles),), note)]


INVARIANCE = Method(
    name="invariance",
    tag="invariance",
    summary=__doc__,
    options=InvarianceOptions,
    parts=_parts,
    prepare=_prepare,
    run=_run,
    merge=_merge,
    draw=_draw,
    trial=_trial,
    scalars=_scalars,
    plots={
        "invariance_area": ScalarPlot(
            "Area under the curves of invariance",
            "Mean distance of the features from those of the untouched image, over their norm: 0 is invariant.",
        ),
        "invariance_probability": ScalarPlot(
            "Probability under transformations", "Mean probability of the class of the untouched image."
        ),
    },
    strip=_strip,
    probes=lambda options: options.count if options.images is None else 0,
    result=InvarianceResult,
    section=_sections,
    report={"count": 3, "sample": 0},
)
register_method(INVARIANCE)
