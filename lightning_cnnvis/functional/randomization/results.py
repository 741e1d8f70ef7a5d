"""Results of randomisation tests, and the one number that they come to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_HARDLY = 0.2
"""A picture with less dependence on the weights shows the image rather than the network."""


@dataclass(frozen=True, eq=False)
class Randomization:
    """Pictures of a network whose layers are re-initialised one after the other, and their similarity to the first.

    S stages, N images.

    Attributes:
        layer: The layer, or the output, that the pictures are of.
        layers: ``S`` names: the last layer that has been re-initialised at each stage, with all those that run later.
        originals: ``(N, C, h, w)``, the pictures of the network as it is.
        pictures: ``(S, N, C, h, w)``, the pictures at each stage.
        similarities: ``(S, N)`` by measure, of the pictures to ``originals``: ``"spearman"``, the rank correlation of
            the values; ``"spearman_absolute"``, of their magnitudes; ``"ssim"`` of the pictures as they are drawn;
            ``"hog"``, the correlation of histograms of oriented gradients. 1 is the same picture; NaN where there is no
            picture, or it is too small for the measure.
        chance: ``(N,)`` by measure, the similarity of ``originals`` to a picture of the same unit with all weights
            random and noise as input: what any picture has in common with it, such as being strong around the unit.
        complexity_rise: ``(N,)``, the rise of the entropy of the picture's histogram from the original to the last
            stage, over the original's: the efficient test. Above 0 if random weights make the picture more complex.
        controls: ``(N, C, h, w)`` by name. ``"random filters"``: on the way up all is the trained network's, so that
            switches and gates are real; the filters of the way down are random. ``"random switches"``: the
            reverse. Empty for pictures that are not projections.
        control_similarities: ``(N,)`` by control and measure.
    """

    layer: str
    layers: tuple[str, ...]
    originals: Tensor
    pictures: Tensor
    similarities: Mapping[str, Tensor]
    chance: Mapping[str, Tensor]
    complexity_rise: Tensor
    controls: Mapping[str, Tensor]
    control_similarities: Mapping[str, Mapping[str, Tensor]]

    @property
    def scores(self) -> dict[str, Tensor]:
        """``(S,)`` by measure, means over the images that have a picture."""
        return {measure: values.nanmean(1) for measure, values in self.similarities.items()}

    @property
    def chance_scores(self) -> dict[str, float]:
        """Means over the images that have a picture, by measure."""
        return {measure: float(values.nanmean()) for measure, values in self.chance.items()}

    @property
    def control_scores(self) -> dict[str, dict[str, float]]:
        """Means over the images that have a picture, by control and measure."""
        return {
            control: {measure: float(values.nanmean()) for measure, values in of_control.items()}
            for control, of_control in self.control_similarities.items()
        }

    @property
    def dependence(self) -> Tensor:
        """``(N,)`` from 0 to 1: how far each picture depends on the weights; see `weight_dependence`."""
        last = {measure: values[-1] for measure, values in self.similarities.items()}
        return weight_dependence(last, self.chance)

    @property
    def verdict(self) -> str:
        """What the last stage shows, in words."""
        return verdict(float(self.dependence.nanmean()))

    @staticmethod
    def cat(parts: Sequence[Randomization]) -> Randomization:
        """Joins the images of several results of the same layer, at least one, of the same stages.

        Args:
            parts: Results of shares of the images.

        Returns:
            All images, in order.
        """
        first = parts[0]

        def joined(values: Callable[[Randomization], Tensor], dim: int = 0) -> Tensor:
            return torch.cat([values(part) for part in parts], dim)

        return Randomization(
            layer=first.layer,
            layers=first.layers,
            originals=joined(lambda part: part.originals),
            pictures=joined(lambda part: part.pictures, 1),
            similarities={key: joined(lambda part, k=key: part.similarities[k], 1) for key in first.similarities},  # type: ignore[misc]
            chance={key: joined(lambda part, k=key: part.chance[k]) for key in first.chance},  # type: ignore[misc]
            complexity_rise=joined(lambda part: part.complexity_rise),
            controls={key: joined(lambda part, k=key: part.controls[k]) for key in first.controls},  # type: ignore[misc]
            control_similarities={
                key: {m: joined(lambda part, k=key, m=m: part.control_similarities[k][m]) for m in of_control}  # type: ignore[misc]
                for key, of_control in first.control_similarities.items()
            },
        )


def weight_dependence(similarities: Mapping[str, Tensor], chance: Mapping[str, Tensor]) -> Tensor:
    """How far pictures depend on the weights.

    1 minus what the picture has in common with that of a network whose weights are all random, beyond chance: the rank
    correlation of the values (whatever their sign) or that of the magnitudes, whichever is greater, as a share of the
    way from chance to 1. 0 if it is the same picture, 1 if it has no more in common than an unrelated one.

    Args:
        similarities: ``(N,)`` by measure, among them both rank correlations.
        chance: ``(N,)`` by measure, similarities to a picture that has to do with neither the weights nor the image.

    Returns:
        ``(N,)``, from 0 to 1; NaN where there is no picture.

    Examples:
        >>> similar = {"spearman": torch.tensor([-0.1]), "spearman_absolute": torch.tensor([0.7])}
        >>> chance = {"spearman": torch.tensor([0.0]), "spearman_absolute": torch.tensor([0.6])}
        >>> weight_dependence(similar, chance)
        tensor([0.7500])
    """
    common = []
    for measure in ("spearman", "spearman_absolute"):
        by_chance = chance[measure].abs().clamp(max=0.999)
        common.append((similarities[measure].abs() - by_chance) / (1 - by_chance))
    return 1 - torch.maximum(*common).clamp(0, 1)


def verdict(dependence: float) -> str:
    """Says how far a picture depends on the weights.

    Args:
        dependence: From 0 to 1; NaN if there is no picture.

    Returns:
        A short sentence for a label.

    Examples:
        >>> verdict(0.83), verdict(0.01)
        ('depends on the weights: 0.83', 'depends on the weights: 0.01, so it hardly shows the network')
    """
    if not dependence >= 0:  # also NaN
        return "depends on the weights: unknown, there is no picture"
    return f"depends on the weights: {dependence:.2f}" + (
        ", so it hardly shows the network" if dependence < _HARDLY else ""
    )
