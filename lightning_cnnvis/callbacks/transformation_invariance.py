"""What transformations of the same images change in the network, while it trains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_cnnvis.callbacks.base.method import MethodCallback
from lightning_cnnvis.methods.invariance import INVARIANCE


class TransformationInvariance(MethodCallback, method=INVARIANCE):
    """Translates, scales, turns and recolours the same images at every epoch, and measures what that changes.

    See `transformation_invariance` for the method and its source.

    Pictures: ``invariance/curves``, a row a transformation, a panel a layer, a curve an image;
    ``invariance/evolution``, the mean curve of each layer over the sample, a column an epoch.

    Scalars: ``invariance_area/<transformation>/<layer>`` and ``invariance_probability/<transformation>``, the areas
    under the curves over the range of strengths, averaged over the sample.

    Args:
        layers: Dotted names of the layers; the first, the middle and the last rectified convolution if None.
        images_from: Paths of photographs, cut to the network's input size. The first images of the first validation
            batch, or of the first training batch where there is no validation, if None.
        probes: Number of images to take from the batch.
        sample: Number of images of the validation that the areas are averaged over; None takes all.
        classes: Name or number of the class of each image, or of all; what the network takes each image for, at each
            epoch anew, if None.
        transformations: Names of the transformations; all if None.
        translations: Pixels down. This and the next: usual strengths if None, see `InvarianceOptions`.
        scales: Factors.
        rotations: Degrees clockwise.
        contrasts: Factors.
        colors: Degrees of hue.
        **schedule: What every visualisation takes: ``epochs``, ``every_n_epochs``, ``input_spec``, ``on_error`` and
            more; see `VisualizationCallback`.

    Raises:
        MisconfigurationException: If an argument is out of range or a photograph cannot be read; before training
            starts, if there is no such layer, class or transformation.

    Examples:
        >>> callback = TransformationInvariance(["relu1", "fc7"], transformations=["rotation"], epochs=[1, 10])
    """

    def __init__(
        self,
        layers: Sequence[str] | None = None,
        *,
        images_from: Sequence[str | Path] | None = None,
        probes: int = 5,
        sample: int | None = 32,
        classes: Sequence[int | str] | None = None,
        transformations: Sequence[str] | None = None,
        translations: Sequence[float] | None = None,
        scales: Sequence[float] | None = None,
        rotations: Sequence[float] | None = None,
        contrasts: Sequence[float] | None = None,
        colors: Sequence[float] | None = None,
        **schedule: Any,
    ) -> None:
        measured = {
            "layers": layers,
            "images": images_from,
            "count": probes,
            "sample": sample,
            "classes": classes,
            "transformations": transformations,
            "translations": translations,
            "scales": scales,
            "rotations": rotations,
            "contrasts": contrasts,
            "colors": colors,
        }
        super().__init__(INVARIANCE, measured, **schedule)
