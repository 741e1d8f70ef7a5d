"""Change a photograph so that layers see the style of other pictures in it.

Gatys, Ecker & Bethge 2015 (arXiv 1508.06576).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_cnnvis import figures
from lightning_cnnvis.functional.network.output import class_indices
from lightning_cnnvis.functional.noise import uniform
from lightning_cnnvis.functional.style.transfer import Style, check_strength, stylize
from lightning_cnnvis.inputs.photographs import check_photographs, read_photograph
from lightning_cnnvis.layers import naming_layer
from lightning_cnnvis.methods.checks import check_at_least_one, check_lists
from lightning_cnnvis.methods.method import Drawings, Method, Parts, ScalarPlot, Strip, Title
from lightning_cnnvis.methods.photograph import bounded, check_photograph, photograph_of
from lightning_cnnvis.methods.registry import register_method
from lightning_cnnvis.methods.results import Result
from lightning_cnnvis.methods.subject import Subject
from lightning_cnnvis.viewer.content import Section, Series
from lightning_cnnvis.viewer.tiles import page_pictures, page_tiles

PICTURE_SIDE, STRIP_SIDE = 256, 128
"""Longest side in pixels of a small photograph's tiles, and of the pictures of a strip."""


@dataclass(frozen=True)
class StyleOptions:
    """Changes a photograph so that layers see the style of other pictures in it; see `stylize`.

    Args:
        layers: Dotted names of the layers that hold the style; the first rectified convolution of each size of map if
            None.
        content_layer: Dotted name of the layer that holds the content; the last rectified convolution if None.
        image: Photograph: a file, or ``(C, H, W)`` in [0, 1]. The first of the images if None.
        style: Pictures whose style it takes: files, or ``(N, C, H, W)`` in [0, 1]. Those of ``style_class``, or those
            that follow the first of the images, if None.
        style_class: Number or name of a class of the images, whose style is taken: what its photographs have in common.
        count: Number of images to take for the style where no pictures are given.
        size: Longer side in pixels that larger pictures are scaled down to, which bounds the memory; None leaves them.
        content_weight: Weight of the content, relative to the style: more keeps more of the photograph.
        steps: Number of optimisation steps.

    Raises:
        ValueError: If an option is out of range, a picture cannot be read or is too small for a layer, a layer or class
            is not there, or both a style and a class of it are given.
    """

    layers: Sequence[str] | None = None
    _: KW_ONLY
    content_layer: str | None = None
    image: str | Path | Tensor | None = None
    style: Sequence[str | Path] | Tensor | None = None
    style_class: int | str | None = None
    count: int = 4
    size: int | None = 512
    content_weight: float = 0.1
    steps: int = 200

    def __post_init__(self) -> None:
        """Checks the ranges, and that the pictures can be read."""
        check_lists(layers=self.layers, style=self.style)
        check_at_least_one(count=self.count, size=self.size)
        check_strength(self.content_weight, self.steps)
        if self.style is not None and self.style_class is not None:
            raise ValueError("Both style and style_class are given: the style is that of one of them.")
        check_photograph(self.image)
        check_photographs(self.style)


@dataclass(frozen=True, eq=False)
class Stylized:
    """A photograph in the style of other pictures.

    Attributes:
        photograph: ``(C, H, W)`` in [0, 1].
        pictures: The pictures of the style, each ``(C, h, w)`` in [0, 1].
        style: The result.
    """

    photograph: Tensor
    pictures: tuple[Tensor, ...]
    style: Style


class StyleResult(Result):
    """A photograph in the style of other pictures."""

    @property
    def style(self) -> Style:
        """The picture, with its distances."""
        found: Stylized = self.parts[""]
        return found.style


Prepared = tuple[Tensor, tuple[Tensor, ...]]
"""The photograph, and the pictures of the style."""


def _parts(subject: Subject, options: StyleOptions) -> Parts:
    named = [*(options.layers or ()), *([options.content_layer] if options.content_layer is not None else [])]
    subject.known_layers(named)
    if options.layers is None or options.content_layer is None:
        subject.rectified_layers()  # to choose from
    if options.style_class is not None:
        class_indices([options.style_class], subject.number_of_classes(), subject.input_spec)
    return {"": [0]}


def _prepare(subject: Subject, options: StyleOptions, parts: Parts) -> Prepared:
    spec = subject.input_spec
    if isinstance(options.style, Tensor):
        pictures = list(options.style)
    elif options.style is not None:
        pictures = [read_photograph(path, spec.channels) for path in options.style]
    elif options.style_class is not None:
        pictures = _of_class(subject, options.style_class, options.count)
    else:
        own = 1 if options.image is None else 0
        pictures = list(subject.images.first(options.count + own, spec))[own:]
        if not pictures:
            raise ValueError("There is one image, and none whose style it could take. Give style.")
    photograph = photograph_of(subject, options.image, options.size)
    return photograph, tuple(bounded(picture, options.size) for picture in pictures)


