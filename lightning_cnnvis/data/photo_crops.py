"""A labelled image set that needs no download: crops of the photographs that come with scikit-image."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from lightning_cnnvis.data.base import ImageDataModule, ImageDataset
from lightning_cnnvis.data.color import recolor
from lightning_cnnvis.inputs import IMAGENET_MEAN, IMAGENET_STD

PHOTOGRAPHS = {
    "astronaut": "astronaut.png",
    "bricks": "brick.png",
    "cat": "chelsea.png",
    "coffee": "coffee.png",
    "coins": "coins.png",
    "galaxies": "hubble_deep_field.jpg",
    "grass": "grass.png",
    "gravel": "gravel.png",
    "retina": "retina.jpg",
    "rocket": "rocket.jpg",
    "tissue": "ihc.png",
}
"""Class name -> file in ``skimage/data``."""

Box = tuple[int, int, int, int]
"""Top, left, bottom and right edge in pixels; the last two are exclusive."""


def validation_cells(width: int, height: int) -> list[Box]:
    """Chooses the squares of a photograph that are for validation; no training crop touches them.

    Every fifth cell of a grid, a knight's move apart, so that each has cells for training on its four sides.

    Args:
        width: Width of the photograph in pixels.
        height: Height of the photograph in pixels.

    Returns:
        The boxes of the squares, row by row.

    Examples:
        >>> validation_cells(500, 500)[:2]
        [(0, 0, 100, 100), (100, 300, 200, 400)]
    """
    side = min(width, height) // 5
    return [
        (row * side, column * side, (row + 1) * side, (column + 1) * side)
        for row in range(height // side)
        for column in range(width // side)
        if (2 * row + column) % 5 == 0
    ]


class PhotoCrops(ImageDataModule):
    """Crops of eleven photographs, labelled with the photograph that they come from.

    The photographs ship inside the scikit-image wheel; nothing is downloaded, and this package contains no copy
    of them. Each is laid out in squares, five to the shorter side, and every fifth one is for validation.
    A validation crop lies inside such a square and a training crop outside of all of them, so no pixel is seen
    in both.

    A crop's side is 14 to 20 % of the photograph's shorter one. It is scaled to ``image_size`` and mirrored
    half of the time. Its colours are changed, in training and in validation alike: tinted light, hue, saturation
    down to grey, brightness, contrast. A linear classifier on the mean colour is thereby held down, and the
    network has to look at the structure. Near-uniform squares (blue sky, black space) are passed over.

    Every crop follows from ``seed`` and its number only, whatever the number of workers. The training crops
    of each epoch are new ones; the validation crops stay. Classes are balanced.

    =========  ======================  ==========================================================
    class      file                    licence, as scikit-image states it
    =========  ======================  ==========================================================
    astronaut  astronaut.png           NASA; released into the public domain
    bricks     brick.png               CC0 (CC0Textures, Bricks25)
    cat        chelsea.png             CC0 (Stefan van der Walt)
    coffee     coffee.png              CC0 (Rachel Michetti)
    coins      coins.png               Brooklyn Museum; no known copyright restrictions
    galaxies   hubble_deep_field.jpg   NASA; may be freely used in the public domain
    grass      grass.png               CC0 (DeviantArt, linolafett, Grass 01)
    gravel     gravel.png              CC0 (CC0Textures, Gravel04)
    retina     retina.jpg              CC0 (Mikael Häggström)
    rocket     rocket.jpg              SpaceX; released in the public domain
    tissue     ihc.png                 CMMI; no known copyright restrictions
    =========  ======================  ==========================================================

    The other colour photograph in the wheel, motorcycle_left.png (Middlebury stereo 2014), is left out: no
    licence is stated for it.

    Args:
        image_size: Height and width of the crops in pixels.
        batch_size: Number of crops in a batch.
        train_size: Number of training crops in an epoch.
        val_size: Number of validation crops.
        seed: Seed of the crops.
        num_workers: Processes that prepare the batches; see `ImageDataModule`.

    Raises:
        ValueError: If a number is out of range.
        ModuleNotFoundError: If scikit-image is not installed.

    Examples:
        >>> data = PhotoCrops(batch_size=16)
        >>> data.num_classes, data.class_names[:3]
        (11, ('astronaut', 'bricks', 'cat'))
        >>> data.setup("fit")
        >>> images, labels = next(iter(data.val_dataloader()))
        >>> images.shape, labels[:4]
        (torch.Size([16, 3, 64, 64]), tensor([0, 1, 2, 3]))
    """

    def __init__(
        self,
        image_size: int = 64,
        batch_size: int = 64,
        *,
        train_size: int = 4400,
        val_size: int = 1100,
        seed: int = 0,
        num_workers: int | None = None,
    ) -> None:
        super().__init__(image_size, batch_size, num_workers)
        for argument, value in {"train_size": train_size, "val_size": val_size}.items():
            if value < 1:
                raise ValueError(f"{argument}={value}: it must be at least 1.")
        if seed < 0:
            raise ValueError(f"seed={seed}: it must be at least 0.")
        self.train_size = train_size
        self.val_size = val_size
        self.seed = seed
        find_photographs()

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels."""
        return tuple(PHOTOGRAPHS)

    def build(self) -> tuple[ImageDataset, ImageDataset]:
        """Makes the data sets.

        Returns:
            The training set and the validation set.
        """
        folder = find_photographs()
        photographs = [Image.open(folder / file).convert("RGB") for file in PHOTOGRAPHS.values()]
        return (
            Crops(photographs, "train", size=self.train_size, image_size=self.image_size, seed=self.seed),
            Crops(photographs, "val", size=self.val_size, image_size=self.image_size, seed=self.seed),
        )

    def train_sampler(self, dataset: ImageDataset) -> Sampler[int]:
        """Makes the sampler of the training crops: new ones in each epoch.

        Args:
            dataset: The training set.

        Returns:
            The sampler of their numbers.
        """
        return NewEveryEpoch(self.train_size)


