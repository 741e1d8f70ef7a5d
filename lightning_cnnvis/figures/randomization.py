"""Figures of randomisation tests: a picture at each stage, and the curves of its similarity to the first below."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from lightning_cnnvis.figures.layout import (
    EMPTY,
    FAINT,
    PAPER,
    TEXT,
    beside,
    captioned,
    figure,
    font,
    mosaic,
    reduced,
    shortened,
    tile,
)
from lightning_cnnvis.figures.projections import contrast
from lightning_cnnvis.functional.randomization.results import Randomization
from lightning_cnnvis.pictures import Picture

MEASURE_NAMES = {
    "spearman_absolute": "rank correlation of magnitudes",
    "spearman": "rank correlation with signs",
    "ssim": "structural similarity (SSIM)",
    "hog": "oriented gradients (HOG)",
}
"""What the measures are called in figures."""

_COLORS = ((31, 119, 180), (214, 39, 40), (44, 160, 44), (148, 103, 189), (255, 127, 14), (23, 190, 207))
_SHOWN = 6  # stages of pictures
_FINER = 4  # lines are drawn larger, and made smooth by scaling
_LOWEST = -0.1


def randomization_figure(
    tests: Mapping[str, Randomization],
    patches: Tensor,
    labels: Sequence[str],
    title: str,
    *,
    side: int = 96,
    shown: int | None = None,
) -> Picture:
    """Draws pictures as layers are re-initialised from the output down, and below them the curves of their similarity.

    Args:
        tests: The test of each method, or rule, by its name; of the same layer, images and stages.
        patches: ``(N, C, h, w)`` in [0, 1], what the pictures are of.
        labels: Label of each picture.
        title: Title of the figure.
        side: Length of a tile's longer side in pixels.
        shown: Number of pictures that are drawn, of the first; all if None. The curves are means over all.

    Returns:
        The figure.
    """
    first = next(iter(tests.values()))
    stages = _chosen(len(first.layers))
    blocks = []
    for n, label in enumerate(labels[:shown]):
        rows = []
        for color, (name, test) in zip(_colors(tests), tests.items(), strict=True):
            pictures = [test.originals[n], *(test.pictures[stage, n] for stage in stages)]
            drawn = _drawn(pictures, side)
            # beside them the control that draws filters only
            control = test.controls.get("random filters")
            if control is not None:
                drawn.append(_drawn([control[n]], side)[0])
            rows.append(beside([_words(name, color, drawn[0].height), *drawn]))
        source = tile(patches[n], side, smooth=True)
        blocks.append(beside([captioned(source, label), mosaic(rows, 1, gap=4)], gap=8))
    width = _drawn([first.originals[0]], side)[0].width
    heads = ["trained", *(first.layers[stage] for stage in stages)] + ["filters only"] * bool(first.controls)
    words = Image.new("RGB", (blocks[0].width - len(heads) * (width + 2) + 2 - 2, 1), PAPER)
    head = beside([words, *(captioned(Image.new("RGB", (width, 1), PAPER), one) for one in heads)])
    curves = mosaic([_panel(tests, measure) for measure in _measures(first)], 4, gap=12)
    verdicts = "; ".join(f"{name} {test.verdict}" for name, test in tests.items())
    note = (
        "From left to right, layers get random weights, from the last one down to the one named. A picture that stays "
        "alike does not depend on those weights. Filters only: random filters under the switches of the trained "
        f"network; rings below. Dotted: chance, an unrelated picture of the same unit. {verdicts}."
    )
    return figure(_below([head, *blocks, curves]), title, note)


def _chosen(stages: int) -> list[int]:
    """Numbers of the stages whose pictures are shown, the last one among them."""
    count = min(_SHOWN, stages)
    return [round((n + 1) * stages / count) - 1 for n in range(count)]


def _colors(tests: Mapping[str, Randomization]) -> list[tuple[int, int, int]]:
    return [_COLORS[n % len(_COLORS)] for n in range(len(tests))]


def _measures(test: Randomization) -> list[str]:
    """The measures that the pictures are large enough for."""
    return [measure for measure in MEASURE_NAMES if measure in test.scores and test.scores[measure].isfinite().any()]


def _drawn(pictures: Sequence[Tensor], side: int) -> list[Image.Image]:
    small = contrast(reduced(torch.stack(list(pictures)).cpu().float().nan_to_num(), side))
    return [tile(picture, side) for picture in small]


def _words(text: str, color: tuple[int, int, int], height: int) -> Image.Image:
    sheet = Image.new("RGB", (76, height), PAPER)
    ImageDraw.Draw(sheet).text((0, height // 2 - TEXT // 2), shortened(text, TEXT, 74), color, font(TEXT))
    return sheet


def _panel(tests: Mapping[str, Randomization], measure: str, size: tuple[int, int] = (190, 110)) -> Image.Image:
    """The curves of one measure: from 1 for the trained network; at the right, a ring for the control."""
    width, height = (length * _FINER for length in size)
    image = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(image)

    def down(value: float) -> float:
        return (1 - (max(value, _LOWEST) - _LOWEST) / (1.05 - _LOWEST)) * height

    for value in (0, 0.5, 1):
        draw.line([(0, down(value)), (width, down(value))], fill=EMPTY, width=_FINER)
    right = width - 12 * _FINER
    for color, test in zip(_colors(tests), tests.values(), strict=True):
        values = [1.0, *test.scores[measure].nan_to_num(0.0).tolist()]
        points = [(n * right / (len(values) - 1), down(value)) for n, value in enumerate(values)]
        draw.line(points, fill=color, width=2 * _FINER, joint="curve")
        chance = down(test.chance_scores[measure] if math.isfinite(test.chance_scores[measure]) else 0)
        for dot in range(0, int(right), 8 * _FINER):
            draw.line([(dot, chance), (dot + 3 * _FINER, chance)], fill=color, width=_FINER)
        control = test.control_scores.get("random filters", {}).get(measure)
        if control is not None and math.isfinite(control):
            x, y, r = width - 5 * _FINER, down(control), 3.5 * _FINER
            draw.ellipse((x - r, y - r, x + r, y + r), outline=color, width=2 * _FINER)
    small = image.resize(size, Image.Resampling.LANCZOS)
    sheet = Image.new("RGB", (size[0] + 24, size[1]), PAPER)
    sheet.paste(small, (24, 0))
    write = ImageDraw.Draw(sheet)
    for value, text in ((0, "0"), (1, "1")):
        write.text((8, min(max(down(value) / _FINER - TEXT // 2, 0), size[1] - TEXT)), text, FAINT, font(TEXT))
    return captioned(sheet, MEASURE_NAMES[measure])


def _below(images: Sequence[Image.Image], gap: int = 10) -> Image.Image:
    sheet = Image.new("RGB", (max(i.width for i in images), sum(i.height + gap for i in images) - gap), PAPER)
    top = 0
    for image in images:
        sheet.paste(image, (0, top))
        top += image.height + gap
    return sheet
