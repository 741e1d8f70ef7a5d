"""The weights of the epochs that are shown, kept for later."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from lightning_cnnvis.callbacks.base import VisualizationCallback
from lightning_cnnvis.callbacks.base.failure import warn_of_failure
from lightning_cnnvis.checkpoints.run import WEIGHTS_FOLDER
from lightning_cnnvis.sinks import SinkError, Sinks
from lightning_cnnvis.sinks.atomic import appearing, join


class VisualizationCheckpoint(pl.Callback):
    """Keeps the weights of each epoch that a visualisation shows, so that they can be looked at afterwards.

    ``lightning-cnnvis evolve RUN`` draws the pictures of a run again from them, also with other methods and layers.
    They lie beside the pictures, in a bucket too, as ``cnnvis/weights/epoch_0005.ckpt``: only the weights and
    hyperparameters, not the optimiser's state, which is twice as large. With the default epochs these are nine files at
    most.

    Without a visualisation callback in the run nothing is kept. Weights that cannot be written cost one warning; the
    training goes on. A file appears when it is complete.

    Examples:
        >>> from lightning_cnnvis import DeconvNetProjection
        >>> callbacks = [DeconvNetProjection(epochs=[1, 5]), VisualizationCheckpoint()]
    """

    def __init__(self) -> None:
        self._folder: Path | str | None = None
        self._completed: int | None = None
        self._kept: int | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Finds the folder; every process must have it, since all of them take part in saving."""
        pictures = Sinks.of(trainer).folder
        self._folder = trainer.strategy.broadcast(None if pictures is None else join(pictures, WEIGHTS_FOLDER))
        self._completed = self._kept = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keeps the weights if the epoch is shown."""
        self._completed = trainer.current_epoch + 1
        # every one is asked, since the processes agree on the answer
        due = [shows.scheduled(self._completed, trainer) for shows in _visualizations(trainer)]
        if any(due):
            self._keep(trainer, self._completed)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keeps the last ones, which are always shown."""
        if self._completed is not None and self._completed != self._kept and _visualizations(trainer):
            self._keep(trainer, self._completed)

    def _keep(self, trainer: pl.Trainer, epoch: int) -> None:
        self._kept = epoch
        if self._folder is None:
            return
        file = join(self._folder, f"epoch_{epoch:04d}.ckpt")
        # every process takes part in saving, and the first one writes
        writes = trainer.is_global_zero and isinstance(file, Path)
        saved = False
        try:
            with appearing(file) if writes else nullcontext(file) as place:  # type: ignore[arg-type]
                _save(trainer, place)
                saved = True
        except Exception as error:  # a remote store may raise anything
            if not saved:
                trainer.strategy.barrier()  # where the other processes wait for this one
            failure = SinkError([f"{file} ({type(error).__name__}: {error})"])
            warn_of_failure(type(self).__name__, failure, epoch, None, None)


def _save(trainer: pl.Trainer, place: Any) -> None:
    """Saves the weights, and what the visualisations have measured and cannot find again without the training."""
    states = {shows.state_key: shows.lasting_state() for shows in _visualizations(trainer)}
    states = {key: state for key, state in states.items() if state}
    if not states:
        trainer.save_checkpoint(place, weights_only=True)
        return
    # the Trainer either saves every state of every callback or none
    checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=True)
    trainer.strategy.save_checkpoint(checkpoint | {"callbacks": states}, place)
    trainer.strategy.barrier()


def _visualizations(trainer: pl.Trainer) -> list[VisualizationCallback]:
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return [callback for callback in callbacks if isinstance(callback, VisualizationCallback)]
