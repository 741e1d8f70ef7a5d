"""From the numbers of a run over its epochs to a report's plots."""

from __future__ import annotations

import math
from collections.abc import Mapping

from lightning_cnnvis.evolution.accuracy import Measurement, correlations
from lightning_cnnvis.figures.curves import TITLES
from lightning_cnnvis.report.content import Curves

_NOTES = {
    "projection_similarity": "Of projections from images that stay the same: a layer near 1 has settled.",
    "top_overlap": "Of the images that activate a map most.",
    "dead_maps": "Maps that no image activates.",
    "inversion_label_kept": "Rebuilt images that the network puts into the class it gave the original.",
    "inversion_variance": "Of the pixels, between images rebuilt from different noise: what the layer leaves open.",
    "inversion_error": "Squared, over the features' squared norm, of images rebuilt from each layer.",
}
_ERROR = "inversion_error/"


def plots_of(curves: Mapping[str, Mapping[int, float]], accuracy: str = "val_accuracy") -> tuple[Curves, ...]:
    """A plot for each kind of number, and one of the inversion error against the accuracy.

    Args:
        curves: Numbers by tag, such as ``"top_overlap/relu1"``, and epoch.
        accuracy: The tag of the validation accuracy.

    Returns:
        The plots; numbers that are not finite are left out.

    Example:
        >>> [plot.title for plot in plots_of({"val_accuracy": {1: 0.5, 2: 0.75}, "val_loss": {1: 0.9}})]
        ['Accuracy', 'Val loss']
    """
    panels: dict[str, dict[str, tuple[tuple[float, float], ...]]] = {}
    for tag, points in curves.items():
        kind, _, layer = tag.partition("/")
        finite = tuple((float(epoch), value) for epoch, value in points.items() if math.isfinite(value))
        if finite:
            # accuracies share an axis, losses have their own
            panels.setdefault("accuracy" if not layer and "acc" in tag else kind, {})[layer or tag] = finite
    titles = {"accuracy": "Accuracy", **TITLES}
    # what the training itself says comes first
    order = sorted(panels, key=lambda kind: (kind != "accuracy", "loss" not in kind))
    plots = [
        Curves(titles.get(k, k.replace("_", " ").capitalize()), "epoch", panels[k], _NOTES.get(k, "")) for k in order
    ]
    against = _against_accuracy(curves, accuracy)
    return (*plots, against) if against else tuple(plots)


def _against_accuracy(curves: Mapping[str, Mapping[int, float]], accuracy: str) -> Curves | None:
    known = curves.get(accuracy, {})
    measurements = [
        Measurement("run", epoch, tag.removeprefix(_ERROR), error, known[epoch])
        for tag, points in curves.items()
        if tag.startswith(_ERROR)
        for epoch, error in points.items()
        if epoch in known and math.isfinite(error) and error > 0
    ]
    if not measurements:
        return None
    return Curves(
        "Inversion error and accuracy",
        "inversion error",
        {
            f"{layer}: {correlation}": tuple((m.error, m.accuracy) for m in measurements if m.layer == layer)
            for layer, correlation in correlations(measurements).items()
        },
        "A point an epoch: the validation accuracy over the error, with the rank correlation.",
        joined=False,
        log=True,
    )
