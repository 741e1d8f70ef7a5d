"""What the layers still know of an image, while the network trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor

from lightning_cnnvis import figures
from lightning_cnnvis.callbacks.base import VisualizationContext
from lightning_cnnvis.callbacks.base.distributed import gather_results, own_share
from lightning_cnnvis.callbacks.base.failure import naming_layer
from lightning_cnnvis.callbacks.base.fixed_images import ProbeCallback, read_photograph
from lightning_cnnvis.evolution.accuracy import Measurement, to_csv
from lightning_cnnvis.evolution.strips import PictureColumn
from lightning_cnnvis.figures.accuracy import plot
from lightning_cnnvis.functional.inversion.methods import Method
from lightning_cnnvis.functional.inversion.reconstruction import invert_layers
from lightning_cnnvis.functional.inversion.results import Inversions, on_cpu
from lightning_cnnvis.inputs.photographs import fit_photograph
from lightning_cnnvis.layers import trace_layers

STRIP_SIDE = 96


class FeatureInversion(ProbeCallback):
    """Rebuilds the same images from what each layer computes for them: what is missing, the layer does not know.

    See `invert_layers` for the method and its sources. The noise that the images are rebuilt from is the same at every
    epoch.

    Pictures: ``inversion/layers``, each image and its reconstructions layer by layer (Mahendran & Vedaldi 2016, Fig.
    12); ``inversion/restarts``, several reconstructions of the first image (Fig. 11); ``inversion/evolution``, a row a
    layer, a column an epoch.

    Scalars, means over images and restarts: ``inversion_error/<layer>``, the squared error over the squared norm of the
    code; ``inversion_variance/<layer>``, the variance of a pixel between restarts; ``inversion_label_kept/<layer>``,
    the share of reconstructions that the network takes for the original's class.

    At the end of the training: ``inversion/accuracy``, each layer's error against the validation accuracy over the
    epochs, with the rank correlation, as a table (CSV) and a plot; see `lightning_cnnvis.evolution.accuracy`.

    Args:
        layers: Dotted module names; every rectified convolution if None.
        images_from: Paths of photographs, cut to the network's input size. The first images of the first validation
            batch, or of the first training batch where there is no validation, if None.
        probes: How many images to take from the batch.
        restarts: Reconstructions of each image, from different noise.
        method: ``"fourier"``, ``"mahendran2014"`` or ``"mahendran2016"``.
        steps: Number of optimisation steps; the method's if None.
        monitor: Name under which the LightningModule logs its validation accuracy, in [0, 1].
        **options: What every visualisation takes: ``epochs``, ``every_n_epochs``, ``seed``, ``input_spec``,
            ``on_error`` and more; see `VisualizationCallback`.

    Raises:
        MisconfigurationException: If an argument is out of range or a photograph cannot be read; before training
            starts, if a layer is not there.

    Example:
        >>> callback = FeatureInversion(layers=["relu1", "relu5", "fc8"], epochs=[1, 10])
    """

    name = "inversion"

    def __init__(
        self,
        *,
        layers: Sequence[str] | None = None,
        images_from: Sequence[str | Path] | None = None,
        probes: int = 2,
        restarts: int = 3,
        method: Method = "fourier",
        steps: int | None = None,
        monitor: str = "val_accuracy",
        **options: Any,
    ) -> None:
        for argument, value in (("probes", probes), ("restarts", restarts), ("steps", steps)):
            if value is not None and value < 1:
                raise MisconfigurationException(f"{argument}={value} must be at least 1.")
        super().__init__(None, probes, layers=layers, **options)
        self.images_from = images_from
        self.restarts = restarts
        self.method: Method = method
        self.steps = steps
        self.monitor = monitor
        self._measurements: list[Measurement] = []
        self._photographs = None if images_from is None else [read_photograph(path) for path in images_from]
        self._shown_layers: list[str] = []

    def check(self, context: VisualizationContext) -> None:
        """Fits the photographs to the input, and tries the layers out with a single step."""
        spec = context.input_spec
        if self._photographs is not None:
            fitted = [fit_photograph(photo, spec.size) for photo in self._photographs]
            self._given = self._probes = torch.stack(fitted)
        if context.layers is None:
            _, self._shown_layers = trace_layers(context.network, context.to_network(torch.zeros(1, *spec.shape)))
        else:
            self._shown_layers = list(context.layers)
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.rand(1, *spec.shape, generator=generator)
        self._invert(context, noise, self._shown_layers, restarts=1, steps=1)

    def visualize(self, context: VisualizationContext) -> None:
        """Rebuilds the images, each process from its share of the layers, and draws them."""
        layers, probes = self._shown_layers, self.probes(context)
        share = layers[own_share(len(layers))]
        work = partial(self._invert, context, probes, share, restarts=self.restarts, steps=self.steps)
        parts = [part for part in gather_results(work) if part is not None]
        pictures = torch.cat([part.images for part in parts]).clamp(0, 1)  # (L, R, N, C, H, W)
        errors = torch.cat([part.errors for part in parts])
        self._draw(context, probes, pictures, errors)
        accuracy = context.trainer.callback_metrics.get(self.monitor)
        self._measurements = [known for known in self._measurements if known.epoch < context.epoch]
        for part in parts:
            for n, layer in enumerate(part.layers):
                if accuracy is not None:
                    self._measurements.append(
                        Measurement("run", context.epoch, layer, float(part.errors[n].mean()), float(accuracy))
                    )
                context.sinks.scalar(f"inversion_error/{layer}", float(part.errors[n].mean()), context.epoch)
                if self.restarts > 1:
                    variance = float(part.pixel_variances[n].mean())
                    context.sinks.scalar(f"inversion_variance/{layer}", variance, context.epoch)
                if part.label_kept is not None:
                    kept = float(part.label_kept[n].float().mean())
                    context.sinks.scalar(f"inversion_label_kept/{layer}", kept, context.epoch)

    def _draw(self, context: VisualizationContext, probes: Tensor, pictures: Tensor, errors: Tensor) -> None:
        layers, epoch = self._shown_layers, context.epoch
        drawn = figures.inversion_pictures(
            probes, pictures, errors, layers, self.method, title=lambda of: f"{of} · epoch {epoch}"
        )
        for name, picture in drawn.items():
            context.sinks.picture(f"{self.label}/{name}", picture, epoch)
        small = figures.as_bytes(figures.reduced(pictures[:, 0, 0], STRIP_SIDE))
        self._strip.add(
            PictureColumn(epoch, small, tuple(map(figures.inversion_caption, pictures[:, 0, 0], errors[:, 0, 0])))
        )
        strip = figures.picture_strip(self._strip, layers, "Inversion · evolution", original=probes[0], side=STRIP_SIDE)
        context.sinks.picture(f"{self.label}/evolution", strip, epoch)

    def _invert(
        self, context: VisualizationContext, probes: Tensor, layers: Sequence[str], *, restarts: int, steps: int | None
    ) -> Inversions | None:
        if not layers:
            return None
        images = context.to_network(context.input_spec.normalize(probes))
        with naming_layer(", ".join(layers)):  # which are worked on together
            inversions = invert_layers(
                context.network,
                images,
                layers,
                input_spec=context.input_spec,
                restarts=restarts,
                method=self.method,
                steps=steps,
                seed=self.seed,
            )
        return on_cpu(inversions)

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """Each layer's error beside the validation accuracy at the epochs so far."""
        return tuple(self._measurements)

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
