"""Images of a given magnitude spectrum, whose phases alone are free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

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

    Examples:
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


@dataclass(frozen=True, eq=False)
class OwnMagnitude:
    """Changes of the phases of a photograph, whose magnitudes stay its own: it cannot leave its spectrum.

    As in accentuation (Hamblin et al. 2023), which asks what a class, a unit or a layer sees in a photograph. All
    parameters are 0 at the start, which is the photograph. A parameter is a change of phase over f^-``decay``, with the
    lowest frequency f as unit, so that an optimiser that takes equal steps in all of them moves coarse things more than
    fine ones. The mean colour stays.

    Args:
        photograph: ``(C, H, W)`` in [0, 1]. Black and white are taken for half a step of 8 bits less.
        decay: Exponent of the frequency.

    Raises:
        ValueError: If the photograph is not ``(C, H, W)``, or has a single pixel.

    Examples:
        >>> photograph = torch.rand(3, 8, 10, generator=torch.Generator().manual_seed(0))
        >>> own = OwnMagnitude(photograph)
        >>> start = own.init([torch.Generator().manual_seed(0)], (3, 8, 10))
        >>> start.shape, bool((own.decode(start, (8, 10)) - photograph).abs().max() < 2e-3)
        (torch.Size([1, 3, 8, 6]), True)
    """

    photograph: Tensor
    decay: float = 1.5

    def __post_init__(self) -> None:
        """Checks the shape."""
        if self.photograph.ndim != 3 or self.photograph[0].numel() < 2:
            raise ValueError(
                f"photograph of shape {tuple(self.photograph.shape)}: give one, (C, H, W), of 2 pixels or more."
            )

    def init(self, generators: Sequence[torch.Generator], shape: tuple[int, int, int]) -> Tensor:
        """Begins with the photograph.

        Args:
            generators: One for each of the N images; nothing is drawn from them.
            shape: Channels, height and width of the images, which are the photograph's.

        Returns:
            Zeros ``(N, C, H, W // 2 + 1)``.

        Raises:
            ValueError: If the photograph has another shape.
        """
        self._check(shape)
        return torch.zeros(
            len(generators), *self._coefficients.shape, dtype=self._coefficients.real.dtype, device="cpu"
        )

    def encode(self, images: Tensor) -> Tensor:
        """Finds how the phases of images differ from those of the photograph. Their magnitudes are lost.

        Args:
            images: ``(N, C, H, W)`` in [0, 1], of the photograph's size.

        Returns:
            ``(N, C, H, W // 2 + 1)``.

        Raises:
            ValueError: If the photograph has another shape.
        """
        self._check(tuple(images.shape[1:]))
        turned = _coefficients_of(images) * self._coefficients.to(images.device).conj()
        reach = _reach(tuple(images.shape[-2:]), self.decay).to(images)
        return torch.where(reach > 0, turned.angle() / reach.clamp_min(torch.finfo(reach.dtype).tiny), 0.0)

    def decode(self, params: Tensor, size: tuple[int, int]) -> Tensor:
        """Computes the images of changed phases.

        Args:
            params: ``(N, C, H, W // 2 + 1)``.
            size: Height and width of the images, the photograph's.

        Returns:
            ``(N, C, H, W)`` in (0, 1).

        Raises:
            ValueError: If the photograph has another size.
        """
        self._check((self.photograph.shape[0], *size))
        offset, color = _PHOTOGRAPHS._color(params)
        turns = _opposite(params * _reach(size, self.decay).to(params), size[1])
        coefficients = self._coefficients.to(params.device) * torch.polar(torch.ones_like(turns), turns)
        return torch.sigmoid(mix(color, torch.fft.irfft2(coefficients, s=size, norm="ortho")) + offset)

    @cached_property
    def _coefficients(self) -> Tensor:
        return _coefficients_of(self.photograph.detach().float().cpu()[None])[0]

    def _check(self, shape: Sequence[int]) -> None:
        if tuple(shape) != tuple(self.photograph.shape):
            raise ValueError(
                f"The images have the shape {tuple(shape)}, and the photograph {tuple(self.photograph.shape)}. Fit the "
                "photograph to the size of the images first."
            )


_PHOTOGRAPHS = FixedMagnitude(standardize=False)
_HALF_A_STEP = 1 / 512


def _coefficients_of(images: Tensor) -> Tensor:
    return _PHOTOGRAPHS.spectrum(images.clamp(_HALF_A_STEP, 1 - _HALF_A_STEP))


@lru_cache(maxsize=16)
def _reach(size: tuple[int, int], decay: float) -> Tensor:
    """How far a parameter turns each phase, ``(H, W // 2 + 1)``: 1 at the lowest frequency, and 0 at none."""
    frequency = frequencies(*size)[0].double()
    frequency[0, 0] = torch.inf
    return (frequency / frequency.min()) ** -decay


def _opposite(turns: Tensor, width: int) -> Tensor:
    """Turns conjugate coefficients the opposite way, and leaves those that are their own conjugates."""
    mirrored = (turns - turns.flip(-2).roll(1, -2)) / 2
    columns = torch.arange(turns.shape[-1], dtype=torch.int64, device=turns.device)
    return torch.where((columns == 0) | (2 * columns == width), mirrored, turns)


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
