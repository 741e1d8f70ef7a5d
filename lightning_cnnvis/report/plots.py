"""From the numbers of a run over its epochs to a report's plots."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from lightning_cnnvis.evolution.accuracy import Measurement, correlations, find_accuracy
from lightning_cnnvis.methods.method import Method, ScalarPlot
from lightning_cnnvis.methods.registry import all_methods, scalar_plots
from lightning_cnnvis.viewer.content import Curves


def plots_of(curves: Mapping[str, Mapping[int, float]], accuracy: str = "val_accuracy") -> tuple[Curves, ...]:
    """A plot for each kind of number, and one of each method's error against the accuracy.

    What the training itself logged, such as ``"val_loss"`` and ``"val/acc"``, comes first.

    Args:
        curves: Numbers by tag, such as ``"top_overlap/relu1"``, and epoch.
        accuracy: The tag of the validation accuracy; see `find_accuracy` for what is taken if there is none.

    Returns:
        The plots; numbers that are not finite are left out.

    Examples:
        >>> [plot.title for plot in plots_of({"val_accuracy": {1: 0.5, 2: 0.75}, "val_loss": {1: 0.9}})]
        ['Accuracy', 'Validation loss']
    """
    panels: dict[str, dict[str, tuple[tuple[float, float], ...]]] = {}
    for tag, points in curves.items():
        kind, _, layer = (tag, "", "") if _OF_TRAINING.match(tag) else tag.partition("/")
        finite = tuple((float(epoch), value) for epoch, value in points.items() if math.isfinite(value))
        if finite:
            # accuracies share an axis, losses have their own
            panels.setdefault("accuracy" if not layer and "acc" in tag else kind, {})[layer or tag] = finite
    known = {"accuracy": ScalarPlot("Accuracy"), **scalar_plots()}
    order = sorted(panels, key=lambda kind: (kind != "accuracy", "loss" not in kind))
    plots = []
    for kind in order:
        title, note, _ = known.get(kind, ScalarPlot(_title(kind)))
        plots.append(Curves(title, "epoch", panels[kind], note))
    against = (_against_accuracy(curves, accuracy, method) for method in all_methods() if method.error)
    return (*plots, *filter(None, against))


_OF_TRAINING = re.compile(r"(train|val|valid|validation|test)/", re.IGNORECASE)


def _title(kind: str) -> str:
    """The name of a metric in words."""
    words = re.split(r"[_/ ]+", kind)
    return " ".join({"val": "validation", "acc": "accuracy"}.get(word.lower(), word) for word in words).capitalize()


def _against_accuracy(
    curves: Mapping[str, Mapping[int, float]], accuracy: str, method: Method[..., Any]
) -> Curves | None:
    known = curves.get(find_accuracy({tag: points.values() for tag, points in curves.items()}, accuracy) or "", {})
    measurements = [
        Measurement("run", epoch, tag.removeprefix(f"{method.error}/"), error, known[epoch])
        for tag, points in curves.items()
        if tag.startswith(f"{method.error}/")
        for epoch, error in points.items()
        if epoch in known and math.isfinite(error) and error > 0
    ]
    if not measurements:
        return None
    title = method.plots[method.error].title
    return Curves(
        f"{title} and accuracy",
        title.lower(),
        {
            f"{layer}: {correlation}": tuple((m.error, m.accuracy) for m in measurements if m.layer == layer)
            for layer, correlation in correlations(measurements).items()
        },
        "A point an epoch: the validation accuracy over the error, with the rank correlation.",
        joined=False,
        log=True,
    )
