"""PhotoCrops: reproducible, disjoint, and not to be told by colour."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_cnnvis.data import PhotoCrops
from lightning_cnnvis.data.color import recolor
from lightning_cnnvis.data.photo_crops import Crops, find_photographs, validation_cells
from lightning_cnnvis.inputs import InputSpec


def ready(**options) -> PhotoCrops:
    data = PhotoCrops(**{"batch_size": 22, "train_size": 44, "val_size": 33, "num_workers": 0, **options})
    data.setup("fit")
    return data


def batches(loader) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = zip(*loader, strict=True)
    return torch.cat(images), torch.cat(labels)


def test_what_is_known_before_setup():
    data = PhotoCrops(image_size=32)
    assert data.num_classes == len(data.class_names) == 11
    assert data.input_spec.size == (32, 32)
    assert data.input_spec.class_names == data.class_names
    assert isinstance(data.input_spec, InputSpec)


def test_images_and_labels():
    data = ready(image_size=48)
    for loader, count in ((data.train_dataloader(), 44), (data.val_dataloader(), 33), (data.test_dataloader(), 33)):
        images, labels = batches(loader)
        assert images.shape == (count, 3, 48, 48)
        assert images.dtype == torch.float32
        assert labels.bincount().tolist() == [count // 11] * 11
        pixels = data.input_spec.denormalize(images)
        assert -1e-5 < pixels.min() < 0.1
        assert 0.9 < pixels.max() < 1 + 1e-5


def test_the_same_crops_for_any_number_of_workers():
    for loader in ("train_dataloader", "val_dataloader"):
        alone, shared = (batches(getattr(ready(num_workers=n), loader)()) for n in (0, 2))
        assert torch.equal(alone[0], shared[0])
        assert torch.equal(alone[1], shared[1])


def test_global_generators_are_left_alone():
    data = ready()
    before, numpy_before = torch.get_rng_state(), pickle.dumps(np.random.get_state())  # noqa: NPY002
    data._train.__getitems__(range(11))
    assert torch.equal(torch.get_rng_state(), before)
    assert pickle.dumps(np.random.get_state()) == numpy_before  # noqa: NPY002


def test_training_crops_change_from_epoch_to_epoch_and_come_back():
    loader = ready().train_dataloader()
    first, second = batches(loader)[0], batches(loader)[0]
    assert not torch.equal(first, second)
    loader.sampler.set_epoch(0)  # as Lightning does
    assert torch.equal(batches(loader)[0], first)
    loader.sampler.set_epoch(1)
    assert torch.equal(batches(loader)[0], second)


def test_validation_crops_stay_the_same():
    data = ready()
    assert torch.equal(batches(data.val_dataloader())[0], batches(data.val_dataloader())[0])


def test_seeds_differ():
    assert not torch.equal(batches(ready().val_dataloader())[0], batches(ready(seed=1).val_dataloader())[0])


def test_batches_do_not_change_a_crop():
    images = ready()._val
    together = images.__getitems__([3, 14, 25])
    for index, (image, label) in zip([3, 14, 25], together, strict=True):
        alone, label_alone = images[index]
        torch.testing.assert_close(alone, image)
        assert label_alone == label


def test_no_pixel_is_in_both_splits():
    data = ready()
    for label in range(11):
        width, height = data._train.photographs[label].size
        seen = {"train": torch.zeros(height, width, dtype=torch.bool), "val": torch.zeros(height, width).bool()}
        for crops in (data._train, data._val):
            for index in range(label, 1100, 11):
                top, left, bottom, right = crops.crop(index).box
                assert 0 <= top < bottom <= height
                assert 0 <= left < right <= width
                seen[crops.split][top:bottom, left:right] = True
        assert not (seen["train"] & seen["val"]).any()
        assert seen["train"].float().mean() > 0.3
        assert seen["val"].float().mean() > 0.03


def test_what_validation_sees_is_not_changed_by_training_pixels():
    """Resampling does not look beyond the edge of a crop."""
    rng = np.random.default_rng(0)
    photograph = rng.integers(0, 256, (200, 300, 3), dtype=np.uint8)
    changed = 255 - photograph
    for top, left, bottom, right in validation_cells(300, 200):
        changed[top:bottom, left:right] = photograph[top:bottom, left:right]
    for split, same in (("val", True), ("train", False)):
        before, after = (
            Crops([Image.fromarray(pixels)], split, size=20, image_size=16, seed=0).__getitems__(range(20))
            for pixels in (photograph, changed)
        )
        for (image, _), (other, _) in zip(before, after, strict=True):
            assert torch.equal(image, other) is same


def test_a_uniform_photograph_gives_crops_nonetheless():
    crops = Crops([Image.new("RGB", (100, 100))], "train", size=4, image_size=8, seed=0)
    assert crops[3][0].shape == (3, 8, 8)


def test_colour_alone_does_not_tell_the_class():
    """Nearest mean colour gets about 24 % of 11 classes, where the default network gets 86 % in 11 epochs."""
    data = ready(train_size=1100, val_size=550, image_size=16)
    (train, labels), (val, val_labels) = batches(data.train_dataloader()), batches(data.val_dataloader())
    means = torch.stack([train[labels == label].mean((0, 2, 3)) for label in range(11)])
    found = torch.cdist(val.mean((2, 3)), means).argmin(1)
    assert (found == val_labels).float().mean() < 0.35


def test_recolor_keeps_greys_grey_but_for_the_tint():
    images = torch.rand(4, 1, 5, 5).expand(4, 3, 5, 5) * 0.2 + 0.4
    random = torch.rand(4, 7)
    random[:, 3:] = 0.5  # neither brightness nor tint
    recolored = recolor(images, random)
    assert torch.allclose(recolored, recolored[:, :1].expand_as(recolored), atol=1e-6)
    torch.testing.assert_close(recolored.mean((1, 2, 3)), images.mean((1, 2, 3)))


def test_recolor_changes_nothing_in_the_middle():
    images = torch.rand(2, 3, 5, 5)
    random = torch.full((2, 7), 0.5)
    random[:, 1] = 1 / 1.4
    torch.testing.assert_close(recolor(images, random), images)


@pytest.mark.parametrize(
    "options", [{"image_size": 0}, {"batch_size": 0}, {"train_size": 0}, {"val_size": -1}, {"seed": -1}]
)
def test_bad_numbers(options):
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f"{name}={value}: it must be at least"):
        PhotoCrops(**options)


def test_bad_number_of_workers():
    with pytest.raises(ValueError, match="num_workers=-1"):
        PhotoCrops(num_workers=-1)


def test_without_scikit_image(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'lightning-cnnvis\[examples\]'"):
        PhotoCrops()


def test_with_a_photograph_missing(monkeypatch):
    monkeypatch.setattr("lightning_cnnvis.data.photo_crops.PHOTOGRAPHS", {"lynx": "lynx.png"})
    with pytest.raises(FileNotFoundError, match=r"lacks lynx\.png"):
        find_photographs()
