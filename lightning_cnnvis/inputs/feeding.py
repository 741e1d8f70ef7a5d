"""What a training makes of the images of its batches before the network gets them: normalised, resized, repeated."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cnnvis.inputs.spec import InputSpec

_PLACE_BY_PLACE = 0.9999  # share of the variance that the map must explain
_BY_QUANTILES = 0.98  # and of the quantiles, which flips leave alone and crops nearly
_AUGMENTED = 0.3  # scales this near to 1 are those of mixtures and changed contrasts; a normalisation's are not


@dataclass(frozen=True)
class Feeding:
    """The way from the images of a batch to the network's input: ``scale * image + shift`` in each channel.

    Attributes:
        shape: Channels, height and width of the network's input, to which images are brought first.
        scale: Factor of each channel.
        shift: What is then added.
    """

    shape: tuple[int, int, int]
    scale: tuple[float, ...]
    shift: tuple[float, ...]

    def spec_of_inputs(self, batch_spec: InputSpec) -> InputSpec:
        """Computes the format of the network's input from that of the batch.

        Args:
            batch_spec: Format of the batch.

        Returns:
            The format; the same if the network is fed the images as they are.

        Examples:
            >>> Feeding((1, 8, 8), (2.0,), (-1.0,)).spec_of_inputs(InputSpec((8, 8), 1)).std
            (0.5,)
        """
        if self.is_identity:
            return self._shaped(batch_spec, self.shape)
        # image = (x - shift) / scale, and picture = image * std + mean
        std = [s / a for s, a in zip(self._each(batch_spec.std), self.scale, strict=True)]
        mean = [m - b * s for m, b, s in zip(self._each(batch_spec.mean), self.shift, std, strict=True)]
        return self._shaped(batch_spec, self.shape, mean, std)

    def spec_of_batch(self, input_spec: InputSpec, images: Tensor) -> InputSpec:
        """Computes the format of the batch from that of the network's input.

        Args:
            input_spec: Format of the network's input.
            images: ``(N, C, H, W)``, the batch's images.

        Returns:
            The format; the same if the network is fed the images as they are.
        """
        channels, height, width = images.shape[1:]
        if self.is_identity:
            return self._shaped(input_spec, (channels, height, width))
        std = [s * a for s, a in zip(input_spec.std, self.scale, strict=True)][:channels]
        mean = [m + b * s for m, b, s in zip(input_spec.mean, self.shift, input_spec.std, strict=True)][:channels]
        return self._shaped(input_spec, (channels, height, width), mean, std)

    @property
    def is_identity(self) -> bool:
        """Whether values stay as they are."""
        return set(self.scale) == {1.0} and set(self.shift) == {0.0}

    def _each(self, values: tuple[float, ...]) -> tuple[float, ...]:
        return values * self.shape[0] if len(values) == 1 else values

    def _shaped(
        self,
        spec: InputSpec,
        shape: tuple[int, int, int],
        mean: list[float] | None = None,
        std: list[float] | None = None,
    ) -> InputSpec:
        mean, std = (
            [round(value, 7) for value in given or known] for given, known in ((mean, spec.mean), (std, spec.std))
        )
        if len(mean) != shape[0]:  # of a grey image that is repeated
            mean, std = mean[:1], std[:1]
        return replace(spec, size=shape[1:], channels=shape[0], mean=tuple(mean), std=tuple(std))


def find_feeding(images: Tensor, inputs: Tensor) -> Feeding | None:
    """Finds out what the network is fed, by comparing a batch with what the network was called with for it.

    Args:
        images: ``(N, C, H, W)``, the batch's images.
        inputs: ``(M, C', H', W')``, the first input of the network.

    Returns:
        The feeding; None if the inputs are not such images, or are mixed. Random flips and crops are passed over.

    Examples:
        >>> images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> found = find_feeding(images, 4 * images - 2)
        >>> found.scale, found.shift
        ((4.0, 4.0, 4.0), (-2.0, -2.0, -2.0))
    """
    shape = (inputs.shape[1], inputs.shape[2], inputs.shape[3])
    if images.shape[1] not in (1, shape[0]):
        return None
    if images.shape == inputs.shape and _same(images, inputs):
        return Feeding(shape, (1.0,) * shape[0], (0.0,) * shape[0])
    before, after = shaped(images.double(), shape), inputs.double()
    lines = None
    if before.shape == after.shape:
        pairs = zip(before.unbind(1), after.unbind(1), strict=True)
        lines = _lines([_line(b.flatten(), a.flatten()) for b, a in pairs], _PLACE_BY_PLACE)
    if lines is None:
        pairs = zip(before.unbind(1), after.unbind(1), strict=True)
        lines = _lines([_line(_quantiles(b), _quantiles(a)) for b, a in pairs], _BY_QUANTILES)
        if lines is not None and all(abs(scale - 1) < _AUGMENTED for scale, _ in lines):
            return Feeding(shape, (1.0,) * shape[0], (0.0,) * shape[0])
    if lines is None:
        return None
    # which a few digits of rounding leave alone
    scale, shift = (tuple(float(f"{value:.6g}") for value in values) for values in zip(*lines, strict=True))
    return Feeding(shape, scale, tuple(0.0 if abs(b) < 1e-6 * max(scale) else b for b in shift))


def shaped(images: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Brings images to a shape: grey ones are repeated over the channels, and all are resized.

    Args:
        images: ``(N, C, H, W)``.
        shape: Channels, height and width.

    Returns:
        ``(N, *shape)``; the images themselves if they have it.
    """
    if images.shape[1] == 1 < shape[0]:
        images = images.expand(-1, shape[0], -1, -1)
    if images.shape[2:] != shape[1:]:
        images = F.interpolate(images, shape[1:], mode="bilinear", antialias=True, align_corners=False)
    return images


def fed(images: Tensor, batch_spec: InputSpec, input_spec: InputSpec) -> Tensor:
    """Turns images of a batch into the network's input.

    Args:
        images: ``(N, C, H, W)``, as they come in the batch.
        batch_spec: Format of the batch.
        input_spec: Format of the network's input.

    Returns:
        ``(N, C, H, W)`` of the network's input; the images themselves if the formats are the same.

    Examples:
        >>> plain, normalized = InputSpec((4, 4)), InputSpec((4, 4), mean=(0.5,), std=(0.25,))
        >>> fed(torch.full((1, 3, 4, 4), 0.75), plain, normalized).unique()
        tensor([1.])
    """
    if batch_spec == input_spec:
        return images
    return input_spec.normalize(pictures(images, batch_spec, input_spec))


def pictures(images: Tensor, batch_spec: InputSpec, input_spec: InputSpec) -> Tensor:
    """Turns images of a batch into pictures of the size and the channels of the network's input.

    Args:
        images: ``(N, C, H, W)``, as they come in the batch.
        batch_spec: Format of the batch.
        input_spec: Format of the network's input.

    Returns:
        ``(N, C, H, W)``, in [0, 1] if the batch's images are such pictures; not clipped.
    """
    shown = batch_spec.denormalize(images)
    return shown if batch_spec == input_spec else shaped(shown, input_spec.shape)


def _same(images: Tensor, inputs: Tensor) -> bool:
    """Whether two batches are the same, apart from the rounding of another dtype."""
    kinds = [kind for kind in (images.dtype, inputs.dtype) if kind.is_floating_point]
    tolerance = 4 * max((torch.finfo(kind).eps for kind in kinds), default=0.0) * images.double().abs().max()
    return bool(((images.double() - inputs.double()).abs() <= tolerance).all())


@dataclass(frozen=True)
class _Line:
    """A line through points: where it passes, its slope, and the share of the variance that it explains."""

    x: float
    y: float
    slope: float | None  # None of a constant
    explained: float

    def through(self, usual: float) -> tuple[float, float]:
        """Slope and intercept; a constant gets a usual slope."""
        slope = self.slope or usual
        return slope, self.y - slope * self.x


def _line(x: Tensor, y: Tensor) -> _Line:
    mean_x, mean_y = float(x.mean()), float(y.mean())
    dx, dy = x - mean_x, y - mean_y
    variance, total = float(dx.square().mean()), float(dy.square().mean())
    if variance <= 1e-12 * max(1e-12, mean_x**2):
        return _Line(mean_x, mean_y, None, float(total <= 1e-9 * max(1e-9, mean_y**2)))
    slope = float((dx * dy).mean()) / variance
    unexplained = float((dy - slope * dx).square().mean()) / max(total, 1e-30)
    # a negative has no standard deviation
    return _Line(mean_x, mean_y, slope, 1 - unexplained if slope > 0 else 0.0)


def _lines(fitted: list[_Line], enough: float) -> list[tuple[float, float]] | None:
    """Takes the lines if each explains enough; a constant channel gets the others' mean slope."""
    if any(line.explained < enough for line in fitted):
        return None
    slopes = [line.slope for line in fitted if line.slope is not None]
    return [line.through(sum(slopes) / len(slopes) if slopes else 1.0) for line in fitted]


def _quantiles(values: Tensor) -> Tensor:
    # in integers, which are exact for any number of values
    places = torch.arange(257, device=values.device) * (values.numel() - 1) // 256
    return values.flatten().sort().values[places]
