"""A photograph, the pictures whose style it takes, and the result."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from lightning_cnnvis.figures.layout import beside, captioned, figure, mosaic, one_line, tile
from lightning_cnnvis.functional.style.transfer import Style
from lightning_cnnvis.pictures import Picture

SHOWN = 9
"""How many pictures of a style are shown."""


def style_caption(found: Style, n: int = 0) -> str:
    """How far the style distance fell.

    Args:
        found: The pictures.
        n: Index of the picture.

    Returns:
        Such as ``"−97 %"``; ``"is not a number"`` of a network whose activations are not finite.
    """
    fall = float(found.fall[n])
    if not math.isfinite(fall):
        return "is not a number"
    percent = round(-100 * fall)
    return f"{'+' if percent > 0 else '−' if percent else ''}{abs(percent)} %"


def style_figure(
    content: Tensor, style: Sequence[Tensor], found: Style, names: Sequence[str], title: str, *, side: int = 256
) -> Picture:
    """Draws the photograph, the style and the result beside each other.

    Args:
        content: ``(C, H, W)`` in [0, 1].
        style: Pictures ``(C, h, w)`` in [0, 1], at least one.
        found: The result for the photograph.
        names: Names of the classes of the photograph and of the result; empty if the network is not a classifier.
        title: Title of the figure.
        side: Length of a tile's longer side in pixels.

    Returns:
        The figure.
    """
    columns = min(math.ceil(math.sqrt(SHOWN)), math.ceil(math.sqrt(len(style))))
    small = (side - 2 * (columns - 1)) // columns
    tiles = [tile(one, small, smooth=True) for one in style[:SHOWN]]
    style_tile = mosaic(tiles, columns)
    what = "style" if len(style) == 1 else f"style of {len(style)} pictures"
    kept = ""
    if names:
        kept = f"top-1 kept: {names[1]}" if names[0] == names[1] else f"top-1 now {names[1]}"
    columns_of_figure = [
        captioned(
            captioned(tile(content, side, smooth=True), one_line(names[0]) if names else "", faint=True), "content"
        ),
        captioned(captioned(style_tile, "", faint=True), what),
        captioned(
            captioned(tile(found.images[0], side, smooth=True), one_line(kept), faint=True),
            f"style distance {style_caption(found)}",
        ),
    ]
    left = ", ".join(
        f"{layer} {100 * float(share):.0f} %" for layer, share in zip(found.layers, found.remaining[0], strict=True)
    )
    note = f"Content: {found.content_layer}. What is left of the distance of Gram matrices: {left}."
    return figure(beside(columns_of_figure, gap=10), title, note)
