"""A photograph as the network dreams it, while it trains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_cnnvis.callbacks.base.method import MethodCallback
from lightning_cnnvis.functional.deepdream.octaves import DreamOptions
from lightning_cnnvis.methods.dream import DREAM, PICTURE_SIDE


class DeepDream(MethodCallback, method=DREAM):
    """Dreams the same photograph at every epoch, at the chosen layers.

    Low layers give strokes, high layers objects. See `dream` for the method and its sources.

    Pictures: ``deepdream/<layer>``, the photograph beside its dream; ``deepdream/evolution``, a row a layer, a
    column an epoch; with ``zoom_frames``, ``deepdream_zoom/<layer>``, an animation of an endless fall (`zoom`).

    Args:
        layers: Dotted names of the layers; a low, a middle and a high rectified convolution if None.
        channels: Numbers of the only channels to enhance, from 0; all together if None.
        image: Path of a photograph. The first image of the first validation batch, or of the first training batch where
            there is no validation, if None.
        options: Strength and scales of the dream; see `DreamOptions`.
        zoom_frames: Length of the animation of each layer; 0 for none. A frame takes about a third of a dream's time.
        **schedule: What every visualisation takes: ``epochs``, ``every_n_epochs``, ``seed``, ``input_spec``,
            ``on_error`` and more; see `VisualizationCallback`.

    Raises:
        MisconfigurationException: If the photograph cannot be read; before training starts, if a layer is not there, or
            has no map.

    Examples:
        >>> callback = DeepDream(layers=["relu2", "relu5"], epochs=[1, 10])
    """

    def __init__(
        self,
        *,
        layers: Sequence[str] | None = None,
        channels: Sequence[int] | None = None,
        image: str | Path | None = None,
        options: DreamOptions | None = None,
        zoom_frames: int = 0,
        **schedule: Any,
    ) -> None:
        dreamt = {
            "layers": layers,
            "channels": channels,
            "image": image,
            "size": None,
            "picture_side": PICTURE_SIDE,
            "options": options,
            "zoom_frames": zoom_frames,
        }
        super().__init__(DREAM, dreamt, **schedule)
