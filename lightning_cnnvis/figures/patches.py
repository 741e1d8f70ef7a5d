"""Figures of patches: images with the parts outlined that excite a unit."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from lightning_cnnvis.figures.layout import EMPTY, GAP, MARK, captioned, figure, mosaic, one_line, reduced, tile
from lightning_cnnvis.functional.sensitivity.patches import Patches
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.pictures import Picture

DIMMED = 0.55
"""Brightness of what does not excite the unit."""


def outlined(images: Tensor, regions: Tensor) -> Tensor:
    """Darkens what is outside of regions, and outlines them.

    Args:
        images: ``(N, C, H, W)`` in [0, 1]; of other than three channels, the mean is shown.
        regions: ``(N, H, W)`` booleans.

    Returns:
        ``(N, 3, H, W)`` in [0, 1].

    Examples:
        >>> region = torch.zeros(1, 5, 5, dtype=torch.bool)
        >>> region[0, 1:4, 1:4] = True
        >>> outlined(torch.ones(1, 1, 5, 5), region)[0, 2].sum(1)
        tensor([2.7500, 1.3353, 2.2569, 1.3353, 2.7500])
    """
    if images.shape[1] != 3:
        images = images.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    inside = regions[:, None].to(images.dtype)
    shown = images * (DIMMED + (1 - DIMMED) * inside)
    # a pixel of the region that touches one outside of it
    eroded = 1 - torch.nn.functional.max_pool2d(1 - inside, 3, 1, 1)
    line = (inside > eroded).to(images.dtype)
    colour = torch.tensor(MARK, dtype=images.dtype, device=images.device).view(1, 3, 1, 1) / 255
    return shown * (1 - line) + colour * line


def patch_pictures(found: Patches, input_spec: InputSpec, side: int) -> list[Image.Image]:
    """Draws each image with its part outlined; empty tiles where there were fewer images.

    Args:
        found: The patches.
        input_spec: Format of the network's input.
        side: Length of a tile's longer side in pixels.

    Returns:
        A picture an image.
    """
    images = input_spec.denormalize(found.images.cpu()).clamp(0, 1).float()
    # reduced first, so that the line is as wide as it is drawn
    small = reduced(images, side).clamp(0, 1)
    inside = torch.nn.functional.interpolate(found.regions.cpu()[:, None].float(), small.shape[-2:], mode="area")
    tiles = [tile(picture, side, smooth=True) for picture in outlined(small, inside[:, 0] >= 0.5)]
    blank = Image.new("RGB", tiles[0].size, EMPTY)
    return [one if int(n) >= 0 else blank for one, n in zip(tiles, found.sample_ids, strict=True)]


def part_pictures(found: Patches, input_spec: InputSpec, side: int) -> list[Image.Image]:
    """Draws the part of each image around its most harmful place, at one size.

    Args:
        found: The patches.
        input_spec: Format of the network's input.
        side: Length of a tile's longer side in pixels.

    Returns:
        A picture an image.
    """
    images = input_spec.denormalize(found.images.cpu()).clamp(0, 1).float()
    parts = [
        tile(image[:, top:bottom, left:right], side, smooth=True)
        for image, (top, left, bottom, right) in zip(images, found.extents.tolist(), strict=True)
    ]
    blank = Image.new("RGB", (side, side), EMPTY)
    return [one if int(n) >= 0 else blank for one, n in zip(parts, found.sample_ids, strict=True)]


def patches_figure(
    found: Patches, labels: Sequence[str], input_spec: InputSpec, title: str, *, side: int = 96
) -> Picture:
    """Draws the images that excite units most, and below each the part that does it.

    Args:
        found: The patches.
        labels: Label of each unit.
        input_spec: Format of the network's input.
        title: Title of the figure.
        side: Length of a tile's longer side in pixels.

    Returns:
        The figure.
    """
    wholes, parts = patch_pictures(found, input_spec, side), part_pictures(found, input_spec, side)
    blocks = []
    for unit, label in enumerate(labels):
        own = slice(unit * found.k, (unit + 1) * found.k)
        rows = mosaic([mosaic(wholes[own], found.k), mosaic(parts[own], found.k)], 1, gap=GAP)
        blocks.append(captioned(rows, f"{one_line(label)}   {float(found.activations[own][0]):.3g}"))
    columns = max(1, round(math.sqrt(len(blocks) * 1.6 * blocks[0].height / blocks[0].width)))
    note = (
        f"The {found.k} images that activate each unit most, and the strongest activation. Outlined: where a grey "
        "square lowers the activation by at least half of what the worst place does. Below: the part around that place."
    )
    return figure(mosaic(blocks, columns, gap=14), title, note)
