"""What the layers still know of an image, while the network trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_info

from lightning_cnnvis.callbacks.base.context import VisualizationContext
from lightning_cnnvis.callbacks.base.method import MethodCallback
from lightning_cnnvis.evolution.accuracy import Measurement, find_accuracy, to_csv
from lightning_cnnvis.figures.accuracy import plot
from lightning_cnnvis.functional.optimization.recipes import Recipe
from lightning_cnnvis.methods.invert import INVERT, LayerInversions


class FeatureInversion(MethodCallback, method=INVERT):
    """Rebuilds the same images from what each layer computes for them: what is missing, the layer does not know.

    See `invert_layers` for the method and its sources. The noise that the images are rebuilt from is the same at every
    epoch.

    Pictures: ``inversion/layers``, each image and its reconstructions layer by layer (Mahendran & Vedaldi 2016, Fig.
    12); ``inversion/restarts``, several reconstructions of the first image (Fig. 11); ``inversion/evolution``, a row a
    layer, a column an epoch.

    Scalars, means over images and restarts: ``inversion_error/<layer>``, the squared error over the squared norm of the
    representation; ``inversion_variance/<layer>``, the variance of a pixel between restarts;
    ``inversion_label_kept/<layer>``, the share of reconstructions that the network takes for the original's class;
    with ``others``, ``inversion_same/<layer>``, the share that the layer takes for the original itself.

    At the end of the training: ``inversion/accuracy``, each layer's error against the validation accuracy over the
    epochs, with the rank correlation, as a table (CSV) and a plot; see `lightning_cnnvis.evolution.accuracy`.

    Args:
        layers: Dotted names of the layers, and patterns, such as ``"layer*.1"``, or ``"all"``; at most six rectified
            convolutions, spread over the depth, if None.
        images_from: Paths of photographs, cut to the network's input size. The first images of the first validation
            batch, or of the first training batch where there is no validation, if None.
        probes: Number of images to take from the batch.
        restarts: Number of reconstructions of each image, from different noise.
        method: Name of a method: ``"fourier"``, ``"mahendran2014"``, ``"mahendran2016"`` or one that was registered; or
            a `Recipe`.
        steps: Number of optimisation steps; the method's if None.
        others: Number of further images to take from the batch, whose pairs tell which similarity of features means
            nothing: tiles then say which layers take a reconstruction and its original for the same. 0 leaves it out.
        monitor: Name under which the LightningModule logs its validation accuracy, in [0, 1]. Where there is no such
            metric, the only one whose name has ``val`` and ``acc`` in it is taken, such as ``val/acc``.
        **schedule: What every visualisation takes: ``epochs``, ``every_n_epochs``, ``seed``, ``input_spec``,
            ``on_error`` and more; see `VisualizationCallback`.

    Raises:
        MisconfigurationException: If an argument is out of range or a photograph cannot be read; before training
            starts, if a layer is not there.

    Examples:
        >>> callback = FeatureInversion(layers=["relu1", "relu5", "fc8"], epochs=[1, 10])
    """

    def __init__(
        self,
        *,
        layers: Sequence[str] | None = None,
        images_from: Sequence[str | Path] | None = None,
        probes: int = 2,
        restarts: int = 3,
        method: str | Recipe = "fourier",
        steps: int | None = None,
        others: int = 0,
        monitor: str = "val_accuracy",
        **schedule: Any,
    ) -> None:
        rebuilt = {
            "layers": layers,
            "images": images_from,
            "count": probes,
            "restarts": restarts,
            "method": method,
            "steps": steps,
            "others": others,
        }
        super().__init__(INVERT, rebuilt, **schedule)
        self.monitor = monitor
        self._measurements: list[Measurement] = []

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """Each layer's error beside the validation accuracy at the epochs so far."""
        return tuple(self._measurements)

    def show_part(
        self, context: VisualizationContext, options: Any, part: str, items: Sequence[Any], prepared: Any
    ) -> LayerInversions:
        """Shows the reconstructions, and sets their errors beside the accuracy of the epoch."""
        result: LayerInversions = super().show_part(context, options, part, items, prepared)
        self._measurements = [known for known in self._measurements if known.epoch < context.epoch]
        metrics = {name: float(value) for name, value in context.trainer.callback_metrics.items()}
        name = find_accuracy({name: [value] for name, value in metrics.items()}, self.monitor)
        if name is not None:
            for layer, errors in zip(result.inversions.layers, result.inversions.errors, strict=True):
                error = float(errors.mean())
                self._measurements.append(Measurement("run", context.epoch, layer, error, metrics[name]))
        return result

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Sets the errors beside the accuracy."""
        super().on_train_end(trainer, pl_module)
        if self._measurements:
            epoch = self._measurements[-1].epoch
            with self.guarded(epoch), self._sinks as sinks:
                sinks.table(f"{self.label}/accuracy", to_csv(self._measurements))
                try:
                    picture = plot(self._measurements)
                except ModuleNotFoundError as error:
                    rank_zero_info(f"{type(self).__name__} does not plot the errors against the accuracy. {error}")
                else:
                    sinks.picture(f"{self.label}/accuracy", picture, epoch)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Begins anew."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._measurements = []

    def state_dict(self) -> dict[str, Any]:
        """Adds the measurements."""
        measurements = [asdict(measurement) for measurement in self._measurements]
        return {**super().state_dict(), "measurements": measurements}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up where a checkpoint left off."""
        super().load_state_dict(state_dict)
        self._measurements = [Measurement(**known) for known in state_dict["measurements"]]
