"""The viewer's data: what a method shows, as JSON and sprite sheets. The format is described in docs/viewer.md."""

from __future__ import annotations

import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from lightning_cnnvis.pictures import Picture
from lightning_cnnvis.sinks.protocol import EncodedView
from lightning_cnnvis.viewer.content import (
    Block,
    Curves,
    FeatureMaps,
    Gallery,
    NetworkLayer,
    Plots,
    Section,
    Sentences,
    Series,
    Tile,
    Tracks,
)

FORMAT = 1
"""Version of the format. A viewer refuses a later one."""

SHEET_SIDE = 4096
"""Largest height in pixels of a sprite sheet; browsers and WebP have limits."""

FEW_PIXELS = 65536
"""Sheets up to this many pixels lose nothing; larger ones are compressed as photographs are."""


@dataclass(frozen=True)
class Compression:
    """How much pictures are compressed.

    Attributes:
        quality: Quality of sheets that are not lossless, from 1 to 100.
        track_side: Largest width in pixels of the cells of tracks; wider ones are reduced. None: as they are.
        map_side: The same of feature maps.
    """

    quality: int = 75
    track_side: int | None = None
    map_side: int | None = None


@dataclass(frozen=True)
class About:
    """What a section is about, beside what is in it.

    Attributes:
        label: Label of what made it: the method's tag, or that of its callback.
        part: Part of the method's work, such as a layer; empty if there is one part.
        order: Place among the sections of the part.
        epoch: The epoch, counted from 1; 0 if it is not of one.
        numbers: Numbers by tag, such as ``"top_overlap/relu1"``. Those that have no plot are left out.
        plots: Of the numbers' plots the title, the note, and whether they are near 1 where a layer has settled, by the
            first part of their tags.
    """

    label: str
    part: str = ""
    order: int = 0
    epoch: int = 0
    numbers: Mapping[str, float] = field(default_factory=dict)
    plots: Mapping[str, tuple[str, str, bool]] = field(default_factory=dict)


def encode(section: Section, about: About, compression: Compression = Compression()) -> EncodedView:
    """Encodes a section as it is at one epoch.

    Args:
        section: What is shown. Of tracks over the epochs, the epoch's own column is taken: a viewer that has all epochs
            sets them side by side.
        about: What it is about.
        compression: How much its pictures are compressed.

    Returns:
        The head, the body and the sheets.

    Examples:
        >>> picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
        >>> view = encode(Section("Classes", (Gallery((Tile(picture, "cat"),)),)), About("classes", epoch=3))
        >>> json.loads(view.body)["blocks"]
        [{'kind': 'gallery', 'tiles': [{'picture': [0, 0, 0, 4, 4], 'label': 'cat', 'state': ''}]}]
    """
    sheets = _Sheets(compression)
    blocks = [encoded for block in section.blocks if (encoded := _block(block, about.epoch, sheets)) is not None]
    kinds = {tag.partition("/")[0] for tag in about.numbers} & set(about.plots)
    numbers = {
        tag: float(f"{value:.6g}")
        for tag, value in about.numbers.items()
        if math.isfinite(value) and tag.partition("/")[0] in kinds
    }
    head = {
        "format": FORMAT,
        "kind": "section",
        "label": about.label,
        "part": about.part,
        "order": about.order,
        "epoch": about.epoch,
        "title": section.title,
        "note": section.note,
        "layer": section.layer,
        "numbers": numbers,
        "plots": {kind: list(about.plots[kind]) for kind in sorted(kinds)},
        "sheets": len(sheets),
        "marks": dict(Counter(mark.layer for mark in section.marks)),
        "optimised": dict(Counter(tile.of[0] for tile in _all_tiles(section) if tile.of)),
    }
    marks = [asdict(mark) for mark in section.marks]
    key = f"{about.label}/{about.part}/{about.order}"
    return EncodedView(
        key, _json(head), _json({"blocks": blocks, "sheets": sheets.sizes(), "marks": marks}), sheets.encoded()
    )


def encode_network(layers: Iterable[NetworkLayer]) -> EncodedView:
    """Encodes the layers of a network.

    Args:
        layers: The layers, in the order in which they run.

    Returns:
        A head with the layers, and an empty body.
    """
    rows = [
        {"name": layer.name, "kind": layer.kind, "shape": layer.shape, "field": layer.field, "stride": layer.stride}
        for layer in layers
    ]
    return EncodedView("network", _json({"format": FORMAT, "kind": "network", "layers": rows}), _json({}))


def _json(value: Any) -> bytes:
    # ASCII, so that a name that is not valid Unicode travels, too
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii")


