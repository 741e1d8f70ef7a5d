"""Plot of inversion error against validation accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lightning_cnnvis.evolution.accuracy import Measurement, correlations, require
from lightning_cnnvis.pictures import Picture


def plot(measurements: Sequence[Measurement], title: str = "Inversion error and accuracy") -> Picture:
    """Plots error against accuracy: one panel per layer, one line per run, darker points for later epochs.

    Args:
        measurements: The measurements, at least one.
        title: Title of the figure.

    Returns:
        The figure, ``(H, W, 3)``, ``uint8``.

    Raises:
        ValueError: If there are no measurements.
        ModuleNotFoundError: If Matplotlib or SciPy is missing.
    """
    if not measurements:
        raise ValueError("There are no measurements to plot. Invert features at one epoch at least.")
    require("matplotlib", "scipy")
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - optional, and slow to import
    from matplotlib.figure import Figure  # noqa: PLC0415
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter  # noqa: PLC0415

    found = correlations(measurements)
    runs = list(dict.fromkeys(m.run for m in measurements))
    rows = math.ceil(len(found) / 4)
    columns = math.ceil(len(found) / rows)
    figure = Figure(figsize=(3.1 * columns, 2.7 * rows + 0.9), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=13, x=0.01, ha="left")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True).flatten()
    for panel, (layer, correlation) in zip(axes, found.items(), strict=False):
        for n, run in enumerate(runs):
            own = sorted((m for m in measurements if (m.run, m.layer) == (run, layer)), key=lambda m: m.epoch)
            errors, accuracies = [m.error for m in own], [100 * m.accuracy for m in own]
            panel.plot(errors, accuracies, "-", color=f"C{n % 10}", alpha=0.4, linewidth=1)
            age = np.linspace(0.35, 1, len(own))
            panel.scatter(errors, accuracies, s=18, color=f"C{n % 10}", alpha=age, label=run, linewidths=0)
        panel.set_title(f"{layer}\n{correlation}", fontsize=9, loc="left")
        panel.set_xscale("log")
        low, high = panel.get_xlim()
        # a narrow range may contain no tick at 1, 2 or 5
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if high > 4 * low else MaxNLocator(4))
        panel.xaxis.set_major_formatter("{x:g}")
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.grid(alpha=0.25)
        panel.tick_params(labelsize=8, which="both")
        panel.tick_params(axis="x", labelrotation=35)
    for panel in axes[len(found) :]:
        panel.set_visible(False)
    figure.supxlabel("inversion error, squared and relative to the code", fontsize=9)
    figure.supylabel("validation accuracy, %", fontsize=9)
    if len(runs) > 1:
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=min(4, len(runs)), fontsize=8, frameon=False)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]
