"""What the network looks at in the same images, while it trains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_cnnvis.callbacks.base.method import MethodCallback
from lightning_cnnvis.functional.deconvnet.rules import Rule
from lightning_cnnvis.methods.occlusion import OCCLUSION


class Occlusion(MethodCallback, method=OCCLUSION):
    """Covers parts of the same images with a grey square at every epoch, and maps what the network then says of them.

    See `occlusion` for the method and its source.

    Pictures: ``occlusion/images``, a row an image: the image, the most harmful square, the projection and the activity
    of the strongest feature map, the probability of the class, the most probable class; ``occlusion/evolution``, the
    probability laid over the image, a row an image, a column an epoch, all on the scale from 0 to 1.

    Scalars: ``occlusion_largest_drop`` and ``occlusion_mean_drop``, how far the most harmful square, and all of them on
    average, lower the probability.

    Args:
        layer: Dotted name of the layer whose strongest feature map is followed; the deepest rectified convolution if
            None.
        images_from: Paths of photographs, cut to the network's input size. The first images of the first validation
            batch, or of the first training batch where there is no validation, if None.
        probes: Number of images to take from the batch.
        classes: Name or number of the class of each image, or of all; what the network takes each image for, at each
            epoch anew, if None. Name it to compare epochs.
        patch: Side of the square in pixels; a seventh of the input's shorter side if None.
        stride: Step of the square in pixels; a quarter of its side if None.
        rule: Rule of the feature map's projection; one that fits the network if None. See `OcclusionOptions`.
        **schedule: What every visualisation takes: ``epochs``, ``every_n_epochs``, ``input_spec``, ``on_error`` and
            more; see `VisualizationCallback`.

    Raises:
        MisconfigurationException: If an argument is out of range or a photograph cannot be read; before training
            starts, if there is no such layer or class, or the square is larger than the input.

    Examples:
        >>> callback = Occlusion(classes=["cat"], images_from=None, patch=8, stride=2, epochs=[1, 10])
    """

    def __init__(
        self,
        *,
        layer: str | None = None,
        images_from: Sequence[str | Path] | None = None,
        probes: int = 3,
        classes: Sequence[int | str] | None = None,
        patch: int | None = None,
        stride: int | None = None,
        rule: str | Rule | None = None,
        **schedule: Any,
    ) -> None:
        covered = {
            "layer": layer,
            "images": images_from,
            "count": probes,
            "classes": classes,
            "patch": patch,
            "stride": stride,
            "rule": rule,
        }
        super().__init__(OCCLUSION, covered, **schedule)
