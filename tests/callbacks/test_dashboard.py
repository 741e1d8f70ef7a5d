"""The dashboard of a default run can be taken in: how many tags it has, and under which names."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import resnet18

from lightning_cnnvis import InputSpec, visualizations

SPEC = InputSpec(size=(64, 64), class_names=tuple(f"class {n}" for n in range(10)))


class ResNet(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = resnet18(num_classes=10)

    def training_step(self, batch, _):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch, _):
        self.log("val/acc", (self.net(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def test_a_default_run_of_a_resnet(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    pl.seed_everything(0)
    data = DataLoader(TensorDataset(torch.randn(20, 3, 64, 64), torch.arange(20) % 10), 10)
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", callbacks=visualizations(input_spec=SPEC, epochs=[1]), log_every_n_steps=1,
        logger=pl.loggers.TensorBoardLogger(tmp_path), enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(ResNet(), data, data)
    tags = events.EventAccumulator(trainer.log_dir).Reload().Tags()
    assert {tag.split("/")[0] for tag in tags["images"]} == {"cnnvis"}
    assert 10 < len(tags["images"]) <= 40
    scalars = [tag for tag in tags["scalars"] if tag.startswith("cnnvis/")]
    assert {"cnnvis/class_probability", "cnnvis/inversion_error", "cnnvis/projection_similarity"} <= set(scalars)
    assert len(scalars) <= 20
