"""CIFAR-10 and Imagenette, on torchvision's data sets."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torchvision

from lightning_cnnvis.data.base import ImageDataModule, ImageDataset
from lightning_cnnvis.data.transforms import training_transform, validation_transform


class CIFAR10(ImageDataModule):
    """CIFAR-10: 60 000 images of 32×32 pixels in ten classes (Krizhevsky 2009).

    Args:
        root: Folder of ``cifar-10-batches-py``, or the one to download it to.
        image_size: Height and width in pixels to which the images are scaled.
        batch_size: Number of images in a batch.
        download: Whether to download the data set (170 MB) if it is not there.
        num_workers: Processes that prepare the batches; see `ImageDataModule`.

    Raises:
        FileNotFoundError: If the data set is not there and ``download`` is False.
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        root: str = "data",
        image_size: int = 32,
        batch_size: int = 64,
        *,
        download: bool = False,
        num_workers: int | None = None,
    ) -> None:
        super().__init__(image_size, batch_size, num_workers)
        self.root = Path(root)
        self.download = download
        _require(self.root / "cifar-10-batches-py", "CIFAR-10", download)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels."""
        return ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

    def prepare_data(self) -> None:
        """Downloads the data set if that was asked for."""
        if self.download:
            torchvision.datasets.CIFAR10(self.root, download=True)

    def build(self) -> tuple[ImageDataset, ImageDataset]:
        """Makes the data sets.

        Returns:
            The training set and the validation set.
        """
        train = torchvision.datasets.CIFAR10(self.root, True, training_transform(self.image_size))
        return train, torchvision.datasets.CIFAR10(self.root, False, validation_transform(self.image_size))


class Imagenette(ImageDataModule):
    """Imagenette: some 13 000 ImageNet photographs of ten classes that are easily told apart (fast.ai 2019).

    Args:
        root: Folder of ``imagenette2-160`` (or as ``size`` says), or the one to download it to.
        image_size: Height and width in pixels to which the images are scaled.
        batch_size: Number of images in a batch.
        size: Edition: ``"160px"`` or ``"320px"`` on the shorter side, or ``"full"``.
        download: Whether to download the data set (100 MB at 160 px) if it is not there.
        num_workers: Processes that prepare the batches; see `ImageDataModule`.

    Raises:
        FileNotFoundError: If the data set is not there and ``download`` is False.
        ValueError: If a number is out of range, or the edition is unknown.
    """

    FOLDERS: ClassVar = {"160px": "imagenette2-160", "320px": "imagenette2-320", "full": "imagenette2"}

    def __init__(
        self,
        root: str = "data",
        image_size: int = 128,
        batch_size: int = 64,
        *,
        size: str = "160px",
        download: bool = False,
        num_workers: int | None = None,
    ) -> None:
        super().__init__(image_size, batch_size, num_workers)
        if size not in self.FOLDERS:
            raise ValueError(f"size={size!r} is not an edition of Imagenette. Use {', '.join(self.FOLDERS)}.")
        self.root = Path(root)
        self.size = size
        self.download = download
        _require(self.root / self.FOLDERS[size], "Imagenette", download)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels."""
        names = ("tench", "English springer", "cassette player", "chain saw", "church")
        return (*names, "French horn", "garbage truck", "gas pump", "golf ball", "parachute")

    def prepare_data(self) -> None:
        """Downloads the data set if that was asked for."""
        if self.download and not (self.root / self.FOLDERS[self.size]).is_dir():
            torchvision.datasets.Imagenette(self.root, size=self.size, download=True)

    def build(self) -> tuple[ImageDataset, ImageDataset]:
        """Makes the data sets.

        Returns:
            The training set and the validation set.
        """
        train, val = (
            torchvision.datasets.Imagenette(self.root, split=split, size=self.size, transform=transform)
            for split, transform in (
                ("train", training_transform(self.image_size)),
                ("val", validation_transform(self.image_size)),
            )
        )
        return train, val


def _require(folder: Path, name: str, download: bool) -> None:
    if not download and not folder.is_dir():
        raise FileNotFoundError(
            f"{name} is not in {folder.parent.absolute()}: there is no folder {folder.name} in it. Set "
            "download to true (--data.download true), or root to the folder that holds it."
        )
