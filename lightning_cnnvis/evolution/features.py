"""How the feature maps of a layer change over the epochs, as pictures and as numbers.

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
    """One epoch of a strip. Pictures are ``uint8``, so that a checkpoint stays small.

    Attributes:
        epoch: The epoch, counted from 1.
        projections: ``(F, 3, h, w)``, each feature map's strongest activation, projected.
        patches: ``(F, 3, h, w)``, the image patches that caused them.
        fixed: ``(F, 3, h, w)``, the projections from images that stay the same.
        sample_ids: ``(F,)``, the images that the strongest activations came from.
        similarity: ``(F,)``, cosine similarity of the projections from the fixed images to those of the epoch shown
            before; NaN at the first, and where a unit was off at both.
    """

    epoch: int
    projections: Tensor
    patches: Tensor
    fixed: Tensor
    sample_ids: Tensor
    similarity: Tensor


@dataclass(frozen=True)
class Convergence:
    """How much the feature maps of a layer have changed since the epoch shown before.

    Attributes:
        epoch: The epoch, counted from 1.
        similarity: ``(F,)``, cosine similarity of the projections from fixed images; NaN at the first epoch, and
            where a unit was off at both.
        overlap: ``(maps,)``, Jaccard overlap of the images of the top activations; NaN at the first epoch.
        dead: ``(maps,)``, which maps were active on no image.
    """

    epoch: int
    similarity: Tensor
    overlap: Tensor
    dead: Tensor

    def scalars(self) -> dict[str, float]:
        """The means over the feature maps, by name; without what is not known at the first epoch."""
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
        fixed: One unit of each feature map, on an image that stays the same, so that a change is the filter's: its
            strongest activation at the first epoch at which it was active. None before the first epoch.
        projections: ``(F, C, h, w)``, the projections of `fixed` at the last epoch.
        sample_ids: ``(maps, k)``, the images of the top activations at the last epoch.
        columns: What the strip shows.
    """

    fixed: TopActivations | None = None
    projections: Tensor | None = None
    sample_ids: Tensor | None = None
    columns: list[Column] = field(default_factory=list)

    def fix(self, top: TopActivations) -> TopActivations:
        """Chooses the fixed units, for the first time or of feature maps that have only now become active.

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
        """Compares an epoch with the one before, and takes its place.

        Args:
            epoch: The epoch, counted from 1.
            top: Its top activations.
            projections: ``(F, C, h, w)``, its projections of the fixed units.

        Returns:
            How much has changed.
        """
        projections, sample_ids, dead = projections.cpu(), top.sample_ids.cpu(), (top.values[:, 0] <= 0).cpu()
        unknown = torch.tensor(torch.nan)
        convergence = Convergence(
            epoch,
            unknown.expand(len(projections)) if self.projections is None else similarity(projections, self.projections),
            unknown.expand(len(dead)) if self.sample_ids is None else overlap(sample_ids, self.sample_ids),
            dead,
        )
        self.projections, self.sample_ids = projections, sample_ids
        return convergence

    def add(self, column: Column) -> None:
        """Appends an epoch; what is there of it or of later ones, as after resuming an older checkpoint, goes."""
        self.columns = appended(self.columns, column)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and builtins only, on the CPU."""
        return {
            "fixed": None if self.fixed is None else self.fixed.state_dict(),
            "projections": self.projections,
            "sample_ids": self.sample_ids,
            "columns": [asdict(column) for column in self.columns],
        }

    @staticmethod
    def from_state_dict(state: dict[str, Any]) -> LayerEvolution:
        """The inverse of `state_dict`."""
        return LayerEvolution(
            fixed=None if state["fixed"] is None else TopActivations.from_state_dict(state["fixed"]),
            projections=state["projections"],
            sample_ids=state["sample_ids"],
            columns=[Column(**column) for column in state["columns"]],
        )


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """Cosine similarity of projections, one by one.

    Args:
        a: ``(N, C, H, W)``.
        b: The same shape.

    Returns:
        ``(N,)``, in [-1, 1]; 0 where one of the two is empty, NaN where both are.

    Example:
        >>> similarity(torch.ones(1, 1, 2, 2), torch.full((1, 1, 2, 2), 3.0))
        tensor([1.])
    """
    a, b = a.flatten(1).double(), b.flatten(1).double()
    norms_a, norms_b = a.norm(dim=1), b.norm(dim=1)
    cosine = (a * b).sum(1) / (norms_a * norms_b)
    return torch.where((norms_a == 0) != (norms_b == 0), 0.0, cosine).float()


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """Jaccard overlap of sets of images: how many are in both, over how many are in at least one.

    Args:
        a: ``(N, k)``, sample ids; -1 is no image.
        b: ``(N, k)``.

    Returns:
        ``(N,)``, in [0, 1]; 1 where both sets are empty.

    Example:
        >>> overlap(torch.tensor([[1, 2, 3]]), torch.tensor([[3, 2, 7]]))
        tensor([0.5000])
    """
    in_a, in_b = a != NO_SAMPLE, b != NO_SAMPLE
    common = ((a[:, :, None] == b[:, None, :]).any(2) & in_a).sum(1)
    union = in_a.sum(1) + in_b.sum(1) - common
    return torch.where(union > 0, common / union.clamp(min=1), 1.0)
