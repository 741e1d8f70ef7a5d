"""Callbacks that look at the same few images at every epoch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from lightning_cnnvis.callbacks.base.context import VisualizationContext
from lightning_cnnvis.callbacks.base.distributed import gather_results
from lightning_cnnvis.callbacks.base.run_images import images_of_run, validation_is_sure
from lightning_cnnvis.callbacks.base.strip import StripCallback
from lightning_cnnvis.inputs import InputSpec, photographs
from lightning_cnnvis.inputs.batches import images_of


def read_photograph(path: str | Path) -> Tensor:
    """Reads a photograph that a callback was given; see `lightning_cnnvis.inputs.photographs.read_photograph`.

    Args:
        path: The file.

    Returns:
        ``(3, H, W)`` in [0, 1].

    Raises:
        MisconfigurationException: If it cannot be read.
    """
    try:
        return photographs.read_photograph(path)
    except photographs.PhotographError as error:
        raise MisconfigurationException(str(error)) from error


class ProbeCallback(StripCallback):
    """Base of callbacks that work on fixed images: given ones, or the first that the run shows to the network.

    The images are those of the first validation batch, or of the first training batch where there is no validation.
    They are kept in checkpoints, so that a resumed run goes on with the same.

    Args:
        probes: ``(N, C, H, W)`` in [0, 1], the images; taken from the run if None.
        count: How many images to take.
        **options: See `VisualizationCallback`.
    """

    def __init__(self, probes: Tensor | None, count: int, **options: Any) -> None:
        super().__init__(**options)
        self._given = probes
        self._count = count
        self._probes = probes

    def probes(self, context: VisualizationContext) -> Tensor:
        """The images, ``(N, C, H, W)`` in [0, 1]; every process must ask.

        Raises:
            ValueError: If none has been seen yet, and there is none to be had.
        """
        if self._probes is None:
            batches = (images for _, images in images_of_run(context, self.get_images))
            self._keep(context.input_spec, partial(next, batches, None))
        assert self._probes is not None
        return self._probes

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Begins anew."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._probes = self._given

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Takes the first images."""
        if not trainer.sanity_checking:
            self._take(trainer, batch)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Takes the first images if no validation is sure to come before they are needed."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if not validation_is_sure(trainer) and self.scheduled(trainer.current_epoch + 1, trainer):
            self._take(trainer, batch)

    def _take(self, trainer: pl.Trainer, batch: Any) -> None:
        if self._probes is None and self._spec is not None and trainer.state.fn == "fit":
            with self.guarded(trainer.current_epoch + 1):
                self._keep(self._spec, partial(images_of, batch, self.get_images))

    def _keep(self, spec: InputSpec, find: Callable[[], Tensor | None]) -> None:
        def first() -> Tensor:
            images = find()
            if images is None:
                raise ValueError(f"There is no batch with an image: give {type(self).__name__} a photograph.")
            return spec.denormalize(images[: self._count].detach().float().cpu()).clamp(0, 1)

        # every process works on what the first one saw
        self._probes = gather_results(first)[0]

    def state_dict(self) -> dict[str, Any]:
        """Adds the images that were taken."""
        return {**super().state_dict(), "probes": self._probes if self._given is None else None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up where a checkpoint left off."""
        super().load_state_dict(state_dict)
        if self._given is None:
            self._probes = state_dict["probes"]
