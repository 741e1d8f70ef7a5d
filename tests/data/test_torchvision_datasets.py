"""CIFAR10 and Imagenette, on files made here in the layout of the originals."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from lightning_cnnvis.data import CIFAR10, Imagenette


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]:
        entry = {"data": rng.integers(0, 256, (4, 3072), dtype=np.uint8), "labels": [0, 3, 6, 9]}
        (folder / name).write_bytes(pickle.dumps(entry))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list(CIFAR10(download=True).class_names)}))
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda *args: True)
    return tmp_path


def test_cifar10(cifar):
    data = CIFAR10(str(cifar), batch_size=5)
    assert data.num_classes == 10
    data.setup("fit")
    assert list(data._val.classes) == list(data.class_names)
    images, labels = next(iter(data.train_dataloader()))
    assert images.shape == (5, 3, 32, 32)
    assert set(labels.tolist()) <= {0, 3, 6, 9}
    assert sum(len(labels) for _, labels in data.train_dataloader()) == 20
    images, labels = next(iter(data.val_dataloader()))
    assert labels.tolist() == [0, 3, 6, 9]
    # the validation image is the file's, normalised
    pixels = data.input_spec.denormalize(images)[0] * 255
    torch.testing.assert_close(pixels, torch.from_numpy(data._val.data[0]).permute(2, 0, 1).float(), atol=1e-3, rtol=0)


def test_imagenette(tmp_path):
    for split in ("train", "val"):
        for wnid in torchvision.datasets.imagenette.Imagenette._WNID_TO_CLASS:
            folder = tmp_path / "imagenette2-160" / split / wnid
            folder.mkdir(parents=True)
            Image.new("RGB", (200, 160)).save(folder / "0.JPEG")
    data = Imagenette(str(tmp_path), image_size=64, batch_size=4)
    data.setup("fit")
    assert data.num_classes == 10
    assert tuple(names[0] for names in data._val.classes) == data.class_names
    images, labels = next(iter(data.val_dataloader()))
    assert images.shape == (4, 3, 64, 64)
    assert labels.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("data", "folder"), [(CIFAR10, "cifar-10-batches-py"), (Imagenette, "imagenette2-160")])
def test_missing(data, folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"no folder {folder} in it\. Set download to true"):
        data(str(tmp_path))


def test_unknown_edition():
    with pytest.raises(ValueError, match=r"size='64px' is not an edition of Imagenette\. Use 160px, 320px, full"):
        Imagenette(size="64px")
