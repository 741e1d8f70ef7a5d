"""Images of a run: whether an epoch will be validated, and images straight from the data sets if not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset, Subset

from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.inputs.batches import images_of, labels_of
from lightning_cnnvis.inputs.feeding import fed, pictures

_LOADER_BITS = 32  # the sample ids of a loader begin at its index times 2 to this power
_BATCH_SIZE = 32  # for loaders whose batches a sampler of the user's makes


def validation_is_sure(trainer: pl.Trainer) -> bool:
    """Whether the current epoch will be validated, unless training stops before.

    Args:
        trainer: The trainer.

    Returns:
        False also where validation is disabled, or depends on the number of steps.
    """
    every = trainer.check_val_every_n_epoch
    return bool(trainer.enable_validation) and every is not None and (trainer.current_epoch + 1) % every == 0


def images_of_run(
    trainer: pl.Trainer,
    device: torch.device,
    get_images: str | Callable[[Any], Tensor] | None,
    *,
    shared: bool = True,
) -> Iterator[tuple[int, Tensor]]:
    """Reads images straight from the validation data sets, or from the training data if there are none.

    This serves epochs whose batches were not seen: training stopped early, or was resumed just before the validation.
    The run's loaders are not touched.

    Args:
        trainer: The trainer.
        device: Device to bring the images to.
        get_images: Function, or its dotted name, that returns the images of a batch; see `images_of`.
        shared: Whether each process reads its share, as a distributed sampler would assign it, or all images.

    Yields:
        The sample id of a batch's first image, and the images ``(N, C, H, W)`` on the device. Ids increase in steps of
        the number of processes that share them, and equal those that `sample_ids` returns for an unshuffled validation.
    """
    rank, world = (trainer.global_rank, trainer.world_size) if shared else (0, 1)
    for index, (loader, length) in enumerate(_loaders_and_lengths(trainer)):
        first = (index << _LOADER_BITS) + rank
        for batch in islice(_of_our_own(loader, rank, world), length):
            found = images_of(trainer.strategy.batch_to_device(batch, device), get_images)
            yield first, found
            first += world * len(found)


class RunImages:
    """The images of a run, as methods ask for them; each process sees all of them.

    Args:
        trainer: The trainer.
        device: Where to bring the images.
        get_images: How to get the images out of a batch; see `images_of`.
        batch_spec: Format of the images in the batches; None if that is what the network is fed.
    """

    def __init__(
        self,
        trainer: pl.Trainer,
        device: torch.device,
        get_images: str | Callable[[Any], Tensor] | None,
        batch_spec: InputSpec | None = None,
    ) -> None:
        self._trainer = trainer
        self._device = device
        self._get_images = get_images
        self._batch_spec = batch_spec

    def batches(self, spec: InputSpec) -> Iterator[Tensor]:
        """Batches ``(N, C, H, W)``, normalised, of the validation, or of the training if there is none."""
        for _, images in images_of_run(self._trainer, self._device, self._get_images, shared=False):
            yield fed(images, self._batch_spec or spec, spec)

    def first(self, count: int, spec: InputSpec) -> Tensor:
        """Reads the first images.

        Args:
            count: The number of images; no more come than the first batch has.
            spec: Format of the input.

        Returns:
            ``(N, C, H, W)`` in [0, 1], on the CPU.

        Raises:
            ValueError: If there are none.
        """
        found = images_of_run(self._trainer, self._device, self._get_images, shared=False)
        _, images = next(found, (0, None))
        if images is None:
            raise ValueError("There is no batch with an image. Give a photograph.")
        return pictures(images[:count].detach().float().cpu(), self._batch_spec or spec, spec).clamp(0, 1)

    def labelled(self, spec: InputSpec) -> Iterator[tuple[Tensor, list[int] | None]]:
        """Batches ``(N, C, H, W)`` in [0, 1], on the CPU, each with its images' classes, where it has them."""
        for loader, length in _loaders_and_lengths(self._trainer):
            for batch in islice(_of_our_own(loader, 0, 1), length):
                found = images_of(batch, self._get_images)
                shown = pictures(found.detach().float().cpu(), self._batch_spec or spec, spec).clamp(0, 1)
                yield shown, labels_of(batch, len(found))

    def photograph(self, spec: InputSpec) -> Tensor:
        """The first image, ``(C, H, W)`` in [0, 1], on the CPU."""
        return self.first(1, spec)[0]

    def __len__(self) -> int:
        """The number of batches, which is not known: 0."""
        return 0


def sample_ids(loaders: Any, index: int) -> tuple[int, int, int | None]:
    """Numbers the images of a loader, so that equal ids mean the same image on every process.

    Args:
        loaders: The loader, or a sequence of loaders.
        index: Index of the loader.

    Returns:
        The id of this process's first image; the stride between its ids: the world size where a distributed sampler
        shares the images out, else 1; and the end of the ids, None if it is unknown.
    """
    first = index << _LOADER_BITS  # images of different loaders have different ids
    loader = loaders[index] if isinstance(loaders, list | tuple) else loaders
    sampler = getattr(loader, "sampler", None)
    if not isinstance(sampler, DistributedSampler):
        return first, 1, None
    return first + sampler.rank, sampler.num_replicas, first + len(sampler.dataset)  # type: ignore[arg-type]


def _loaders_and_lengths(trainer: pl.Trainer) -> list[tuple[Any, int | None]]:
    """The loaders, and the number of batches to read from each; None reads all."""
    loaders, lengths = _of_the_validation(trainer)
    if loaders is None:
        loaders = trainer.train_dataloader
    loaders = list(loaders.values()) if isinstance(loaders, Mapping) else loaders
    loaders = list(loaders) if isinstance(loaders, list | tuple) else [loaders]
    lengths += [math.inf] * (len(loaders) - len(lengths))
    return [
        (loader, None if math.isinf(length) else int(length)) for loader, length in zip(loaders, lengths, strict=True)
    ]


def _of_the_validation(trainer: pl.Trainer) -> tuple[Any, list[float]]:
    """The loaders of the validation and the number of batches to read from each; None if there is no validation."""
    if trainer.val_dataloaders is not None or not trainer.enable_validation:
        return trainer.val_dataloaders, [] if trainer.val_dataloaders is None else list(trainer.num_val_batches)
    # A run that was resumed in an epoch without a validation has not made its loaders yet. What it will make later must
    # not depend on us, so ours are forgotten again.
    loop: Any = trainer.fit_loop.epoch_loop.val_loop
    loop.setup_data()
    loaders, lengths = trainer.val_dataloaders, list(trainer.num_val_batches)
    loop._combined_loader = None
    return loaders, lengths


def _of_our_own(loader: Any, rank: int, world: int) -> Iterable[Any]:
    """A loader of our own for the same data, in order, so that the run's keeps its position, seeds and workers."""
    if not isinstance(loader, DataLoader):
        return loader  # type: ignore[no-any-return]
    dataset = loader.dataset
    if not isinstance(dataset, IterableDataset):
        dataset = Subset(dataset, range(rank, len(dataset), world))  # type: ignore[arg-type]
    unbatched = loader.batch_size is None and loader.batch_sampler is None
    return DataLoader(
        dataset,
        batch_size=None if unbatched else loader.batch_size or _BATCH_SIZE,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
    )
