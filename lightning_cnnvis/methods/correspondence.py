"""Cover the same part in several images, and compare how layers react.

Zeiler & Fergus 2013 (arXiv 1311.2901), section 4.4.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_cnnvis import figures
from lightning_cnnvis.functional.network.defaults import choose_depths
from lightning_cnnvis.functional.network.output import class_indices, read_output, tensor_of
from lightning_cnnvis.functional.noise import uniform
from lightning_cnnvis.functional.sensitivity.correspondence import RANDOM, Correspondence, check_boxes, correspondence
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.inputs.one_class import of_one_class
from lightning_cnnvis.inputs.parts import Boxes, PartsError, fit_box, read_parts
from lightning_cnnvis.inputs.photographs import check_photographs, fit_photograph, read_photograph
from lightning_cnnvis.isolation import isolated
from lightning_cnnvis.layers import naming_layer
from lightning_cnnvis.methods.checks import check_at_least_one, check_lists
from lightning_cnnvis.methods.method import Drawings, Method, Parts, ScalarPlot, Strip, Title
from lightning_cnnvis.methods.registry import register_method
from lightning_cnnvis.methods.results import Result
from lightning_cnnvis.methods.subject import Subject
from lightning_cnnvis.viewer.content import Gallery, Section, Tile

STRIP_SIDE = 96
"""Side in pixels of the pictures of a strip."""


@dataclass(frozen=True)
class CorrespondenceOptions:
    """Covers the same part in several images, and compares how layers react; see `correspondence`.

    Args:
        layers: Dotted names of the layers; a low, a middle and a high rectified convolution if None.
        images: Photographs: files, which are cut to the network's input size, or ``(N, C, H, W)`` in [0, 1] of that
            size. Those that the parts' file names, or images of one class, if None.
        parts: Parts that are marked in each image: a CSV file with the columns image, part, top, left, bottom and
            right, in pixels of the photograph, or a YAML file ``{part: {image: [top, left, bottom, right]}}``; or boxes
            ``(N, 4)`` by name. Five places that are the same in all images if None.
        of_class: Name or number of the class whose images are taken where none are given; the first of which there are
            enough if None. Where the data do not tell the classes, they are what the network takes the images for.
        count: Number of images of the class.
        random_sets: Number of sets of random parts to compare to.
        seed: Seed of the random parts.

    Raises:
        ValueError: If an option is out of range, a photograph or the parts cannot be read or do not fit together, or
            there is no such layer or class.
    """

    layers: Sequence[str] | None = None
    _: KW_ONLY
    images: Sequence[str | Path] | Tensor | None = None
    parts: str | Path | Boxes | None = None
    of_class: int | str | None = None
    count: int = 5
    random_sets: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the ranges, and that photographs and parts can be read and fit together."""
        check_lists(layers=self.layers, images=self.images)
        check_at_least_one(random_sets=self.random_sets)
        if self.count < 2:
            raise ValueError(f"count={self.count} must be at least 2: a correspondence compares images.")
        if isinstance(self.parts, str | Path):
            marked, _ = read_parts(self.parts)
            _files_of(self.parts, marked, self.images)
        check_photographs(self.images)
        if self.images is not None and len(self.images) < 2:
            raise ValueError("A correspondence compares images, but there is only one. Give at least two.")


class MarkedImages(NamedTuple):
    """Images with parts.

    Attributes:
        images: ``(N, C, H, W)`` in [0, 1].
        parts: Boxes of each part, ``(N, 4)``.
    """

    images: Tensor
    parts: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class CoveredParts:
    """How layers react when parts of images are covered.

    Attributes:
        images: ``(N, C, H, W)`` in [0, 1].
        correspondence: The deltas.
    """

    images: Tensor
    correspondence: Correspondence


class CorrespondenceResult(Result):
    """How layers react when the same part is covered in several images."""

    @property
    def images(self) -> Tensor:
        """The images, ``(N, C, H, W)`` in [0, 1]."""
        found: CoveredParts = self.parts[""]
        return found.images

    @property
    def correspondence(self) -> Correspondence:
        """The deltas by layer and part."""
        found: CoveredParts = self.parts[""]
        return found.correspondence


