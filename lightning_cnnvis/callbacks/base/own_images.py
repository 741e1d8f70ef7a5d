"""The colours and the spectrum of a run's own images, measured once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_cnnvis.callbacks.base.context import VisualizationContext
from lightning_cnnvis.callbacks.base.distributed import gather_results
from lightning_cnnvis.functional.optimization.parameterizations import ImageStatistics
from lightning_cnnvis.inputs.feeding import pictures
from lightning_cnnvis.methods.own_statistics import MEASURED, measure_images, statistics_from, statistics_state


class OwnImages:
    """The first images of a training, as long as it takes to measure them.

    They are picked up from the batches on their way to the network, so that no loader is read and no random number is
    drawn for them.

    Attributes:
        statistics: Their statistics; None before they were measured.
    """

    def __init__(self) -> None:
        self._settled: ImageStatistics | None = None
        self.statistics: ImageStatistics | None = None
        self._taken: list[Tensor] = []

    @property
    def wanted(self) -> bool:
        """Whether images have still to be taken."""
        return self.statistics is None and sum(map(len, self._taken)) < MEASURED

    def settle(self, statistics: ImageStatistics | None) -> None:
        """Takes statistics from outside, which stay whatever images come; None leaves it at that."""
        self._settled = self.statistics = statistics

    def forget(self) -> None:
        """Begins anew."""
        self.statistics, self._taken = self._settled, []

    def take(self, images: Tensor) -> None:
        """Copies the first images of a batch.

        Args:
            images: ``(N, C, H, W)``, as they come in the batches.
        """
        left = MEASURED - sum(map(len, self._taken))
        self._taken.append(images[:left].detach().float().to("cpu", copy=True))

    def measure(self, context: VisualizationContext) -> None:
        """Measures the images, or those of the validation where no batch was seen. Every process must call it.

        Args:
            context: What to work on; every process is given what the first one found.
        """
        if self.statistics is None:
            self.statistics = gather_results(lambda: self._of(context))[0]
        self._taken = []

    def _of(self, context: VisualizationContext) -> ImageStatistics:
        if not self._taken or len({images.shape[1:] for images in self._taken}) > 1:
            return measure_images(context.images, context.input_spec)
        batch_spec = context.batch_spec or context.input_spec
        shown = pictures(torch.cat(self._taken), batch_spec, context.input_spec).clamp(0, 1)
        return ImageStatistics.measure(shown)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the statistics, once they were measured."""
        return {} if self.statistics is None else {"statistics": statistics_state(self.statistics)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes the statistics of a checkpoint."""
        self.statistics = statistics_from(state_dict.get("statistics"))
