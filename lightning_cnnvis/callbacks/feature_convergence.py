"""Callback that detects when the features of each layer have settled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities import rank_zero_info

from lightning_cnnvis.callbacks.base.failure import warn_of_failure
from lightning_cnnvis.callbacks.deconvnet import DeconvNetProjection
from lightning_cnnvis.evolution.features import Convergence
from lightning_cnnvis.sinks import SinkError, Sinks


class FeatureConvergence(pl.Callback):
    """Logs the epoch at which the features of each layer have settled, and can stop the training then.

    Zeiler & Fergus (2013, section 4.1, arXiv 1311.2901) watch the projections over the epochs and find that low layers
    settle within a few epochs, high layers only after many. Here, a layer has settled when the projections from images
    that stay the same hardly differ from those of the epoch shown before, ``patience`` times in a row; the first of
    these epochs counts. The projections are those of a `DeconvNetProjection`, which must precede this callback in the
    Trainer's list, preferably with ``every_n_epochs=1``, since epochs that are further apart differ more.

    Scalar: ``settled_epoch/<layer>``, logged once the layer has settled.

    Args:
        layers: The layers to watch; None watches all that `DeconvNetProjection` shows.
        similarity: Smallest mean cosine similarity, in (0, 1], at which the projections of a layer count as unchanged.
        patience: Number of consecutive times that the projections must be unchanged.
        stop: Whether to stop the training once all layers have settled.

    Raises:
        MisconfigurationException: If an argument is out of range. Before training starts: if no `DeconvNetProjection`
            precedes this callback, or if that does not show one of the layers.

    Examples:
        >>> callbacks = [DeconvNetProjection(every_n_epochs=1), FeatureConvergence(stop=True)]
    """

    def __init__(
        self, layers: Sequence[str] | None = None, similarity: float = 0.95, patience: int = 3, stop: bool = False
    ) -> None:
        if not 0 < similarity <= 1:
            raise MisconfigurationException(f"similarity={similarity} is out of range. Pass more than 0 and at most 1.")
        if patience < 1:
            raise MisconfigurationException(f"patience={patience} is out of range. Pass at least 1.")
        self.layers = None if layers is None else tuple(layers)
        self.similarity = similarity
        self.patience = patience
        self.stop = stop
        self._still_since: dict[str, list[int]] = {}
        self._settled: dict[str, int] = {}
        self._seen: dict[str, Convergence] = {}
        self._source: DeconvNetProjection | None = None
        self._sinks = Sinks()

    @property
    def settled(self) -> dict[str, int]:
        """Epoch at which each layer settled, counted from 1; layers that have not settled are missing."""
        return dict(self._settled)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Resets the state, and finds the callback that makes the projections."""
        if stage != "fit":
            return
        self._still_since, self._settled, self._seen = {}, {}, {}
        callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        before = callbacks[: callbacks.index(self)]
        self._source = next((c for c in reversed(before) if isinstance(c, DeconvNetProjection)), None)
        if self._source is None:
            raise MisconfigurationException(
                "FeatureConvergence needs a DeconvNetProjection before it in the Trainer's callbacks. Add "
                "DeconvNetProjection(every_n_epochs=1)."
            )

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Finds the sinks for scalars."""
        self._sinks = Sinks.of(trainer)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Refuses layers that `DeconvNetProjection` does not show."""
        assert self._source is not None
        shown = self._source.shown_layers
        unknown = [layer for layer in self.layers or () if shown and layer not in shown]
        if unknown:
            raise MisconfigurationException(
                f"FeatureConvergence(layers=...): DeconvNetProjection does not show {unknown[0]!r}. It shows "
                f"{', '.join(map(repr, shown))}."
            )

    # Each hook reads what the source has measured in the same hook: checkpoints are written between hooks.

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reads measurements made when the run was resumed."""
        self._take_in_all()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reads measurements made after the validation."""
        if trainer.state.fn == "fit":
            self._take_in_all()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reads measurements made at the end of the epoch; stops the training if all layers have settled."""
        self._take_in_all()
        layers = self._watched()
        done = bool(layers) and all(layer in self._settled for layer in layers)
        if self.stop and trainer.strategy.reduce_boolean_decision(done, all=True):
            trainer.should_stop = True

    def _watched(self) -> Sequence[str]:
        assert self._source is not None
        return self.layers or self._source.shown_layers

    def _take_in_all(self) -> None:
        assert self._source is not None
        for layer in self._watched():
            convergence = self._source.convergence.get(layer)
            if convergence is not None and convergence is not self._seen.get(layer) and layer not in self._settled:
                self._seen[layer] = convergence
                self._take_in(layer, convergence)

    def _take_in(self, layer: str, convergence: Convergence) -> None:
        # NaN, the mean where all units are inactive, does not count as settled
        still = float(convergence.similarity.nanmean()) >= self.similarity
        since = [*self._still_since.get(layer, []), convergence.epoch] if still else []
        self._still_since[layer] = since
        if len(since) >= self.patience:
            self._settled[layer] = since[0]
            try:
                self._sinks.scalar(f"settled_epoch/{layer}", since[0], convergence.epoch)
            except SinkError as error:
                warn_of_failure(type(self).__name__, error, convergence.epoch, layer, None)
            rank_zero_info(f"FeatureConvergence: layer {layer} settled at epoch {since[0]}")

    @property
    def state_key(self) -> str:
        """Key of the state in a checkpoint; it differs between callbacks with different arguments."""
        arguments = {"layers": self.layers, "similarity": self.similarity, "patience": self.patience, "stop": self.stop}
        return self._generate_state_key(**arguments)

    def state_dict(self) -> dict[str, Any]:
        """The state for a checkpoint."""
        return {"still_since": self._still_since, "settled": self._settled}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the state of a checkpoint."""
        self._still_since, self._settled = dict(state_dict["still_since"]), dict(state_dict["settled"])
