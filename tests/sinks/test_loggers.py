"""Pictures and scalars of a run arrive in the real loggers, used offline.

The ``test`` extra brings all of them but Aim, which has no wheels for every Python: ``pip install aim`` beside it.
"""

from __future__ import annotations

import io
import json
import zipfile
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from runs import SPEC, fit

from lightning_cnnvis import ClassVisualization
from lightning_cnnvis.sinks import Sinks

pytestmark = pytest.mark.slow
FRAMES = [np.full((4, 6, 3), value, np.uint8) for value in (0, 128, 255)]
TAG = "class_visualization/classes"
HOSTILE = ("../../../evil", "tench, Tinca tinca", 'a\n<script>alert("x")</script>', "", "x" * 300, "猫")


def pixels(source) -> np.ndarray:
    return np.asarray(Image.open(source).convert("RGB"))


def run_with(logger, folder: Path) -> list[np.ndarray]:
    """Trains for two epochs, logs an animation too, and returns the pictures that should have arrived."""
    trainer = fit(folder, ClassVisualization(steps=1, input_spec=SPEC, on_error="raise"), logger=logger)
    sinks = Sinks.of(trainer)
    sinks.animation("zoom", FRAMES, 2)
    Sinks([logger], "memory://bucket").animation("remote", FRAMES, 2)
    for name in HOSTILE:
        sinks.picture(f"deconvnet/{name}", FRAMES[0], 1)
        sinks.scalar(f"class_probability/{name}", 0.5, 1)
    assert folder in sinks.folder.parents
    return [pixels(sinks.folder / TAG / f"epoch_000{epoch}.png") for epoch in (1, 2)]


def same(found, expected) -> bool:
    """Whether the pictures are the same, in whatever order they are stored."""
    return sorted(p.tobytes() for p in found) == sorted(p.tobytes() for p in expected)


def test_weights_and_biases(tmp_path, monkeypatch, memory):
    wandb = pytest.importorskip("wandb")
    from pytorch_lightning.loggers import WandbLogger

    monkeypatch.setenv("WANDB_SILENT", "true")
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    expected = run_with(WandbLogger(project="p", save_dir=tmp_path, offline=True), tmp_path)
    summary = dict(wandb.run.summary)
    wandb.finish()
    media = next((tmp_path / "wandb").glob("offline-run-*")) / "files" / "media"
    assert same([pixels(path) for path in (media / "images").rglob(f"{Path(TAG).name}_*.png")], expected)
    assert {media} == {next(p for p in path.parents if p.name == "media") for path in tmp_path.rglob("evil*")}
    gifs = list((media / "videos").rglob("*.gif"))
    assert [Image.open(gif).n_frames for gif in gifs] == [3, 3]
    assert {"cnnvis/class_probability", "cnnvis/overhead", "cnnvis/seconds/class_visualization"} <= summary.keys()
    (page,) = (path for path in (tmp_path / "WANDB_DATA_DIR").rglob("staging/*") if path.is_file())
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_mlflow(tmp_path, memory):
    pytest.importorskip("mlflow")
    from pytorch_lightning.loggers import MLFlowLogger

    logger = MLFlowLogger("e", tracking_uri=f"sqlite:///{tmp_path}/db", artifact_location=str(tmp_path / "artifacts"))
    expected = run_with(logger, tmp_path)
    stored = tmp_path / "artifacts" / logger.run_id / "artifacts"
    assert same([pixels(path) for path in stored.glob("images/*classes*.png")], expected)
    assert Image.open(next(stored.glob("cnnvis/zoom/*.gif"))).n_frames == 3
    assert Image.open(next(stored.glob("cnnvis/remote/epoch_0002.gif"))).n_frames == 3
    history = logger.experiment.get_metric_history(logger.run_id, "cnnvis/class_probability")
    validated = logger.experiment.get_metric_history(logger.run_id, "val_loss")
    assert [metric.step for metric in history] == [metric.step for metric in validated]
    assert len(history) == 2


def test_comet(tmp_path, memory):
    comet = pytest.importorskip("comet_ml")
    from pytorch_lightning.loggers import CometLogger

    logger = CometLogger(online=False, offline_directory=str(tmp_path), workspace="w", project="p")
    # Lightning 2.6 switches an offline experiment off: this is what it would be
    logger.experiment.end()
    config = comet.ExperimentConfig(offline_directory=str(tmp_path), disabled=False)
    logger._experiment = comet.start(online=False, experiment_config=config, workspace="w", project="p")
    expected = run_with(logger, tmp_path)
    logger.experiment.end()
    with zipfile.ZipFile(next(tmp_path.glob("*.zip"))) as archive:
        messages = [json.loads(line) for line in archive.read("messages.json").decode().splitlines()]
        uploads = [m["payload"] for m in messages if m["type"] == "file_upload"]
        named = [u["file_path"] for u in uploads if (u["additional_params"] or {}).get("figName") == f"cnnvis/{TAG}"]
        assert same([pixels(io.BytesIO(archive.read(name))) for name in named], expected)
        (gif,) = (u["file_path"] for u in uploads if (u["additional_params"] or {}).get("fileName") == "cnnvis/remote")
        assert Image.open(io.BytesIO(archive.read(gif))).n_frames == 3


def test_aim(tmp_path, memory):
    aim = pytest.importorskip("aim", exc_type=ImportError)
    adapter = pytest.importorskip("aim.pytorch_lightning", exc_type=ImportError)
    logger = adapter.AimLogger(repo=str(tmp_path))
    expected = run_with(logger, tmp_path)
    name = logger.experiment.hash
    logger.experiment.close()
    context = import_module("aim.storage.context").Context({})
    images = aim.Run(name, repo=str(tmp_path)).get_image_sequence(f"cnnvis/{TAG}", context)
    steps, (values, *_) = images.data.items_list()
    assert steps == [1, 2]
    assert same([np.asarray(image.to_pil_image().convert("RGB")) for image in values], expected)
