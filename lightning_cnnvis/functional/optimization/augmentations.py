"""Random moves of published recipes: boxes at many scales with noise, shifts of colour, reflections."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cnnvis.functional.noise import hashed_gaussian
from lightning_cnnvis.functional.optimization.transforms import Transform, resize

_SMALLEST_SIDE = 0.05


@dataclass(frozen=True)
class RandomBoxes:
    """Looks at a random box of each image, magnified to the network's input, with noise: MaCo's only move.

    Fel et al. 2023 (arXiv 2306.06805), with the numbers of the authors' Xplique: the box is centred at 0.5 + N(0, 0.15)
    on each axis, its side is N(μ, 0.05) of the image's, from 0.05 to 1, and μ falls from ``first`` to ``last``. Outside
    of the image it is grey. Their uniform noise beside the Gaussian is part of ``noise`` here.

    Args:
        first: Mean side of a box at the first step of a phase, as a fraction of the image's.
        last: Mean side at its last step.
        noise: Standard deviation of the noise, in pixel values from 0 to 1.

    Raises:
        ValueError: If a side is not above 0, or the noise is negative.

    Examples:
        >>> boxes = RandomBoxes(first=0.5, last=0.1)
        >>> boxes.at(0.5).first
        0.3
        >>> uniform = torch.rand(2, boxes.draws, generator=torch.Generator().manual_seed(0))
        >>> boxes(torch.zeros(2, 3, 32, 32), uniform, (16, 16)).shape
        torch.Size([2, 3, 16, 16])
    """

    first: float = 0.5
    last: float = 0.05
    noise: float = 0.0416
    draws: ClassVar[int] = 4

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if not min(self.first, self.last) > 0:
            raise ValueError(f"first={self.first}, last={self.last}: give sides of boxes above 0.")
        if not self.noise >= 0:
            raise ValueError(f"noise={self.noise} is negative. Give 0 or more.")

    def at(self, progress: float) -> RandomBoxes:
        """Returns the boxes of a step.

        Args:
            progress: Fraction of the phase that has passed, from 0 to 1.

        Returns:
            Boxes of the mean side at that step.
        """
        return replace(self, first=self.first + (self.last - self.first) * progress)

    def __call__(self, images: Tensor, uniform: Tensor, size: tuple[int, int]) -> Tensor:
        """Cuts a box out of each image.

        Args:
            images: ``(N, C, H, W)``.
            uniform: ``(N, draws)`` in [0, 1), row i drawn only for image i.
            size: Height and width of the result.

        Returns:
            ``(N, C, *size)``.
        """
        normal = torch.special.ndtri(uniform[:, :3].clamp(1e-6, 1 - 1e-6))
        side = (self.first + 0.05 * normal[:, 2]).clamp(_SMALLEST_SIDE, 1.0)
        center = 2 * 0.15 * normal[:, :2]  # the grid's unit is half the image
        zero = torch.zeros_like(side)
        theta = torch.stack(
            [torch.stack([side, zero, center[:, 0]], 1), torch.stack([zero, side, center[:, 1]], 1)], 1
        ).to(images.dtype)
        grid = F.affine_grid(theta, [*images.shape[:2], *size], align_corners=False)
        seen = F.grid_sample(images - 0.5, grid, padding_mode="zeros", align_corners=False) + 0.5
        if not self.noise:
            return seen
        return seen + self.noise * hashed_gaussian(uniform[:, 3], seen.shape[1:]).to(seen.dtype)


@dataclass(frozen=True)
class ColorShift:
    """Shifts and stretches the colours of each image at random: (x - μ) / σ, each channel by itself.

    Plug-In Inversion, Ghiasi et al. 2022 (arXiv 2201.12961): μ is uniform in [-``mean``, ``mean``] and log σ in
    [-``std``, ``std``].

    Args:
        mean: Largest shift, in pixel values from 0 to 1.
        std: Largest absolute logarithm of the divisor.
        channels: Largest number of channels of the images; numbers are drawn for so many.

    Raises:
        ValueError: If a range is negative, or there is no channel.

    Examples:
        >>> shift = ColorShift(mean=1.0, std=0.0, channels=1)
        >>> shift(torch.ones(1, 1, 1, 1), torch.tensor([[0.75, 0.5]]), (1, 1)).item()
        0.5
    """

    mean: float = 1.0
    std: float = 1.0
    channels: int = 3

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if not min(self.mean, self.std) >= 0:
            raise ValueError(f"mean={self.mean}, std={self.std}: neither may be negative. Give 0 or more.")
        if self.channels < 1:
            raise ValueError(f"channels={self.channels}: give the number of channels of the images, at least 1.")

    @property
    def draws(self) -> int:
        """Number of random numbers that an image needs at each step."""
        return 2 * self.channels

    def __call__(self, images: Tensor, uniform: Tensor, size: tuple[int, int]) -> Tensor:
        """Changes the colours of each image, then resamples it if another size is wanted.

        Args:
            images: ``(N, C, H, W)``.
            uniform: ``(N, draws)`` in [0, 1), row i drawn only for image i.
            size: Height and width of the result.

        Returns:
            ``(N, C, *size)``.

        Raises:
            ValueError: If the images have more channels than numbers were drawn for.
        """
        if images.shape[1] > self.channels:
            raise ValueError(
                f"The images have {images.shape[1]} channels, and channels={self.channels}: give the number of theirs."
            )
        around = (2 * uniform - 1).view(len(images), 2, self.channels, 1, 1)[:, :, : images.shape[1]].to(images.dtype)
        shift, stretch = around.unbind(1)
        return resize((images - self.mean * shift) / (self.std * stretch).exp(), size)


@dataclass(frozen=True)
class RandomFlip:
    """Mirrors each image, left to right, with a probability of one half.

    Examples:
        >>> RandomFlip()(torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[0.7]]), (1, 2))
        tensor([[[[2., 1.]]]])
    """

    draws: ClassVar[int] = 1

    def __call__(self, images: Tensor, uniform: Tensor, size: tuple[int, int]) -> Tensor:
        """Mirrors some of the images, then resamples them if another size is wanted.

        Args:
            images: ``(N, C, H, W)``.
            uniform: ``(N, draws)`` in [0, 1), row i drawn only for image i.
            size: Height and width of the result.

        Returns:
            ``(N, C, *size)``.
        """
        return resize(torch.where(uniform.view(-1, 1, 1, 1) >= 0.5, images.flip(3), images), size)


@dataclass(frozen=True)
class InOrder:
    """Several random moves, one after the other; the last one resamples to the size that is wanted.

    Args:
        transforms: The moves, at least one.

    Raises:
        ValueError: If there is none.

    Examples:
        >>> InOrder((RandomFlip(), ColorShift())).draws
        7
    """

    transforms: tuple[Transform, ...]

    def __post_init__(self) -> None:
        """Checks that there are moves."""
        object.__setattr__(self, "transforms", tuple(self.transforms))
        if not self.transforms:
            raise ValueError("transforms=() is empty. Give at least one transform.")

    @property
    def draws(self) -> int:
        """Number of random numbers that an image needs at each step."""
        return sum(transform.draws for transform in self.transforms)

    def __call__(self, images: Tensor, uniform: Tensor, size: tuple[int, int]) -> Tensor:
        """Moves each image.

        Args:
            images: ``(N, C, H, W)``.
            uniform: ``(N, draws)`` in [0, 1), row i drawn only for image i.
            size: Height and width of the result.

        Returns:
            ``(N, C, *size)``.
        """
        start = 0
        for number, transform in enumerate(self.transforms, 1):
            own = (images.shape[-2], images.shape[-1])
            mine = uniform[:, start : start + transform.draws]
            images = transform(images, mine, size if number == len(self.transforms) else own)
            start += transform.draws
        return images
