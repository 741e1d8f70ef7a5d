"""Figures of projections beside their image patches, at one epoch and over the epochs."""

from __future__ import annotations

import math

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from lightning_cnnvis.evolution.features import Column, Convergence, LayerEvolution
from lightning_cnnvis.figures.layout import (
    EMPTY,
    FAINT,
    GAP,
    INK,
    MARK,
    PAPER,
    TEXT,
    beside,
    captioned,
    edged,
    figure,
    font,
    mosaic,
    reduced,
    tile,
)
from lightning_cnnvis.functional.deconvnet.projection import Projections
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.pictures import Picture, as_bytes, from_bytes

STRIP_SIDE = 56
"""Length of the longer side of a strip's pictures in pixels."""


def contrast(projections: Tensor, percentile: float = 96.0) -> Tensor:
    """Scales projections so that zero is mid-grey and nearly all of what is in each fits into [0, 1].

    The percentile is that of the pixels that bear something. A deep unit's projection fills a small part of its image:
    a percentile of all pixels, which spares the picture a few outliers, would clip a fifth of what is to be seen.

    Args:
        projections: Projections, ``(N, C, H, W)``, with values of any scale around zero.
        percentile: Share of the magnitudes, in percent, that is not clipped, of those above a twentieth of the
            picture's 99th percentile. Values below 100 keep a few strong pixels from turning the rest grey.

    Returns:
        Pictures of the same shape, in [0, 1].

    Examples:
        >>> contrast(torch.tensor([-2.0, 0.0, 2.0]).view(1, 1, 1, 3)).flatten().tolist()
        [0.0, 0.5, 1.0]
    """
    magnitudes = projections.flatten(1).abs().float()
    last = magnitudes.shape[1] - 1
    above, high_at = last - math.ceil(last * percentile / 100), last - math.ceil(last * 0.99)
    # the few largest take a fraction of the time that sorting all takes
    largest = magnitudes.topk(max(above, high_at) + 1, dim=1).values
    # a picture of few strokes may be zero at the percentile
    high = torch.where(largest[:, high_at] > 0, largest[:, high_at], largest[:, 0])
    tiny = torch.finfo(torch.float32).tiny
    bearing = (magnitudes >= high.clamp(min=tiny)[:, None] / 20).sum(dim=1).clamp(min=1)
    rank = bearing - 1 - torch.ceil((bearing - 1).double() * (percentile / 100)).long()
    scale = largest.gather(1, rank[:, None]).clamp(min=tiny)
    return (0.5 + 0.5 * projections.float() / scale.view(-1, 1, 1, 1)).clamp(0, 1)


def top_features(
    projections: Projections,
    k: int,
    input_spec: InputSpec,
    title: str,
    *,
    side: int = 80,
    columns: int | None = None,
    remark: str = "",
) -> Picture:
    """Draws the top activations of feature maps: their projections beside the image patches.

    The figure follows Fig. 2 of Zeiler & Fergus 2013 (arXiv 1311.2901).

    Args:
        projections: Projections of ``maps * k`` units, map by map, from the strongest unit of a map to the weakest, as
            `TopActivations.project` returns them.
        k: Number of units per map.
        input_spec: Format of the network's input, used to turn patches back into pictures.
        title: Title of the figure.
        side: Length of a tile's longer side in pixels.
        columns: Number of feature maps side by side. None chooses one that fills a landscape page.
        remark: A sentence that is added to the note.

    Returns:
        The figure.
    """
    # reduced first: lines one pixel wide cancel out, and must not determine the scale of the contrast
    pictures = contrast(reduced(projections.pixels, side))
    patches = input_spec.denormalize(projections.patches)
    active = (projections.activations > 0).tolist()
    maps = len(projections) // k
    inner = math.ceil(math.sqrt(k))
    blocks = []
    for start in range(0, maps * k, k):
        units = range(start, start + k)
        blank = Image.new("RGB", tile(patches[start], side).size, EMPTY)
        down, seen = (
            mosaic([draw(source[n], side) if active[n] else blank for n in units], inner)
            for source, draw in ((pictures, tile), (patches, _patch))
        )
        channel, strongest = int(projections.channels[start]), float(projections.activations[start])
        caption = f"#{channel}   {strongest:.3g}" if active[start] else f"#{channel}   never active"
        blocks.append(captioned(mosaic([down, seen], 2, gap=3 * GAP), caption, faint=not active[start]))
    if columns is None:
        columns = max(1, round(math.sqrt(maps * 1.6 * blocks[0].height / blocks[0].width)))
    note = (
        f"Top {k} activations of {maps} feature maps (number, strongest activation): "
        "projected to pixels, zero is mid-grey; beside them the image patches."
    )
    return figure(mosaic(blocks, columns, gap=14), title, f"{note} {remark}".strip())


