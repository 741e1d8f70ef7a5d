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
import torchvision
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.inputs.batches import images_of

IMAGE_SUFFIXES = torchvision.datasets.folder.IMG_EXTENSIONS


class DataError(ValueError):
    """Images that are not there or cannot be read. The message says which, and what to do."""


class Images(Protocol):
    """Images, as often as they are asked for.

    Attributes:
        skipped: The files that could not be read, with the reason.
    """

    skipped: dict[Path, str]

    def batches(self, spec: InputSpec) -> Iterator[Tensor]:
        """Batches ``(N, C, H, W)``, normalised as the network expects them."""

    def first(self, count: int, spec: InputSpec) -> Tensor:
        """The first images, ``(N, C, H, W)`` in [0, 1], of the network's input size."""

    def photograph(self, spec: InputSpec) -> Tensor:
        """The first image ``(C, H, W)`` in [0, 1], at its own size."""

    def __len__(self) -> int:
        """How many batches there are, 0 if that is not known."""


@dataclass
class ImageFiles:
    """Image files, scaled and cut to the network's input; those that cannot be read are passed over.

    Args:
        paths: The files, in order.
        resize: Size that the shorter side is brought to before the centre is cut out; None: the input's.
        batch_size: Images in a batch.

    Attributes:
        skipped: The files that could not be read, with the reason.
    """

    paths: Sequence[Path]
    resize: int | None = None
    batch_size: int = 32
    skipped: dict[Path, str] = field(default_factory=dict)

    @staticmethod
    def find(source: Path | Sequence[Path], resize: int | None = None) -> ImageFiles:
        """The images of a folder and the folders in it, or single files.

        Raises:
            DataError: If a file or a folder is not there, or a folder has no image in it.
        """
        if isinstance(source, Path) and source.is_dir():
            paths = sorted(path for path in source.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
            if not paths:
                raise DataError(
                    f"The folder {source} has no images in it (files that end in {', '.join(IMAGE_SUFFIXES)}). Give a "
                    "folder of photographs."
                )
            return ImageFiles(paths, resize)
        paths = [source] if isinstance(source, Path) else list(source)
        for path in paths:
            if not path.is_file():
                raise DataError(f"There is no file or folder {path}. Check the path.")
        return ImageFiles(paths, resize)

    def batches(self, spec: InputSpec) -> Iterator[Tensor]:
        """Batches of the images that can be read."""
        batch: list[Tensor] = []
        for picture in self._readable(spec):
            batch.append(self._fitted(picture, spec))
            if len(batch) == self.batch_size:
                yield spec.normalize(torch.stack(batch))
                batch = []
        if batch:
            yield spec.normalize(torch.stack(batch))

    def first(self, count: int, spec: InputSpec) -> Tensor:
        """The first images that can be read, cut to the input's size."""
        pictures = (self._fitted(picture, spec) for picture in self._readable(spec))
        return torch.stack([picture for picture, _ in zip(pictures, range(count), strict=False)])

    def photograph(self, spec: InputSpec) -> Tensor:
        """The first image that can be read."""
        return next(self._readable(spec))

    def __len__(self) -> int:
        """How many batches there are at most."""
        return math.ceil(len(self.paths) / self.batch_size)

    def _fitted(self, picture: Tensor, spec: InputSpec) -> Tensor:
        height, width = spec.size
        shorter = max(self.resize or 0, min(spec.size)) if height == width else max(spec.size)
        scaled = v2.functional.resize(picture, [shorter], antialias=True)
        fitted: Tensor = v2.functional.center_crop(scaled, [height, width]).clamp(0, 1)
        return fitted

    def _readable(self, spec: InputSpec) -> Iterator[Tensor]:
        found = False
        for path in self.paths:
            picture = self._read(path, spec.channels)
            if picture is not None:
                found = True
                yield picture
        if not found:
            (path, reason), *_ = self.skipped.items()
            raise DataError(
                f"None of the {len(self.paths)} image(s) can be read, such as {path} ({reason}). Give photographs."
            )

    def _read(self, path: Path, channels: int) -> Tensor | None:
        try:
            with Image.open(path) as image:
                pixels: Tensor = v2.functional.pil_to_tensor(image.convert("L" if channels == 1 else "RGB"))
        except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises at damaged files
            if path not in self.skipped:
                self.skipped[path] = str(error)
                warnings.warn(f"{path} was skipped, because it cannot be read ({error}).", stacklevel=2)
            return None
        return pixels.float() / 255


@dataclass
class Batches:
    """Batches from a loader, a tensor, or whatever else gives images as the network takes them.

    Args:
        loader: Gives batches; see `images_of`.
    """

    loader: Any
    skipped: dict[Path, str] = field(default_factory=dict)

    def batches(self, spec: InputSpec) -> Iterator[Tensor]:
        """The images of the batches."""
        for batch in self.loader:
            yield images_of(batch)

    def first(self, count: int, spec: InputSpec) -> Tensor:
        """The first images, as pictures."""
        found: list[Tensor] = []
        for images in self.batches(spec):
            found.append(images[: count - sum(map(len, found))])
            if sum(map(len, found)) >= count:
                break
        if not found:
            raise DataError("The data gave no image. Check the data module, or give a folder of photographs.")
        return spec.denormalize(torch.cat(found).float()).clamp(0, 1)

    def photograph(self, spec: InputSpec) -> Tensor:
        """The first image."""
        return self.first(1, spec)[0]

    def __len__(self) -> int:
        """How many batches there are."""
        try:
            return len(self.loader)
        except TypeError:
            return 0


def of_data_module(data: pl.LightningDataModule) -> Batches:
    """The validation images of a data module, as a training sees them."""
    data.prepare_data()
    data.setup("fit")
    loader = data.val_dataloader()
    if isinstance(loader, Mapping):
        loader = list(loader.values())
    return Batches(loader[0] if isinstance(loader, list | tuple) else loader)
