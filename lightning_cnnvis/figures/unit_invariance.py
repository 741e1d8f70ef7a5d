"""Walks along the directions that a unit cares about least and most."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image
from torch import Tensor

from lightning_cnnvis.figures.layout import TEXT, beside, captioned, figure, tile
from lightning_cnnvis.pictures import Picture

_SIDE = 96


def unit_invariance_figure(
    images: Tensor, walks: Tensor, angles: Tensor, labels: Sequence[Sequence[str]], heads: Sequence[str], title: str
) -> Picture:
    """Draws a row for each direction of each unit: the images on the walk, with the activation above each.

    Args:
        images: ``(N, D, steps, C, h, w)`` in [0, 1].
        walks: ``(N, D, steps)``, the activations.
        angles: ``(steps,)``, degrees.
        labels: One or two lines on each direction of each unit; fewer draw fewer.
        heads: What each unit is called.
        title: Title of the figure.

    Returns:
        The figure.
    """
    blocks = []
    for unit, head in enumerate(heads):
        rows = []
        for row, label in enumerate(labels[unit]):
            tiles = [
                captioned(tile(picture, _SIDE, smooth=True), f"{float(value):.3g}")
                for picture, value in zip(images[unit, row], walks[unit, row], strict=True)
            ]
            words = captioned(Image.new("RGB", (150, 1), "white"), label)
            rows.append(beside([words, *tiles]))
        top = beside(
            [
                captioned(Image.new("RGB", (150, 1), "white"), head),
                *(captioned(Image.new("RGB", (tiles[0].width, 1), "white"), f"{a:g}°", faint=True) for a in angles),
            ]
        )
        blocks.append(_below([top, *rows]))
    note = (
        "Each row walks along a great circle through the stimulus, at 0°, in a direction that the unit cares about "
        "least or most; above each image the activation. In brackets, the share of a known change in the direction."
    )
    return figure(_below(blocks, gap=TEXT), title, note)


def _below(images: Sequence[Image.Image], gap: int = 4) -> Image.Image:
    sheet = Image.new("RGB", (max(i.width for i in images), sum(i.height + gap for i in images) - gap), "white")
    top = 0
    for image in images:
        sheet.paste(image, (0, top))
        top += image.height + gap
    return sheet
