"""A photograph as the network dreams it, while it trains."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from lightning_cnnvis import figures
from lightning_cnnvis.callbacks.base import VisualizationContext
from lightning_cnnvis.callbacks.base.distributed import gather_results, own_share
from lightning_cnnvis.callbacks.base.failure import naming_layer
from lightning_cnnvis.callbacks.base.fixed_images import ProbeCallback, read_photograph
from lightning_cnnvis.evolution.strips import PictureColumn
from lightning_cnnvis.functional.deepdream.octaves import DreamOptions, dream, zoom
from lightning_cnnvis.functional.network.defaults import choose_depths
from lightning_cnnvis.layers import trace_layers
from lightning_cnnvis.pictures import Picture, as_picture

STRIP_SIDE, PICTURE_SIDE = 128, 384


class DeepDream(ProbeCallback):
    """Dreams the same photograph at every epoch, at the chosen layers.

    Low layers give strokes, high layers objects. See `dream` for the method and its sources.

    Pictures: ``deepdream/<layer>``, the photograph beside its dream; ``deepdream/evolution``, a row a layer, a
    column an epoch; with ``zoom_frames``, ``deepdream_zoom/<layer>``, an animation of an endless fall (`zoom`).

    Args:
        layers: Dotted module names; a low, a middle and a high rectified convolution if None.
        image: Path of a photograph. The first image of the first validation batch, or of the first training batch where
            there is no validation, if None.
        options: How strongly and at which scales to dream; see `DreamOptions`.
        zoom_frames: Length of the animation of each layer; 0 for none. A frame takes about a third of a dream's time.
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
        zoom_frames: int = 0,
        **schedule: Any,
    ) -> None:
        if zoom_frames < 0:
            raise MisconfigurationException(f"zoom_frames={zoom_frames} must be 0 for no animation, or more.")
        super().__init__(None if image is None else read_photograph(image)[None], 1, layers=layers, **schedule)
        self.image = image
        self.options = options
        self.zoom_frames = zoom_frames
        self._shown_layers: list[str] = []

    def check(self, context: VisualizationContext) -> None:
        """Tries the layers out with a single step on a blank picture."""
        layers = self._choose(context) if context.layers is None else list(context.layers)
        once = DreamOptions(octaves=1, steps=1)
        blank = torch.zeros(context.input_spec.shape)
        for layer in layers:
            with naming_layer(layer):
                dream(context.network, blank, layer, input_spec=context.input_spec, options=once)
        self._shown_layers = layers

    def visualize(self, context: VisualizationContext) -> None:
        """Dreams, each process its share of the layers, and draws what came of it."""
        photograph = self.probes(context)[0]
        layers = self._shown_layers
        parts = gather_results(partial(self._dream, context, photograph, layers[own_share(len(layers))]))
        dreams = [dreamt.picture for part in parts for dreamt in part]
        for layer, dreamt in zip(layers, (dreamt for part in parts for dreamt in part), strict=True):
            if dreamt.zoom:
                context.sinks.animation(f"{self.label}_zoom/{layer}", dreamt.zoom, context.epoch, seconds_per_frame=0.1)
        original = figures.as_bytes(photograph[None])
        for layer, picture in zip(layers, dreams, strict=True):
            pair = torch.cat([original, picture[None]])
            drawn = figures.labelled_pictures(
                pair, ["photograph", layer], ["", "dreamt"], f"{layer} · epoch {context.epoch}", side=PICTURE_SIDE
            )
            context.sinks.picture(f"{self.label}/{layer}", drawn, context.epoch)
        small = figures.as_bytes(figures.reduced(torch.stack(dreams) / 255, STRIP_SIDE))
        self._strip.add(PictureColumn(context.epoch, small, tuple("" for _ in layers)))
        strip = figures.picture_strip(
            self._strip, layers, "DeepDream · evolution", original=photograph, side=STRIP_SIDE
        )
        context.sinks.picture(f"{self.label}/evolution", strip, context.epoch)

    def _dream(self, context: VisualizationContext, photograph: Tensor, layers: Sequence[str]) -> list[_Dreamt]:
        network, spec, dreams = context.network, context.input_spec, []
        for layer in layers:
            with naming_layer(layer):
                dreamt = dream(network, photograph, layer, input_spec=spec, seed=self.seed, options=self.options)
                frames: Iterable[Tensor] = ()
                if self.zoom_frames:
                    frames = zoom(
                        network, photograph, layer, input_spec=spec, frames=self.zoom_frames, seed=self.seed,
                        options=self.options,
                    )  # fmt: skip
                dreams.append(_Dreamt(figures.as_bytes(dreamt.images)[0], [as_picture(frame) for frame in frames]))
        return dreams

    def _choose(self, context: VisualizationContext) -> list[str]:
        _, rectified = trace_layers(context.network, context.to_network(torch.zeros(1, *context.input_spec.shape)))
        if not rectified:
            raise ValueError(f"{type(context.network).__name__} has no convolution: name the layers to dream at.")
        return choose_depths(rectified)


class _Dreamt(NamedTuple):
    """What came of one layer, small enough to be sent from process to process."""

    picture: Tensor
    zoom: list[Picture]
