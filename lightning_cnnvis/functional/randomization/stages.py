"""The randomisation test: a picture at each stage of a network whose layers are re-initialised one after the other.

Adebayo et al. 2018 (arXiv 1810.03292); smooth and efficient variants: Hedström et al. 2024 (arXiv 2401.06465).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_cnnvis.functional.activations.top_k import TopActivations
from lightning_cnnvis.functional.deconvnet.batching import plan_windows, project_windows
from lightning_cnnvis.functional.deconvnet.projection import project
from lightning_cnnvis.functional.deconvnet.rules import Rule
from lightning_cnnvis.functional.deconvnet.windows import Windows, cut
from lightning_cnnvis.functional.network.canonical import LRNRule
from lightning_cnnvis.functional.network.forward import model_options, noise_image
from lightning_cnnvis.functional.noise import gaussian
from lightning_cnnvis.functional.randomization.cascade import (
    initial_values,
    replace_tensors,
    tensors_of,
    weighted_layers,
)
from lightning_cnnvis.functional.randomization.comparison import MEASURES, Comparison, entropy
from lightning_cnnvis.functional.randomization.results import Randomization
from lightning_cnnvis.functional.randomization.swapped_filters import SwappedFilters
from lightning_cnnvis.isolation import check_has_values, isolated

Draw = Callable[[nn.Module, Tensor], Tensor]
"""Makes pictures ``(N, C, h, w)`` with a network, of inputs ``(N, C, H, W)``."""

PictureMethod = Callable[[nn.Module, Tensor, str, Tensor], Tensor]
"""A function of a network, images ``(N, C, H, W)``, a layer and channels ``(N,)`` that returns pictures."""

CONTROLS = ("random filters", "random switches")
"""The controls: random filters under the switches of the network as it is, and the other way round."""


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

    Examples:
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
        if isinstance(method, str | Rule):
            positions = project(network, images, layer, channels, rule=method, lrn=lrn).positions
            geometry = plan_windows(network, layer, images, rule=method)
            units = _Units(layer, channels, positions, geometry, method, lrn)
            draw, inputs = _smooth(units.project, samples, noise, seed), units.cut(images)
        else:
            draw, inputs = _smooth(_drawing(method, layer, channels), samples, noise, seed), images
        controls = CONTROLS if isinstance(method, str | Rule) else ()
        return randomized(network, draw, inputs, layer, images[:1], steps=steps, seed=seed, controls=controls)


def randomized_projections(
    model: nn.Module,
    top: TopActivations,
    layer: str,
    *,
    rule: str | Rule = "deconvnet",
    lrn: LRNRule = "identity",
    steps: int | None = None,
    samples: int = 1,
    noise: float = 0.1,
    seed: int = 0,
    controls: Sequence[str] = CONTROLS,
    measures: Sequence[str] = MEASURES,
    originals: Tensor | None = None,
) -> Randomization:
    """Tests the projections of top activations: `randomization_test` on the windows that have been cut out.

    Args:
        model: The network. It is left as it was.
        top: The strongest activations of feature maps of the layer, on the model's device.
        layer: Dotted name of the layer.
        rule: Rule of the way down; see `project`.
        lrn: Backward pass of local response normalisation.
        steps: Number of stages; a stage a layer if None.
        samples: Number of noisy copies of each window that a picture is the mean of.
        noise: Standard deviation of that noise over the window's range of values.
        seed: Seed of weights and noise.
        controls: Which of `CONTROLS` to draw.
        measures: Which measures to compare by.
        originals: ``(maps * k, C, h, w)``, the projections of the network as it is, where they are known.

    Returns:
        The pictures ``maps * k`` of each stage with their similarities, in the order of `TopActivations.project`.

    Raises:
        LayerError: If the layer does not depend on weights.
    """
    channels, positions = top.channels.repeat_interleave(top.k), top.positions.flatten(0, 1)
    units = _Units(layer, channels, positions, top.geometry, rule, lrn)
    with isolated(model) as network:
        windows = top.windows.flatten(0, 1).detach().to(model_options(network).dtype, copy=True)
        image = noise_image(network, top.geometry.field.input_size, windows.shape[1])
        return randomized(
            network,
            _smooth(units.project, samples, noise, seed),
            windows,
            layer,
            image,
            steps=steps,
            seed=seed,
            controls=controls,
            measures=measures,
            originals=originals,
        )


def randomized(
    model: nn.Module,
    draw: Draw,
    inputs: Tensor,
    layer: str,
    image: Tensor,
    *,
    steps: int | None = None,
    seed: int = 0,
    controls: Sequence[str] = (),
    measures: Sequence[str] = MEASURES,
    originals: Tensor | None = None,
) -> Randomization:
    """Draws pictures of a network while its layers are re-initialised: `randomization_test` for any pictures.

    Args:
        model: The network. It is left as it was.
        draw: Makes the pictures with the network and the inputs that it is given.
        inputs: ``(N, C, H, W)``, what to draw: images, or windows of them.
        layer: Dotted name of the layer that they are of, or ``OUTPUT``.
        image: ``(1, C, H, W)``, to find out in which order layers run.
        steps: Number of stages; a stage a layer if None.
        seed: Seed of the weights.
        controls: Which of `CONTROLS` to draw, too; for pictures that are a backward pass.
        measures: Which of `MEASURES` to compare by.
        originals: ``(N, C, h, w)``, the pictures of the network as it is, where they are known.

    Returns:
        The pictures of each stage with their similarities.

    Raises:
        LayerError: If the layer does not exist, or does not depend on weights.
    """
    with isolated(model) as network:
        layers = weighted_layers(network, layer, image.detach().clone())
        trained = tensors_of(network, layers)
        originals = (draw(network, inputs) if originals is None else originals).detach().clone()
        ends = _ends(len(layers), steps)
        pictures, fresh, done = [], dict[str, Tensor](), 0
        for end in ends:
            for one in layers[done:end]:
                values = initial_values(network, one, seed)
                replace_tensors(network, values)
                fresh |= values
            done = end
            pictures.append(draw(network, inputs).detach().clone())
        unrelated = draw(network, _noise_like(inputs, seed)).detach().clone()
        of_controls = {}
        for control in controls:
            up, down = (trained, fresh) if control == CONTROLS[0] else (fresh, trained)
            replace_tensors(network, up)
            with SwappedFilters(up, down):
                of_controls[control] = draw(network, inputs).detach().clone()
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
        chance=comparison.compare(unrelated),
        complexity_rise=(entropy(pictures[-1]) - before) / before,
        controls=of_controls,
        control_similarities={name: comparison.compare(picture) for name, picture in of_controls.items()},
    )


def _ends(layers: int, steps: int | None) -> list[int]:
    """After how many layers each stage ends."""
    count = layers if steps is None else min(steps, layers)
    return [round((n + 1) * layers / count) for n in range(count)]


@dataclass(frozen=True)
class _Units:
    """Units, each to be projected from a window of its own by any weights."""

    layer: str
    channels: Tensor
    positions: Tensor
    geometry: Windows
    rule: str | Rule
    lrn: LRNRule

    @property
    def corners(self) -> Tensor:
        """Top and left pixel of each window."""
        return self.geometry.corners(self.positions)

    def cut(self, images: Tensor) -> Tensor:
        """The window of each unit, from an image each."""
        return cut(images, self.corners, self.geometry.size)

    def project(self, network: nn.Module, windows: Tensor) -> Tensor:
        """Projects the units with a network. The way down begins at 1, below the units' rectifier."""
        # half of the units are inactive with random weights: that is another sign of a filter, not another picture
        pixels, _ = project_windows(
            network,
            windows,
            self.layer,
            self.channels,
            self.geometry.positions_within(self.positions, self.corners),
            rule=self.rule,
            start="one",
            lrn=self.lrn,
            geometry=self.geometry,
            inactive=True,
        )
        return cut(pixels, self.geometry.field_corners(self.positions) - self.corners, self.geometry.field_size)


