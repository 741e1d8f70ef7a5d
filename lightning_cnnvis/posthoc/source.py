"""Find the images for a trained network, and what they say of its input."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_cnnvis.checkpoints import Checkpoint, CheckpointError
from lightning_cnnvis.inputs import IMAGENET_MEAN, IMAGENET_STD, InputSpec
from lightning_cnnvis.inputs.discovery import find_input_spec
from lightning_cnnvis.posthoc import runs
from lightning_cnnvis.posthoc.images import ImageFiles, Images
from lightning_cnnvis.posthoc.loaders import Batches, of_data_module
from lightning_cnnvis.posthoc.reading import DataError, Reading
from lightning_cnnvis.posthoc.untrusted import UntrustedError

Data = str | Path | Sequence[str | Path] | pl.LightningDataModule | DataLoader[Any] | Tensor


class ImageSource:
    """The images that a trained network is shown. They are looked for when they are needed.

    Args:
        checkpoint: The network.
        data: Images, as `analyze` takes them; those of the checkpoint's own run if None.
        reading: How they are read, and how many of them; one after the other, and all, if None.
    """

    def __init__(self, checkpoint: Checkpoint, data: Data | None, reading: Reading | None = None) -> None:
        self._checkpoint = checkpoint
        self._data = data
        self._reading = reading or Reading()

    @cached_property
    def found(self) -> Any:
        """The source of the images.

        Returns:
            A data module, image files, a loader, or None.

        Raises:
            DataError: If there is nothing of that name.
        """
        data, files = self._data, partial(ImageFiles.find, resize=self._checkpoint.resize, reading=self._reading)
        if data is None:
            return self._of_the_run()
        if isinstance(data, Tensor):
            return [data]
        if isinstance(data, str | Path):
            path = Path(data).expanduser()
            if path.exists() or isinstance(data, Path) or "/" in data:
                return files(path)
            try:
                return runs.data_module(self._checkpoint, str(data))
            except CheckpointError as error:
                raise DataError(
                    f"{data!r} is not a file, a folder or a data module: {error} This package has "
                    f"{', '.join(runs.own_data_modules())}."
                ) from error
        if isinstance(data, Sequence) and not len(data):
            raise DataError("data is empty. Name at least one image, a folder of them, or a data module.")
        if isinstance(data, Sequence) and all(isinstance(one, str | Path) for one in data):
            return files([Path(one) for one in data])
        return data

    def _of_the_run(self) -> pl.LightningDataModule | None:
        try:
            return runs.data_module(self._checkpoint)
        except UntrustedError as error:  # what needs no images is shown without them
            warnings.warn(str(error), stacklevel=2)
            return None

    @cached_property
    def images(self) -> Images:
        """The images.

        Returns:
            The images, as often as they are asked for.

        Raises:
            DataError: If there are none.
        """
        source = self.found
        if source is None:
            raise DataError(
                "There are no images to show the network. Give a folder of photographs, single images, or the data "
                "module that it was trained with."
            )
        if isinstance(source, ImageFiles):
            return source
        if isinstance(source, pl.LightningDataModule):
            return of_data_module(source, self._checkpoint.batch_spec, self._reading)
        return Batches(source, reading=self._reading)

    def input_spec(self) -> InputSpec:
        """Describes the network's input, as the images tell it; image files do not, and ImageNet's format is assumed.

        Returns:
            The description.

        Raises:
            DataError: If there are none.
        """
        source = self.found
        if isinstance(source, ImageFiles):
            warnings.warn(
                f"The input format of {self._checkpoint.name} is unknown: colour images of 224 × 224 pixels are "
                "assumed, normalised as ImageNet's usually are. Pass input_spec=InputSpec(size=..., mean=..., std=...) "
                "if it has another; on the command line --input_size, --mean and --std.",
                stacklevel=3,
            )
            return InputSpec(mean=IMAGENET_MEAN, std=IMAGENET_STD)
        if source is None:
            raise DataError(
                f"The input format of {self._checkpoint.name} is unknown. Give its data module, or pass "
                "input_spec=InputSpec(size=..., mean=..., std=...); on the command line --input_size, --mean and --std."
            )
        known = getattr(source, "input_spec", None)
        if isinstance(known, InputSpec):
            return known
        images = self.images  # sets the data module up
        return find_input_spec(source, next(images.batches(InputSpec())))

    def class_names(self) -> tuple[str, ...]:
        """Finds the names of the classes in the checkpoint's own run.

        Returns:
            The names in the order of the logits; none if they cannot be found.
        """
        try:
            module = runs.data_module(self._checkpoint)
        except (CheckpointError, DataError):  # numbers will do
            return ()
        spec = getattr(module, "input_spec", None)
        return spec.class_names if isinstance(spec, InputSpec) else ()
