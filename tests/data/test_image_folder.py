"""ImageFolder: layouts, the held-out part, and what is wrong with a folder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_cnnvis.data import ImageError, ImageFolder


def write(folder, name: str, count: int, mode: str = "RGB", suffix: str = "png") -> None:
    (folder / name).mkdir(parents=True)
    for number in range(count):
        color = 20 * number if mode == "L" else (20 * number, 100, 200)
        Image.new(mode, (40, 30), color).save(folder / name / f"{number}.{suffix}")


@pytest.fixture
def root(tmp_path):
    write(tmp_path / "train", "cat", 10, suffix="jpg")
    write(tmp_path / "train", "dog", 6, mode="L")
    return tmp_path


def labels_of(loader) -> list[int]:
    return torch.cat([labels for _, labels in loader]).bincount().tolist()


def test_with_a_validation_folder(root):
    write(root / "val", "cat", 2)
    write(root / "val", "dog", 3)
    data = ImageFolder(str(root), image_size=24, batch_size=4)
    assert data.class_names == ("cat", "dog")
    assert data.num_classes == 2
    assert data.input_spec.size == (24, 24)
    data.setup("fit")
    images, labels = next(iter(data.val_dataloader()))
    assert images.shape == (4, 3, 24, 24)
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert labels_of(data.val_dataloader()) == [2, 3]
    assert labels_of(data.train_dataloader()) == [10, 6]


def test_hold_out_is_seeded_and_disjoint(root):
    def held_out(seed):
        data = ImageFolder(str(root), val_fraction=0.3, seed=seed)
        data.setup("fit")
        assert labels_of(data.val_dataloader()) == [3, 2]
        assert set(data._train.indices).isdisjoint(data._val.indices)
        assert len(data._train) + len(data._val) == 16
        return data._val.indices

    assert held_out(0) == held_out(0)
    assert len({tuple(held_out(seed)) for seed in range(4)}) > 1


def test_held_out_images_are_not_augmented(root):
    data = ImageFolder(str(root))
    data.setup("fit")
    assert torch.equal(data._val[0][0], data._val[0][0])


def test_just_the_folders_of_the_classes(tmp_path):
    write(tmp_path, "cat", 10, suffix="jpg")
    write(tmp_path, "dog", 10)
    write(tmp_path, ".ipynb_checkpoints", 1)
    (tmp_path / "dog" / "._0.png").write_bytes(b"what a Mac leaves behind")
    data = ImageFolder(str(tmp_path), image_size=24)
    assert data.class_names == ("cat", "dog")
    data.setup("fit")
    assert labels_of(data.val_dataloader()) == [1, 1]
    assert labels_of(data.train_dataloader()) == [9, 9]


def test_hidden_and_linked_folders(root, tmp_path):
    (root / "train" / ".cache").mkdir()
    write(root / "train" / "cat", ".ipynb_checkpoints", 3)
    (root / "train" / "dog" / "loop").symlink_to(root / "train" / "dog")
    write(tmp_path, "elsewhere", 8)
    (root / "train" / "owl").symlink_to(tmp_path / "elsewhere")
    data = ImageFolder(str(root), image_size=24)
    assert data.class_names == ("cat", "dog", "owl")
    data.setup("fit")
    assert len(data._train) + len(data._val) == 24


@pytest.mark.parametrize(("dtype", "top", "suffix"), [("uint16", 65535, "png"), ("uint16", 4095, "tif")])
def test_images_of_more_than_eight_bits(tmp_path, dtype, top, suffix):
    ramp = np.linspace(0, top, 32)[None].repeat(32, 0).astype(dtype)
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for number in range(10):
            Image.fromarray(ramp).save(tmp_path / "train" / name / f"{number}.{suffix}")
    data = ImageFolder(str(tmp_path), image_size=32)
    data.setup("fit")
    images = data.input_spec.denormalize(next(iter(data.val_dataloader()))[0])
    torch.testing.assert_close(images[0, :, 0], torch.linspace(0, 1, 32).expand(3, 32), atol=0.01, rtol=0)


def test_a_photograph_that_lies_on_its_side(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / "train", name, 10)
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned by a quarter, clockwise
        sideways = Image.new("RGB", (40, 30))
        sideways.paste((255, 255, 255), (0, 0, 10, 30))
        sideways.save(tmp_path / "train" / name / "0.png", exif=exif)
    data = ImageFolder(str(tmp_path))
    data.setup("fit")
    assert data._train.dataset.loader(tmp_path / "train" / "a" / "0.png").getpixel((15, 5)) == (255, 255, 255)


def test_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*nowhere.train.*Expected .*<class name>/<image"):
        ImageFolder(str(tmp_path / "nowhere"))


def test_no_class_folders(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(FileNotFoundError, match="no class folders"):
        ImageFolder(str(tmp_path))


def test_empty_class_folder(root):
    (root / "train" / "eel").mkdir()
    (root / "train" / "eel" / "notes.txt").write_text("none yet")
    with pytest.raises(FileNotFoundError, match=r"class folder .*eel has no images in it \(files that end in \.jpg"):
        ImageFolder(str(root))


def test_other_classes_in_validation(root):
    write(root / "val", "cat", 1)
    write(root / "val", "cow", 1)
    with pytest.raises(ValueError, match="differ: cow, dog"):
        ImageFolder(str(root))


def test_truncated_image(root):
    file = root / "train" / "cat" / "3.jpg"
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(ImageError, match=r"3\.jpg is not a readable image .* Repair or remove it"):
        ImageFolder(str(root)).setup("fit")


def test_an_image_of_too_many_pixels(root, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # of 1200
    with pytest.raises(ImageError, match=r"0\.jpg is not a readable image .*1200 pixels"):
        ImageFolder(str(root)).setup("fit")


def test_file_that_is_no_image(root):
    (root / "train" / "dog" / "x.png").write_text("not an image")
    with pytest.raises(ImageError, match=r"x\.png is not a readable image"):
        ImageFolder(str(root)).setup("fit")
    ImageFolder(str(root), verify=False).setup("fit")


def test_too_few_images_to_hold_out(root):
    write(root / "train", "owl", 2)
    with pytest.raises(ValueError, match=r"Class 'owl' has 2 image\(s\).*Add images, or a folder"):
        ImageFolder(str(root)).setup("fit")


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_bad_fraction(root, fraction):
    with pytest.raises(ValueError, match="val_fraction="):
        ImageFolder(str(root), val_fraction=fraction)
