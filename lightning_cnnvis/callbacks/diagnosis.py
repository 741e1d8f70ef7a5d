"""What is wrong with the feature maps, while the network trains."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor, nn

from lightning_cnnvis import figures
from lightning_cnnvis.callbacks.base.context import VisualizationContext
from lightning_cnnvis.callbacks.base.distributed import gather_results
from lightning_cnnvis.callbacks.feature_convergence import FeatureConvergence
from lightning_cnnvis.callbacks.harvest import EpochHarvest, FollowingCallback, Guard
from lightning_cnnvis.functional.diagnosis.census import Census
from lightning_cnnvis.functional.diagnosis.findings import FindingLimits
from lightning_cnnvis.functional.diagnosis.results import Diagnosis as Found
from lightning_cnnvis.methods.diagnose import DIAGNOSE, DiagnosedNetwork, Observed, channel_dims
from lightning_cnnvis.methods.method import Parts


class Diagnosis(FollowingCallback[Census], method=DIAGNOSE):
    """Says which feature maps are dead, always on, dominating, duplicates, aliased or noise, and what to try.

    The statistics are taken from the forward passes that the validation makes anyway, over all of its images. See
    `diagnose` for what the words mean and their sources. At the end of the training, the findings are printed: the five
    worst, each with what it may come from and what to try.

    Pictures: ``diagnosis/kernels/<layer>``, the kernels that read the image, those with findings framed;
    ``diagnosis/spectra/<layer>``, their spectra with the circle of the stride's Nyquist frequency;
    ``diagnosis/maps/<layer>``, patches and projections of the worst maps; ``diagnosis/evolution/<layer>``, kernels over
    the epochs; ``diagnosis/activity/<layer>``, the activity of all maps over the epochs.

    Scalars: ``diagnosis_dead/<layer>``, ``diagnosis_always_on/<layer>`` and ``diagnosis_duplicate/<layer>``, shares of
    maps; ``diagnosis_aliased_energy/<layer>``, the mean share of the first kernels' energy above the Nyquist frequency;
    ``diagnosis_saturation/<layer>``, the share of directions that hold 99 % of the variance.

    Text: ``diagnosis/findings``. Tables: ``diagnosis/findings.csv`` and ``.json``, ``diagnosis/maps.csv`` with a row a
    feature map.

    Args:
        layers: Dotted names of the layers; the rectified output of every convolution if None.
        num_channels: Number of feature maps with findings whose patches and projections are shown; 0 shows none.
        k: Number of images of each.
        limits: The numbers from which something counts as wrong; the defaults if None.
        max_images: How many images to go through where there is no validation to take statistics from, or where it ran
            on averaged weights.
        **schedule: What every visualisation takes: ``epochs``, ``every_n_epochs``, ``input_spec``, ``on_error`` and
            more; see `VisualizationCallback`.

    Raises:
        MisconfigurationException: If an argument is out of range; before training starts, if a layer is not there or
            has no maps, or the network has no convolution.

    Examples:
        >>> from pytorch_lightning import Trainer
        >>> trainer = Trainer(callbacks=[Diagnosis(every_n_epochs=1)], logger=False, enable_checkpointing=False)
    """

    def __init__(
        self,
        *,
        layers: Sequence[str] | None = None,
        num_channels: int = 6,
        k: int = 4,
        limits: FindingLimits | None = None,
        max_images: int = 1024,
        **schedule: Any,
    ) -> None:
        looked_for = {"layers": layers, "num_channels": num_channels, "k": k, "limits": limits or FindingLimits()}
        super().__init__(DIAGNOSE, looked_for, **schedule)
        if max_images < 2:
            raise MisconfigurationException(f"max_images={max_images} must be at least 2.")
        self.max_images = max_images
        self._harvest = EpochHarvest[Census](max_images, self.get_images)
        self._dims: dict[str, int] = {}
        self._activity: dict[str, dict[int, Tensor]] = {}
        self._found: Found | None = None

    @property
    def found(self) -> Found | None:
        """The diagnosis of the epoch shown last."""
        return self._found

    def check(self, context: VisualizationContext) -> None:
        """Refuses layers without feature maps."""
        self._dims = channel_dims(context, self.options_in(context).layers)
        self._followed, self._parts = context.trained, {"": list(self._dims)}

    def follower(self, network: nn.Module, guard: Guard | None = None) -> Census:
        """Makes what takes the statistics."""
        return Census(network, self._dims, guard=guard or nullcontext)

    def prepare(self, context: VisualizationContext, options: Any, parts: Parts) -> Observed:
        """Joins the statistics of all processes."""
        first, *others = gather_results(lambda: self._taken(context))
        for other in others:
            first.merge(other)
        callbacks: list[pl.Callback] = context.trainer.callbacks  # type: ignore[attr-defined]
        watched = [callback.settled for callback in callbacks if isinstance(callback, FeatureConvergence)]
        return Observed(first, {layer: epoch for settled in watched for layer, epoch in settled.items()})

    def _taken(self, context: VisualizationContext) -> Census:
        census = self._harvest.take(context, self.follower)
        return census.on_cpu() if context.trainer.world_size > 1 else census

    def show_part(
        self, context: VisualizationContext, options: Any, part: str, items: Sequence[Any], prepared: Any
    ) -> DiagnosedNetwork | None:
        """Shows the findings, and how active the maps have been over the epochs."""
        result: DiagnosedNetwork | None = super().show_part(context, options, part, items, prepared)
        if result is None:
            return None
        self._found = result.diagnosis
        for layer, measures in result.diagnosis.layers.items():
            known = self._activity.setdefault(layer, {})
            known[context.epoch] = measures.mean.clamp_min(0).half()
            self._activity[layer] = {epoch: known[epoch] for epoch in sorted(known) if epoch <= context.epoch}
        shown = result.diagnosis.layers if self.layers is not None else context.default_layers()
        for layer in [layer for layer in shown if layer in self._activity]:
            known = self._activity[layer]
            title = f"{layer} · activity · epoch {context.epoch}"
            picture = figures.activity_figure(list(known), list(known.values()), title)
            context.sinks.picture(f"{self.label}/activity/{layer}", picture, context.epoch)
        return result

    # Lightning's hooks.

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Begins anew."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._activity, self._found = {}, None

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Prints the findings, the worst first."""
        super().on_train_end(trainer, pl_module)
        if self._found is not None:
            rank_zero_info("Diagnosis: " + "\n  - ".join(self._found.sentences()))

    def state_dict(self) -> dict[str, Any]:
        """Adds the activity of the maps at each epoch."""
        return {**super().state_dict(), "activity": {layer: dict(known) for layer, known in self._activity.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up where a checkpoint left off."""
        super().load_state_dict(state_dict)
        self._activity = {layer: dict(known) for layer, known in state_dict["activity"].items()}
