"""A photograph as the network dreams it, while it trains."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from lightning_cnnvis import figures
from lightning_cnnvis.callbacks.base import VisualizationCallback, VisualizationContext
from lightning_cnnvis.distributed import gather_results, own_share
from lightning_cnnvis.evolution import PictureColumn, PictureStrip
from lightning_cnnvis.functional.deepdream import DreamOptions, dream
from lightning_cnnvis.inputs import images_of
from lightning_cnnvis.layers import trace_layers


class DeepDream(VisualizationCallback):
    """Dreams the same photograph at every epoch, at the chosen layers.

    Low layers give strokes, high layers objects. See `dream` for the method and its sources.

    Pictures: ``deepdream/<layer>``, the photograph beside its dream; ``deepdream/evolution``, a row a layer, a
    column an epoch.

    Args:
        layers: Dotted module names; a low, a middle and a high rectified convolution if None.
        image: Path of a photograph. The first image of the first validation batch, or of the first training batch where
            there is no validation, if None.
        options: How strongly and at which scales to dream; see `DreamOptions`.
        **schedule: What every visualisation takes: ``epochs``, ``every_n_epochs``, ``seed``, ``input_spec``,
            ``on_error`` and more; see `VisualizationCallback`.

    Raises:
        MisconfigurationException: If the photograph cannot be read; before training starts, if a layer is not there, or
            has no map.

    Example:
        >>> callback = DeepDream(layers=["relu2", "relu5"], epochs=[1, 10])
    """

    name = "deepdream"

    def __init__(
        self,
        *,
        layers: Sequence[str] | None = None,
        image: str | Path | None = None,
        options: DreamOptions | None = None,
        **schedule: Any,
    ) -> None:
        super().__init__(layers=layers, **schedule)
        self.image = image
        self.options = options
        self._photograph = None if image is None else read_photograph(image)
        self._shown_layers: list[str] = []
        self._strip = PictureStrip()

    def check(self, context: VisualizationContext) -> None:
        """Tries the layers out with a single step on a blank picture."""
        layers = self._choose(context) if context.layers is None else list(context.layers)
        once = DreamOptions(octaves=1, steps=1)
        blank = torch.zeros(context.input_spec.shape)
        for layer in layers:
            dream(context.network, blank, layer, input_spec=context.input_spec, options=once)
        self._shown_layers = layers

    def visualize(self, context: VisualizationContext) -> None:
        """Dreams, each process its share of the layers, and draws what came of it."""
        if self._photograph is None:
            raise ValueError("No batch with an image has been seen yet: give DeepDream(image=...) a photograph.")
        photograph = self._photograph
        layers = self._shown_layers
        parts = gather_results(partial(self._dream, context, photograph, layers[own_share(len(layers))]))
        dreams = [picture for part in parts for picture in part]
        original = figures.as_bytes(photograph[None])
        for layer, picture in zip(layers, dreams, strict=True):
            pair = torch.cat([original, picture[None]])
            drawn = figures.labelled_pictures(
                pair, ["photograph", layer], ["", "dreamt"], f"{layer} · epoch {context.epoch}", side=PICTURE_SIDE
            )
            context.sinks.picture(f"{self.label}/{layer}", drawn, context.epoch)
        small = figures.as_bytes(figures.reduced(torch.stack(dreams) / 255, STRIP_SIDE))
        self._strip.add(PictureColumn(context.epoch, small, tuple("" for _ in layers)))
        strip = figures.picture_strip(self._strip, layers, "DeepDream · evolution", side=STRIP_SIDE)
        context.sinks.picture(f"{self.label}/evolution", strip, context.epoch)

    def _dream(self, context: VisualizationContext, photograph: Tensor, layers: Sequence[str]) -> list[Tensor]:
        return [
            figures.as_bytes(
                dream(
                    context.network,
                    photograph,
                    layer,
                    input_spec=context.input_spec,
                    seed=self.seed,
                    options=self.options,
                ).images
            )[0]
            for layer in layers
        ]

    def _choose(self, context: VisualizationContext) -> list[str]:
        _, rectified = trace_layers(context.network, context.to_network(torch.zeros(1, *context.input_spec.shape)))
        if not rectified:
            raise ValueError(f"{type(context.network).__name__} has no convolution: name the layers to dream at.")
        places = (len(rectified) // 4, len(rectified) // 2, len(rectified) - 1)
        return [rectified[place] for place in dict.fromkeys(places)]

    # Lightning's hooks.

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Begins anew."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._strip = PictureStrip()
            if self.image is None:
                self._photograph = None

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Takes the first image for the photograph."""
        if not trainer.sanity_checking:
            self._take(trainer, batch)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Takes the first image for the photograph if there will be no validation."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if not trainer.enable_validation:
            self._take(trainer, batch)

    def _take(self, trainer: pl.Trainer, batch: Any) -> None:
        if self._photograph is None and self._spec is not None and trainer.state.fn == "fit":
            with self.guarded(trainer.current_epoch + 1):
                image = images_of(batch, self.images)[:1].detach().float().cpu()
                photograph = self._spec.denormalize(image)[0].clamp(0, 1)
                self._photograph = trainer.strategy.broadcast(photograph)

    def state_dict(self) -> dict[str, Any]:
        """Adds the photograph and the strip."""
        return {**super().state_dict(), "photograph": self._photograph, "strip": self._strip.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up where a checkpoint left off."""
        super().load_state_dict(state_dict)
        if self.image is None:
            self._photograph = state_dict["photograph"]
        self._strip = PictureStrip.from_state_dict(state_dict["strip"])


STRIP_SIDE = 128
PICTURE_SIDE = 384


def read_photograph(path: str | Path) -> Tensor:
    """Reads a photograph, ``(3, H, W)`` in [0, 1].

    Raises:
        MisconfigurationException: If it is not there, or is no picture.
    """
    try:
        with Image.open(path) as image:
            pixels: Tensor = pil_to_tensor(image.convert("RGB"))
            return pixels / 255
    except OSError as error:
        raise MisconfigurationException(f"image={str(path)!r} cannot be read as a picture: {error}") from error
