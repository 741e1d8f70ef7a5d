"""Whether layers treat the same part alike in different images, while the network trains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_cnnvis.callbacks.base.method import MethodCallback
from lightning_cnnvis.inputs.parts import Boxes
from lightning_cnnvis.methods.correspondence import CORRESPONDENCE


class Correspondence(MethodCallback, method=CORRESPONDENCE):
    """Covers the same part in several images at every epoch, and compares how layers react.

    See `correspondence` for the method and its source.

    Pictures: ``correspondence/parts``, the images with the parts, and the deltas of each layer as bars;
    ``correspondence/evolution``, the bars on one scale, a row a layer, a column an epoch. Table:
    ``correspondence/deltas``, those of the last epoch. Scalars: ``correspondence_delta/<layer>/<part>``.

    Args:
        layers: Dotted names of the layers; a low, a middle and a high rectified convolution if None.
        images_from: Paths of photographs, cut to the network's input size. Those that the parts' file names, or the
            first images of one class of the validation, if None.
        parts: A file in which parts are marked, or boxes by name; see `CorrespondenceOptions`. Five places that are the
            same in all images if None.
        of_class: Name or number of the class whose images are taken where none are given; the first of which there are
            enough if None.
        count: Number of images of the class.
        random_sets: Number of sets of random parts to compare to.
        **schedule: What every visualisation takes: ``epochs``, ``every_n_epochs``, ``seed``, ``input_spec``,
            ``on_error`` and more; see `VisualizationCallback`.

    Raises:
        MisconfigurationException: If an argument is out of range, a photograph or the parts cannot be read, or do not
            fit together; before training starts, if there is no such layer or class.

    Examples:
        >>> callback = Correspondence(layers=["relu5"], of_class="cat", epochs=[1, 10])
    """

    def __init__(
        self,
        *,
        layers: Sequence[str] | None = None,
        images_from: Sequence[str | Path] | None = None,
        parts: str | Path | Boxes | None = None,
        of_class: int | str | None = None,
        count: int = 5,
        random_sets: int = 10,
        **schedule: Any,
    ) -> None:
        compared = {
            "layers": layers,
            "images": images_from,
            "parts": parts,
            "of_class": of_class,
            "count": count,
            "random_sets": random_sets,
        }
        super().__init__(CORRESPONDENCE, compared, **schedule)
