"""Gradients of large pictures, tile by tile."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_cnnvis.functional.optimization.gradients import Gradient

ALIGNMENT = 32  # pixels; a multiple of the total stride of the usual networks


def aligned(length: int) -> int:
    """Rounds up to a multiple of `ALIGNMENT`.

    Args:
        length: A number of pixels.

    Returns:
        The multiple.

    Examples:
        >>> aligned(64), aligned(65)
        (64, 96)
    """
    return -(-length // ALIGNMENT) * ALIGNMENT


def tiled(gradient: Gradient, tile: int, margin: int) -> Gradient:
    """Makes a gradient that goes through the network tile by tile.

    The tiles overlap by the margin, and each gives the gradient of only its inside. With a margin as wide as the
    receptive field, and tiles at multiples of the layer's stride, the result is that of the whole picture; with a
    narrower one, the jitter moves the borders from step to step, so that no seam builds up.

    Args:
        gradient: The gradient of inputs ``(N, C, h, w)`` of at most the tile's size.
        tile: Largest height and width in pixels that goes through the network at once.
        margin: Number of pixels beyond its inside that a tile includes on every side, rounded up to a multiple of 32.

    Returns:
        The gradient of inputs ``(N, C, H, W)`` of any size; the losses of the tiles are added.
    """

    def whole(inputs: Tensor, rescue: Tensor | None = None) -> tuple[Tensor, Tensor]:
        height, width = inputs.shape[-2:]
        if max(height, width) <= tile:
            return gradient(inputs, rescue)
        slope = torch.empty_like(inputs)
        total = inputs.new_zeros(len(inputs))
        for top, bottom, upper, lower in _spans(height, tile, margin):
            for left, right, first, last in _spans(width, tile, margin):
                loss, part = gradient(inputs[..., upper:lower, first:last], rescue)
                slope[..., top:bottom, left:right] = part[
                    ..., top - upper : bottom - upper, left - first : right - first
                ]
                total = total + loss * ((bottom - top) * (right - left) / ((lower - upper) * (last - first)))
        return total, slope

    return whole


def _spans(length: int, tile: int, margin: int) -> list[tuple[int, int, int, int]]:
    """Cuts a length into tiles: start and end of each inside, and start and end of the tile with its margin."""
    margin = aligned(margin)
    largest = (tile - 2 * margin) // ALIGNMENT * ALIGNMENT if length > tile else length
    # equal tiles, so that no sliver is left at the end
    inside = aligned(-(-length // -(-length // largest)))
    return [
        (start, min(start + inside, length), max(0, start - margin), min(start + inside + margin, length))
        for start in range(0, length, inside)
    ]
