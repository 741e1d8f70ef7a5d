"""Cover parts of images, and map what the network then says of them.

Zeiler & Fergus 2013 (arXiv 1311.2901), section 4.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_cnnvis import figures
from lightning_cnnvis.functional.deconvnet.projection import Projections, project
from lightning_cnnvis.functional.deconvnet.rules import Rule, UnsupportedOperationError, get_rule
from lightning_cnnvis.functional.deconvnet.supported_ops import fitting_rule
from lightning_cnnvis.functional.network.output import class_indices
from lightning_cnnvis.functional.noise import uniform
from lightning_cnnvis.functional.sensitivity.greyed_forward import squares
from lightning_cnnvis.functional.sensitivity.occlusion import Occlusion, occlusion
from lightning_cnnvis.inputs.photographs import check_photographs, read_photographs
from lightning_cnnvis.isolation import isolated
from lightning_cnnvis.methods.checks import check_at_least_one, check_lists
from lightning_cnnvis.methods.method import Drawings, Method, Parts, ScalarPlot, Strip, Title
from lightning_cnnvis.methods.registry import register_method
from lightning_cnnvis.methods.results import Result
from lightning_cnnvis.methods.subject import Subject
from lightning_cnnvis.viewer.content import Section, Series, Tile

STRIP_SIDE = 96
"""Longest side in pixels of the pictures of a strip, which checkpoints keep."""


@dataclass(frozen=True)
class OcclusionOptions:
    """Covers parts of images with a grey square, and maps what the network then says of them; see `occlusion`.

    Args:
        layer: Dotted name of the layer whose strongest feature map is followed; the deepest rectified convolution if
            None.
        images: Photographs: files, which are cut to the network's input size, or ``(N, C, H, W)`` in [0, 1] of that
            size. The first of the images if None.
        count: Number of images to take where none are given.
        classes: Name or number of the class of each image, or of all; what the network takes each image for if None.
        patch: Side of the square in pixels; a seventh of the input's shorter side if None.
        stride: Step of the square in pixels; a quarter of its side if None.
        rule: Rule of the feature map's projection: ``"deconvnet"``, ``"guided"``, ``"gradient"`` or one that was
            registered; or a `Rule`, see `RectifiedBackward`. The deconvnet where max-pooling before the layer leaves
            switches, guided elsewhere, if None.

    Raises:
        ValueError: If an option is out of range, the square is larger than the input, a photograph cannot be read, or
            there is no such layer or class.
    """

    layer: str | None = None
    _: KW_ONLY
    images: Sequence[str | Path] | Tensor | None = None
    count: int = 3
    classes: Sequence[int | str] | None = None
    patch: int | None = None
    stride: int | None = None
    rule: str | Rule | None = None

    def __post_init__(self) -> None:
        """Checks the ranges, and that photographs can be read."""
        check_lists(images=self.images, classes=self.classes)
        check_at_least_one(count=self.count, patch=self.patch, stride=self.stride)
        get_rule(self.rule or "deconvnet")
        check_photographs(self.images)


@dataclass(frozen=True, eq=False)
class OccludedImages:
    """What a network says of images while a grey square slides over them.

    Attributes:
        images: ``(N, C, H, W)`` in [0, 1].
        occlusion: What the network says.
        projections: Each image's strongest activation of its feature map, projected to pixels; None where the layer
            cannot be projected.
        class_names: Name of each image's class; none if the network is not a classifier.
    """

    images: Tensor
    occlusion: Occlusion
    projections: Projections | None
    class_names: tuple[str, ...] = ()


class OcclusionResult(Result):
    """What a network says of images while a grey square slides over them."""

    @property
    def images(self) -> Tensor:
        """The images, ``(N, C, H, W)`` in [0, 1]."""
        found: OccludedImages = self.parts[""]
        return found.images

    @property
    def occlusion(self) -> Occlusion:
        """Probabilities and activities at each place of the square."""
        found: OccludedImages = self.parts[""]
        return found.occlusion


def square_of(size: tuple[int, int], patch: int | None, stride: int | None) -> tuple[int, int]:
    """The side and the step of a square where they are not given: a seventh of the shorter side, and a quarter of that.

    Args:
        size: Height and width of the image in pixels.
        patch: Side; None takes the default.
        stride: Step; None takes the default.

    Returns:
        Side and step.

    Examples:
        >>> square_of((224, 224), None, None)
        (32, 8)
    """
    patch = max(1, min(size) // 7) if patch is None else patch
    return patch, max(1, patch // 4) if stride is None else stride


def _parts(subject: Subject, options: OcclusionOptions) -> Parts:
    spec = subject.input_spec
    squares(spec.size, *square_of(spec.size, options.patch, options.stride))  # refuses one that is too large
    if options.layer is not None:
        subject.known_layers([options.layer])
    if options.classes is not None:
        class_indices(options.classes, subject.number_of_classes(), spec)
    count = options.count if options.images is None else len(options.images)
    if options.classes is not None and len(options.classes) not in (1, count):
        raise ValueError(
            f"There are {len(options.classes)} classes for {count} images. Give one, or one for each image."
        )
    return {"": list(range(count))}


def _prepare(subject: Subject, options: OcclusionOptions, parts: Parts) -> Tensor:
    """The images, ``(N, C, H, W)`` in [0, 1]."""
    if options.images is None:
        return subject.images.first(options.count, subject.input_spec)
    return read_photographs(options.images, subject.input_spec)


def _run(
    subject: Subject, options: OcclusionOptions, part: str, numbers: Sequence[int], images: Tensor
) -> OccludedImages | None:
    numbers = [number for number in numbers if number < len(images)]  # there may be fewer than were asked for
    if not numbers:
        return None
    images = images[numbers]
    classes = options.classes
    if classes is not None and len(classes) > 1:
        classes = [classes[number] for number in numbers]
    patch, stride = square_of((images.shape[2], images.shape[3]), options.patch, options.stride)
    inputs = subject.to_network(subject.input_spec.normalize(images))
    found = occlusion(
        subject.network,
        inputs,
        input_spec=subject.input_spec,
        layer=options.layer,
        patch=patch,
        stride=stride,
        classes=classes,
    )
    numbers = [] if found.classes is None else found.classes.tolist()
    names = tuple(map(subject.input_spec.class_name, numbers))
    return OccludedImages(images, found, _projections(subject, options, inputs, found), names)


def _projections(subject: Subject, options: OcclusionOptions, inputs: Tensor, found: Occlusion) -> Projections | None:
    if found.channels is None:
        return None
    with isolated(subject.network) as network:
        try:
            rule = options.rule or fitting_rule(network, found.layer, inputs[:1])
            # one by one, so that no picture depends on which images a process shares
            pairs = zip(inputs[:, None], found.channels[:, None], strict=True)
            shown = [project(network, image, found.layer, channel, rule=rule) for image, channel in pairs]
            return Projections.cat(shown)
        except UnsupportedOperationError:
            return None


def _trial(subject: Subject, options: OcclusionOptions) -> tuple[OcclusionOptions, Tensor]:
    """One square that covers noise."""
    shorter = min(subject.input_spec.size)
    count = len(options.classes or [0])
    once = OcclusionOptions(
        options.layer, classes=options.classes, patch=shorter, stride=max(subject.input_spec.size), rule=options.rule
    )
    return once, uniform((count, *subject.input_spec.shape))


def _merge(results: Sequence[OccludedImages]) -> OccludedImages:
    projections = [result.projections for result in results if result.projections is not None]
    return OccludedImages(
        torch.cat([result.images for result in results]),
        Occlusion.cat([result.occlusion for result in results]),
        Projections.cat(projections) if len(projections) == len(results) else None,
        tuple(name for result in results for name in result.class_names),
    )


def _draw(subject: Subject, options: OcclusionOptions, part: str, result: OccludedImages, title: Title) -> Drawings:
    rows = figures.occlusion_cells(result.images, result.occlusion, result.projections, subject.input_spec.class_name)
    return {f"{OCCLUSION.tag}/images": figures.occlusion_figure(rows, title("Occlusion"))}


def _scalars(options: OcclusionOptions, part: str, result: OccludedImages) -> Mapping[str, float]:
    if result.occlusion.probabilities is None:
        return {}
    drops = result.occlusion.drops
    return {
        f"{OCCLUSION.tag}_largest_drop": float(drops.amax(1).mean()),
        f"{OCCLUSION.tag}_mean_drop": float(drops.mean()),
    }


def _strip(options: OcclusionOptions, part: str, result: OccludedImages) -> Strip:
    found = result.occlusion
    captions = [""] * len(result.images)
    if found.probabilities is not None and found.untouched_probabilities is not None:
        captions = [
            f"{name}\n{float(before):.2f} to {float(values.min()):.2f}"
            for name, before, values in zip(
                result.class_names, found.untouched_probabilities, found.probabilities, strict=True
            )
        ]
    return Strip(
        f"{OCCLUSION.tag}/evolution",
        "Occlusion · evolution",
        [f"image {n + 1}" for n in range(len(result.images))],
        figures.as_bytes(figures.small_maps(result.images, found, STRIP_SIDE)),
        captions,
        side=STRIP_SIDE,
    )


def _sections(
    subject: Subject, options: OcclusionOptions, result: OcclusionResult, evolutions: Mapping[str, Any]
) -> list[Section]:
    found: OccludedImages = result.parts[""]
    rows = figures.occlusion_cells(found.images, found.occlusion, found.projections, subject.input_spec.class_name)
    blocks = []
    for original, *others in rows:
        tiles = tuple(Tile(np.asarray(cell.image), cell.head, cell.caption) for cell in others)
        blocks.append(Series(np.asarray(original.image), tiles))
    note = (
        "A grey square slides over the image. The maps show, at the square's place, the activity of the strongest "
        "feature map, the probability of the class, and the most probable class: where the probability falls, the "
        "square covers what the network recognises."
    )
    return [Section("What the network looks at", tuple(blocks), note)]


OCCLUSION = Method(
    name="occlusion",
    tag="occlusion",
    summary=__doc__,
    options=OcclusionOptions,
    parts=_parts,
    prepare=_prepare,
    run=_run,
    merge=_merge,
    draw=_draw,
    trial=_trial,
    scalars=_scalars,
    plots={
        "occlusion_largest_drop": ScalarPlot(
            "Drop of the probability under the most harmful grey square", "Mean over the images."
        ),
        "occlusion_mean_drop": ScalarPlot(
            "Drop of the probability under a grey square", "Mean over the images and the places of the square."
        ),
    },
    strip=_strip,
    probes=lambda options: options.count if options.images is None else 0,
    result=OcclusionResult,
    section=_sections,
)
register_method(OCCLUSION)
