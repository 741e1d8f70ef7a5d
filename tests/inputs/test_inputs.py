"""What the input looks like, said or found out, without disturbing the run."""

import collections
import dataclasses
import random

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import CombinedLoader
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset, random_split
from torchvision.datasets import FakeData
from torchvision.transforms import Compose, Normalize, Resize, ToTensor, v2

from lightning_cnnvis.inputs import IMAGENET_MEAN, IMAGENET_STD, InputSpec
from lightning_cnnvis.inputs.batches import images_of
from lightning_cnnvis.inputs.discovery import find_input_spec

MEAN, STD = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
NORMALIZE = Compose([ToTensor(), Normalize(MEAN, STD)])


class Photos(Dataset):
    """A data set with classes, as torchvision's have."""

    def __init__(self, transform=None, transforms=None, classes=("cat", "dog"), size=(6, 8)):
        self.transform, self.transforms, self.classes, self.size = transform, transforms, classes, size

    def __len__(self):
        return 4

    def __getitem__(self, index):
        random.random(), np.random.rand()  # noqa: NPY002
        image = torch.rand(3, *self.size)
        return (self.transform(image) if self.transform else image), index % 2


# InputSpec.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (0, 8)}, "size=\\(0, 8\\)"),
        ({"size": (8,)}, "size=\\(8,\\)"),
        ({"channels": 0}, "channels=0"),
        ({"mean": (0.5, 0.5)}, "mean=\\(0.5, 0.5\\) has 2 values for 3 channels"),
        ({"std": (1, 0, 1)}, "every standard deviation must be positive"),
    ],
)
def test_refuses_what_makes_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        InputSpec(**options)


def test_lists_of_a_yaml_file_are_taken():
    spec = InputSpec([8, 8], 1, [0.5], [0.25], ["cat"])
    assert spec == InputSpec((8, 8), 1, (0.5,), (0.25,), ("cat",))
    assert hash(spec)
    assert spec.class_name(0) == "cat"
    assert spec.class_name(1) == "1"


def test_every_class_has_a_name_of_its_own():
    spec = InputSpec(class_names=("crane", "", "crane", " ", "cat"))
    assert [spec.class_name(n) for n in range(6)] == ["crane (0)", "1", "crane (2)", "3", "cat", "5"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_normalize_and_back(dtype):
    spec = InputSpec((4, 4), 3, MEAN, STD)
    images = torch.rand(2, 3, 4, 4).to(dtype)
    normalized = spec.normalize(images)
    assert normalized.dtype == dtype
    tolerance = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(spec.denormalize(normalized), images, atol=tolerance, rtol=tolerance)
    if dtype == torch.float32:
        torch.testing.assert_close(normalized, Normalize(MEAN, STD)(images))


def test_refuses_images_with_other_channels():
    with pytest.raises(ValueError, match="this input has 3 channels"):
        InputSpec().normalize(torch.rand(2, 1, 4, 4))


# images_of.

IMAGES = torch.rand(2, 3, 4, 4)
LABELS = torch.tensor([0, 1])
MASKS = torch.zeros(2, 1, 4, 4)
Pair = collections.namedtuple("Pair", ["label", "picture"])
Segmented = collections.namedtuple("Segmented", ["seg", "img"])


@dataclasses.dataclass
class Annotated:
    depth_map: torch.Tensor
    left_image: torch.Tensor


class TensorDictionary:
    """Has keys and items, and is not a mapping."""

    def __init__(self, **tensors):
        self.tensors = tensors

    def keys(self):
        return self.tensors.keys()

    def __getitem__(self, key):
        return self.tensors[key]


@pytest.mark.parametrize(
    "batch",
    [
        IMAGES,
        (IMAGES, LABELS),
        [LABELS, IMAGES],
        {"label": LABELS, "pixel_values": IMAGES},
        {"mask": torch.zeros(2, 1, 4, 4), "image": IMAGES},
        {"mine": IMAGES},
        {"seg": MASKS, "img": IMAGES},
        {"mask": MASKS, "anything": IMAGES},
        {"heatmap": MASKS, "inputRGB": IMAGES},
        {"image_mask": MASKS, "image": IMAGES},
        {"targets": {"image": MASKS}, "batch": {"labels": MASKS, "x": IMAGES}},
        Segmented(MASKS, IMAGES),
        Annotated(MASKS, IMAGES),
        TensorDictionary(label=MASKS, view=IMAGES),
        (LABELS, {"gt": MASKS, "photo": IMAGES}),
        collections.UserDict(images=IMAGES),
        Pair(LABELS, IMAGES),
        ([IMAGES, IMAGES.flip(-1)], LABELS),
        {"labelled": (IMAGES, LABELS), "unlabelled": IMAGES.flip(-1)},
        ("name", None, IMAGES),
    ],
    ids=lambda batch: type(batch).__name__,
)
def test_finds_the_images(batch):
    assert images_of(batch) is IMAGES


def test_uint8_images_count_and_label_maps_do_not():
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    assert images_of([torch.zeros(2, 1, 4, 4, dtype=torch.int64), images]) is images


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((LABELS, LABELS), "a tuple of a tensor of shape \\(2,\\)"),
        ({"text": ["a", "b"]}, "a mapping with 'text'"),
        (None, "a NoneType"),
        (Annotated(LABELS, LABELS), "an? Annotated with 'depth_map': a tensor of shape"),
        ([], "a list of nothing"),
    ],
)
def test_says_what_a_batch_without_images_is(batch, message):
    with pytest.raises(ValueError, match=message):
        images_of(batch)


