"""Scalars of a run over its epochs: as a table, and as a plot."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Mapping
from typing import Any

from lightning_utilities.core.imports import module_available

Curves = Mapping[str, Mapping[int, float]]
"""Scalars by tag and epoch."""


def save_csv(curves: Curves) -> bytes:
    """Formats curves as CSV, one row per tag and epoch.

    Args:
        curves: Scalars by tag and epoch.

    Returns:
        The contents of the file.

    Examples:
        >>> print(save_csv({"dead_maps/relu1": {1: 0.25}}).decode())
        tag,epoch,value
        dead_maps/relu1,1,0.25
    """
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    table.writerow(("tag", "epoch", "value"))
    table.writerows((tag, epoch, value) for tag, points in curves.items() for epoch, value in points.items())
    return buffer.getvalue().encode()


def curves_figure(curves: Curves, titles: Mapping[str, str] | None = None) -> Any:
    """Plots curves with Matplotlib: one panel for each first part of the tags, one line per layer.

    Args:
        curves: Scalars by tag and epoch.
        titles: Titles of the panels, by first part of the tags; the part itself where there is none.

    Returns:
        The Matplotlib figure.

    Raises:
        ModuleNotFoundError: If Matplotlib is not installed.
    """
    if not module_available("matplotlib"):
        raise ModuleNotFoundError("A plot needs Matplotlib. Run: python -m pip install 'lightning-cnnvis[posthoc]'")
    from matplotlib.figure import Figure  # noqa: PLC0415 - optional
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    panels: dict[str, dict[str, Mapping[int, float]]] = {}
    for tag, points in curves.items():
        kind, _, layer = tag.partition("/")
        # one panel holds what a validation logs, losses and accuracies, under their own names
        panels.setdefault(kind if layer else "Validation", {})[layer or tag] = points
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(6.2 * columns, 3.3 * rows), layout="constrained")
    for place, (kind, lines) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(rows, columns, place)
        for name, points in lines.items():
            axes.plot(list(points), list(points.values()), marker="o", markersize=3, label=name)
        axes.set_title((titles or {}).get(kind, kind.replace("_", " ")), fontsize=11, loc="left")
        values = [value for points in lines.values() for value in points.values()]
        if len(set(values)) == 1:  # a line that does not move: no axis of tiny numbers around it
            axes.set_ylim(min(0.0, 1.1 * values[0]), max(1.0, 1.1 * values[0]))
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8, frameon=False)
    return figure


def curves_picture(curves: Curves, titles: Mapping[str, str] | None = None) -> bytes | None:
    """Plots curves as a PNG file.

    Args:
        curves: Scalars by tag and epoch.
        titles: Titles of the panels, by first part of the tags; the part itself where there is none.

    Returns:
        The contents of the file. None if there is nothing to plot and, with a warning, if Matplotlib is not installed.
    """
    if not curves:
        return None
    try:
        figure = curves_figure(curves, titles)
    except ModuleNotFoundError as error:
        warnings.warn(str(error), stacklevel=2)
        return None
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
