"""Figures of optimised images: their state, how they form, and how they change over the epochs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from PIL import Image
from torch import Tensor

from lightning_cnnvis.evolution.strips import PictureStrip
from lightning_cnnvis.figures.layout import (
    PAPER,
    TEXT,
    beside,
    captioned,
    figure,
    font,
    mosaic,
    one_line,
    picture_grid,
    tile,
)
from lightning_cnnvis.functional.visualization.results import Visualizations
from lightning_cnnvis.pictures import Picture, from_bytes


def state_of(shown: Visualizations, n: int, strongest: Mapping[int, float] | None = None) -> str:
    """Describes how far an optimised image got: one line of numbers, one line with its state, and what else is known.

    Args:
        shown: The optimised images.
        n: Index of the image.
        strongest: For channels, the strongest activation on real images by channel, where it is known.

    Returns:
        For a class, its probability and logit; for a channel, its peak, also as a multiple of the strongest activation
        on real images; otherwise the score. The state follows on a second line, with the means if a second
        attempt made it, and on further lines how far it takes the way of real images, and how many judges see the
        class.
    """
    score = float(shown.scores[n])
    if shown.probabilities is not None:
        figures = f"p {float(shown.probabilities[n]):.2f} · {score:.3g}"
    elif shown.peaks is not None:
        peak, real = float(shown.peaks[n]), (strongest or {}).get(shown.targets[n], 0.0)
        figures = f"{peak:.3g}" + (f" · {peak / real:.1f}× real" if real > 0 else "")
    else:
        figures = f"{score:.3g}"
    by = f" ({shown.means[n]})" if shown.means is not None and shown.means[n] else ""
    lines = [figures, shown.states[n] + by]
    if shown.paths is not None:
        path = shown.paths[n]
        lines.append("no real images" if path is None else path.verdict(0))
    if shown.verdicts is not None:
        lines.append(shown.verdicts[n].words)
    return "\n".join(lines)


def labelled_pictures(
    pictures: Tensor, labels: Sequence[str], states: Sequence[str], title: str, note: str = "", *, side: int = 144
) -> Picture:
    """Draws pictures in a grid, each with its label and its state.

    Args:
        pictures: The pictures, ``(N, 3, h, w)``, ``uint8``.
        labels: Labels of the pictures.
        states: States of the pictures, as `state_of` returns them.
        title: Title of the figure.
        note: Text below the title.
        side: Length of a tile's longer side in pixels.

    Returns:
        The figure.
    """
    tiles = [
        captioned(captioned(tile(from_bytes(picture), side, smooth=True), state, faint=True), one_line(label))
        for picture, label, state in zip(pictures, labels, states, strict=True)
    ]
    rows = max(1, round(math.sqrt(len(tiles) / 1.5)))
    columns = math.ceil(len(tiles) / rows)
    return figure(mosaic(tiles, columns, gap=10), title, note)


TRANSPARENCY = "Opaque where the steps pulled at the image: what shines through is of no concern to the network."
"""Note on the pictures that `on_paper` gives."""


def on_paper(shown: Visualizations) -> Tensor:
    """Lays optimised images on white paper: where nothing pulled at them, it shines through.

    Args:
        shown: The optimised images, with their transparency.

    Returns:
        ``(N, C, H, W)`` in [0, 1].

    Raises:
        ValueError: If they have no transparency.
    """
    alpha = shown.with_alpha[:, -1:]
    return shown.images * alpha + (1 - alpha)


def forming_strip(
    frames: Sequence[Tensor], steps: Sequence[int], labels: Sequence[str], states: Sequence[str], title: str
) -> Picture:
    """Draws optimised images as they form: one row per image, from noise on the left to the result on the right.

    Args:
        frames: Frames of each image, ``(F, C, h, w)`` in [0, 1].
        steps: The F steps after which the frames were taken.
        labels: Labels of the images.
        states: States of the finished images, as `state_of` returns them.
        title: Title of the figure.

    Returns:
        The figure.
    """
    captions = []
    for label, state in zip(labels, states, strict=True):
        below = "\n" * state.count("\n")  # aligns the pictures of a row
        captions.append([one_line(label) + below, *[below] * (len(steps) - 2), state])
    return picture_grid([list(of_image) for of_image in frames], [f"step {step}" for step in steps], captions, title)


def picture_strip(
    strip: PictureStrip, labels: Sequence[str], title: str, *, original: Tensor | None = None, side: int = 96
) -> Picture:
    """Draws pictures over the epochs: one row per label, one column per epoch.

    Args:
        strip: The epochs so far, at least one.
        labels: Labels of the rows.
        title: Title of the figure.
        original: The image that all pictures were made from, ``(C, H, W)`` in [0, 1]; shown at the start of each row.
        side: Length of a tile's longer side in pixels.

    Returns:
        The figure.
    """

    def cells_of(pictures: Iterable[Tensor], captions: Iterable[str], head: str) -> Image.Image:
        cells = [
            captioned(tile(picture, side, smooth=True), caption, faint=True)
            for picture, caption in zip(pictures, captions, strict=True)
        ]
        return captioned(mosaic(cells, 1, gap=10), head)

    columns = [
        cells_of(from_bytes(column.pictures), column.captions, f"epoch {column.epoch}") for column in strip.columns
    ]
    if original is not None:
        blank = ["\n" * caption.count("\n") for caption in strip.columns[0].captions]
        columns.insert(0, cells_of([original] * len(labels), blank, "original"))
    height = (columns[0].height - TEXT - 5 + 10) // len(labels) - 10
    labels = [one_line(label) for label in labels]
    width = math.ceil(max(font(TEXT).getlength(label) for label in labels))
    heads = [captioned(Image.new("RGB", (min(width, 160), height - TEXT - 5), PAPER), label) for label in labels]
    return figure(beside([captioned(mosaic(heads, 1, gap=10), " "), *columns], gap=10), title)
