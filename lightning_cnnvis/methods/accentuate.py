"""Bring out in a photograph what classes, units or layers see in it.

Hamblin et al. 2024 (arXiv 2402.10039).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_cnnvis import figures
from lightning_cnnvis.functional.network.defaults import choose_depths
from lightning_cnnvis.functional.network.output import class_indices, read_output, tensor_of
from lightning_cnnvis.functional.optimization.transforms import resize
from lightning_cnnvis.functional.visualization.accentuation import Accentuations, accentuate
from lightning_cnnvis.isolation import isolated
from lightning_cnnvis.layers import naming_layer
from lightning_cnnvis.methods.checks import check_at_least_one, check_lists
from lightning_cnnvis.methods.method import Drawings, Method, Parts, Strip, Title
from lightning_cnnvis.methods.photograph import check_photograph, photograph_of
from lightning_cnnvis.methods.registry import register_method
from lightning_cnnvis.methods.results import Result
from lightning_cnnvis.methods.subject import Subject
from lightning_cnnvis.viewer.content import Section, Series
from lightning_cnnvis.viewer.tiles import page_pictures, page_tiles

PICTURE_SIDE, STRIP_SIDE = 224, 128
"""Longest side in pixels of a small photograph's tiles, and of the pictures of a strip."""


@dataclass(frozen=True)
class AccentuateOptions:
    """Brings out in a photograph what classes, units or layers see in it; see `accentuate`.

    Args:
        layers: Dotted names of the layers. Without layers and classes: a low, a middle and a high rectified
            convolution, and the class that the network takes the photograph for.
        channels: Numbers of the channels of each layer, from 0, an image for each; all of a layer together if None.
        classes: Classes, by number or name.
        image: Photograph: a file, or ``(C, H, W)`` in [0, 1]. The first of the images if None.
        size: Longer side in pixels that a larger photograph is scaled down to; None leaves it as it is.
        weight: Weight of the distance to the photograph: more keeps more of it, 0 lets go.
        keep: Layer of the features that are to stay; a rectified convolution at a quarter of the depth if None.
        steps: Number of optimisation steps.
        seed: Seed of the random moves.

    Raises:
        ValueError: If an option is out of range, the photograph cannot be read, or there is no such layer, channel or
            class.
    """

    layers: Sequence[str] | None = None
    channels: Sequence[int] | None = None
    _: KW_ONLY
    classes: Sequence[int | str] | None = None
    image: str | Path | Tensor | None = None
    size: int | None = 512
    weight: float = 1.0
    keep: str | None = None
    steps: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the ranges, and that the photograph can be read."""
        check_lists(layers=self.layers, channels=self.channels, classes=self.classes)
        check_at_least_one(steps=self.steps, size=self.size)
        if not (self.weight >= 0 and math.isfinite(self.weight)):
            raise ValueError(f"weight={self.weight} must be 0 or more.")
        if self.channels is not None and not self.layers:
            raise ValueError(
                f"channels={list(self.channels)} requires layers: name the layers that they belong to, layers=[...]."
            )
        check_photograph(self.image)


class Target(NamedTuple):
    """What is brought out: a class, or a layer or a unit of it.

    Attributes:
        layer: The layer; empty for a class.
        number: Number of the class or channel; None for all of a layer, and for the photograph's own class.
    """

    layer: str
    number: int | None


class AccentuateResult(Result):
    """A photograph with what classes, units or layers see in it."""

    @property
    def accentuations(self) -> Accentuations:
        """The images, with how far each got."""
        found: Accentuations = self.parts[""]
        return found


def _parts(subject: Subject, options: AccentuateOptions) -> Parts:
    if options.keep is not None:
        subject.known_layers([options.keep])
    of_classes: list[Target] = []
    if options.classes is not None:
        numbers = class_indices(options.classes, _classes_of(subject), subject.input_spec)
        of_classes = [Target("", number) for number in numbers]
    elif options.layers is None and not subject.absent and subject.number_of_classes():
        of_classes = [Target("", None)]
    if options.layers is None:
        layers = [] if options.classes is not None else choose_depths(subject.default_layers())
    else:
        layers = subject.known_layers(options.layers)
    channels: Sequence[int | None] = options.channels or [None]
    of_layers = [Target(layer, channel) for layer in layers for channel in channels]
    return {"": [*of_classes, *of_layers]}


def _classes_of(subject: Subject) -> int:
    count = 0 if subject.absent else subject.number_of_classes()
    if not count:
        raise ValueError(
            f"{type(subject.network).__name__} is not a classifier, or its weights lack what tells the classes apart. "
            "Name layers instead."
        )
    return count


def _prepare(subject: Subject, options: AccentuateOptions, parts: Parts) -> Tensor:
    """The photograph."""
    return photograph_of(subject, options.image, options.size)


def _run(
    subject: Subject, options: AccentuateOptions, part: str, targets: Sequence[Target], photograph: Tensor
) -> Accentuations:
    found = []
    for target in targets:
        what: dict[str, Any]
        if target.layer:
            what = {"layer": target.layer, "channels": None if target.number is None else [target.number]}
        else:
            what = {"classes": [_own_class(subject, photograph) if target.number is None else target.number]}
        with naming_layer(target.layer):
            found.append(
                accentuate(
                    subject.network,
                    photograph,
                    input_spec=subject.input_spec,
                    weight=options.weight,
                    keep=options.keep,
                    steps=options.steps,
                    seed=options.seed,
                    **what,
                )
            )
    return Accentuations.cat(found)


def _own_class(subject: Subject, photograph: Tensor) -> int:
    """The class that the network takes the photograph for."""
    spec = subject.input_spec
    inputs = subject.to_network(spec.normalize(resize(photograph[None], spec.size)))
    with torch.no_grad(), isolated(subject.network) as network:
        output = read_output(network, spec, subject.blank())
        if output is None:
            raise ValueError(f"{type(subject.network).__name__} is not a classifier. Name layers instead.")
        return int(output.labels(tensor_of(network(inputs)))[0])


def _trial(subject: Subject, options: AccentuateOptions) -> tuple[AccentuateOptions, Tensor]:
    """A single step on a blank picture."""
    return replace(options, steps=1), torch.full(subject.input_spec.shape, 0.5, dtype=torch.float32, device="cpu")


def _draw(subject: Subject, options: AccentuateOptions, part: str, result: Accentuations, title: Title) -> Drawings:
    side = max(PICTURE_SIDE, *result.images.shape[-2:])
    picture = figures.accentuation_figure(result, title("Accentuated"), side=min(side, 384))
    return {f"{ACCENTUATE.tag}/targets": picture}


def _strip(options: AccentuateOptions, part: str, result: Accentuations) -> Strip:
    return Strip(
        f"{ACCENTUATE.tag}/evolution",
        "Accentuated · evolution",
        _rows(options, result),
        figures.as_bytes(figures.reduced(result.images, STRIP_SIDE)),
        [figures.accentuation_caption(result, n) for n in range(len(result.labels))],
        original=result.photographs[0],
        side=STRIP_SIDE,
    )


def _rows(options: AccentuateOptions, result: Accentuations) -> list[str]:
    """The labels of a strip's rows, the same at every epoch: the photograph's own class may be another one later."""
    own = options.classes is None and options.layers is None and not bool(result.probabilities[0].isnan().any())
    return ["its class", *result.labels[1:]] if own else list(result.labels)


def _sections(
    subject: Subject, options: AccentuateOptions, result: AccentuateResult, evolutions: Mapping[str, Any]
) -> list[Section]:
    found = result.accentuations
    (original,) = page_pictures(found.photographs[:1])
    states = [figures.accentuation_caption(found, n) for n in range(len(found.labels))]
    tiles = page_tiles(found.images, list(found.labels), states)
    return [Section("Accentuated", (Series(original, tiles),), figures.ACCENTUATION)]


ACCENTUATE = Method(
    name="accentuate",
    tag="accentuation",
    summary=__doc__,
    options=AccentuateOptions,
    parts=_parts,
    prepare=_prepare,
    run=_run,
    merge=Accentuations.cat,
    draw=_draw,
    trial=_trial,
    strip=_strip,
    probes=lambda options: 1 if options.image is None else 0,
    result=AccentuateResult,
    section=_sections,
)
register_method(ACCENTUATE)
