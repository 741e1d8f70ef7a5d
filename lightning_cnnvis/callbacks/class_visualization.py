"""What the network takes for its classes, while it trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lightning_cnnvis.callbacks.base.context import VisualizationContext
from lightning_cnnvis.callbacks.base.method import MethodCallback
from lightning_cnnvis.functional.optimization.recipes import Recipe
from lightning_cnnvis.methods.classes import CLASSES
from lightning_cnnvis.methods.judges import JudgeName, load_judges
from lightning_cnnvis.methods.own_statistics import OwnStatistics


class ClassVisualization(MethodCallback, method=CLASSES):
    """Shows what the network takes for its classes: images optimised from noise, the same noise at every epoch.

    Two epochs differ by the weights only. See `visualize_classes` for the method and its sources, and
    `ActivationMaximization` for feature maps in the place of classes.

    Pictures: ``class_visualization/classes``, a labelled grid; ``class_visualization/forming``, how the first sample of
    each class comes out of the noise; ``class_visualization/evolution``, a row a class, a column an epoch;
    ``class_visualization/transparency``, if asked for, what the steps pulled at.

    Scalars: ``class_probability/<class>``, the probability reached on the clean image; ``class_visualization/steps``;
    ``class_transfer/<judge>``, the share of the images whose class a judge sees. Table:
    ``class_visualization/transfer``, each judge's probability and rank of each image's class.

    Args:
        classes: Names or numbers of the classes; the first twelve if None.
        samples_per_class: Number of images of each class.
        preset: Name of a recipe: ``"fourier"``, ``"maco"``, ``"deepinversion"``, ``"plug_in"``, ``"yosinski2015"``,
            ``"simonyan2013"``, ``"none"`` or one that was registered; or a `Recipe`. See `preset_recipe`.
        steps: Number of optimisation steps; the preset's if None.
        statistics: Colours and spectrum for ``"fourier"`` and ``"maco"``: ``"own"`` measures them on the images at
            hand, during a training once, on its own images; or ``ImageStatistics.measure(images)``. Those of everyday
            photographs if None.
        transparency: Whether a second picture shows only what the steps pulled at; see `Visualizations`.
        real: Number of real images of each class, of those of the validation, whose way through the layers is compared
            with that of the optimised image: ``class_visualization/paths``. 0 leaves that out.
        judges: Other networks with the same classes, which say on each tile whether they see the class, too: published
            ones, ``"timm:resnet18"``; checkpoints, such as another run's; networks; or `Judge` with an input of its
            own. They are loaded once, before the training, and stay on the CPU.
        **schedule: What every visualisation takes: ``epochs``, ``every_n_epochs``, ``seed``, ``input_spec``,
            ``on_error`` and more; see `VisualizationCallback`.

    Raises:
        MisconfigurationException: If an argument is out of range; before training starts, if there is no such class, or
            the network is not a classifier.

    Examples:
        >>> callback = ClassVisualization(classes=["cat", "coffee"], epochs=[1, 10])
    """

    def __init__(
        self,
        *,
        classes: Sequence[int | str] | None = None,
        samples_per_class: int = 1,
        preset: str | Recipe = "fourier",
        steps: int | None = None,
        statistics: OwnStatistics | None = None,
        transparency: bool = False,
        real: int = 0,
        judges: Sequence[JudgeName] | None = None,
        **schedule: Any,
    ) -> None:
        shown = {
            "classes": classes,
            "samples_per_class": samples_per_class,
            "preset": preset,
            "steps": steps,
            "statistics": statistics,
            "transparency": transparency,
            "real": real,
            "judges": judges,
        }
        super().__init__(CLASSES, shown, **schedule)

    def check(self, context: VisualizationContext) -> None:
        """Loads the judges, once, and tries them out, too."""
        self.options = replace(self.options, judges=load_judges(self.options.judges) or None)
        super().check(context)
