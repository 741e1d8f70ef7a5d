"""Statistics of the feature maps of a layer over a data set, which add up over batches and processes."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from copy import copy

import torch
from torch import Tensor

from lightning_cnnvis.channel_dim import as_maps

GRID = 4
"""Greatest number of rows and columns of a map at which its activity is sampled."""

SAMPLED = 4
"""Of how many images the activity is sampled in one: those whose ids it divides. All are searched for extremes."""

MAX_VECTORS = 256
"""Number of images whose mean activations are kept, to compare layers with."""

_VARYING = 0.5
"""Standard deviation over the mean of a map from which it does not matter whether it is ever off."""

_CHANNELS = 512
"""Number of maps up to which the whole grid counts for the covariance, whose cost grows with their square."""


class MapStatistics:
    """Statistics of K feature maps over a stream of images.

    Extremes, which tell dead maps, are those of every position of every image; all else is of samples of every fourth
    image. It adds up: batches in any order and processes that share the images out give the same, up to rounding. A map
    that has been seen on and off is no longer searched for extremes, since almost all maps are after a batch or two:
    looking at every value would cost as much as a layer.

    Args:
        maps: K.
        device: The device of the batches.

    Attributes:
        images: Number of images.
        highest: ``(K,)``, highest activation at any position of any image, if it is not above 0, or if the map is never
            off and hardly varies; else of the first images. NaN if one is not a number.
        lowest: ``(K,)``, the lowest, likewise.
        samples: Number of positions sampled, at most 4 × 4 of an image.
        positive: ``(K,)``, number of them at which the map is above 0.
        wins: ``(K,)``, number of them at which the map is the strongest of its layer.
        total: ``(K,)``, sum of the activations there.
        squares: ``(K,)``, sum of their squares.
        pairs: Number of positions that count for the covariance.
        vectors: ``(n, K)``, mean of each map on the first 256 images that are sampled.
        vector_ids: ``(n,)``, ids of these, in order.

    Examples:
        >>> found = MapStatistics(2, torch.device("cpu"))
        >>> found.update(torch.tensor([[0.0, 2.0], [0.0, 0.0]]), range(2))
        >>> found.is_dead.tolist(), found.highest.tolist()
        ([True, False], [0.0, 2.0])
    """

    def __init__(self, maps: int, device: torch.device) -> None:
        exact = torch.float64 if device.type == "cpu" else torch.float32  # some accelerators have no float64
        self.images = self.samples = self.pairs = 0
        self.highest = torch.full((maps,), -torch.inf, dtype=exact, device=device)
        self.lowest = -self.highest
        self.positive = torch.zeros(maps, dtype=torch.long, device=device)
        self.wins = self.positive.clone()
        self.total, self.squares = (torch.zeros(maps, dtype=exact, device=device) for _ in range(2))
        # sums and products of the differences from a value that is near their mean, or they would cancel out
        self._origin: Tensor | None = None
        self._sums = torch.zeros(maps, dtype=torch.float32, device=device)
        self._products = torch.zeros(maps, maps, dtype=torch.float32, device=device)
        self.vectors = torch.zeros(0, maps, dtype=exact, device=device)
        self.vector_ids = torch.zeros(0, dtype=torch.long, device=device)
        self._searched: Tensor | None = None  # maps whose extremes are not decided; None: all
        self._batches = 0

    def update(self, output: Tensor, ids: range) -> None:
        """Takes in a batch.

        Args:
            output: ``(N, K, H, W)``, ``(N, K)`` or tokens ``(N, K, T)``, channels first.
            ids: A number for each of the first images, the same whenever they come, ascending. The others are skipped.

        Raises:
            ValueError: If the output is of another shape.
        """
        if output.ndim not in (2, 3, 4) or output.shape[1] != len(self.highest):
            raise ValueError(f"An output of shape {tuple(output.shape)} has no feature maps: name a layer that has.")
        values = as_maps(output.detach())[: len(ids)]
        maps = values if values.ndim == 4 else values[:, :, None, None]
        first = next((n for n, number in enumerate(ids[:SAMPLED]) if number % SAMPLED == 0), None)
        every = SAMPLED // math.gcd(SAMPLED, ids.step)
        # a forward pass may run under autocast, which would round sums of products
        with _full_precision(maps.device.type):
            if first is not None:
                self._sample(maps[first::every], ids[first::every])
            if len(maps):
                self._search(maps)
        self.images += len(maps)

    def _search(self, maps: Tensor) -> None:
        """Looks for the extremes of maps that have not been on and off yet."""
        if self._searched is None:
            self.highest = torch.maximum(self.highest, maps.amax((0, 2, 3)).to(self.highest.dtype))
            self.lowest = torch.minimum(self.lowest, maps.amin((0, 2, 3)).to(self.lowest.dtype))
        elif len(self._searched):
            own = maps.index_select(1, self._searched)
            highest = torch.maximum(self.highest[self._searched], own.amax((0, 2, 3)).to(self.highest.dtype))
            lowest = torch.minimum(self.lowest[self._searched], own.amin((0, 2, 3)).to(self.lowest.dtype))
            self.highest = self.highest.index_copy(0, self._searched, highest)
            self.lowest = self.lowest.index_copy(0, self._searched, lowest)
        self._batches += 1
        if self._batches.bit_count() == 1:  # after 1, 2, 4, 8 batches: a GPU waits where its values are read
            on = (self.lowest > 0) & (self.variation <= _VARYING)
            undecided = ~(self.highest > 0) | on
            self._searched = undecided.nonzero().flatten()

    def _sample(self, maps: Tensor, ids: range) -> None:
        grid = _sampled(maps, GRID).movedim(1, 3).float().contiguous()
        flat = grid.flatten(0, 2)  # (samples, K)
        self.samples += len(flat)
        self.positive = self.positive + (flat > 0).sum(0)
        self.wins = self.wins + _counted(flat.argmax(1), flat.shape[1])
        self.total = self.total + flat.sum(0)
        self.squares = self.squares + flat.square().sum(0)
        side = max(2, min(GRID, round(GRID * _CHANNELS / flat.shape[1])))
        self._add_pairs(_sampled(grid.movedim(3, 1), side).movedim(1, 3).reshape(-1, flat.shape[1]))
        near = sum(number < MAX_VECTORS * SAMPLED for number in ids)
        if near:
            numbers = torch.tensor(ids[:near], dtype=torch.long, device=grid.device)
            self._add_vectors(grid[:near].mean((1, 2)).to(self.vectors.dtype), numbers)

    def _add_pairs(self, values: Tensor) -> None:
        if self._origin is None:
            self._origin = values.mean(0)
        values = values - self._origin
        self.pairs += len(values)
        self._sums = self._sums + values.sum(0)
        self._products = torch.addmm(self._products, values.T, values)

    @property
    def covariance(self) -> Tensor:
        """``(K, K)``, covariance at the positions that count for it."""
        pairs = max(1, self.pairs)
        return (self._products - torch.outer(self._sums, self._sums) / pairs) / pairs

    def _add_vectors(self, vectors: Tensor, ids: Tensor) -> None:
        ids = torch.cat([self.vector_ids, ids])
        order = ids.argsort(stable=True)
        self.vectors, self.vector_ids = torch.cat([self.vectors, vectors])[order], ids[order]

    def merge(self, other: MapStatistics) -> None:
        """Takes in the statistics of other images.

        Args:
            other: Statistics of the same maps, on the same device.

        Examples:
            >>> batch, ids = torch.rand(8, 3, 5, 5), range(8)
            >>> whole, first, second = (MapStatistics(3, batch.device) for _ in range(3))
            >>> whole.update(batch, ids), first.update(batch[:4], ids[:4]), second.update(batch[4:], ids[4:])
            (None, None, None)
            >>> first.merge(second)
            >>> torch.allclose(first.covariance, whole.covariance)
            True
        """
        if not other.images:
            return
        self.highest = torch.maximum(self.highest, other.highest)
        self.lowest = torch.minimum(self.lowest, other.lowest)
        for name in ("images", "samples", "positive", "wins", "total", "squares"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self._add_products(other)
        self._add_vectors(other.vectors, other.vector_ids)

    def _add_products(self, other: MapStatistics) -> None:
        if other._origin is None:  # none of its images was sampled
            return
        if self._origin is None:
            self._origin = other._origin
        apart = other._origin - self._origin
        crossed = torch.outer(apart, other._sums)
        self._products = (
            self._products + other._products + crossed + crossed.T + other.pairs * torch.outer(apart, apart)
        )
        self._sums = self._sums + other._sums + other.pairs * apart
        self.pairs += other.pairs

    @property
    def is_dead(self) -> Tensor:
        """``(K,)``, whether the map is never above 0, or has values that are not numbers."""
        broken = ~(self.highest.isfinite() & self.lowest.isfinite() & self.squares.isfinite())
        return broken | (self.highest <= 0)

    @property
    def is_always_on(self) -> Tensor:
        """``(K,)``, whether the map is above 0 at every position; of every image, if it hardly varies."""
        return self.lowest > 0

    @property
    def rms(self) -> Tensor:
        """``(K,)``, the root of the mean square of the activations."""
        return (self.squares / max(1, self.samples)).sqrt()

    @property
    def mean(self) -> Tensor:
        """``(K,)``, the mean activation."""
        return self.total / max(1, self.samples)

    @property
    def variation(self) -> Tensor:
        """``(K,)``, standard deviation of the activations over their mean."""
        variance = self.squares / max(1, self.samples) - self.mean.square()
        return variance.clamp_min(0).sqrt() / self.mean.abs()

    def saturation(self) -> float:
        """Computes the share of directions that explain 99 % of the variance (Shenk et al. 2019, arXiv 1907.08589).

        Returns:
            A share in (0, 1]: low if the layer is wider than what it holds. NaN if there are too few positions.

        Examples:
            >>> found = MapStatistics(4, torch.device("cpu"))
            >>> found.update(torch.randn(500, 1).expand(500, 4), range(500))  # four maps that say the same
            >>> found.saturation()
            0.25
        """
        covariance = self.covariance.cpu().double()
        if self.pairs < 2 * len(covariance) or not bool(covariance.isfinite().all()):
            return math.nan
        values = torch.linalg.eigvalsh(covariance).clamp_min(0).flip(0)
        whole = float(values.sum())
        if not whole:
            return math.nan
        needed = int((values.cumsum(0) < 0.99 * whole).sum()) + 1
        return needed / len(values)

    def working_share(self) -> float:
        """Computes the smallest share of maps that holds 90 % of the layer's activity, measured in squares.

        Returns:
            A share in (0, 1]; NaN if nothing is active.
        """
        power = self.squares.nan_to_num(0).sort(descending=True).values
        whole = float(power.sum())
        if not whole:
            return math.nan
        return (int((power.cumsum(0) < 0.9 * whole).sum()) + 1) / len(power)

    def to(self, device: torch.device | str) -> MapStatistics:
        """Copies the statistics to a device.

        Args:
            device: The device.

        Returns:
            The copy.
        """
        copied = copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(copied, name, value.to(device))
        return copied


def similarity(one: MapStatistics, other: MapStatistics) -> float:
    """Compares what two layers say of the same images: linear CKA (Kornblith et al. 2019, arXiv 1905.00414).

    Args:
        one: Statistics of a layer.
        other: Those of another, over the same images.

    Returns:
        A number in [0, 1]; 1 if the mean activations of one layer's maps are those of the other but for a rotation
        and a factor. NaN with fewer than 16 images, or where nothing is active.

    Examples:
        >>> maps, layers = torch.rand(64, 4), [MapStatistics(4, torch.device("cpu")) for _ in range(2)]
        >>> layers[0].update(maps, range(64)), layers[1].update(3 * maps.flip(1), range(64))
        (None, None)
        >>> round(similarity(*layers), 4)
        1.0
    """
    if len(one.vectors) < 16:
        return math.nan
    first, second = (layer.vectors.cpu() - layer.vectors.cpu().mean(0) for layer in (one, other))
    kernels = [vectors @ vectors.T for vectors in (first, second)]
    norms = float(kernels[0].norm() * kernels[1].norm())
    return float((kernels[0] * kernels[1]).sum()) / norms if norms else math.nan


def _full_precision(device: str) -> AbstractContextManager[object]:
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


def _sampled(maps: Tensor, count: int) -> Tensor:
    """Evenly spaced positions of maps, at most ``count`` rows and columns; a view."""
    slices = []
    for side in maps.shape[2:]:
        step = max(1, side // count)
        used = min(side, step * (count - 1) + 1)
        first = (side - used) // 2
        slices.append(slice(first, first + used, step))
    return maps[:, :, slices[0], slices[1]]


def _counted(numbers: Tensor, count: int) -> Tensor:
    """How often each number from 0 occurs; where there is a GPU, without waiting for it."""
    if numbers.device.type == "cpu":
        return numbers.bincount(minlength=count)
    return (numbers[:, None] == torch.arange(count, device=numbers.device)).sum(0)
