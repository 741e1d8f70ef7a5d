"""The context of a visualisation: the network, and the run that it is part of."""

from __future__ import annotations

from dataclasses import dataclass

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.inputs.feeding import fed
from lightning_cnnvis.methods.subject import Images, Subject
from lightning_cnnvis.sinks import Sinks


@dataclass(frozen=True, eq=False, kw_only=True)
class VisualizationContext(Subject):
    """The context of a visualisation: the subject of a method, and the run that it is part of.

    Attributes:
        trainer: The trainer.
        pl_module: The LightningModule.
        trained: The network that is trained, which is a part of the LightningModule, or the whole. `network` is a copy
            of it to work on, which shares its weights; see `lightning_cnnvis.working_copy`.
        layers: The layers that the user chose, as ``network.named_modules()`` names them; None leaves the choice to the
            callback.
        device: The network's device.
        epoch: The epoch whose training is done, counted from 1; the step to log at.
        sinks: Destinations of pictures, tables and scalars.
        run_images: The images of the run.
        batch_spec: The format of the images in the run's batches, where that is not what the network is fed.
    """

    trainer: pl.Trainer
    pl_module: pl.LightningModule
    trained: nn.Module
    layers: tuple[str, ...] | None
    device: torch.device
    epoch: int
    sinks: Sinks
    run_images: Images
    batch_spec: InputSpec | None = None

    @property
    def has_images(self) -> bool:
        """Whether there are images to show the network: a run has some."""
        return True

    @property
    def images(self) -> Images:
        """The images of the run: those of the validation, or of the training if there is none."""
        return self.run_images

    def to_network(self, images: Tensor) -> Tensor:
        """Copies images to the network's device, in its dtype.

        Args:
            images: Images, ``(N, C, H, W)``, normalised as the network expects them.

        Returns:
            A detached copy of the same shape, never an inference tensor.
        """
        return images.detach().to(self.device, self.dtype, copy=True)

    def feed(self, images: Tensor) -> Tensor:
        """Makes the network's input of images of a batch, as the training does.

        Args:
            images: Images ``(N, C, H, W)``, as they come in the batches.

        Returns:
            The input, a copy on the network's device, in its dtype.
        """
        return self.to_network(fed(images, self.batch_spec or self.input_spec, self.input_spec))
