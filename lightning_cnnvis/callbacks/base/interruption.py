"""SIGTERM in the middle of a visualisation."""

from __future__ import annotations

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import SIGTERMException


def stop_on_sigterm(trainer: pl.Trainer) -> None:
    """Ends the training as Lightning does between two batches, if the process was asked to end.

    The epoch under way is then not in a checkpoint yet: a run that is resumed shows it. Several processes cannot end in
    the middle of work that they share, so they finish the pictures first.

    Args:
        trainer: The trainer.

    Raises:
        SIGTERMException: If the process has received SIGTERM. It is a `SystemExit`, which no guard swallows.
    """
    if getattr(trainer, "received_sigterm", False) and trainer.world_size == 1:
        raise SIGTERMException
