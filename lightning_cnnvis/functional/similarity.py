"""Similarity of pictures, or of features: rank and linear correlation, signal to noise, and oriented gradients."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_HOG_BINS = 9
_HOG_CELL = 16  # pixels, of 224
_HOG_BLOCK = 3  # cells


def spearman(first: Tensor, second: Tensor) -> Tensor:
    """Computes the rank correlation of the values of each row; equal values have the mean of their ranks.

    Args:
        first: ``(N, ...)``.
        second: ``(N, ...)``, with as many values in a row.

    Returns:
        ``(N,)``, float32 in [-1, 1]; NaN where all values of a row are equal.

    Examples:
        >>> spearman(torch.tensor([[1.0, 2.0, 3.0, 3.0]]), torch.tensor([[1.0, 5.0, 9.0, 9.0]]))
        tensor([1.])
    """
    return pearson(ranks(first), ranks(second))


def pearson(first: Tensor, second: Tensor) -> Tensor:
    """Computes the linear correlation of the values of each row.

    Args:
        first: ``(N, ...)``.
        second: ``(N, ...)``, with as many values in a row.

    Returns:
        ``(N,)``, float32 in [-1, 1]; NaN where all values of a row are equal.

    Examples:
        >>> pearson(torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([[5.0, 4.0, 3.0]]))
        tensor([-1.])
    """
    # on the CPU, since some devices have no float64
    pairs = zip(first.flatten(1).cpu(), second.flatten(1).cpu(), strict=True)
    return torch.stack([_correlation(a.double(), b.double()) for a, b in pairs]).float()


def signal_to_noise(features: Tensor, originals: Tensor) -> Tensor:
    """Computes the signal-to-noise ratio of each row in dB: the original's energy over that of the difference.

    Args:
        features: ``(N, ...)``.
        originals: ``(N, ...)``.

    Returns:
        ``(N,)``, float32; infinite for equal rows.

    Examples:
        >>> signal_to_noise(torch.tensor([[1.1, 2.2]]), torch.tensor([[1.0, 2.0]])).round()
        tensor([20.])
    """
    a, b = features.flatten(1).cpu().double(), originals.flatten(1).cpu().double()
    return (10 * (b.square().sum(1) / (a - b).square().sum(1)).log10()).float()


def oriented_gradients(pictures: Tensor) -> Tensor:
    """Computes histograms of oriented gradients (Dalal & Triggs 2005), of the mean over the channels.

    Nine directions without sign, cells of 16 pixels (a quarter of the shorter side, where that is less), blocks of up
    to 3 × 3 cells, normalised as L2-Hys: what ``skimage.feature.hog`` computes.

    Args:
        pictures: ``(N, C, H, W)``.

    Returns:
        ``(N, D)``, float32; ``D`` is 0 for pictures below 8 pixels.

    Examples:
        >>> oriented_gradients(torch.rand(2, 3, 64, 64)).shape
        torch.Size([2, 324])
    """
    grey = pictures.float().mean(1)
    height, width = grey.shape[-2:]
    cell = min(_HOG_CELL, min(height, width) // 4)
    if cell < 2:
        return grey.new_zeros(len(grey), 0)
    down, right = torch.zeros_like(grey), torch.zeros_like(grey)
    down[:, 1:-1] = grey[:, 2:] - grey[:, :-2]
    right[..., 1:-1] = grey[..., 2:] - grey[..., :-2]
    angles = torch.rad2deg(torch.atan2(down, right)) % 180
    bins = (angles * (_HOG_BINS / 180)).long().clamp(max=_HOG_BINS - 1)
    votes = torch.zeros(len(grey), _HOG_BINS, height, width, dtype=grey.dtype, device=grey.device)
    votes.scatter_(1, bins[:, None], torch.hypot(down, right)[:, None])
    cells = F.avg_pool2d(votes, cell)
    block = min(_HOG_BLOCK, *cells.shape[-2:])
    blocks = cells.unfold(2, block, 1).unfold(3, block, 1).permute(0, 2, 3, 4, 5, 1).flatten(3)
    for largest in (0.2, 1.0):  # L2-Hys: normalise, clip, normalise
        blocks = (blocks / (blocks.square().sum(-1, keepdim=True) + 1e-10).sqrt()).clamp(max=largest)
    return blocks.flatten(1)


def ranks(values: Tensor) -> Tensor:
    """Ranks the values of each row; equal values have the mean of their ranks.

    Args:
        values: ``(N, ...)``.

    Returns:
        ``(N, D)``, float32 from 1 to D.

    Examples:
        >>> ranks(torch.tensor([[0.5, -2.0, 0.5, 9.0]]))
        tensor([[2.5000, 1.0000, 2.5000, 4.0000]])
    """
    ranked = []
    for row in values.flatten(1).cpu():
        ordered, places = row.sort()
        _, groups, counts = torch.unique_consecutive(ordered, return_inverse=True, return_counts=True)
        counts = counts.double()
        means = (counts.cumsum(0) - (counts - 1) / 2).float()
        ranked.append(torch.empty_like(means[groups]).scatter_(0, places, means[groups]))
    return torch.stack(ranked)


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    if bool((a == a[0]).all()) or bool((b == b[0]).all()):  # whose mean may differ from them in the last digit
        return a.new_tensor(torch.nan)
    a, b = a - a.mean(), b - b.mean()
    correlation: Tensor = a @ b / (a.norm() * b.norm())
    return correlation.clamp(-1, 1)
