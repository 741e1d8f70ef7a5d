"""Images to show a trained network, from a data module or a loader."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, SequentialSampler

from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.inputs.batches import images_of, labels_of, values_of
from lightning_cnnvis.inputs.feeding import fed, pictures
from lightning_cnnvis.posthoc.digests import bytes_of
from lightning_cnnvis.posthoc.reading import DataError, Reading


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

        Returns:
            Images ``(N, C, H, W)`` for the network.

        Raises:
            ValueError: If there is no image in a batch.
        """
        return (batch for _, batch in self.numbered(spec))

    def numbered(self, spec: InputSpec, start: int = 0) -> Iterator[tuple[int, Tensor]]:
        """Gives the images of the batches, from one of them on.

        Args:
            spec: The network's input.
            start: Number of batches to leave out; the loader reads them all the same.

        Yields:
            The number of batches up to this one, and the batch.

        Raises:
            ValueError: If there is no image in a batch.
        """
        seen = 0
        for number, batch in enumerate(self.loader, 1):
            images = images_of(batch)
            taken = images[: self.reading.upto(seen + len(images)) - seen]
            seen += len(taken)
            if number > start:
                yield number, fed(taken, self.batch_spec or spec, spec)
            if seen == self.reading.max_images:
                return

    def identity(self, spec: InputSpec) -> str | None:
        """Tells the images of a loader from others by their number, and the first, the middle and the last one.

        Args:
            spec: The network's input.

        Returns:
            A digest; None if the loader shuffles, or is not a DataLoader with a data set of a known length.
        """
        loader = self.loader
        if not (isinstance(loader, DataLoader) and isinstance(loader.sampler, SequentialSampler) and loader.batch_size):
            return None
        data: Any = loader.dataset
        count = len(data)
        facts = (type(data).__qualname__, count, loader.batch_size, self.reading.max_images, self.batch_spec, spec)
        digest = blake2b(repr(facts).encode())
        for number in sorted({0, count // 2, count - 1}) if count else ():
            for value in values_of(data[number]):
                digest.update(bytes_of(value))
        return digest.hexdigest()

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
