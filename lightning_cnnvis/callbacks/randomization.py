"""Whether projections depend on the network, while it trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning_cnnvis.callbacks.base.method import MethodCallback
from lightning_cnnvis.functional.network.canonical import LRNRule
from lightning_cnnvis.methods.randomization import RANDOMIZATION


class Randomization(MethodCallback, method=RANDOMIZATION):
    """Draws layers anew from the output down, on a copy, and compares projections with those of the network.

    See `randomization_test` for the method and its source. Each epoch that is shown takes a pass over the validation
    images.

    Pictures: ``randomization/<layer>``, projections at each stage, and the curves of their similarity below. Scalars:
    ``weight_dependence/<rule>/<layer>``, 0 where the picture is the same with random weights, 1 where it has nothing in
    common. Tables: ``randomization/<layer>``, every score.

    Args:
        layers: Dotted names of the layers; a low, a middle and a high rectified convolution if None.
        channels: Numbers of the feature maps of each layer, from 0; a seeded random choice if None.
        num_channels: Number of feature maps to choose; every one if None.
        rules: Rules of the way down; ``"deconvnet"``, ``"guided"`` and ``"gradient"`` if None, as far as the network
            allows them.
        stages: Number of stages, each of which draws one or more layers anew; a stage a layer if None.
        samples: Number of noisy copies of each image that a picture is the mean of.
        noise: Standard deviation of that noise over the range of values.
        lrn: Rule of local response normalisation: ``"identity"`` or ``"gradient"``.
        **schedule: What every visualisation takes: ``epochs``, ``every_n_epochs``, ``seed``, ``input_spec``,
            ``on_error`` and more; see `VisualizationCallback`.

    Raises:
        MisconfigurationException: If an argument is out of range; before training starts, if a layer is not there or
            cannot be projected.

    Examples:
        >>> callback = Randomization(["relu5"], rules=["deconvnet"], epochs=[1, 10])
    """

    def __init__(
        self,
        layers: Sequence[str] | None = None,
        channels: Sequence[int] | None = None,
        *,
        num_channels: int | None = 8,
        rules: Sequence[str] | None = None,
        stages: int | None = 6,
        samples: int = 1,
        noise: float = 0.1,
        lrn: LRNRule = "identity",
        **schedule: Any,
    ) -> None:
        tested = {
            "layers": layers,
            "channels": channels,
            "num_channels": num_channels,
            "rules": rules,
            "stages": stages,
            "samples": samples,
            "noise": noise,
            "lrn": lrn,
        }
        super().__init__(RANDOMIZATION, tested, **schedule)
