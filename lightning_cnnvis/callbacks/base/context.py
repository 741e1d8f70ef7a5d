"""Context that a visualisation works in."""

from __future__ import annotations

from dataclasses import dataclass

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.sinks import Sinks


@dataclass(frozen=True, eq=False)
class VisualizationContext:
    """The network of a run, the format of its input, and the sinks for its pictures.

    Attributes:
        trainer: The trainer.
        pl_module: The LightningModule.
        network: The network to visualise: the LightningModule or a part of it.
        layers: The layers that the user chose, as ``network.named_modules()`` names them; None leaves the choice to
            the callback.
        input_spec: Format of the network's input.
        device: Device of the network.
        epoch: The epoch whose training is complete, counted from 1; the step to log at.
        sinks: Destinations of pictures and scalars.
    """

    trainer: pl.Trainer
    pl_module: pl.LightningModule
    network: nn.Module
    layers: tuple[str, ...] | None
    input_spec: InputSpec
    device: torch.device
    epoch: int
    sinks: Sinks

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the network's weights, which its input must have."""
        floating = (p.dtype for p in self.network.parameters() if p.is_floating_point())
        return next(floating, torch.get_default_dtype())

    def to_network(self, images: Tensor) -> Tensor:
        """Copies images to the network's device, in its dtype.

        Args:
            images: Images, ``(N, C, H, W)``, normalised as the network expects them.

        Returns:
            A detached copy of the same shape, never an inference tensor.
        """
        return images.detach().to(self.device, self.dtype, copy=True)