def second(batch):
    return batch[1]


def test_a_function_or_its_name():
    assert images_of((LABELS, IMAGES), second) is IMAGES
    assert images_of(IMAGES, "torch.clone").equal(IMAGES)


@pytest.mark.parametrize("name", ["torch.absent", "absent.module", "clone", "", "torch.pi", ".x"])
def test_refuses_names_that_are_no_function(name):
    with pytest.raises(ValueError, match="get_images="):
        images_of(IMAGES, name)


def test_refuses_a_function_that_returns_no_images():
    with pytest.raises(ValueError, match="returned a tensor of shape \\(2,\\)"):
        images_of((IMAGES, LABELS), second)


# find_input_spec.


class Wrapper(Dataset):
    """One that a user wrote, and that knows who holds it."""

    def __init__(self, photos):
        self.photos = photos
        photos.holder = self

    def __getitem__(self, index):
        return self.photos[index]


class Recipe:
    """A transform that a user wrote."""

    def __init__(self):
        self.steps = {"size": 8}
        self.last = Compose([Normalize(MEAN, STD)])

    def __call__(self, image):
        return self.last(image)


class OwnTransform(Photos):
    def __init__(self, transform):
        super().__init__()
        self.inverse_transform = Normalize((0, 0, 0), (9, 9, 9))
        self.val_transform = transform


@pytest.mark.parametrize(
    "dataset",
    [
        Wrapper(Photos(Normalize(MEAN, STD))),
        Subset(Wrapper(Photos(Normalize(MEAN, STD))), [0]),
        Photos(Recipe()),
        OwnTransform(Normalize(MEAN, STD)),
        Photos(Normalize(MEAN, STD)),
        Photos(Compose([Resize((6, 8)), Compose([Normalize(MEAN, STD)])])),
        Photos(v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(MEAN), list(STD))])),
        Photos(nn.Sequential(Resize((6, 8)), Normalize(MEAN, STD))),
        Photos(transforms=v2.Normalize(MEAN, STD)),
        Subset(Photos(Normalize(MEAN, STD)), [1, 2]),
        random_split(Photos(Normalize(MEAN, STD)), [3, 1], torch.Generator())[1],
        ConcatDataset([Subset(Photos(Normalize(MEAN, STD)), [1]), Photos()]),
        DataLoader(Photos(Normalize(MEAN, STD)), 2),
        [DataLoader(Photos(Normalize(MEAN, STD)), 2)],
        {"a": DataLoader(Photos(Normalize(MEAN, STD)), 2)},
        CombinedLoader({"a": DataLoader(Photos(Normalize(MEAN, STD)), 2)}),
    ],
    ids=lambda dataset: type(dataset).__name__,
)
@pytest.mark.filterwarnings("error")
def test_reads_the_data_set(dataset):
    spec = find_input_spec(dataset)
    assert spec == InputSpec((6, 8), 3, MEAN, STD, ("cat", "dog"))


def test_reads_torchvisions_wrapper():
    data = FakeData(2, (3, 8, 8), transform=NORMALIZE)
    data.transform = None  # leaves StandardTransform
    assert find_input_spec(data, torch.rand(1, 3, 8, 8)).mean == MEAN


@pytest.mark.filterwarnings("error")
def test_asks_the_data_module():
    class Data(pl.LightningDataModule):
        class_names = ("left", "right")

        def train_dataloader(self):
            return DataLoader(Photos(Normalize(MEAN, STD)))

    assert find_input_spec(Data()) == InputSpec((6, 8), 3, MEAN, STD, ("left", "right"))
    Data.input_spec = InputSpec((5, 5))
    assert find_input_spec(Data()) is Data.input_spec


