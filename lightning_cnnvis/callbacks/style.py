"""A photograph in the style of other pictures, while the network trains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_cnnvis.callbacks.base.method import MethodCallback
from lightning_cnnvis.methods.style import STYLE


class Style(MethodCallback, method=STYLE):
    """Changes the same photograph at every epoch so that layers see the style of the same other pictures in it.

    See `stylize` for the method and its source. With ``style_class`` it is the style of a class's photographs.

    Pictures: ``style/picture``, the photograph, the style and the result; ``style/evolution``, the result, a column an
    epoch. Scalars: ``style_distance/<layer>``, the share of the style distance that is left;
    ``style_label_kept/picture``, whether the network takes the result for the photograph's class.

    Args:
        layers: Dotted names of the layers that hold the style; the first rectified convolution of each size of map if
            None.
        content_layer: Dotted name of the layer that holds the content; the last rectified convolution if None.
        image: Path of a photograph. The first image of the first validation batch, or of the first training batch where
            there is no validation, if None.
        style: Paths of pictures whose style it takes; those of ``style_class``, or the images that follow the first, if
            None.
        style_class: Number or name of a class whose style is taken, of the images that the network is validated on.
        count: Number of images to take for the style where no pictures are given.
        content_weight: Weight of the content, relative to the style: more keeps more of the photograph.
        steps: Number of optimisation steps.
        **schedule: What every visualisation takes: ``epochs``, ``every_n_epochs``, ``input_spec``, ``on_error`` and
            more; see `VisualizationCallback`.

    Raises:
        MisconfigurationException: If an argument is out of range or a picture cannot be read; before training starts,
            if a layer or class is not there.

    Examples:
        >>> callback = Style(style_class=3, count=8, epochs=[1, 10])
    """

    def __init__(
        self,
        *,
        layers: Sequence[str] | None = None,
        content_layer: str | None = None,
        image: str | Path | None = None,
        style: Sequence[str | Path] | None = None,
        style_class: int | str | None = None,
        count: int = 4,
        content_weight: float = 0.1,
        steps: int = 200,
        **schedule: Any,
    ) -> None:
        shown = {
            "layers": layers,
            "content_layer": content_layer,
            "image": image,
            "style": style,
            "style_class": style_class,
            "count": count,
            "content_weight": content_weight,
            "steps": steps,
        }
        super().__init__(STYLE, shown, **schedule)
