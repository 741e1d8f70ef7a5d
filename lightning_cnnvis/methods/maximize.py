"""Make images of what feature maps respond to most.

Erhan et al. 2009; Olah et al. 2017 (https://doi.org/10.23915/distill.00007).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, NamedTuple

import torch

from lightning_cnnvis import figures
from lightning_cnnvis.functional.network.defaults import choose_channels, choose_depths
from lightning_cnnvis.functional.optimization.recipes import Recipe
from lightning_cnnvis.functional.visualization.presets import check_preset
from lightning_cnnvis.functional.visualization.results import VisualizationOptions, Visualizations
from lightning_cnnvis.functional.visualization.units import maximize_activation
from lightning_cnnvis.isolation import isolated
from lightning_cnnvis.layers import LayerError, activations, has_units
from lightning_cnnvis.methods.checks import check_at_least_one, check_lists
from lightning_cnnvis.methods.classes import preset_name
from lightning_cnnvis.methods.deconv import check_channels, top_activations
from lightning_cnnvis.methods.method import Drawings, Method, Parts, Strip, Title
from lightning_cnnvis.methods.own_statistics import OwnStatistics, as_statistics, measured
from lightning_cnnvis.methods.registry import register_method
from lightning_cnnvis.methods.results import Result
from lightning_cnnvis.methods.subject import Subject
from lightning_cnnvis.viewer.content import Gallery, Section, Tile
from lightning_cnnvis.viewer.tiles import page_tiles

STRIP_SIDE = 96
"""Longest side in pixels of the images of a strip, which checkpoints keep."""


@dataclass(frozen=True)
class MaximizeOptions:
    """Makes images of what feature maps, or units, respond to most, from noise; see `maximize_activation`.

    Where there are images, a feature map's tile says how many times its strongest activation on them was reached.

    Args:
        layers: Dotted names of the layers; a low, a middle and a high rectified convolution if None.
        channels: Numbers of the feature maps to show of each layer, from 0; a seeded random choice, the same as for the
            projections, if None.
        num_channels: Number of feature maps to choose; every one if None.
        preset: Name of a recipe: ``"fourier"``, ``"maco"``, ``"deepinversion"``, ``"plug_in"``, ``"yosinski2015"``,
            ``"simonyan2013"``, ``"none"`` or one that was registered; or a `Recipe`. See `preset_recipe`.
        steps: Number of optimisation steps; the preset's if None.
        statistics: Colours and spectrum for ``"fourier"`` and ``"maco"``: ``"own"`` measures them on the images at
            hand, during a training once, on its own images; or ``ImageStatistics.measure(images)``. Those of everyday
            photographs if None.
        transparency: Whether a second picture shows only what the steps pulled at; see `Visualizations`.
        seed: Seed of the choice, and of the noise to start from.

    Raises:
        ValueError: If an option is out of range, a layer is not there, or a channel is out of range.
    """

    layers: Sequence[str] | None = None
    channels: Sequence[int] | None = None
    _: KW_ONLY
    num_channels: int | None = 16
    preset: str | Recipe = "fourier"
    steps: int | None = None
    statistics: OwnStatistics | None = None
    transparency: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the ranges."""
        check_lists(layers=self.layers, channels=self.channels)
        check_at_least_one(num_channels=self.num_channels, steps=self.steps)
        object.__setattr__(self, "statistics", as_statistics(self.statistics))
        if not isinstance(self.preset, Recipe):
            check_preset(self.preset)
        if self.channels is not None and not self.layers:
            raise ValueError(
                f"channels={list(self.channels)} requires layers: name the layers that they belong to, layers=[...]."
            )


class Strongest(NamedTuple):
    """The strongest activations of a layer's feature maps on real images.

    Attributes:
        epoch: The epoch that they were found at, counted from 1; None if it is the one that is shown.
        activations: The activations by channel.
    """

    epoch: int | None
    activations: dict[int, float]


@dataclass(frozen=True, eq=False)
class MaximizedLayer:
    """Images optimised for feature maps of a layer.

    Attributes:
        visualizations: The images and how far each got.
        strongest: The strongest activations on real images; None where they are not known.
    """

    visualizations: Visualizations
    strongest: Strongest | None = field(default=None)

    @property
    def labels(self) -> list[str]:
        """The feature maps' numbers, as they are written."""
        return [f"#{channel}" for channel in self.visualizations.targets]

    @property
    def states(self) -> list[str]:
        """What is said of each image."""
        known = {} if self.strongest is None else self.strongest.activations
        return [figures.state_of(self.visualizations, n, known) for n in range(len(self.labels))]


class MaximizeResult(Result):
    """Images optimised for feature maps."""

    @property
    def features(self) -> Mapping[str, Visualizations]:
        """The images and how far each got, by layer."""
        return {layer: part.visualizations for layer, part in self.parts.items()}


