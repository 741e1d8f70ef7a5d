"""Figures of occlusion: an image beside maps of what a network says of it while a grey square slides over it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from lightning_cnnvis.figures.layout import (
    GAP,
    INK,
    PAPER,
    TEXT,
    beside,
    captioned,
    figure,
    font,
    mosaic,
    one_line,
    reduced,
    shortened,
    tile,
)
from lightning_cnnvis.figures.projections import contrast
from lightning_cnnvis.functional.deconvnet.projection import Projections
from lightning_cnnvis.functional.sensitivity.occlusion import Occlusion
from lightning_cnnvis.pictures import Picture, from_bytes

# from violet over green to yellow, evenly in lightness
_HEAT = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
_LABELS = (
    (31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189), (140, 86, 75), (227, 119, 194),
)  # fmt: skip
_OTHERS = (190, 190, 195)
MIDDLE_GREY = 0.5


class Cell(NamedTuple):
    """A picture with its place in a figure.

    Attributes:
        head: Title of its column.
        caption: What is said of it.
        image: The picture.
    """

    head: str
    caption: str
    image: Image.Image


def heat(values: Tensor) -> Tensor:
    """Colours values, from violet for 0 over green to yellow for 1.

    Args:
        values: ``(..., H, W)``; what is outside of [0, 1] is clipped, and NaN is 0.

    Returns:
        ``(..., 3, H, W)`` in [0, 1].

    Examples:
        >>> (heat(torch.tensor([[0.0, 1.0]])) * 255).round().int().flatten(1).T.tolist()
        [[68, 1, 84], [253, 231, 37]]
    """
    anchors = torch.tensor(_HEAT, dtype=torch.float32, device="cpu") / 255
    places = values.float().nan_to_num().clamp(0, 1) * (len(anchors) - 1)
    below = places.floor().clamp(max=len(anchors) - 2).long()
    share = (places - below)[..., None]
    colours = anchors[below] * (1 - share) + anchors[below + 1] * share
    return colours.movedim(-1, -3)


def heat_over(image: Tensor, values: Tensor) -> Tensor:
    """Lays coloured values over an image in grey.

    Args:
        image: ``(C, H, W)`` in [0, 1].
        values: ``(H, W)`` in [0, 1].

    Returns:
        ``(3, H, W)`` in [0, 1].
    """
    return 0.4 * image.mean(0, keepdim=True) + 0.6 * heat(values)


def on_image(found: Occlusion, values: Tensor) -> Tensor:
    """Spreads values of the squares over the image: each pixel has that of the square whose centre is nearest.

    Args:
        found: The occlusion.
        values: ``(P,)``.

    Returns:
        ``(H, W)``.
    """
    corners = found.boxes.cpu().view(*found.grid, 4)
    centres = corners[:, 0, 0::2].float().mean(1), corners[0, :, 1::2].float().mean(1)
    rows, columns = (
        (torch.arange(length, dtype=torch.float32, device="cpu")[:, None] + 0.5 - centre).abs().argmin(1)
        for length, centre in zip(found.image_size, centres, strict=True)
    )
    return values.cpu().view(found.grid)[rows][:, columns]


def scaled(values: Tensor) -> Tensor:
    """Scales values to [0, 1] between their lowest and highest; 0 where all are equal.

    Args:
        values: Of any shape.

    Returns:
        The same shape.
    """
    low, high = values.min(), values.max()
    return (values - low) / (high - low).clamp(min=torch.finfo(torch.float32).tiny)


def occlusion_cells(
    images: Tensor,
    found: Occlusion,
    projections: Projections | None,
    class_name: Callable[[int], str],
    *,
    side: int = 144,
) -> list[list[Cell]]:
    """Draws what there is to see of each image, as in Fig. 6 of Zeiler & Fergus 2013 (arXiv 1311.2901).

    Args:
        images: ``(N, C, H, W)`` in [0, 1].
        found: What the network says of them.
        projections: The strongest activation of each image's feature map, projected; None leaves it out.
        class_name: Function that names a class.
        side: Length of a picture's longer side in pixels.

    Returns:
        For each image, the pictures from left to right.
    """
    rows = []
    for n, image in enumerate(images):
        own = _own_pictures(image, n, found, projections, class_name)
        cells = [Cell(head, caption, tile(picture, side, smooth=True)) for head, caption, picture in own]
        if found.top_classes is not None:
            labels = on_image(found, found.top_classes[n])
            cells.append(Cell("top label", "\n", _label_map(labels, class_name, side)))
        rows.append(cells)
    return rows


def _own_pictures(
    image: Tensor, n: int, found: Occlusion, projections: Projections | None, class_name: Callable[[int], str]
) -> list[tuple[str, str, Tensor]]:
    covered = image.clone()
    top, left, bottom, right = found.most_harmful[n].tolist()
    covered[:, top:bottom, left:right] = MIDDLE_GREY
    pictures = [("image", "\n", image), ("most harmful square", "\n", covered)]
    if projections is not None:
        pictures.append(
            (f"{found.layer}", f"#{int(projections.channels[n])}\nprojected", contrast(projections.full()[n, None])[0])
        )
    if found.activities is not None and found.channels is not None:
        pictures.append(_map(found, found.activities[n], "activity", f"#{int(found.channels[n])}"))
    if found.probabilities is not None and found.classes is not None:
        name = class_name(int(found.classes[n]))
        pictures.append(_map(found, found.probabilities[n], "probability", name))
    return pictures


def _map(found: Occlusion, values: Tensor, head: str, of: str) -> tuple[str, str, Tensor]:
    caption = f"{of}\n{_short(float(values.min()))} to {_short(float(values.max()))}"
    return head, caption, heat(on_image(found, scaled(values)))


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _label_map(labels: Tensor, class_name: Callable[[int], str], side: int) -> Image.Image:
    """The most probable class at each place as colours, with a legend beside it, the most frequent first."""
    classes, counts = torch.unique(labels, return_counts=True)
    order = counts.argsort(descending=True, stable=True)[: len(_LABELS)]
    colours = torch.tensor(_OTHERS, dtype=torch.uint8, device="cpu").expand(*labels.shape, 3).clone()
    legend = []
    for colour, place in zip(_LABELS, order.tolist(), strict=False):
        colours[labels == classes[place]] = colours.new_tensor(colour)
        legend.append((colour, class_name(int(classes[place])), float(counts[place]) / labels.numel()))
    others = 1 - sum(share for *_, share in legend)
    if len(classes) > len(legend):
        legend.append((_OTHERS, "others", others))
    drawn = tile(from_bytes(colours.movedim(-1, 0)), side)
    if max(drawn.size) < side:
        drawn = tile(from_bytes(colours.movedim(-1, 0)), side, smooth=True)
    return beside([drawn, _legend(legend)], gap=3 * GAP)


def _legend(entries: Sequence[tuple[tuple[int, int, int], str, float]]) -> Image.Image:
    shares = ["<1%" if share < 0.01 else f"{share:.0%}" for *_, share in entries]
    names = [one_line(name) for _, name, _ in entries]
    texts = [shortened(f"{share} {name}", TEXT, 150) for share, name in zip(shares, names, strict=True)]
    width = math.ceil(max(font(TEXT).getlength(text) for text in texts)) + TEXT + 4
    sheet = Image.new("RGB", (width, len(texts) * (TEXT + 5)), PAPER)
    draw = ImageDraw.Draw(sheet)
    for n, ((colour, *_), text) in enumerate(zip(entries, texts, strict=True)):
        top = n * (TEXT + 5)
        draw.rectangle((0, top + 3, TEXT - 3, top + TEXT), fill=colour)
        draw.text((TEXT + 3, top), text, INK, font(TEXT))
    return sheet


def occlusion_figure(rows: Sequence[Sequence[Cell]], title: str) -> Picture:
    """Draws the pictures of images in rows.

    Args:
        rows: The pictures of each image, from `occlusion_cells`; at least one.
        title: Title of the figure.

    Returns:
        The figure.
    """
    columns = []
    for cells in zip(*rows, strict=True):
        drawn = [captioned(cell.image, cell.caption, faint=True) for cell in cells]
        columns.append(captioned(mosaic(drawn, 1, gap=6), cells[0].head))
    note = (
        "A grey square slides over each image. The maps show, at the square's place, the summed activity of the "
        "feature map that is strongest without it, the probability of the class, from the lowest (violet) to the "
        "highest (yellow), and the most probable class."
    )
    return figure(beside(columns, gap=8), title, note)


def small_maps(images: Tensor, found: Occlusion, side: int) -> Tensor:
    """Lays the probability of each image's class over the image, at a scale that is the same for all: 0 to 1.

    Without classes, it is the activity over that without a square.

    Args:
        images: ``(N, C, H, W)`` in [0, 1].
        found: What the network says of them.
        side: Longest side in pixels; larger pictures are reduced.

    Returns:
        ``(N, 3, h, w)`` in [0, 1].
    """
    values = found.probabilities
    if values is None:
        assert found.activities is not None
        assert found.untouched_activities is not None
        values = found.activities / found.untouched_activities[:, None].clamp(min=1e-12)
    maps = [heat_over(image, on_image(found, of_image)) for image, of_image in zip(images, values, strict=True)]
    return reduced(torch.stack(maps), side).clamp(0, 1)
