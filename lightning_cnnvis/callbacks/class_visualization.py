"""What the network takes for its classes, while it trains."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from lightning_cnnvis import figures
from lightning_cnnvis.callbacks.base import VisualizationCallback, VisualizationContext
from lightning_cnnvis.distributed import gather_results, own_share
from lightning_cnnvis.evolution import PictureColumn, PictureStrip
from lightning_cnnvis.functional.class_visualization import visualize_classes
from lightning_cnnvis.functional.presets import Preset, preset_recipe
from lightning_cnnvis.functional.visualization import VisualizationOptions, frame_steps

MAX_DEFAULT_CLASSES = 12
"""How many classes are shown where none are named."""

STRIP_SIDE = 96
"""Longest side of the pictures that a strip, and so a checkpoint, keeps."""


class ClassVisualization(VisualizationCallback):
    """Shows what the network takes for its classes: images optimised from noise, the same noise at every epoch.

    Two epochs differ by the weights alone. See `visualize_classes` for the method and its sources.

    Pictures: ``class_visualization/classes``, a labelled grid; ``class_visualization/forming``, how the first sample of
    each class comes out of the noise; ``class_visualization/evolution``, a row a class, a column an epoch. Scalars:
    ``class_probability/<class>``, the probability reached on the clean image; ``class_visualization/steps``.

    Args:
        classes: Names or numbers of the classes; the first twelve if None.
        samples_per_class: Images of each class.
        preset: ``"fourier"``, ``"yosinski2015"``, ``"simonyan2013"`` or ``"none"``; see `preset_recipe`.
        steps: Number of optimisation steps; the preset's if None.
        **options: What every visualisation takes: ``epochs``, ``every_n_epochs``, ``seed``, ``input_spec``,
            ``on_error`` and more; see `VisualizationCallback`.

    Raises:
        MisconfigurationException: If an argument is out of range; before training starts, if there is no such class, or
            the network is no classifier.

    Example:
        >>> callback = ClassVisualization(classes=["cat", "coffee"], epochs=[1, 10])
    """

    name = "class_visualization"

    def __init__(
        self,
        *,
        classes: Sequence[int | str] | None = None,
        samples_per_class: int = 1,
        preset: Preset = "fourier",
        steps: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if samples_per_class < 1:
            raise MisconfigurationException(f"samples_per_class={samples_per_class} must be at least 1.")
        if steps is not None and steps < 1:
            raise MisconfigurationException(f"steps={steps} must be at least 1.")
        self.classes = None if classes is None else list(classes)
        self.samples_per_class = samples_per_class
        self.preset: Preset = preset
        self.steps = steps
        self._strip = PictureStrip()
        self._shown_classes: list[int | str] = []

    def check(self, context: VisualizationContext) -> None:
        """Tries the classes out with a single step."""
        self._shown_classes = self._choose(context) if self.classes is None else self.classes
        self._visualize(context, self._shown_classes, steps=1)

    def visualize(self, context: VisualizationContext) -> None:
        """Optimises the images of the classes, each process its share, and draws them."""
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
            options=VisualizationOptions(frames=kept),
        )
        assert shown.probabilities is not None
        return [
            _Tile(
                figures.as_bytes(image[None])[0],
                label,
                figures.state_of(shown, n),
                float(shown.probabilities[n]),
                shown.losses.shape[1],
                figures.as_bytes(figures.reduced(shown.frames[n], STRIP_SIDE)),
            )
            for n, (image, label) in enumerate(zip(shown.images, shown.labels, strict=True))
        ]

    def _choose(self, context: VisualizationContext) -> list[int | str]:
        with torch.no_grad():
            logits = context.network(context.to_network(torch.zeros(1, *context.input_spec.shape)))
        return list(range(min(MAX_DEFAULT_CLASSES, logits.shape[-1])))

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Begins anew."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._strip = PictureStrip()

    def state_dict(self) -> dict[str, Any]:
        """Adds the strip."""
        return {**super().state_dict(), "strip": self._strip.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up where a checkpoint left off."""
        super().load_state_dict(state_dict)
        self._strip = PictureStrip.from_state_dict(state_dict["strip"])


class _Tile(NamedTuple):
    """One image, small enough to be sent from process to process."""

    picture: Tensor
    label: str
    state: str
    probability: float
    steps: int
    frames: Tensor
