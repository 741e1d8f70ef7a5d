"""The pieces that figures are put together from.

`tile` makes one picture of the right size, `mosaic` sets pictures in rows and columns, `captioned` writes a line above
one, `figure` adds the title.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from lightning_cnnvis.pictures import Picture, as_bytes

PAPER, INK, FAINT, EMPTY, MARK = (255, 255, 255), (25, 25, 30), (110, 110, 120), (228, 228, 232), (235, 105, 20)
GAP = 2
MARGIN = 12
TEXT, HEADING = 13, 17


def reduced(pictures: Tensor, side: int) -> Tensor:
    """Brings pictures ``(N, C, H, W)`` whose longer side exceeds ``side`` to that length; leaves others alone."""
    height, width = pictures.shape[-2:]
    longer = max(height, width)
    if longer <= side:
        return pictures
    size = (max(1, round(height * side / longer)), max(1, round(width * side / longer)))
    return F.interpolate(pictures.float(), size, mode="bicubic", antialias=True)


def tile(picture: Tensor, side: int, *, smooth: bool = False) -> Image.Image:
    """One picture at the size of a figure's tiles.

    Small pictures are enlarged by a whole number with hard pixels, so that each can be seen; large ones are reduced.

    Args:
        picture: ``(C, H, W)`` in [0, 1]. Three channels are taken for colours; of any other number the mean is shown.
        side: Length in pixels that the longer side is brought to, or near to.
        smooth: Enlarges without hard pixels, for pictures that are to look like photographs.

    Returns:
        An RGB image.
    """
    pixels = as_bytes(reduced(picture[None], side))[0]
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    if smooth:
        factor = side / max(image.size)
        size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
        return image.resize(size, Image.Resampling.BICUBIC)
    times = max(1, side // max(image.size))
    return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)


def mosaic(images: Sequence[Image.Image], columns: int, gap: int = GAP) -> Image.Image:
    """Sets images in rows, each in a cell that holds the largest."""
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    width, height = max(image.width for image in images), max(image.height for image in images)
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), PAPER)
    for n, image in enumerate(images):
        sheet.paste(image, ((n % columns) * (width + gap), (n // columns) * (height + gap)))
    return sheet


def beside(images: Sequence[Image.Image], gap: int = GAP) -> Image.Image:
    """Sets images side by side, each at its own width."""
    sheet = Image.new(
        "RGB", (sum(image.width + gap for image in images) - gap, max(image.height for image in images)), PAPER
    )
    left = 0
    for image in images:
        sheet.paste(image, (left, 0))
        left += image.width + gap
    return sheet


def stacked(pictures: Sequence[Picture]) -> Picture:
    """Pictures one below the other, each at its own size."""
    images = [Image.fromarray(picture) for picture in pictures]
    sheet = Image.new("RGB", (max(image.width for image in images), sum(image.height for image in images)), PAPER)
    top = 0
    for image in images:
        sheet.paste(image, (0, top))
        top += image.height
    return np.asarray(sheet)


def captioned(image: Image.Image, caption: str, *, faint: bool = False) -> Image.Image:
    """Writes a caption above an image, each of its lines shortened to the image's width."""
    lines = caption.split("\n")
    sheet = Image.new("RGB", (image.width, image.height + len(lines) * (TEXT + 5)), PAPER)
    draw = ImageDraw.Draw(sheet)
    for n, line in enumerate(lines):
        text = shortened(line, TEXT, image.width)
        draw.text((0, n * (TEXT + 5)), text, FAINT if faint else INK, font(TEXT))
    sheet.paste(image, (0, sheet.height - image.height))
    return sheet


def figure(body: Image.Image, title: str, note: str = "") -> Picture:
    """Adds a title, a note below it, on as many lines as it takes, and a margin."""
    longest = max(font(HEADING).getlength(title), font(TEXT).getlength(note))
    width = max(body.width, math.ceil(min(longest, 640)))
    lines = wrapped(note, TEXT, width)
    head = HEADING + 8 + ((TEXT + 5) * len(lines) + 3 if lines else 0)
    sheet = Image.new("RGB", (width + 2 * MARGIN, body.height + head + 2 * MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN - 2), shortened(title, HEADING, width), INK, font(HEADING))
    for n, line in enumerate(lines):
        draw.text((MARGIN, MARGIN + HEADING + 4 + (TEXT + 5) * n), line, FAINT, font(TEXT))
    sheet.paste(body, (MARGIN, MARGIN + head))
    return np.asarray(sheet)


def picture_grid(
    rows: Sequence[Sequence[Tensor]],
    heads: Sequence[str],
    captions: Sequence[Sequence[str]],
    title: str,
    note: str = "",
    *,
    side: int = 112,
) -> Picture:
    """Pictures in rows, each column under a title, each picture under a line of its own.

    Args:
        rows: Pictures ``(C, H, W)`` in [0, 1], as many in each row as there are ``heads``.
        heads: Title of each column.
        captions: What is written above each picture.
        title: Title of the figure.
        note: A line below the title.
        side: Length of a tile's longer side in pixels.

    Returns:
        The figure.
    """
    columns = []
    for n, head in enumerate(heads):
        cells = [
            captioned(tile(row[n], side, smooth=True), caption[n], faint=True)
            for row, caption in zip(rows, captions, strict=True)
        ]
        columns.append(captioned(mosaic(cells, 1, gap=6), head))
    return figure(beside(columns, gap=8), title, note)


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, so that pictures look the same on every machine."""
    return ImageFont.load_default(size)


def one_line(text: str) -> str:
    r"""What can be drawn of a text: without control characters, letters that the font lacks without their accents.

    Example:
        >>> one_line("crème\nbrûlée 2×")
        'creme brulee 2x'
    """
    return "".join(_nearest(c) if c.isprintable() else " " for c in text)


@cache
def _nearest(character: str) -> str:
    """The character, or what the font has in its place; the font's box where it has nothing like it."""
    base = "".join(c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c))
    candidates = (character, base, {"×": "x", "–": "-", "−": "-", "↗": "->"}.get(character, ""))
    return next((c for c in candidates if c and all(map(_is_there, c))), character)


def _is_there(character: str) -> bool:
    return character.isspace() or bytes(font(TEXT).getmask(character)) != bytes(font(TEXT).getmask("\uffff"))


def wrapped(text: str, size: int, width: int) -> list[str]:
    """A text on as many lines as it takes for none to be wider than ``width`` pixels."""
    lines: list[str] = []
    for word in one_line(text).split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font(size).getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(shortened(word, size, width))
    return lines


def shortened(text: str, size: int, width: int) -> str:
    """A text on one line, cut off where it gets wider than ``width`` pixels."""
    text = one_line(text)
    if font(size).getlength(text) <= width:
        return text
    while text and font(size).getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
