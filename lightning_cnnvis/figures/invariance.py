"""Curves over the strength of transformations, and small ones of them for a strip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from lightning_cnnvis.evolution.accuracy import require
from lightning_cnnvis.pictures import Picture, as_bytes

_COLORS = ((31, 119, 180), (214, 39, 40), (44, 160, 44), (148, 103, 189), (255, 127, 14), (23, 190, 207))


def invariance_figure(
    panels: Mapping[str, Mapping[str, Tensor]],
    strengths: Mapping[str, Tensor],
    units: Mapping[str, str],
    examples: Mapping[str, Tensor],
    labels: Sequence[str],
    title: str,
) -> Picture:
    """Plots curves: a row a transformation, with examples of it, then a panel each for the layers and the probability.

    Args:
        panels: Curves ``(N, steps)``, by title of the panel and by transformation.
        strengths: Strengths ``(steps,)``, by transformation.
        units: The unit of the strengths, by transformation.
        examples: Pictures ``(E, C, H, W)`` in [0, 1] of the first image, by transformation.
        labels: What each of the N curves belongs to.
        title: Title of the figure.

    Returns:
        The figure, ``(H, W, 3)``, ``uint8``.

    Raises:
        ModuleNotFoundError: If Matplotlib is missing.
    """
    require("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - optional, and slow to import
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(2.9 * (len(panels) + 1) + 0.6, 2.05 * len(strengths) + 1.1), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=13, x=0.01, ha="left")
    axes = figure.subplots(len(strengths), len(panels) + 1, squeeze=False)
    # one scale for the distances of all layers and transformations, so that they compare; probabilities have their own
    distances = [curves for panel, kinds in panels.items() if panel != "probability" for curves in kinds.values()]
    finite = [float(curves[curves.isfinite()].max()) for curves in distances if curves.isfinite().any()]
    top = 1.05 * max(finite, default=1.0) or 1.0
    for number, (row, (name, values)) in enumerate(zip(axes, strengths.items(), strict=True)):
        row[0].imshow(np.concatenate(list(as_bytes(examples[name]).permute(0, 2, 3, 1).numpy()), axis=1))
        row[0].set_axis_off()
        row[0].set_title(name, fontsize=10, loc="left")
        order = values.argsort()
        for axis, (panel, kinds) in zip(row[1:], panels.items(), strict=True):
            for n, curve in enumerate(kinds[name]):
                color = np.array(_COLORS[n % len(_COLORS)]) / 255
                axis.plot(values[order], curve[order], color=color, linewidth=1.3, label=labels[n])
            axis.set_ylim(0, 1.02 if panel == "probability" else top)
            axis.set_xlabel(units[name], fontsize=8)
            axis.tick_params(labelsize=7)
            axis.spines[["top", "right"]].set_visible(False)
            axis.grid(alpha=0.25)
            if number == 0:
                heading = "probability of the class" if panel == "probability" else f"{panel}: distance"
                axis.set_title(heading, fontsize=10, loc="left")
    if len(labels) > 1:
        handles, known = axes[0][1].get_legend_handles_labels()
        figure.legend(handles, known, loc="outside upper right", ncols=min(6, len(labels)), fontsize=8, frameon=False)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def small_curves(curves: Sequence[Tensor], strengths: Tensor, top: float, size: tuple[int, int]) -> Tensor:
    """Draws curves as a small picture, from the strongest negative strength to the strongest positive one.

    Args:
        curves: One or more, ``(steps,)``, each in a colour of its own.
        strengths: ``(steps,)``.
        top: The value at the upper edge.
        size: Height and width of the picture in pixels.

    Returns:
        ``(3, *size)``, ``uint8``.
    """
    height, width = size
    image = Image.new("RGB", (4 * width, 4 * height), "white")  # drawn large, and made smooth by scaling
    draw = ImageDraw.Draw(image)
    order = strengths.argsort()
    span = float(strengths.max() - strengths.min()) or 1.0
    places = [(float(s - strengths.min()) / span) * (4 * width - 1) for s in strengths[order]]
    for curve, color in zip(curves, _COLORS * len(curves), strict=False):
        heights = [(1 - min(float(value) / top, 1.0)) * (4 * height - 8) + 4 for value in curve[order].nan_to_num(0.0)]
        draw.line(list(zip(places, heights, strict=True)), fill=color, width=8, joint="curve")
    draw.rectangle((0, 0, 4 * width - 1, 4 * height - 1), outline=(180, 180, 180), width=4)
    small = np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))
    return torch.from_numpy(small.copy()).permute(2, 0, 1)
