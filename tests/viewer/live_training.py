"""A small training that goes on until it is ended: ``python live_training.py FOLDER``."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.data import DataLoader, TensorDataset

from lightning_cnnvis import DeconvNetProjection, InputSpec, ZFNet


class Classifier(pl.LightningModule):
    """A thin ZFNet."""

    def __init__(self) -> None:
        super().__init__()
        self.net = ZFNet(4, image_size=32, width=0.125)

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: list[torch.Tensor], _: int) -> None:
        self.net(batch[0])

    def on_train_epoch_end(self) -> None:
        time.sleep(1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def main(folder: Path) -> None:
    torch.manual_seed(0)
    data = TensorDataset(torch.rand(32, 3, 32, 32), torch.arange(32) % 4)
    show = DeconvNetProjection(
        layers=["relu1", "relu2"],
        num_channels=4,
        k=2,
        every_n_epochs=1,
        max_overhead=None,
        input_spec=InputSpec(size=(32, 32)),
        on_error="raise",
    )
    trainer = pl.Trainer(
        max_epochs=-1,
        accelerator="cpu",
        logger=TensorBoardLogger(folder, name=None, version="live"),
        callbacks=[show],
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.fit(Classifier(), DataLoader(data, 16, shuffle=True), DataLoader(data, 16))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
