"""Two processes show what one shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_cnnvis import DeconvNetProjection, InputSpec


class Classifier(pl.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Sequential(
            nn.Conv2d(3, 5, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(5, 6, 3), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3),
        )

    def training_step(self, batch, _):
        return F.cross_entropy(self.model(batch[0]), batch[1])

    def validation_step(self, batch, _):
        self.model(batch[0])

    def configure_optimizers(self):
        # the weights stay as they are, so that one and two processes have the same
        return torch.optim.SGD(self.parameters(), lr=0.0)


if __name__ == "__main__":
    devices, folder = int(sys.argv[1]), sys.argv[2]
    # an odd number: the sampler of one of two processes repeats an image
    images = torch.rand(11, 3, 20, 20, generator=torch.Generator().manual_seed(1))
    data = TensorDataset(images, torch.arange(11) % 3)
    callback = DeconvNetProjection(features=3, k=4, input_spec=InputSpec(size=(20, 20)), on_error="raise")
    trainer = pl.Trainer(
        accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto", max_epochs=2,
        callbacks=[callback], default_root_dir=folder, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )
    trainer.fit(Classifier(), DataLoader(data, batch_size=2), DataLoader(data, batch_size=2))
"""


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


def test_two_processes_draw_the_pictures_of_one(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    shown = {}
    for devices in (1, 2):
        folder = tmp_path / str(devices)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(
            [sys.executable, script, str(devices), folder],
            check=True,
            env=environment,
            timeout=300,
            capture_output=True,
        )
        shown[devices] = pictures(folder)
    assert len(shown[1]) == 8
    assert shown[1] == shown[2]
