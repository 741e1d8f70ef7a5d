"""Small curves of the way that an optimised image takes through a network, beside the band of real images."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from lightning_cnnvis.figures.layout import FAINT, MARK, PAPER
from lightning_cnnvis.functional.visualization.paths import PathSimilarity

_BAND = (206, 206, 212)
_FINER = 4  # drawn larger, and made smooth by scaling


def path_curve(path: PathSimilarity | None, image: int, size: tuple[int, int]) -> Tensor:
    """Draws the similarity of an image to real ones, from the first layer on the left to the last.

    Args:
        path: The similarities; None draws an empty picture.
        image: Number of the image in it.
        size: Height and width of the picture in pixels.

    Returns:
        ``(3, *size)``, ``uint8``: the band of real images in grey, the image in colour, filled dots where it is in the
        band or above.
    """
    height, width = size
    sheet = Image.new("RGB", (_FINER * width, _FINER * height), PAPER)
    draw = ImageDraw.Draw(sheet)
    if path is not None:
        margin = max(2, width // 16) * _FINER
        span = max(len(path.layers) - 1, 1)
        across = [margin + n * (_FINER * width - 2 * margin) / span for n in range(len(path.layers))]

        def down(value: float) -> float:
            return margin + (1 - max(min(value, 1.0), 0.0)) * (_FINER * height - 2 * margin)

        low, high = (list(map(down, edge.tolist())) for edge in path.band)
        draw.polygon([*zip(across, high, strict=True), *reversed([*zip(across, low, strict=True)])], fill=_BAND)
        draw.line([(margin, down(0)), (_FINER * width - margin, down(0))], fill=FAINT, width=_FINER // 2)
        points = list(zip(across, map(down, path.similarities[:, image].nan_to_num(0.0).tolist()), strict=True))
        draw.line(points, fill=MARK, width=_FINER * max(1, width // 90), joint="curve")
        radius = _FINER * max(1.5, width / 60)
        for (x, y), inside in zip(points, path.as_real[:, image].tolist(), strict=True):
            box = (x - radius, y - radius, x + radius, y + radius)
            draw.ellipse(box, fill=MARK if inside else PAPER, outline=MARK, width=_FINER)
    small = np.asarray(sheet.resize((width, height), Image.Resampling.LANCZOS))
    return torch.from_numpy(small.copy()).permute(2, 0, 1)
