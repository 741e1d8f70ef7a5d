"""What feature maps respond to most, while the network trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl

from lightning_cnnvis.callbacks.base.context import VisualizationContext
from lightning_cnnvis.callbacks.base.method import MethodCallback
from lightning_cnnvis.callbacks.deconvnet import DeconvNetProjection
from lightning_cnnvis.functional.optimization.recipes import Recipe
from lightning_cnnvis.methods.maximize import MAXIMIZE, Strongest
from lightning_cnnvis.methods.method import Parts
from lightning_cnnvis.methods.own_statistics import OwnStatistics


class ActivationMaximization(MethodCallback, method=MAXIMIZE):
    """Shows what feature maps respond to most: images optimised from noise, the same noise at every epoch.

    Two epochs differ by the weights only. See `maximize_activation` for the method and its sources. Where a
    `DeconvNetProjection` in the same Trainer follows a feature map, its tile says how many times the strongest
    activation on real images was reached.

    Pictures: ``activation_maximization/<layer>``, a labelled grid; ``activation_maximization_evolution/<layer>``, a row
    a feature map, a column an epoch; ``activation_maximization_transparency/<layer>``, if asked for, what the steps
    pulled at.

    Args:
        layers: Dotted names of the modules whose feature maps, or units, are shown; a low, a middle and a high
            rectified convolution if None.
        channels: Numbers of the feature maps to show of each layer, from 0; the same seeded choice as that of
            `DeconvNetProjection` if None.
        num_channels: Number of feature maps to choose; every one if None.
        preset: Name of a recipe, or a `Recipe`; see `ClassVisualization`.
        steps: Number of optimisation steps; the preset's if None.
        statistics: Colours and spectrum of your own images; see `ClassVisualization`.
        transparency: Whether a second picture shows only what the steps pulled at; see `Visualizations`.
        **schedule: What every visualisation takes: ``epochs``, ``every_n_epochs``, ``seed``, ``input_spec``,
            ``on_error`` and more; see `VisualizationCallback`.

    Raises:
        MisconfigurationException: If an argument is out of range; before training starts, if there is no such layer or
            feature map.

    Examples:
        >>> callback = ActivationMaximization(layers=["relu4"], num_channels=8, epochs=[1, 10])
    """

    def __init__(
        self,
        *,
        layers: Sequence[str] | None = None,
        channels: Sequence[int] | None = None,
        num_channels: int | None = 16,
        preset: str | Recipe = "fourier",
        steps: int | None = None,
        statistics: OwnStatistics | None = None,
        transparency: bool = False,
        **schedule: Any,
    ) -> None:
        shown = {
            "layers": layers,
            "channels": channels,
            "num_channels": num_channels,
            "preset": preset,
            "steps": steps,
            "statistics": statistics,
            "transparency": transparency,
        }
        super().__init__(MAXIMIZE, shown, **schedule)

    def prepare(self, context: VisualizationContext, options: Any, parts: Parts) -> dict[str, Strongest]:
        """Asks the run's projections for the strongest activations on real images."""
        known: dict[str, Strongest] = {}
        with self.guarded(context.epoch):
            callbacks: list[pl.Callback] = context.trainer.callbacks  # type: ignore[attr-defined]
            for callback in callbacks:
                if isinstance(callback, DeconvNetProjection):
                    known |= callback.strongest(context)
        # an epoch that is not the one shown is named
        return {
            layer: found._replace(epoch=None) if found.epoch == context.epoch else found
            for layer, found in known.items()
        }
