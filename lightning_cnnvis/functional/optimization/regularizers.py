"""Priors over images: penalties for the loss, and constraints that act on the parameters after a step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


def total_variation(images: Tensor, beta: float = 2.0) -> Tensor:
    """Computes the total variation Σ (dx² + dy²)^(β/2) over pixels and channels, of each image.

    Mahendran & Vedaldi 2014 (arXiv 1412.0035), Sec. 2. Differences across the border are 0.

    Args:
        images: ``(N, C, H, W)``.
        beta: Exponent β. 1 is the classical total variation; 2 avoids the spikes that 1 leaves.

    Returns:
        ``(N,)``, 0 for an image of one colour.

    Examples:
        >>> total_variation(torch.tensor([[[[0.0, 3.0], [4.0, 4.0]]]]))
        tensor([26.])
    """
    dx = F.pad(images[..., :, 1:] - images[..., :, :-1], (0, 1))
    dy = F.pad(images[..., 1:, :] - images[..., :-1, :], (0, 0, 0, 1))
    squared = dx.square() + dy.square()
    if beta != 2:
        # the root has no finite slope at 0
        squared = squared.clamp_min(torch.finfo(images.dtype).tiny ** 0.5) ** (beta / 2)
    return squared.flatten(1).sum(1)


def alpha_norm(images: Tensor, alpha: float = 6.0, *, vector: bool = False) -> Tensor:
    """Computes the norm Σ |x|^α of each image, or Σ ‖x‖₂^α over its pixels' colour vectors.

    Args:
        images: ``(N, C, H, W)``, centred.
        alpha: Exponent α.
        vector: Whether the Euclidean norm of each pixel's colour is taken first, as Mahendran & Vedaldi 2016
            (arXiv 1512.02017) do; otherwise each value counts by itself, as in their paper of 2014.

    Returns:
        ``(N,)``, not negative.

    Examples:
        >>> image = torch.tensor([[[[3.0]], [[4.0]]]])
        >>> alpha_norm(image, 4.0), alpha_norm(image, 4.0, vector=True)
        (tensor([337.]), tensor([625.]))
    """
    if vector:
        return images.square().sum(1).flatten(1).pow(alpha / 2).sum(1)
    return images.abs().pow(alpha).flatten(1).sum(1)


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Blurs images with a Gaussian; the border is repeated.

    Args:
        images: ``(N, C, H, W)``.
        sigma: Standard deviation in pixels; 0 returns the images as they are.

    Returns:
        ``(N, C, H, W)``.

    Examples:
        >>> gaussian_blur(torch.eye(3)[None, None], sigma=0.5)[0, 0, 0]
        tensor([0.8093, 0.1791, 0.0118])
    """
    if sigma <= 0:
        return images
    radius = max(1, math.ceil(3 * sigma))
    offsets = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-0.5 * (offsets / sigma).square())
    kernel = (kernel / kernel.sum()).repeat(images.shape[1], 1, 1, 1)
    padded = F.pad(images, (radius,) * 4, mode="replicate")
    rows = F.conv2d(padded, kernel.transpose(2, 3), groups=images.shape[1])
    return F.conv2d(rows, kernel, groups=images.shape[1])


