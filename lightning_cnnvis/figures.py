"""Results as labelled pictures, ``uint8`` arrays ``(H, W, 3)``.

A figure is put together from a few pieces: `tile` makes one picture of the right size, `mosaic` sets pictures in
rows and columns, `captioned` writes a line above one, `figure` adds the title.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from lightning_cnnvis.evolution import Column, Convergence, LayerEvolution, PictureStrip
from lightning_cnnvis.functional.deconvnet import Projections
from lightning_cnnvis.functional.visualization import Visualizations
from lightning_cnnvis.inputs import InputSpec

Picture = npt.NDArray[np.uint8]

PAPER, INK, FAINT, EMPTY, MARK = (255, 255, 255), (25, 25, 30), (110, 110, 120), (228, 228, 232), (235, 105, 20)
GAP = 2
MARGIN = 12
TEXT, HEADING = 13, 17
STRIP_SIDE = 56


def contrast(projections: Tensor, percentile: float = 99.0) -> Tensor:
    """Scales projections so that zero is mid-grey and nearly all of each fits into [0, 1].

    Args:
        projections: ``(N, C, H, W)``, values of any scale around zero.
        percentile: Share of a picture's magnitudes, in percent, that is not clipped. Below 100, so that a few
            strong pixels do not leave the rest grey.

    Returns:
        Pictures of the same shape in [0, 1].

    Example:
        >>> contrast(torch.tensor([-2.0, 0.0, 2.0]).view(1, 1, 1, 3)).flatten().tolist()
        [0.0, 0.5, 1.0]
    """
    magnitudes = projections.flatten(1).abs().float().sort(dim=1).values
    last = magnitudes.shape[1] - 1
    scale = magnitudes[:, math.ceil(last * percentile / 100)]
    # a picture of few strokes may be zero at the percentile
    scale = torch.where(scale > 0, scale, magnitudes[:, last]).clamp(min=torch.finfo(torch.float32).tiny)
    return (0.5 + 0.5 * projections.float() / scale.view(-1, 1, 1, 1)).clamp(0, 1)


def reduced(pictures: Tensor, side: int) -> Tensor:
    """Brings pictures ``(N, C, H, W)`` whose longer side exceeds ``side`` to that length; leaves others alone."""
    height, width = pictures.shape[-2:]
    longer = max(height, width)
    if longer <= side:
        return pictures
    size = (max(1, round(height * side / longer)), max(1, round(width * side / longer)))
    return F.interpolate(pictures.float(), size, mode="bicubic", antialias=True)


def tile(picture: Tensor, side: int, *, smooth: bool = False) -> Image.Image:
    """One picture at the size of a figure's tiles.

    Small pictures are enlarged by a whole number with hard pixels, so that each can be seen; large ones are reduced.

    Args:
        picture: ``(C, H, W)`` in [0, 1]. Three channels are taken for colours; of any other number the mean is shown.
        side: Length in pixels that the longer side is brought to, or near to.
        smooth: Enlarges without hard pixels, for pictures that are to look like photographs.

    Returns:
        An RGB image.
    """
    pixels = as_bytes(reduced(picture[None], side))[0]
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    if smooth:
        factor = side / max(image.size)
        size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
        return image.resize(size, Image.Resampling.BICUBIC)
    times = max(1, side // max(image.size))
    return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)


def as_bytes(pictures: Tensor) -> Tensor:
    """Pictures ``(N, C, H, W)`` in [0, 1] as ``uint8`` of three channels, on the CPU."""
    if pictures.shape[1] != 3:
        pictures = pictures.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    return pictures.detach().float().nan_to_num().clamp(0, 1).mul(255).round().byte().cpu()


def mosaic(images: Sequence[Image.Image], columns: int, gap: int = GAP) -> Image.Image:
    """Sets images in rows, each in a cell that holds the largest."""
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    width, height = max(image.width for image in images), max(image.height for image in images)
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), PAPER)
    for n, image in enumerate(images):
        sheet.paste(image, ((n % columns) * (width + gap), (n // columns) * (height + gap)))
    return sheet


def beside(images: Sequence[Image.Image], gap: int = GAP) -> Image.Image:
    """Sets images side by side, each at its own width."""
    sheet = Image.new(
        "RGB", (sum(image.width + gap for image in images) - gap, max(image.height for image in images)), PAPER
    )
    left = 0
    for image in images:
        sheet.paste(image, (left, 0))
        left += image.width + gap
    return sheet


def captioned(image: Image.Image, caption: str, *, faint: bool = False) -> Image.Image:
    """Writes a caption above an image, each of its lines shortened to the image's width."""
    lines = caption.split("\n")
    sheet = Image.new("RGB", (image.width, image.height + len(lines) * (TEXT + 5)), PAPER)
    draw = ImageDraw.Draw(sheet)
    for n, line in enumerate(lines):
        text = _shortened(line, TEXT, image.width)
        draw.text((0, n * (TEXT + 5)), text, FAINT if faint else INK, font(TEXT))
    sheet.paste(image, (0, sheet.height - image.height))
    return sheet


