"""The parts of images that excite units of the last layers, while the network trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning_cnnvis.callbacks.base.method import MethodCallback
from lightning_cnnvis.methods.patches import PATCHES


class Patches(MethodCallback, method=PATCHES):
    """Finds the images of the validation that excite units of the last layers most, and the parts of them that do it.

    See `patches` for the method and its source. Each epoch that is shown takes a pass over the validation images.

    Pictures: ``patches/<layer>``, each unit's images with the parts outlined, and the parts below;
    ``patches/evolution/<layer>``, the strongest image of each unit, a row a unit, a column an epoch. Scalars:
    ``patches_area/<layer>``, the share of the images that is outlined.

    Args:
        layers: Dotted names of layers that give ``(N, units)``; the last two, rectified where they are, if None.
        channels: Numbers of the units to show of each layer, from 0; a seeded random choice if None.
        num_channels: Number of units to choose; every one if None.
        k: Number of images of each unit.
        patch: Side of the square that covers parts in pixels; a seventh of the input's shorter side if None.
        stride: Step of the square in pixels; half of its side if None.
        **schedule: What every visualisation takes: ``epochs``, ``every_n_epochs``, ``seed``, ``input_spec``,
            ``on_error`` and more; see `VisualizationCallback`.

    Raises:
        MisconfigurationException: If an argument is out of range; before training starts, if a layer is not there or
            has a map, or the square is larger than the input.

    Examples:
        >>> callback = Patches(layers=["relu7", "fc8"], num_channels=4, epochs=[1, 10])
    """

    def __init__(
        self,
        *,
        layers: Sequence[str] | None = None,
        channels: Sequence[int] | None = None,
        num_channels: int | None = 6,
        k: int = 4,
        patch: int | None = None,
        stride: int | None = None,
        **schedule: Any,
    ) -> None:
        shown = {
            "layers": layers,
            "channels": channels,
            "num_channels": num_channels,
            "k": k,
            "patch": patch,
            "stride": stride,
        }
        super().__init__(PATCHES, shown, **schedule)