class NewEveryEpoch(Sampler[int]):
    """Gives the indices 0 … size - 1 in the first epoch, size … 2·size - 1 in the second, and so on.

    Lightning announces the epoch with `set_epoch`, also when it resumes. Where it wraps the sampler, for
    training on several devices, it does not; the epochs are then counted here.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch.

        Args:
            epoch: The epoch, counted from 0.
        """
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        """The indices of one epoch."""
        start = self.epoch * self.size
        self.epoch += 1
        return iter(range(start, start + self.size))

    def __len__(self) -> int:
        """Number of crops in an epoch."""
        return self.size


@dataclass(frozen=True)
class Crop:
    """Place of a crop, and its changes.

    Attributes:
        label: Number of the photograph.
        box: Its place in the photograph.
        mirrored: Whether left and right are swapped.
        color: Random numbers for `recolor`, each in [0, 1).
    """

    label: int
    box: Box
    mirrored: bool
    color: tuple[float, ...]


class Crops(Dataset[tuple[Tensor, int]]):
    """The crops of one split; every index, however large, gives one.

    Args:
        photographs: RGB images, one for each class.
        split: ``"train"`` or ``"val"``.
        size: Number of crops in an epoch.
        image_size: Height and width of the crops that come out.
        seed: Seed of the crops.
    """

    def __init__(
        self,
        photographs: Sequence[Image.Image],
        split: str,
        *,
        size: int,
        image_size: int,
        seed: int,
    ) -> None:
        self.photographs = photographs
        self.split = split
        self.size = size
        self.image_size = image_size
        self.seed = seed
        self.cells = [validation_cells(*photograph.size) for photograph in photographs]

    def __len__(self) -> int:
        """Number of crops in an epoch."""
        return self.size

    def crop(self, index: int) -> Crop:
        """Draws the crop of an index.

        Args:
            index: Number of the crop.

        Returns:
            The crop; the same for the same index and seed.
        """
        rng = np.random.default_rng((self.seed, self.split == "val", index))
        label = index % len(self.photographs)
        photograph = self.photographs[label]
        for _ in range(100):  # passes over near-uniform squares; where there is nothing else, takes one
            box = self._draw_box(rng, label)
            if _contrast(photograph, box) > 0.05:
                break
        return Crop(label, box, bool(rng.random() < 0.5), tuple(rng.random(7)))

    def _draw_box(self, rng: np.random.Generator, label: int) -> Box:
        cells = self.cells[label]
        largest = cells[0][2] - cells[0][0]
        while True:
            side = round(largest * rng.uniform(0.7, 1.0))
            top, left, bottom, right = 0, 0, *self.photographs[label].size[::-1]
            if self.split == "val":
                top, left, bottom, right = cells[rng.integers(len(cells))]
            top += int(rng.integers(bottom - top - side + 1))
            left += int(rng.integers(right - left - side + 1))
            box = (top, left, top + side, left + side)
            if self.split == "val" or not any(_overlap(box, cell) for cell in cells):
                return box

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """The image ``(3, image_size, image_size)``, normalised, and the label."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, int]]:
        """Several images at once, which is how a DataLoader asks for a batch."""
        crops = [self.crop(index) for index in indices]
        pixels = torch.stack([self._pixels(crop) for crop in crops]).float() / 255
        pixels = recolor(pixels, torch.tensor([crop.color for crop in crops], dtype=torch.float32, device="cpu"))
        mean, std = (pixels.new_tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        return list(zip((pixels - mean) / std, [crop.label for crop in crops], strict=True))

    def _pixels(self, crop: Crop) -> Tensor:
        top, left, bottom, right = crop.box
        # cropped first: resize(box=...) would look beyond the edges of the box
        square = self.photographs[crop.label].crop((left, top, right, bottom))
        image = square.resize((self.image_size,) * 2, Image.Resampling.BILINEAR, reducing_gap=2.0)
        if crop.mirrored:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def find_photographs() -> Path:
    """Finds scikit-image's photographs.

    Returns:
        The folder that they lie in.

    Raises:
        ModuleNotFoundError: If scikit-image is not installed.
        FileNotFoundError: If the installed scikit-image lacks one of the photographs.
    """
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            "PhotoCrops cuts its images from the photographs inside scikit-image, which is not installed: "
            "python -m pip install 'lightning-cnnvis[examples]'"
        )
    folder = Path(spec.origin).parent / "data"
    for file in PHOTOGRAPHS.values():
        if not (folder / file).is_file():
            raise FileNotFoundError(
                f"The installed scikit-image lacks {file} in {folder}: reinstall it with "
                "python -m pip install --force-reinstall 'scikit-image>=0.25'"
            )
    return folder


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _contrast(photograph: Image.Image, box: Box) -> float:
    """Standard deviation of the pixels of a square, coarsely, as a fraction of full scale."""
    top, left, bottom, right = box
    square = photograph.crop((left, top, right, bottom)).resize((16, 16), Image.Resampling.NEAREST)
    return float(np.asarray(square).std((0, 1)).mean()) / 255
