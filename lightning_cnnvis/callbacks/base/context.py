"""What a visualisation works on."""

from __future__ import annotations

from dataclasses import dataclass

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.sinks import Sinks


@dataclass(frozen=True, eq=False)
class VisualizationContext:
    """What a visualisation works on.

    Attributes:
        trainer: The trainer.
        pl_module: The LightningModule.
        network: The network that is visualised: the LightningModule or a part of it.
        layers: The layers the user asked for, as ``network.named_modules()`` calls them; None if the choice
            is left to the callback.
        input_spec: What the network's input looks like.
        device: Where the network is.
        epoch: The epoch whose training is done, counted from 1; the step to log at.
        sinks: Where pictures and scalars go.
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
        """The floating-point type of the network's weights, which its input must have."""
        floating = (p.dtype for p in self.network.parameters() if p.is_floating_point())
        return next(floating, torch.get_default_dtype())

    def to_network(self, images: Tensor) -> Tensor:
        """A detached copy of the images on the network's device, in its dtype; never an inference tensor."""
        return images.detach().to(self.device, self.dtype, copy=True)
