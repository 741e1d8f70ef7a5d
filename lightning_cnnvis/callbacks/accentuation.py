"""What classes, units or layers see in a photograph, while the network trains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_cnnvis.callbacks.base.method import MethodCallback
from lightning_cnnvis.methods.accentuate import ACCENTUATE


class Accentuation(MethodCallback, method=ACCENTUATE):
    """Brings out what classes, units or layers see in the same photograph, at every epoch.

    See `accentuate` for the method and its source.

    Pictures: ``accentuation/targets``, the photograph, and for each target the image and what was added to it;
    ``accentuation/evolution``, a row a target, a column an epoch.

    Args:
        layers: Dotted names of the layers. Without layers and classes: a low, a middle and a high rectified
            convolution, and the class that the network takes the photograph for at that epoch.
        channels: Numbers of the channels of each layer, from 0, an image for each; all of a layer together if None.
        classes: Classes, by number or name.
        image: Path of a photograph. The first image of the first validation batch, or of the first training batch where
            there is no validation, if None.
        weight: Weight of the distance to the photograph: more keeps more of it, 0 lets go.
        keep: Layer of the features that are to stay; a rectified convolution at a quarter of the depth if None.
        steps: Number of optimisation steps.
        **schedule: What every visualisation takes: ``epochs``, ``every_n_epochs``, ``seed``, ``input_spec``,
            ``on_error`` and more; see `VisualizationCallback`.

    Raises:
        MisconfigurationException: If an argument is out of range or the photograph cannot be read; before training
            starts, if a layer, channel or class is not there.

    Examples:
        >>> callback = Accentuation(classes=[3, 5], epochs=[1, 10])
    """

    def __init__(
        self,
        *,
        layers: Sequence[str] | None = None,
        channels: Sequence[int] | None = None,
        classes: Sequence[int | str] | None = None,
        image: str | Path | None = None,
        weight: float = 1.0,
        keep: str | None = None,
        steps: int = 64,
        **schedule: Any,
    ) -> None:
        shown = {
            "layers": layers,
            "channels": channels,
            "classes": classes,
            "image": image,
            "weight": weight,
            "keep": keep,
            "steps": steps,
        }
        super().__init__(ACCENTUATE, shown, **schedule)
