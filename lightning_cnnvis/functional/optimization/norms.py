"""Penalties that are Euclidean norms, not squared: their pull does not fade as the image gets smoother or darker."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lightning_cnnvis.functional.optimization.regularizers import channel_values


@dataclass(frozen=True)
class DifferenceNorm:
    """A penalty on differences of neighbouring pixels, also along the diagonals: the total variation of DeepInversion.

    Yin et al. 2020 (arXiv 1912.08795), with the four directions of the authors' code. There the norm is that of the
    whole batch; here it is each image's own.

    Args:
        weight: Factor.
        unit: Pixel value that counts as 1.

    Examples:
        >>> import torch
        >>> DifferenceNorm(weight=0.5)(torch.tensor([[[[0.0, 3.0], [0.0, 3.0]]]])) / 18**0.5
        tensor([1.2071])
    """

    weight: float
    unit: float = 1.0

    def __call__(self, images: Tensor) -> Tensor:
        """Computes the penalties.

        Args:
            images: ``(N, C, H, W)``, nominally in [0, 1].

        Returns:
            ``(N,)``, not negative.
        """
        differences = (
            images[..., :, 1:] - images[..., :, :-1],
            images[..., 1:, :] - images[..., :-1, :],
            images[..., 1:, :-1] - images[..., :-1, 1:],
            images[..., 1:, 1:] - images[..., :-1, :-1],
        )
        norms: list[Tensor] = [difference.flatten(1).norm(dim=1) for difference in differences]
        return sum(norms[1:], norms[0]) * (self.weight / self.unit)


@dataclass(frozen=True)
class RootNorm:
    """A penalty on the distance of an image from a colour: the L2 term of DeepInversion (arXiv 1912.08795).

    Args:
        weight: Factor.
        center: Pixel value, or one for each channel, that counts as 0.
        unit: Pixel value that counts as 1.

    Examples:
        >>> import torch
        >>> RootNorm(weight=0.5, center=1.0)(torch.tensor([[[[4.0]], [[5.0]]]]))
        tensor([2.5000])
    """

    weight: float
    center: float | tuple[float, ...] = 0.5
    unit: float = 1.0

    def __call__(self, images: Tensor) -> Tensor:
        """Computes the penalties.

        Args:
            images: ``(N, C, H, W)``, nominally in [0, 1].

        Returns:
            ``(N,)``, not negative.
        """
        centred = images - channel_values(self.center, images.dtype, images.device)
        norms: Tensor = centred.flatten(1).norm(dim=1)
        return norms * (self.weight / self.unit)
