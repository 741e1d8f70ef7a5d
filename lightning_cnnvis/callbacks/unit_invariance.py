"""What units do not care about, while the network trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning_cnnvis.callbacks.base.method import MethodCallback
from lightning_cnnvis.functional.optimization.recipes import Recipe
from lightning_cnnvis.methods.unit_invariance import UNIT_INVARIANCE


class UnitInvariance(MethodCallback, method=UNIT_INVARIANCE):
    """Walks from what units respond to most in the directions that they care about least and most.

    The stimuli are optimised from the same noise at every epoch. See `unit_invariance` for the method and its source.

    Pictures: ``unit_invariance/<layer>``, a row a direction; ``unit_invariance/evolution/<layer>``, the stimuli, a
    column an epoch.

    Scalars: ``unit_invariance_curvature/<change>/<layer>``, the curvature of the activation in the direction of shifts,
    rotation, scale, phase, hue and saturation, a mean over the units: 0 is invariant.

    Args:
        layers: Dotted names of the layers; the deepest rectified convolution if None.
        channels: Numbers of the feature maps or units of each layer, from 0; a seeded choice if None.
        num_channels: Number to choose; every one if None.
        real: Whether to begin at the image that excites the unit most, of the first ``sample`` of the validation.
        sample: Number of images to look for it.
        num_directions: Number of directions of each kind, least and most.
        frequencies: Highest frequency of the search, in periods over the receptive field.
        preset: Name of a recipe of the stimuli, or a `Recipe`; see `ClassVisualization`.
        steps: Number of optimisation steps; the preset's if None.
        **schedule: What every visualisation takes: ``epochs``, ``every_n_epochs``, ``seed``, ``input_spec``,
            ``on_error`` and more; see `VisualizationCallback`.

    Raises:
        MisconfigurationException: If an argument is out of range; before training starts, if there is no such layer or
            channel.

    Examples:
        >>> callback = UnitInvariance(["relu5"], [3, 17], epochs=[1, 10])
    """

    def __init__(
        self,
        layers: Sequence[str] | None = None,
        channels: Sequence[int] | None = None,
        *,
        num_channels: int | None = 2,
        real: bool = False,
        sample: int = 64,
        num_directions: int = 3,
        frequencies: int = 4,
        preset: str | Recipe = "fourier",
        steps: int | None = None,
        **schedule: Any,
    ) -> None:
        walked = {
            "layers": layers,
            "channels": channels,
            "num_channels": num_channels,
            "real": real,
            "sample": sample,
            "num_directions": num_directions,
            "frequencies": frequencies,
            "preset": preset,
            "steps": steps,
        }
        super().__init__(UNIT_INVARIANCE, walked, **schedule)
