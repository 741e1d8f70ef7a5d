"""Distances of a reconstruction from its original, in pixels and in features."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

_SMALLEST_FOR_SSIM = 11  # pixels: the side of the Gaussian window of Wang et al. 2004


def psnr(images: Tensor, originals: Tensor) -> Tensor:
    """Computes the peak signal-to-noise ratio of each image, in dB; higher is closer.

    Args:
        images: ``(N, C, H, W)``; clipped to [0, 1] first.
        originals: ``(N, C, H, W)`` in [0, 1].

    Returns:
        ``(N,)``, infinite for equal images.

    Examples:
        >>> psnr(torch.full((1, 3, 8, 8), 0.6), torch.full((1, 3, 8, 8), 0.5)).round()
        tensor([20.])
    """
    return -10 * (images.clamp(0, 1).float() - originals.float()).square().flatten(1).mean(1).log10()


def ssim(images: Tensor, originals: Tensor) -> Tensor:
    """Computes the structural similarity of each image (Wang et al. 2004, https://doi.org/10.1109/TIP.2003.819861).

    Mean over channels and all pixels; the window is mirrored at the border.

    Args:
        images: ``(N, C, H, W)``; clipped to [0, 1] first.
        originals: ``(N, C, H, W)`` in [0, 1].

    Returns:
        ``(N,)``, at most 1; NaN if a side has less than the 11 pixels of the measure's window.

    Examples:
        >>> image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> ssim(image, image)
        tensor([1.])
    """
    if min(images.shape[-2:]) < _SMALLEST_FOR_SSIM:
        return images.new_full((len(images),), float("nan"))
    with images.device:  # on which TorchMetrics then makes its constants
        similarity = structural_similarity_index_measure(
            images.clamp(0, 1).float(), originals.float(), data_range=1.0, reduction="none"
        )
    assert isinstance(similarity, Tensor)
    return similarity.reshape(len(images))


def squared_distance(features: Tensor, others: Tensor) -> Tensor:
    """Computes the squared distance Σ (a − b)² of each row.

    Args:
        features: ``(N, ...)``.
        others: ``(N, ...)``, or a shape that broadcasts to it.

    Returns:
        ``(N,)``, not negative.
    """
    return (features - others).square().flatten(1).sum(1)


def mean_distance_between(features: Tensor) -> Tensor:
    """Computes the mean squared distance between the features of two different images.

    Computed from the variance: over all pairs, the mean of ‖a − b‖² is twice the (unbiased) variance.

    Args:
        features: ``(N, ...)``, one row an image.

    Returns:
        A scalar; NaN for a single image.

    Examples:
        >>> mean_distance_between(torch.tensor([[0.0], [1.0], [3.0]]))  # (1 + 4 + 9) / 3
        tensor(4.6667)
    """
    return 2 * sample_variance(features).sum()


def sample_variance(samples: Tensor) -> Tensor:
    """Computes the unbiased variance over the first dimension.

    Args:
        samples: ``(R, ...)``.

    Returns:
        ``(...)``; NaN for a single sample.
    """
    if len(samples) < 2:
        return torch.full_like(samples[0], float("nan"))
    return samples.var(0)
