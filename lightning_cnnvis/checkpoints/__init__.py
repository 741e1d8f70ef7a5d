"""Checkpoints and weights, from whatever trained them, as networks that can be looked at."""

from lightning_cnnvis.checkpoints.files import CheckpointError
from lightning_cnnvis.checkpoints.loading import Checkpoint, load
from lightning_cnnvis.checkpoints.run import Run, find_checkpoints
from lightning_cnnvis.checkpoints.zoo import ModelNameError

__all__ = ["Checkpoint", "CheckpointError", "ModelNameError", "Run", "find_checkpoints", "load"]
