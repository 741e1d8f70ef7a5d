"""The path of optimised images through a network, layer by layer beside that of real images of their class.

Geirhos et al. 2023 (arXiv 2306.04719), section 4: optimised images take paths that no real image takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_cnnvis.functional.network.chunks import chunk_size, in_chunks
from lightning_cnnvis.functional.network.forward import model_options, plain_forward
from lightning_cnnvis.functional.similarity import spearman
from lightning_cnnvis.isolation import isolated

FEWEST_REAL = 3
"""Real images that the band between them is made of, at least."""


@dataclass(frozen=True, eq=False)
class PathSimilarity:
    """Similarity of features of images to those of real images of a class, layer by layer.

    L layers, N images, M real images.

    Attributes:
        layers: Names of the layers, in the order in which they run.
        similarities: ``(L, N)`` in [-1, 1], the mean rank correlation of an image's features with those of the real
            images; NaN where features are all the same.
        real: ``(L, M)``, the same of each real image with the others.
    """

    layers: tuple[str, ...]
    similarities: Tensor
    real: Tensor

    @property
    def band(self) -> tuple[Tensor, Tensor]:
        """The lowest and the highest of the real images in each layer, ``(L,)`` each."""
        known = self.real.nan_to_num(0.0)
        return known.amin(1), known.amax(1)

    @property
    def as_real(self) -> Tensor:
        """``(L, N)`` bool, whether an image is as similar to the real ones as some real image is."""
        return self.similarities >= self.band[0][:, None]

    def verdict(self, image: int) -> str:
        """Says in words at how many layers an image takes the way of real ones.

        Args:
            image: Number of the image.

        Returns:
            A few words for a tile.
        """
        return f"as real ones: {int(self.as_real[:, image].sum())} of {len(self.layers)} layers"


@torch.no_grad()
def path_similarity(model: nn.Module, images: Tensor, real: Tensor, layers: Sequence[str]) -> PathSimilarity:
    """Compares the features of images with those of real images of a class, layer by layer.

    Args:
        model: The network. It is left as it was.
        images: ``(N, C, H, W)``, such as optimised ones, normalised as the network expects them.
        real: ``(M, C, H, W)``, real images of the class, likewise; at least three.
        layers: Dotted names of the layers.

    Returns:
        The similarities, on the model's device.

    Raises:
        LayerError: If a layer does not exist, or does not run.
        ValueError: If there are too few real images, no layers, or shapes differ.

    Examples:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> path_similarity(net, torch.rand(2, 3, 8, 8), torch.rand(4, 3, 8, 8), ["0", "1"]).similarities.shape
        torch.Size([2, 2])
    """
    if isinstance(layers, str) or not layers:
        raise ValueError(f"layers={layers!r}: give a list of at least one layer name.")
    if len(real) < FEWEST_REAL:
        raise ValueError(f"real has {len(real)} images: at least {FEWEST_REAL} of the class are compared.")
    if images.ndim != 4 or images.shape[1:] != real.shape[1:]:
        raise ValueError(
            f"images has shape {tuple(images.shape)} and real {tuple(real.shape)}: both are (N, C, H, W) of one size."
        )
    found, between = [], []
    with isolated(model) as network:
        weights = model_options(network)
        forward = plain_forward(network, layers)
        both = torch.cat([images.detach().to(weights), real.detach().to(weights)])

        def work(part: slice) -> list[Tensor]:
            outputs = forward(both[part])
            return [outputs[layer].flatten(1) for layer in layers]

        parts = list(in_chunks(work, len(both), chunk_size(both)))
    for outputs in zip(*parts, strict=True):
        features = torch.cat(outputs)
        own, known = features[: len(images)], features[len(images) :]
        found.append(torch.stack([_mean_similarity(one, known) for one in own]))
        others = [torch.cat([known[:m], known[m + 1 :]]) for m in range(len(known))]
        between.append(torch.stack([_mean_similarity(one, rest) for one, rest in zip(known, others, strict=True)]))
    return PathSimilarity(tuple(layers), torch.stack(found), torch.stack(between))


def _mean_similarity(features: Tensor, others: Tensor) -> Tensor:
    return spearman(features.expand_as(others), others).mean()
