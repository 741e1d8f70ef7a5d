"""How the feature maps of a layer change over the epochs, as pictures and as numbers.

Zeiler & Fergus 2013, section 4 and Fig. 4 (arXiv 1311.2901).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_cnnvis.functional.top_activations import NO_SAMPLE, TopActivations

MAX_COLUMNS = 24
"""A longer strip loses every second of its older columns, so that neither the picture nor checkpoints grow for ever."""


@dataclass(frozen=True)
class Column:
    """One epoch of a strip. Pictures are ``uint8``, so that a checkpoint stays small.

    Attributes:
        epoch: The epoch, counted from 1.
        projections: ``(F, C, h, w)``, each feature map's strongest activation, projected.
        patches: ``(F, C, h, w)``, the image patches that caused them.
        fixed: ``(F, C, h, w)``, the projections from the fixed images.
        activations: ``(F,)``, the strongest activations.
        sample_ids: ``(F,)``, the images they came from.
        similarity: ``(F,)``, cosine similarity of the fixed images' projections to the column's before; NaN in the
            first column.
    """

    epoch: int
    projections: Tensor
    patches: Tensor
    fixed: Tensor
    activations: Tensor
    sample_ids: Tensor
    similarity: Tensor


@dataclass(frozen=True)
class FixedUnits:
    """One unit of each feature map, on an image that stays the same, so that a change is the filter's.

    The unit is the map's strongest activation at the first epoch at which it was active.

    Attributes:
        windows: ``(F, C, H, W)``, the input windows.
        positions: ``(F, 2)``, row and column of the units in the layer's map of the whole image.
        active: ``(F,)``, which of them have been active yet.
        patches: ``(F, C, h, w)``, the receptive fields, as the network sees them.
    """

    windows: Tensor
    positions: Tensor
    active: Tensor
    patches: Tensor

    @staticmethod
    def of(top: TopActivations) -> FixedUnits:
        """The strongest activations of an epoch."""
        return FixedUnits(top.windows[:, 0], top.positions[:, 0], top.values[:, 0] > 0, top.patches[:, 0])

    def updated(self, top: TopActivations) -> FixedUnits:
        """Takes the strongest activations of maps that have only now become active."""
        new, woken = FixedUnits.of(top), ~self.active

        def choose(old: Tensor, young: Tensor) -> Tensor:
            return torch.where(woken.view(-1, *[1] * (old.ndim - 1)), young, old)

        return FixedUnits(*(choose(a, b) for a, b in zip(vars(self).values(), vars(new).values(), strict=True)))


@dataclass
class LayerEvolution:
    """The strip of a layer and its state.

    Attributes:
        channels: ``(F,)``, the feature maps.
        fixed: Their units on fixed images; None before the first epoch.
        columns: The epochs so far.
        last_fixed: ``(F, C, h, w)``, the fixed images' projections at the last epoch, at full precision.
        last_ids: ``(F, k)``, the images of the top activations at the last epoch.
    """

    channels: Tensor
    fixed: FixedUnits | None = None
    columns: list[Column] = field(default_factory=list)
    last_fixed: Tensor | None = None
    last_ids: Tensor | None = None

    def add(self, column: Column) -> None:
        """Appends an epoch, or replaces it if it is there already, as after a run was resumed."""
        self.columns = [known for known in self.columns if known.epoch < column.epoch] + [column]
        if len(self.columns) > MAX_COLUMNS:
            self.columns = self.columns[:-2:2] + self.columns[-2:]

    def state_dict(self) -> dict[str, Any]:
        """Tensors and builtins only."""
        return {
            "channels": self.channels.cpu(),
            "fixed": None if self.fixed is None else _on_cpu(self.fixed),
            "columns": [_on_cpu(column) for column in self.columns],
            "last_fixed": None if self.last_fixed is None else self.last_fixed.cpu(),
            "last_ids": None if self.last_ids is None else self.last_ids.cpu(),
        }

    @staticmethod
    def from_state_dict(state: dict[str, Any]) -> LayerEvolution:
        """The inverse of `state_dict`."""
        fixed = None if state["fixed"] is None else FixedUnits(**state["fixed"])
        columns = [Column(**column) for column in state["columns"]]
        return LayerEvolution(state["channels"], fixed, columns, state["last_fixed"], state["last_ids"])


def _on_cpu(record: object) -> dict[str, Any]:
    return {name: v.cpu() if isinstance(v, Tensor) else v for name, v in vars(record).items()}


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """Cosine similarity of projections, one by one.

    Args:
        a: ``(N, C, H, W)``.
        b: The same shape.

    Returns:
        ``(N,)``, in [-1, 1]. Two empty projections are alike: 1. An empty and another one are not: 0.

    Example:
        >>> similarity(torch.ones(1, 1, 2, 2), torch.full((1, 1, 2, 2), 3.0))
        tensor([1.])
    """
    a, b = a.flatten(1).double(), b.flatten(1).double()
    products, norms = (a * b).sum(1), a.norm(dim=1) * b.norm(dim=1)
    both_empty = (a.norm(dim=1) == 0) & (b.norm(dim=1) == 0)
    return torch.where(norms > 0, products / norms.where(norms > 0, 1), both_empty.double()).float()


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """Jaccard overlap of sets of images: how many are in both, over how many are in one of them at least.

    Args:
        a: ``(N, k)``, sample ids; negative ones are no image.
        b: ``(N, k)``.

    Returns:
        ``(N,)``, in [0, 1]; 1 where both sets are empty.

    Example:
        >>> overlap(torch.tensor([[1, 2, 3]]), torch.tensor([[3, 2, 7]]))
        tensor([0.5000])
    """
    in_a, in_b = (a != NO_SAMPLE), (b != NO_SAMPLE)
    common = ((a[:, :, None] == b[:, None, :]) & in_a[:, :, None]).any(2).sum(1)
    union = in_a.sum(1) + in_b.sum(1) - common
    return torch.where(union > 0, common / union.clamp(min=1), 1.0)
