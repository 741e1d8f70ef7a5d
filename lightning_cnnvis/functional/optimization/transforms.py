"""Small random moves of each image before it goes through the network, drawn for each image by itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Transform(Protocol):
    """A differentiable map of images that depends only on them and on uniform random numbers."""

    @property
    def draws(self) -> int:
        """Number of random numbers that an image needs at each step."""
        ...

    def __call__(self, images: Tensor, uniform: Tensor, size: tuple[int, int]) -> Tensor:
        """Transforms images.

        Args:
            images: ``(N, C, H, W)``.
            uniform: ``(N, draws)`` in [0, 1), row i drawn only for image i.
            size: Height and width of the result.

        Returns:
            ``(N, C, *size)``.
        """
        ...


@dataclass(frozen=True)
class RandomAffine:
    """Shifts, scales and rotates each image in one bilinear resampling; the border is mirrored.

    After Olah et al. 2017 (https://doi.org/10.23915/distill.00007), "Transformation robustness". Lengths are
    relative, so that the same settings suit 32×32 and 224×224.

    Args:
        jitter: Largest shift along each axis, as a fraction of the image's size.
        scale: Smallest and largest magnification.
        rotate: Largest rotation to either side, in degrees.

    Raises:
        ValueError: If a value is negative or the scales are not positive and ordered.

    Examples:
        >>> images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> still = RandomAffine(jitter=0.0, scale=(1.0, 1.0), rotate=0.0)
        >>> torch.allclose(still(images, torch.rand(2, still.draws), (8, 8)), images, atol=1e-6)
        True
    """

    jitter: float = 0.06
    scale: tuple[float, float] = (0.9, 1.1)
    rotate: float = 10.0
    draws: ClassVar[int] = 4

    def __post_init__(self) -> None:
        """Checks the ranges."""
        object.__setattr__(self, "scale", tuple(self.scale))
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(
                f"scale={self.scale} is out of range. Give the smallest and the largest magnification, above 0."
            )
        if self.jitter < 0 or self.rotate < 0:
            raise ValueError(f"jitter={self.jitter}, rotate={self.rotate}: neither may be negative. Give 0 or more.")

    def __call__(self, images: Tensor, uniform: Tensor, size: tuple[int, int]) -> Tensor:
        """Shifts, scales and rotates each image.

        Args:
            images: ``(N, C, H, W)``.
            uniform: ``(N, draws)`` in [0, 1), row i drawn only for image i.
            size: Height and width of the result.

        Returns:
            ``(N, C, *size)``.
        """
        height, width = images.shape[-2:]
        shift = (2 * uniform[:, :2] - 1) * self.jitter * 2  # the grid's unit is half the image
        low, high = math.log(self.scale[0]), math.log(self.scale[1])
        shrink = torch.exp(-(low + (high - low) * uniform[:, 2]))
        angle = (2 * uniform[:, 3] - 1) * math.radians(self.rotate)
        cos, sin = shrink * angle.cos(), shrink * angle.sin()
        aspect = height / width
        theta = torch.stack(
            [
                torch.stack([cos, -sin * aspect, shift[:, 0]], 1),
                torch.stack([sin / aspect, cos, shift[:, 1]], 1),
            ],
            1,
        ).to(images.dtype)
        grid = F.affine_grid(theta, [*images.shape[:2], *size], align_corners=False)
        return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


@dataclass(frozen=True)
class RandomRoll:
    """Shifts each image circularly by whole pixels: exactly, without blur; the jitter of Mordvintsev et al. 2015.

    Args:
        pixels: Largest shift along each axis, in pixels of the image.

    Examples:
        >>> row = torch.arange(4.0).view(1, 1, 1, 4)
        >>> RandomRoll(pixels=2)(row, torch.tensor([[0.5, 0.75]]), (1, 4))
        tensor([[[[3., 0., 1., 2.]]]])
    """

    pixels: int
    draws: ClassVar[int] = 2

    def __call__(self, images: Tensor, uniform: Tensor, size: tuple[int, int]) -> Tensor:
        """Rolls each image, then resamples it if another size is wanted.

        Args:
            images: ``(N, C, H, W)``.
            uniform: ``(N, draws)`` in [0, 1), row i drawn only for image i.
            size: Height and width of the result.

        Returns:
            ``(N, C, *size)``.
        """
        # 2·pixels + 1 shifts, equally likely
        shift = (uniform * (2 * self.pixels + 1)).floor().long() - self.pixels
        return resize(_Roll.apply(images, shift), size)


class _Roll(torch.autograd.Function):
    """Rolls each image by its own shift ``(N, 2)``; the gradient is rolled back, which is cheaper than scattering."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, shift: Tensor) -> Tensor:
        ctx.save_for_backward(shift)
        return _roll(images, shift)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (shift,) = ctx.saved_tensors
        return _roll(gradient, -shift), None


def _roll(images: Tensor, shift: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    rows = (torch.arange(height, device=images.device) - shift[:, :1]) % height
    columns = (torch.arange(width, device=images.device) - shift[:, 1:]) % width
    if len(images) == 1:
        # rows are copied whole: those that begin at the right place in the picture set twice side by side
        twice = torch.cat([images, images], 3).unfold(3, width, 1)
        return twice.index_select(3, columns[0, :1]).squeeze(3).index_select(2, rows[0])
    rolled = images.gather(2, rows[:, None, :, None].expand_as(images))
    return rolled.gather(3, columns[:, None, None, :].expand_as(images))


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resamples images bilinearly, with antialiasing where they shrink.

    Args:
        images: ``(N, C, H, W)``.
        size: Height and width of the result.

    Returns:
        ``(N, C, *size)``; the same tensor if it has this size already.

    Examples:
        >>> resize(torch.ones(1, 3, 8, 8), (4, 6)).shape
        torch.Size([1, 3, 4, 6])
    """
    if tuple(images.shape[-2:]) == tuple(size):
        return images
    return F.interpolate(images, size, mode="bilinear", antialias=True)


@dataclass(frozen=True)
class RandomCrop:
    """Cuts a window out of each image at a random place: the jitter of Mahendran & Vedaldi 2016 (arXiv 1512.02017).

    Examples:
        >>> image = torch.arange(9.0).view(1, 1, 3, 3)
        >>> RandomCrop()(image, torch.tensor([[0.9, 0.0]]), (2, 2))
        tensor([[[[3., 4.],
                  [6., 7.]]]])
    """

    draws: ClassVar[int] = 2

    def __call__(self, images: Tensor, uniform: Tensor, size: tuple[int, int]) -> Tensor:
        """Cuts a window out of each image.

        Args:
            images: ``(N, C, H, W)``.
            uniform: ``(N, draws)`` in [0, 1), row i drawn only for image i.
            size: Height and width of the result, at most that of the images.

        Returns:
            ``(N, C, *size)``.
        """
        places = [side - wanted + 1 for side, wanted in zip(images.shape[-2:], size, strict=True)]
        if places == [1, 1]:
            return images
        first = (uniform * uniform.new_tensor(places)).floor().long()
        rows = first[:, :1] + torch.arange(size[0], device=images.device)
        columns = first[:, 1:] + torch.arange(size[1], device=images.device)
        samples = torch.arange(len(images), device=images.device)[:, None, None]
        # an index on each side of the slice puts the channels last
        return images[samples, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
