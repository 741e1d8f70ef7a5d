"""Change of a layer's feature maps over the epochs, as pictures and as numbers.

Zeiler & Fergus 2013, section 4 and Fig. 4 (arXiv 1311.2901).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_cnnvis.evolution.strips import appended
from lightning_cnnvis.functional.activations.top_k import NO_SAMPLE, TopActivations


@dataclass(frozen=True)
class Column:
    """One epoch of the strip of a layer. Pictures are ``uint8``, so that a checkpoint stays small.

    Attributes:
        epoch: The epoch, counted from 1.
        projections: Projections of each feature map's strongest activation, ``(F, 3, h, w)``.
        patches: The image patches that caused these activations, ``(F, 3, h, w)``.
        fixed: Projections from images that stay the same over the epochs, ``(F, 3, h, w)``.
        sample_ids: Ids of the images that the strongest activations come from, ``(F,)``.
        similarity: Cosine similarity of the projections from the fixed images to those of the epoch shown before,
            ``(F,)`` in [-1, 1]; NaN at the first epoch, and where a unit was inactive at both.
    """

    epoch: int
    projections: Tensor
    patches: Tensor
    fixed: Tensor
    sample_ids: Tensor
    similarity: Tensor


@dataclass(frozen=True)
class Convergence:
    """Change of a layer's feature maps since the epoch shown before.

    Attributes:
        epoch: The epoch, counted from 1.
        similarity: Cosine similarity of the projections from fixed images, ``(F,)`` in [-1, 1]; NaN at the first
            epoch, and where a unit was inactive at both.
        overlap: Jaccard overlap of the images of the top activations, ``(maps,)`` in [0, 1]; NaN at the first epoch.
        dead: True for each map that no image activated, ``(maps,)``.
    """

    epoch: int
    similarity: Tensor
    overlap: Tensor
    dead: Tensor

    def scalars(self) -> dict[str, float]:
        """The means over the feature maps, by name; those that are undefined at the first epoch are left out.

        Returns:
            ``projection_similarity`` in [-1, 1], ``top_overlap`` and ``dead_maps`` in [0, 1].
        """
        means = {
            "projection_similarity": float(self.similarity.nanmean()),
            "top_overlap": float(self.overlap.mean()),
            "dead_maps": float(self.dead.float().mean()),
        }
        return {name: mean for name, mean in means.items() if not math.isnan(mean)}


@dataclass
class LayerEvolution:
    """The epochs of a layer's feature maps so far.

    Attributes:
        fixed: One unit of each feature map, on an image that stays the same, so that any change is due to the filters:
            the map's strongest activation at the first epoch at which it was active. None before the first epoch.
        projections: Projections of `fixed` at the last epoch, ``(F, C, h, w)``.
        sample_ids: Ids of the images of the top activations at the last epoch, ``(maps, k)``.
        columns: The columns of the strip, one per epoch.
    """

    fixed: TopActivations | None = None
    projections: Tensor | None = None
    sample_ids: Tensor | None = None
    columns: list[Column] = field(default_factory=list)

    def fix(self, top: TopActivations) -> TopActivations:
        """Chooses the fixed units: all at the first epoch, later those of feature maps that have just become active.

        Args:
            top: The top activations of the feature maps that are followed.

        Returns:
            The fixed units, on the device of ``top``.
        """
        strongest = top.best(1)
        if self.fixed is None:
            self.fixed = strongest
        else:
            known = self.fixed.to(top.channels.device)
            self.fixed = known.where(known.values[:, 0] > 0, strongest)
        return self.fixed

    def advance(self, epoch: int, top: TopActivations, projections: Tensor) -> Convergence:
        """Compares an epoch with the one shown before, and keeps it for the next comparison.

        Args:
            epoch: The epoch, counted from 1.
            top: Top activations at this epoch.
            projections: Projections of the fixed units at this epoch, ``(F, C, h, w)``.

        Returns:
            The change since the epoch shown before.
        """
        projections, sample_ids, dead = projections.cpu(), top.sample_ids.cpu(), (top.values[:, 0] <= 0).cpu()
        unknown = torch.tensor(torch.nan, dtype=torch.float32, device="cpu")
        convergence = Convergence(
            epoch,
            unknown.expand(len(projections)) if self.projections is None else similarity(projections, self.projections),
            unknown.expand(len(dead)) if self.sample_ids is None else overlap(sample_ids, self.sample_ids),
            dead,
        )
        self.projections, self.sample_ids = projections, sample_ids
        return convergence

    def add(self, column: Column) -> None:
        """Appends a column; drops columns of this or later epochs, which remain when an older checkpoint is resumed.

        Args:
            column: The new last column.
        """
        self.columns = appended(self.columns, column)

    def state_dict(self) -> dict[str, Any]:
        """The state for a checkpoint: only tensors, on the CPU, and builtins.

        Returns:
            The state that `from_state_dict` takes.
        """
        return {
            "fixed": None if self.fixed is None else self.fixed.state_dict(),
            "projections": self.projections,
            "sample_ids": self.sample_ids,
            "columns": [asdict(column) for column in self.columns],
        }

    @staticmethod
    def from_state_dict(state: dict[str, Any]) -> LayerEvolution:
        """Restores an evolution.

        Args:
            state: A state that `state_dict` returned.

        Returns:
            The evolution.
        """
        return LayerEvolution(
            fixed=None if state["fixed"] is None else TopActivations.from_state_dict(state["fixed"]),
            projections=state["projections"],
            sample_ids=state["sample_ids"],
            columns=[Column(**column) for column in state["columns"]],
        )


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """Computes the cosine similarity of projections, pair by pair.

    Args:
        a: Projections, ``(N, C, H, W)``.
        b: Projections of the same shape.

    Returns:
        The similarities, ``(N,)`` in [-1, 1]; 0 where one of the two is zero everywhere, NaN where both are.

    Examples:
        >>> similarity(torch.ones(1, 1, 2, 2), torch.full((1, 1, 2, 2), 3.0))
        tensor([1.])
    """
    a, b = a.flatten(1).double(), b.flatten(1).double()
    norms_a, norms_b = a.norm(dim=1), b.norm(dim=1)
    cosine = (a * b).sum(1) / (norms_a * norms_b)
    return torch.where((norms_a == 0) != (norms_b == 0), 0.0, cosine).float()


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """Computes the Jaccard overlap of sets of images: the size of the intersection over that of the union.

    Args:
        a: Sample ids, ``(N, k)``; -1 stands for no image.
        b: Sample ids, ``(N, k)``.

    Returns:
        The overlaps, ``(N,)`` in [0, 1]; 1 where both sets are empty.

    Examples:
        >>> overlap(torch.tensor([[1, 2, 3]]), torch.tensor([[3, 2, 7]]))
        tensor([0.5000])
    """
    in_a, in_b = a != NO_SAMPLE, b != NO_SAMPLE
    common = ((a[:, :, None] == b[:, None, :]).any(2) & in_a).sum(1)
    union = in_a.sum(1) + in_b.sum(1) - common
    return torch.where(union > 0, common / union.clamp(min=1), 1.0)
