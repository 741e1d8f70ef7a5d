"""The numbers of a run over its epochs: as a table, and as a plot."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Mapping
from typing import Any

from lightning_utilities.core.imports import module_available

Curves = Mapping[str, Mapping[int, float]]
"""Numbers by tag and epoch."""

TITLES = {
    "projection_similarity": "Similarity of projections to the epoch before",
    "top_overlap": "Overlap of top images with the epoch before",
    "dead_maps": "Share of dead feature maps",
    "inversion_error": "Inversion error",
    "inversion_variance": "Variance between restarts",
    "inversion_label_kept": "Reconstructions of the original's class",
    "class_probability": "Probability of optimised classes",
}
"""What the first part of a tag is called in a plot."""


def save_csv(curves: Curves) -> bytes:
    """The curves as CSV: a row a tag and epoch.

    Example:
        >>> print(save_csv({"dead_maps/relu1": {1: 0.25}}).decode())
        tag,epoch,value
        dead_maps/relu1,1,0.25
    """
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    table.writerow(("tag", "epoch", "value"))
    table.writerows((tag, epoch, value) for tag, points in curves.items() for epoch, value in points.items())
    return buffer.getvalue().encode()


def curves_figure(curves: Curves) -> Any:
    """The curves as a figure of matplotlib: a panel for the first part of the tags, a line for each layer.

    Args:
        curves: Numbers by tag and epoch.

    Returns:
        The figure.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.
    """
    if not module_available("matplotlib"):
        raise ModuleNotFoundError("A plot needs matplotlib: python -m pip install 'lightning-cnnvis[posthoc]'")
    from matplotlib.figure import Figure  # noqa: PLC0415 - only there if the user has it
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    panels: dict[str, dict[str, Mapping[int, float]]] = {}
    for tag, points in curves.items():
        kind, _, layer = tag.partition("/")
        # what a validation logs in one panel: losses and accuracies under their own names
        panels.setdefault(kind if layer else "Validation", {})[layer or tag] = points
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(6.2 * columns, 3.3 * rows), layout="constrained")
    for place, (kind, lines) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(rows, columns, place)
        for name, points in lines.items():
            axes.plot(list(points), list(points.values()), marker="o", markersize=3, label=name)
        axes.set_title(TITLES.get(kind, kind.replace("_", " ")), fontsize=11, loc="left")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8, frameon=False)
    return figure


def curves_picture(curves: Curves) -> bytes | None:
    """The plot as a PNG file; None if there is nothing to plot, or, with a warning, without matplotlib."""
    if not curves:
        return None
    try:
        figure = curves_figure(curves)
    except ModuleNotFoundError as error:
        warnings.warn(str(error), stacklevel=2)
        return None
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
