"""ImageFolder: layouts, the held-out part, and what is wrong with a folder."""

from __future__ import annotations

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
