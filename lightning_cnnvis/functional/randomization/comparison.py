"""Similarity of a picture to what becomes of it when layers are re-initialised."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lightning_cnnvis.functional.inversion.metrics import ssim
from lightning_cnnvis.functional.similarity import oriented_gradients, pearson, ranks

_BINS = 100  # of the histogram that the entropy is of
_CLIPPED = 0.01  # share of the values that are strongest


def _as_drawn(pictures: Tensor) -> Tensor:
    """Pictures in [0, 1] as figures show them: zero is mid-grey, and few strong values do not turn the rest grey."""
    magnitudes = pictures.flatten(1).abs().float().sort(dim=1).values
    last = magnitudes.shape[1] - 1
    scale = magnitudes[:, round(last * (1 - _CLIPPED))]
    scale = torch.where(scale > 0, scale, magnitudes[:, last]).clamp(min=torch.finfo(torch.float32).tiny)
    return (0.5 + 0.5 * pictures.float() / scale.view(-1, 1, 1, 1)).clamp(0, 1)


_FEATURES: dict[str, Callable[[Tensor], Tensor]] = {
    "spearman": ranks,
    "spearman_absolute": lambda pictures: ranks(pictures.abs()),
    "hog": lambda pictures: oriented_gradients(_as_drawn(pictures)),
}
"""What is correlated, by measure."""

RANK_MEASURES = ("spearman", "spearman_absolute")
MEASURES = (*RANK_MEASURES, "ssim", "hog")
"""The measures of Adebayo et al. 2018: the rank correlation of the values and of their magnitudes, the structural
similarity of the pictures as they are drawn, and the correlation of their histograms of oriented gradients."""


class Comparison:
    """Compares pictures with originals, which are prepared once.

    Args:
        originals: ``(N, C, h, w)``.
        measures: Some of `MEASURES`.

    Examples:
        >>> picture = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> found = Comparison(picture).compare(picture)
        >>> {measure: round(float(value), 3) for measure, value in found.items()}
        {'spearman': 1.0, 'spearman_absolute': 1.0, 'ssim': 1.0, 'hog': 1.0}
    """

    def __init__(self, originals: Tensor, measures: Sequence[str] = MEASURES) -> None:
        originals = originals.cpu()  # where sorting is quick, and float64 is there
        self.measures = measures
        self.varies = _varies(originals)
        self.drawn = _as_drawn(originals) if "ssim" in measures else originals
        self.features = {name: _FEATURES[name](originals) for name in measures if name in _FEATURES}

    def compare(self, pictures: Tensor) -> dict[str, Tensor]:
        """Compares pictures by every measure.

        Args:
            pictures: ``(N, C, h, w)``.

        Returns:
            Similarities ``(N,)`` by measure, float32 on the CPU. A picture without any difference in it has nothing in
            common with one that has: 0. NaN where the original has none, or is too small for the measure.
        """
        pictures = pictures.cpu()
        varies, found = _varies(pictures), {}
        for measure in self.measures:
            values = self._similarity(measure, pictures)
            if not values.isnan().all() or measure in RANK_MEASURES:  # else it is too small
                values = values.masked_fill(~varies, 0.0)
            found[measure] = values.masked_fill(~self.varies, torch.nan)
        return found

    def _similarity(self, measure: str, pictures: Tensor) -> Tensor:
        if measure == "ssim":
            return ssim(_as_drawn(pictures), self.drawn)
        features = _FEATURES[measure](pictures)
        if not features.shape[1]:
            return torch.full((len(pictures),), torch.nan, dtype=torch.float32, device=pictures.device)
        return pearson(features, self.features[measure])


def entropy(pictures: Tensor) -> Tensor:
    """Computes the entropy of the histogram of each picture, in bits: the complexity of the efficient test.

    Args:
        pictures: ``(N, C, h, w)``.

    Returns:
        ``(N,)``, float32, from 0 to log2(100).

    Examples:
        >>> entropy(torch.tensor([0.0, 1.0]).view(1, 1, 1, 2))
        tensor([1.])
    """
    found = []
    for row in pictures.flatten(1).cpu().double():
        low, high = row.min(), row.max()
        places = ((row - low) / (high - low).clamp(min=torch.finfo(row.dtype).tiny) * _BINS).long().clamp(0, _BINS - 1)
        shares = torch.bincount(places, minlength=_BINS).double() / len(row)
        found.append(torch.special.entr(shares).sum() / torch.log(shares.new_tensor(2.0)))
    return torch.stack(found).float()


def _varies(pictures: Tensor) -> Tensor:
    """Whether a picture is finite and not of one value, ``(N,)``."""
    flat = pictures.flatten(1)
    return (flat != flat[:, :1]).any(1) & flat.isfinite().all(1)
