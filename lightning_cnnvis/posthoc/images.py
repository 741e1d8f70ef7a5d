"""Images to show a trained network: what every source of them gives, and image files."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from lightning_cnnvis.inputs import InputSpec
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
        reading: How many of them are gone through.
    """

    skipped: dict[Path, str]
    reading: Reading

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

    def numbered(self, spec: InputSpec, start: int = 0) -> Iterator[tuple[int, Tensor]]:
        """Gives the images of `batches` from one of the batches on.

        Args:
            spec: The network's input.
            start: Number of batches to leave out.

        Returns:
            Batches, each with the ``start`` from which to go on after it.
        """

    def identity(self, spec: InputSpec) -> str | None:
        """Tells these images, as the network gets them, from others.

        Args:
            spec: The network's input.

        Returns:
            A digest that is the same as long as the images and their batches are; None where they need not come again
            in the same order.
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

        Returns:
            Batches ``(N, C, H, W)`` of the input's size, normalised.
        """
        return (batch for _, batch in self.numbered(spec))

    def numbered(self, spec: InputSpec, start: int = 0) -> Iterator[tuple[int, Tensor]]:
        """Gives the images that can be read, from one of the batches on.

        Args:
            spec: The network's input.
            start: Number of batches to leave out; their files are not read.

        Yields:
            The number of batches up to this one, with those that have no readable image; and the batch.
        """
        paths = self.reading.chosen(self.paths)[start * self.batch_size :]
        workers, found = self.reading.workers_for(len(paths)), start > 0
        batches = read_batches(paths, spec, self.resize, self.batch_size, workers=workers, skip=self._skip)
        for number, batch in enumerate(batches, start + 1):
            if len(batch):
                found = True
                yield number, batch
        if not found:
            self._refuse()

    def identity(self, spec: InputSpec) -> str:
        """Tells these images from others by names, sizes and times of the files.

        Args:
            spec: The network's input.

        Returns:
            A digest.
        """
        scaling = (spec.size, spec.channels, spec.mean, spec.std, self.resize, self.batch_size)
        digest = blake2b(repr(scaling).encode())
        for path in self.reading.chosen(self.paths):
            file = path.stat()
            digest.update(f"{path.resolve()} {file.st_size} {file.st_mtime_ns}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

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
