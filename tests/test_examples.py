"""The examples run, from the command line, to the pictures that they promise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


def run(folder: Path, script: str, *arguments: str) -> str:
    """What a script prints, started as a user does; without a GPU, on which so small a training would only wait."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(EXAMPLES / script), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_callback_in_your_trainer(tmp_path):
    out = run(
        tmp_path,
        "callback_in_your_trainer.py",
        *("--epochs", "1", "--image-size", "32", "--crops", "44", "--steps", "2"),
    )
    pictures = tmp_path / "lightning_logs" / "version_0" / "cnnvis"
    assert "Pictures:" in out
    for layer in ("relu", "layer1", "layer2", "layer3"):
        assert (pictures / "deconvnet" / layer / "epoch_0001.png").is_file()
    assert (pictures / "class_visualization" / "classes" / "epoch_0001.png").is_file()


def test_lightning_cli(tmp_path):
    run(
        tmp_path,
        "lightning_cli.py",
        *("fit", "--config", str(EXAMPLES / "lightning_cli.yaml"), "--trainer.max_epochs=1", "--model.width=4"),
        *("--data.init_args.image_size=32", "--data.init_args.train_size=44", "--data.init_args.val_size=22"),
    )
    pictures = tmp_path / "lightning_logs" / "version_0" / "cnnvis"
    for picture in ("deconvnet/5", "deconvnet_evolution/8", "inversion/layers"):
        assert (pictures / picture / "epoch_0001.png").is_file()
    assert list((tmp_path / "lightning_logs").rglob("*.ckpt"))
