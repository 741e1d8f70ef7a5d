"""Parameterisations of images: plain pixels, or a Fourier basis with decorrelated colour."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

from lightning_cnnvis.functional.noise import gaussian, uniform
from lightning_cnnvis.functional.optimization.regularizers import channel_values
from lightning_cnnvis.functional.optimization.spectrum import frequencies, tabulate
from lightning_cnnvis.inputs import IMAGENET_MEAN

# The mean is ImageNet's. The rest was measured with `ImageStatistics.measure` on 5000 photographs of 64×64 pixels
# (animals, food, vehicles, buildings).
_NATURAL_MEAN = IMAGENET_MEAN
_NATURAL_COVARIANCE = (
    (0.0765, 0.0628, 0.0499),
    (0.0628, 0.0697, 0.0623),
    (0.0499, 0.0623, 0.0778),
)
_NATURAL_DECAY = 1.25
_SMALLEST = 1e-3  # distance that `encode` keeps from black and white, which a sigmoid never reaches


@dataclass(frozen=True)
class ImageStatistics:
    """Second-order statistics of a set of images: the meaning of "natural" for the Fourier parameterisation.

    Args:
        mean: Mean of each channel, pixels in [0, 1].
        covariance: Covariance ``(C, C)`` of the channels over all pixels.
        decay: Exponent a of the amplitude spectrum, which falls off as 1 / frequency^a; about 1 for photographs
            (Field 1987, https://doi.org/10.1364/JOSAA.4.002379).
        spectrum: Logarithm of the mean amplitude less that power law, for each decorrelated colour a table by scale and
            direction, see `spectrum`; empty for the power law only. `FixedMagnitude` uses it.

    Examples:
        >>> ImageStatistics.natural(3).decay
        1.25
        >>> noise = torch.rand(64, 1, 32, 32, generator=torch.Generator().manual_seed(0))
        >>> statistics = ImageStatistics.measure(noise)
        >>> abs(statistics.decay) < 0.05, abs(statistics.covariance[0][0] - 1 / 12) < 0.001
        (True, True)
    """

    mean: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    decay: float = _NATURAL_DECAY
    spectrum: tuple[tuple[tuple[float, ...], ...], ...] = ()

    @classmethod
    def natural(cls, channels: int = 3) -> ImageStatistics:
        """Returns the statistics of everyday photographs.

        Args:
            channels: Number of channels C. For 3 (RGB) and 1 (luminance) the values were measured on 5000
                photographs. For other counts, whose meaning is unknown, the channels are taken to be
                independent: measure your own images then.

        Returns:
            The statistics of C channels.
        """
        if channels == 3:
            return cls(_NATURAL_MEAN, _NATURAL_COVARIANCE)
        variance = round(sum(itertools.chain(*_NATURAL_COVARIANCE)) / 9, 4)
        covariance = tuple(tuple(variance if i == j else 0.0 for j in range(channels)) for i in range(channels))
        return cls((sum(_NATURAL_MEAN) / 3,) * channels, covariance)

    @classmethod
    def measure(cls, images: Tensor) -> ImageStatistics:
        """Measures the statistics of images.

        Args:
            images: ``(N, C, H, W)`` in [0, 1], at least 4 pixels a side.

        Returns:
            The mean and covariance of the channels, the slope of the radially averaged amplitude spectrum
            between the lowest frequency and half the Nyquist frequency, where neither the image's frame nor
            JPEG rules it, and what differs from that slope by scale and direction.

        Raises:
            ValueError: If ``images`` has another shape or is not finite.
        """
        if images.ndim != 4 or min(images.shape[-2:]) < 4 or len(images) == 0:
            raise ValueError(f"images of shape {tuple(images.shape)}: give (N, C, H, W) with at least 4 pixels a side.")
        images = images.detach().cpu().double()
        if not images.isfinite().all():
            raise ValueError("images contain NaN or infinite values: statistics need finite pixels.")
        pixels = images.transpose(0, 1).flatten(1)
        mean, centred = pixels.mean(1), pixels - pixels.mean(1, keepdim=True)
        covariance = centred @ centred.T / pixels.shape[1]
        decay = _spectrum_decay(images)
        plain = torch.linalg.solve(_root(covariance), centred).unflatten(1, (len(images), -1)).transpose(0, 1)
        amplitude = torch.fft.rfft2(_windowed(plain.unflatten(2, images.shape[-2:]))).abs().mean(0)
        return cls(
            tuple(mean.tolist()),
            tuple(tuple(row) for row in covariance.tolist()),
            decay,
            tuple(tuple(map(tuple, rows)) for rows in tabulate(amplitude, images.shape[-1], decay).tolist()),
        )


def _spectrum_decay(images: Tensor) -> float:
    """Fits the exponent a of the amplitude spectrum 1 / f^a, by least squares to octave-balanced radial means."""
    height, width = images.shape[-2:]
    power = torch.fft.rfft2(_windowed(images)).abs().square().mean((0, 1))
    frequency = frequencies(height, width)[0].to(images.dtype)
    edges = torch.linspace(math.log(2 / min(height, width)), math.log(0.25), 9, dtype=torch.float32, device="cpu").exp()
    points = []
    for lower, upper in itertools.pairwise(edges):
        ring = (frequency >= lower) & (frequency < upper)
        if ring.any():
            points.append((frequency[ring].log().mean(), power[ring].mean().clamp_min(1e-20).log()))
    if len(points) < 2:
        return _NATURAL_DECAY
    x, y = torch.tensor(points, dtype=torch.float64, device="cpu").T
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    return float(-slope / 2)


def _windowed(images: Tensor) -> Tensor:
    """Fades each image out towards its edges: the jump between opposite edges would add a spectrum of its own."""
    rows, columns = (
        torch.hann_window(side, periodic=False, dtype=images.dtype, device="cpu") for side in images.shape[-2:]
    )
    return (images - images.mean((-2, -1), keepdim=True)) * rows.outer(columns)


class Parameterization(Protocol):
    """A map from free parameters ``(N, ...)``, one row for each image, to images."""

    def init(self, generators: Sequence[torch.Generator], shape: tuple[int, int, int]) -> Tensor:
        """Draws random parameters to start from.

        Args:
            generators: One for each of the N images; row i is drawn only from generator i.
            shape: Channels, height and width of the images.

        Returns:
            The parameters ``(N, ...)``, on the CPU.
        """
        ...

    def encode(self, images: Tensor) -> Tensor:
        """Finds the parameters of given images; the inverse of `decode`.

        Args:
            images: ``(N, C, H, W)`` in [0, 1].

        Returns:
            The parameters ``(N, ...)``.
        """
        ...

    def decode(self, params: Tensor, size: tuple[int, int]) -> Tensor:
        """Computes the images of parameters, differentiably.

        Args:
            params: ``(N, ...)``.
            size: Height and width of the images.

        Returns:
            ``(N, C, *size)``, nominally in [0, 1].
        """
        ...


@dataclass(frozen=True)
class Pixels:
    """Plain pixels with a unit and a centre of choice. Not bounded.

    Args:
        unit: Size of one unit of the parameters, in pixel values from 0 to 1: 1/255 gives the classic range.
        center: Pixel value, or one for each channel, at which the parameters are 0.
        init_std: Standard deviation of the random start, in units; 0 starts from the centre.

    Examples:
        >>> pixels = Pixels(unit=1 / 255, center=0.5)
        >>> params = pixels.encode(torch.ones(1, 3, 2, 2))
        >>> round(params[0, 0, 0, 0].item() / 127.5, 4), pixels.decode(params, (2, 2))[0, 0, 0, 0].item()
        (1.0, 1.0)
    """

    unit: float = 1.0
    center: float | tuple[float, ...] = 0.5
    init_std: float = 0.05

    def init(self, generators: Sequence[torch.Generator], shape: tuple[int, int, int]) -> Tensor:
        """Draws white noise of the standard deviation ``init_std``.

        Args:
            generators: One for each of the N images.
            shape: Channels, height and width of the images.

        Returns:
            ``(N, C, H, W)``, in units from the centre.
        """
        return self.init_std * torch.stack([gaussian(shape, g) for g in generators])

    def encode(self, images: Tensor) -> Tensor:
        """Measures pixels from the centre.

        Args:
            images: ``(N, C, H, W)`` in [0, 1].

        Returns:
            ``(N, C, H, W)``, in units from the centre.
        """
        return (images - self._center(images)) / self.unit

    def decode(self, params: Tensor, size: tuple[int, int]) -> Tensor:
        """Turns units from the centre into pixel values.

        Args:
            params: ``(N, C, H, W)``, in units from the centre.
            size: Height and width of the images; they are always those of the parameters.

        Returns:
            ``(N, C, H, W)``, not clipped to [0, 1].
        """
        return params * self.unit + self._center(params)

    def _center(self, like: Tensor) -> Tensor | float:
        return channel_values(self.center, like.dtype, like.device)


@dataclass(frozen=True)
class Fourier:
    """Fourier coefficients, whitened by the statistics of natural images, and bounded to [0, 1] by a sigmoid.

    Parameters drawn from the unit normal distribution give noise with the spectrum and the colours of the
    statistics. So a step of equal size in every parameter is a step towards a natural image, and decay of the
    parameters is a Gaussian prior over images. After Olah et al. 2017 (https://doi.org/10.23915/distill.00007,
    "Preconditioning and Parameterization") and Mordvintsev et al. 2018
    (https://doi.org/10.23915/distill.00012), with the spectrum's exponent and the colour matrix measured.

    Args:
        statistics: Statistics of the images that the network is made for; None takes everyday photographs.
        init_std: Standard deviation of the random start; 1 is that of natural images.

    Examples:
        >>> fourier = Fourier()
        >>> params = fourier.init([torch.Generator().manual_seed(0)], (3, 8, 10))
        >>> images = fourier.decode(params, (8, 10))
        >>> images.shape, torch.allclose(fourier.decode(fourier.encode(images), (8, 10)), images, atol=1e-4)
        (torch.Size([1, 3, 8, 10]), True)
    """

    statistics: ImageStatistics | None = None
    init_std: float = 0.1

    def init(self, generators: Sequence[torch.Generator], shape: tuple[int, int, int]) -> Tensor:
        """Draws noise with a natural spectrum.

        Args:
            generators: One for each of the N images.
            shape: Channels, height and width of the images.

        Returns:
            Whitened coefficients ``(N, C, H, W // 2 + 1, 2)``, real and imaginary part.
        """
        channels, height, width = shape
        spectrum = (channels, height, width // 2 + 1, 2)
        return self.init_std * torch.stack([gaussian(spectrum, g) for g in generators])

    def encode(self, images: Tensor) -> Tensor:
        """Finds the coefficients of images; black and white are first moved inside the open interval (0, 1).

        Args:
            images: ``(N, C, H, W)`` in [0, 1].

        Returns:
            Whitened coefficients ``(N, C, H, W // 2 + 1, 2)``.
        """
        offset, color = self._color(images)
        logits = torch.logit(images, eps=_SMALLEST) - offset
        spectrum = torch.fft.rfft2(mix(torch.linalg.inv(color), logits), norm="ortho")
        return torch.view_as_real(spectrum / self._scale(images, images.shape[-2:]))

    def decode(self, params: Tensor, size: tuple[int, int]) -> Tensor:
        """Computes the images of coefficients.

        Args:
            params: Whitened coefficients ``(N, C, H, W // 2 + 1, 2)``.
            size: Height and width of the images, those that the coefficients were made for.

        Returns:
            ``(N, C, H, W)`` in (0, 1).
        """
        offset, color = self._color(params)
        spectrum = torch.view_as_complex(params) * self._scale(params, size)
        return torch.sigmoid(mix(color, torch.fft.irfft2(spectrum, s=size, norm="ortho")) + offset)

    def _color(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Looks up offset ``(C, 1, 1)`` and colour matrix ``(C, C)`` before the sigmoid."""
        return _color_matrix(self.statistics or ImageStatistics.natural(like.shape[1]), like.dtype, str(like.device))

    def _scale(self, like: Tensor, size: Sequence[int]) -> Tensor:
        statistics = self.statistics or ImageStatistics.natural(like.shape[1])
        return _spectrum_scale(size[0], size[1], statistics.decay, like.dtype, str(like.device))


def mix(matrix: Tensor, images: Tensor) -> Tensor:
    """Multiplies each pixel's channels by a matrix.

    Args:
        matrix: ``(D, C)``.
        images: ``(N, C, H, W)``.

    Returns:
        ``(N, D, H, W)``.

    Examples:
        >>> mix(torch.tensor([[1.0, 2.0]]), torch.ones(1, 2, 1, 1)).item()
        3.0
    """
    mixed: Tensor = torch.einsum("dc,nchw->ndhw", matrix, images)
    return mixed


def _root(covariance: Tensor) -> Tensor:
    """Finds the matrix that turns independent channels of variance 1 into channels of this covariance."""
    values, vectors = torch.linalg.eigh(covariance)
    # a channel that never varies still gets a direction of its own
    values = values.clamp_min(1e-3 * values.max().clamp_min(1e-6))
    root: Tensor = vectors * values.sqrt()
    return root


# Cached, because they are asked for at every step.
@lru_cache(maxsize=16)
def _spectrum_scale(height: int, width: int, decay: float, dtype: torch.dtype, device: str) -> Tensor:
    scale = frequencies(height, width)[0].double().clamp_min(1 / max(height, width)) ** -decay
    # every coefficient but those of the first (and, for even widths, last) column stands for two
    weight = torch.full_like(scale, 2.0)
    weight[:, 0] = 1.0
    if width % 2 == 0:
        weight[:, -1] = 1.0
    # the real and imaginary parts both have variance 1
    power = (weight * scale.square()).sum() * 2 / (height * width)
    return (scale / power.sqrt()).to(device, dtype)


@lru_cache(maxsize=16)
def _color_matrix(statistics: ImageStatistics, dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor]:
    mean = torch.tensor(statistics.mean, dtype=torch.float64, device="cpu").clamp(_SMALLEST, 1 - _SMALLEST)
    covariance = torch.tensor(statistics.covariance, dtype=torch.float64, device="cpu")
    # through the sigmoid's slope at the mean, from pixels to logits
    root = _root(covariance) / (mean * (1 - mean))[:, None]
    return mean.logit().to(device, dtype).view(-1, 1, 1), root.to(device, dtype)


@dataclass(frozen=True)
class GaussianStart(Pixels):
    """Pixels that start from Gaussian noise whose root mean square is exactly ``init_std``.

    So start the reconstructions of Mahendran & Vedaldi 2014 (arXiv 1412.0035). Arguments as for `Pixels`.
    """

    def init(self, generators: Sequence[torch.Generator], shape: tuple[int, int, int]) -> Tensor:
        """Draws Gaussian noise and scales it.

        Args:
            generators: One for each of the N images.
            shape: Channels, height and width of the images.

        Returns:
            ``(N, C, H, W)``, in units from the centre.
        """
        noise = super().init(generators, shape)
        rms = noise.square().mean((1, 2, 3), keepdim=True).sqrt()
        return noise * (self.init_std / rms)


@dataclass(frozen=True)
class UniformStart(Pixels):
    """Pixels that start from uniform noise around the centre, with ``init_std`` as its 95 % quantile.

    So start the reconstructions of Mahendran & Vedaldi 2016 (arXiv 1512.02017). Arguments as for `Pixels`.
    """

    def init(self, generators: Sequence[torch.Generator], shape: tuple[int, int, int]) -> Tensor:
        """Draws uniform noise and scales it.

        Args:
            generators: One for each of the N images.
            shape: Channels, height and width of the images.

        Returns:
            ``(N, C, H, W)``, in units from the centre.
        """
        noise = torch.stack([2 * uniform(shape, g) - 1 for g in generators])
        rank = max(1, round(0.95 * noise[0].numel()))
        quantile = noise.flatten(1).kthvalue(rank, dim=1).values
        return noise * (self.init_std / quantile).view(-1, 1, 1, 1)
