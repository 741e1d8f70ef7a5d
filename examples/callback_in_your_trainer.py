"""A callback in your own Trainer: your LightningModule, and pictures of what it learns.

python examples/callback_in_your_trainer.py
tensorboard --logdir lightning_logs --samples_per_plugin images=1000
"""

from __future__ import annotations

import argparse

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
import torchvision
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor

from lightning_cnnvis import ClassVisualization, DeconvNetProjection, FeatureConvergence, PhotoCrops


class Classifier(pl.LightningModule):
    """A plain LightningModule: the callbacks require nothing of it."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.network = torchvision.models.resnet18(num_classes=num_classes)

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        images, labels = batch
        return F.cross_entropy(self.network(images), labels)

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        images, labels = batch
        accuracy = (self.network(images).argmax(1) == labels).float().mean()
        self.log("val_accuracy", accuracy, prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--crops", type=int, default=4400, help="training crops per epoch")
    parser.add_argument("--steps", type=int, help="steps of the class visualisation; default: its own")
    arguments = parser.parse_args()

    pl.seed_everything(0)
    data = PhotoCrops(image_size=arguments.image_size, train_size=arguments.crops, val_size=arguments.crops // 4)
    trainer = pl.Trainer(
        max_epochs=arguments.epochs,
        logger=TensorBoardLogger("."),
        callbacks=[
            # names as Classifier(...).network.named_modules() lists them
            DeconvNetProjection(layers=["relu", "layer1", "layer2", "layer3"], every_n_epochs=1),
            FeatureConvergence(),
            ClassVisualization(classes=["cat", "coins", "galaxies"], steps=arguments.steps, epochs=[1, 5]),
        ],
    )
    trainer.fit(Classifier(data.num_classes), data)
    print(f"Pictures: {trainer.log_dir}/cnnvis")


if __name__ == "__main__":
    main()
