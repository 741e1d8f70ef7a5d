"""What the network takes for its classes, while it trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from lightning_cnnvis import figures
from lightning_cnnvis.callbacks.base import VisualizationContext
from lightning_cnnvis.callbacks.base.distributed import gather_results, own_share
from lightning_cnnvis.callbacks.base.failure import naming_layer
from lightning_cnnvis.callbacks.base.strip import StripCallback
from lightning_cnnvis.callbacks.deconvnet import DeconvNetProjection, Strongest
from lightning_cnnvis.evolution.strips import PictureColumn
from lightning_cnnvis.functional.network.defaults import MAX_DEFAULT_CLASSES, choose_channels
from lightning_cnnvis.functional.optimization.parameterizations import ImageStatistics
from lightning_cnnvis.functional.visualization.classes import visualize_classes
from lightning_cnnvis.functional.visualization.presets import check_preset, preset_recipe
from lightning_cnnvis.functional.visualization.results import VisualizationOptions, Visualizations, frame_steps
from lightning_cnnvis.functional.visualization.units import maximize_activation
from lightning_cnnvis.layers import activations

STRIP_SIDE = 96
"""Longest side of the pictures that a strip, and so a checkpoint, keeps."""


class ClassVisualization(StripCallback):
    """Shows what the network takes for its classes: images optimised from noise, the same noise at every epoch.

    With ``layers``, also what feature maps of these respond to most (activation maximisation). Two epochs differ by the
    weights alone. See `visualize_classes` and `maximize_activation` for the methods and their sources.

    Pictures: ``class_visualization/classes``, a labelled grid; ``class_visualization/forming``, how the first sample of
    each class comes out of the noise; ``class_visualization/evolution``, a row a class, a column an epoch;
    ``class_visualization/<layer>``, the feature maps. Where a `DeconvNetProjection` in the same Trainer follows a
    feature map, its tile says how many times the strongest activation on real images was reached.

    Scalars: ``class_probability/<class>``, the probability reached on the clean image; ``class_visualization/steps``.

    Args:
        classes: Names or numbers of the classes; the first twelve if None. An empty list leaves them out, for networks
            that are no classifiers.
        samples_per_class: Images of each class.
        layers: Dotted names of the modules whose feature maps, or units, are shown as well; none if None.
        num_channels: How many of each layer: the same seeded choice as `DeconvNetProjection` makes; every one if None.
        channels: Their numbers instead.
        preset: ``"fourier"``, ``"yosinski2015"``, ``"simonyan2013"``, ``"none"`` or another registered one; see
            `preset_recipe`.
        steps: Number of optimisation steps; the preset's if None.
        statistics: Colours and spectrum of your own images, for ``"fourier"``: ``ImageStatistics.measure(images)``.
            Those of everyday photographs if None.
        **options: What every visualisation takes: ``epochs``, ``every_n_epochs``, ``seed``, ``input_spec``,
            ``on_error`` and more; see `VisualizationCallback`.

    Raises:
        MisconfigurationException: If an argument is out of range; before training starts, if there is no such class,
            layer or feature map, or the network is no classifier.

    Example:
        >>> callback = ClassVisualization(classes=["cat", "coffee"], layers=["relu4"], epochs=[1, 10])
    """

    name = "class_visualization"

    def __init__(
        self,
        *,
        classes: Sequence[int | str] | None = None,
        samples_per_class: int = 1,
        layers: Sequence[str] | None = None,
        num_channels: int | None = 16,
        channels: Sequence[int] | None = None,
        preset: str = "fourier",
        steps: int | None = None,
        statistics: ImageStatistics | None = None,
        **options: Any,
    ) -> None:
        super().__init__(layers=layers, **options)
        for argument, value in (
            ("samples_per_class", samples_per_class),
            ("num_channels", num_channels),
            ("steps", steps),
        ):
            if value is not None and value < 1:
                raise MisconfigurationException(f"{argument}={value} must be at least 1.")
        if isinstance(classes, str):
            raise MisconfigurationException(f"classes={classes!r} is one name, not a list: give classes=[{classes!r}].")
        if channels is not None and not layers:
            raise MisconfigurationException(f"channels={list(channels)} of which layers? Name them: layers=[...].")
        if not layers and classes is not None and not classes:
            raise MisconfigurationException("classes=[] leaves nothing to show: name a class, or layers=[...].")
        try:
            check_preset(preset)
        except ValueError as error:
            raise MisconfigurationException(str(error)) from error
        self.classes = None if classes is None else list(classes)
        self.samples_per_class = samples_per_class
        self.num_channels = num_channels
        self.channels = None if channels is None else list(channels)
        self.preset = preset
        self.steps = steps
        self.statistics = statistics
        self._shown_classes: list[int | str] = []
        self._shown_channels: dict[str, list[int]] = {}

    def check(self, context: VisualizationContext) -> None:
        """Tries the classes and the feature maps out with a single step."""
        self._shown_classes = self._choose(context) if self.classes is None else self.classes
        self._visualize(context, self._shown_classes, steps=1)
        self._shown_channels = self._choose_channels(context)
        for layer, channels in self._shown_channels.items():
            with naming_layer(layer):
                self._maximize(context, layer, channels, {}, steps=1)

    def visualize(self, context: VisualizationContext) -> bool:
        """Optimises the images of the classes and of the feature maps, each process its share, and draws them."""
        if self._shown_classes:
            self._show_classes(context)
        shown = len(self._shown_classes)
        strongest: dict[str, Strongest] = {}
        if self._shown_channels:
            with self.guarded(context.epoch):
                strongest = _strongest(context)
        for layer in self._shown_channels:
            with self.guarded(context.epoch, layer):
                self._show_channels(context, layer, strongest.get(layer))
                shown += 1
        return shown > 0

    def _show_channels(self, context: VisualizationContext, layer: str, real: Strongest | None) -> None:
        channels = self._shown_channels[layer]
        share = channels[own_share(len(channels))]
        strongest = {} if real is None else real.activations
        parts = gather_results(partial(self._maximize, context, layer, share, strongest, steps=self.steps))
        tiles = [tile for part in parts for tile in part]
        note = f"Optimised from noise to raise the mean of the feature map ({self.preset}): its peak"
        if real is not None:
            when = "" if real.epoch == context.epoch else f" at epoch {real.epoch}"
            note += f", and how many times the strongest activation on real images{when}"
        picture = figures.labelled_pictures(
            torch.stack([tile.picture for tile in tiles]),
            [tile.label for tile in tiles],
            [tile.state for tile in tiles],
            f"{layer} · epoch {context.epoch}",
            f"{note}.",
        )
        context.sinks.picture(f"{self.label}/{layer}", picture, context.epoch)

    def _show_classes(self, context: VisualizationContext) -> None:
        share = self._shown_classes[own_share(len(self._shown_classes))]
        parts = gather_results(partial(self._visualize, context, share, steps=self.steps))
        tiles = [tile for part in parts for tile in part]
        pictures = torch.stack([tile.picture for tile in tiles])
        labels, states = [tile.label for tile in tiles], [tile.state for tile in tiles]
        title = f"Classes · epoch {context.epoch}"
        note = f"Optimised from noise to raise the class's logit ({self.preset}): probability and logit reached."
        picture = figures.labelled_pictures(pictures, labels, states, title, note)
        context.sinks.picture(f"{self.label}/classes", picture, context.epoch)

        # the strips show the first sample of each class
        first = tiles[:: self.samples_per_class]
        forming = figures.forming_strip(
            [tile.frames / 255 for tile in first],
            frame_steps(tiles[0].steps),
            [tile.label for tile in first],
            [tile.state for tile in first],
            f"Classes out of noise · epoch {context.epoch}",
        )
        context.sinks.picture(f"{self.label}/forming", forming, context.epoch)
        self._strip.add(
            PictureColumn(
                context.epoch,
                figures.as_bytes(figures.reduced(pictures[:: self.samples_per_class] / 255, STRIP_SIDE)),
                tuple(tile.state for tile in first),
            )
        )
        strip = figures.picture_strip(self._strip, [tile.label for tile in first], "Classes · evolution")
        context.sinks.picture(f"{self.label}/evolution", strip, context.epoch)
        for tile in first:
            context.sinks.scalar(f"class_probability/{tile.label}", tile.probability, context.epoch)
        context.sinks.scalar(f"{self.label}/steps", tiles[0].steps, context.epoch)

    def _visualize(
        self, context: VisualizationContext, classes: Sequence[int | str], *, steps: int | None
    ) -> list[_Tile]:
        if not classes:
            return []
        kept = frame_steps(steps or preset_recipe(self.preset, context.input_spec).steps)
        shown = visualize_classes(
            context.network,
            classes,
            input_spec=context.input_spec,
            samples_per_class=self.samples_per_class,
            preset=self.preset,
            steps=steps,
            seed=self.seed,
            options=VisualizationOptions(frames=kept, statistics=self.statistics),
        )
        return _tiles(shown, shown.labels)

    def _maximize(
        self,
        context: VisualizationContext,
        layer: str,
        channels: Sequence[int],
        strongest: Mapping[int, float],
        *,
        steps: int | None,
    ) -> list[_Tile]:
        if not channels:
            return []
        shown = maximize_activation(
            context.network,
            layer,
            channels,
            input_spec=context.input_spec,
            preset=self.preset,
            steps=steps,
            seed=self.seed,
            options=VisualizationOptions(statistics=self.statistics),
        )
        return _tiles(shown, [f"#{channel}" for channel in channels], strongest)

    def _choose_channels(self, context: VisualizationContext) -> dict[str, list[int]]:
        """The feature maps to show of each layer."""
        if not context.layers:
            return {}
        if self.channels is not None:
            return dict.fromkeys(context.layers, self.channels)
        with torch.no_grad():
            blank = context.to_network(torch.zeros(1, *context.input_spec.shape))
            outputs = activations(context.network, blank, context.layers)
        return {
            layer: choose_channels(layer, output.shape[1] if output.ndim > 1 else 0, self.num_channels, self.seed)
            for layer, output in outputs.items()
        }

    def _choose(self, context: VisualizationContext) -> list[int | str]:
        with torch.no_grad():
            logits = context.network(context.to_network(torch.zeros(1, *context.input_spec.shape)))
        return list(range(min(MAX_DEFAULT_CLASSES, logits.shape[-1])))


class _Tile(NamedTuple):
    """One image, small enough to be sent from process to process."""

    picture: Tensor
    label: str
    state: str
    probability: float
    steps: int
    frames: Tensor


def _tiles(shown: Visualizations, labels: Sequence[str], strongest: Mapping[int, float] | None = None) -> list[_Tile]:
    probabilities = [0.0] * len(labels) if shown.probabilities is None else shown.probabilities.tolist()
    return [
        _Tile(
            figures.as_bytes(image[None])[0],
            labels[n],
            figures.state_of(shown, n, strongest),
            probabilities[n],
            shown.losses.shape[1],
            figures.as_bytes(figures.reduced(shown.frames[n], STRIP_SIDE)),
        )
        for n, image in enumerate(shown.images)
    ]


def _strongest(context: VisualizationContext) -> dict[str, Strongest]:
    """What the run's projections know of the strongest activations on real images."""
    known: dict[str, Strongest] = {}
    callbacks: list[pl.Callback] = context.trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        if isinstance(callback, DeconvNetProjection):
            known |= callback.strongest(context)
    return known
