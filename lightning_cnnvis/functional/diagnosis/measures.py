"""The numbers of one layer that findings are judged by."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_cnnvis.functional.diagnosis.kernels import aliased_energy, nearest_kernels, noise_probability
from lightning_cnnvis.functional.diagnosis.origins import Convolution, Origin
from lightning_cnnvis.functional.diagnosis.statistics import MapStatistics

_FORMED = 1e-3
"""Norm of a kernel, over the median of its layer, below which its direction is rounding."""


@dataclass(frozen=True, eq=False)
class LayerMeasures:
    """The numbers of a layer with K feature maps. Tensors are on the CPU; NaN where a number is not known.

    Attributes:
        layer: Name of the layer.
        images: Number of images.
        is_dead: ``(K,)``, whether a map is never above 0 on any image; see `MapStatistics.is_dead`.
        is_always_on: ``(K,)``, whether it is above 0 everywhere on every image.
        highest: ``(K,)``, highest activation of dead maps; a lower bound of it for others.
        lowest: ``(K,)``, lowest activation of maps that are always on; an upper bound of it for others.
        active: ``(K,)``, share of positions at which a map is above 0, in [0, 1].
        wins: ``(K,)``, share of positions at which it is the strongest of its layer, in [0, 1].
        mean: ``(K,)``, mean activation.
        variation: ``(K,)``, standard deviation of its activations over their mean.
        dominance: ``(K,)``, root of the mean square of its activations over the median of the maps that are not dead.
        filter_dominance: ``(K,)``, norm of its kernel over the median of the layer.
        similarity: ``(K,)``, absolute cosine similarity of its kernel to the nearest other, up to sign and shift.
        nearest: ``(K,)``, number of that kernel; its own if there is none.
        aliased_energy: ``(K,)``, share of its kernel's energy above the stride's Nyquist frequency, of layers that read
            the image with a stride.
        noise: ``(K,)``, probability that its kernel is noise, of layers that read the image.
        shift_error: ``(K,)``, what a shift of the map does not explain of a shift of the image; see `shift_errors`.
        saturation: Share of directions that explain 99 % of the variance.
        working_share: Smallest share of maps that holds 90 % of the activity.
        similarity_to_previous: Linear CKA with the layer before.
        previous: Name of the layer before; empty for the first.
        stride: Stride of the maps in pixels; (0, 0) if it is not known.
        convolution: The convolution that makes the maps, if there is one.
    """

    layer: str
    images: int
    is_dead: Tensor
    is_always_on: Tensor
    highest: Tensor
    lowest: Tensor
    active: Tensor
    wins: Tensor
    mean: Tensor
    variation: Tensor
    dominance: Tensor
    filter_dominance: Tensor
    similarity: Tensor
    nearest: Tensor
    aliased_energy: Tensor
    noise: Tensor
    shift_error: Tensor
    saturation: float
    working_share: float
    similarity_to_previous: float
    previous: str
    stride: tuple[int, int]
    convolution: Convolution | None

    @property
    def maps(self) -> int:
        """K, the number of feature maps."""
        return len(self.is_dead)

    @property
    def reads_image(self) -> bool:
        """Whether the layer's convolution reads the image."""
        return self.convolution is not None and self.convolution.on_image


def measure(
    layer: str,
    statistics: MapStatistics,
    origin: Origin,
    shift_error: Tensor | None,
    previous: str = "",
    similarity_to_previous: float = math.nan,
) -> LayerMeasures:
    """Computes the numbers of a layer.

    Args:
        layer: Its name.
        statistics: What its maps do.
        origin: Where they come from.
        shift_error: ``(K,)``, from `shift_errors`; None if it is not known.
        previous: Name of the layer before; empty for the first.
        similarity_to_previous: Similarity to that.

    Returns:
        The numbers.
    """
    found, maps = statistics.to("cpu"), len(statistics.highest)
    unknown = torch.full((maps,), math.nan, dtype=torch.float32, device="cpu")
    similarity, nearest, heaviness = unknown, torch.arange(maps, device="cpu"), unknown
    aliased = noise = unknown
    convolution = origin.convolution
    if convolution is not None:
        weight = convolution.weight.detach().float()
        norms = weight.flatten(1).norm(dim=1).cpu()
        heaviness = norms / norms.median().clamp_min(torch.finfo(torch.float32).tiny)
        formed = heaviness > _FORMED
        alike, other = (tensor.cpu() for tensor in nearest_kernels(weight, convolution.groups))
        # beside kernels of hardly anything, whose directions are rounding
        similarity = torch.where(formed & formed[other], alike, 0.0)
        nearest = other
        if convolution.on_image:
            noise = noise_probability(weight)
            if max(convolution.stride) > 1:
                aliased = torch.where(formed, aliased_energy(weight, convolution.stride), 0.0)
    rms, alive = found.rms.float(), ~found.is_dead
    typical = rms[alive].median() if bool(alive.any()) else rms.new_tensor(math.nan)
    return LayerMeasures(
        layer=layer,
        images=found.images,
        is_dead=found.is_dead,
        is_always_on=found.is_always_on,
        highest=found.highest.float(),
        lowest=found.lowest.float(),
        active=found.positive.float() / max(1, found.samples),
        wins=found.wins.float() / max(1, found.samples),
        mean=found.mean.float(),
        variation=found.variation.float(),
        dominance=rms / typical,
        filter_dominance=heaviness,
        similarity=similarity,
        nearest=nearest,
        aliased_energy=aliased,
        noise=noise,
        shift_error=unknown if shift_error is None else shift_error.cpu(),
        saturation=found.saturation(),
        working_share=found.working_share(),
        similarity_to_previous=similarity_to_previous,
        previous=previous,
        stride=origin.stride,
        convolution=convolution,
    )
