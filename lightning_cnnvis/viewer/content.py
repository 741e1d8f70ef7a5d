"""The content of a page as plain data: sections of blocks, which any method can give.

The page knows kinds of block, not methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lightning_cnnvis.pictures import Picture


@dataclass(frozen=True)
class Tile:
    """A picture with its label and a line on its state.

    Attributes:
        picture: The picture.
        label: What it shows.
        state: What is to be said of it.
        of: Layer and number of the feature map that it was optimised for; None if it was not for one.
    """

    picture: Picture
    label: str
    state: str = ""
    of: tuple[str, int] | None = None


@dataclass(frozen=True)
class Gallery:
    """Tiles one after the other.

    Attributes:
        tiles: The tiles.
    """

    tiles: tuple[Tile, ...]
    kind: ClassVar[str] = "gallery"


@dataclass(frozen=True)
class Series:
    """A picture, and what was made of it, in one row.

    Attributes:
        original: The picture.
        tiles: What was made of it.
    """

    original: Picture
    tiles: tuple[Tile, ...]
    kind: ClassVar[str] = "series"


@dataclass(frozen=True)
class FeatureMap:
    """A feature map and its strongest activations.

    Attributes:
        channel: Its number.
        activations: The activations, strongest first; one that is not above 0 stands for a missing image.
        sprite: Two rows of as many tiles: the projections, and below each its image patch.
    """

    channel: int
    activations: tuple[float, ...]
    sprite: Picture

    @property
    def active(self) -> bool:
        """Whether any image activates it."""
        return self.activations[0] > 0


@dataclass(frozen=True)
class FeatureMaps:
    """Feature maps of a layer, each of which opens to its strongest activations.

    Attributes:
        features: The feature maps.
        total: The number of feature maps of the layer.
    """

    features: tuple[FeatureMap, ...]
    total: int
    kind: ClassVar[str] = "features"


@dataclass(frozen=True)
class Track:
    """A feature map over the epochs.

    Attributes:
        channel: Its number.
        similarities: Similarity of the projection from the fixed image to that of the epoch before; None where it is
            not known.
        changed: Whether the strongest activation is from another image than at the epoch before.
        sprite: Four rows of a tile an epoch: the strongest activation's projection and its image patch; the projection
            from the fixed image, and that image's patch.
    """

    channel: int
    similarities: tuple[float | None, ...]
    changed: tuple[bool, ...]
    sprite: Picture


@dataclass(frozen=True)
class Tracks:
    """Feature maps of a layer over the epochs, with a slider.

    Attributes:
        epochs: The epochs.
        tracks: The feature maps.
    """

    epochs: tuple[int, ...]
    tracks: tuple[Track, ...]
    kind: ClassVar[str] = "tracks"


@dataclass(frozen=True)
class Curves:
    """A plot.

    Attributes:
        title: What it shows.
        x: What is on the horizontal axis.
        lines: Points ``(x, y)`` by name.
        note: A sentence on how to read it.
        joined: Whether the points of a line are joined.
        log: Whether the horizontal axis is logarithmic.
    """

    title: str
    x: str
    lines: dict[str, tuple[tuple[float, float], ...]]
    note: str = ""
    joined: bool = True
    log: bool = False


@dataclass(frozen=True)
class Plots:
    """Plots of numbers.

    Attributes:
        plots: The plots.
    """

    plots: tuple[Curves, ...]
    kind: ClassVar[str] = "plots"


@dataclass(frozen=True)
class Sentences:
    """Sentences, the first of which sums the others up.

    Attributes:
        lines: The sentences, plain text.
    """

    lines: tuple[str, ...]
    kind: ClassVar[str] = "sentences"


Block = Sentences | Gallery | Series | FeatureMaps | Tracks | Plots


@dataclass(frozen=True)
class Mark:
    """Something to be said of feature maps of a layer, or of the layer.

    Attributes:
        layer: The layer's name.
        channels: Numbers of the feature maps; empty if it is about the layer.
        kind: What it is, in a word or two.
        sentence: What is to be said.
    """

    layer: str
    channels: tuple[int, ...]
    kind: str
    sentence: str


@dataclass(frozen=True)
class Section:
    """A part of a page under a title of its own.

    Attributes:
        title: The title; that of a section about a layer is the layer's name.
        blocks: What is shown.
        note: A sentence on how to read it.
        first: Whether it belongs at the top of the page.
        layer: Whether it is about one layer: then the strip that stands for the network leads to it.
        marks: What is to be said where a layer or a map is shown.
    """

    title: str
    blocks: tuple[Block, ...]
    note: str = ""
    layer: bool = False
    first: bool = False
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True)
class NetworkLayer:
    """A layer of the network.

    Attributes:
        name: Dotted module name.
        kind: Class name of the module.
        shape: Shape of its output for one image.
        field: Height and width of the receptive field in pixels; None: the whole image.
        stride: Distance of two neighbours' receptive fields in pixels; None where there is none.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    field: tuple[int, int] | None = None
    stride: tuple[int, int] | None = None
