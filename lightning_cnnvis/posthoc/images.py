"""Images to show a trained network: from a data module, a folder, or single files."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytorch_lightning as pl
import torch
from torch import Tensor

from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.inputs.batches import images_of, labels_of
from lightning_cnnvis.inputs.feeding import fed, pictures
from lightning_cnnvis.inputs.photographs import (
    IMAGE_SUFFIXES,
    PhotographError,
    find_photographs,
    fit_photograph,
    read_photograph,
)
from lightning_cnnvis.posthoc.reading import DataError, Reading, read_batches


class Images(Protocol):
    """Images, as often as they are asked for.

    Attributes:
        skipped: The files that could not be read, with the reason.
    """

    skipped: dict[Path, str]

    @property
    def number(self) -> int:
        """Number of images that `batches` gives, at most; 0 if it is unknown."""

    def batches(self, spec: InputSpec) -> Iterator[Tensor]:
        """Gives all images, or as many as are to be gone through.

        Args:
            spec: The network's input.

        Returns:
            Batches ``(N, C, H, W)``, normalised as the network expects them.
        """

    def first(self, count: int, spec: InputSpec) -> Tensor:
        """Takes the first images.

        Args:
            count: Number of images.
            spec: The network's input.

        Returns:
            ``(N, C, H, W)`` in [0, 1], of the network's input size.
        """

    def photograph(self, spec: InputSpec) -> Tensor:
        """Takes the first image.

        Args:
            spec: The network's input.

        Returns:
            ``(C, H, W)`` in [0, 1], at its own size.
        """

    def labelled(self, spec: InputSpec) -> Iterator[tuple[Tensor, Sequence[int | str] | None]]:
        """Gives all images with their classes.

        Args:
            spec: The network's input.

        Returns:
            Batches ``(N, C, H, W)`` in [0, 1], each with the number or name of its images' classes; None where they
            are not known.
        """

    def __len__(self) -> int:
        """Number of batches; 0 if it is unknown."""


@dataclass
class ImageFiles:
    """Image files, scaled and cut to the network's input; those that cannot be read are passed over.

    Args:
        paths: The files, in order.
        resize: Size that the shorter side is brought to before the centre is cut out; None for the input's. See
            `fit_photograph`.
        batch_size: Images in a batch.
        reading: How the files are read, and how many of them.

    Attributes:
        skipped: The files that could not be read, with the reason.
    """

    paths: Sequence[Path]
    resize: int | None = None
    batch_size: int = 32
    skipped: dict[Path, str] = field(default_factory=dict)
    reading: Reading = field(default_factory=Reading)

    @staticmethod
    def find(source: Path | Sequence[Path], resize: int | None = None, reading: Reading | None = None) -> ImageFiles:
        """Finds the images of a folder and the folders in it, or takes single files.

        Linked folders are followed; hidden files and folders are left out.

        Args:
            source: A folder, a file, or files.
            resize: Size that the shorter side is brought to; see `fit_photograph`.
            reading: How the files are read, and how many of them; one after the other, and all, if None.

        Returns:
            The images, those of a folder sorted by their names.

        Raises:
            DataError: If a file or a folder is not there, or a folder has no image in it.
        """
        if isinstance(source, Path) and source.is_dir():
            paths = find_photographs(source)
            if not paths:
                raise DataError(
                    f"The folder {source} has no images in it (files that end in {', '.join(IMAGE_SUFFIXES)}). Give a "
                    "folder of photographs."
                )
            return ImageFiles(paths, resize, reading=reading or Reading())
        paths = [source] if isinstance(source, Path) else list(source)
        for path in paths:
            if not path.is_file():
                raise DataError(f"There is no file or folder {path}. Check the path.")
        return ImageFiles(paths, resize, reading=reading or Reading())

    @property
    def number(self) -> int:
        """Number of images, at most."""
        return self.reading.upto(len(self.paths))

    def batches(self, spec: InputSpec) -> Iterator[Tensor]:
        """Gives the images that can be read.

        Args:
            spec: The network's input.

        Yields:
            Batches ``(N, C, H, W)`` of the input's size, normalised.
        """
        paths = self.reading.chosen(self.paths)
        workers, found = self.reading.workers_for(len(paths)), False
        for batch in read_batches(paths, spec, self.resize, self.batch_size, workers=workers, skip=self._skip):
            found = True
            yield batch
        if not found:
            self._refuse()

    def first(self, count: int, spec: InputSpec) -> Tensor:
        """Takes the first images that can be read.

        Args:
            count: Number of images.
            spec: The network's input.

        Returns:
            ``(N, C, H, W)`` in [0, 1], of the input's size; fewer than ``count`` where there are no more.
        """
        return torch.stack([picture for picture, _ in zip(self._fitted(spec), range(count), strict=False)])

    def photograph(self, spec: InputSpec) -> Tensor:
        """Takes the first image that can be read.

        Args:
            spec: The network's input.

        Returns:
            ``(C, H, W)`` in [0, 1], at its own size.
        """
        return next(picture for _, picture in self._readable(spec.channels))

    def labelled(self, spec: InputSpec) -> Iterator[tuple[Tensor, list[int | str] | None]]:
        """Gives the images that can be read with the names of their folders, if there are several.

        Args:
            spec: The network's input.

        Yields:
            An image ``(1, C, H, W)`` in [0, 1], and the name of its folder.
        """
        several = len({path.parent for path in self.paths}) > 1
        for path, picture in self._readable(spec.channels, spec.size):
            yield fit_photograph(picture, spec.size, self.resize)[None], [path.parent.name] if several else None

    def __len__(self) -> int:
        """Number of batches, at most."""
        return math.ceil(len(self.paths) / self.batch_size)

    def _fitted(self, spec: InputSpec) -> Iterator[Tensor]:
        for _, picture in self._readable(spec.channels, spec.size):
            yield fit_photograph(picture, spec.size, self.resize)

    def _readable(self, channels: int, size: tuple[int, int] | None = None) -> Iterator[tuple[Path, Tensor]]:
        found = False
        for path in self.paths:
            try:
                picture = read_photograph(path, channels, size=size)
            except PhotographError as error:
                self._skip(path, str(error.__cause__))
                continue
            found = True
            yield path, picture
        if not found:
            self._refuse()

    def _refuse(self) -> None:
        (path, reason), *_ = self.skipped.items()
        raise DataError(f"None of the {self.number} image(s) can be read, such as {path} ({reason}). Give photographs.")

    def _skip(self, path: Path, reason: str) -> None:
        if path not in self.skipped:
            self.skipped[path] = reason
            warnings.warn(f"{path} was skipped, because it cannot be read ({reason}).", stacklevel=2)


@dataclass
class Batches:
    """Batches from a loader, a tensor, or whatever else gives images as the network takes them, or as it was trained.

    Args:
        loader: Iterable of batches; see `images_of`.
        batch_spec: Format of the images, where a training makes the network's input of them; None if they are that.
        skipped: Files that could not be read: none.
        reading: How many images to go through.
    """

    loader: Any
    batch_spec: InputSpec | None = None
    skipped: dict[Path, str] = field(default_factory=dict)
    reading: Reading = field(default_factory=Reading)

    @property
    def number(self) -> int:
        """Number of images, at most; 0 if it is unknown."""
        held = self.loader if isinstance(self.loader, list) else None
        try:
            count = sum(len(images_of(batch)) for batch in held) if held else len(self.loader.dataset)
        except (AttributeError, TypeError):
            return 0
        return self.reading.upto(count)

    def batches(self, spec: InputSpec) -> Iterator[Tensor]:
        """Gives the images of the batches.

        Args:
            spec: The network's input.

        Yields:
            Images ``(N, C, H, W)`` for the network.

        Raises:
            ValueError: If there is no image in a batch.
        """
        seen = 0
        for batch in self.loader:
            images = images_of(batch)
            taken = images[: self.reading.upto(seen + len(images)) - seen]
            seen += len(taken)
            yield fed(taken, self.batch_spec or spec, spec)
            if seen == self.reading.max_images:
                return

    def first(self, count: int, spec: InputSpec) -> Tensor:
        """Takes the first images.

        Args:
            count: Number of images.
            spec: The network's input, by which they are denormalised.

        Returns:
            ``(N, C, H, W)`` in [0, 1]; fewer than ``count`` where there are no more.

        Raises:
            DataError: If there are none.
        """
        found: list[Tensor] = []
        for batch in self.loader:
            found.append(images_of(batch)[: count - sum(map(len, found))])
            if sum(map(len, found)) >= count:
                break
        if not found:
            raise DataError("The data gave no image. Check the data module, or give a folder of photographs.")
        return pictures(torch.cat(found).float(), self.batch_spec or spec, spec).clamp(0, 1)

    def photograph(self, spec: InputSpec) -> Tensor:
        """Takes the first image.

        Args:
            spec: The network's input, by which it is denormalised.

        Returns:
            ``(C, H, W)`` in [0, 1].
        """
        return self.first(1, spec)[0]

    def labelled(self, spec: InputSpec) -> Iterator[tuple[Tensor, list[int] | None]]:
        """Gives the images of the batches with their classes.

        Args:
            spec: The network's input.

        Yields:
            Images ``(N, C, H, W)`` in [0, 1], and the numbers of their classes; None if the batch has none.
        """
        for batch in self.loader:
            images = images_of(batch)
            shown = pictures(images.float(), self.batch_spec or spec, spec).clamp(0, 1)
            yield shown, labels_of(batch, len(images))

    def __len__(self) -> int:
        """Number of batches; 0 if it is unknown."""
        try:
            return len(self.loader)
        except TypeError:
            return 0


def of_data_module(
    data: pl.LightningDataModule, batch_spec: InputSpec | None = None, reading: Reading | None = None
) -> Batches:
    """Takes the validation images of a data module, as a training sees them.

    Args:
        data: The data module; it is prepared and set up.
        batch_spec: Format of its images, where the training makes the network's input of them; None if they are that.
        reading: How many images to go through; all if None.

    Returns:
        The images of its first validation loader.
    """
    data.prepare_data()
    data.setup("fit")
    loader = data.val_dataloader()
    if isinstance(loader, Mapping):
        loader = list(loader.values())
    first = loader[0] if isinstance(loader, list | tuple) else loader
    return Batches(first, batch_spec, reading=reading or Reading())
