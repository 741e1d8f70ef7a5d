"""Figures of correspondence: parts drawn into images, and the table of what covering them changes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from lightning_cnnvis.figures.layout import (
    FAINT,
    INK,
    PAPER,
    TEXT,
    figure,
    font,
    mosaic,
    one_line,
    shortened,
    stacked,
    tile,
)
from lightning_cnnvis.functional.sensitivity.correspondence import RANDOM, Correspondence
from lightning_cnnvis.pictures import Picture

Colour = tuple[int, int, int]

_COLOURS: tuple[Colour, ...] = (
    (235, 105, 20), (30, 120, 220), (40, 160, 70), (200, 40, 130), (140, 90, 200), (180, 150, 20),
)  # fmt: skip
_OF_RANDOM = (130, 130, 140)
_ROW = TEXT + 9


def colours_of(found: Correspondence) -> dict[str, Colour]:
    """The colour of each part; random ones are grey."""
    return {part: _COLOURS[n % len(_COLOURS)] for n, part in enumerate(found.parts)} | {RANDOM: _OF_RANDOM}


def with_boxes(image: Tensor, boxes: Sequence[tuple[Sequence[int], Colour]], *, side: int = 144) -> Image.Image:
    """Draws boxes into an image.

    Args:
        image: ``(C, H, W)`` in [0, 1].
        boxes: Top, left, bottom and right of each in pixels of the image, and its colour.
        side: Length of the picture's longer side in pixels.

    Returns:
        The picture.
    """
    drawn = tile(image, side, smooth=True)
    down, right_ = drawn.height / image.shape[1], drawn.width / image.shape[2]
    draw = ImageDraw.Draw(drawn)
    for (top, left, bottom, right), colour in boxes:
        corners = left * right_, top * down, max(right * right_ - 1, left * right_), max(bottom * down - 1, top * down)
        draw.rectangle(corners, outline=colour, width=2)
    return drawn


def images_with_parts(images: Tensor, found: Correspondence, *, side: int = 144) -> list[Image.Image]:
    """Draws the parts into the images; of random ones, those of the first set.

    Args:
        images: ``(N, C, H, W)`` in [0, 1].
        found: The correspondence.
        side: Length of a picture's longer side in pixels.

    Returns:
        A picture an image.
    """
    colours = colours_of(found)
    boxes = {RANDOM: found.random[0], **found.parts}
    return [
        with_boxes(image, [(boxes[part][n].tolist(), colours[part]) for part in boxes], side=side)
        for n, image in enumerate(images)
    ]


def correspondence_figure(images: Tensor, found: Correspondence, title: str) -> Picture:
    """Draws the parts into the images, and below them each layer's deltas as bars.

    Args:
        images: ``(N, C, H, W)`` in [0, 1].
        found: The correspondence.
        title: Title of the figure.

    Returns:
        The figure.
    """
    tiles = mosaic(images_with_parts(images, found), min(len(images), 6), gap=6)
    bars = delta_bars(found, max(tiles.width, 420))
    note = (
        "The same part is covered in each image: the share of a layer's features whose change has another sign from "
        "image to image, mean and deviation over the pairs. Below that of random parts (grey), the layer reacts alike."
    )
    return figure(Image.fromarray(stacked([np.asarray(tiles), np.asarray(bars)])), title, note)


def delta_bars(found: Correspondence, width: int) -> Image.Image:
    """Draws each layer's deltas as bars with their deviations.

    Args:
        found: The correspondence.
        width: Width in pixels.

    Returns:
        The picture.
    """
    colours = colours_of(found)
    names = math.ceil(max(font(TEXT).getlength(one_line(part)) for part in colours)) + 12
    numbers = 110
    room = width - min(names, 150) - numbers
    highest = max(of[part] + found.stds[layer][part] for layer, of in found.deltas.items() for part in of)
    rows = sum(len(of) + 1 for of in found.deltas.values())
    sheet = Image.new("RGB", (width, rows * _ROW + 8), PAPER)
    draw = ImageDraw.Draw(sheet)
    top = 8
    for layer, of in found.deltas.items():
        draw.text((0, top), shortened(layer or "output", TEXT, width), INK, font(TEXT))
        top += _ROW
        for part, delta in of.items():
            std = found.stds[layer][part]
            draw.text((6, top), shortened(part, TEXT, 140), INK if part != RANDOM else FAINT, font(TEXT))
            left = min(names, 150)
            _bar(draw, (left, top, room), delta, std, highest, colours[part])
            draw.text((left + room + 8, top), f"{delta:.3f} ± {std:.3f}", INK, font(TEXT))
            top += _ROW
    return sheet


def _bar(
    draw: ImageDraw.ImageDraw, place: tuple[int, int, int], delta: float, std: float, highest: float, colour: Colour
) -> None:
    """A bar with a line for its deviation, at left, top and with room for the highest value."""
    left, top, room = place
    scale = room / max(highest, 1e-12)
    middle = top + _ROW // 2 - 1
    draw.rectangle((left, top + 3, left + delta * scale, top + _ROW - 6), fill=colour)
    draw.line((left + (delta - std) * scale, middle, left + (delta + std) * scale, middle), fill=INK)


def small_bars(deltas: Mapping[str, float], colours: Mapping[str, Colour], size: int = 96) -> Tensor:
    """Draws a layer's deltas as bars on a scale from 0 to 1 that is the same for all layers and epochs.

    Args:
        deltas: The deltas by part.
        colours: Colour of each part.
        size: Height and width in pixels.

    Returns:
        ``(3, size, size)``, ``uint8``.
    """
    sheet = Image.new("RGB", (size, size), (245, 245, 247))
    draw = ImageDraw.Draw(sheet)
    step = size / len(deltas)
    for n, (part, delta) in enumerate(deltas.items()):
        draw.rectangle((0, n * step + 1, delta * (size - 1), (n + 1) * step - 2), fill=colours[part])
    return torch.from_numpy(np.array(sheet)).permute(2, 0, 1)
