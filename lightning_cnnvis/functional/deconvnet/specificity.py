"""Whether the projections of a feature map tell it from the other maps of its layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 32
"""Longer side in pixels at which projections are compared: what an eye sees of a tile, without single pixels."""

_LEAST = 0.1
_SHARE = 0.8


@dataclass(frozen=True)
class Specificity:
    """How alike the projections of one feature map are, and those of different maps.

    Attributes:
        within: Mean cosine of the projections of one map from different images, in [-1, 1]; NaN without such a pair.
        between: The same of the projections of different maps of the layer.
    """

    within: float
    between: float

    @property
    def fails(self) -> bool:
        """Whether the pictures say next to nothing about their map: those of other maps are as alike as its own.

        That is, ``between`` is above 0.1, and above 0.8 times ``within``. Where both are small the pictures differ from
        image to image, and the cosine has nothing to say about what they share.
        """
        return self.between > max(_LEAST, _SHARE * self.within)

    def __str__(self) -> str:
        """Both numbers."""
        return f"{self.within:.2f} within a map, {self.between:.2f} between maps"


def specificity(pictures: Tensor, channels: Tensor, image_ids: Tensor, shifts: Tensor | None = None) -> Specificity:
    """Compares projections of feature maps with each other, pair by pair.

    The pictures are reduced to 32 pixels (antialiased), aligned by their receptive fields, to a pixel of these, and
    compared by the cosine of their values, with signs. Pairs from one image are left out: they have the same switches,
    whatever the map. What is zero everywhere is left out.

    Without max-pooling, a deconvnet has no switches, and its pictures do not depend on the image (Springenberg et al.
    2014, section 3.4, arXiv 1412.6806): then ``within`` is high for no merit of the map's, and only its distance to
    ``between`` counts.

    Args:
        pictures: ``(N, C, h, w)``, the projections of all maps.
        channels: ``(N,)``, the map of each.
        image_ids: ``(N,)``, the image that each comes from.
        shifts: ``(N, 2)`` integers, how far down and right of the corner of its receptive field each begins, in pixels;
            None: all of them begin at the same place.

    Returns:
        The two means. NaN where there is no pair.

    Raises:
        ValueError: If the numbers of pictures, channels, images and shifts differ.

    Examples:
        >>> pictures = torch.eye(4).view(4, 1, 2, 2)[[0, 0, 1, 1]]
        >>> specificity(pictures, torch.tensor([5, 5, 7, 7]), torch.tensor([0, 1, 2, 3]))
        Specificity(within=1.0, between=0.0)
    """
    counts = [len(given) for given in (pictures, channels, image_ids, shifts) if given is not None]
    if len(set(counts)) > 1:
        raise ValueError(f"There are {counts} pictures, channels, images and shifts: give one of each a picture.")
    reduced = _reduced(pictures.detach())
    if shifts is not None and len(pictures):
        ratios = [new / old for new, old in zip(reduced.shape[-2:], pictures.shape[-2:], strict=True)]
        scale = torch.tensor(ratios, dtype=torch.float64, device="cpu")
        reduced = _aligned(reduced, (shifts.cpu() * scale).round().long())
    reduced = reduced.flatten(1)
    norms = reduced.norm(dim=1)
    known = (norms > 0) & norms.isfinite()
    rows = reduced[known] / norms[known, None]
    channels, image_ids = channels.to(rows.device)[known], image_ids.to(rows.device)[known]
    cosines = rows @ rows.T
    pairs = (image_ids[:, None] != image_ids).triu(1)
    same = channels[:, None] == channels
    return Specificity(float(cosines[pairs & same].mean()), float(cosines[pairs & ~same].mean()))


def _reduced(pictures: Tensor) -> Tensor:
    pictures = pictures.float()
    # the scale of a projection is arbitrary, and float32 has a smallest number
    pictures = pictures / pictures.abs().amax((1, 2, 3), keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    height, width = pictures.shape[-2:]
    longer = max(height, width)
    if longer <= SIDE:
        return pictures
    size = (max(1, round(height * SIDE / longer)), max(1, round(width * SIDE / longer)))
    return F.interpolate(pictures, size, mode="bicubic", antialias=True)


def _aligned(pictures: Tensor, shifts: Tensor) -> Tensor:
    """Puts pictures at their places on a canvas that holds all of them."""
    shifts = shifts - shifts.amin(0)
    if not shifts.any():
        return pictures
    count, channels, height, width = pictures.shape
    down, right = shifts.amax(0).tolist()
    canvas = pictures.new_zeros(count, channels, height + down, width + right)
    for place, picture, (top, left) in zip(canvas, pictures, shifts.tolist(), strict=True):
        place[:, top : top + height, left : left + width] = picture
    return canvas