def _patch(picture: Tensor, side: int) -> Image.Image:
    return edged(tile(picture, side))


def strip_column(
    convergence: Convergence, strongest: Projections, sample_ids: Tensor, fixed: Projections, input_spec: InputSpec
) -> Column:
    """Makes the column of one epoch of an evolution strip, in pictures small enough for a checkpoint.

    Args:
        convergence: Change since the epoch shown before.
        strongest: Projections of the strongest activations, one for each of the ``F`` feature maps.
        sample_ids: Ids of the images that they come from, ``(F,)``.
        fixed: Projections from the images that stay the same, one for each feature map.
        input_spec: Format of the network's input, used to turn patches back into pictures.

    Returns:
        The column.
    """
    return Column(
        epoch=convergence.epoch,
        projections=as_bytes(contrast(reduced(strongest.pixels, STRIP_SIDE))),
        patches=as_bytes(input_spec.denormalize(reduced(strongest.patches, STRIP_SIDE))),
        fixed=as_bytes(contrast(reduced(fixed.pixels, STRIP_SIDE))),
        sample_ids=sample_ids.cpu(),
        similarity=convergence.similarity,
    )


def evolution_strip(evolution: LayerEvolution, input_spec: InputSpec, title: str) -> Picture:
    """Draws feature maps over the epochs: one row per feature map, one column per epoch.

    The figure follows Fig. 4 of Zeiler & Fergus 2013 (arXiv 1311.2901), with a second track below the first of each
    map: the projections from an image that stays the same.

    Args:
        evolution: The epochs so far, at least one.
        input_spec: Format of the network's input, used to turn patches back into pictures.
        title: Title of the figure.

    Returns:
        The figure.

    Raises:
        ValueError: If there is no epoch yet.
    """
    if evolution.fixed is None or not evolution.columns:
        raise ValueError("The evolution has no epoch yet. Add one before drawing it.")
    side = STRIP_SIDE
    sources = input_spec.denormalize(evolution.fixed.patches[:, 0])
    cell = tile(sources[0], side).size
    heads = [
        _strip_head(int(c), _patch(source, side)) for c, source in zip(evolution.fixed.channels, sources, strict=True)
    ]
    columns = [captioned(mosaic(heads, 1, gap=10), " ")]
    before: Column | None = None
    for column in evolution.columns:
        cells = []
        for row in range(len(heads)):
            changed = before is not None and int(before.sample_ids[row]) != int(column.sample_ids[row])
            cells.append(_strip_cell(column, row, cell, changed))
        columns.append(captioned(mosaic(cells, 1, gap=10), f"epoch {column.epoch}"))
        before = column
    note = (
        "Above: the strongest activation's projection, its image patch beside it, framed where the image is a new one. "
        "Below: from the image on the left at every epoch, with the similarity to the column before."
    )
    return figure(beside(columns, gap=10), title, note)


def _strip_head(channel: int, source: Image.Image) -> Image.Image:
    head = Image.new("RGB", (source.width, 2 * source.height + GAP), PAPER)
    ImageDraw.Draw(head).text((0, 0), f"#{channel}", INK, font(TEXT))
    head.paste(source, (0, source.height + GAP))
    return head


def _strip_cell(column: Column, row: int, size: tuple[int, int], changed: bool) -> Image.Image:
    width, height = size
    cell = Image.new("RGB", (2 * width + GAP, 2 * height + GAP), PAPER)
    draw = ImageDraw.Draw(cell)
    for pictures, place in (
        (column.projections, (0, 0)),
        (column.patches, (width + GAP, 0)),
        (column.fixed, (0, height + GAP)),
    ):
        draw_tile = _patch if pictures is column.patches else tile
        cell.paste(draw_tile(from_bytes(pictures[row]), STRIP_SIDE), place)
    if changed:
        draw.rectangle((width + GAP, 0, 2 * width + GAP - 1, height - 1), outline=MARK, width=2)
    if not column.similarity[row].isnan():
        draw.text((width + 3 * GAP, height + 3 * GAP), f"{column.similarity[row]:.2f}", FAINT, font(TEXT))
    return cell
