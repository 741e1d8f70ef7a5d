"""Measures of convolution kernels: aliased energy, noise, and the most similar other kernel."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_cnnvis.functional.noise import gaussian

_SPECTRUM = 64
"""Least number of frequencies along each side of a spectrum."""

_PRIOR = 0.1
"""Weight of a white spectrum in that of a layer, from which kernels are told apart from noise."""

_WHITE = 0.95
"""Entropy of a layer's mean spectrum, relative to a white one's, from which the layer as a whole is noise."""

_ENOUGH_KERNELS = 8
"""Number of kernels from which a layer's mean spectrum says something."""


def spectra(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Computes the power spectra of kernels, zero-padded so that they are smooth.

    Args:
        weight: ``(K, C, h, w)``, kernels.

    Returns:
        ``(K, H, W)``, the power, summed over the channels, with frequency 0 in the middle; and ``(H, W)``, the distance
        of each place from there in cycles per pixel, at most 0.71.

    Examples:
        >>> power, frequency = spectra(torch.ones(1, 3, 5, 5))
        >>> power.shape, float(frequency[power[0] == power.max()])
        (torch.Size([1, 64, 64]), 0.0)
    """
    sides = [max(_SPECTRUM, 2 * side) for side in weight.shape[2:]]
    power = torch.fft.fft2(weight.detach().cpu().float(), s=sides).abs().square().sum(1)
    rows, columns = (torch.fft.fftfreq(side, dtype=torch.float32, device="cpu") for side in sides)
    frequency = torch.hypot(rows[:, None], columns[None])
    return torch.fft.fftshift(power, dim=(1, 2)), torch.fft.fftshift(frequency)


def aliased_energy(weight: Tensor, stride: tuple[int, int]) -> Tensor:
    """Measures which share of a kernel's energy lies above what its stride can sample.

    A convolution with stride s keeps one position of s: what the kernel passes above the Nyquist frequency, 1 / 2s
    cycles per pixel, appears in the feature map as a pattern that is not in the image. Zeiler & Fergus 2013 (section
    4.1, arXiv 1311.2901) found it in the layers after AlexNet's 11×11 kernels with stride 4.

    Args:
        weight: ``(K, C, h, w)``, kernels of a layer that reads the image.
        stride: Vertical and horizontal stride in pixels; the larger counts.

    Returns:
        ``(K,)``, shares in [0, 1], on the CPU; 0 where the stride is 1, and for kernels of zeros.

    Examples:
        >>> board = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(1, 3, 4, 4)
        >>> float(aliased_energy(board, (4, 4))) > 0.99, float(aliased_energy(board.abs(), (4, 4))) < 0.3
        (True, True)
    """
    power, frequency = spectra(weight)
    if max(stride) == 1:
        return power.new_zeros(len(power))
    whole = power.sum((1, 2))
    above = (power * (frequency > nyquist(stride))).sum((1, 2))
    return torch.where(whole > 0, above / whole.clamp_min(torch.finfo(torch.float32).tiny), 0.0)


def nyquist(stride: tuple[int, int]) -> float:
    """Returns the highest frequency that samples a stride apart can hold.

    Args:
        stride: Vertical and horizontal stride in pixels; the larger counts.

    Returns:
        The frequency in cycles per pixel, at most 0.5.

    Examples:
        >>> nyquist((4, 4))
        0.125
    """
    return 1 / (2 * max(stride))


def noise_probability(weight: Tensor) -> Tensor:
    """Tells kernels that never formed from those that did, by their spectra.

    Each kernel is split into brightness and colours, and these into cosines. What training forms keeps to some of these
    coefficients; the layer's mean power in each is the variance that a formed kernel has there. Noise has the same
    variance in all. The kernel's likelihoods under both, which are taken to be equally common, give the probability. If
    the layer's mean power is the same in all coefficients, it has not formed as a whole.

    Args:
        weight: ``(K, C, h, w)``, kernels of a layer that reads the image.

    Returns:
        ``(K,)``, probabilities in [0, 1], on the CPU; 0 for kernels of zeros, and where there are too few kernels or
        coefficients to tell.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> kernels = torch.randn(16, 3, 1, 1, generator=generator) * torch.hann_window(9)[:, None]  # blobs
        >>> kernels = kernels.expand(16, 3, 9, 9).clone()
        >>> kernels[5] = torch.randn(3, 9, 9, generator=generator)
        >>> noise_probability(kernels).gt(0.9).nonzero().flatten().tolist()
        [5]
    """
    kernels = weight.detach().cpu().float()
    number, size = len(kernels), kernels[0].numel()
    norms = kernels.flatten(1).norm(dim=1)
    formed = norms > norms.median() * 1e-3
    unknown = torch.zeros(number, dtype=torch.float32, device="cpu")
    if formed.sum() < _ENOUGH_KERNELS or kernels.shape[2] * kernels.shape[3] < 9:
        return unknown
    power = _coefficients(kernels[formed] / norms[formed, None, None, None]).flatten(1).square()
    # those of a kernel are not to vouch for it: the mean over the others
    others = (power.sum(0) - power) / (len(power) - 1)
    variance = (1 - _PRIOR) * others + _PRIOR / size
    mean = power.mean(0)
    if float(_entropy(mean[None])) > _WHITE * math.log(size):
        return unknown.masked_fill(formed, 1.0)
    log_odds = ((variance * size).log() + power / variance - power * size).sum(1) / 2  # of noise
    # a kernel that is alone in using some coefficients is not like the others, and yet no noise
    unknown[formed] = torch.sigmoid(log_odds) * (_entropy(power) >= _least_entropy_of_noise(kernels.shape[1:]))
    return unknown


def _entropy(power: Tensor) -> Tensor:
    """``(K,)``, entropy of the power over the coefficients."""
    return -(power * power.clamp_min(1e-12).log()).sum(1)


def _least_entropy_of_noise(shape: torch.Size) -> float:
    """What all but about one in a hundred kernels of white noise pass."""
    kernels = gaussian((256, *shape), seed=0)
    power = _coefficients(kernels).flatten(1).square()
    return float(_entropy(power / power.sum(1, keepdim=True)).quantile(0.01))


def _coefficients(kernels: Tensor) -> Tensor:
    """Brightness and colours, then cosines: orthonormal, so that white noise stays white."""
    colors = torch.eye(kernels.shape[1], dtype=torch.float32, device="cpu")
    if len(colors) > 1:  # the first direction is that of grey
        colors = torch.linalg.qr(torch.cat([torch.ones_like(colors[:1]), colors[1:]]).T)[0].T
    rows, columns = (_cosines(side) for side in kernels.shape[2:])
    return torch.einsum("dc,kchw,ih,jw->kdij", colors, kernels, rows, columns)


def _cosines(side: int) -> Tensor:
    places = torch.arange(side, dtype=torch.float32, device="cpu")
    waves = torch.cos(math.pi * (places + 0.5) * places[:, None] / side)
    lengths: Tensor = waves.norm(dim=1, keepdim=True)
    return waves / lengths


def nearest_kernels(weight: Tensor, groups: int = 1) -> tuple[Tensor, Tensor]:
    """Finds the most similar other kernel of each, up to sign and shift.

    Args:
        weight: ``(K, C, h, w)``, kernels.
        groups: Number of groups of the convolution. Kernels of different groups see different maps, and are not
            compared.

    Returns:
        ``(K,)``, the absolute cosine similarity to that kernel, in [0, 1]; and ``(K,)``, its number. Where there is no
        other kernel in the group, 0 and the kernel's own number. On the device of the weights.

    Examples:
        >>> kernels = torch.eye(9).reshape(9, 1, 3, 3)[[0, 4]]  # one pixel each, which a shift takes to the other
        >>> similarity, nearest = nearest_kernels(kernels)
        >>> similarity.tolist(), nearest.tolist()
        ([1.0, 1.0], [1, 0])
    """
    kernels = weight.detach().float()
    in_group = len(kernels) // groups
    similarity = kernels.new_zeros(len(kernels))
    nearest = torch.arange(len(kernels), device=kernels.device)
    if in_group == 1:
        return similarity, nearest
    for first in range(0, len(kernels), in_group):
        own = slice(first, first + in_group)
        similarity[own], other = _nearest(kernels[own])
        nearest[own] = other + first
    return similarity, nearest


def _nearest(kernels: Tensor) -> tuple[Tensor, Tensor]:
    height, width = kernels.shape[2:]
    tiny = torch.finfo(torch.float32).tiny
    units = kernels / kernels.flatten(1).norm(dim=1).clamp_min(tiny)[:, None, None, None]
    best = units.new_zeros(len(units), len(units))
    for down in range(-(height // 2), height // 2 + 1):
        for right in range(-(width // 2), width // 2 + 1):
            # around the edge, as a rolled copy is; else what leaves the kernel is lost, and the rest is compared
            rolled = units.roll((down, right), dims=(2, 3))
            torch.maximum(best, (units.flatten(1) @ rolled.flatten(1).T).abs(), out=best)
            if down or right:
                torch.maximum(best, _overlapping(units, down, right), out=best)
    best = torch.maximum(best, best.T).fill_diagonal_(-1)
    found = best.max(dim=1)
    return found.values.clamp(0, 1), found.indices


def _overlapping(units: Tensor, down: int, right: int) -> Tensor:
    """Cosines between kernels and shifted kernels where both are, 0 where less than 3/4 of the energy of one is."""
    height, width = units.shape[2:]
    rows = slice(max(0, down), height + min(0, down)), slice(max(0, -down), height + min(0, -down))
    columns = slice(max(0, right), width + min(0, right)), slice(max(0, -right), width + min(0, -right))
    fixed, moved = (units[:, :, rows[n], columns[n]].flatten(1) for n in (0, 1))
    kept, left = fixed.square().sum(1), moved.square().sum(1)
    cosines = (fixed @ moved.T).abs() / (kept[:, None] * left[None]).sqrt().clamp_min(1e-12)
    return cosines * ((kept[:, None] > 0.75) & (left[None] > 0.75))
