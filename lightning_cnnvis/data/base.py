"""Base class of the data modules of this package."""

from __future__ import annotations

import os

from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from lightning_cnnvis.accelerators import accelerator
from lightning_cnnvis.inputs import IMAGENET_MEAN, IMAGENET_STD, InputSpec

ImageDataset = Dataset[tuple[Tensor, int]]


class ImageDataModule(LightningDataModule):
    """Labelled images in square batches: the base class of the package's data modules.

    A subclass defines `class_names` and `build`. Both loaders give ``(images, labels)``: float32 images
    ``(N, 3, image_size, image_size)``, normalised with ImageNet's statistics, and int64 labels ``(N,)``.
    Validation images come in a fixed order; ``trainer.test`` uses them, too.

    Args:
        image_size: Height and width of the images in pixels.
        batch_size: Number of images in a batch, of training and of validation.
        num_workers: Number of processes that prepare the batches. None for 0 without a GPU, where the training itself
            needs every core, and for one a core, at most 8, with a GPU.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(self, image_size: int, batch_size: int, num_workers: int | None = None) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)  # those of the subclass too: a checkpoint can rebuild its data
        for argument, value in {"image_size": image_size, "batch_size": batch_size}.items():
            if value < 1:
                raise ValueError(f"{argument}={value}: it must be at least 1.")
        if num_workers is not None and num_workers < 0:
            raise ValueError(f"num_workers={num_workers}: it must be at least 0, or None.")
        self.image_size = image_size
        self.batch_size = batch_size
        self.num_workers = num_workers
        self._train: ImageDataset | None = None
        self._val: ImageDataset | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels. Known before `setup`.

        Returns:
            The names.

        Raises:
            TypeError: If a subclass does not define them.
        """
        raise TypeError(f"{type(self).__name__} does not define class_names.")

    def build(self) -> tuple[ImageDataset, ImageDataset]:
        """Makes the data sets.

        Returns:
            The training set and the validation set, of images ``(3, image_size, image_size)`` and labels.

        Raises:
            TypeError: If a subclass does not define it.
        """
        raise TypeError(f"{type(self).__name__} does not define build.")

    @property
    def num_classes(self) -> int:
        """Number of classes. Known before `setup`."""
        return len(self.class_names)

    @property
    def input_spec(self) -> InputSpec:
        """Size, statistics and class names of the images. Known before `setup`."""
        size = (self.image_size, self.image_size)
        return InputSpec(size, 3, IMAGENET_MEAN, IMAGENET_STD, self.class_names)

    def setup(self, stage: str) -> None:
        """Builds the data sets, once.

        Args:
            stage: Stage of the Trainer; every stage uses the same data sets.
        """
        if self._train is None:
            self._train, self._val = self.build()

    def train_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        """Makes the loader of the training batches.

        Returns:
            The loader. A last, incomplete batch is dropped unless it is the only one.
        """
        assert self._train is not None
        images = len(self._train)  # type: ignore[arg-type]
        sampler = self.train_sampler(self._train)
        return self._loader(self._train, sampler=sampler, shuffle=sampler is None, drop_last=images > self.batch_size)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        """Makes the loader of the validation batches.

        Returns:
            The loader.
        """
        assert self._val is not None
        return self._loader(self._val)

    def test_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        """Makes the loader for ``trainer.test``.

        Returns:
            The loader of the validation batches.
        """
        return self.val_dataloader()

    def train_sampler(self, dataset: ImageDataset) -> Sampler[int] | None:
        """Makes the sampler of the training images, for subclasses to override.

        Args:
            dataset: The training set.

        Returns:
            The sampler; None to shuffle.
        """
        return None

    def _loader(self, dataset: ImageDataset, **options: object) -> DataLoader[tuple[Tensor, int]]:
        on_gpu = accelerator() is not None
        workers = self.num_workers
        if workers is None:
            workers = min(8, os.cpu_count() or 1) if on_gpu else 0
        return DataLoader(
            dataset,
            self.batch_size,
            num_workers=workers,
            pin_memory=on_gpu,
            **options,  # type: ignore[arg-type]
        )