def _parts(subject: Subject, options: MaximizeOptions) -> Parts:
    layers = choose_depths(subject.default_layers()) if options.layers is None else subject.known_layers(options.layers)
    with torch.no_grad(), isolated(subject.network) as network:
        outputs = activations(network, subject.blank(), layers)
        without_units = [layer for layer in layers if not has_units(network, layer, outputs[layer])]
    if without_units:
        layer = without_units[0]
        raise LayerError(
            f"Layer {layer!r} gives {tuple(outputs[layer].shape)} for one image: name a layer that gives (N, C, H, W), "
            "(N, units) or tokens (N, T, C)."
        )
    parts = {}
    for layer, output in outputs.items():
        if options.channels is None:
            parts[layer] = choose_channels(layer, output.shape[1], options.num_channels, options.seed)
        else:
            parts[layer] = check_channels(layer, options.channels, output.shape[1])
    return parts


def _prepare(subject: Subject, options: MaximizeOptions, parts: Parts) -> dict[str, Strongest]:
    """The strongest activations on the images, where there are images."""
    if not subject.has_images:
        return {}
    tops = top_activations(subject, parts, 1, "gradient")
    return {
        layer: Strongest(None, dict(zip(top.channels.tolist(), top.values[:, 0].tolist(), strict=True)))
        for layer, top in tops.items()
    }


def _run(
    subject: Subject, options: MaximizeOptions, layer: str, channels: Sequence[int], strongest: Mapping[str, Strongest]
) -> MaximizedLayer:
    shown = maximize_activation(
        subject.network,
        layer,
        channels,
        input_spec=subject.input_spec,
        preset=options.preset,
        steps=options.steps,
        seed=options.seed,
        options=VisualizationOptions(statistics=measured(options.statistics), transparency=options.transparency),
    )
    return MaximizedLayer(shown, strongest.get(layer))


def _trial(subject: Subject, options: MaximizeOptions) -> tuple[MaximizeOptions, dict[str, Strongest]]:
    return replace(options, steps=1), {}


def _merge(results: Sequence[MaximizedLayer]) -> MaximizedLayer:
    return MaximizedLayer(Visualizations.cat([result.visualizations for result in results]), results[0].strongest)


def _draw(subject: Subject, options: MaximizeOptions, layer: str, result: MaximizedLayer, title: Title) -> Drawings:
    note = f"Optimised from noise to raise the mean of the feature map ({preset_name(options.preset)}): its peak"
    if result.strongest is not None:
        when = "" if result.strongest.epoch is None else f" at epoch {result.strongest.epoch}"
        note += f", and how many times the strongest activation on real images{when}"
    pictures = figures.as_bytes(result.visualizations.images)
    drawn = {
        f"{MAXIMIZE.tag}/{layer}": figures.labelled_pictures(
            pictures, result.labels, result.states, title(layer), f"{note}."
        )
    }
    if result.visualizations.transparency is not None:
        masked = figures.as_bytes(figures.on_paper(result.visualizations))
        drawn[f"{MAXIMIZE.tag}_transparency/{layer}"] = figures.labelled_pictures(
            masked, result.labels, result.states, title(layer), figures.TRANSPARENCY
        )
    return drawn


def _strip(options: MaximizeOptions, layer: str, result: MaximizedLayer) -> Strip:
    small = figures.as_bytes(figures.reduced(result.visualizations.images, STRIP_SIDE))
    return Strip(
        f"{MAXIMIZE.tag}_evolution/{layer}",
        f"{layer} · evolution",
        result.labels,
        small,
        result.states,
        side=STRIP_SIDE,
    )


def _sections(
    subject: Subject, options: MaximizeOptions, result: MaximizeResult, evolutions: Mapping[str, Any]
) -> list[Section]:
    blocks = tuple(Gallery(_tiles(layer, part)) for layer, part in result.parts.items())
    note = (
        "Images optimised from noise to raise the mean of a feature map: the peak that was reached, and how many times "
        "the strongest activation on real images that is."
    )
    return [Section("What feature maps respond to most", blocks, note)]


def _tiles(layer: str, part: MaximizedLayer) -> tuple[Tile, ...]:
    tiles = page_tiles(part.visualizations.images, [f"{layer} {label}" for label in part.labels], part.states)
    return tuple(
        replace(tile, of=(layer, int(channel)))
        for tile, channel in zip(tiles, part.visualizations.targets, strict=True)
    )


MAXIMIZE = Method(
    name="maximize",
    tag="activation_maximization",
    summary=__doc__,
    options=MaximizeOptions,
    parts=_parts,
    prepare=_prepare,
    run=_run,
    merge=_merge,
    draw=_draw,
    trial=_trial,
    strip=_strip,
    result=MaximizeResult,
    section=_sections,
    report={"num_channels": 6},
)
register_method(MAXIMIZE)
