"""Two processes show what one shows, train as they would without callbacks, and never wait for one that failed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from runs import KINDS, pictures

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


for devices in (1, 2):
    # one after the other in forks: importing torch takes longer than this
    # an odd number: the sampler of one of two processes repeats an image
    images = torch.rand(11, 3, 20, 20, generator=torch.Generator().manual_seed(1))
    data = TensorDataset(images, torch.arange(11) % 3)
    callback = DeconvNetProjection(num_channels=3, k=4, input_spec=InputSpec(size=(20, 20)), on_error="raise")
    trainer = pl.Trainer(
        accelerator="cpu", devices=devices, strategy="ddp_fork", max_epochs=2,
        callbacks=[callback], default_root_dir=f"{sys.argv[1]}/{devices}", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )
    trainer.fit(Classifier(), DataLoader(data, batch_size=2), DataLoader(data, batch_size=2))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_two_processes_draw_the_pictures_of_one(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, script, tmp_path], check=True, env=environment, timeout=300, capture_output=True)
    shown = {devices: pictures(tmp_path / str(devices)) for devices in (1, 2)}
    assert len(shown[1]) == 8
    assert shown[1] == shown[2]


@pytest.fixture(scope="module")
def left_behind(tmp_path_factory):
    """What each rank of three runs left behind: without callbacks, with them, and with them failing on one rank."""
    folder = tmp_path_factory.mktemp("two_processes")
    paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    script = Path(__file__).with_name("two_processes.py")
    subprocess.run([sys.executable, script, folder], check=True, env=environment, timeout=300, capture_output=True)
    return folder


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize("run", ["with", "failing"])
def test_each_rank_trains_as_without_callbacks(left_behind, run):
    for rank in (0, 1):
        expected = torch.load(left_behind / "without" / f"rank{rank}.pt")
        state = torch.load(left_behind / run / f"rank{rank}.pt")
        assert state.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.equal(state[name], value), name
    kinds = {path.split("/")[1] for path in pictures(left_behind / run)}
    # what neither harvests nor optimises does not fail
    assert kinds == (
        KINDS if run == "with" else {"mean_image", "occlusion", "correspondence", "invariance", "diagnosis"}
    )
