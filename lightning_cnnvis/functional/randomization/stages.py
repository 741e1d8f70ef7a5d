"""The randomisation test: a picture at each stage of a network whose layers are re-initialised one after the other.

Adebayo et al. 2018 (arXiv 1810.03292); smooth and efficient variants: Hedström et al. 2024 (arXiv 2401.06465).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_cnnvis.functional.deconvnet.batching import plan_windows, project_windows
from lightning_cnnvis.functional.deconvnet.projection import project
from lightning_cnnvis.functional.deconvnet.rules import Rule
from lightning_cnnvis.functional.deconvnet.windows import cut
from lightning_cnnvis.functional.network.canonical import LRNRule
from lightning_cnnvis.functional.network.forward import model_options
from lightning_cnnvis.functional.noise import gaussian
from lightning_cnnvis.functional.randomization.cascade import (
    WeightedLayer,
    initial_values,
    replace_tensors,
    tensors_of,
    weighted_layers,
)
from lightning_cnnvis.functional.randomization.comparison import MEASURES, Comparison, entropy
from lightning_cnnvis.functional.randomization.swapped_filters import SwappedFilters
from lightning_cnnvis.isolation import check_has_values, isolated

Draw = Callable[[nn.Module], Tensor]
"""Makes pictures ``(N, C, h, w)`` with a network."""

PictureMethod = Callable[[nn.Module, Tensor, str, Tensor], Tensor]
"""A function of a network, images ``(N, C, H, W)``, a layer and channels ``(N,)`` that returns pictures."""

CONTROLS = ("random filters", "random switches")
"""The controls: random filters under the switches of the network as it is, and the other way round."""

_HARDLY = 0.2


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
    complexity_rise: Tensor
    controls: Mapping[str, Tensor]
    control_similarities: Mapping[str, Mapping[str, Tensor]]

    @property
    def scores(self) -> dict[str, Tensor]:
        """``(S,)`` by measure, means over the images that have a picture."""
        return {measure: values.nanmean(1) for measure, values in self.similarities.items()}

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
        return weight_dependence({measure: values[-1] for measure, values in self.similarities.items()})

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
            complexity_rise=joined(lambda part: part.complexity_rise),
            controls={key: joined(lambda part, k=key: part.controls[k]) for key in first.controls},  # type: ignore[misc]
            control_similarities={
                key: {m: joined(lambda part, k=key, m=m: part.control_similarities[k][m]) for m in of_control}  # type: ignore[misc]
                for key, of_control in first.control_similarities.items()
            },
        )


def weight_dependence(similarities: Mapping[str, Tensor]) -> Tensor:
    """How far pictures depend on the weights.

    1 minus the greater of the two rank correlations, of the values (whatever their sign) and of the magnitudes, with
    the picture of a network whose weights are all random: 0 if that is the same picture, 1 if it has nothing in common.

    Args:
        similarities: ``(N,)`` by measure, among them both rank correlations.

    Returns:
        ``(N,)``, from 0 to 1; NaN where there is no picture.

    Example:
        >>> weight_dependence({"spearman": torch.tensor([-0.25]), "spearman_absolute": torch.tensor([0.0])})
        tensor([0.7500])
    """
    return 1 - torch.maximum(similarities["spearman"].abs(), similarities["spearman_absolute"]).clamp(0, 1)


def verdict(dependence: float) -> str:
    """Says how far a picture depends on the weights.

    Args:
        dependence: From 0 to 1; NaN if there is no picture.

    Returns:
        A short sentence for a label.

    Example:
        >>> verdict(0.83), verdict(0.01)
        ('depends on the weights: 0.83', 'depends on the weights: 0.01, so it hardly shows the network')
    """
    if not dependence >= 0:  # also NaN
        return "depends on the weights: unknown, there is no picture"
    return f"depends on the weights: {dependence:.2f}" + (
        ", so it hardly shows the network" if dependence < _HARDLY else ""
    )


def randomization_test(
    model: nn.Module,
    images: Tensor,
    layer: str,
    channels: Tensor | Sequence[int],
    *,
    method: str | Rule | PictureMethod = "deconvnet",
    lrn: LRNRule = "identity",
    steps: int | None = None,
    samples: int = 1,
    noise: float = 0.1,
    seed: int = 0,
) -> Randomization:
    """Tests whether a picture is about the network: makes it again while layers are re-initialised.

    From the layer that the picture is of down to the first, in the reverse of the order in which they run, each layer's
    weights are drawn anew, from a generator of their own, on a copy of the network, and stay so. A picture that stays
    alike does not depend on them (Adebayo et al. 2018, arXiv 1810.03292, section 3). Projections are of one unit
    throughout: that at the channel's strongest place in the network as it is.

    Args:
        model: The network. It is left as it was.
        images: ``(N, C, H, W)``, normalised as the network expects them, on the model's device.
        layer: Dotted name of the layer. For a function that does not look at a layer, ``OUTPUT``: then all layers are
            re-initialised.
        channels: ``(N,)``, the channel of each image.
        method: Rule of projections: ``"deconvnet"``, ``"guided"``, ``"gradient"``, another name registered in `RULES`,
            or a `Rule`. Or any function of a network, images, a layer and channels that returns pictures
            ``(N, C, h, w)``, such as those of `occlusion`.
        lrn: Backward pass of local response normalisation in projections; see `project`.
        steps: Number of stages: with fewer than layers, each re-initialises several; with 1, all at once, which is
            the efficient test. A stage a layer if None.
        samples: Number of noisy copies of each image that a picture is the mean of: the smooth test takes 50.
        noise: Standard deviation of that noise over the image's range of values.
        seed: Seed of weights and noise.

    Returns:
        The pictures of each stage with their similarities, on the images' device.

    Raises:
        LayerError: If the layer does not exist, does not depend on weights, or cannot be projected.
        UnsupportedOperationError: If the network has an operation before the layer that the rule cannot pass.
        ValueError: If a number is out of range, shapes do not fit together, or a function does not return pictures.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 4, 3), nn.ReLU())
        >>> found = randomization_test(net, torch.rand(2, 3, 32, 32), "4", [0, 1])
        >>> found.layers, found.pictures.shape, found.scores["spearman"].shape
        (('3', '0'), torch.Size([2, 2, 3, 8, 8]), torch.Size([2]))
    """
    for name, value in {"steps": steps, "samples": samples}.items():
        if value is not None and value < 1:
            raise ValueError(f"{name}={value} must be at least 1.")
    if not noise >= 0:
        raise ValueError(f"noise={noise} must not be negative.")
    if images.ndim != 4 or not len(images):
        raise ValueError(f"images has shape {tuple(images.shape)}: it must be (N, C, H, W) with at least one image.")
    if not images.is_floating_point():
        raise ValueError(f"images is {images.dtype}. Give the network's normalised floating-point input.")
    check_has_values(model)
    channels = torch.as_tensor(channels, device=images.device)
    if channels.shape != (len(images),):
        raise ValueError(
            f"channels has shape {tuple(channels.shape)}: give one channel for each of {len(images)} images."
        )
    with isolated(model) as network:
        images = images.detach().to(model_options(network).dtype, copy=True)
        draw: Callable[[nn.Module, Tensor], Tensor]
        if isinstance(method, str | Rule):
            draw = _Projector(network, images, layer, channels, method, lrn)
        else:
            draw = _drawing(method, layer, channels)
        shifts = _noise(images, samples, noise, seed)

        def pictures(network: nn.Module) -> Tensor:
            if samples == 1:
                return draw(network, images)
            return torch.stack([draw(network, images + pattern * spread) for pattern, spread in shifts]).mean(0)

        controls = CONTROLS if isinstance(method, str | Rule) else ()
        return randomized(network, pictures, layer, images[:1], steps=steps, seed=seed, controls=controls)


def randomized(
    model: nn.Module,
    draw: Draw,
    layer: str,
    image: Tensor,
    *,
    steps: int | None = None,
    seed: int = 0,
    controls: Sequence[str] = (),
    measures: Sequence[str] = MEASURES,
) -> Randomization:
    """Draws pictures of a network while its layers are re-initialised: `randomization_test` for any pictures.

    Args:
        model: The network. It is left as it was.
        draw: Makes the pictures with the network that it is given.
        layer: Dotted name of the layer that they are of, or ``OUTPUT``.
        image: ``(1, C, H, W)``, to find out in which order layers run.
        steps: Number of stages; a stage a layer if None.
        seed: Seed of the weights.
        controls: Which of `CONTROLS` to draw, too; for pictures that are a backward pass.
        measures: Which of `MEASURES` to compare by.

    Returns:
        The pictures of each stage with their similarities.

    Raises:
        LayerError: If the layer does not exist, or does not depend on weights.
    """
    with isolated(model) as network:
        layers = weighted_layers(network, layer, image.detach().clone())
        trained = tensors_of(network, layers)
        originals = draw(network).detach().clone()
        ends = _ends(len(layers), steps)
        pictures, fresh, done = [], dict[str, Tensor](), 0
        for end in ends:
            for one in layers[done:end]:
                values = initial_values(network, one, seed)
                replace_tensors(network, values)
                fresh |= values
            done = end
            pictures.append(draw(network).detach().clone())
        of_controls = {}
        for control in controls:
            up, down = (trained, fresh) if control == CONTROLS[0] else (fresh, trained)
            replace_tensors(network, up)
            with SwappedFilters(up, down):
                of_controls[control] = draw(network).detach().clone()
        replace_tensors(network, trained)
    comparison = Comparison(originals, measures)
    compared = [comparison.compare(picture) for picture in pictures]
    before = entropy(originals)
    return Randomization(
        layer=layer,
        layers=tuple(layers[end - 1].name for end in ends),
        originals=originals,
        pictures=torch.stack(pictures),
        similarities={measure: torch.stack([one[measure] for one in compared]) for measure in compared[0]},
        complexity_rise=(entropy(pictures[-1]) - before) / before,
        controls=of_controls,
        control_similarities={name: comparison.compare(picture) for name, picture in of_controls.items()},
    )


def _ends(layers: int, steps: int | None) -> list[int]:
    """After how many layers each stage ends."""
    count = layers if steps is None else min(steps, layers)
    return [round((n + 1) * layers / count) for n in range(count)]


class _Projector:
    """Projects the same units with any weights.

    Args:
        model: The network as it is, whose strongest places are taken.
        images: ``(N, C, H, W)``.
        layer: Dotted name of the layer.
        channels: ``(N,)``.
        rule: Rule of the way down.
        lrn: Backward pass of response normalisation.
    """

    def __init__(
        self, model: nn.Module, images: Tensor, layer: str, channels: Tensor, rule: str | Rule, lrn: LRNRule
    ) -> None:
        self.positions = project(model, images, layer, channels, rule=rule, lrn=lrn).positions
        with isolated(model) as network:
            self.windows = plan_windows(network, layer, images, rule=rule)
        self.corners = self.windows.corners(self.positions)
        self.layer, self.channels, self.rule, self.lrn = layer, channels, rule, lrn

    def __call__(self, network: nn.Module, images: Tensor) -> Tensor:
        """Projects the units with a network; the way down begins at 1, since random units may be inactive."""
        pixels, _ = project_windows(
            network,
            cut(images, self.corners, self.windows.size),
            self.layer,
            self.channels,
            self.windows.positions_within(self.positions, self.corners),
            rule=self.rule,
            start="one",
            lrn=self.lrn,
            geometry=self.windows,
        )
        return cut(pixels, self.windows.field_corners(self.positions) - self.corners, self.windows.field_size)


def _noise(images: Tensor, samples: int, noise: float, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Patterns ``(C, H, W)``, the same for all images, and their strength in each ``(N, 1, 1, 1)``."""
    spread = noise * (images.flatten(1).amax(1) - images.flatten(1).amin(1)).view(-1, 1, 1, 1)
    if samples == 1:
        return []
    return [(pattern, spread) for pattern in gaussian((samples, *images.shape[1:]), seed).to(images)]


def _drawing(method: PictureMethod, layer: str, channels: Tensor) -> Callable[[nn.Module, Tensor], Tensor]:
    """A function that returns pictures, and says so if they are none."""

    def draw(network: nn.Module, images: Tensor) -> Tensor:
        pictures: object = method(network, images, layer, channels)
        if not isinstance(pictures, Tensor) or pictures.ndim != 4 or len(pictures) != len(images):
            shape = tuple(pictures.shape) if isinstance(pictures, Tensor) else type(pictures).__name__
            raise ValueError(f"The method returned {shape}, not pictures (N, C, h, w) of {len(images)} images.")
        return pictures

    return draw


__all__ = [
    "CONTROLS",
    "Draw",
    "PictureMethod",
    "Randomization",
    "WeightedLayer",
    "randomization_test",
    "randomized",
    "verdict",
    "weight_dependence",
]