class _Sheets:
    """Sprite sheets: pictures of one width, one below the other."""

    def __init__(self, compression: Compression) -> None:
        self.compression = compression
        self._pictures: list[list[Picture]] = []
        self._heights: list[int] = []
        self._open: dict[int, int] = {}  # by width

    def __len__(self) -> int:
        return len(self._pictures)

    def add(self, picture: Picture, side: int | None = None) -> list[int]:
        """Takes a picture.

        Args:
            picture: ``(H, W, 3)``, uint8.
            side: Largest width in pixels; a wider one is reduced. None: as it is.

        Returns:
            Its sheet, left, top, width and height there.
        """
        picture = _unmagnified(picture)
        if side is not None and picture.shape[1] > side:
            height = round(picture.shape[0] * side / picture.shape[1])
            picture = np.asarray(Image.fromarray(picture).resize((side, height), Image.Resampling.BOX))
        height, width, _ = picture.shape
        sheet = self._open.get(width)
        if sheet is None or self._heights[sheet] + height > SHEET_SIDE:
            sheet = self._open[width] = len(self._pictures)
            self._pictures.append([])
            self._heights.append(0)
        top = self._heights[sheet]
        self._pictures[sheet].append(picture)
        self._heights[sheet] += height
        return [sheet, 0, top, width, height]

    def sizes(self) -> list[list[int]]:
        """Width and height of each sheet."""
        return [[sheet[0].shape[1], height] for sheet, height in zip(self._pictures, self._heights, strict=True)]

    def encoded(self) -> tuple[bytes, ...]:
        """The sheets as WebP files."""
        return tuple(_webp(np.concatenate(sheet), self.compression.quality) for sheet in self._pictures)


def _unmagnified(picture: Picture) -> Picture:
    """The picture without the magnification by a whole number that tiles have: the viewer magnifies, too."""
    height, width, _ = picture.shape
    if not np.array_equal(picture[:1], picture[1:2]):  # most have none
        return picture
    for scale in range(16, 1, -1):
        if height % scale == 0 and width % scale == 0:
            small = picture[::scale, ::scale]
            if all(np.array_equal(picture[row::scale, n::scale], small) for row in range(scale) for n in range(scale)):
                return np.ascontiguousarray(small)
    return picture


def _webp(picture: Picture, quality: int) -> bytes:
    buffer = io.BytesIO()
    # few pixels will be magnified, and show what compression does to them
    lossless = picture.shape[0] * picture.shape[1] <= FEW_PIXELS
    Image.fromarray(picture).save(buffer, "WEBP", lossless=lossless, quality=20 if lossless else quality, method=1)
    return buffer.getvalue()


def _block(block: Block, epoch: int, sheets: _Sheets) -> dict[str, Any] | None:
    if isinstance(block, Sentences):
        return {"kind": block.kind, "lines": list(block.lines)}
    if isinstance(block, Gallery):
        return {"kind": block.kind, "tiles": _tiles(block.tiles, sheets)}
    if isinstance(block, Series):
        return {"kind": block.kind, "original": sheets.add(block.original), "tiles": _tiles(block.tiles, sheets)}
    if isinstance(block, FeatureMaps):
        side = sheets.compression.map_side
        maps = [
            {
                "channel": one.channel,
                "activations": _finite(one.activations),
                "picture": sheets.add(one.sprite, None if side is None else side * len(one.activations)),
            }
            for one in block.features
        ]
        return {"kind": block.kind, "total": block.total, "maps": maps}
    if isinstance(block, Plots):
        return {"kind": block.kind, "plots": [_plot(plot) for plot in block.plots]}
    return _column(block, epoch, sheets)


def _plot(plot: Curves) -> dict[str, Any]:
    lines = [[name, [_finite(point) for point in points]] for name, points in plot.lines.items()]
    about = {"title": plot.title, "note": plot.note, "x": plot.x, "joined": plot.joined, "log": plot.log}
    return {**about, "lines": lines}


def _column(block: Tracks, epoch: int, sheets: _Sheets) -> dict[str, Any] | None:
    """The tracks at one epoch; None if they have none there."""
    if epoch not in block.epochs:
        return None
    n, count = block.epochs.index(epoch), len(block.epochs)
    maps = []
    for track in block.tracks:
        side = track.sprite.shape[1] // count
        (similarity,) = _finite([track.similarities[n]])
        column = np.ascontiguousarray(track.sprite[:, n * side : (n + 1) * side])
        picture = sheets.add(column, sheets.compression.track_side)
        maps.append(
            {"channel": track.channel, "similarity": similarity, "changed": track.changed[n], "picture": picture}
        )
    return {"kind": block.kind, "maps": maps}


def _tiles(tiles: Sequence[Tile], sheets: _Sheets) -> list[dict[str, Any]]:
    return [
        {
            "picture": sheets.add(tile.picture),
            "label": tile.label,
            "state": tile.state,
            **({"of": tile.of} if tile.of else {}),
        }
        for tile in tiles
    ]


def _all_tiles(section: Section) -> Iterator[Tile]:
    for block in section.blocks:
        if isinstance(block, Gallery | Series):
            yield from block.tiles


def _finite(values: Iterable[float | None]) -> list[float | None]:
    return [float(f"{value:.6g}") if value is not None and math.isfinite(value) else None for value in values]
