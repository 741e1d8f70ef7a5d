"""Images as tiles of a page."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lightning_cnnvis.figures import reduced
from lightning_cnnvis.pictures import Picture, as_bytes
from lightning_cnnvis.viewer.content import Tile

PICTURE_SIDE = 224
"""Longest side in pixels of a tile's picture; larger ones are reduced."""


def page_pictures(images: Tensor) -> list[Picture]:
    """Images as pictures of a page.

    Args:
        images: ``(N, C, H, W)`` in [0, 1]; what is outside is clipped.

    Returns:
        ``(h, w, 3)`` uint8 arrays.
    """
    pixels = as_bytes(reduced(images.clamp(0, 1), PICTURE_SIDE))
    return [picture.permute(1, 2, 0).numpy() for picture in pixels]


def page_tiles(images: Tensor, labels: Sequence[str], states: Sequence[str] | None = None) -> tuple[Tile, ...]:
    """Images as tiles of a page.

    Args:
        images: ``(N, C, H, W)`` in [0, 1].
        labels: What each shows.
        states: What is to be said of each; several lines become one.

    Returns:
        A tile for each.
    """
    lines = [""] * len(labels) if states is None else [state.replace("\n", " · ") for state in states]
    return tuple(Tile(*tile) for tile in zip(page_pictures(images), labels, lines, strict=True))
