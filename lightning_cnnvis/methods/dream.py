"""Enhance in a photograph what layers see in it.

Mordvintsev, Olah & Tyka 2015, https://research.google/blog/inceptionism-going-deeper-into-neural-networks/.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_cnnvis import figures
from lightning_cnnvis.functional.deepdream.octaves import Dream, DreamOptions, dream, zoom
from lightning_cnnvis.functional.network.defaults import choose_depths
from lightning_cnnvis.layers import naming_layer
from lightning_cnnvis.methods.checks import check_lists
from lightning_cnnvis.methods.method import Drawings, Method, Parts, Strip, Title
from lightning_cnnvis.methods.photograph import check_photograph, photograph_of
from lightning_cnnvis.methods.registry import register_method
from lightning_cnnvis.methods.results import Animation, Result
from lightning_cnnvis.methods.subject import Subject
from lightning_cnnvis.pictures import Picture, as_picture
from lightning_cnnvis.viewer.content import Section, Series
from lightning_cnnvis.viewer.tiles import page_pictures, page_tiles

PICTURE_SIDE, STRIP_SIDE = 384, 128
"""Longest side in pixels of a small photograph's tiles, and of the pictures of a strip."""


@dataclass(frozen=True)
class PhotographOptions:
    """Enhances in a photograph what layers see in it; see `dream`. Low layers give strokes, high layers objects.

    Args:
        layers: Dotted names of the layers; a low, a middle and a high rectified convolution if None.
        channels: Numbers of the only channels to enhance, from 0; all together if None.
        image: Photograph: a file, or ``(C, H, W)`` in [0, 1]. The first of the images if None.
        size: Longer side in pixels that a larger photograph is scaled down to; None leaves it as it is.
        zoom_frames: Number of frames of an animation of an endless fall (`zoom`) for each layer; 0 for none. A frame
            takes about a third of a dream's time.
        picture_side: Longer side in pixels of the pictures that are drawn; that of the photograph, but at least 384, if
            None.
        options: Strength and scales of the dream.
        seed: Seed of the random shifts.

    Raises:
        ValueError: If an option is out of range, the photograph cannot be read or is too small for a layer, a layer is
            not there, or a channel is out of range.
    """

    layers: Sequence[str] | None = None
    channels: Sequence[int] | None = None
    _: KW_ONLY
    image: str | Path | Tensor | None = None
    size: int | None = 512
    zoom_frames: int = 0
    picture_side: int | None = None
    options: DreamOptions | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the ranges, and that the photograph can be read."""
        check_lists(layers=self.layers, channels=self.channels)
        if self.zoom_frames < 0:
            raise ValueError(f"zoom_frames={self.zoom_frames} must be 0 for no animation, or more.")
        for name in ("size", "picture_side"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1 pixel.")
        check_photograph(self.image)


@dataclass(frozen=True, eq=False)
class Dreams:
    """A photograph as layers dream it.

    Attributes:
        photograph: ``(C, H, W)`` in [0, 1].
        dreams: The dreams by layer.
        zooms: Frames of an endless fall, by layer.
    """

    photograph: Tensor
    dreams: Mapping[str, Dream]
    zooms: Mapping[str, list[Picture]] = field(default_factory=dict)

    @property
    def pictures(self) -> Tensor:
        """The dreams ``(L, 3, H, W)``, ``uint8``."""
        return torch.cat([figures.as_bytes(dreamt.images) for dreamt in self.dreams.values()])


class DreamResult(Result):
    """A photograph as layers dream it."""

    @property
    def dreams(self) -> Mapping[str, Dream]:
        """The dreams by layer."""
        found: Dreams = self.parts[""]
        return found.dreams


def _parts(subject: Subject, options: PhotographOptions) -> Parts:
    if options.layers is None:
        return {"": choose_depths(subject.default_layers())}
    return {"": subject.known_layers(options.layers)}


def _prepare(subject: Subject, options: PhotographOptions, parts: Parts) -> Tensor:
    """The photograph."""
    return photograph_of(subject, options.image, options.size)


def _run(subject: Subject, options: PhotographOptions, part: str, layers: Sequence[str], photograph: Tensor) -> Dreams:
    dreams, zooms = {}, {}
    for layer in layers:
        with naming_layer(layer):
            dreams[layer] = dream(
                subject.network,
                photograph,
                layer,
                input_spec=subject.input_spec,
                channels=options.channels,
                seed=options.seed,
                options=options.options,
            )
            if options.zoom_frames:
                frames = zoom(
                    subject.network,
                    photograph,
                    layer,
                    input_spec=subject.input_spec,
                    frames=options.zoom_frames,
                    seed=options.seed,
                    options=options.options,
                )
                zooms[layer] = [as_picture(frame) for frame in frames]
    return Dreams(photograph, dreams, zooms)


def _trial(subject: Subject, options: PhotographOptions) -> tuple[PhotographOptions, Tensor]:
    """A single step on a blank picture."""
    once = replace(options, zoom_frames=0, options=DreamOptions(octaves=1, steps=1))
    return once, torch.zeros(subject.input_spec.shape, dtype=torch.float32, device="cpu")


def _merge(results: Sequence[Dreams]) -> Dreams:
    dreams = {layer: dreamt for result in results for layer, dreamt in result.dreams.items()}
    zooms = {layer: frames for result in results for layer, frames in result.zooms.items()}
    return Dreams(results[0].photograph, dreams, zooms)


def _draw(subject: Subject, options: PhotographOptions, part: str, result: Dreams, title: Title) -> Drawings:
    original = figures.as_bytes(result.photograph[None])
    side = options.picture_side or max(PICTURE_SIDE, *original.shape[-2:])
    drawn: dict[str, Picture | Animation] = {
        f"{DREAM.tag}/{layer}": figures.labelled_pictures(
            torch.cat([original, picture[None]]), ["photograph", layer], ["", "dreamt"], title(layer), side=side
        )
        for layer, picture in zip(result.dreams, result.pictures, strict=True)
    }
    return drawn | {f"{DREAM.tag}_zoom/{layer}": Animation(frames) for layer, frames in result.zooms.items()}


def _strip(options: PhotographOptions, part: str, result: Dreams) -> Strip:
    small = figures.as_bytes(figures.reduced(figures.from_bytes(result.pictures), STRIP_SIDE))
    return Strip(
        f"{DREAM.tag}/evolution",
        "DeepDream · evolution",
        list(result.dreams),
        small,
        [""] * len(small),
        original=result.photograph,
        side=STRIP_SIDE,
    )


def _sections(
    subject: Subject, options: PhotographOptions, result: DreamResult, evolutions: Mapping[str, Any]
) -> list[Section]:
    found: Dreams = result.parts[""]
    (original,) = page_pictures(found.photograph[None])
    tiles = page_tiles(figures.from_bytes(found.pictures), list(found.dreams))
    note = "A photograph in which each layer sees more of what it sees: low layers give strokes, high layers objects."
    return [Section("Dreams", (Series(original, tiles),), note)]


DREAM = Method(
    name="dream",
    tag="deepdream",
    summary=__doc__,
    options=PhotographOptions,
    parts=_parts,
    prepare=_prepare,
    run=_run,
    merge=_merge,
    draw=_draw,
    trial=_trial,
    strip=_strip,
    probes=lambda options: 1 if options.image is None else 0,
    result=DreamResult,
    section=_sections,
)
register_method(DREAM)
