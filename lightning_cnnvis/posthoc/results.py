"""What an analysis gives: the method's own result, and the pictures of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lightning_cnnvis import figures
from lightning_cnnvis.functional.activations.top_k import TopActivations
from lightning_cnnvis.functional.deconvnet.projection import Projections
from lightning_cnnvis.functional.deepdream.octaves import Dream
from lightning_cnnvis.functional.inversion.results import Inversions
from lightning_cnnvis.functional.visualization.results import Visualizations
from lightning_cnnvis.pictures import Picture, encode_png
from lightning_cnnvis.sinks.atomic import write
from lightning_cnnvis.sinks.tags import tag_path


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """Pictures by name. In a notebook a result shows itself.

    Attributes:
        pictures: ``(H, W, 3)`` uint8 arrays, by tag such as ``"deconvnet/relu1"``.
        skipped: Image files that could not be read, and why.
    """

    pictures: Mapping[str, Picture]
    skipped: Mapping[Path, str] = field(default_factory=dict, kw_only=True)

    def _repr_png_(self) -> bytes:
        return encode_png(figures.stacked(list(self.pictures.values())))

    def save(self, path: str | Path) -> list[Path]:
        """Writes the pictures.

        Args:
            path: A file that ends in ``.png`` gets all of them, one below the other; else a folder, in which each gets
                a file.

        Returns:
            The files. Each is written under a temporary name first.

        Raises:
            OSError: If one cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() == ".png":
            files = {path: self._repr_png_()}
        else:
            files = {path / f"{tag_path(tag)}.png": encode_png(picture) for tag, picture in self.pictures.items()}
        for file, data in files.items():
            write(file, data)
        return list(files)

    def __repr__(self) -> str:
        """The names of the pictures."""
        return f"{type(self).__name__}({', '.join(self.pictures)})"


@dataclass(frozen=True, eq=False, repr=False)
class DeconvResult(Result):
    """Top activations, projected to pixels.

    Attributes:
        k: How many units there are of each feature map.
        projections: By layer; ``maps * k`` units, map by map, each from the strongest down.
        tops: The activations that were projected, by layer.
    """

    k: int
    projections: Mapping[str, Projections]
    tops: Mapping[str, TopActivations]


@dataclass(frozen=True, eq=False, repr=False)
class ClassesResult(Result):
    """Images optimised for classes and for feature maps.

    Attributes:
        visualizations: What `visualize_classes` gave; None if no classes were asked for.
        features: What `maximize_activation` gave, by layer.
    """

    visualizations: Visualizations | None
    features: Mapping[str, Visualizations]


@dataclass(frozen=True, eq=False, repr=False)
class DreamResult(Result):
    """A photograph as layers dream it.

    Attributes:
        dreams: What `dream` gave, by layer.
    """

    dreams: Mapping[str, Dream]


@dataclass(frozen=True, eq=False, repr=False)
class InvertResult(Result):
    """Images rebuilt from their features.

    Attributes:
        inversions: What `invert_layers` gave.
    """

    inversions: Inversions
