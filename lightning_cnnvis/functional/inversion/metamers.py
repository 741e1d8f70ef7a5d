"""Whether a layer takes an inversion and its original for the same (Feather et al. 2023, Nature Neuroscience 26)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_cnnvis.functional.similarity import pearson, ranks, signal_to_noise, spearman

MEASURES = ("spearman", "pearson", "snr")
FEWEST_OTHERS = 3
"""Images that the null is made of, at least."""


@dataclass(frozen=True, eq=False)
class Metamers:
    """Similarity of features of inversions to those of the originals, beside that of pairs of other images.

    L layers, R restarts, N images, P pairs of other images. A layer takes an inversion and its original for the same if
    their features are more alike than those of any pair of other images, by every measure, and the network gives both
    the same label.

    Attributes:
        similarities: ``(L, R, N)`` by measure: ``"spearman"`` and ``"pearson"``, correlations of the features;
            ``"snr"``, the energy of the original's features over that of the difference, in dB.
        null: ``(L, P)`` by measure, the same of pairs of other images.
        label_kept: ``(L, R, N)`` bool, whether the network gives both the same label; None if it is not a classifier.
    """

    similarities: Mapping[str, Tensor]
    null: Mapping[str, Tensor]
    label_kept: Tensor | None

    @property
    def outside(self) -> Tensor:
        """``(L, R, N)`` bool, whether the similarities are above those of all pairs, by every measure."""
        above = [values > _largest(self.null[measure]) for measure, values in self.similarities.items()]
        return torch.stack(above).all(0)

    @property
    def taken_for_same(self) -> Tensor:
        """``(L, R, N)`` bool, whether the layer takes the two for the same; by features only without a label."""
        return self.outside if self.label_kept is None else self.outside & self.label_kept

    def verdict(self, layer: int, restart: int, image: int) -> str:
        """Says in words what came of an inversion.

        Args:
            layer: Number of the layer in the result.
            restart: Number of the restart.
            image: Number of the image.

        Returns:
            A few words for a tile.
        """
        place = layer, restart, image
        if not self.outside[place]:
            return "told apart"
        return "taken for the same" if self.taken_for_same[place] else "another label"

    @staticmethod
    def cat(parts: Sequence[Metamers]) -> Metamers:
        """Joins the layers of several results, at least one.

        Args:
            parts: Results of shares of the layers.

        Returns:
            All layers, in order.
        """
        kept = [part.label_kept for part in parts if part.label_kept is not None]
        return Metamers(
            {measure: torch.cat([part.similarities[measure] for part in parts]) for measure in MEASURES},
            {measure: torch.cat([part.null[measure] for part in parts]) for measure in MEASURES},
            torch.cat(kept) if len(kept) == len(parts) else None,
        )


def feature_similarities(features: Tensor, originals: Tensor) -> dict[str, Tensor]:
    """Compares features with those of the originals.

    Args:
        features: ``(N, ...)``.
        originals: ``(N, ...)``.

    Returns:
        ``(N,)`` by measure.
    """
    return {
        "spearman": spearman(features, originals),
        "pearson": pearson(features, originals),
        "snr": signal_to_noise(features, originals),
    }


def null_similarities(features: Tensor) -> dict[str, Tensor]:
    """Compares the features of every pair of images.

    Args:
        features: ``(M, ...)``, features of M images.

    Returns:
        ``(M * (M - 1) / 2,)`` by measure.

    Examples:
        >>> found = null_similarities(torch.tensor([[0.0, 1.0, 2.0], [0.0, 1.0, 3.0], [2.0, 1.0, 0.0]]))
        >>> found["spearman"]
        tensor([ 1., -1., -1.])
    """
    flat = features.flatten(1).cpu().double()  # some devices have no float64
    first, second = torch.triu_indices(len(flat), len(flat), 1, device=flat.device)
    energies, products = flat.square().sum(1), flat @ flat.T
    distances = (energies[first] + energies[second] - 2 * products[first, second]).clamp(min=0)
    return {
        "spearman": _correlations(ranks(flat).double())[first, second].float(),
        "pearson": _correlations(flat)[first, second].float(),
        "snr": (10 * (energies[second] / distances).log10()).float(),
    }


def check_others(others: Tensor, shape: Sequence[int]) -> None:
    """Refuses what cannot make a null.

    Args:
        others: Other images, normalised.
        shape: Channels, height and width of the network's input.

    Raises:
        ValueError: If they are too few, of another shape, or not finite.
    """
    if others.ndim != 4 or tuple(others.shape[1:]) != tuple(shape) or not others.is_floating_point():
        raise ValueError(
            f"others is {others.dtype} of shape {tuple(others.shape)}: it must be normalised images of "
            f"shape (M, {', '.join(map(str, shape))})."
        )
    if len(others) < FEWEST_OTHERS:
        raise ValueError(f"others has {len(others)} images: pairs of at least {FEWEST_OTHERS} are needed.")
    if not bool(others.isfinite().all()):
        raise ValueError("others contains NaN or infinite values. Give finite images.")


def _correlations(rows: Tensor) -> Tensor:
    """Correlations of all pairs of rows, ``(M, M)``; NaN where a row is of one value."""
    constant = (rows == rows[:, :1]).all(1)
    centred = rows - rows.mean(1, keepdim=True)
    centred = centred / centred.norm(dim=1, keepdim=True)
    products: Tensor = centred @ centred.T
    return products.clamp(-1, 1).masked_fill(constant[:, None] | constant, torch.nan)


def _largest(null: Tensor) -> Tensor:
    """The largest value of each layer's pairs, ``(L, 1, 1)``; images that a layer computes nothing for do not count."""
    return null.nan_to_num(-torch.inf, posinf=torch.inf, neginf=-torch.inf).amax(1)[:, None, None]
