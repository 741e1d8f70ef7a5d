"""The examples run, from the command line, to the pictures that they promise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


def run(folder: Path, script: str, *arguments: str) -> str:
    """What a script prints, started as a user does; without a GPU, on which so small a training would only wait."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(EXAMPLES / script), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
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


@pytest.mark.slow
def test_lightning_cli(tmp_path):
    run(
        tmp_path,
        "lightning_cli.py",
        *("fit", "--config", str(EXAMPLES / "lightning_cli.yaml"), "--trainer.max_epochs=1", "--model.width=4"),
        *("--data.init_args.image_size=32", "--data.init_args.train_size=44", "--data.init_args.val_size=22"),
    )
    pictures = tmp_path / "lightning_logs" / "version_0" / "cnnvis"
    for picture in ("deconvnet_guided/5", "deconvnet_guided_evolution/8", "inversion/layers"):
        assert (pictures / picture / "epoch_0001.png").is_file()
    assert list((tmp_path / "lightning_logs").rglob("*.ckpt"))


@pytest.mark.slow
def test_after_training(tmp_path):
    out = run(tmp_path, "after_training.py", "--quick", "--steps", "2", "--output", "pictures")
    assert "relu5: inversion error" in out
    assert "Epochs 1, 2" in out
    assert "Open pictures/report.html" in out
    for file in ("deconvnet/relu3.png", "inversion/layers.png", "curves.csv", "report.html"):
        assert (tmp_path / "pictures" / file).is_file()
    assert (tmp_path / "pictures" / "deconvnet_evolution" / "relu3" / "epoch_0002.png").is_file()


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = json.loads((EXAMPLES / "explore.ipynb").read_text())["cells"]
    names: dict[str, object] = {"__name__": "__main__"}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
        if "parameters" in cell["metadata"].get("tags", ()):
            names |= {"epochs": 1, "crops": 44, "steps": 2}
    assert (tmp_path / "report.html").is_file()


def test_the_notebook_shows_its_pictures_and_is_small():
    path = EXAMPLES / "explore.ipynb"
    outputs = [output for cell in json.loads(path.read_text())["cells"] for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert path.stat().st_size < 1_000_000
