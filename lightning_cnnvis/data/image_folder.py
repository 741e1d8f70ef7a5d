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
from lightning_cnnvis.inputs.photographs import IMAGE_SUFFIXES, find_photographs, open_photograph


class ImageError(ValueError):
    """A file that is not a readable image."""


class ImageFolder(ImageDataModule):
    """Your own images, in one folder for each class.

    The layout is ``root/train/<class>/<image>`` and ``root/val/<class>/<image>``. Without ``root/val``, a seeded
    part of the training images of each class is held out for validation; without ``root/train``, the folders of the
    classes may lie in ``root`` itself. Hidden files and folders, whose names begin with a dot, are left out. Images
    are read as by `lightning_cnnvis.inputs.photographs.read_photograph`: upright, and scaled by their range.

    Args:
        root: Folder with ``train`` and, if there is one, ``val``; or with the folders of the classes.
        image_size: Height and width in pixels to which the images are scaled.
        batch_size: Number of images in a batch.
        val_fraction: Share of each class that is held out where there is no folder ``val``.
        seed: Seed of that choice.
        verify: Whether to read every image once before training, so that a broken one is found at once. This takes
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
        self._train_folder = _train_folder(self.root)
        self._class_names = _class_folders(self._train_folder)
        # where the classes lie in the root itself, one of them may be called val
        has_val = self._train_folder != self.root and (self.root / "val").is_dir()
        self._val_folder = self.root / "val" if has_val else None
        if self._val_folder is not None:
            val_names = _class_folders(self._val_folder)
            if val_names != self._class_names:
                different = ", ".join(sorted(set(val_names) ^ set(self._class_names)))
                raise ValueError(
                    f"The class folders of {self._train_folder} and {self._val_folder} differ: {different}. "
                    "Both must have the same ones."
                )

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the class folders, sorted."""
        return self._class_names

    def build(self) -> tuple[ImageDataset, ImageDataset]:
        """Makes the data sets.

        Returns:
            The training set and the validation set.

        Raises:
            ValueError: If a class has too few images to hold some out.
            ImageError: If a file is not a readable image.
        """
        train = _Photographs(self._train_folder, training_transform(self.image_size))
        if self._val_folder is not None:
            val = _Photographs(self._val_folder, validation_transform(self.image_size))
            self._check(train.samples + val.samples)
            return train, val
        self._check(train.samples)
        val = _Photographs(self._train_folder, validation_transform(self.image_size))
        held_out = self._held_out(train.targets)
        rest = sorted(set(range(len(train))) - set(held_out))
        return Subset(train, rest), Subset(val, held_out)

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
            chosen = torch.randperm(len(indices), generator=generator, device="cpu")[:count].tolist()
            held_out += [indices[position] for position in sorted(chosen)]
        return held_out

    def _check(self, samples: Sequence[tuple[str, int]]) -> None:
        if self.verify:
            with ThreadPoolExecutor() as pool:  # Pillow decodes outside of Python's lock
                list(pool.map(_check_image, (file for file, _ in samples)))


class _Photographs(torchvision.datasets.ImageFolder):  # type: ignore[misc]
    """The images of class folders, without hidden ones."""

    def __init__(self, folder: Path, transform: Transform) -> None:
        super().__init__(str(folder), transform, loader=open_photograph)

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        names = _class_names(Path(directory))
        return names, {name: number for number, name in enumerate(names)}

    @staticmethod
    def make_dataset(directory: str | Path, class_to_idx: dict[str, int], *_: Any, **__: Any) -> list[tuple[str, int]]:
        return [
            (str(file), number)
            for name, number in class_to_idx.items()
            for file in find_photographs(Path(directory, name))
        ]


def _train_folder(root: Path) -> Path:
    """The folder with those of the classes: ``train``, or the root itself where there is neither it nor ``val``."""
    if (root / "train").is_dir() or (root / "val").is_dir() or not root.is_dir() or not _class_names(root):
        return root / "train"
    return root


def _class_names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _class_folders(folder: Path) -> tuple[str, ...]:
    """Names of the class folders, sorted as torchvision sorts them, once it is clear that each has images."""
    layout = f"Expected {folder}/<class name>/<image file>, with one folder for each class."
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder.absolute()}. {layout}")
    names = _class_names(folder)
    if not names:
        raise FileNotFoundError(f"The folder {folder.absolute()} has no class folders in it. {layout}")
    for name in names:
        if not find_photographs(folder / name):
            raise FileNotFoundError(
                f"The class folder {folder.absolute() / name} has no images in it (files that end in "
                f"{', '.join(IMAGE_SUFFIXES)}). Add some, or remove the folder."
            )
    return tuple(names)


def _check_image(file: str) -> None:
    try:
        with Image.open(file) as image:
            image.draft("L", (1, 1))  # JPEG: every byte is read, but decoded at an eighth of the size
            image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"{file} is not a readable image ({error}). Repair or remove it.") from error
