"""Building blocks of figures.

`tile` makes one picture of the right size, `mosaic` arranges pictures in rows and columns, `captioned` writes a caption
above one, and `figure` adds the title.
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
HAIRLINE = (200, 200, 205)
GAP = 2
MARGIN = 12
TEXT, HEADING = 13, 17


def reduced(pictures: Tensor, side: int) -> Tensor:
    """Scales pictures down if their longer side exceeds a length; returns smaller ones unchanged.

    Args:
        pictures: Pictures of one size, ``(N, C, H, W)``.
        side: Greatest length of the longer side in pixels.

    Returns:
        The pictures, ``(N, C, h, w)`` with neither ``h`` nor ``w`` above ``side``.

    Examples:
        >>> from torch import zeros
        >>> reduced(zeros(1, 3, 60, 120), 56).shape
        torch.Size([1, 3, 28, 56])
    """
    height, width = pictures.shape[-2:]
    longer = max(height, width)
    if longer <= side:
        return pictures
    size = (max(1, round(height * side / longer)), max(1, round(width * side / longer)))
    return F.interpolate(pictures.float(), size, mode="bicubic", antialias=True)


def tile(picture: Tensor, side: int, *, smooth: bool = False) -> Image.Image:
    """Scales one picture to the size of a figure's tiles.

    Small pictures are enlarged by a whole factor with hard pixels, so that each pixel can be seen; large ones are
    reduced.

    Args:
        picture: The picture, ``(C, H, W)`` in [0, 1]. Three channels are shown as colours; of any other number the mean
            is shown.
        side: Length of the longer side in pixels. Without ``smooth``, a small picture may stay below it.
        smooth: Whether to interpolate when enlarging, for pictures that should look like photographs.

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


def edged(image: Image.Image) -> Image.Image:
    """Draws a hairline on the outermost pixels of an image, so that a white one does not vanish on white paper.

    Args:
        image: An RGB image.

    Returns:
        A copy with the line; images below 16 pixels, in which every pixel counts, as they are.

    Examples:
        >>> edged(Image.new("RGB", (20, 20), PAPER)).getpixel((0, 5))
        (200, 200, 205)
    """
    if min(image.size) < 16:
        return image
    image = image.copy()
    ImageDraw.Draw(image).rectangle((0, 0, image.width - 1, image.height - 1), outline=HAIRLINE)
    return image


def mosaic(images: Sequence[Image.Image], columns: int, gap: int = GAP) -> Image.Image:
    """Arranges images in rows; every cell has the size of the largest image.

    Args:
        images: The images, row by row, at least one.
        columns: Number of images in a row.
        gap: Distance between cells in pixels.

    Returns:
        One image with all of them.
    """
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    width, height = max(image.width for image in images), max(image.height for image in images)
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), PAPER)
    for n, image in enumerate(images):
        sheet.paste(image, ((n % columns) * (width + gap), (n // columns) * (height + gap)))
    return sheet


def beside(images: Sequence[Image.Image], gap: int = GAP) -> Image.Image:
    """Arranges images side by side, each at its own width.

    Args:
        images: The images from left to right, at least one.
        gap: Distance between images in pixels.

    Returns:
        One image with all of them.
    """
    sheet = Image.new(
        "RGB", (sum(image.width + gap for image in images) - gap, max(image.height for image in images)), PAPER
    )
    left = 0
    for image in images:
        sheet.paste(image, (left, 0))
        left += image.width + gap
    return sheet


def stacked(pictures: Sequence[Picture]) -> Picture:
    """Arranges pictures one below the other, each at its own size.

    Args:
        pictures: The pictures from top to bottom, at least one.

    Returns:
        One picture with all of them.
    """
    images = [Image.fromarray(picture) for picture in pictures]
    sheet = Image.new("RGB", (max(image.width for image in images), sum(image.height for image in images)), PAPER)
    top = 0
    for image in images:
        sheet.paste(image, (0, top))
        top += image.height
    return np.asarray(sheet)


def captioned(image: Image.Image, caption: str, *, faint: bool = False) -> Image.Image:
    """Writes a caption above an image; each line is shortened to the image's width.

    Args:
        image: The image.
        caption: One or more lines.
        faint: Whether to write in grey instead of black.

    Returns:
        The image with its caption.
    """
    lines = caption.split("\n")
    sheet = Image.new("RGB", (image.width, image.height + len(lines) * (TEXT + 5)), PAPER)
    draw = ImageDraw.Draw(sheet)
    for n, line in enumerate(lines):
        text = shortened(line, TEXT, image.width)
        draw.text((0, n * (TEXT + 5)), text, FAINT if faint else INK, font(TEXT))
    sheet.paste(image, (0, sheet.height - image.height))
    return sheet


def figure(body: Image.Image, title: str, note: str = "") -> Picture:
    """Adds a title, a note on as many lines as it needs, and a margin.

    Args:
        body: The figure's pictures.
        title: Title, shortened to the figure's width.
        note: Text below the title; none if empty.

    Returns:
        The figure.
    """
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
    """Draws pictures in rows, with a title for each column and a caption for each picture.

    Args:
        rows: Rows of pictures ``(C, H, W)`` in [0, 1], with as many pictures in each as there are ``heads``.
        heads: Titles of the columns.
        captions: Captions of the pictures, row by row.
        title: Title of the figure.
        note: Text below the title.
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
    """Loads Pillow's own font, so that pictures look the same on every machine.

    Args:
        size: Size in pixels.

    Returns:
        The font.
    """
    return ImageFont.load_default(size)


def one_line(text: str) -> str:
    r"""Replaces what cannot be drawn on one line: control characters, and letters that the font lacks.

    Args:
        text: Any text.

    Returns:
        The text with spaces in place of control characters; letters that the font lacks lose their accents.

    Examples:
        >>> one_line("crème\nbrûlée 2×")
        'creme brulee 2x'
    """
    return "".join(_nearest(c) if c.isprintable() else " " for c in text)


@cache
def _nearest(character: str) -> str:
    """The character, or the font's nearest one; the font's box where there is none."""
    base = "".join(c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c))
    candidates = (character, base, {"×": "x", "–": "-", "−": "-", "↗": "->"}.get(character, ""))
    return next((c for c in candidates if c and all(map(_is_there, c))), character)


def _is_there(character: str) -> bool:
    return character.isspace() or bytes(font(TEXT).getmask(character)) != bytes(font(TEXT).getmask("\uffff"))


def wrapped(text: str, size: int, width: int) -> list[str]:
    """Breaks a text into lines that fit a width.

    Args:
        text: Any text.
        size: Size of the font in pixels.
        width: Greatest width of a line in pixels.

    Returns:
        The lines; none for an empty text.

    Examples:
        >>> wrapped("one line and another", 13, 60)
        ['one line', 'and', 'another']
    """
    lines: list[str] = []
    for word in one_line(text).split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font(size).getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(shortened(word, size, width))
    return lines


def shortened(text: str, size: int, width: int) -> str:
    """Cuts a text to one line that fits a width.

    Args:
        text: Any text.
        size: Size of the font in pixels.
        width: Greatest width in pixels.

    Returns:
        The text, or its beginning with an ellipsis.

    Examples:
        >>> shortened("a layer with a long name", 13, 60)
        'a layer w…'
    """
    text = one_line(text)
    if font(size).getlength(text) <= width:
        return text
    while text and font(size).getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
