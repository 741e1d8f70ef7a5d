"""Read the photographs of a data set ahead of the network, in processes of their own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.inputs.photographs import PhotographError, read_fitted

T = TypeVar("T")

MANY = 256
"""From so many images on, processes that read them pay for their start."""

MOST_WORKERS = 8
"""More processes than this are not started unless they are asked for: decoders are then seldom what one waits for."""


class DataError(ValueError):
    """Images that are not there or cannot be read. The message says which, and what to do."""


@dataclass(frozen=True)
class Reading:
    """How a data set is gone through.

    Args:
        workers: Number of processes that read photographs ahead; 0 reads them in this one. None starts as many as
            there are processors, at most 8, for 256 photographs or more. Data modules and loaders have workers of
            their own.
        max_images: How many images to go through: of files, so many that are spread evenly over all; of loaders, the
            first ones. None goes through all.

    Raises:
        ValueError: If there are fewer than 0 workers, or fewer than 1 image.

    Examples:
        >>> Reading(max_images=3).chosen("abcdef")
        ['a', 'c', 'e']
    """

    workers: int | None = 0
    max_images: int | None = None

    def __post_init__(self) -> None:
        """Checks the numbers."""
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"workers={self.workers} is negative. Give 0 to read images in this process.")
        if self.max_images is not None and self.max_images < 1:
            raise ValueError(f"max_images={self.max_images} leaves no image to look at. Give at least 1.")

    def chosen(self, items: Sequence[T]) -> list[T]:
        """Takes at most so many items, spread evenly: sorted files of many folders then come from all of them.

        Args:
            items: The items.

        Returns:
            Those taken, in their order.
        """
        count = self.upto(len(items))
        return [items[i * len(items) // count] for i in range(count)]

    def upto(self, count: int) -> int:
        """Says how many of so many images are gone through.

        Args:
            count: Number of images that there are.

        Returns:
            The number of those that are looked at.
        """
        return count if self.max_images is None else min(count, self.max_images)

    def workers_for(self, count: int) -> int:
        """Says how many processes read so many photographs.

        Args:
            count: Number of photographs.

        Returns:
            The number of processes, 0 for none but this one.
        """
        if self.workers is not None:
            return self.workers
        return min(MOST_WORKERS, _processors()) if count >= MANY else 0


def read_batches(
    paths: Sequence[Path],
    spec: InputSpec,
    resize: int | None,
    batch_size: int,
    *,
    workers: int = 0,
    skip: Callable[[Path, str], None],
) -> Iterator[Tensor]:
    """Reads photographs, fits them to a network's input, and gives them in batches, in their order.

    Args:
        paths: The files.
        spec: The network's input.
        resize: Size that the shorter side is brought to; see `fit_photograph`.
        batch_size: Number of files in a batch.
        workers: Number of processes that read ahead, two batches each.
        skip: Told of each file that cannot be read, with the reason.

    Yields:
        Batches ``(N, C, H, W)``, normalised, on the CPU; page-locked where there are workers and a GPU. Empty where no
        file of a batch can be read.

    Raises:
        DataError: If a process that reads was killed, as happens where memory is short.
        RuntimeError: If reading fails for another reason.
    """
    loader = DataLoader(
        _Photographs(paths, spec, resize),
        batch_size,
        num_workers=workers,
        collate_fn=partial(_together, spec=spec),
        pin_memory=workers > 0 and torch.cuda.is_available(),
        # a loader draws a seed for its workers, by default from the generator of the program
        generator=torch.Generator(device="cpu").manual_seed(0),
    )
    with torch.device("cpu"):  # where the seed is drawn, whatever the default device is
        batches = iter(loader)
    try:
        for images, unreadable in batches:
            for number, reason in unreadable.items():
                skip(paths[number], reason)
            yield images
    except RuntimeError as error:
        if "DataLoader worker (pid" in str(error):
            raise DataError(
                f"A process that reads images has ended ({error}). Memory may be short: read with fewer, --workers 0 "
                "or workers=0."
            ) from error
        raise


class _Photographs(Dataset[tuple[int, "Tensor | str"]]):
    """Files by their number; in the place of one that cannot be read is the reason."""

    def __init__(self, paths: Sequence[Path], spec: InputSpec, resize: int | None) -> None:
        self.paths = paths
        self.spec = spec
        self.resize = resize

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> tuple[int, Tensor | str]:
        try:
            return number, read_fitted(self.paths[number], self.spec.channels, self.spec.size, self.resize)
        except PhotographError as error:
            return number, str(error.__cause__)


def _together(items: Sequence[tuple[int, Tensor | str]], *, spec: InputSpec) -> tuple[Tensor, dict[int, str]]:
    """The images of a batch that could be read, and why the others could not."""
    read = [picture for _, picture in items if isinstance(picture, Tensor)]
    images = spec.normalize(torch.stack(read)) if read else torch.empty(0, dtype=torch.float32, device="cpu")
    return images, {number: reason for number, reason in items if isinstance(reason, str)}


def _processors() -> int:
    """How many processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1
