"""A folder of the user's own images."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import torchvision
from PIL import Image
from torch.utils.data import Subset

from lightning_cnnvis.data.base import ImageDataModule, ImageDataset
from lightning_cnnvis.data.transforms import Transform, training_transform, validation_transform


class ImageError(ValueError):
    """A file that is not a readable image."""


class ImageFolder(ImageDataModule):
    """Your own images, in one folder for each class.

    The layout is ``root/train/<class>/<image>`` and ``root/val/<class>/<image>``. Without ``root/val``, a seeded
    part of the training images of each class is held out for validation.

    Args:
        root: Folder that holds ``train`` and, if there is one, ``val``.
        image_size: Height and width to which the images are scaled.
        batch_size: Images in a batch.
        val_fraction: Part of each class that is held out where there is no folder ``val``.
        seed: Seed of that choice.
        verify: Whether to read every image once before training, so that a broken one is found at once. Takes
            about a second for each 5000 small photographs.
        num_workers: Processes that prepare the batches; see `ImageDataModule`.

    Raises:
        FileNotFoundError: If a folder is missing, or has no images. The message gives the expected layout.
        ValueError: If a number is out of range, or the classes of ``train`` and ``val`` differ.
        ImageError: In `setup`, if a file is not a readable image; the message names it.
    """

    def __init__(
        self,
        root: str,
        image_size: int = 64,
        batch_size: int = 64,
        *,
        val_fraction: float = 0.1,
        seed: int = 0,
        verify: bool = True,
        num_workers: int | None = None,
    ) -> None:
        super().__init__(image_size, batch_size, num_workers)
        if not 0 < val_fraction < 1:
            raise ValueError(f"val_fraction={val_fraction}: it must be between 0 and 1.")
        self.root = Path(root)
        self.val_fraction = val_fraction
        self.seed = seed
        self.verify = verify
        self._class_names = _class_folders(self.root / "train")
        if (self.root / "val").is_dir():
            val_names = _class_folders(self.root / "val")
            if val_names != self._class_names:
                different = ", ".join(sorted(set(val_names) ^ set(self._class_names)))
                raise ValueError(
                    f"The class folders of {self.root / 'train'} and {self.root / 'val'} differ: {different}. "
                    "Both must have the same ones."
                )

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the class folders, sorted."""
        return self._class_names

    def build(self) -> tuple[ImageDataset, ImageDataset]:
        """Makes the training set and the validation set."""
        train = self._images("train", training_transform(self.image_size))
        if (self.root / "val").is_dir():
            val = self._images("val", validation_transform(self.image_size))
            self._check(train.samples + val.samples)
            return train, val
        self._check(train.samples)
        val = self._images("train", validation_transform(self.image_size))
        held_out = self._held_out(train.targets)
        rest = sorted(set(range(len(train))) - set(held_out))
        return Subset(train, rest), Subset(val, held_out)

    def _images(self, split: str, transform: Transform) -> Any:
        return torchvision.datasets.ImageFolder(str(self.root / split), transform)

    def _held_out(self, labels: Sequence[int]) -> list[int]:
        generator = torch.Generator().manual_seed(self.seed)
        held_out: list[int] = []
        for label in range(self.num_classes):
            indices = [index for index, other in enumerate(labels) if other == label]
            count = round(self.val_fraction * len(indices))
            if not 0 < count < len(indices):
                raise ValueError(
                    f"Class {self.class_names[label]!r} has {len(indices)} image(s): val_fraction="
                    f"{self.val_fraction} leaves none for training or for validation. Add images, or a folder "
                    f"{self.root / 'val'}."
                )
            chosen = torch.randperm(len(indices), generator=generator)[:count].tolist()
            held_out += [indices[position] for position in sorted(chosen)]
        return held_out

    def _check(self, samples: Sequence[tuple[str, int]]) -> None:
        if self.verify:
            with ThreadPoolExecutor() as pool:  # Pillow decodes outside of Python's lock
                list(pool.map(_check_image, (file for file, _ in samples)))


def _class_folders(folder: Path) -> tuple[str, ...]:
    """Names of the class folders, sorted as torchvision sorts them."""
    layout = f"Expected {folder}/<class name>/<image file>, with one folder for each class."
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder.absolute()}. {layout}")
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    if not names:
        raise FileNotFoundError(f"The folder {folder.absolute()} has no class folders in it. {layout}")
    extensions = torchvision.datasets.folder.IMG_EXTENSIONS
    for name in names:
        if not any(file.suffix.lower() in extensions for file in (folder / name).rglob("*")):
            raise FileNotFoundError(
                f"The class folder {folder.absolute() / name} has no images in it (files that end in "
                f"{', '.join(extensions)}). Add some, or remove the folder."
            )
    return tuple(names)


def _check_image(file: str) -> None:
    try:
        with Image.open(file) as image:
            image.draft("L", (1, 1))  # JPEG: every byte is read, but decoded at an eighth of the size
            image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"{file} is not a readable image ({error}). Repair or remove it.") from error
