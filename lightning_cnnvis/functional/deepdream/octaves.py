"""DeepDream: a picture changed so that a layer responds to it more strongly.

Mordvintsev, Olah & Tyka 2015, https://research.google/blog/inceptionism-going-deeper-into-neural-networks/; the steps
are those of https://github.com/google/deepdream: octaves, jitter, a normalised step, guidance by a second image, zoom.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_cnnvis.functional.deepdream.tiling import ALIGNMENT, aligned, tiled
from lightning_cnnvis.functional.network.any_size import checked_pictures, forward_of_any_size
from lightning_cnnvis.functional.network.chunks import is_out_of_memory
from lightning_cnnvis.functional.network.forward import model_options
from lightning_cnnvis.functional.network.tracing import check_calls
from lightning_cnnvis.functional.optimization.gradients import model_gradient
from lightning_cnnvis.functional.optimization.loop import Batch, image_seeds, optimize
from lightning_cnnvis.functional.optimization.objectives import Objective, guided, layer_energy
from lightning_cnnvis.functional.optimization.optimizers import PyramidDescent
from lightning_cnnvis.functional.optimization.parameterizations import Fourier, Pixels
from lightning_cnnvis.functional.optimization.recipes import Phase, Recipe
from lightning_cnnvis.functional.optimization.regularizers import Bounds
from lightning_cnnvis.functional.optimization.transforms import RandomAffine, RandomRoll, resize
from lightning_cnnvis.functional.tensors import cat_fields
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.isolation import isolated
from lightning_cnnvis.layers import LayerError


@dataclass(frozen=True)
class DreamOptions:
    """Strength and scales of a dream.

    Args:
        octaves: Number of sizes, the smallest first. Sizes that are too small for the layer are left out.
        octave_scale: Ratio of two successive sizes, above 1.
        steps: Number of steps at each size.
        step_size: Mean change of a pixel in a step, in grey levels (1/255).
        jitter: Largest random shift before a step, in pixels; at most a seventh of the picture's shorter side.
        levels: Number of halvings, over which the step is spread equally; see `PyramidDescent`. 0 takes the gradient as
            it is, which gives finer texture.
        tile: Largest height and width in pixels that goes through the network at once; larger pictures are processed in
            tiles.
        margin: Number of pixels beyond its borders that a tile includes on every side, rounded up to a multiple of 32.
        precision: Precision of the network's passes, ``"float32"`` or ``"bfloat16"``; see `Recipe`.

    Raises:
        ValueError: If a number is out of its range.

    Examples:
        >>> DreamOptions(octaves=6, jitter=16).steps
        10
    """

    octaves: int = 4
    octave_scale: float = 1.4
    steps: int = 10
    step_size: float = 1.5
    jitter: int = 32
    levels: int = 3
    tile: int = 1024
    margin: int = 64
    precision: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if self.octaves < 1 or self.steps < 1:
            raise ValueError(f"octaves={self.octaves}, steps={self.steps}: a dream takes at least 1 of each.")
        if self.levels < 0:
            raise ValueError(f"levels={self.levels}: give 0 for the plain gradient, or the number of halvings.")
        if self.octave_scale <= 1:
            raise ValueError(f"octave_scale={self.octave_scale}: an octave must be larger than the one before.")
        if self.step_size <= 0 or self.jitter < 0 or self.margin < 0:
            raise ValueError(
                f"step_size={self.step_size}, jitter={self.jitter}, margin={self.margin}: the step must be "
                "positive, the others not negative."
            )
        if self.tile < 2 * aligned(self.margin) + ALIGNMENT:
            raise ValueError(
                f"tile={self.tile} leaves nothing inside a margin of {self.margin} on both sides. Give a larger tile, "
                "or a smaller margin."
            )


@dataclass(frozen=True)
class Dream:
    """Dreamt pictures.

    Attributes:
        images: ``(N, C, H, W)`` in [0, 1].
        sizes: Height and width of each octave.
        losses: ``(N, steps)``, minus the objective before each step, in all octaves one after the other.
    """

    images: Tensor
    sizes: tuple[tuple[int, int], ...]
    losses: Tensor

    @staticmethod
    def cat(parts: Sequence[Dream]) -> Dream:
        """Joins the pictures of several dreams, at least one, of the same sizes.

        Args:
            parts: Dreams of shares of the pictures.

        Returns:
            All pictures, in order.
        """
        return cat_fields(parts, shared=["sizes"])


def dream(
    model: nn.Module,
    image: Tensor | None,
    layer: str | Sequence[str],
    *,
    input_spec: InputSpec,
    channels: Sequence[int] | None = None,
    guide: Tensor | None = None,
    seed: int = 0,
    options: DreamOptions | None = None,
) -> Dream:
    """Enhances the features that a layer detects in a picture. Low layers give strokes, high layers objects.

    Args:
        model: The network. Left as it was.
        image: ``(N, C, H, W)`` or ``(C, H, W)``, of any size, in [0, 1]; None dreams from noise of the network's input
            size.
        layer: Dotted name of a layer with maps, or several names; their objectives are added.
        input_spec: Channels and normalisation of the network's input.
        channels: Channels to enhance; None takes all.
        guide: ``(C, h, w)`` or ``(1, C, h, w)`` in [0, 1], a picture whose features should appear: at each place of
            the layer, the one with the largest dot product.
        seed: Seed of the jitter and the noise.
        options: Strength and scales; None takes the defaults.

    Returns:
        The pictures at their full size.

    Raises:
        LayerError: If a layer does not exist.
        ValueError: If the picture does not have the channels of the network's input, is not finite, or is too small for
            the layer; if a channel is out of range, or both ``channels`` and ``guide`` are given.

    Examples:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        >>> picture = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(0))
        >>> dreamt = dream(net, picture, "1", input_spec=InputSpec(), options=DreamOptions(octaves=2, steps=3))
        >>> dreamt.images.shape, dreamt.sizes
        (torch.Size([1, 3, 20, 30]), ((14, 21), (20, 30)))
    """
    options = options or DreamOptions()
    layers = [layer] if isinstance(layer, str) else list(layer)
    if guide is not None and channels is not None:
        raise ValueError("Both channels and guide are given: a dream follows one of them.")
    (start_seed,) = image_seeds(seed, "dream")
    if image is None:
        image = _noise(input_spec, start_seed)
    like = model_options(model)
    base = checked_pictures(image, input_spec, "image").to(like.device, torch.float32)
    with isolated(model) as network:
        sizes = _octave_sizes(network, layers, base, channels, options)
        objective = _objective(network, layers, channels, guide, input_spec)
        detail, losses = torch.zeros_like(base[..., :1, :1]), []
        for size in sizes:
            octave = resize(base, size)
            start = (octave + resize(detail, size)).clamp(0, 1)
            optimized = optimize(
                network,
                objective,
                _recipe(options, size),
                Batch([start_seed] * len(start), starts=start, chunk=1),
                input_spec=replace(input_spec, size=size),
                gradient_of=lambda part: tiled(
                    model_gradient(network, objective, part, precision=options.precision),
                    options.tile,
                    options.margin,
                ),
            )
            detail = optimized.images - octave
            losses.append(optimized.losses)
    return Dream(optimized.images, tuple(sizes), torch.cat(losses, 1))


def zoom(
    model: nn.Module,
    image: Tensor | None,
    layer: str | Sequence[str],
    *,
    input_spec: InputSpec,
    frames: int = 100,
    scale: float = 0.05,
    seed: int = 0,
    options: DreamOptions | None = None,
) -> Iterator[Tensor]:
    """Dreams a picture, zooms into it, dreams again, and so on: an endless fall.

    Between two frames, each channel is given the mean and the contrast of the first frame again. Otherwise the contrast
    would grow until the picture is black and white.

    Args:
        model: The network. Left as it was, also between two frames.
        image: ``(1, C, H, W)`` or ``(C, H, W)``, of any size, in [0, 1]; None dreams from noise of the network's input
            size.
        layer: Dotted name of a layer with maps, or several names; their objectives are added.
        input_spec: Channels and normalisation of the network's input.
        frames: Number of frames.
        scale: Fraction of the height and width that each zoom cuts off, between 0 and 1.
        seed: Seed of the jitter and the noise.
        options: Strength and scales of each frame's dream; None takes three octaves of four small steps, because the
            frames add up.

    Yields:
        Frames ``(C, H, W)`` in [0, 1]; the first one is not zoomed.

    Raises:
        LayerError: If a layer does not exist.
        ValueError: If the picture cannot be dreamt, see `dream`; if ``frames`` is not positive, or ``scale`` is not
            between 0 and 1.

    Examples:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        >>> picture = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(0))
        >>> options = DreamOptions(octaves=1, steps=2)
        >>> [tuple(frame.shape) for frame in zoom(net, picture, "1", input_spec=InputSpec(), frames=2, options=options)]
        [(3, 20, 30), (3, 20, 30)]
    """
    if frames < 1 or not 0 < scale < 1:
        raise ValueError(f"frames={frames}, scale={scale}: give at least 1 frame, and a scale between 0 and 1.")
    options = options or DreamOptions(octaves=3, steps=4, step_size=1.0)
    closer = RandomAffine(jitter=0.0, scale=(1 / (1 - scale), 1 / (1 - scale)), rotate=0.0)
    colors: tuple[Tensor, Tensor] | None = None
    for frame_seed in image_seeds(seed, *range(frames)):
        frame = dream(model, image, layer, input_spec=input_spec, seed=frame_seed, options=options).images[:1]
        yield frame[0]
        size = (frame.shape[-2], frame.shape[-1])
        deviation, mean = torch.std_mean(frame, (-2, -1), keepdim=True)
        if colors is None:
            colors = deviation, mean
        closer_frame = closer(frame, frame.new_zeros(1, closer.draws), size) - mean
        image = (closer_frame * (colors[0] / deviation.clamp_min(1e-6)) + colors[1]).clamp(0, 1)


def _recipe(options: DreamOptions, size: tuple[int, int]) -> Recipe:
    jitter = min(options.jitter, min(size) // 7)
    return Recipe(
        phases=(Phase(options.steps, options.step_size / 255, transform=RandomRoll(jitter)),),
        parameterization=Pixels(center=0.0),
        optimizer=PyramidDescent(options.levels),
        constraint=Bounds(0.0, 1.0),
        precision=options.precision,
        rescue=False,
    )


def _objective(
    model: nn.Module,
    layers: Sequence[str],
    channels: Sequence[int] | None,
    guide: Tensor | None,
    input_spec: InputSpec,
) -> Objective:
    if guide is None:
        return reduce(add, (layer_energy(layer, channels) for layer in layers))
    inputs = input_spec.normalize(checked_pictures(guide, input_spec, "guide")[:1].to(model_options(model)))
    recorded = forward_of_any_size(model, layers, inputs, "guide")
    for layer, activations in recorded.items():
        if activations.ndim != 4:
            raise LayerError(
                f"Layer {layer!r} has an output of shape {tuple(activations.shape)}: a guide needs a layer with maps."
            )
    return reduce(add, (guided(layer, recorded[layer]) for layer in layers))


def _octave_sizes(
    model: nn.Module, layers: Sequence[str], base: Tensor, channels: Sequence[int] | None, options: DreamOptions
) -> list[tuple[int, int]]:
    """Chooses the octaves' sizes, smallest first, without those too small for the layers; checks the channels."""
    if not layers:
        raise ValueError("layer is empty. Name at least one.")
    height, width = base.shape[-2:]
    shrink = [options.octave_scale**-i for i in reversed(range(options.octaves))]
    sizes = [(max(1, round(height * s)), max(1, round(width * s))) for s in shrink[:-1]] + [(height, width)]
    like = model_options(model)
    for first, (rows, columns) in enumerate(sizes):
        probe = base.new_zeros(1, base.shape[1], min(rows, options.tile), min(columns, options.tile)).to(like)
        try:
            recorded = forward_of_any_size(model, layers, probe, "picture")
        except Exception as error:
            # whatever a network says to a picture smaller than its own
            if first == len(sizes) - 1 or is_out_of_memory(error) or isinstance(error, LayerError):
                raise
        else:
            check_calls(model, layers, probe)
            _check_channels(recorded, channels)
            return sizes[first:]
    return sizes


def _check_channels(recorded: Mapping[str, Tensor], channels: Sequence[int] | None) -> None:
    if channels is not None and len(channels) == 0:
        raise ValueError("channels is empty. Name at least one, or None for all.")
    for layer, activations in recorded.items():
        for number in channels or ():
            if not 0 <= number < activations.shape[1]:
                raise ValueError(
                    f"Channel {number} is out of range: layer {layer!r} has channels 0 to {activations.shape[1] - 1}."
                )


def _noise(input_spec: InputSpec, seed: int) -> Tensor:
    natural = Fourier(init_std=0.5)
    params = natural.init([torch.Generator().manual_seed(seed)], input_spec.shape)
    return natural.decode(params, input_spec.size)