def test_a_data_module_that_fails_is_not_silent():
    class Data(pl.LightningDataModule):
        def val_dataloader(self):
            raise RuntimeError("no such folder")

    with pytest.raises(RuntimeError, match="no such folder"):
        find_input_spec(Data())


def test_looking_draws_no_random_numbers():
    states = random.getstate(), str(np.random.get_state()), torch.get_rng_state()  # noqa: NPY002
    find_input_spec(DataLoader(Photos(Normalize(MEAN, STD)), shuffle=True))
    assert states[:2] == (random.getstate(), str(np.random.get_state()))  # noqa: NPY002
    assert torch.equal(states[2], torch.get_rng_state())


def test_a_sample_is_enough_and_the_data_set_is_left_alone():
    class Untouchable(Photos):
        def __getitem__(self, index):
            raise AssertionError("looked at")

    spec = find_input_spec(Untouchable(Normalize(MEAN, STD)), torch.rand(4, 3, 10, 12))
    assert spec.shape == (3, 10, 12)


@pytest.mark.parametrize(
    ("sample", "mean", "std", "message"),
    [
        (torch.rand(2, 3, 4, 4), (0.0,) * 3, (1.0,) * 3, "pixels in \\[0, 1\\]"),
        (torch.rand(2, 3, 4, 4) * 255, (0.0,) * 3, (1 / 255,) * 3, "pixels in \\[0, 255\\]"),
        (torch.rand(2, 1, 4, 4) * 2 - 1, (0.5,), (0.5,), "scaled to \\[-1, 1\\]"),
        (torch.randn(2, 3, 20, 20), IMAGENET_MEAN, IMAGENET_STD, "ImageNet"),
        (torch.randn(2, 5, 20, 20), (0.5,) * 5, (0.25,) * 5, "mean 0.5"),
        (torch.randint(0, 255, (2, 3, 4, 4), dtype=torch.uint8), (0.0,) * 3, (1 / 255,) * 3, "\\[0, 255\\]"),
        (torch.full((2, 3, 4, 4), float("nan")), IMAGENET_MEAN, IMAGENET_STD, "nan"),
    ],
)
def test_says_what_it_assumes(sample, mean, std, message):
    with pytest.warns(UserWarning, match=message) as caught:
        spec = find_input_spec(None, sample)
    assert len(caught) == 1
    assert "input_spec=InputSpec(" in str(caught[0].message)
    assert spec == InputSpec(tuple(sample.shape[-2:]), sample.shape[1], mean, std)


def test_two_normalisations_are_not_guessed_at():
    twice = Photos(Compose([Normalize((0.5,), (0.5,)), Normalize(MEAN, STD)]))
    with pytest.warns(UserWarning, match="or several"):
        assert find_input_spec(twice, torch.rand(1, 3, 4, 4)).mean == (0.0,) * 3


def test_statistics_of_other_channels_are_not_used():
    with pytest.warns(UserWarning, match="were taken"):
        spec = find_input_spec(Photos(Normalize(MEAN, STD)), torch.rand(2, 1, 4, 4))
    assert spec.mean == (0.0,)


@pytest.mark.parametrize("source", [None, DataLoader(TensorDataset(LABELS)), [], 3])
def test_unknown_size_is_refused(source):
    with pytest.raises(ValueError, match="size of the images is unknown"):
        find_input_spec(source)


def test_an_iterable_data_set_needs_a_sample():
    class Stream(IterableDataset):
        transform = Normalize(MEAN, STD)

        def __iter__(self):
            raise AssertionError("consumed")

    with pytest.raises(ValueError, match="size of the images is unknown"):
        find_input_spec(DataLoader(Stream()))
    assert find_input_spec(DataLoader(Stream()), IMAGES).mean == MEAN


@pytest.mark.parametrize(
    ("classes", "names"),
    [
        (["cat", "dog"], ("cat", "dog")),
        ([("tench", "Tinca tinca"), ("goldfish",)], ("tench", "goldfish")),
        ([0, 1], ("0", "1")),
        (None, ()),
        (10, ()),
    ],
)
def test_classes(classes, names):
    assert find_input_spec(Photos(Normalize(MEAN, STD), classes=classes)).class_names == names


@pytest.mark.parametrize(
    ("numbers", "names"),
    [({"dog": 1, "cat": 0}, ("cat", "dog")), ({"cat": 1, "dog": 3}, ()), ({}, ())],
)
def test_class_names_by_number(numbers, names):
    photos = Photos(Normalize(MEAN, STD), classes=None)
    photos.class_to_idx = numbers
    assert find_input_spec(photos).class_names == names
