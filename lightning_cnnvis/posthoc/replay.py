"""A training's visualisations, drawn again from the weights that were kept.

The callbacks themselves draw, and Lightning validates: the pictures are those of the training, bit for bit.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import nn

from lightning_cnnvis.inputs.batches import images_of
from lightning_cnnvis.sinks import Recording

_LIKE_THE_RUN: dict[str, tuple[type, ...]] = {
    "precision": (str, int),
    "limit_val_batches": (int, float),
    "deterministic": (bool, str),
    "benchmark": (bool,),
}
"""The Trainer's options that what a validation computes depends on, and what they may be."""


class _TrainerOfTheRun:
    """The Trainer as the callbacks saw it at an epoch of the training: a real one, except for what is set here."""

    sanity_checking = False
    is_last_batch = True
    enable_validation = True
    check_val_every_n_epoch = 1
    should_stop = False
    is_global_zero = True
    state = SimpleNamespace(fn="fit")

    def __init__(self, callbacks: Sequence[pl.Callback], recording: Recording, last_epoch: int) -> None:
        self.callbacks = list(callbacks)
        self.cnnvis_sinks = [recording]  # instead of files and loggers: see `Sinks.of`
        self.max_epochs = last_epoch
        self.current_epoch = 0
        self.trainer: pl.Trainer | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.trainer, name)


class _Replay(pl.Callback):
    """Passes the hooks of a validation on to the callbacks of the run."""

    def __init__(self, callbacks: Sequence[pl.Callback], recording: Recording, last_epoch: int) -> None:
        self._run = _TrainerOfTheRun(callbacks, recording, last_epoch)
        self._begun = False
        # only the main thread may set it, and the Trainer does so only there
        in_main = threading.current_thread() is threading.main_thread()
        self._on_sigterm = signal.getsignal(signal.SIGTERM) if in_main else None
        self.epoch = 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._run.trainer, self._run.current_epoch = trainer, self.epoch - 1
        if not self._begun:
            self._pass_on("setup", pl_module, "fit")

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._on_sigterm is not None:
            # the Trainer's own handler only notes the signal, for the end of a training step that never comes
            signal.signal(signal.SIGTERM, self._on_sigterm)
        if not self._begun:
            self._pass_on("on_fit_start", pl_module)
        self._begun = True
        self._pass_on("on_validation_start", pl_module)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._pass_on("on_validation_epoch_start", pl_module)

    def on_validation_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *batch: Any) -> None:
        self._pass_on("on_validation_batch_start", pl_module, *batch)

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *batch: Any) -> None:
        self._pass_on("on_validation_batch_end", pl_module, *batch)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._pass_on("on_validation_epoch_end", pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._pass_on("on_validation_end", pl_module)
        self._pass_on("on_train_epoch_end", pl_module)

    def end(self, pl_module: pl.LightningModule) -> None:
        """Tells the callbacks that the training is over."""
        self._pass_on("on_train_end", pl_module)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._pass_on("on_exception", pl_module, exception)

    def _pass_on(self, hook: str, *args: Any) -> None:
        for callback in self._run.callbacks:
            getattr(callback, hook)(cast(pl.Trainer, self._run), *args)


class JustANetwork(pl.LightningModule):
    """A LightningModule around a network that has none: its validation is a forward pass.

    Args:
        network: The network.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Shows the images to the network."""
        self.network(images_of(batch))


class Replayer:
    """Validates a module with one set of weights after the other, and lets the callbacks of a run draw.

    Args:
        callbacks: The callbacks, in the order of the run.
        last_epoch: The last epoch there will be.
        device: Where to compute.
        options: The Trainer's options in the run; those that matter are taken over.

    Attributes:
        recording: What the callbacks drew and measured.
        metrics: What the module logged, by name and epoch.
    """

    def __init__(
        self, callbacks: Sequence[pl.Callback], last_epoch: int, device: torch.device, options: Mapping[str, Any]
    ) -> None:
        self.recording = Recording()
        self.metrics: dict[str, dict[int, float]] = {}
        self._replay = _Replay(callbacks, self.recording, last_epoch)
        with quiet_lightning():
            self._trainer = pl.Trainer(
                accelerator=device.type,
                devices=[device.index] if device.index is not None else 1,
                callbacks=[self._replay],
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                inference_mode=False,  # nor has a validation during a training
                **{
                    name: options[name] for name, kinds in _LIKE_THE_RUN.items() if isinstance(options.get(name), kinds)
                },
            )

    def show(self, epoch: int, module: pl.LightningModule, **data: Any) -> None:
        """Validates the module, and shows what the callbacks show.

        Args:
            epoch: The epoch that the weights are of, counted from 1.
            module: The module, with these weights.
            **data: ``datamodule`` or ``dataloaders``, for ``Trainer.validate``.
        """
        self._replay.epoch = epoch
        with quiet_lightning():
            self._trainer.validate(module, verbose=False, **data)
        for name, value in self._trainer.callback_metrics.items():
            self.metrics.setdefault(name, {})[epoch] = float(value)

    def end(self, module: pl.LightningModule) -> None:
        """Lets the callbacks show what they show when all epochs are there."""
        with quiet_lightning():
            self._replay.end(module)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keeps Lightning from telling of devices and loaders at every epoch."""
    log = logging.getLogger("pytorch_lightning")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)