def figure(body: Image.Image, title: str, note: str = "") -> Picture:
    """Adds a title, a note below it and a margin."""
    head = HEADING + 8 + (TEXT + 8 if note else 0)
    longest = max(font(HEADING).getlength(title), font(TEXT).getlength(note))
    width = max(body.width, math.ceil(min(longest, 1200))) + 2 * MARGIN
    sheet = Image.new("RGB", (width, body.height + head + 2 * MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN - 2), _shortened(title, HEADING, width - 2 * MARGIN), INK, font(HEADING))
    if note:
        draw.text((MARGIN, MARGIN + HEADING + 4), _shortened(note, TEXT, width - 2 * MARGIN), FAINT, font(TEXT))
    sheet.paste(body, (MARGIN, MARGIN + head))
    return np.asarray(sheet)


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, so that pictures look the same on every machine."""
    return ImageFont.load_default(size)


def _one_line(text: str) -> str:
    """Without the control characters that a name may hold."""
    return "".join(c if c.isprintable() else " " for c in text)


def _shortened(text: str, size: int, width: int) -> str:
    text = _one_line(text)
    if font(size).getlength(text) <= width:
        return text
    while text and font(size).getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def top_features(
    projections: Projections, k: int, input_spec: InputSpec, title: str, *, side: int = 80, columns: int | None = None
) -> Picture:
    """The top activations of feature maps: their projections beside the image patches, as Fig. 2 of the paper.

    Zeiler & Fergus 2013, arXiv 1311.2901.

    Args:
        projections: ``maps * k`` units, map by map, each from the strongest down, as `TopActivations.project` gives.
        k: How many units there are of each map.
        input_spec: Tells how to turn patches back into pictures.
        title: Title of the figure.
        side: Length of a tile's longer side in pixels.
        columns: How many feature maps stand side by side; chosen to fill a landscape page if None.

    Returns:
        The figure.
    """
    # reduced first: strokes of one pixel cancel out, and the contrast would be scaled for what nobody sees
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
            mosaic([tile(source[n], side) if active[n] else blank for n in units], inner)
            for source in (pictures, patches)
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
    return figure(mosaic(blocks, columns, gap=14), title, note)


def strip_column(
    convergence: Convergence, strongest: Projections, sample_ids: Tensor, fixed: Projections, input_spec: InputSpec
) -> Column:
    """The pictures of one epoch of an evolution strip, small enough to be kept.

    Args:
        convergence: How much has changed since the epoch before.
        strongest: ``F`` projections, each feature map's strongest activation.
        sample_ids: ``(F,)``, the images they came from.
        fixed: ``F`` projections from the images that stay the same.
        input_spec: Tells how to turn patches back into pictures.

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
    """How feature maps change over the epochs: a row a feature map, a column an epoch.

    After Fig. 4 of Zeiler & Fergus 2013 (arXiv 1311.2901), with a second track below each map's first, on an image that
    stays the same.

    Args:
        evolution: The epochs so far, at least one.
        input_spec: Tells how to turn patches back into pictures.
        title: Title of the figure.

    Returns:
        The figure.

    Raises:
        ValueError: If there is no epoch yet.
    """
    if evolution.fixed is None or not evolution.columns:
        raise ValueError("The evolution has no epoch yet: add one before drawing it.")
    side = STRIP_SIDE
    sources = input_spec.denormalize(evolution.fixed.patches[:, 0])
    cell = tile(sources[0], side).size
    heads = [
        _strip_head(int(c), tile(source, side)) for c, source in zip(evolution.fixed.channels, sources, strict=True)
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
        cell.paste(tile(pictures[row] / 255, STRIP_SIDE), place)
    if changed:
        draw.rectangle((width + GAP, 0, 2 * width + GAP - 1, height - 1), outline=MARK, width=2)
    if not column.similarity[row].isnan():
        draw.text((width + 3 * GAP, height + 3 * GAP), f"{column.similarity[row]:.2f}", FAINT, font(TEXT))
    return cell


def state_of(shown: Visualizations, n: int, strongest: Mapping[int, float] | None = None) -> str:
    """How far an optimised image got: a line of figures, and a line with its state.

    Args:
        shown: The images.
        n: Which of them.
        strongest: For channels: the strongest activation on real images, by channel, where it is known.

    Returns:
        The probability and the logit of a class; the peak of a channel, and how many times the strongest activation on
        real images that is; else the score.
    """
    score = float(shown.scores[n])
    if shown.probabilities is not None:
        figures = f"p {float(shown.probabilities[n]):.2f} · {score:.3g}"
    elif shown.peaks is not None:
        peak, real = float(shown.peaks[n]), (strongest or {}).get(shown.targets[n], 0.0)
        figures = f"{peak:.3g}" + (f" · {peak / real:.1f}× real" if real > 0 else "")
    else:
        figures = f"{score:.3g}"
    return f"{figures}\n{shown.states[n]}"


def labelled_pictures(
    pictures: Tensor, labels: Sequence[str], states: Sequence[str], title: str, note: str = "", *, side: int = 144
) -> Picture:
    """A grid of pictures, each with its label and what is to be said of its state.

    Args:
        pictures: ``(N, 3, h, w)``, ``uint8``.
        labels: What each picture is of.
        states: What is to be said of each.
        title: Title of the figure.
        note: A line below the title.
        side: Length of a tile's longer side in pixels.

    Returns:
        The figure.
    """
    tiles = [
        captioned(captioned(tile(picture / 255, side, smooth=True), state, faint=True), _one_line(label))
        for picture, label, state in zip(pictures, labels, states, strict=True)
    ]
    columns = max(1, math.ceil(math.sqrt(len(tiles) * 1.5)))
    return figure(mosaic(tiles, columns, gap=10), title, note)


def picture_strip(
    strip: PictureStrip, labels: Sequence[str], title: str, *, original: Tensor | None = None, side: int = 96
) -> Picture:
    """Pictures over the epochs: a row a label, a column an epoch.

    Args:
        strip: The epochs so far, at least one.
        labels: What each row is of.
        title: Title of the figure.
        original: ``(C, H, W)`` in [0, 1], the image that all pictures were made from; shown beside each row.
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

    columns = [cells_of(column.pictures / 255, column.captions, f"epoch {column.epoch}") for column in strip.columns]
    if original is not None:
        blank = ["\n" * caption.count("\n") for caption in strip.columns[0].captions]
        columns.insert(0, cells_of([original] * len(labels), blank, "original"))
    height = (columns[0].height - TEXT - 5 + 10) // len(labels) - 10
    labels = [_one_line(label) for label in labels]
    width = math.ceil(max(font(TEXT).getlength(label) for label in labels))
    heads = [captioned(Image.new("RGB", (min(width, 160), height - TEXT - 5), PAPER), label) for label in labels]
    return figure(beside([captioned(mosaic(heads, 1, gap=10), " "), *columns], gap=10), title)


def inversion_grid(
    rows: Sequence[Sequence[Tensor]],
    heads: Sequence[str],
    captions: Sequence[Sequence[str]],
    title: str,
    note: str = "",
    *,
    side: int = 112,
) -> Picture:
    """Images beside what was rebuilt of them: a column a layer.

    Mahendran & Vedaldi 2016 (arXiv 1512.02017), Figs 11 and 12.

    Args:
        rows: Pictures ``(C, H, W)`` in [0, 1], as many in each row as there are ``heads``.
        heads: Title of each column.
        captions: What is written above each picture.
        title: Title of the figure.
        note: A line below the title.
        side: Length of a tile's longer side in pixels.

    Returns:
        The figure.
    """
    columns = []
    for n, head in enumerate(heads):
        cells = [
            captioned(tile(row[n], side, smooth=True), caption[n], faint=True)
            for row, caption in zip(rows, captions, strict=True)
        ]
        columns.append(captioned(mosaic(cells, 1, gap=6), head))
    return figure(beside(columns, gap=8), title, note)


def inversion_pictures(
    originals: Tensor,
    images: Tensor,
    errors: Tensor,
    layers: Sequence[str],
    method: str,
    title: Callable[[str], str],
) -> dict[str, Picture]:
    """What was rebuilt from each layer, and from different noise.

    Args:
        originals: ``(N, C, H, W)`` in [0, 1].
        images: ``(L, R, N, C, H, W)`` in [0, 1].
        errors: ``(L, R, N)``.
        layers: Names of the L layers.
        method: How they were rebuilt.
        title: Makes a picture's title of what it shows.

    Returns:
        ``"layers"``, each image and its reconstructions; and ``"restarts"`` if there are several, those of the first.
    """
    note = f"Rebuilt from the layer's code ({method}): squared error over the code's squared norm."
    heads = ["original", *layers]
    drawn = {
        "layers": inversion_grid(
            [[originals[n], *images[:, 0, n]] for n in range(len(originals))],
            heads,
            [["", *map(inversion_caption, images[:, 0, n], errors[:, 0, n])] for n in range(len(originals))],
            title("Inversion"),
            note,
        )
    }
    if images.shape[1] > 1:
        drawn["restarts"] = inversion_grid(
            [[originals[0], *images[:, r, 0]] for r in range(images.shape[1])],
            heads,
            [["", *map(inversion_caption, images[:, r, 0], errors[:, r, 0])] for r in range(images.shape[1])],
            title("Inversion from different noise"),
            note,
        )
    return drawn


def inversion_caption(image: Tensor, error: Tensor) -> str:
    """What is said of a reconstruction: its error, or why it has none."""
    if not image.isfinite().all() or error.isinf():
        return "diverged"
    if error.isnan():
        return "code is 0"
    return f"{float(error):#.2g}" if error < 1 else f"{float(error):.1f}"


def stacked(pictures: Sequence[Picture]) -> Picture:
    """Pictures one below the other, each at its own size."""
    images = [Image.fromarray(picture) for picture in pictures]
    sheet = Image.new("RGB", (max(image.width for image in images), sum(image.height for image in images)), PAPER)
    top = 0
    for image in images:
        sheet.paste(image, (0, top))
        top += image.height
    return np.asarray(sheet)


def forming_strip(
    frames: Sequence[Tensor], steps: Sequence[int], labels: Sequence[str], states: Sequence[str], title: str
) -> Picture:
    """Optimised images as they form: a row an image, from noise on the left to what came of it on the right.

    Args:
        frames: ``(F, C, h, w)`` in [0, 1] of each image, after the steps.
        steps: The steps after which the frames were kept.
        labels: What each image is of.
        states: What is to be said of each at the end.
        title: Title of the figure.

    Returns:
        The figure.
    """
    captions = []
    for label, state in zip(labels, states, strict=True):
        below = "\n" * state.count("\n")  # so that the pictures of a row stand on one line
        captions.append([_one_line(label) + below, *[below] * (len(steps) - 2), state])
    return inversion_grid([list(of_image) for of_image in frames], [f"step {step}" for step in steps], captions, title)
