"""Callbacks whose pictures of all epochs so far stand in one strip."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl

from lightning_cnnvis.callbacks.base.callback import VisualizationCallback
from lightning_cnnvis.evolution.strips import PictureStrip


class StripCallback(VisualizationCallback):
    """Base of callbacks that draw a strip of optimised images: it begins anew with a run, and survives its resuming.

    Args:
        **options: See `VisualizationCallback`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._strip = PictureStrip()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Begins anew."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._strip = PictureStrip()

    def state_dict(self) -> dict[str, Any]:
        """Adds the strip."""
        return {**super().state_dict(), "strip": self._strip.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up where a checkpoint left off."""
        super().load_state_dict(state_dict)
        self._strip = PictureStrip.from_state_dict(state_dict["strip"])