# Cached, because the constants are needed at every step, and copying them to a GPU would make the loop wait.
@lru_cache(maxsize=64)
def channel_values(values: float | tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor | float:
    """Shapes one value for each channel as ``(C, 1, 1)``.

    Args:
        values: One number for all channels, or a tuple of one for each.
        dtype: Dtype of the result.
        device: Device of the result.

    Returns:
        ``(C, 1, 1)``; a single number is returned as it is.
    """
    if isinstance(values, tuple):
        return torch.tensor(values, dtype=dtype, device=device).view(-1, 1, 1)
    return values


class Regularizer(Protocol):
    """A penalty that is added to the loss of each image."""

    def __call__(self, images: Tensor) -> Tensor:
        """Computes the penalties.

        Args:
            images: ``(N, C, H, W)``, nominally in [0, 1].

        Returns:
            ``(N,)``, differentiable; penalty i depends only on image i.
        """
        ...


@dataclass(frozen=True)
class TotalVariation:
    """A penalty on differences between neighbouring pixels: weighted `total_variation`.

    Args:
        weight: Factor.
        beta: Exponent β.
        unit: Pixel value that counts as 1; 1/255 measures images in grey levels.
        mean: Whether to divide by the number of pixels, so that the weight does not depend on the size.

    Examples:
        >>> TotalVariation(weight=0.5)(torch.tensor([[[[0.0, 3.0], [4.0, 4.0]]]]))
        tensor([13.])
    """

    weight: float
    beta: float = 2.0
    unit: float = 1.0
    mean: bool = False

    def __call__(self, images: Tensor) -> Tensor:
        """Computes the penalties.

        Args:
            images: ``(N, C, H, W)``, nominally in [0, 1].

        Returns:
            ``(N,)``, not negative.
        """
        weight = self.weight / math.prod(images.shape[-2:]) if self.mean else self.weight
        return weight * total_variation(images / self.unit, self.beta)


@dataclass(frozen=True)
class AlphaNorm:
    """A penalty on extreme pixels: weighted `alpha_norm` of the centred image.

    α = 2 is the L2 penalty of Simonyan et al. 2013 (arXiv 1312.6034, Sec. 2).

    Args:
        weight: Factor.
        alpha: Exponent α.
        center: Pixel value, or one for each channel, that counts as 0.
        unit: Pixel value that counts as 1; 1/255 measures images in grey levels.
        vector: Whether a pixel's colour counts as one vector; see `alpha_norm`.
        mean: Whether to divide by the number of pixels, so that the weight does not depend on the size.

    Examples:
        >>> AlphaNorm(weight=0.5, center=1.0)(torch.tensor([[[[4.0]], [[5.0]]]]))
        tensor([12.5000])
    """

    weight: float
    alpha: float = 2.0
    center: float | tuple[float, ...] = 0.5
    unit: float = 1.0
    vector: bool = False
    mean: bool = False

    def __call__(self, images: Tensor) -> Tensor:
        """Computes the penalties.

        Args:
            images: ``(N, C, H, W)``, nominally in [0, 1].

        Returns:
            ``(N,)``, not negative.
        """
        center = channel_values(self.center, images.dtype, images.device)
        weight = self.weight / math.prod(images.shape[-2:]) if self.mean else self.weight
        return weight * alpha_norm((images - center) / self.unit, self.alpha, vector=self.vector)


class Constraint(Protocol):
    """A map of the parameters that is applied after each step of the optimiser."""

    def __call__(self, params: Tensor, gradient: Tensor, step: int) -> Tensor:
        """Maps the parameters.

        Args:
            params: ``(N, ...)``, after the step.
            gradient: Gradient of the loss, of the same shape, before the step.
            step: Number of the step, from 1.

        Returns:
            The new parameters, of the same shape; row i depends only on row i.
        """
        ...


@dataclass(frozen=True)
class Bounds:
    """A constraint that clamps the parameters to an interval.

    Args:
        low: Smallest value, in the parameters' units.
        high: Largest value, in the parameters' units.

    Examples:
        >>> Bounds(-1.0, 1.0)(torch.tensor([[-3.0, 0.5]]), torch.zeros(1, 2), step=1)
        tensor([[-1.0000,  0.5000]])
    """

    low: float
    high: float

    def __call__(self, params: Tensor, gradient: Tensor, step: int) -> Tensor:
        """Clamps the parameters.

        Args:
            params: ``(N, ...)``.
            gradient: Gradient of the loss, of the same shape; not used.
            step: Number of the step, from 1; not used.

        Returns:
            The parameters, in [low, high].
        """
        return params.clamp(self.low, self.high)


@dataclass(frozen=True)
class Both:
    """Two constraints, one after the other.

    Args:
        first: The constraint that is applied to the parameters.
        second: The constraint that is applied to the first one's result.
    """

    first: Constraint
    second: Constraint

    def __call__(self, params: Tensor, gradient: Tensor, step: int) -> Tensor:
        """Applies both constraints.

        Args:
            params: ``(N, ...)``.
            gradient: Gradient of the loss, of the same shape.
            step: Number of the step, from 1.

        Returns:
            The new parameters, of the same shape.
        """
        return self.second(self.first(params, gradient, step), gradient, step)


@dataclass(frozen=True)
class ColorNormBound:
    """A constraint that shrinks each pixel's colour vector to at most a given norm.

    Mahendran & Vedaldi 2016 (arXiv 1512.02017), Sec. 3.

    Args:
        bound: Largest Euclidean norm of a centred pixel, in the parameters' units.

    Examples:
        >>> ColorNormBound(2.5)(torch.tensor([[[[3.0]], [[4.0]]]]), torch.zeros(1, 2, 1, 1), step=1).flatten()
        tensor([1.5000, 2.0000])
    """

    bound: float

    def __call__(self, params: Tensor, gradient: Tensor, step: int) -> Tensor:
        """Shrinks the pixels whose norm is above the bound.

        Args:
            params: Centred pixels ``(N, C, H, W)``.
            gradient: Gradient of the loss, of the same shape; not used.
            step: Number of the step, from 1; not used.

        Returns:
            The pixels, of a norm of at most ``bound``.
        """
        norm = params.square().sum(1, keepdim=True).sqrt()
        return params * (self.bound / norm.clamp_min(self.bound))


@dataclass(frozen=True)
class YosinskiPrior:
    """Decay, blur and pixel clipping after each step: Yosinski et al. 2015 (arXiv 1506.06579), Sec. 3.

    Args:
        decay: Fraction by which the image shrinks towards its centre at each step.
        blur_sigma: Standard deviation of the blur, in pixels; 0 does not blur.
        blur_every: Number of steps from one blur to the next.
        clip_norm: Percentage of the pixels that are set to 0, those of the smallest colour norm.
        clip_contribution: Percentage of the pixels that are set to 0, those that contribute least to the score, to
            first order.
    """

    decay: float = 1e-4
    blur_sigma: float = 1.0
    blur_every: int = 4
    clip_norm: float = 0.0
    clip_contribution: float = 0.0

    def __call__(self, params: Tensor, gradient: Tensor, step: int) -> Tensor:
        """Applies decay, blur and clipping, in this order.

        Args:
            params: Centred pixels ``(N, C, H, W)``.
            gradient: Gradient of the loss, of the same shape.
            step: Number of the step, from 1, which decides on the blur.

        Returns:
            The new pixels, of the same shape.
        """
        if self.decay:
            params = params * (1 - self.decay)
        if self.blur_sigma and step % self.blur_every == 0:
            params = gaussian_blur(params, self.blur_sigma)
        if self.clip_norm:
            params = _keep_largest(params, params.square().sum(1).sqrt(), self.clip_norm)
        if self.clip_contribution:
            # the loss falls where the score rises
            params = _keep_largest(params, -(params * gradient).sum(1), self.clip_contribution)
        return params


def _keep_largest(params: Tensor, measure: Tensor, percentage: float) -> Tensor:
    """Zeroes the given percentage of each image's pixels, those where ``measure`` ``(N, H, W)`` is smallest."""
    count = round(measure[0].numel() * percentage / 100)
    if count == 0:
        return params
    threshold = measure.flatten(1).kthvalue(count, dim=1).values
    return params * (measure > threshold.view(-1, 1, 1))[:, None]
