"""LightningCLI with a YAML file that configures the callbacks like everything else.

    python examples/lightning_cli.py fit --config examples/lightning_cli.yaml

The command ``lightning-cnnvis fit`` is a LightningCLI of this kind, for `ImageClassifier`.
"""

from __future__ import annotations

import pytorch_lightning as pl
import torch.nn.functional as F
from pytorch_lightning.cli import LightningCLI
from torch import Tensor, nn

from lightning_cnnvis.data import ImageDataModule


class SmallNet(pl.LightningModule):
    """Three convolutions. The optimiser comes from the YAML file."""

    def __init__(self, num_classes: int = 11, width: int = 32) -> None:
        super().__init__()
        self.network = nn.Sequential(
            *(nn.Conv2d(3, width, 5, 2, 2), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, 2 * width, 3, 2, 1), nn.BatchNorm2d(2 * width), nn.ReLU()),
            *(nn.Conv2d(2 * width, 4 * width, 3, 2, 1), nn.BatchNorm2d(4 * width), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, num_classes)),
        )

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        images, labels = batch
        return F.cross_entropy(self.network(images), labels)

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        images, labels = batch
        self.log("val_accuracy", (self.network(images).argmax(1) == labels).float().mean(), prog_bar=True)


if __name__ == "__main__":
    LightningCLI(SmallNet, ImageDataModule, subclass_mode_data=True, seed_everything_default=0)
