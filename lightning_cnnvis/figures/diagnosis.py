"""Figures of a diagnosis: kernels, their spectra, and the activity of feature maps over the epochs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from lightning_cnnvis.figures.layout import FAINT, GAP, INK, PAPER, TEXT, captioned, figure, font, mosaic, tile
from lightning_cnnvis.figures.occlusion import heat
from lightning_cnnvis.pictures import Picture, as_bytes, from_bytes

COLORS: dict[str, tuple[int, int, int]] = {
    "dead": (120, 120, 128),
    "always_on": (0, 130, 200),
    "dominating": (150, 50, 190),
    "duplicate": (20, 150, 80),
    "aliased": (225, 60, 40),
    "noisy": (235, 150, 0),
}
"""The colour of the frame of a map, by what is wrong with it. Further kinds are in ink."""

_FRAME = 4
_CELL_WIDTH, _MAX_ROW = 22, 12


def kernel_pictures(weight: Tensor) -> Tensor:
    """Makes pictures of kernels: grey is 0, and the largest weight of a kernel is at full contrast.

    Args:
        weight: ``(K, C, h, w)``; of another number of channels than 3, the mean over them is shown.

    Returns:
        ``(K, 3, h, w)``, ``uint8``.

    Examples:
        >>> kernel_pictures(torch.tensor([[[[0.0, 2.0, -2.0]]]])).squeeze().tolist()[0]
        [128, 255, 0]
    """
    kernels = weight.detach().cpu().float()
    shown = kernels if kernels.shape[1] == 3 else kernels.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    largest = shown.abs().amax((1, 2, 3), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    return as_bytes(0.5 + 0.5 * shown / largest)


def kernels_figure(weight: Tensor, found: Mapping[int, Sequence[str]], title: str) -> Picture:
    """Draws the kernels of a layer, those with findings in frames.

    Args:
        weight: ``(K, C, h, w)``.
        found: What is wrong with a map, by its number.
        title: The title.

    Returns:
        The figure.
    """
    pictures = kernel_pictures(weight)
    cells = [_framed(tile(from_bytes(picture), 52), found.get(n, ()), f"{n}") for n, picture in enumerate(pictures)]
    body = mosaic(cells, _columns(len(cells)))
    return figure(_with_legend(body, found), title, "Grey is 0; each kernel has full contrast. Framed: with findings.")


def spectra_figure(
    power: Tensor, frequency: Tensor, nyquist: float, shares: Tensor, found: Mapping[int, Sequence[str]], title: str
) -> Picture:
    """Draws the spectra of kernels, each with the circle of the Nyquist frequency of their stride.

    Args:
        power: ``(K, H, W)``, with frequency 0 in the middle; see `spectra`.
        frequency: ``(H, W)``, in cycles per pixel.
        nyquist: The Nyquist frequency in cycles per pixel.
        shares: ``(K,)``, share of each kernel's energy outside of the circle.
        found: What is wrong with a map, by its number.
        title: The title.

    Returns:
        The figure.
    """
    side = 64
    cells = []
    for n, spectrum in enumerate(power.float()):
        scaled = spectrum / spectrum.max().clamp_min(torch.finfo(torch.float32).tiny)
        picture = tile(heat(scaled.sqrt()), side, smooth=True).resize((side, side))
        radius = side * nyquist
        ends = side / 2 - radius, side / 2 + radius
        ImageDraw.Draw(picture).ellipse((ends[0], ends[0], ends[1], ends[1]), outline=(255, 255, 255))
        cells.append(_framed(picture, found.get(n, ()), f"{n} · {float(shares[n]):.0%}"))
    body = mosaic(cells, _columns(len(cells)))
    edge = float(frequency.max()) / math.sqrt(2)
    note = (
        f"Frequency 0 in the middle, {edge:.1f} cycles per pixel at the edges. Circle: {nyquist:.3g} cycles per pixel, "
        "the most that the stride can hold; the number is the share of energy outside."
    )
    return figure(_with_legend(body, found), title, note)


def activity_figure(epochs: Sequence[int], activity: Sequence[Tensor], title: str) -> Picture:
    """Draws how active the feature maps of a layer were over the epochs.

    Args:
        epochs: The epochs.
        activity: ``(K,)`` of each epoch: the activity of each map.
        title: The title.

    Returns:
        The figure: a row a map, the most active one last on top; a column an epoch. The colour is the activity, from 0
        to the 99th percentile, under a square root.
    """
    values = torch.stack([one.float().nan_to_num(0).clamp_min(0) for one in activity], dim=1)  # (K, epochs)
    order = values[:, -1].argsort(descending=True, stable=True)
    top = float(torch.quantile(values.flatten(), 0.99)) or 1.0
    colors = heat((values[order] / top).clamp(0, 1).sqrt())
    row = max(2, min(_MAX_ROW, 480 // len(order)))
    width = max(_CELL_WIDTH, min(60, 480 // len(epochs)))
    picture = Image.fromarray(as_bytes(colors[None])[0].permute(1, 2, 0).contiguous().numpy())
    body = picture.resize((width * len(epochs), row * len(order)), Image.Resampling.NEAREST)
    label_width = 44
    sheet = Image.new("RGB", (label_width + body.width, body.height + TEXT + 8), PAPER)
    sheet.paste(body, (label_width, 0))
    draw = ImageDraw.Draw(sheet)
    step = max(1, math.ceil((TEXT + 2) / row))
    for place in range(0, len(order), step):
        draw.text((0, place * row + (row - TEXT) / 2), f"{int(order[place])}", FAINT, font(TEXT - 2))
    every = max(1, math.ceil(34 / width))
    for n in range(0, len(epochs), every):
        draw.text((label_width + n * width + 2, body.height + 4), f"{epochs[n]}", INK, font(TEXT - 1))
    note = "A row a feature map, the most active at the last epoch on top; a column an epoch. Dark: not active."
    return figure(sheet, title, note)


def _columns(count: int) -> int:
    return max(1, min(16, math.ceil(math.sqrt(count * 1.6))))


def _framed(picture: Image.Image, kinds: Sequence[str], caption: str) -> Image.Image:
    """A picture in a frame of the colours of what is wrong, and a line above it."""
    sheet = Image.new("RGB", (picture.width + 2 * _FRAME, picture.height + 2 * _FRAME), PAPER)
    draw = ImageDraw.Draw(sheet)
    for n, kind in enumerate(kinds[:2]):  # one inside of the other
        inset = n * _FRAME // 2
        ends = sheet.width - 1 - inset, sheet.height - 1 - inset
        draw.rectangle((inset, inset, *ends), outline=COLORS.get(kind, INK), width=_FRAME if len(kinds) == 1 else 2)
    sheet.paste(picture, (_FRAME, _FRAME))
    return captioned(sheet, caption, faint=not kinds)


def _with_legend(body: Image.Image, found: Mapping[int, Sequence[str]]) -> Image.Image:
    kinds = [kind for kind in COLORS if any(kind in kinds for kinds in found.values())]
    if not kinds:
        return body
    place, places = 0, []
    for kind in kinds:
        places.append(place)
        place += 20 + math.ceil(font(TEXT).getlength(_name(kind))) + 14
    sheet = Image.new("RGB", (max(body.width, place), body.height + TEXT + 12 + GAP), PAPER)
    sheet.paste(body, (0, 0))
    draw = ImageDraw.Draw(sheet)
    for kind, left in zip(kinds, places, strict=True):
        top = body.height + 10
        draw.rectangle((left, top, left + 12, top + 12), outline=COLORS[kind], width=3)
        draw.text((left + 18, top - 2), _name(kind), INK, font(TEXT))
    return sheet


def _name(kind: str) -> str:
    return kind.replace("_", " ")
