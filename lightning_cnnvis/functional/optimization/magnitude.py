"""Images of a given magnitude spectrum, whose phases alone are free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from lightning_cnnvis.functional.noise import gaussian
from lightning_cnnvis.functional.optimization.parameterizations import Fourier, ImageStatistics, mix
from lightning_cnnvis.functional.optimization.spectrum import frequencies, look_up


@dataclass(frozen=True)
class FixedMagnitude(Fourier):
    """Phases of Fourier coefficients, whose magnitudes stay those of the statistics: MaCo.

    Fel et al. 2023 (arXiv 2306.06805), Sec. 3. An image cannot leave the spectrum of photographs, so that no penalty is
    needed. The magnitudes are those of decorrelated colours before the sigmoid, as in the authors' code. There the
    magnitudes are a file, the mean over ImageNet; here they are what the statistics say: measured, or the power law
    of everyday photographs. Here the phases of the columns that a real image has in pairs are made opposite, or their
    magnitudes would not be kept; and frequency 0 is 0, so that the mean colour is that of the statistics.

    Args:
        statistics: Statistics of the images that the network is made for; None takes everyday photographs.
        init_std: Standard deviation of the phases to start from, in radians.
        standardize: Whether each image's phases are brought to mean 0 and standard deviation 1 at each step, as in the
            authors' code. Without it, `decode` of `encode` keeps the phases of a given image.

    Example:
        >>> maco = FixedMagnitude()
        >>> phases = maco.init([torch.Generator().manual_seed(0)], (3, 8, 10))
        >>> phases.shape, maco.decode(phases, (8, 10)).shape, maco.magnitude((8, 10)).shape
        (torch.Size([1, 3, 8, 6]), torch.Size([1, 3, 8, 10]), torch.Size([3, 8, 6]))
    """

    init_std: float = 1.0
    standardize: bool = True

    def init(self, generators: Sequence[torch.Generator], shape: tuple[int, int, int]) -> Tensor:
        """Draws phases from a normal distribution.

        Args:
            generators: One for each of the N images.
            shape: Channels, height and width of the images.

        Returns:
            Phases ``(N, C, H, W // 2 + 1)`` in radians.
        """
        channels, height, width = shape
        return self.init_std * torch.stack([gaussian((channels, height, width // 2 + 1), g) for g in generators])

    def encode(self, images: Tensor) -> Tensor:
        """Finds the phases of images. Their magnitudes are lost.

        Args:
            images: ``(N, C, H, W)`` in [0, 1].

        Returns:
            Phases ``(N, C, H, W // 2 + 1)`` in radians.
        """
        return self.spectrum(images).angle()

    def decode(self, params: Tensor, size: tuple[int, int]) -> Tensor:
        """Computes the images of phases.

        Args:
            params: Phases ``(N, C, H, W // 2 + 1)`` in radians.
            size: Height and width of the images, those that the phases were made for.

        Returns:
            ``(N, C, H, W)`` in (0, 1).
        """
        phases = params
        if self.standardize:
            each = phases.flatten(1)
            mean, std = each.mean(1).view(-1, 1, 1, 1), each.std(1, correction=0).view(-1, 1, 1, 1)
            phases = (phases - mean) / (std + 1e-5)
        offset, color = self._color(params)
        coefficients = torch.polar(self._magnitude(params, size), _paired(phases, size[1]))
        return torch.sigmoid(mix(color, torch.fft.irfft2(coefficients, s=size, norm="ortho")) + offset)

    def magnitude(self, size: tuple[int, int], channels: int = 3) -> Tensor:
        """Returns the magnitudes that every image has.

        Args:
            size: Height and width of the images.
            channels: Number of channels C.

        Returns:
            ``(C, H, W // 2 + 1)``, of ``rfft2`` with the norm ``"ortho"``, 0 at frequency 0. The decorrelated colours
            have a variance of 1.
        """
        return self._magnitude(torch.empty(1, channels, 0, dtype=torch.float32, device="cpu"), size)

    def spectrum(self, images: Tensor) -> Tensor:
        """Computes the spectrum of images in the colours and the units of `magnitude`.

        Args:
            images: ``(N, C, H, W)`` in [0, 1].

        Returns:
            Complex ``(N, C, H, W // 2 + 1)``.
        """
        offset, color = self._color(images)
        logits = torch.logit(images, eps=torch.finfo(images.dtype).eps) - offset
        coefficients: Tensor = torch.fft.rfft2(mix(torch.linalg.inv(color), logits), norm="ortho")
        return coefficients

    def _magnitude(self, like: Tensor, size: tuple[int, int]) -> Tensor:
        statistics = self.statistics or ImageStatistics.natural(like.shape[1])
        return _magnitude(statistics, like.shape[1], size[0], size[1], like.dtype, str(like.device))


def _paired(phases: Tensor, width: int) -> Tensor:
    """Makes the phases of conjugate coefficients opposite: of the first column, and of the last of even widths."""
    opposite = (phases - phases.flip(-2).roll(1, -2)) / 2**0.5
    columns = torch.arange(phases.shape[-1], dtype=torch.int64, device=phases.device)
    return torch.where((columns == 0) | (2 * columns == width), opposite, phases)


# Cached, because they are asked for at every step.
@lru_cache(maxsize=16)
def _magnitude(
    statistics: ImageStatistics, channels: int, height: int, width: int, dtype: torch.dtype, device: str
) -> Tensor:
    if statistics.spectrum:
        table = torch.tensor(statistics.spectrum, dtype=torch.float64, device="cpu")
        amplitude = look_up(table, height, width, statistics.decay)
    else:
        frequency = frequencies(height, width)[0].double()
        frequency[0, 0] = torch.inf
        amplitude = (frequency**-statistics.decay).expand(channels, -1, -1)
    # every coefficient but those of the first (and, for even widths, last) column stands for two
    weight = torch.full_like(amplitude[0], 2.0)
    weight[:, 0] = 1.0
    if width % 2 == 0:
        weight[:, -1] = 1.0
    power = (weight * amplitude.square()).sum((1, 2), keepdim=True) / (height * width)
    return (amplitude / power.sqrt().clamp_min(torch.finfo(power.dtype).tiny)).to(device, dtype)
