"""What a report shows, as plain data: the page is made of this alone, wherever it came from."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_cnnvis.pictures import Picture


@dataclass(frozen=True)
class NetworkLayer:
    """A layer in the strip that stands for the network.

    Attributes:
        name: Dotted module name.
        kind: Class name of the module.
        shape: Shape of its output for one image.
    """

    name: str
    kind: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class FeatureMap:
    """A feature map and its strongest activations.

    Attributes:
        channel: Its number.
        activations: From the strongest down; those that are not above 0 are of no image.
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
class Track:
    """A feature map over the epochs.

    Attributes:
        channel: Its number.
        similarities: Of the projection from the fixed image to that of the epoch before; None where it is not known.
        changed: Whether the strongest activation is from another image than at the epoch before.
        sprite: Four rows of a tile an epoch: the strongest activation's projection and its image patch; the projection
            from the fixed image, and that image's patch.
    """

    channel: int
    similarities: tuple[float | None, ...]
    changed: tuple[bool, ...]
    sprite: Picture


@dataclass(frozen=True)
class LayerContent:
    """A layer that is shown.

    Attributes:
        name: Dotted module name.
        kind: Class name of the module.
        shape: Shape of its output for one image.
        field: Height and width of the receptive field in pixels; None: the whole image.
        stride: Distance of two neighbours' receptive fields in pixels; None where there is none.
        features: Some of its feature maps.
        epochs: The epochs of the tracks.
        tracks: Some feature maps over the epochs.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    field: tuple[int, int] | None
    stride: tuple[int, int] | None
    features: tuple[FeatureMap, ...]
    epochs: tuple[int, ...] = ()
    tracks: tuple[Track, ...] = ()


@dataclass(frozen=True)
class Tile:
    """A picture with what it is of and a line on its state."""

    picture: Picture
    label: str
    state: str = ""


@dataclass(frozen=True)
class InversionRow:
    """An image and what was rebuilt of it: `rebuilt` has a tile a layer."""

    original: Picture
    rebuilt: tuple[Tile, ...]


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
class ReportContent:
    """Everything on the page; what is empty is left out.

    Attributes:
        title: Name of the network or the run.
        facts: Names and values, shown below the title.
        network: The layers, in the order in which they run.
        layers: Those that are shown.
        classes: Images optimised for the classes.
        inversions: Images and what was rebuilt of them.
        curves: The plots.
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    network: tuple[NetworkLayer, ...]
    layers: tuple[LayerContent, ...]
    classes: tuple[Tile, ...] = ()
    inversions: tuple[InversionRow, ...] = ()
    curves: tuple[Curves, ...] = ()