def _noise_like(inputs: Tensor, seed: int) -> Tensor:
    """Noise of the mean and the spread of each input, the same pattern for every one."""
    means, spreads = inputs.mean((2, 3), keepdim=True), inputs.std((2, 3), keepdim=True)
    return gaussian(inputs.shape[1:], seed).to(inputs) * spreads + means


def _smooth(draw: Draw, samples: int, noise: float, seed: int) -> Draw:
    """The mean of the pictures of several noisy copies, with the same noise for every input."""
    if samples == 1:
        return draw

    def mean(network: nn.Module, inputs: Tensor) -> Tensor:
        spread = noise * (inputs.flatten(1).amax(1) - inputs.flatten(1).amin(1)).view(-1, 1, 1, 1)
        patterns = gaussian((samples, *inputs.shape[1:]), seed).to(inputs)
        total = torch.zeros((), dtype=inputs.dtype, device=inputs.device)
        for pattern in patterns:
            total = total + draw(network, inputs + pattern * spread).detach()
        return total / samples

    return mean


def _drawing(method: PictureMethod, layer: str, channels: Tensor) -> Draw:
    """A function that returns pictures, and says so if they are none."""

    def draw(network: nn.Module, images: Tensor) -> Tensor:
        pictures: object = method(network, images, layer, channels)
        if not isinstance(pictures, Tensor) or pictures.ndim != 4 or len(pictures) != len(images):
            shape = tuple(pictures.shape) if isinstance(pictures, Tensor) else type(pictures).__name__
            raise ValueError(f"The method returned {shape}, not pictures (N, C, h, w) of {len(images)} images.")
        return pictures

    return draw