def same_places(count: int, size: tuple[int, int]) -> dict[str, Tensor]:
    """Five squares, a quarter of the shorter side, at the same places in all images: for images without marked parts.

    Args:
        count: Number of images.
        size: Their height and width in pixels.

    Returns:
        Boxes ``(count, 4)`` by the name of the place.

    Examples:
        >>> {place: boxes.tolist() for place, boxes in same_places(1, (16, 32)).items()}["centre"]
        [[6, 14, 10, 18]]
    """
    side = max(1, min(size) // 4)
    places = {
        "centre": (0.5, 0.5), "upper left": (0.25, 0.25), "upper right": (0.25, 0.75),
        "lower left": (0.75, 0.25), "lower right": (0.75, 0.75),
    }  # fmt: skip
    found = {}
    for name, shares in places.items():
        top, left = (min(max(0, round(n * share - side / 2)), n - side) for n, share in zip(size, shares, strict=True))
        found[name] = torch.tensor([[top, left, top + side, left + side]] * count, device="cpu")
    return found


def _files_of(parts: str | Path, marked: Sequence[str], images: Sequence[str | Path] | Tensor | None) -> list[Path]:
    """The photographs that a file of parts is about: those given, by their names, or those beside it."""
    if isinstance(images, Tensor):
        raise PartsError(f"{parts} names files, but images is a tensor. Give files, or boxes (N, 4) by name.")
    given = {Path(path).name: Path(path) for path in images or ()}
    lacking = [name for name in marked if Path(name).name not in given] if images is not None else []
    if lacking:
        raise PartsError(f"{parts} marks {lacking[0]}, which is not among the images. Give it, too.")
    files = [given[Path(name).name] if given else Path(parts).parent / name for name in marked]
    check_photographs(files)
    if len(files) < 2:
        raise PartsError(f"{parts} marks parts of one image. Mark at least two: a correspondence compares images.")
    return files


def _parts(subject: Subject, options: CorrespondenceOptions) -> Parts:
    if options.of_class is not None:
        class_indices([options.of_class], subject.number_of_classes(), subject.input_spec)
    if options.layers is None:
        return {"": choose_depths(subject.default_layers())}
    return {"": subject.known_layers(options.layers)}


def _prepare(subject: Subject, options: CorrespondenceOptions, parts: Parts) -> MarkedImages:
    spec = subject.input_spec
    if isinstance(options.parts, str | Path):
        marked, boxes = read_parts(options.parts)
        return _fitted(_files_of(options.parts, marked, options.images), boxes, spec)
    if options.images is not None and not isinstance(options.images, Tensor):
        return _fitted(options.images, options.parts, spec)
    images = _of_class(subject, options) if options.images is None else options.images
    size = (images.shape[2], images.shape[3])
    if options.parts is None:
        return MarkedImages(images, same_places(len(images), size))
    return MarkedImages(
        images, {name: check_boxes(name, boxes, len(images), size) for name, boxes in options.parts.items()}
    )


def _fitted(files: Sequence[str | Path], boxes: Boxes | None, spec: InputSpec) -> MarkedImages:
    """Photographs at the size of the network's input, with the boxes at the same places."""
    photographs = [read_photograph(file, spec.channels) for file in files]
    images = torch.stack([fit_photograph(photograph, spec.size) for photograph in photographs])
    if boxes is None:
        return MarkedImages(images, same_places(len(images), spec.size))
    parts = {}
    for name, own in boxes.items():
        if len(own) != len(files):
            raise PartsError(f"Part {name!r} has {len(own)} boxes for {len(files)} images. Give one for each image.")
        parts[name] = torch.tensor(
            [
                _fitted_box(f"Part {name!r} in {file}", box, photograph, spec.size)
                for file, box, photograph in zip(files, own, photographs, strict=True)
            ],
            device="cpu",
        )
    return MarkedImages(images, parts)


def _fitted_box(which: str, box: Sequence[int], photograph: Tensor, size: tuple[int, int]) -> list[int]:
    try:
        return fit_box(list(box), photograph, size)
    except ValueError as error:
        raise PartsError(f"{which}: {error}") from error


def _of_class(subject: Subject, options: CorrespondenceOptions) -> Tensor:
    spec = subject.input_spec
    wanted: list[int | str] = []
    if options.of_class is not None:
        (number,) = class_indices([options.of_class], subject.number_of_classes(), spec)
        wanted = [number, spec.class_name(number)]
    with isolated(subject.network) as network, torch.no_grad():
        return of_one_class(_labelled(replace(subject, network=network)), options.count, wanted)


def _labelled(subject: Subject) -> Iterator[tuple[Tensor, Sequence[int | str]]]:
    """The images with their classes; those that the network takes them for where the data do not tell."""
    spec = subject.input_spec
    output = read_output(subject.network, spec, subject.blank())
    for images, labels in subject.images.labelled(spec):
        if labels is not None:
            yield images, labels
        elif output is None:  # any two are as good as any others
            yield images, [0] * len(images)
        else:
            logits = tensor_of(subject.network(subject.to_network(spec.normalize(images))))
            yield images, output.labels(logits).tolist()


def _run(
    subject: Subject, options: CorrespondenceOptions, part: str, layers: Sequence[str], marked: MarkedImages
) -> CoveredParts:
    with naming_layer(", ".join(layers)):  # which are compared together
        found = correspondence(
            subject.network,
            subject.to_network(subject.input_spec.normalize(marked.images)),
            marked.parts,
            layers,
            input_spec=subject.input_spec,
            random_sets=options.random_sets,
            seed=options.seed,
        )
    return CoveredParts(marked.images, found)


def _trial(subject: Subject, options: CorrespondenceOptions) -> tuple[CorrespondenceOptions, MarkedImages]:
    """Two images of noise."""
    images = uniform((2, *subject.input_spec.shape), options.seed)
    places = same_places(2, subject.input_spec.size)
    return replace(options, random_sets=1), MarkedImages(images, {"centre": places["centre"]})


def _merge(results: Sequence[CoveredParts]) -> CoveredParts:
    first = results[0].correspondence
    deltas = {layer: of for result in results for layer, of in result.correspondence.deltas.items()}
    stds = {layer: of for result in results for layer, of in result.correspondence.stds.items()}
    return CoveredParts(results[0].images, replace(first, deltas=deltas, stds=stds))


def _draw(subject: Subject, options: CorrespondenceOptions, part: str, result: CoveredParts, title: Title) -> Drawings:
    picture = figures.correspondence_figure(result.images, result.correspondence, title("Correspondence"))
    return {f"{CORRESPONDENCE.tag}/parts": picture}


def _scalars(options: CorrespondenceOptions, part: str, result: CoveredParts) -> Mapping[str, float]:
    return {
        f"{CORRESPONDENCE.tag}_delta/{layer}/{name}": delta
        for layer, of in result.correspondence.deltas.items()
        for name, delta in of.items()
    }


def _tables(options: CorrespondenceOptions, part: str, result: CoveredParts) -> Mapping[str, str]:
    return {f"{CORRESPONDENCE.tag}/deltas": result.correspondence.to_csv()}


def _strip(options: CorrespondenceOptions, part: str, result: CoveredParts) -> Strip:
    found = result.correspondence
    colours = figures.colours_of(found)
    captions = [
        f"{min(delta for name, delta in of.items() if name != RANDOM):.2f} to "
        f"{max(delta for name, delta in of.items() if name != RANDOM):.2f}\nrandom {of[RANDOM]:.2f}"
        for of in found.deltas.values()
    ]
    return Strip(
        f"{CORRESPONDENCE.tag}/evolution",
        "Correspondence · evolution",
        list(found.deltas),
        torch.stack([figures.small_bars(of, colours, STRIP_SIDE) for of in found.deltas.values()]),
        captions,
        side=STRIP_SIDE,
    )


def _sections(
    subject: Subject, options: CorrespondenceOptions, result: CorrespondenceResult, evolutions: Mapping[str, Any]
) -> list[Section]:
    found: CoveredParts = result.parts[""]
    images = figures.images_with_parts(found.images, found.correspondence)
    tiles = [Tile(np.asarray(image), f"image {n + 1}") for n, image in enumerate(images)]
    bars = Tile(np.asarray(figures.delta_bars(found.correspondence, 420)), "delta")
    note = (
        "The same part is covered in each image. Delta is the share of a layer's features whose change has another "
        "sign from image to image: where it is below that of random parts, the layer reacts alike."
    )
    return [Section("Whether parts correspond", (Gallery(tuple(tiles)), Gallery((bars,))), note)]


CORRESPONDENCE = Method(
    name="correspondence",
    tag="correspondence",
    summary=__doc__,
    options=CorrespondenceOptions,
    parts=_parts,
    prepare=_prepare,
    run=_run,
    merge=_merge,
    draw=_draw,
    trial=_trial,
    scalars=_scalars,
    tables=_tables,
    plots={
        "correspondence_delta": ScalarPlot(
            "Difference of what covering a part changes, from image to image",
            "Below that of random parts, the layer reacts alike.",
        )
    },
    strip=_strip,
    result=CorrespondenceResult,
    section=_sections,
)
register_method(CORRESPONDENCE)
