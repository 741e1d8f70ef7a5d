"""Animations on the disk."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_cnnvis.sinks.animations import write_animation


@pytest.fixture
def frames():
    # a bright bar that moves
    return [torch.zeros(3, 31, 48).index_fill_(2, torch.arange(n, n + 9), 1.0) for n in (0, 12, 24, 36)]


def test_gif(tmp_path, frames):
    path = write_animation(tmp_path / "new" / "bar.gif", iter(frames), seconds_per_frame=0.2)
    with Image.open(path) as image:
        assert image.n_frames == 4
        assert image.info["duration"] == 200
        image.seek(3)
        assert (np.asarray(image.convert("L"))[:, 36:45] > 200).all()


def test_in_a_bucket(tmp_path, frames, memory):
    path = write_animation("memory://bucket/bar.gif", frames)
    local = write_animation(tmp_path / "bar.gif", frames)
    assert path == "memory://bucket/bar.gif"
    assert memory["/bucket/bar.gif"].getvalue() == local.read_bytes()


def test_mp4(tmp_path, frames):
    iio = pytest.importorskip("imageio.v3")
    path = write_animation(tmp_path / "bar.mp4", frames, seconds_per_frame=0.2)
    shown = iio.imread(path, plugin="FFMPEG")
    assert shown.shape[:3] == (4, 32, 48)
    bright = shown.mean((1, 3))
    assert [int(row.argmax()) // 12 for row in bright] == [0, 1, 2, 3]
    assert iio.immeta(path, plugin="FFMPEG")["fps"] == pytest.approx(5)


def test_bad_input(tmp_path, frames, monkeypatch):
    with pytest.raises(ValueError, match=r"'bar\.avi' is neither"):
        write_animation(tmp_path / "bar.avi", frames)
    with pytest.raises(ValueError, match="at least one frame"):
        write_animation(tmp_path / "bar.gif", [])
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    monkeypatch.setattr("lightning_cnnvis.sinks.animations.module_available", lambda name: False)
    with pytest.raises(ModuleNotFoundError, match=r"lightning-cnnvis\[video\]"):
        write_animation(tmp_path / "bar.mp4", frames)
    assert list(tmp_path.iterdir()) == []