def _of_class(subject: Subject, wanted: int | str, count: int) -> list[Tensor]:
    """The first images of a class, at least one."""
    spec = subject.input_spec
    (number,) = class_indices([wanted], subject.number_of_classes(), spec)
    found: list[Tensor] = []
    for images, labels in subject.images.labelled(spec):
        known = labels if labels is not None else ()
        found += [one for one, label in zip(images, known, strict=False) if label in (number, spec.class_name(number))]
        if len(found) >= count:
            break
    if not found:
        raise ValueError(f"style_class={wanted!r}: the images have none of that class, or no labels. Give style.")
    return found[:count]


def _run(subject: Subject, options: StyleOptions, part: str, items: Sequence[int], prepared: Prepared) -> Stylized:
    photograph, pictures = prepared
    with naming_layer(", ".join(options.layers or ())):
        found = stylize(
            subject.network,
            photograph,
            pictures,
            input_spec=subject.input_spec,
            content_layer=options.content_layer,
            style_layers=None if options.layers is None else subject.known_layers(options.layers),
            content_weight=options.content_weight,
            steps=options.steps,
        )
    if subject.absent:  # what is there of it does not tell classes apart
        found = replace(found, labels=None)
    return Stylized(photograph, pictures, found)


def _trial(subject: Subject, options: StyleOptions) -> tuple[StyleOptions, Prepared]:
    """A single step on noise."""
    photograph, picture = uniform((2, *subject.input_spec.shape), 0)
    return replace(options, steps=1), (photograph, (picture,))


def _draw(subject: Subject, options: StyleOptions, part: str, result: Stylized, title: Title) -> Drawings:
    found, names = result.style, []
    if found.labels is not None:
        names = [subject.input_spec.class_name(int(label)) for label in found.labels[0]]
    side = max(PICTURE_SIDE, *result.photograph.shape[-2:])
    picture = figures.style_figure(result.photograph, result.pictures, found, names, title("Style"), side=side)
    return {f"{STYLE.tag}/picture": picture}


def _scalars(options: StyleOptions, part: str, result: Stylized) -> Mapping[str, float]:
    found = result.style
    left = {
        f"style_distance/{layer}": float(share) for layer, share in zip(found.layers, found.remaining[0], strict=True)
    }
    kept = {} if found.kept is None else {"style_label_kept/picture": float(found.kept[0])}
    return {**left, **kept}


def _strip(options: StyleOptions, part: str, result: Stylized) -> Strip:
    return Strip(
        f"{STYLE.tag}/evolution",
        "Style · evolution",
        ["style"],
        figures.as_bytes(figures.reduced(result.style.images.clamp(0, 1), STRIP_SIDE)),
        [figures.style_caption(result.style)],
        original=result.photograph,
        side=STRIP_SIDE,
    )


def _sections(
    subject: Subject, options: StyleOptions, result: StyleResult, evolutions: Mapping[str, Any]
) -> list[Section]:
    found: Stylized = result.parts[""]
    (original,) = page_pictures(found.photograph[None])
    state = f"style distance {figures.style_caption(found.style)}"
    tiles = page_tiles(found.style.images.clamp(0, 1), ["in the style of the others"], [state])
    note = (
        "A photograph, and what becomes of it where the layers' Gram matrices, which hold texture and colour without "
        "their places, are those of other pictures, and the features of a higher layer stay."
    )
    return [Section("Style", (Series(original, tiles),), note)]


STYLE = Method(
    name="style",
    tag="style",
    summary=__doc__,
    options=StyleOptions,
    parts=_parts,
    prepare=_prepare,
    run=_run,
    draw=_draw,
    trial=_trial,
    scalars=_scalars,
    plots={
        "style_distance": ScalarPlot(
            "What is left of the style distance",
            "Of Gram matrices, squared, as a share of the photograph's: near 0 where a layer's texture can be had "
            "without giving up the content.",
        ),
        "style_label_kept": ScalarPlot(
            "Stylised photographs of the original's class", "1 where the network takes the result for the same class."
        ),
    },
    strip=_strip,
    probes=lambda options: 1 + options.count if options.style is None and options.style_class is None else 1,
    result=StyleResult,
    section=_sections,
    report=None,
)
register_method(STYLE)
