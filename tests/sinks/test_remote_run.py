"""A run that logs to a bucket leaves there what a local run leaves on the disk."""

import pytest
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from runs import every_callback, fit

from lightning_cnnvis import FeatureInversion, VisualizationCheckpoint

BUCKET = "memory://bucket/runs"


class RemoteLogger(Logger):
    """A logger with a folder of its own."""

    name, version = "project", "x7"
    log_dir = f"{BUCKET}/version_0"

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, params, *args, **kwargs):
        pass


@pytest.mark.filterwarnings("error:.*failed at epoch")
def test_a_bucket_holds_what_a_folder_would(tmp_path, memory, caplog):
    def callbacks():
        every = [*every_callback(), VisualizationCheckpoint()]
        next(c for c in every if isinstance(c, FeatureInversion)).monitor = "val_loss"  # there is a table, too
        return every

    with caplog.at_level("INFO"):
        fit(BUCKET, *callbacks(), logger=RemoteLogger())
    assert f"; pictures in {BUCKET}/version_0/cnnvis" in caplog.text
    fit(tmp_path, *callbacks())
    local = {
        path.relative_to(tmp_path).as_posix(): path.read_bytes()
        for path in (tmp_path / "cnnvis").rglob("*")
        if path.is_file()
    }
    remote = {name.removeprefix("/bucket/runs/version_0/"): file.getvalue() for name, file in memory.items()}
    assert remote == local
    assert {name.rpartition(".")[2] for name in local} == {"png", "gif", "csv", "json", "md", "ckpt"}
    assert {"cnnvis/weights/epoch_0002.ckpt", "cnnvis/deconvnet_evolution/2/epoch_0002.png"} <= set(local)


def test_tensorboard_in_a_bucket(tmp_path, memory):
    logger = TensorBoardLogger(BUCKET, name=None, version="x")
    fit(tmp_path, *every_callback(), logger=logger)
    assert "/bucket/runs/x/cnnvis/deepdream_zoom/5/epoch_0002.gif" in memory
    assert any("events.out.tfevents" in name for name in memory)
    assert not list(tmp_path.iterdir())
